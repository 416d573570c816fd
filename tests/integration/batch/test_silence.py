"""A platform that is silent makes nobody late."""

from pathlib import Path

import pytest

from perijove.db.core import bound
from perijove.db.spawner_states import find_state
from perijove.domain.launch import Status, Wanted
from perijove.kit.loops import until
from tests.fakes.spawners import FailsAtStage, Stage
from tests.hubs import running_hub

pytestmark = pytest.mark.anyio


async def test_clocks_stand_still_while_the_platform_is_silent(tmp_path: Path) -> None:
    """What is asked for in an outage longer than the limit waits, and starts once after it."""
    async with running_hub(
        f"sqlite:///{tmp_path / 'hub.sqlite'}",
        tmp_path,
        wrap=lambda inner: FailsAtStage(inner, Stage.SURVEY),
        spawner={"submit_limit": 0.5},
    ) as hub:

        async def is_silent() -> bool:
            state = await hub.hub.database.read(bound(find_state, "memory"))
            return state.failing_since is not None

        assert await until(is_silent, seconds=60)
        launch = await hub.start()
        # Two tries, the second of them after the limit.
        waits = await hub.until(launch, lambda now: now.failures >= 2, what="a second try")
        assert (waits.status, waits.wanted) == (Status.SUBMITTED, Wanted.RUN)
        assert hub.platform.started == []
        hub.spawner.active = False
        came = await hub.becomes(launch, Status.CONNECTING, Status.STARTING)
        assert came.wanted is Wanted.RUN
        assert hub.platform.started == [launch.name]
        assert not await is_silent()
