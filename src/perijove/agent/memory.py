"""The memory of the control group that this process is in."""
# pathlib would add much to what a small program needs to start:
# ruff: noqa: PTH118, PTH119, PTH123

import contextlib
import os


class GroupMemory:
    """What the kernel counts for our control group: the peak, and kills for memory."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._killed_before = self._told_of = self._count()

    def killed(self) -> int:
        """Return how often the kernel has killed for memory in the group since we began."""
        return max(self._count() - self._killed_before, 0)

    def news(self) -> int:
        """Return how many kills came since the last call."""
        count = self._count()
        news, self._told_of = count - self._told_of, count
        return max(news, 0)

    def _count(self) -> int:
        for name in ("memory.events", "memory.oom_control"):
            for line in self._lines(name):
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
        return 0

    def peak(self) -> int:
        """Return the most memory the group ever used; 0 where the kernel does not say."""
        for name in ("memory.peak", "memory.max_usage_in_bytes"):
            for line in self._lines(name):
                if line.strip().isdigit():
                    return int(line)
        return 0

    def _lines(self, name: str) -> "list[str]":
        try:
            with open(os.path.join(self._folder, name), encoding="ascii") as file:
                return file.readlines()
        except OSError:
            return []


def memory_of(launch: str) -> "GroupMemory | None":
    """Return the memory of our group if that was made for this one launch."""
    folder = memory_folder()
    is_own = os.path.basename(folder) in (launch, launch + ".scope")
    return GroupMemory(folder) if is_own else None


def memory_folder(root: str = "/sys/fs/cgroup", own: str = "/proc/self/cgroup") -> str:
    """Return the folder of this process's memory control group, version 1 or 2."""
    found = ""
    with contextlib.suppress(OSError), open(own, encoding="utf-8") as lines:
        for line in lines:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            if "memory" in controllers.split(","):
                return os.path.join(root, "memory", path.lstrip("/"))
            if not controllers:
                found = os.path.join(root, path.lstrip("/"))
    return found
