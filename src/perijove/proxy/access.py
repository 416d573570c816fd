"""The access log: one JSON line per request, written ten times a second.

Lines are built from one template. Query strings are left out, because they carry OAuth codes
and tokens. A reader that does not keep up costs lines, counted, never time.
"""

import os
import select
import stat
import time
from collections.abc import Callable
from typing import Final

FLUSH_SECONDS: Final = 0.1
MAX_PENDING_BYTES: Final = 4 * 1024 * 1024
MAX_PATH_BYTES: Final = 1024

_ATOMIC_BYTES: Final = select.PIPE_BUF
_LINE: Final = (
    b'{"event":"request","at":"%b","client":"%b","method":"%b","path":"%b","status":%d,'
    b'"bytes":%d,"ms":%.1f,"launch":"%b"}\n'
)


class AccessLog:
    """Gathers lines in memory and writes them to a descriptor it does not own."""

    def __init__(self, fd: int, call_later: Callable[[float, Callable[[], None]], object]) -> None:
        self.dropped = 0
        self._fd = fd
        self._call_later = call_later
        self._lines: list[bytes] = []
        self.pending_bytes = 0
        self._at = b""
        self._is_scheduled = False
        self._is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        self._ready = select.poll()
        if not self._is_file:
            self._ready.register(fd, select.POLLOUT)

    def write(
        self,
        client: bytes,
        method: bytes,
        path: bytes,
        status: int,
        size: int,
        seconds: float,
        launch: bytes,
    ) -> None:
        """Add the line of one request; `path` is printable ASCII without a backslash."""
        if not self._is_scheduled:
            self._is_scheduled = True
            self._at = _now()
            self._call_later(FLUSH_SECONDS, self._flush_later)
        if len(path) > MAX_PATH_BYTES:
            path = path[:MAX_PATH_BYTES]
        if b'"' in path:
            path = path.replace(b'"', b'\\"')
        line = _LINE % (self._at, client, method, path, status, size, seconds * 1000, launch)
        if self.pending_bytes > MAX_PENDING_BYTES:
            self.dropped += 1
            return
        self.pending_bytes += len(line)
        self._lines.append(line)

    def flush(self) -> None:
        """Write what the descriptor takes without making us wait."""
        if not self._is_file and not self._is_writable():
            return
        lines, self._lines = self._lines, []
        done = 0
        while done < len(lines):
            upto = len(lines) if self._is_file else _end_of_batch(lines, done)
            if not self._is_file and not self._is_writable():
                break
            try:
                write_all(self._fd, b"".join(lines[done:upto]))
            except OSError:
                self.dropped += len(lines) - done
                self.pending_bytes = 0
                return
            done = upto
        self._lines = lines[done:] + self._lines
        self.pending_bytes = sum(map(len, self._lines))

    def _flush_later(self) -> None:
        self._is_scheduled = False
        self.flush()
        if self._lines:
            self._is_scheduled = True
            self._at = _now()
            self._call_later(FLUSH_SECONDS, self._flush_later)

    def _is_writable(self) -> bool:
        return any(event & select.POLLOUT for _, event in self._ready.poll(0))


def write_all(fd: int, content: bytes) -> None:
    """Write all of `content`."""
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def _end_of_batch(lines: list[bytes], start: int) -> int:
    """Return the end of the lines a writable pipe takes at once, so that writers never mix."""
    size, end = len(lines[start]), start + 1
    while end < len(lines) and size + len(lines[end]) <= _ATOMIC_BYTES:
        size += len(lines[end])
        end += 1
    return end


def _now() -> bytes:
    seconds = time.time()
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return b"%b.%03dZ" % (whole.encode(), int(seconds * 1000) % 1000)
