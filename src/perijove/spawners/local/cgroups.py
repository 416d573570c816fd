"""
Limits by control groups, version 1 or 2, for a hub that is root where systemd does not own them.

Each launch has a group of its own, of the launch's name, below ``perijove`` at the top of the
machine's tree, until it is removed. Everything here blocks: call it in a thread.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from perijove.domain.launch import Resources

_MOUNTS: Final = Path("/sys/fs/cgroup")
_OURS: Final = "perijove"
_CONTROLLERS: Final = ("memory", "cpu", "pids")
_PERIOD_MICROSECONDS: Final = 100_000
_ENTER: Final = """
until [ "$1" = -- ]; do
    echo $$ >"$1/cgroup.procs" || exit
    shift
done
shift
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class ControlGroups:
    """Where the groups of launches are: one folder in version 2, one per controller in 1."""

    version: int
    roots: Sequence[Path]

    @classmethod
    def find(cls) -> Self | None:
        """Return what this machine lets us use, made ready; None when it is nothing."""
        if os.geteuid() != 0:
            return None
        try:
            if (_MOUNTS / "cgroup.controllers").exists():
                return cls(2, [_delegate(_MOUNTS)])
            roots = [_MOUNTS / one / _OURS for one in _CONTROLLERS]
            for root in roots:
                root.mkdir(exist_ok=True)
            return cls(1, roots)
        except OSError:
            return None  # Read-only or not there, as in most containers.

    def enclose(self, name: str, resources: Resources, processes_limit: int) -> Sequence[str]:
        """Make the groups of a launch; return what runs the command behind it within them."""
        limits = self._limits(resources, processes_limit)
        groups = [root / name for root in self.roots]
        for group in groups:
            group.mkdir(exist_ok=True)
            for file, value in limits.items():
                if (group / file).exists():
                    (group / file).write_text(value)
        return ["/bin/sh", "-c", _ENTER, "sh", *map(str, groups), "--"]

    def _limits(self, resources: Resources, processes_limit: int) -> Mapping[str, str]:
        """Return what to write where, in the order in which the kernel takes it."""
        limits = {"pids.max": str(processes_limit)}
        if resources.memory_bytes is not None:
            memory = str(resources.memory_bytes)
            if self.version == 2:
                limits |= {"memory.max": memory, "memory.swap.max": "0"}
            else:
                # The second one, where the kernel has it, is for memory and swap together.
                limits |= {
                    "memory.limit_in_bytes": memory,
                    "memory.memsw.limit_in_bytes": memory,
                }
        if resources.cpu is not None:
            quota = str(max(int(resources.cpu * _PERIOD_MICROSECONDS), 1000))
            if self.version == 2:
                limits["cpu.max"] = f"{quota} {_PERIOD_MICROSECONDS}"
            else:
                limits |= {
                    "cpu.cfs_period_us": str(_PERIOD_MICROSECONDS),
                    "cpu.cfs_quota_us": quota,
                }
        return limits

    def remove(self, name: str) -> None:
        """Remove the groups of a launch of which nothing lives any more."""
        for root in self.roots:
            with suppress(OSError):
                (root / name).rmdir()


def _delegate(top: Path) -> Path:
    """Return our folder below `top`, in which groups have the controllers we use."""
    wanted = " ".join(f"+{one}" for one in _CONTROLLERS)
    (top / "cgroup.subtree_control").write_text(wanted)
    ours = top / _OURS
    ours.mkdir(exist_ok=True)
    (ours / "cgroup.subtree_control").write_text(wanted)
    return ours
