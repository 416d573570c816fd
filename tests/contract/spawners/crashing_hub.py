"""
A hub that is killed at a chosen moment: before the n-th thing it does to its files or processes.

Reads lines ``ACT NAME N`` from stdin. For each it forks, and the child does the act (``start`` or
``stop``) with a local spawner in the directory of the first argument and kills itself before its
n-th step. Answers ``killed`` or, when the act had fewer steps, ``done``.
"""

import os
import signal
import sys
from pathlib import Path

import anyio

from tests.contract.spawners.sites import LocalSite, make_spec, recorded

WATCHED = {
    "open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.scandir", "subprocess.Popen"
}  # fmt: skip


def die_before(step: int, folder: str) -> None:
    """Arrange for the end of this process."""
    done = 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal done
        # What is removed file by file is named relative to a folder that is open.
        is_ours = event in {"os.remove", "os.rmdir"} or folder in str(arguments)
        if event in WATCHED and is_ours:
            done += 1
            if done == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


async def act(site: LocalSite, name: str, what: str, step: int) -> None:
    """Do one act, up to its step."""
    async with site.spawner() as spawner:
        die_before(step, str(site.data_dir))
        if what == "start":
            await spawner.start(make_spec(name), recorded)
        else:
            await spawner.stop(name, None, grace=5)


def main() -> None:
    """Obey the test."""
    site = LocalSite(Path(sys.argv[1]))
    for line in sys.stdin:
        what, name, step = line.split()
        pid = os.fork()
        if pid == 0:
            anyio.run(act, site, name, what, int(step))
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        print("done" if status == 0 else "killed", flush=True)


if __name__ == "__main__":
    main()
