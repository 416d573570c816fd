"""What an engine tells by itself makes a survey come sooner, and is never missed for long."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from perijove.domain.launch import Cause
from perijove.kit.ids import platform_name
from perijove.reconcile.observe import Observer
from perijove.services.hub import PlacedSpawner
from perijove.spawners.contract import Phase
from perijove.spawners.docker import DockerSettings, DockerSpawner
from perijove.spawners.docker.engine import open_engine
from perijove.spawners.docker.labels import INSTALLATION
from tests.contract.spawners.docker_site import DockerSite, docker
from tests.contract.spawners.sites import NAME, eventually, find, phase, recorded
from tests.hubs import PATIENCE, running_hub
from tests.integration.docker.conftest import inside, order

pytestmark = [pytest.mark.anyio, pytest.mark.needs("docker"), pytest.mark.timeout(180)]


async def rests(name: str) -> None:
    """Let a container rest for a moment."""
    await anyio.to_thread.run_sync(docker, "pause", name)
    await anyio.to_thread.run_sync(docker, "unpause", name)


def open_files() -> int:
    """Return how many files and connections this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def test_a_crash_is_noticed_before_a_survey_is_due(
    spawner: DockerSpawner, database_url: str, tmp_path: Path
) -> None:
    """A server that is killed ends the pause between two surveys, however long that would be."""
    settings = DockerSettings(survey_period=3600, survey_busy_period=0.1)
    placed = PlacedSpawner(spawner=spawner, settings=settings)
    async with running_hub(database_url, tmp_path, loops=False) as hub:
        observer = Observer(hub.hub, "docker", placed, hub.prober)
        await spawner.start(order(), recorded)
        await phase(spawner, NAME, Phase.RUNNING)

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(observer.pause, 0)
                await anyio.to_thread.run_sync(docker, "kill", NAME)
        gone = await find(spawner, NAME)

    assert gone is not None
    assert gone.end is not None
    assert gone.end.cause is Cause.SIGNAL


async def test_only_what_happens_to_its_own_is_heard(site: DockerSite) -> None:
    """Neither other installations' containers count, nor what is run in one to see how it is."""
    other = platform_name("other")
    heard: list[Any] = []
    engine = open_engine(os.environ["PERIJOVE_TEST_DOCKER_HOST"], timeout=30)
    async with (
        site.place(DockerSpawner) as ours,
        site.place(DockerSpawner, "others") as theirs,
        engine,
        anyio.create_task_group() as tasks,
    ):
        started = await ours.start(order(), recorded)
        await theirs.start(order(other), recorded)
        labels = {INSTALLATION: site.own()}
        tasks.start_soon(partial(engine.follow, labels, seconds=PATIENCE, note=heard.append))

        async def has(action: str) -> bool:
            return action in [each["Action"] for each in heard]

        async def is_begun() -> bool:
            await rests(NAME)
            return await has("unpause")

        assert await eventually(is_begun)
        await anyio.to_thread.run_sync(docker, "kill", other)
        await anyio.to_thread.run_sync(inside, NAME, "true")
        await anyio.to_thread.run_sync(docker, "kill", NAME)
        assert await eventually(partial(has, "die"))
        tasks.cancel_scope.cancel()

    assert started.handle is not None
    assert {each["Actor"]["ID"] for each in heard} == {started.handle["id"]}
    assert {each["Action"] for each in heard} == {"pause", "unpause", "die"}


async def test_a_stream_that_ends_is_begun_again(
    site: DockerSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often that was, a hub hears of what happens, and holds one connection for it."""
    monkeypatch.setattr("perijove.spawners.docker.spawner._LISTENING_SECONDS", 0.2)
    monkeypatch.setattr("perijove.spawners.docker.spawner._DEAF_SECONDS", 0.01)
    async with site.place(DockerSpawner) as spawner:
        await spawner.start(order(), recorded)

        async def are_begun(streams: int) -> bool:
            return spawner.calls()["events"] >= streams

        async def hears() -> bool:
            await rests(NAME)
            with anyio.move_on_after(1) as waiting:
                await spawner.changed()
            return not waiting.cancelled_caught

        assert await eventually(partial(are_begun, 3))
        open_before = open_files()
        assert await eventually(partial(are_begun, 13))
        assert open_files() < open_before + 5
        assert await eventually(hears)
