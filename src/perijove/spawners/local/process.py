"""
What Linux tells about processes: who holds a lock, who descends from whom, who listens.

Every function here may block for milliseconds: call it in a thread. A process id is only ever
used for a signal through a pidfd, after looking again at what made us choose it, so that a
recycled id never hits a stranger.
"""

import fcntl
import os
import signal
import struct
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
# struct flock of 64-bit Linux: type, whence, start, length, pid.
_FLOCK: Final = struct.Struct("hhqqi4x")
_LISTEN: Final = "0A"
# How the kernel writes the local addresses that a connection to 127.0.0.1 can reach: the first
# ones win over the others.
_LOOPBACK: Final = frozenset({"0100007F", "0000000000000000FFFF00000100007F"})
_WILDCARD: Final = frozenset({"00000000", "0" * 32})

MARKER: Final = "PERIJOVE_LAUNCH"
"""The environment variable that marks every process of a launch with its platform name."""


def lock_holder(path: Path) -> int | None:
    """
    Return the id of the process that holds the record lock on `path`; None when nobody does.

    0 stands for a process outside our process namespace.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        question = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_GETLK, question))
    finally:
        os.close(file)
    return None if kind == fcntl.F_UNLCK else max(pid, 0)


def open_process(pid: int, still_meant: Callable[[int], bool]) -> int | None:
    """Return a pidfd of `pid` if, with it in hand, `pid` is still who is meant; close it after."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    try:
        if still_meant(pid):
            return pidfd
    except BaseException:
        os.close(pidfd)
        raise
    os.close(pidfd)
    return None


def started_ticks(pid: int) -> int | None:
    """Return when `pid` started, in the kernel's ticks since boot; None when it is not there."""
    with suppress(OSError):
        fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        if fields[0] not in (b"Z", b"X"):
            return int(fields[19])
    return None


def is_running(pid: int) -> bool:
    """Tell whether there is a process with this id."""
    return (_PROC / str(pid)).exists()


def marked_processes(names: Collection[str]) -> Mapping[str, list[int]]:
    """Return the living processes that carry the marker of one of `names`."""
    found: dict[str, list[int]] = {name: [] for name in names}
    for pid in _all_pids():
        name = marker_of(pid)
        if name in found:
            found[name].append(pid)
    return found


def marker_of(pid: int) -> str | None:
    """Return the launch whose marker `pid` carries; None without one, or when we may not know."""
    prefix = MARKER.encode() + b"="
    with suppress(OSError):
        for entry in (_PROC / str(pid) / "environ").read_bytes().split(b"\0"):
            if entry.startswith(prefix):
                return os.fsdecode(entry.removeprefix(prefix))
    return None


def kill_marked(name: str, pids: Collection[int]) -> None:
    """Kill those of `pids` that still carry the marker of `name`."""
    for pid in pids:
        pidfd = open_process(pid, lambda pid: marker_of(pid) == name)
        if pidfd is not None:
            with suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)


def descendants(ancestor: int) -> Iterator[int]:
    """Yield `ancestor` and every process below it."""
    children: dict[int, list[int]] = {}
    for pid in _all_pids():
        with suppress(OSError):
            # The second field is the program's name, in brackets, and may hold any byte.
            fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
            children.setdefault(int(fields[1]), []).append(pid)
    line = [ancestor]
    while line:
        pid = line.pop()
        yield pid
        line.extend(children.get(pid, ()))


def listening_sockets(port: int) -> Mapping[str, int]:
    """
    Return the sockets of which one takes a connection to 127.0.0.1:`port`.

    By inode number, each with the id of the account that opened it.
    """
    exact: dict[str, int] = {}
    wildcard: dict[str, int] = {}
    for address, inode, owner in _listeners(port):
        if address in _LOOPBACK:
            exact[inode] = owner
        elif address in _WILDCARD:
            wildcard[inode] = owner
    return exact or wildcard


def held_sockets(pid: int) -> frozenset[str]:
    """Return the inode numbers of the sockets that `pid` has open."""
    inodes = set()
    with suppress(OSError):
        for entry in os.scandir(_PROC / str(pid) / "fd"):
            with suppress(OSError):
                target = os.readlink(entry.path)  # noqa: PTH115 - thousands of them
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
    return frozenset(inodes)


def _listeners(port: int) -> Iterator[tuple[str, str, int]]:
    for table in ("net/tcp", "net/tcp6"):
        with suppress(FileNotFoundError):  # Without IPv6 there is no second table.
            for line in (_PROC / table).read_text().splitlines()[1:]:
                fields = line.split()
                address, _, local_port = fields[1].rpartition(":")
                if fields[3] == _LISTEN and int(local_port, 16) == port:
                    yield address, fields[9], int(fields[7])


def _all_pids() -> Iterator[int]:
    for entry in os.scandir(_PROC):
        if entry.name.isdigit():
            yield int(entry.name)
