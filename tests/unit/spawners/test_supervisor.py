"""The supervisor's parts that need no process of their own."""

import ast
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perijove.agent import local_files
from perijove.spawners.local import supervisor

SOURCE: Final = local_files()["supervisor.py"]
"""As it is delivered, with the parts it is made of."""
# Runs the supervisor in the process that the test waits for.
WITHOUT_FORK = """
import os, sys
source, directory = sys.argv[1:]
os.fork = lambda: 0
os.setsid = lambda: None
sys.argv = [source, directory]
exec(compile(open(source).read(), source, "exec"), {"__name__": "__main__", "__file__": source})
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the supervisor as a file."""
    path = tmp_path_factory.mktemp("delivered") / "supervisor.py"
    path.write_text(SOURCE)
    return path


def test_it_runs_on_old_machines() -> None:
    """The file is one that Python 3.6 can read, and imports the standard library only."""
    tree = ast.parse(SOURCE, feature_version=(3, 6))

    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import)
                for name in node.names}  # fmt: skip
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names


def test_it_does_nothing_without_its_directory(tmp_path: Path, program: Path) -> None:
    """A supervisor that comes after its launch was removed ends quietly and makes nothing."""
    result = subprocess.run(
        [sys.executable, "-I", "-S", program, tmp_path / "gone"],
        capture_output=True, timeout=30, check=False,
    )  # fmt: skip

    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mark", ["started", "cancelled", "end.json"])
def test_it_starts_nothing_after_any_mark(tmp_path: Path, program: Path, mark: str) -> None:
    """A launch that was started, cancelled or ended is not started, even if its order is there."""
    (tmp_path / "spec.json").write_text("{}")
    (tmp_path / mark).write_text("{}")

    subprocess.run(
        [sys.executable, "-I", "-S", "-c", WITHOUT_FORK, program, tmp_path],
        timeout=30, check=True,
    )  # fmt: skip

    assert {path.name for path in tmp_path.iterdir()} == {
        "spec.json", "lock", "supervisor.log", mark
    }  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(8, 64), st.lists(st.binary(max_size=40), max_size=20))
def test_log_keeps_the_beginning_and_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, parts: list[bytes]
) -> None:
    """Whatever is written in whatever pieces, both ends of it are kept within the limit."""
    for old in tmp_path.iterdir():
        old.unlink()
    monkeypatch.chdir(tmp_path)
    log = supervisor.Log(limit)
    for part in parts:
        log.write(part)

    written = b"".join(parts)
    head, older, tail = (
        (tmp_path / name).read_bytes() if (tmp_path / name).exists() else b""
        for name in ("log", "log.tail.1", "log.tail")
    )
    assert head == written[: limit // 2]
    assert written[len(head) :].endswith(older + tail)
    assert len(older + tail) >= min(limit // 4, len(written) - len(head))
    assert len(head + older + tail) <= limit


def test_port_is_free_or_not() -> None:
    """A port somebody listens on is not free, and is not chosen from a range of one."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        assert not supervisor.is_free(port)
        assert supervisor.free_port([port, port]) is None
        assert supervisor.free_port(None) not in (None, port)
