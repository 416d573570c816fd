"""A hub that dies at any question to the engine loses nothing, and leaves nothing behind."""

import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import pytest

from perijove.kit.ids import platform_name
from perijove.spawners.contract import LaunchSpec, Phase, VolumeSpec
from perijove.spawners.docker import DockerSpawner
from perijove.spawners.docker.labels import INSTALLATION, KIND, MARKED_AT
from tests.contract.spawners.docker_site import DockerSite, docker
from tests.contract.spawners.sites import answers, eventually, find, phase, recorded
from tests.fakes.crashes import AtStep, Crash, die
from tests.integration.docker.conftest import order

pytestmark = [pytest.mark.anyio, pytest.mark.needs("docker"), pytest.mark.timeout(300)]


class InterruptedSpawner(DockerSpawner):
    """Is interrupted before the n-th question to its engine from now."""

    def interrupt(self, step: int, happens: Callable[[], None]) -> AtStep:
        """Choose the question, and what happens then."""
        self._engine.counts = AtStep(step, happens)
        return self._engine.counts


async def dies_starting(site: DockerSite, step: int, spec: LaunchSpec, **settings: Any) -> bool:
    """Start by a hub that dies before its n-th question; tell whether it came to that."""
    async with site.place(InterruptedSpawner, **settings) as hub:
        hub.interrupt(step, die)
        try:
            await hub.start(spec, recorded)
        except Crash:
            return True
    return False


def state_of(name: str) -> str:
    """Return what the engine says of a container; empty where there is none."""
    return docker("ps", "--all", f"--filter=name=^/{name}$", "--format={{.State}}")


def containers_of(name: str) -> Sequence[str]:
    """Return the ids of all containers with a name."""
    return docker("ps", "--all", "--quiet", "--filter", f"name=^/{name}$").split()


async def test_start_survives_its_hub(site: DockerSite) -> None:
    """Whenever the hub dies while it starts a server, the next one has exactly one of it."""
    volume = VolumeSpec(name=platform_name("volume"), path="/data")
    for step in count(1):
        name = platform_name("start")
        died = await dies_starting(site, step, order(name, volumes=[volume]))
        async with site.place(DockerSpawner) as spawner:
            seen = await find(spawner, name)
            if seen is None or step % 2:  # What a survey shows gets to run without being asked.
                await spawner.start(order(name, volumes=[volume]), recorded)
            await answers(await phase(spawner, name, Phase.RUNNING))
            assert len(containers_of(name)) == 1
            assert await spawner.stop(name, None, grace=0) is not None
            assert not containers_of(name)
        if not died:
            break
    assert step > 10


async def test_stop_survives_its_hub(site: DockerSite) -> None:
    """Whenever the hub dies while it stops a server, asking again leaves nothing of it."""
    for step in count(1):
        name, died = platform_name("stop"), True
        async with site.place(InterruptedSpawner) as hub:
            await hub.start(order(name), recorded)
            await phase(hub, name, Phase.RUNNING)
            hub.interrupt(step, die)
            try:
                await hub.stop(name, None, grace=0)
                died = False
            except Crash:
                pass
        async with site.place(DockerSpawner) as spawner:
            before = await find(spawner, name)
            gone = await spawner.stop(name, None, grace=0)
            late = await spawner.start(order(name), recorded)
            assert await find(spawner, name) is None
        assert (gone is None) == (before is None)
        assert late.phase is Phase.GONE
        assert not containers_of(name)
        if not died:
            break
    assert step > 5


async def test_a_stop_wins_whenever_it_comes(site: DockerSite) -> None:
    """Whenever another hub stops a launch that is being started, nothing of it runs afterwards."""
    labels = {INSTALLATION: site.own(), KIND: "mark", MARKED_AT: str(int(time.time()))}
    words = [f"--label={key}={value}" for key, value in labels.items()]
    async with site.place(InterruptedSpawner) as spawner:
        for step in count(1):
            name = platform_name("race")

            def stop(name: str = name) -> None:
                """Do on the engine what another hub's `stop` does there."""
                docker("volume", "create", *words, f"{name}.over-{site.own()}")
                if containers_of(name):
                    docker("rm", "--force", name)

            asked = spawner.interrupt(step, stop)
            late = await spawner.start(order(name), recorded)
            if asked.left > 0:
                break
            assert not containers_of(name), step
            assert late.phase is Phase.GONE, step
    assert step > 8


async def test_a_stop_wins_over_a_hub_that_died(site: DockerSite) -> None:
    """What was made after a stop had looked for it, by a hub that died then, never runs."""
    mark = {INSTALLATION: site.own(), KIND: "mark", MARKED_AT: str(int(time.time()))}
    words = [f"--label={key}={value}" for key, value in mark.items()]
    made = 0
    for step in count(1):
        name = platform_name("late")
        if not await dies_starting(site, step, order(name)):
            break
        if state_of(name) != "created":
            continue
        made += 1
        docker("volume", "create", *words, f"{name}.over-{site.own()}")
        async with site.place(DockerSpawner) as spawner:

            async def is_gone(spawner: DockerSpawner = spawner, name: str = name) -> bool:
                seen = await find(spawner, name)
                assert seen is None or seen.phase is not Phase.RUNNING
                return seen is None

            assert await eventually(is_gone)
    assert made


async def test_a_network_waits_for_what_was_made_in_it(site: DockerSite) -> None:
    """A hub that comes after one that died removes nothing that a container is to run in."""
    name = platform_name("network")
    for step in count(1):
        assert await dies_starting(site, step, order(name), network="per-user")
        if state_of(name) == "created":
            break
    async with site.place(DockerSpawner, network="per-user") as spawner:
        await answers(await phase(spawner, name, Phase.RUNNING))
