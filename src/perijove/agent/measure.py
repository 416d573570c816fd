"""
How much is on each volume, counted beside the server and told to the hub now and then.

For platforms that keep volumes and cannot say what is on them. The hub asks for it by
``PERIJOVE_MEASURE``; what it hears is the word of whoever has the server.
"""
# pathlib would add much to what a small program needs to start, and did less in Python 3.6:
# ruff: noqa: PTH116

import contextlib
import os
import time

from perijove.agent.post import post

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

FIRST_PAUSE = 2.0
GROWTH = 5  # Of the first pauses: short sessions are to leave a number that says something.
USUAL_PAUSE = 600.0
PAUSE_PER_SECOND = 5
REST_PER_SECOND = 3  # After each folder: others work on the same disk, which knows no priority.
LONGEST_COUNT = 3600.0


def start_measuring(environment: "dict[str, str]", volumes: "Sequence[str]") -> None:
    """
    Have a child of this process count what is on volumes, if the hub wants to know.

    For a process that is about to become the server: the child ends with it.
    """
    server = os.getpid()
    if environment.get("PERIJOVE_MEASURE") != "1" or not volumes or os.fork() != 0:
        return
    try:
        os.setpgid(0, 0)  # Signals to the server's group are not meant for it.
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(nothing, stream)
        os.nice(19)
        measure(environment, volumes, server)
    finally:
        os._exit(0)


def measure(environment: "dict[str, str]", volumes: "Sequence[str]", server: int) -> None:
    """Count and tell, until the server is gone or the hub does not want to hear of it."""
    url = environment.get("JUPYTERHUB_API_URL", "") + "/perijove/registrations/volumes"
    token = environment.get("JUPYTERHUB_API_TOKEN", "")
    pause = shortest = FIRST_PAUSE
    while is_there_after(pause, server):
        began = time.monotonic()
        counted = {path: bytes_in(path, server) for path in volumes}
        used = {path: count for path, count in counted.items() if count is not None}
        shortest = min(GROWTH * shortest, USUAL_PAUSE)
        pause = max(shortest, PAUSE_PER_SECOND * (time.monotonic() - began))
        if used:
            answer = post(url, {"used": used}, token)
            if answer.is_final and answer.status != 204:
                return
            pause = max(pause, answer.retry_after)


def is_there_after(seconds: float, server: int) -> bool:
    """Wait; False as soon as the server, our parent, is gone."""
    end = time.monotonic() + seconds
    while os.getppid() == server:
        left = end - time.monotonic()
        if left <= 0:
            return True
        time.sleep(min(left, 1.0))
    return False


def bytes_in(root: str, server: int, seconds: float = LONGEST_COUNT) -> "int | None":
    """
    Return how many bytes a folder takes; None when it is not there, or not counted in time.

    Works for a quarter of the time, and no longer than the server is there. What is mounted
    within the folder is not counted, nor what may not be read. A file with several names counts
    once.
    """
    latest = time.monotonic() + seconds
    try:
        device = os.stat(root).st_dev
    except OSError:
        return None
    total = 0
    waiting = [root]
    while waiting:
        began = time.monotonic()
        if began >= latest:
            return None
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    found = entry.stat(follow_symlinks=False)
                    if found.st_dev != device:
                        continue
                    is_folder = entry.is_dir(follow_symlinks=False)
                    names = 1 if is_folder else found.st_nlink
                    total += 512 * found.st_blocks // max(names, 1)
                    if is_folder:
                        waiting.append(entry.path)
        if not is_there_after(REST_PER_SECOND * (time.monotonic() - began), server):
            return None
    return total
