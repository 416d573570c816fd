"""The spawners that fail on purpose do fail, only there, and only while they should."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from perijove.domain.errors import SpawnerTransient
from perijove.domain.launch import Reason
from perijove.spawners.contract import Handle, LaunchSpec, Phase, Spawner, Surroundings
from tests.fakes.spawners import (
    FailsAtStage,
    Garbage,
    LiesAboutGone,
    ListsHalf,
    MemoryPlatform,
    MemorySettings,
    MemorySpawner,
    NeverAnswers,
    SlowToStart,
    Stage,
)

pytestmark = pytest.mark.anyio

SPEC = LaunchSpec(
    launch_id="lch_1",
    name="pj-1",
    installation="inst",
    user_name="ann",
    server_name="",
    command=["server"],
    environment={},
    prefix="/user/ann/",
)


@pytest.fixture
def healthy() -> MemorySpawner:
    """Give a spawner that keeps the contract."""
    around = Surroundings(name="memory", installation="inst", data_dir=Path("/nowhere"))
    return MemorySpawner(MemorySettings(), around, MemoryPlatform())


async def recorded(handle: Handle) -> None:
    """Be a checkpoint that has nothing to say."""


async def names(spawner: Spawner) -> tuple[bool, set[str]]:
    """Return what a survey says: whether it is complete, and whom it shows."""
    survey = await spawner.survey()
    return survey.complete, {one.name for one in survey.sightings}


async def test_slow_to_start_waits_for_its_surveys(healthy: MemorySpawner) -> None:
    """It shows what runs as pending, with the reason, until it was looked at often enough."""
    spawner = SlowToStart(healthy, surveys=2, reason=Reason(code="queue"))

    first = await spawner.start(SPEC, recorded)
    second, third = [(await spawner.survey()).sightings[0] for _ in range(2)]

    assert [one.phase for one in (first, second, third)] == [
        Phase.PENDING, Phase.PENDING, Phase.RUNNING
    ]  # fmt: skip
    assert (first.reason, first.url) == (Reason(code="queue"), "")


@pytest.mark.parametrize(
    ("stage", "started", "recorded_handles"),
    [
        (Stage.BEFORE_START, 0, 0),
        (Stage.BEFORE_CHECKPOINT, 1, 0),
        (Stage.AFTER_CHECKPOINT, 1, 1),
        (Stage.AFTER_START, 1, 1),
    ],
)
async def test_start_fails_at_its_stage(
    healthy: MemorySpawner, stage: Stage, started: int, recorded_handles: int
) -> None:
    """What was done before the failure is done; once it has failed often enough it works."""
    seen: list[Handle] = []

    async def note(handle: Handle) -> None:
        seen.append(handle)

    spawner = FailsAtStage(healthy, stage, times=1)
    with pytest.raises(SpawnerTransient):
        await spawner.start(SPEC, note)

    assert (len(healthy.platform.started), len(seen)) == (started, recorded_handles)
    assert (await spawner.start(SPEC, note)).phase is Phase.RUNNING
    assert healthy.platform.started == ["pj-1"]


@pytest.mark.parametrize(("stage", "stopped"), [(Stage.BEFORE_STOP, 0), (Stage.AFTER_STOP, 1)])
async def test_stop_fails_at_its_stage(healthy: MemorySpawner, stage: Stage, stopped: int) -> None:
    """Stopping breaks off before or after the platform was told."""
    spawner = FailsAtStage(healthy, stage)
    await spawner.start(SPEC, recorded)

    with pytest.raises(SpawnerTransient):
        await spawner.stop("pj-1", None, grace=0)

    assert len(healthy.platform.stopped) == stopped
    spawner.active = False
    await spawner.stop("pj-1", None, grace=0)


async def test_survey_fails_at_its_stage(healthy: MemorySpawner) -> None:
    """The platform can be silent."""
    spawner = FailsAtStage(healthy, Stage.SURVEY, error=OSError, times=1)

    with pytest.raises(OSError):  # noqa: PT011 - any will do
        await spawner.survey()

    assert spawner.failed == 1
    assert await names(spawner) == (True, set())


async def test_lies_about_gone_hides_what_runs(healthy: MemorySpawner) -> None:
    """Chosen launches, or all, are missing from an answer that calls itself complete."""
    await healthy.start(SPEC, recorded)
    everything, other = LiesAboutGone(healthy), LiesAboutGone(healthy, {"pj-2"})

    assert await names(everything) == (True, set())
    assert await names(other) == (True, {"pj-1"})
    everything.active = False
    assert await names(everything) == (True, {"pj-1"})


@pytest.mark.parametrize("honest", [True, False])
async def test_lists_half_of_it(healthy: MemorySpawner, honest: bool) -> None:
    """Half is missing; the honest one says so."""
    spawner = ListsHalf(healthy, honest=honest)
    await spawner.start(SPEC, recorded)
    other = LaunchSpec(
        **{field: getattr(SPEC, field) for field in SPEC.__slots__} | {"name": "pj-2"}
    )
    await spawner.start(other, recorded)

    assert await names(spawner) == (not honest, {"pj-1"})
    spawner.active = False
    assert await names(spawner) == (True, {"pj-1", "pj-2"})


@pytest.mark.parametrize("act", ["start", "survey", "stop"])
async def test_never_answers_until_it_does(healthy: MemorySpawner, act: str) -> None:
    """The chosen act hangs and does nothing; the others work."""
    spawner = NeverAnswers(healthy, {act})
    acts: Mapping[str, Callable[[], Awaitable[Any]]] = {
        "start": lambda: spawner.start(SPEC, recorded),
        "survey": spawner.survey,
        "stop": lambda: spawner.stop("pj-1", None, grace=0),
    }
    for name, call in acts.items():
        with anyio.move_on_after(0 if name == act else 10) as scope:
            await call()
        assert scope.cancelled_caught == (name == act)
    assert spawner.asked == 1
    spawner.active = False
    await acts[act]()


async def test_garbage_is_no_evidence(healthy: MemorySpawner) -> None:
    """Nothing in its answer is evidence that a launch has ended."""
    spawner = Garbage(healthy)
    await spawner.start(SPEC, recorded)

    survey = await spawner.survey()

    assert survey.complete
    assert len(survey.sightings) == 6
    assert all(one.end is None for one in survey.sightings)
