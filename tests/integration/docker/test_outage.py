"""An engine that is silent, dies or is restarted: nothing is taken for gone without evidence."""

from collections.abc import Iterator

import pytest

from perijove.domain.errors import SpawnerError, SpawnerPending, SpawnerTransient
from perijove.domain.launch import Cause
from perijove.kit.ids import platform_name
from perijove.spawners.contract import KeepsVolumes, Phase
from perijove.spawners.docker import DockerSpawner
from tests import beds
from tests.contract.spawners.docker_site import DockerSite
from tests.contract.spawners.sites import NAME, answers, eventually, find, phase, recorded
from tests.integration.docker.conftest import order
from tests.integration.docker.registry import Registry

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.needs("docker", "docker-ctl"),
    pytest.mark.timeout(240),
]


@pytest.fixture(autouse=True)
def _mended() -> Iterator[None]:
    """Leave the engine as it was, whatever a test did."""
    yield
    beds.disturb("docker", "start")
    beds.disturb("docker", "resume")


async def test_a_silent_engine_says_nothing_about_anybody(site: DockerSite) -> None:
    """While the engine takes questions and does not answer, everything asked of it is open."""
    async with (
        site.place(DockerSpawner, engine_timeout=1) as spawner,
        site.place(DockerSpawner) as patient,
    ):
        await patient.start(order(), recorded)
        before = await phase(patient, NAME, Phase.RUNNING)
        assert isinstance(spawner, KeepsVolumes)
        beds.disturb("docker", "pause")
        for ask in (
            spawner.survey(),
            spawner.survey_volumes(),
            spawner.start(order(platform_name("other")), recorded),
            spawner.stop(NAME, None, grace=0),
        ):
            with pytest.raises(SpawnerTransient):
                await ask
        beds.disturb("docker", "resume")

        assert await phase(patient, NAME, Phase.RUNNING) == before


async def test_what_runs_and_what_is_fetched_survive_a_crash(
    site: DockerSite, registry: Registry
) -> None:
    """The engine is killed: meanwhile it is away, not empty; then all is as it was, and goes on."""
    registry.gate.clear()
    image = registry.push("test/slow:1")
    coming = order(platform_name("coming"), image=image)
    async with site.place(DockerSpawner) as spawner:
        await spawner.start(order(), recorded)
        before = await phase(spawner, NAME, Phase.RUNNING)
        with pytest.raises(SpawnerPending):
            await spawner.start(coming, recorded)

        beds.disturb("docker", "kill")
        with pytest.raises(SpawnerTransient):
            await spawner.survey()
        with pytest.raises(SpawnerError):  # silent, or it says that fetching fails
            await spawner.start(coming, recorded)
        await answers(before)
        async with site.place(DockerSpawner) as later:  # A hub may start meanwhile.
            with pytest.raises(SpawnerTransient):
                await later.survey()
        beds.disturb("docker", "start")
        registry.gate.set()

        assert await phase(spawner, NAME, Phase.RUNNING) == before

        async def has_come() -> bool:
            try:
                seen = await spawner.start(coming, recorded)
            except (SpawnerPending, SpawnerTransient):
                return False
            return seen.handle is not None

        assert await eventually(has_come)


async def test_what_ends_with_its_engine_is_gone_with_evidence(site: DockerSite) -> None:
    """Where containers end with the engine, they are shown with their end until removed."""
    async with site.place(DockerSpawner) as spawner:
        await spawner.start(order(), recorded)
        await answers(await phase(spawner, NAME, Phase.RUNNING))
        beds.disturb("docker", "restart", "ending")
        gone = await phase(spawner, NAME, Phase.GONE)
        again = await spawner.start(order(), recorded)

        assert gone.end is not None
        assert gone.end.cause in (Cause.SIGNAL, Cause.EXITED)
        assert again.end == gone.end
        assert await spawner.stop(NAME, None, grace=0) is not None
        assert await find(spawner, NAME) is None
