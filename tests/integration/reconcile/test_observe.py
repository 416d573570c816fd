"""What the observer makes of answers that are late, partial, false or absent."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import anyio
import pytest
from sqlalchemy import Connection, delete, update

from perijove.db.core import bound
from perijove.db.spawner_states import find_state, list_orphans
from perijove.db.tables import launches as table
from perijove.db.tables import leases
from perijove.domain.launch import Cause, Reason, Status, Wanted
from perijove.kit.clock import isoformat, monotonic
from perijove.kit.loops import until
from perijove.reconcile import observe
from perijove.reconcile.observe import Observer
from perijove.spawners.contract import LaunchSpec, Phase, Spawner, Survey
from tests.crossing import during
from tests.fakes.spawners import (
    FailsAtStage,
    Garbage,
    LiesAboutGone,
    ListsHalf,
    MemoryPlatform,
    NeverAnswers,
    Stage,
    Wrapper,
)
from tests.hubs import PATIENCE, ShiftedClock, TestHub, answering_server, running_hub

pytestmark = pytest.mark.anyio

LIES: dict[str, Callable[[Spawner], Spawner]] = {
    "garbage": Garbage,
    "silence": lambda inner: NeverAnswers(inner, acts=("survey",)),
    "error": lambda inner: FailsAtStage(inner, Stage.SURVEY),
    "honest-half": lambda inner: ListsHalf(inner, honest=True),
    "dishonest-half": lambda inner: ListsHalf(inner, honest=False),
    "empty": LiesAboutGone,
}


async def surveys(hub: TestHub, count: int) -> None:
    """Wait until the observer has written down `count` more complete answers, or failures."""
    seen = set()

    async def enough() -> bool:
        state = await hub.hub.database.read(bound(find_state, "memory"))
        seen.add((state.complete_at, state.answered_at, state.error))
        return len(seen) > count or state.failing_since is not None

    assert await until(enough, seconds=PATIENCE)


@pytest.mark.parametrize("lie", LIES)
async def test_nothing_is_declared_gone_on_a_bad_answer(
    database_url: str, tmp_path: Path, lie: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Garbage, silence, half a list or an empty one: every launch that runs stays."""
    monkeypatch.setattr("perijove.reconcile.observe.SURVEY_DEADLINE", 0.5)

    def wrap(inner: Spawner) -> Spawner:
        wrapped = LIES[lie](inner)
        wrapped.active = False  # type: ignore[attr-defined]
        return wrapped

    async with (
        answering_server() as server,
        running_hub(
            database_url, tmp_path, platform=MemoryPlatform(url=server.url), wrap=wrap
        ) as hub,
    ):
        launches = [await hub.start(f"user{number}") for number in range(6)]
        for launch in launches:
            await hub.becomes(launch, Status.READY)

        hub.spawner.active = True
        await surveys(hub, 4)

        assert {launch.id for launch in await hub.live()} == {launch.id for launch in launches}
        assert all(launch.wanted is Wanted.RUN for launch in await hub.live())
        assert len(await hub.prefixes()) == 6
        assert hub.platform.stopped == []


async def test_silence_is_unknown_since_and_ends_when_it_answers(
    database_url: str, tmp_path: Path
) -> None:
    """While the platform is silent every launch is unknown since then; afterwards it is not."""

    def wrap(inner: Spawner) -> Spawner:
        wrapped = FailsAtStage(inner, Stage.SURVEY)
        wrapped.active = False
        return wrapped

    async with (
        answering_server() as server,
        running_hub(
            database_url, tmp_path, platform=MemoryPlatform(url=server.url), wrap=wrap
        ) as hub,
    ):
        launch = await hub.becomes(await hub.start(), Status.READY)
        hub.spawner.active = True
        await hub.until(launch, lambda now: now.unknown_since is not None, what="unknown")
        state = await hub.hub.database.read(bound(find_state, "memory"))
        assert state.failing_since is not None
        assert "on purpose" in state.error

        hub.spawner.active = False
        again = await hub.until(launch, lambda now: now.unknown_since is None, what="seen again")

        assert again.status is Status.READY
        codes = [event.code for event in await hub.events(launch.id)]
        assert codes[-2:] == ["unknown", "seen-again"]


async def test_missing_twice_without_a_sign_of_life_is_gone(
    database_url: str, tmp_path: Path
) -> None:
    """One of several launches that vanishes, and does not answer, ends as unknown(absent)."""
    async with (
        answering_server() as server,
        answering_server() as dying,
        running_hub(database_url, tmp_path, platform=MemoryPlatform(url=server.url)) as hub,
    ):
        others = [await hub.start(f"user{number}") for number in range(3)]
        for other in others:
            await hub.becomes(other, Status.READY)
        hub.platform.url = dying.url
        launch = await hub.becomes(await hub.start(), Status.READY)

        dying.silent = True
        hub.platform.lose(launch.name)
        ended = await hub.becomes(launch, Status.ENDED)

        assert ended.end is not None
        assert (ended.end.cause, ended.end.reason) == (Cause.UNKNOWN, "absent")
        assert {one.id for one in await hub.live()} == {one.id for one in others}


async def test_missing_but_answering_is_alive(database_url: str, tmp_path: Path) -> None:
    """A launch that the platform forgot but whose server answers is not ended."""

    def wrap(inner: Spawner) -> Spawner:
        wrapped = LiesAboutGone(inner, names=set())
        wrapped.active = False
        return wrapped

    async with (
        answering_server() as server,
        running_hub(
            database_url, tmp_path, platform=MemoryPlatform(url=server.url), wrap=wrap
        ) as hub,
    ):
        launches = [await hub.start(f"user{number}") for number in range(4)]
        for launch in launches:
            await hub.becomes(launch, Status.READY)
        hub.spawner._names = {launches[0].name}
        hub.spawner.active = True

        await hub.until(launches[0], lambda now: now.absences >= 3, what="three absences")

        assert (await hub.launch(launches[0].id)).wanted is Wanted.RUN


async def test_many_missing_at_once_trip_the_breaker(database_url: str, tmp_path: Path) -> None:
    """When most of what runs is missing at once nothing is ended, and the state says so."""
    async with (
        answering_server() as server,
        running_hub(database_url, tmp_path, platform=MemoryPlatform(url=server.url)) as hub,
    ):
        launches = [await hub.start(f"user{number}") for number in range(8)]
        for launch in launches:
            await hub.becomes(launch, Status.READY)
        server.silent = True
        for launch in launches[:6]:
            hub.platform.lose(launch.name)

        await hub.until(launches[0], lambda now: now.absences >= 4, what="four absences")

        state = await hub.hub.database.read(bound(find_state, "memory"))
        assert (state.breaker_count, state.breaker_since is not None) == (6, True)
        assert len(await hub.live()) == 8


async def _spec(hub: TestHub, name: str) -> LaunchSpec:
    return LaunchSpec(
        launch_id="lch_elsewhere",
        name=name,
        installation=hub.hub.installation,
        user_name="ann",
        server_name="",
        command=["true"],
        environment={},
        prefix="/user/ann/",
    )


async def _no_checkpoint(_handle: object) -> None:
    await anyio.lowlevel.checkpoint()


async def test_stranger_of_ours_is_removed_after_its_grace(
    database_url: str, tmp_path: Path
) -> None:
    """What carries our installation id but is in no record is left alone, then removed."""
    async with running_hub(
        database_url, tmp_path, lifecycle={"orphan_grace": timedelta(seconds=3)}
    ) as hub:
        await hub.spawner.start(await _spec(hub, "pj-orphan"), _no_checkpoint)

        async def is_noted() -> bool:
            return "pj-orphan" in await hub.hub.database.read(bound(list_orphans, "memory"))

        assert await until(is_noted, seconds=PATIENCE)

        async def is_removed() -> bool:
            return "pj-orphan" not in hub.platform.present and not await is_noted()

        assert await until(is_removed, seconds=PATIENCE)


async def test_strangers_that_do_not_leave_hold_up_no_survey(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever names things as we do, and keeps them from ending, blinds nobody."""
    monkeypatch.setattr("perijove.reconcile.observe.SWEEP_SECONDS", 0.2)
    async with running_hub(
        database_url,
        tmp_path,
        wrap=lambda inner: NeverAnswers(inner, acts=("stop",)),
        lifecycle={"orphan_grace": timedelta(0)},
    ) as hub:
        await hub.spawner.start(await _spec(hub, "pj-orphan"), _no_checkpoint)

        async def is_noted() -> bool:
            return "pj-orphan" in await hub.hub.database.read(bound(list_orphans, "memory"))

        assert await until(is_noted, seconds=PATIENCE)
        await surveys(hub, 5)
        assert await is_noted()


async def test_leftover_of_an_ended_launch_is_removed_at_once(
    database_url: str, tmp_path: Path
) -> None:
    """What appears on the platform for a launch that has ended is removed."""
    async with (
        answering_server() as server,
        running_hub(database_url, tmp_path, platform=MemoryPlatform(url=server.url)) as hub,
    ):
        launch = await hub.becomes(await hub.start(), Status.READY)
        await hub.stop()
        await hub.becomes(launch, Status.ENDED)
        hub.platform.over.clear()
        await hub.spawner.start(await _spec(hub, launch.name), _no_checkpoint)

        async def is_removed() -> bool:
            return launch.name not in hub.platform.present

        assert await until(is_removed, seconds=PATIENCE)


async def test_what_another_spawner_runs_on_the_same_platform_is_left_alone(
    database_url: str, tmp_path: Path
) -> None:
    """Two sections for one platform see each other's launches, and stop none of them."""
    async with (
        answering_server() as server,
        running_hub(database_url, tmp_path, platform=MemoryPlatform(url=server.url)) as hub,
    ):
        launch = await hub.becomes(await hub.start(), Status.READY)

        other = Observer(hub.hub, "other", hub.hub.spawners["memory"], hub.prober)
        await other.look()

        assert hub.platform.stopped == []
        assert await hub.hub.database.read(bound(list_orphans, "other")) == {}
        assert (await hub.launch(launch.id)).status is Status.READY


@pytest.mark.needs("postgresql")
async def test_one_that_moves_meanwhile_holds_up_no_other(
    postgresql_url: str, tmp_path: Path
) -> None:
    """A launch that another hub changes during a look is passed over; the others are seen."""
    async with answering_server() as server:
        platform = MemoryPlatform(url=server.url)
        async with running_hub(postgresql_url, tmp_path, platform=platform) as hub:
            moving = await hub.becomes(await hub.start("ann"), Status.READY)
            other = await hub.becomes(await hub.start("bob"), Status.READY)

        async with running_hub(postgresql_url, tmp_path, platform=platform, loops=False) as hub:
            await hub.hub.database.write(_miss_all)

            def move(connection: Connection) -> None:
                row = table.c.id == moving.id
                connection.execute(update(table).where(row).values(status=Status.SUSPENDED))

            observer = Observer(hub.hub, "memory", hub.hub.spawners["memory"], hub.prober)
            await during(postgresql_url, move, observer.look)

            assert (await hub.launch(moving.id)).absences == 1
            assert (await hub.launch(other.id)).absences == 0


def _miss_all(connection: Connection) -> None:
    connection.execute(delete(leases))
    connection.execute(update(table).values(absences=1))


async def test_a_reason_keeps_since_when_it_is_this_one(database_url: str, tmp_path: Path) -> None:
    """Whatever changes beside its code, until it is another; a platform that knows better says."""
    clock = ShiftedClock()
    async with running_hub(database_url, tmp_path, clock=clock) as hub:
        launch = await hub.becomes(await hub.start(), Status.CONNECTING)

        async def told(reason: Reason) -> Reason:
            hub.platform.show(launch.name, Phase.PENDING, reason=reason)
            hub.hub.look.ring()
            found: list[Reason] = []

            async def is_written() -> bool:
                current = (await hub.launch(launch.id)).reason
                found[:] = [current] if current == reason else []
                return bool(found)

            assert await until(is_written, seconds=PATIENCE)
            return found[0]

        first = await told(Reason(code="resources", params={"place": 3}))
        assert first.since is not None
        assert timedelta(0) <= clock.now() - first.since < timedelta(seconds=PATIENCE)
        clock.shift(timedelta(seconds=50))
        same = await told(Reason(code="resources", params={"place": 2}))
        assert same.since == first.since
        other = await told(Reason(code="priority", words="(Priority)"))
        assert other.since is not None
        assert other.since - first.since >= timedelta(seconds=50)
        began = first.since - timedelta(minutes=3)
        pulling = await told(Reason(code="pulling-image", params={"since": isoformat(began)}))
        assert pulling.since == began


class TakesItsTurn(Wrapper):
    """Asks its platform seldom: a survey first waits for its turn."""

    patience = PATIENCE
    pace = 0.5

    async def survey(self) -> Survey:
        """Wait longer than a platform may take that was asked."""
        await anyio.sleep(0.3)
        return await super().survey()


async def test_waiting_for_a_turn_is_no_silence(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not asked yet has not failed to answer."""
    monkeypatch.setattr(observe, "SURVEY_DEADLINE", 0.1)
    async with running_hub(database_url, tmp_path, wrap=TakesItsTurn, loops=False) as hub:
        await Observer(hub.hub, "memory", hub.hub.spawners["memory"], hub.prober).look()
        state = await hub.hub.database.read(bound(find_state, "memory"))
    assert state.failing_since is None
    assert state.complete_at is not None


async def test_surveys_leave_the_turns_time_to_come(database_url: str, tmp_path: Path) -> None:
    """They are no faster than the platform may be asked, whatever period is configured."""
    async with running_hub(database_url, tmp_path, wrap=TakesItsTurn, loops=False) as hub:
        began = monotonic()
        await Observer(hub.hub, "memory", hub.hub.spawners["memory"], hub.prober).pause(0)
    assert monotonic() - began >= 0.4
