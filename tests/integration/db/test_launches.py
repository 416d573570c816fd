"""The launch table: who may work on what, what may be written, and who is next in line."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, select, update

from perijove.db import launches, schema
from perijove.db.core import Database, bound, database_now, open_database, sync_engine
from perijove.db.servers import remove_if_asked
from perijove.db.tables import launches as table
from perijove.domain.errors import Conflict, LeaseLost, NotFound
from perijove.domain.launch import ON_PLATFORM, Cause, End, Launch, Reason, Status, Wanted
from tests.integration.db.rows import NOW, bring, insert_launch

pytestmark = pytest.mark.anyio

TTL = timedelta(seconds=20)
TO_READY = (Status.SUBMITTED, Status.CONNECTING, Status.READY)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    """Open a database with all tables."""
    schema.ensure(url)
    async with open_database(url) as database:
        yield database


def claim(token: str, *, now: datetime = NOW, limit: int = 100) -> Callable[..., list[Launch]]:
    """Return the unit that claims what is due."""
    return bound(launches.claim_due, token=token, now=now, ttl=TTL, limit=limit)


def insert_due(connection: Connection, count: int, *, at: datetime = NOW) -> set[str]:
    """Insert launches that are due, and return their ids."""
    made = [insert_launch(connection) for _ in range(count)]
    for launch in made:
        launches.change(connection, launch, now=NOW, due_at=at)
    return {launch.id for launch in made}


# --- claiming ---------------------------------------------------------------------------------


async def test_each_due_launch_is_claimed_once(database_url: str) -> None:
    """Replicas that claim at the same moment share what is due, and miss nothing."""
    claimed: list[str] = []

    async with opened(database_url) as database:
        due = await database.write(bound(insert_due, 60))

        async def replica(number: int) -> None:
            while found := await database.write(claim(f"t{number}", limit=7)):
                claimed.extend(launch.id for launch in found)
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            for number in range(4):
                tasks.start_soon(replica, number)

    assert Counter(claimed) == Counter(due)


async def test_only_what_is_due_is_claimed_and_the_oldest_first(database_url: str) -> None:
    """What is due later, or never, is left alone; a limit takes what waits longest."""
    later = NOW + timedelta(seconds=1)
    async with opened(database_url) as database:
        await database.write(insert_launch)
        second = await database.write(bound(insert_due, 1))
        first = await database.write(bound(insert_due, 1, at=NOW - TTL))
        third = await database.write(bound(insert_due, 1, at=later))

        assert {launch.id for launch in await database.write(claim("a", limit=1))} == first
        assert {launch.id for launch in await database.write(claim("b"))} == second
        assert {launch.id for launch in await database.write(claim("c", now=later))} == third


async def test_a_lease_is_free_when_given_back_or_run_out(database_url: str) -> None:
    """Who gives back makes room at once; who died, after a while; who renews keeps it."""
    async with opened(database_url) as database:
        await database.write(bound(insert_due, 1))
        (mine,) = await database.write(claim("a"))
        assert await database.write(claim("b")) == []

        await database.write(bound(launches.release, mine.id, token="b"))
        assert await database.write(claim("b")) == []
        await database.write(bound(launches.release, mine.id, token="a"))
        assert len(await database.write(claim("b"))) == 1

        await database.write(run_out)
        await database.write(bound(launches.renew, [mine.id], token="b", ttl=TTL))
        assert await database.write(claim("c")) == []
        await database.write(run_out)
        assert len(await database.write(claim("c"))) == 1
        await database.write(bound(launches.renew, [mine.id], token="b", ttl=TTL))
        await database.write(run_out)
        assert len(await database.write(claim("d"))) == 1


def run_out(connection: Connection) -> None:
    """Let every lease have ended a moment ago, by the database's own clock."""
    ago = database_now(connection) - timedelta(seconds=1)
    connection.execute(
        update(table).where(table.c.lease_token.is_not(None)).values(lease_until=ago)
    )


async def test_a_hub_that_starts_alone_takes_every_lease_back(database_url: str) -> None:
    """What the hub before it held is free at once."""
    async with opened(database_url) as database:
        due = await database.write(bound(insert_due, 3))
        await database.write(claim("dead"))
        await database.write(launches.release_all)

        assert {launch.id for launch in await database.write(claim("new"))} == due


async def test_next_due_counts_leases(database_url: str) -> None:
    """A launch that somebody works on is due for others when the lease has run out."""
    async with opened(database_url) as database:
        assert await database.read(launches.next_due) is None
        await database.write(bound(insert_due, 1))
        assert await database.read(launches.next_due) == NOW
        await database.write(claim("a"))

        leased = await database.read(launches.next_due)
        assert leased is not None
        assert leased > NOW


# --- changing ---------------------------------------------------------------------------------


async def test_change_refuses_what_may_not_follow(database_url: str) -> None:
    """A status that the table of transitions does not allow is not written."""
    async with opened(database_url) as database:
        launch = await database.write(insert_launch)
        with pytest.raises(Conflict):
            await database.write(
                bound(launches.change, launch, now=NOW, status=Status.READY, node="n1")
            )

        assert await database.read(bound(launches.get_launch, launch.id)) == launch


async def test_change_refuses_what_was_seen_before(database_url: str) -> None:
    """Who read the launch before somebody else took it on writes nothing."""
    async with opened(database_url) as database:
        old = await database.write(insert_launch)
        now = await database.write(bound(bring, old, Status.SUBMITTED))
        with pytest.raises(LeaseLost):
            await database.write(bound(launches.change, old, now=NOW, node="n1"))

        assert await database.read(bound(launches.get_launch, old.id)) == now


async def test_change_under_a_lease_needs_the_lease(database_url: str) -> None:
    """A step whose lease was taken over writes nothing; one that holds it does."""
    async with opened(database_url) as database:
        await database.write(bound(insert_due, 1))
        (launch,) = await database.write(claim("a"))
        with pytest.raises(LeaseLost):
            await database.write(bound(launches.change, launch, now=NOW, lease="b", node="x"))

        changed = await database.write(
            bound(launches.change, launch, now=NOW, lease="a", node="n1")
        )
        assert changed == replace(launch, node="n1")


async def test_change_stamps_each_status(database_url: str) -> None:
    """When a status was entered stands in the row; being held in a queue is one stay there."""

    async with opened(database_url) as database:
        launch = await database.write(insert_launch)

        async def enter(status: Status, seconds: int) -> Launch:
            now = NOW + timedelta(seconds=seconds)
            return await database.write(bound(launches.change, launch, now=now, status=status))

        entered = {}
        path = (Status.SUBMITTED, Status.HELD, Status.QUEUED, Status.HELD, Status.STARTING)
        for seconds, status in enumerate((*path, Status.QUEUED, Status.STARTING)):
            launch = await enter(status, seconds)
            entered[seconds] = (launch.entered_at() - NOW).total_seconds()

        assert entered == {0: 0, 1: 1, 2: 1, 3: 1, 4: 4, 5: 5, 6: 6}


async def test_what_is_written_is_read_back(database_url: str) -> None:
    """Reasons, ends and everything else are the same values after the database had them."""
    reason = Reason(code="resources", params={"cpu": 4}, words="Resources (None)")
    end = End(cause=Cause.EXITED, code=1, detail="line 1\nline 2 é")

    async with opened(database_url) as database:
        launch = await database.write(insert_launch)
        launch = await database.write(
            bound(bring, launch, Status.SUBMITTED, Status.QUEUED, reason=reason, absences=1)
        )
        assert launch.reason == reason
        assert launch.absences == 1
        launch = await database.write(bound(launches.change, launch, now=NOW, reason=None, end=end))
        assert launch.reason is None
        ended = await database.write(bound(bring, launch, Status.ENDING, Status.ENDED))

        assert ended.end == end
        assert await database.read(bound(launches.get_launch, launch.id)) == ended
        cause = await database.read(lambda c: c.execute(select(table.c.end_cause)).scalar_one())
        assert cause == "exited"


async def test_a_launch_that_is_not_there_is_not_found(database_url: str) -> None:
    """`get_` raises, `find_` returns None."""
    async with opened(database_url) as database:
        assert await database.read(bound(launches.find_launch, "lch_x")) is None
        assert await database.read(bound(launches.find_by_name, "pj-x")) is None
        with pytest.raises(NotFound):
            await database.read(bound(launches.get_launch, "lch_x"))


async def test_a_server_has_one_wanted_launch(database_url: str) -> None:
    """The database itself refuses a second one, until the first is wanted to end."""
    async with opened(database_url) as database:
        first = await database.write(bound(insert_launch, user="ann"))
        with pytest.raises(Conflict):
            await database.write(bound(insert_launch, user="ann"))

        end = End(cause=Cause.USER)
        await database.write(bound(launches.change, first, now=NOW, wanted=Wanted.END, end=end))
        second = await database.write(bound(insert_launch, user="ann", asked=1, after=first.id))
        assert second.server_id is not None
        live = await database.read(bound(launches.live_launch_of, second.server_id))
        last = await database.read(bound(launches.last_launch_of, second.server_id))
        assert live == second
        assert last == second


async def test_handles_are_kept_in_the_order_they_came(database_url: str) -> None:
    """The same handle twice is one; a launch that started twice shows both."""

    def add(connection: Connection, body: dict[str, object]) -> None:
        launches.append_handle(connection, launch.id, body, now=NOW)

    async with opened(database_url) as database:
        launch = await database.write(insert_launch)
        for body in ({"job": 1, "at": "a"}, {"at": "a", "job": 1}, {"job": 2}):
            await database.write(bound(add, body))

        handles = await database.read(bound(launches.list_handles, launch.id))
        assert handles == [{"job": 1, "at": "a"}, {"job": 2}]


async def test_a_server_goes_only_when_that_was_asked(database_url: str) -> None:
    """The row stays by default, and its launches stay as a record of use either way."""
    async with opened(database_url) as database:
        launch = await database.write(insert_launch)
        assert launch.server_id is not None
        assert not await database.write(bound(remove_if_asked, launch.server_id))


# --- the line ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """One launch in a story: whose, when, and whether it is on the platform already."""

    user: int
    at: int
    status: Status


ASKED = st.builds(
    Asked,
    user=st.integers(0, 3),
    at=st.integers(0, 5),
    status=st.sampled_from([Status.REQUESTED, Status.REQUESTED, Status.SUBMITTED, Status.READY]),
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Give a database whose every story is rolled back."""
    url = f"sqlite:///{tmp_path_factory.mktemp('line') / 'hub.sqlite'}"
    schema.ensure(url)
    engine = sync_engine(url)
    yield engine
    engine.dispose()


@given(story=st.lists(ASKED, max_size=12))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_the_line_is_fair(engine: Engine, story: list[Asked]) -> None:
    """
    Everyone who waits is in the line; one's own come in the order asked for; and nobody is
    served before somebody who has less on the platform and in the line before.
    """
    with engine.connect() as connection:
        waiting, busy = _tell(connection, story)
        line = launches.line_of(connection, "memory")
        first = launches.line_of(connection, "memory", limit=2)
        connection.rollback()

    assert {launch.id for launch in line} == {launch.id for launch in waiting}
    assert first == line[:2]
    before = busy.copy()
    shares = []
    for launch in line:
        shares.append((before[launch.user_name], launch.requested_at))
        before[launch.user_name] += 1
    assert shares == sorted(shares)


def _tell(connection: Connection, story: list[Asked]) -> tuple[list[Launch], Counter[str]]:
    """Insert a story; returns who waits, and how many each user has on the platform."""
    waiting, busy = [], Counter[str]()
    for number, asked in enumerate(story):
        user = f"user{asked.user}"
        launch = insert_launch(connection, user=user, server=f"s{number}", asked=asked.at)
        if asked.status is Status.REQUESTED:
            waiting.append(launch)
            continue
        path = TO_READY[: TO_READY.index(asked.status) + 1]
        bring(connection, launch, *path)
        busy[user] += 1
    return waiting, busy


async def test_a_restart_waits_outside_the_line(database_url: str) -> None:
    """What must come after another launch is in the line only when that one has ended."""
    async with opened(database_url) as database:
        old = await database.write(bound(insert_launch, user="ann"))
        old = await database.write(bound(bring, old, *TO_READY))
        old = await database.write(
            bound(launches.change, old, now=NOW, wanted=Wanted.END, end=End(cause=Cause.USER))
        )
        new = await database.write(bound(insert_launch, user="ann", after=old.id))
        line = bound(launches.line_of, "memory")
        assert await database.read(line) == []

        await database.write(bound(bring, old, Status.ENDING, Status.ENDED))
        assert await database.read(line) == [new]


async def test_each_spawner_has_its_own_line(database_url: str) -> None:
    """What waits for one platform neither delays nor counts for another."""
    async with opened(database_url) as database:
        there = await database.write(bound(insert_launch, spawner="there"))
        assert await database.read(launches.spawners_with_line) == {"there"}
        assert await database.read(bound(launches.line_of, "here")) == []

        await database.write(bound(bring, there, Status.SUBMITTED))
        assert await database.read(launches.spawners_with_line) == set()
        assert await database.read(bound(launches.count_on_the_way, "there")) == 1
        assert await database.read(bound(launches.count_on_the_way, "here")) == 0


@pytest.mark.parametrize("status", sorted(ON_PLATFORM - {Status.READY, Status.ENDING}))
async def test_what_may_follow_submission_counts_as_on_the_way(
    tmp_path_factory: pytest.TempPathFactory, status: Status
) -> None:
    """A spawner's share is taken by everything between the submission and ready."""
    url = f"sqlite:///{tmp_path_factory.mktemp('way') / 'hub.sqlite'}"
    path = (Status.SUBMITTED, status) if status is not Status.SUBMITTED else (status,)
    async with opened(url) as database:
        launch = await database.write(insert_launch)
        await database.write(bound(bring, launch, *path))

        counted = await database.read(bound(launches.count_on_the_way, "memory"))
        assert counted == (status is not Status.SUSPENDED)
