"""The life of a launch, on both databases, with the real loops and a platform in memory."""

from datetime import timedelta
from pathlib import Path

import anyio
import pytest
from sqlalchemy import Connection

from perijove.db import launches as rows
from perijove.db.core import bound
from perijove.domain.errors import SpawnerRejected, SpawnerTransient
from perijove.domain.launch import Cause, End, Launch, Reason, Status, Wanted
from perijove.reconcile.steps import Steps
from perijove.services.launches import place_in_line, request_restart
from perijove.services.offers import PolicySection, ProfileSection
from perijove.services.waits import keep_waiting
from perijove.spawners.contract import Checkpoint, Handle, LaunchSpec, Phase, Sighting, Spawner
from tests.fakes.spawners import (
    FailsAtStage,
    MemoryPlatform,
    NeverAnswers,
    SlowToStart,
    Stage,
    Wrapper,
)
from tests.hubs import TEST, ShiftedClock, answering_server, running_hub

pytestmark = pytest.mark.anyio


async def test_start_leads_to_ready_and_stop_to_ended(database_url: str, tmp_path: Path) -> None:
    """A start is submitted once, becomes ready with a route, and a stop leaves nothing behind."""
    async with answering_server() as server:
        platform = MemoryPlatform(url=server.url)
        async with running_hub(database_url, tmp_path, platform=platform) as hub:
            launch = await hub.start()
            assert launch.status is Status.REQUESTED

            ready = await hub.becomes(launch, Status.READY)

            assert platform.started == [launch.name]
            assert ready.server_version == "6.1.1"
            assert await hub.prefixes() == {"/user/ann/"}
            codes = [event.code for event in await hub.events(launch.id)]
            if "queued" in codes:  # a survey came in between
                codes.remove("queued")
            assert codes == ["requested", "submitted", "connecting", "routed", "ready"]

            await hub.stop()
            ended = await hub.becomes(launch, Status.ENDED)

            assert ended.end == End(cause=Cause.USER)
            assert platform.present == {}
            assert await hub.prefixes() == set()


async def test_start_and_stop_are_idempotent(database_url: str, tmp_path: Path) -> None:
    """A second start returns the live launch, a second stop changes nothing."""
    async with (
        answering_server() as server,
        running_hub(database_url, tmp_path, platform=MemoryPlatform(url=server.url)) as hub,
    ):
        assert await hub.stop() is None
        first = await hub.start()
        again = await hub.start()
        assert again.id == first.id
        await hub.becomes(first, Status.READY)

        await hub.stop()
        await hub.stop(cause=Cause.ADMIN)
        ended = await hub.becomes(first, Status.ENDED)

        assert ended.end is not None
        assert ended.end.cause is Cause.USER
        assert hub.platform.started == [first.name]


async def test_restart_waits_until_the_first_is_gone(database_url: str, tmp_path: Path) -> None:
    """A restart's launch is handed over only after its predecessor has ended."""
    async with (
        answering_server() as server,
        running_hub(database_url, tmp_path, platform=MemoryPlatform(url=server.url)) as hub,
    ):
        first = await hub.becomes(await hub.start(), Status.READY)
        user_id = await hub.user()

        second = await request_restart(hub.hub, user_id=user_id, server_name="", asking=TEST)
        ready = await hub.becomes(second, Status.READY)

        gone = await hub.launch(first.id)
        assert second.id != first.id
        assert second.after == first.id
        assert gone.ended_at is not None
        assert ready.submitted_at is not None
        assert gone.ended_at <= ready.submitted_at
        assert [one.id for one in await hub.live()] == [second.id]


@pytest.mark.parametrize(
    "stage",
    [Stage.BEFORE_START, Stage.BEFORE_CHECKPOINT, Stage.AFTER_CHECKPOINT, Stage.AFTER_START],
)
async def test_failed_act_is_repeated_without_a_second_server(
    database_url: str, tmp_path: Path, stage: Stage
) -> None:
    """Wherever `start` breaks off, the launch becomes ready and was started exactly once."""
    async with (
        answering_server() as server,
        running_hub(
            database_url,
            tmp_path,
            platform=MemoryPlatform(url=server.url),
            wrap=lambda inner: FailsAtStage(inner, stage, times=1),
        ) as hub,
    ):
        launch = await hub.becomes(await hub.start(), Status.READY)

        assert hub.platform.started == [launch.name]


class LosesAnswer(Wrapper):
    """Starts within, and loses the answer, but not before the test says so."""

    def __init__(self, inner: Spawner) -> None:
        super().__init__(inner)
        self.lost = anyio.Event()

    async def start(self, spec: LaunchSpec, checkpoint: Checkpoint) -> Sighting:
        """Start within, and say nothing."""
        await super().start(spec, checkpoint)
        await self.lost.wait()
        raise SpawnerTransient("the answer was lost, on purpose")


async def test_failure_does_not_put_off_what_others_have_moved_on(
    database_url: str, tmp_path: Path
) -> None:
    """A start that fails after the launch was seen to run counts for nothing: it is due at once."""
    async with (
        answering_server() as server,
        running_hub(
            database_url, tmp_path, platform=MemoryPlatform(url=server.url), wrap=LosesAnswer
        ) as hub,
    ):
        launch = await hub.becomes(await hub.start(), Status.CONNECTING)
        hub.spawner.lost.set()
        ready = await hub.becomes(launch, Status.READY)

        assert ready.failures == 0
        assert "start-failed" not in [event.code for event in await hub.events(launch.id)]


async def test_step_does_not_put_off_what_others_have_moved_on(
    database_url: str, tmp_path: Path
) -> None:
    """A job says that its server listens while a step judges its clock: it is due at once."""
    async with running_hub(database_url, tmp_path, loops=False) as hub:
        now, token = hub.hub.clock.now(), "lease"

        def claim(connection: Connection, launch: Launch) -> Launch:
            for status in (Status.SUBMITTED, Status.STARTING):
                launch = rows.change(connection, launch, now=now, status=status, due_at=now)
            (claimed,) = rows.claim_due(
                connection, token=token, now=now, ttl=timedelta(minutes=1), limit=1
            )
            return claimed

        claimed = await hub.hub.database.write(bound(claim, await hub.start()))
        spoken = {"status": Status.CONNECTING, "url": "http://127.0.0.1:9", "due_at": now}
        await hub.hub.database.write(bound(rows.change, claimed, now=now, **spoken))

        await Steps(hub.hub, hub.prober, token=token).step(claimed)

        assert (await hub.launch(claimed.id)).status is Status.CONNECTING
        assert await hub.hub.database.read(rows.next_due) == now


@pytest.mark.parametrize("stage", [Stage.BEFORE_STOP, Stage.AFTER_STOP])
async def test_failed_stop_is_repeated(database_url: str, tmp_path: Path, stage: Stage) -> None:
    """A stop that breaks off is repeated until the platform has nothing of it."""
    async with (
        answering_server() as server,
        running_hub(
            database_url,
            tmp_path,
            platform=MemoryPlatform(url=server.url),
            wrap=lambda inner: FailsAtStage(inner, stage, times=2),
        ) as hub,
    ):
        launch = await hub.becomes(await hub.start(), Status.READY)
        await hub.stop()
        await hub.becomes(launch, Status.ENDED)

        assert hub.platform.present == {}


async def test_rejected_request_ends_with_the_platforms_words(
    database_url: str, tmp_path: Path
) -> None:
    """What the platform refuses for good is never tried again, and says why."""
    async with running_hub(
        database_url,
        tmp_path,
        wrap=lambda inner: FailsAtStage(
            inner, Stage.BEFORE_START, error=lambda: SpawnerRejected("no such image: x")
        ),
    ) as hub:
        ended = await hub.becomes(await hub.start(), Status.ENDED)

        assert ended.end is not None
        assert (ended.end.cause, ended.end.reason) == (Cause.NEVER_STARTED, "rejected")
        assert "no such image: x" in ended.end.detail


async def test_queue_time_is_shown_with_its_reason(database_url: str, tmp_path: Path) -> None:
    """A launch that the platform makes wait is queued, with the platform's reason."""
    reason = Reason(code="resources", params={"free": 0}, words="Resources")
    async with (
        answering_server() as server,
        running_hub(
            database_url,
            tmp_path,
            platform=MemoryPlatform(url=server.url),
            wrap=lambda inner: SlowToStart(inner, surveys=10**6, reason=reason),
        ) as hub,
    ):
        launch = await hub.start()
        # A survey may come before the start's own answer, and see less.
        await hub.until(launch, lambda now: now.reason == reason, what="the reason")
        codes = {event.code for event in await hub.events(launch.id)}
        assert "queued" in codes

        hub.spawner.active = False
        ready = await hub.becomes(launch, Status.READY)
        assert ready.reason is None


async def test_at_the_queues_limit_it_asks_and_keeps_its_place(
    database_url: str, tmp_path: Path
) -> None:
    """Nothing that waits is ended behind a person's back; who says yes has the whole time again."""
    async with (
        answering_server() as server,
        running_hub(
            database_url,
            tmp_path,
            platform=MemoryPlatform(url=server.url),
            wrap=lambda inner: SlowToStart(inner, surveys=1000),
            spawner={"queue_limit": 0.3},
        ) as hub,
    ):
        launch = await hub.start()
        await hub.until(launch, lambda now: now.queue_asked_at is not None, what="the question")
        await keep_waiting(hub.hub, launch.id, asking=TEST)
        again = await hub.until(
            launch, lambda now: now.queue_asked_at is not None, what="the next question"
        )

        assert again.status is Status.QUEUED
        assert again.queue_extended_at is not None
        codes = [event.code for event in await hub.events(launch.id)]
        assert codes.count("queue-limit") == 2


async def test_who_wishes_to_be_asked_sooner_is(database_url: str, tmp_path: Path) -> None:
    """The person's own limit counts before a later one of the site, and ends nothing either."""
    clock = ShiftedClock()
    section = ProfileSection.model_validate(
        {"name": "default", "fields": {"queue_limit": {"max": "2 h"}}}
    )
    async with running_hub(
        database_url,
        tmp_path,
        clock=clock,
        spawner={"queue_limit": 3600},
        profile_sections=[section],
    ) as hub:
        asked = await hub.start(options={"queue_limit": "20 min"})
        launch = await hub.becomes(asked, Status.CONNECTING)
        hub.platform.show(launch.name, Phase.PENDING)
        launch = await hub.becomes(launch, Status.QUEUED)
        clock.shift(timedelta(minutes=21))
        launch = await hub.until(
            launch, lambda now: now.queue_asked_at is not None, what="the question"
        )
        assert launch.wanted is Wanted.RUN


async def test_who_does_not_answer_is_given_up_where_the_policy_says_so(
    database_url: str, tmp_path: Path
) -> None:
    """The question comes first, and there is time to answer it."""
    async with running_hub(
        database_url,
        tmp_path,
        platform=MemoryPlatform(url="http://127.0.0.1:9"),
        wrap=lambda inner: SlowToStart(inner, surveys=1000),
        policies=[PolicySection(queue_limit=timedelta(seconds=1), queue_unanswered="cancel")],
    ) as hub:
        launch = await hub.start()
        await hub.until(launch, lambda now: now.queue_asked_at is not None, what="the question")
        ended = await hub.becomes(launch, Status.ENDED)

        assert str(ended.end) == "never-started(queue-clock)"


async def test_cancel_during_a_start_that_hangs(database_url: str, tmp_path: Path) -> None:
    """A stop during a start that hangs is done as soon as that start is given up."""
    async with running_hub(
        database_url,
        tmp_path,
        wrap=lambda inner: NeverAnswers(inner, acts=("start",)),
        spawner={"submit_limit": 3},
    ) as hub:
        launch = await hub.start()
        await hub.becomes(launch, Status.SUBMITTED)
        await hub.stop()

        ended = await hub.becomes(launch, Status.ENDED)

        assert ended.end == End(cause=Cause.USER)
        assert hub.platform.stopped == [launch.name]


@pytest.mark.parametrize(
    "end",
    [
        End(cause=Cause.SIGNAL, code=9),
        End(cause=Cause.EXITED, code=1),
        End(cause=Cause.OUT_OF_MEMORY),
        End(cause=Cause.PREEMPTED),
    ],
    ids=str,
)
async def test_end_outside_has_the_evidence_as_cause_and_is_not_revived(
    database_url: str, tmp_path: Path, end: End
) -> None:
    """A server that ends by itself is ended with what the platform saw, and stays ended."""
    async with (
        answering_server() as server,
        running_hub(database_url, tmp_path, platform=MemoryPlatform(url=server.url)) as hub,
    ):
        launch = await hub.becomes(await hub.start(), Status.READY)
        hub.platform.end(launch.name, end)

        ended = await hub.becomes(launch, Status.ENDED)

        assert ended.end is not None
        assert (ended.end.cause, ended.end.code) == (end.cause, end.code)
        assert await hub.live() == []
        assert hub.platform.started == [launch.name]


class TellsNothing(Wrapper):
    """Cannot show what was written: the file lies where nothing answers."""

    async def log_tail(self, name: str, handle: Handle | None, *, lines: int) -> str:
        """Fail, after it was asked for a while."""
        await anyio.lowlevel.checkpoint()
        raise SpawnerTransient(f"{name}, {handle}: {lines} lines are out of reach")


async def test_a_log_out_of_reach_keeps_nothing_from_ending(
    database_url: str, tmp_path: Path
) -> None:
    """What a server wrote is worth a question, and not more: its end is written all the same."""
    async with (
        answering_server() as server,
        running_hub(
            database_url, tmp_path, platform=MemoryPlatform(url=server.url), wrap=TellsNothing
        ) as hub,
    ):
        launch = await hub.becomes(await hub.start(), Status.READY)
        hub.platform.end(launch.name, End(cause=Cause.EXITED, code=1))

        ended = await hub.becomes(launch, Status.ENDED)

        assert ended.end == End(cause=Cause.EXITED, code=1)


async def test_clock_that_runs_out_ends_the_launch_by_its_name(
    database_url: str, tmp_path: Path
) -> None:
    """A server that never answers ends as never-started(connect-clock)."""
    async with (
        answering_server(status=b"503 Away") as server,
        running_hub(
            database_url,
            tmp_path,
            platform=MemoryPlatform(url=server.url),
            spawner={"connect_limit": 0.5},
        ) as hub,
    ):
        ended = await hub.becomes(await hub.start(), Status.ENDED)

        assert ended.end is not None
        assert str(ended.end) == "never-started(connect-clock)"
        assert "Spawn failed: Timeout" in ended.end.detail


async def test_no_proxy_is_a_reason_to_wait_not_to_fail(database_url: str, tmp_path: Path) -> None:
    """Without a proxy that lives, a launch stays connecting and says so."""
    async with (
        answering_server() as server,
        running_hub(
            database_url, tmp_path, platform=MemoryPlatform(url=server.url), with_proxy=False
        ) as hub,
    ):
        launch = await hub.until(
            await hub.start(),
            lambda now: now.reason is not None and now.reason.code == "proxy-away",
            what="the reason",
        )

        assert launch.status is Status.CONNECTING


async def test_full_spawner_makes_a_fair_line(database_url: str, tmp_path: Path) -> None:
    """Starts beyond the spawner's limit wait in line; who has nothing on the way comes first."""
    async with (
        answering_server(status=b"503 Away") as server,
        running_hub(
            database_url,
            tmp_path,
            platform=MemoryPlatform(url=server.url),
            spawner={"max_starting": 1},
        ) as hub,
    ):
        first = await hub.start("ann")
        await hub.becomes(first, Status.CONNECTING)
        second = await hub.start("ann", "two")
        third = await hub.start("bob")

        def places(connection: object) -> list[tuple[int, int] | None]:
            return [place_in_line(connection, one) for one in (second, third)]  # type: ignore[arg-type]

        assert await hub.hub.database.read(places) == [(2, 2), (1, 2)]

        server.status = b"200 OK"
        for launch in (first, second, third):
            await hub.becomes(launch, Status.READY)
        bob, ann = await hub.launch(third.id), await hub.launch(second.id)
        assert bob.submitted_at is not None
        assert ann.submitted_at is not None
        assert bob.submitted_at <= ann.submitted_at


async def test_stop_in_the_line_ends_without_touching_the_platform(
    database_url: str, tmp_path: Path
) -> None:
    """Who leaves the line was never handed to the platform."""
    async with running_hub(database_url, tmp_path, spawner={"max_starting": 0}) as hub:
        launch = await hub.start()
        await hub.stop()

        ended = await hub.becomes(launch, Status.ENDED)

        assert ended.end == End(cause=Cause.USER)
        assert (hub.platform.started, hub.platform.stopped) == ([], [])


async def test_fifty_starts_are_all_ready_and_started_once(
    database_url: str, tmp_path: Path
) -> None:
    """Many starts at once lead to exactly one server each."""
    async with (
        answering_server() as server,
        running_hub(database_url, tmp_path, platform=MemoryPlatform(url=server.url)) as hub,
    ):
        launches = [await hub.start(f"user{number}") for number in range(50)]
        for launch in launches:
            await hub.becomes(launch, Status.READY)

        assert sorted(hub.platform.started) == sorted(one.name for one in launches)
        assert len(await hub.prefixes()) == 50


async def test_suspended_server_keeps_its_route(database_url: str, tmp_path: Path) -> None:
    """A platform that suspends and resumes a server does not end it."""
    async with (
        answering_server() as server,
        running_hub(database_url, tmp_path, platform=MemoryPlatform(url=server.url)) as hub,
    ):
        launch = await hub.becomes(await hub.start(), Status.READY)

        hub.platform.show(launch.name, Phase.SUSPENDED)
        await hub.becomes(launch, Status.SUSPENDED)
        assert await hub.prefixes() == {"/user/ann/"}
        hub.platform.show(launch.name, Phase.RUNNING)
        again = await hub.becomes(launch, Status.READY)

        assert again.wanted is Wanted.RUN


async def test_stop_with_remove_deletes_the_server(database_url: str, tmp_path: Path) -> None:
    """A named server asked to be removed goes when its launch has ended; the launch stays."""
    async with (
        answering_server() as server,
        running_hub(database_url, tmp_path, platform=MemoryPlatform(url=server.url)) as hub,
    ):
        launch = await hub.becomes(await hub.start("ann", "work"), Status.READY)
        await hub.stop("ann", "work", remove=True)
        await hub.becomes(launch, Status.ENDED)

        kept = await hub.launch(launch.id)
        assert (kept.server_id, kept.user_name, kept.server_name) == (None, "ann", "work")


async def test_two_hubs_share_the_work(postgresql_url: str, tmp_path: Path) -> None:
    """Two hubs on one PostgreSQL bring each launch to ready exactly once, also when one stops."""
    platform = MemoryPlatform()
    async with answering_server() as server:
        platform.url = server.url
        async with running_hub(postgresql_url, tmp_path, platform=platform) as one:
            async with running_hub(postgresql_url, tmp_path, platform=platform) as two:
                launches = [
                    await (one, two)[number % 2].start(f"user{number}") for number in range(12)
                ]
                for launch in launches[:4]:
                    await two.becomes(launch, Status.READY)
            for launch in launches:
                await one.becomes(launch, Status.READY, seconds=100)

            assert sorted(platform.started) == sorted(launch.name for launch in launches)


async def test_wait_is_shortened_by_the_doorbell(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start is looked at when it is asked for, not at the next period."""
    monkeypatch.setattr("perijove.reconcile.launches.PERIOD", 3600)
    async with running_hub(database_url, tmp_path) as hub:
        for name in ("ann", "bob"):  # the first pass may have come upon the first of them
            launch = await hub.start(name)
            await hub.until(launch, lambda now: now.submitted_at is not None, what="its turn")
