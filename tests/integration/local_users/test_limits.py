"""Limits by control groups, on the machine's own."""

import psutil
import pytest

from perijove.domain.launch import Cause, Resources
from perijove.spawners.contract import Phase
from perijove.spawners.local.cgroups import ControlGroups
from tests.contract.spawners.sites import (
    NAME,
    SystemSite,
    find,
    make_spec,
    phase,
    program,
    recorded,
    server_of,
)

pytestmark = [pytest.mark.anyio, pytest.mark.needs("root", "users", "control-groups")]

MEMORY = 48 * 2**20
HUNGRY = "import os\nkept = [os.urandom(1 << 20) for _ in range(200)]\n"


async def test_all_of_a_launch_is_within_its_limits(system_site: SystemSite) -> None:
    """The server and its supervisor are in groups with the limits that were asked for."""
    async with system_site.spawner(processes_limit=77) as spawner:
        order = make_spec(resources=Resources(cpu=0.5, memory_bytes=MEMORY))
        await spawner.start(order, recorded)
        await phase(spawner, NAME, Phase.RUNNING)
        server = server_of(NAME)

        groups = ControlGroups.find()
        assert groups is not None
        for root in groups.roots:
            inside = set(map(int, (root / NAME / "cgroup.procs").read_text().split()))
            assert {server.pid, server.ppid()} <= inside
        written = {
            file.name: file.read_text().strip()
            for root in groups.roots
            for file in (root / NAME).iterdir()
            if file.name in {"memory.limit_in_bytes", "memory.max", "pids.max"}
            or file.name in {"cpu.cfs_quota_us", "cpu.max"}
        }
        assert sorted(written.values()) in (
            sorted([str(MEMORY), "77", "50000"]),
            sorted([str(MEMORY), "77", "50000 100000"]),
        )
        await spawner.stop(NAME, None, grace=5)
        assert not [root for root in groups.roots if (root / NAME).exists()]
    assert not psutil.pid_exists(server.pid)


async def test_too_much_memory_is_an_end_of_its_own(system_site: SystemSite) -> None:
    """A server that the kernel kills over its limit ended for lack of memory, for every hub."""
    hungry = system_site.launches.with_name("hungry.py")
    hungry.write_text(HUNGRY)
    hungry.chmod(0o644)
    resources = Resources(memory_bytes=MEMORY)
    async with system_site.spawner() as spawner:
        spawner.program = hungry
        await spawner.start(make_spec(resources=resources), recorded)
        gone = await phase(spawner, NAME, Phase.GONE)
    async with system_site.spawner() as after:
        again = await find(after, NAME)
        removed = await after.stop(NAME, None, grace=1)
        late = await after.start(make_spec(resources=resources), recorded)

    ends = [one.end for one in (gone, again, removed, late) if one is not None and one.end]
    assert [end.cause for end in ends] == [Cause.OUT_OF_MEMORY] * 4


async def test_killed_by_somebody_is_not_lack_of_memory(system_site: SystemSite) -> None:
    """A kill while memory was left is a signal."""
    async with system_site.spawner() as spawner:
        order = make_spec(command=program("plain"), resources=Resources(memory_bytes=MEMORY))
        await spawner.start(order, recorded)
        end = await system_site.kill(await phase(spawner, NAME, Phase.RUNNING))
        gone = await phase(spawner, NAME, Phase.GONE)

    assert gone.end == end


async def test_limits_are_not_warned_of_where_there_are_some(system_site: SystemSite) -> None:
    """Where control groups can be used there is nothing to say."""
    async with system_site.spawner() as spawner:
        assert spawner.warnings(public=True) == []
