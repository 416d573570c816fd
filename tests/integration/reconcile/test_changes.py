"""A platform that tells of changes is looked at sooner, and one that does not no later."""

import math
from pathlib import Path

import anyio
import pytest

from perijove.kit.clock import monotonic
from perijove.kit.loops import Doorbell
from perijove.reconcile.observe import Observer
from perijove.services.hub import PlacedSpawner
from perijove.spawners.contract import Spawner
from tests.fakes.spawners import MemorySettings, Wrapper
from tests.hubs import PATIENCE, TestHub, running_hub

pytestmark = pytest.mark.anyio


class Telling(Wrapper):
    """Tells of a change when its bell rings, or raises `error`."""

    def __init__(self, inner: Spawner) -> None:
        super().__init__(inner)
        self.bell = Doorbell()
        self.error: Exception | None = None

    async def changed(self) -> None:
        """Wait for the bell."""
        if self.error is not None:
            raise self.error
        await self.bell.wait(math.inf)


def observer(hub: TestHub, *, period: float, busy: float = 0.01) -> Observer:
    """Return an observer of the hub's platform that looks so often."""
    settings = MemorySettings(survey_period=period, survey_busy_period=busy)
    placed = PlacedSpawner(spawner=hub.spawner, settings=settings)
    return Observer(hub.hub, "memory", placed, hub.prober)


async def test_a_change_ends_the_pause(database_url: str, tmp_path: Path) -> None:
    """What the platform tells now, or has told since the last pause, makes a survey due."""
    async with running_hub(database_url, tmp_path, wrap=Telling, loops=False) as hub:
        watching = observer(hub, period=3600)
        hub.spawner.bell.ring()
        with anyio.fail_after(PATIENCE):
            await watching.pause(0)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watching.pause, 0)
                await anyio.wait_all_tasks_blocked()
                hub.spawner.bell.ring()


async def test_however_much_happens_surveys_keep_apart(database_url: str, tmp_path: Path) -> None:
    """A platform that never stops telling is asked as often as one on which somebody waits."""
    async with running_hub(database_url, tmp_path, wrap=Telling, loops=False) as hub:
        hub.spawner.bell.ring()
        began = monotonic()
        await observer(hub, period=3600, busy=0.5).pause(0)
        assert monotonic() - began >= 0.4


async def test_one_that_cannot_tell_is_looked_at_in_its_time(
    database_url: str, tmp_path: Path
) -> None:
    """Whatever goes wrong with telling, the pause is as long as it would be without."""
    async with running_hub(database_url, tmp_path, wrap=Telling, loops=False) as hub:
        hub.spawner.error = ValueError("no events here")
        began = monotonic()
        with anyio.fail_after(PATIENCE):
            await observer(hub, period=0.5).pause(0)
        assert monotonic() - began >= 0.4
