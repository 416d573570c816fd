"""
What the person is told of the session while it runs: its end, its memory, what went wrong.

The wrapper writes it into ``session.json`` in the session's private directory; the extension of
the person's server, which came with the job, reads it there. When the session ends is what the
hub last heard from the scheduler, so an administrator who gives a job more time is believed. As
clocks differ, the hub says how much is left and not when it is over.
"""
# pathlib would add much to what a small program needs to start, and did less in Python 3.6:
# ruff: noqa: PTH110, PTH118, PTH120, PTH123

import contextlib
import os
import time

from perijove.agent.hub import Post
from perijove.agent.memory import memory_folder
from perijove.agent.post import Answer
from perijove.spawners.local.supervisor import descendants, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SHORTEST_PAUSE = 15
LONGEST_QUESTION_PAUSE = 300
SAME_END = 20  # Seconds two answers may differ without an end having been moved.
MOST_EVENTS = 50
NO_LIMIT = 1 << 60  # Version 1 says "none" by a number this large.
LIMITS = ("memory.max", "memory.limit_in_bytes")
USED = ("memory.current", "memory.usage_in_bytes")
CACHES = ("total_inactive_file", "inactive_file")  # The first is that of version 1.


class Board:
    """Keeps ``session.json`` true, and asks the hub how much time is left."""

    def __init__(
        self, question: "tuple[str, dict[str, Any]]", planned: "dict[str, Any]", **facts: "Any"
    ) -> None:
        self._path = ""
        self._question = question
        self._post: Post | None = None
        self._ask_at = 0.0
        self._planned_memory = planned.get("memory_bytes")
        seconds = planned.get("time_seconds")
        self._facts: dict[str, Any] = {
            "ends_at": time.time() + seconds if seconds else None,
            "memory": None,
            "kills": [],
            "heard": [],
            "modes": [],
            "words": "",
        }
        self._facts.update(facts)

    def put_up(self, folder: str) -> None:
        """Begin to write, in the session's directory."""
        self._path = os.path.join(folder, "session.json")
        self.write()

    def set_mode(self, mode: str, words: str = "") -> None:
        """Say from the beginning to the end that the session is not as others are."""
        self._facts["modes"].append(mode)
        self._facts["words"] = words or self._facts["words"]

    def hear(self, code: str) -> None:
        """Pass on what was heard from the scheduler."""
        self._facts["heard"].append({"code": code, "at": time.time()})
        del self._facts["heard"][MOST_EVENTS:]
        self.write()

    def note_kill(self) -> None:
        """Note that the kernel has killed for memory."""
        self._facts["kills"].append(time.time())
        del self._facts["kills"][MOST_EVENTS:]

    def write(self) -> None:
        """Write the facts down; a full disk must not end the session."""
        if not self._path:
            return
        self._facts["memory"] = memory_usage(memory_folder(), self._planned_memory)
        with contextlib.suppress(OSError):
            write(self._path, self._facts)

    def turn(self) -> "Answer | None":
        """Go on asking how much time is left; returns the hub's answer when one has come."""
        if self._post is None:
            if time.monotonic() >= self._ask_at:
                self._post = Post(*self._question)
                self._post.start()
            return None
        if self._post.is_alive():
            return None
        answer, self._post = self._post.answer, None
        if answer.status == 200:
            self._believe(answer.body.get("seconds_left"))
        self._ask_at = time.monotonic() + max(answer.retry_after, self._pause())
        return answer if answer.is_final else None

    def _believe(self, seconds_left: "Any") -> None:
        known = self._facts["ends_at"]
        if not isinstance(seconds_left, (int, float)):
            return  # It knows of no end; what was planned may still be true.
        ends_at = time.time() + seconds_left
        if known is None or abs(ends_at - known) > SAME_END:
            self._facts["ends_at"] = ends_at
            self.write()

    def _pause(self) -> float:
        """Return when to ask again: the nearer the end, the sooner."""
        ends_at = self._facts["ends_at"]
        left = LONGEST_QUESTION_PAUSE * 10 if ends_at is None else ends_at - time.time()
        return min(max(left / 10, SHORTEST_PAUSE), LONGEST_QUESTION_PAUSE)


def memory_usage(folder: str, planned: "int | None") -> "dict[str, int | None]":
    """
    Return how many bytes are used, without what is only kept as a cache, and how many may be.

    Where no control group has a limit these are our processes' own bytes, against the plan.
    """
    group, limit = limited_group(folder)
    if limit is None:
        return {"used": private_bytes(descendants()), "limit": planned}
    used = max(number_in(group, name) or 0 for name in USED)
    caches = statistics_of(group)
    cached = next((caches[name] for name in CACHES if name in caches), 0)
    return {"used": max(used - cached, 0), "limit": limit}


def limited_group(folder: str) -> "tuple[str, int | None]":
    """Return the group, this one or one above it, with the lowest limit; None: there is none."""
    found, lowest = folder, NO_LIMIT
    while folder and any(os.path.exists(os.path.join(folder, name)) for name in (*LIMITS, *USED)):
        limits = [number_in(folder, name) or NO_LIMIT for name in LIMITS]
        if min(limits) < lowest:
            found, lowest = folder, min(limits)
        folder = os.path.dirname(folder)
    return found, lowest if lowest < NO_LIMIT else None


def number_in(folder: str, name: str) -> "int | None":
    """Return the number that a file of a control group holds; None when it holds none."""
    try:
        with open(os.path.join(folder, name), encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def statistics_of(folder: str) -> "dict[str, int]":
    """Return a control group's ``memory.stat``."""
    try:
        with open(os.path.join(folder, "memory.stat"), encoding="ascii") as file:
            return {name: int(value) for name, value in map(str.split, file)}
    except (OSError, ValueError):
        return {}


def private_bytes(pids: "list[int]") -> int:
    """Return the memory that these processes have each for itself."""
    pages = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open(f"/proc/{pid}/statm", encoding="ascii") as file:
                fields = file.read().split()
            pages += int(fields[1]) - int(fields[2])
    return pages * os.sysconf("SC_PAGE_SIZE")
