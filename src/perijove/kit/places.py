"""The data directory: private, used by one hub at a time, and on a disk that SQLite can trust."""

import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "lustre", "cifs", "smb3", "smbfs", "gpfs", "beegfs", "ceph", "9p", "afs"}
)
_SOCKET_PATH_LIMIT = 100
"""Bytes a unix socket's path may have (the kernel takes 107)."""


class PlaceError(Exception):
    """A directory cannot be used; the message names it and says why."""


def ensure_private(directory: Path) -> Path:
    """
    Make a directory that only its owner can enter; raises `PlaceError`.

    An empty one that others can enter is closed to them. One that holds something is left
    alone: it may be there for other things, such as a home directory or ``/tmp``.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = directory.stat()
    except OSError as error:
        raise PlaceError(f"{directory}: {error.strerror}") from None
    if state.st_uid != os.geteuid():
        raise PlaceError(f"{directory} belongs to another user (uid {state.st_uid})")
    if stat.S_IMODE(state.st_mode) & 0o077:
        if any(directory.iterdir()):
            raise PlaceError(
                f"{directory} can be entered by others and is not empty: use another directory,"
                " or close it to them (chmod 700)"
            )
        directory.chmod(0o700)
    return directory.resolve()


def file_system_of(path: Path, mounts: str | None = None) -> str:
    """Return the type of the file system that holds `path`; empty when it cannot be told."""
    try:
        text = Path("/proc/self/mounts").read_text() if mounts is None else mounts
    except OSError:
        return ""
    best, kind = "", ""
    for line in text.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = fields[1].encode().decode("unicode_escape")
        inside = point == "/" or str(path) == point or str(path).startswith(f"{point}/")
        if inside and len(point) >= len(best):
            best, kind = point, fields[2]
    return kind


@contextmanager
def locked(directory: Path, name: str) -> Iterator[None]:
    """Hold the lock ``<name>.lock`` in a directory; raises `PlaceError` when another has it."""
    path = directory / f"{name}.lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PlaceError(f"{directory} is in use by another {name}") from None
        yield


def socket_directory(data_dir: Path, name: str = "run", *, longest: str = "control.sock") -> Path:
    """
    Return a private directory for unix sockets: in `data_dir`, or near the root when that is
    too deep for the path of a socket called `longest`. The same arguments always give the same.
    """
    inside = data_dir / name
    if len(os.fsencode(inside / longest)) <= _SOCKET_PATH_LIMIT:
        return ensure_private(inside)
    whose = data_dir if name == "run" else inside
    digest = hashlib.sha256(os.fsencode(whose)).hexdigest()[:16]
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp")  # noqa: S108 - made 0700, owner checked
    return ensure_private(base / f"perijove-{os.geteuid()}-{digest}")
