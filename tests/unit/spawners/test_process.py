"""What Linux tells about processes."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perijove.spawners.local import process

WAIT = [sys.executable, "-I", "-S", "-c", "import sys; print(flush=True); sys.stdin.read()"]


@pytest.fixture
def run() -> Iterator[Callable[[str], "subprocess.Popen[bytes]"]]:
    """Give a way to start a process with a marker, which ends with the test."""
    started = []

    def start(marker: str) -> "subprocess.Popen[bytes]":
        one = subprocess.Popen(
            WAIT, env={process.MARKER: marker}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        started.append(one)
        assert one.stdout is not None
        one.stdout.readline()
        return one

    yield start
    for one in started:
        one.communicate()


def test_marked_processes_are_found(run: Callable[[str], "subprocess.Popen[bytes]"]) -> None:
    """The processes of the launches asked for are found, and no other ones."""
    one, two, _ = run("pj-1"), run("pj-1"), run("pj-10")

    found = process.marked_processes({"pj-1", "pj-2"})

    assert {name: set(pids) for name, pids in found.items()} == {
        "pj-1": {one.pid, two.pid},
        "pj-2": set(),
    }


def test_only_the_marked_are_killed(run: Callable[[str], "subprocess.Popen[bytes]"]) -> None:
    """A process id that belongs to somebody else by now is spared."""
    ours, recycled = run("pj-1"), run("pj-2")

    process.kill_marked("pj-1", [ours.pid, recycled.pid, os.getpid()])

    assert ours.wait(10) == -9
    assert recycled.poll() is None


def test_process_that_is_not_meant_any_more_is_not_opened() -> None:
    """A process is handed out only if, once held, it is still the right one."""
    with pytest.raises(ZeroDivisionError):
        process.open_process(os.getpid(), lambda pid: pid // 0 == 0)
    assert process.open_process(os.getpid(), lambda pid: False) is None
    assert process.open_process(2**22 - 1, lambda pid: True) is None


def test_descendants_include_grandchildren() -> None:
    """Everything below a process is found, and nothing beside it."""
    script = "sleep 60 & echo $!; wait"
    with subprocess.Popen(["/bin/sh", "-c", script], stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        child = int(shell.stdout.readline())
        below = set(process.descendants(os.getpid()))
        apart = set(process.descendants(child))
        os.kill(child, 9)

    assert {os.getpid(), shell.pid, child} <= below
    assert apart == {child}


def test_listeners_are_told_by_who_would_answer() -> None:
    """A socket bound to the loopback address wins over one that takes every address."""
    with socket.create_server(("127.0.0.1", 0)) as exact:
        port = exact.getsockname()[1]
        ((inode, owner),) = process.listening_sockets(port).items()

        assert owner == os.geteuid()
        assert inode == str(os.fstat(exact.fileno()).st_ino)
        assert inode in process.held_sockets(os.getpid())
    assert process.listening_sockets(port) == {}


def test_lock_without_file_is_held_by_nobody(tmp_path: Path) -> None:
    """A file that is not there, or that nobody locked, has no holder."""
    (tmp_path / "lock").touch()

    assert process.lock_holder(tmp_path / "gone") is None
    assert process.lock_holder(tmp_path / "lock") is None


def test_start_tells_a_process_from_a_later_one() -> None:
    """A process has one time of start for as long as it lives, and who is gone has none."""
    with subprocess.Popen(["sleep", "60"]) as child:
        first = process.started_ticks(child.pid)
        again = process.started_ticks(child.pid)
        child.kill()
        child.wait()

    assert first is not None
    assert again == first
    assert process.started_ticks(child.pid) is None


def test_dead_process_has_no_marker_and_no_sockets() -> None:
    """Who is gone has nothing."""
    assert process.marker_of(2**22 - 1) is None
    assert process.held_sockets(2**22 - 1) == frozenset()
