"""What the files of a launch directory prove."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from perijove.domain.launch import Cause, End
from perijove.spawners.local.directory import (
    Condition,
    Label,
    LaunchDirectory,
    UnreadableLaunch,
    end_of,
)

LABEL = Label(name="pj-1", launch_id="lch_1", installation="inst", owner="ann")
HOLDER = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.lockf(file, fcntl.LOCK_EX)
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture
def directory(tmp_path: Path) -> LaunchDirectory:
    """Give the directory of a launch that was just written down."""
    return LaunchDirectory.create(tmp_path / "pj-1", LABEL, {"spec.json": {"token": "secret"}})


@contextmanager
def held(directory: LaunchDirectory) -> Iterator[int]:
    """Hold the lock as a supervisor does."""
    command = [sys.executable, "-I", "-S", "-c", HOLDER, str(directory.path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        yield holder.pid
        holder.communicate()


def put(directory: LaunchDirectory, **files: object) -> None:
    """Write files as a supervisor does."""
    for name, value in files.items():
        (directory.path / name.replace("_", ".")).write_text(json.dumps(value))


def test_it_is_written_as_a_whole(directory: LaunchDirectory) -> None:
    """A new directory has all it needs, for the owner's eyes only, and nothing half made."""
    assert directory.label() == LABEL
    assert json.loads((directory.path / "spec.json").read_text()) == {"token": "secret"}
    assert (directory.path / "spec.json").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in directory.path.parent.iterdir()] == ["pj-1"]


def test_the_first_one_stays(directory: LaunchDirectory) -> None:
    """Making it again finds the first one as it was."""
    LaunchDirectory.create(directory.path, LABEL, {"spec.json": {"token": "other"}})

    assert json.loads((directory.path / "spec.json").read_text()) == {"token": "secret"}
    assert [path.name for path in directory.path.parent.iterdir()] == ["pj-1"]


def test_it_cannot_be_made_nowhere(tmp_path: Path) -> None:
    """A folder that is away is an error, not a reason to make another one."""
    with pytest.raises(FileNotFoundError):
        LaunchDirectory.create(tmp_path / "away" / "pj-1", LABEL, {})


def condition(directory: LaunchDirectory) -> Condition | None:
    """Return what the files prove."""
    view = directory.look()
    return view.condition if view else None


def test_order_alone_is_a_request(directory: LaunchDirectory) -> None:
    """Before any supervisor, a launch is requested."""
    assert condition(directory) is Condition.REQUESTED


def test_lock_held_is_alive(directory: LaunchDirectory) -> None:
    """Whatever else is there, a launch with a supervisor is alive, at the address it wrote."""
    put(directory, started={"at": 1.0}, end_json={"exit": 0})
    put(directory, address_json={"host": "127.0.0.1", "port": 81, "pid": 7})

    with held(directory) as pid:
        view = directory.look()
        assert directory.holder() == pid

    assert view is not None
    assert view.condition is Condition.ALIVE
    assert view.since == datetime.fromtimestamp(1, UTC)
    assert view.address is not None
    assert view.address.url == "http://127.0.0.1:81"


def test_end_file_without_lock_is_an_end(directory: LaunchDirectory) -> None:
    """An end that was written counts when the supervisor has gone."""
    put(directory, started={"at": 1.0}, end_json={"exit": 3, "ended_at": 2.0})

    view = directory.look()

    assert view is not None
    assert (view.condition, view.end) == (Condition.ENDED, End(cause=Cause.EXITED, code=3))
    assert view.since == datetime.fromtimestamp(2, UTC)


def test_started_without_lock_or_end_is_lost(directory: LaunchDirectory) -> None:
    """A supervisor that went without a word leaves an unknown cause."""
    put(directory, started={"at": 1.0})

    view = directory.look()

    assert view is not None
    assert view.condition is Condition.LOST
    assert view.end == End(cause=Cause.UNKNOWN, reason="supervisor-lost")


def test_damaged_mark_is_a_mark(directory: LaunchDirectory) -> None:
    """That a launch was started is known by the file, not by what is in it."""
    (directory.path / "started").write_bytes(b"\xff")

    assert condition(directory) is Condition.LOST


def test_cancelled_without_start_never_started(directory: LaunchDirectory) -> None:
    """A launch that was cancelled before any supervisor had it never started, token and all."""
    directory.cancel(5)

    view = directory.look()

    assert view is not None
    assert view.condition is Condition.CANCELLED
    assert view.end == End(cause=Cause.NEVER_STARTED, reason="cancelled")
    assert not (directory.path / "spec.json").exists()


def test_cancel_needs_a_directory(tmp_path: Path) -> None:
    """What is not there cannot be cancelled."""
    with pytest.raises(FileNotFoundError):
        LaunchDirectory(tmp_path / "gone").cancel(5)


def test_removed_one_proves_nothing(directory: LaunchDirectory) -> None:
    """A directory that is taken away says nothing about its launch, and removing it is quiet."""
    put(directory, started={"at": 1.0})
    directory.remove()
    directory.remove()

    assert directory.look() is None
    assert not list(directory.path.parent.iterdir())


def test_label_tells_gone_from_damaged(directory: LaunchDirectory) -> None:
    """A label that cannot be read is one thing, a directory that is not there another."""
    (directory.path / "label.json").write_text('{"name": 1')
    with pytest.raises(UnreadableLaunch):
        directory.label()
    (directory.path / "label.json").unlink()
    with pytest.raises(UnreadableLaunch):
        directory.label()
    directory.remove()
    with pytest.raises(FileNotFoundError):
        directory.label()


def test_sweep_removes_what_a_crash_left(directory: LaunchDirectory) -> None:
    """Drafts of the dead and half removed launches go; a draft of the living stays."""
    folder = directory.path.parent
    with subprocess.Popen(["/bin/true"]) as dead:
        pass
    for name in (f".new-{dead.pid}-a", f".new-{os.getpid()}-b", ".gone-x"):
        (folder / name).mkdir()

    LaunchDirectory.sweep(folder)

    assert {path.name for path in folder.iterdir()} == {"pj-1", f".new-{os.getpid()}-b"}


def test_output_joins_what_was_kept(directory: LaunchDirectory) -> None:
    """Beginning and end are shown with a mark between them, the end first when room is short."""
    for name, content in (("log", b"head"), ("log.tail.1", b"older"), ("log.tail", b"newest")):
        (directory.path / name).write_bytes(content)

    assert directory.output(1000) == b"head\n[...]\noldernewest"
    assert directory.output(6) == b"newest"


def test_lock_of_another_process_is_left_alone(directory: LaunchDirectory) -> None:
    """Looking at a lock neither takes it nor drops it."""
    with held(directory) as pid:
        for _ in range(3):
            directory.look()
        with (directory.path / "lock").open("r+b") as file, pytest.raises(BlockingIOError):
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert directory.holder() == pid


@pytest.mark.parametrize(
    ("outcome", "end"),
    [
        ({"exit": 0}, End(cause=Cause.EXITED, code=0)),
        ({"exit": None, "signal": 11}, End(cause=Cause.SIGNAL, code=11)),
        (
            {"signal": 9, "out_of_memory": True},
            End(cause=Cause.SIGNAL, code=9, reason="maybe-out-of-memory"),
        ),
        ({"failure": "port-taken"}, End(cause=Cause.NEVER_STARTED, reason="port-taken")),
        ({}, End(cause=Cause.UNKNOWN)),
        ({"exit": "0"}, End(cause=Cause.UNKNOWN)),
    ],
)
def test_end_is_read_from_the_supervisors_words(outcome: dict[str, object], end: End) -> None:
    """Each way a launch can end has its evidence; what cannot be understood is unknown."""
    assert end_of(outcome) == end
