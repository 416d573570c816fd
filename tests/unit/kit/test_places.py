"""The data directory: private, used by one, on a disk, with room for sockets."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from perijove.kit.places import (
    NETWORK_FILE_SYSTEMS,
    PlaceError,
    ensure_private,
    file_system_of,
    locked,
    socket_directory,
)

MOUNTS = r"""
/dev/sda1 / ext4 rw 0 0
proc /proc proc rw 0 0
filer:/export /home nfs4 rw 0 0
/dev/sdb1 /home/local xfs rw 0 0
scratch /work\040space lustre rw 0 0
overlay / overlay rw 0 0
short
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/perijove", "overlay"),
        ("/", "overlay"),
        ("/home", "nfs4"),
        ("/home/ann/perijove", "nfs4"),
        ("/homes/ann", "overlay"),
        ("/home/local/perijove", "xfs"),
        ("/home/localhost", "nfs4"),
        ("/work space/a", "lustre"),
    ],
)
def test_the_nearest_mount_tells_the_file_system(path: str, kind: str) -> None:
    """The longest mount point counts, of equal ones the later; names are compared whole."""
    assert file_system_of(Path(path), MOUNTS) == kind


def test_shared_file_systems_are_known() -> None:
    """What many machines share is nothing for SQLite; a disk is."""
    assert {"nfs", "nfs4", "lustre", "gpfs", "cifs"} <= NETWORK_FILE_SYSTEMS
    assert not {"ext4", "xfs", "btrfs", "overlay", "tmpfs", ""} & NETWORK_FILE_SYSTEMS


def test_this_machine_tells_its_file_system(tmp_path: Path) -> None:
    """The kernel's own table can be read."""
    assert file_system_of(tmp_path)


def test_a_directory_is_made_for_its_owner_only(tmp_path: Path) -> None:
    """With its parents, whatever the umask."""
    before = os.umask(0)
    try:
        made = ensure_private(tmp_path / "a" / "b")
    finally:
        os.umask(before)

    assert made.stat().st_mode & 0o777 == 0o700
    assert ensure_private(made) == made


def test_an_empty_directory_is_closed(tmp_path: Path) -> None:
    """One that was made for us by an administrator or a container."""
    directory = tmp_path / "data"
    directory.mkdir(mode=0o755)

    assert ensure_private(directory).stat().st_mode & 0o777 == 0o700


def test_a_directory_with_other_things_is_left_alone(tmp_path: Path) -> None:
    """A home directory or /tmp given by mistake stays open to whom it was."""
    directory = tmp_path / "data"
    directory.mkdir()
    directory.chmod(0o755)
    (directory / "letter").touch()

    with pytest.raises(PlaceError, match="not empty"):
        ensure_private(directory)
    assert directory.stat().st_mode & 0o777 == 0o755


@pytest.mark.needs("root")
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """Who owns it could read and change everything in it."""
    directory = tmp_path / "data"
    directory.mkdir()
    os.chown(directory, 12345, -1)

    with pytest.raises(PlaceError, match="uid 12345"):
        ensure_private(directory)


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    """What is no directory cannot be one."""
    (tmp_path / "data").touch()

    with pytest.raises(PlaceError, match="data"):
        ensure_private(tmp_path / "data")


def test_a_lock_has_one_holder_until_it_is_let_go(tmp_path: Path) -> None:
    """The second is told who has it; another name is another lock."""
    with locked(tmp_path, "hub"):
        with pytest.raises(PlaceError, match="in use by another hub"), locked(tmp_path, "hub"):
            pass
        with locked(tmp_path, "other"):
            pass
    with locked(tmp_path, "hub"):
        pass


def test_sockets_are_beside_the_data_where_there_is_room(tmp_path: Path) -> None:
    """In a private directory below it."""
    directory = socket_directory(ensure_private(tmp_path / "d"))

    assert directory == tmp_path / "d" / "run"
    assert directory.stat().st_mode & 0o777 == 0o700


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Give a directory in which every socket has a path that is short enough."""
    with TemporaryDirectory() as directory:
        yield Path(directory)


def test_sockets_of_a_deep_directory_are_elsewhere(
    tmp_path: Path, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path that no socket can have is replaced, always by the same, and never by a shared one."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_path))
    deep = [ensure_private(tmp_path / letter / ("x" * 100)) for letter in "ab"]
    found = [socket_directory(each) for each in deep]

    assert found == [socket_directory(each) for each in deep]
    assert found[0] != found[1]
    for each in found:
        assert each.parent == short_path
        assert each.stat().st_mode & 0o777 == 0o700
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(found[0] / "control.sock"))
