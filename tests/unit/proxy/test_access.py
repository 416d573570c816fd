"""The access log: what a line holds, and a reader that does not keep up."""

import json
import os
from collections.abc import Callable
from pathlib import Path

from perijove.proxy.access import MAX_PATH_BYTES, MAX_PENDING_BYTES, AccessLog


class Later:
    """Keeps the calls that were asked for later."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def __call__(self, seconds: float, call: Callable[[], None]) -> None:
        """Keep `call`."""
        self.calls.append(call)


def write(log: AccessLog, path: bytes = b'/user/a"n/') -> None:
    """Write one line."""
    log.write(b"192.0.2.1", b"GET", path, 200, 12, 0.0251, b"l1")


def test_lines_are_json(tmp_path: Path) -> None:
    """Each line is one JSON object, whatever the path holds."""
    later = Later()
    with (tmp_path / "log").open("wb") as file:
        log = AccessLog(file.fileno(), later)
        write(log)
        write(log, b"/" + b"x" * 5000)
        assert (tmp_path / "log").read_bytes() == b""
        assert len(later.calls) == 1
        later.calls.pop()()
    first, second = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert first["path"] == '/user/a"n/'
    assert (first["status"], first["bytes"], first["ms"], first["launch"]) == (200, 12, 25.1, "l1")
    assert len(second["path"]) == MAX_PATH_BYTES


def test_a_reader_that_stops_costs_lines_only() -> None:
    """A full pipe is never waited for; what does not fit into memory is dropped and counted."""
    later = Later()
    reading, writing = os.pipe()
    try:
        log = AccessLog(writing, later)
        while not log.dropped:
            write(log)
            if len(later.calls) > 1:
                later.calls.pop()()
            log.flush()
            assert log.pending_bytes <= MAX_PENDING_BYTES + 1024
        first = os.read(reading, 65536)
        assert all(json.loads(line) for line in first.splitlines())
    finally:
        os.close(reading)
        os.close(writing)
