"""Hub and supervisor are killed at every single step of what they do."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from perijove.domain.launch import Cause
from perijove.spawners.contract import Handle, Phase
from tests import beds
from tests.contract.spawners.sites import (
    NAME,
    LocalSite,
    answers,
    find,
    make_spec,
    phase,
    processes_of,
    recorded,
    supervisors_of,
)

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

CrashingHub = Callable[[str, str, int], bool]


@pytest.fixture
def crashing_hub(local_site: LocalSite) -> Iterator[CrashingHub]:
    """Give a hub that does an act up to a step; it tells whether it was killed there."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.contract.spawners.crashing_hub", str(local_site.data_dir)],
        cwd=beds.ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as hub:

        def act(what: str, name: str, step: int) -> bool:
            assert hub.stdin is not None
            assert hub.stdout is not None
            print(what, name, step, file=hub.stdin, flush=True)
            return hub.stdout.readline() == "killed\n"

        yield act
        hub.communicate()


async def test_start_survives_its_hub(local_site: LocalSite, crashing_hub: CrashingHub) -> None:
    """Whenever the hub is killed while it starts a server, asking again gives exactly one."""
    steps = 0
    async with local_site.spawner() as spawner:
        for step in count(1):
            name = f"{NAME}-{step}"
            if not crashing_hub("start", name, step):
                break
            steps += 1
            seen = await find(spawner, name)
            if seen is None or step % 2:  # What a survey shows gets to run without being asked.
                await spawner.start(make_spec(name), recorded)
            await answers(await phase(spawner, name, Phase.RUNNING))
            assert (len(supervisors_of(name)), len(processes_of(name))) == (1, 1)
            await spawner.stop(name, None, grace=0)
    assert steps > 10


async def test_stop_survives_its_hub(local_site: LocalSite, crashing_hub: CrashingHub) -> None:
    """Whenever the hub is killed while it stops a server, asking again leaves nothing."""
    steps = 0
    for step in count(1):
        name = f"{NAME}-{step}"
        async with local_site.spawner() as spawner:
            await spawner.start(make_spec(name), recorded)
            await answers(await phase(spawner, name, Phase.RUNNING))
        if not crashing_hub("stop", name, step):
            break
        steps += 1
        async with local_site.spawner() as spawner:
            before = await find(spawner, name)
            gone = await spawner.stop(name, None, grace=5)
            late = await spawner.start(make_spec(name), recorded)
            assert await find(spawner, name) is None
        assert (gone is None) == (before is None)
        assert late.phase is Phase.GONE
        assert late.end is not None
        assert not processes_of(name)
    assert steps > 10


# What runs the supervisor as it is, and kills it before the n-th thing that it does to its files
# or processes; a folder named in the last argument tells that it came to that.
SUPERVISOR = """
import os, signal, sys
source, directory, step, killed = sys.argv[1:]
done = 0
def watch(event, arguments):
    global done
    if event in {"open", "os.chdir", "os.fork", "os.remove", "os.rename", "os.exec", "socket.bind"}:
        done += 1
        if done == int(step):
            os.mkdir(killed)
            os.kill(os.getpid(), signal.SIGKILL)
code = compile(open(source).read(), source, "exec")
sys.argv = [source, directory]
sys.addaudithook(watch)
exec(code, {"__name__": "__main__", "__file__": source})
"""


class Crash(Exception):
    """Stands for the end of the hub."""


def run_supervisor(site: LocalSite, name: str, step: int, killed: Path) -> None:
    """Return when the supervisor has left its caller, or was killed before that."""
    source, directory = site.data_dir / "programs/supervisor.py", site.data_dir / "launches" / name
    command = [sys.executable, "-I", "-S", "-c", SUPERVISOR, str(source)]
    subprocess.run([*command, directory, str(step), killed], check=False)


async def test_supervisor_starts_a_server_at_most_once(
    local_site: LocalSite, tmp_path: Path
) -> None:
    """Whenever its supervisor is killed, a launch comes to its end and ran once or never."""

    async def crash(handle: Handle) -> None:
        raise Crash

    causes = []
    async with local_site.spawner() as spawner:
        for step in count(1):
            name, killed = f"{NAME}-{step}", tmp_path / f"killed-{step}"
            with pytest.raises(Crash):
                await spawner.start(make_spec(name, "exit-0", user_name=name), crash)
            run_supervisor(local_site, name, step, killed)
            end = (await phase(spawner, name, Phase.GONE)).end
            assert end is not None
            causes.append(end.cause)
            runs = local_site.data_dir / "homes" / name / "runs"
            assert len(runs.read_text().splitlines() if runs.exists() else ()) <= 1
            assert not processes_of(name)
            await spawner.stop(name, None, grace=0)
            if not killed.exists():
                break
    assert causes[-1] is Cause.EXITED
    assert Cause.UNKNOWN in causes
