"""Leases, routes, workers, events and the installation's row, on both databases."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import anyio
import pytest
from sqlalchemy import Connection, select, update

from perijove.db import events, routes, schema, spawner_states
from perijove.db.core import Database, bound, database_now, open_database
from perijove.db.installation import DEAF_AFTER, beat, ensure_installation, hearing_since
from perijove.db.leases import drop_all, take_lease
from perijove.db.tables import counters, launches, leases
from perijove.domain.asking import Asking
from perijove.wire.control import Route, RouteTable
from tests.integration.db.rows import insert_launch

pytestmark = pytest.mark.anyio

T = TypeVar("T")

NOW = datetime(2020, 11, 20, 12, tzinfo=UTC)
TTL = timedelta(seconds=20)
HERE = "http://127.0.0.1:1"
THERE = "http://127.0.0.1:2"
ASKING = Asking(actor="test", token_id=3, request_id="r")


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    """Open a database with all tables."""
    schema.ensure(url)
    async with open_database(url) as database:
        yield database


async def at_once(database: Database, units: list[Callable[[Connection], T]]) -> list[T]:
    """Run units at the same moment; returns their results."""
    results: list[T] = []

    async def one(unit: Callable[[Connection], T]) -> None:
        results.append(await database.write(unit))

    async with anyio.create_task_group() as tasks:
        for unit in units:
            tasks.start_soon(one, unit)
    return results


# --- leases -----------------------------------------------------------------------------------


async def test_a_lease_has_one_holder(database_url: str) -> None:
    """Of many who ask at once one gets it; who has it may renew it; nobody else may."""
    async with opened(database_url) as database:
        asked = [bound(take_lease, "work", token=f"t{n}", ttl=TTL) for n in range(10)]
        assert sorted(await at_once(database, asked)) == [False] * 9 + [True]

        holder = await database.read(lambda c: c.scalar(select(leases.c.token)))
        assert holder is not None
        assert await database.write(bound(take_lease, "work", token=holder, ttl=TTL))
        assert not await database.write(bound(take_lease, "work", token="other", ttl=TTL))
        assert await database.write(bound(take_lease, "else", token="other", ttl=TTL))


async def test_a_lease_that_ran_out_can_be_taken(database_url: str) -> None:
    """Who died loses it after a while, and what it does later with it does nothing."""
    async with opened(database_url) as database:
        await database.write(bound(take_lease, "work", token="dead", ttl=TTL))
        await database.write(run_out)

        assert await database.write(bound(take_lease, "work", token="heir", ttl=TTL))
        assert not await database.write(bound(take_lease, "work", token="dead", ttl=TTL))


def run_out(connection: Connection) -> None:
    """Let every lease have ended a moment ago, by the database's own clock."""
    ago = database_now(connection) - timedelta(seconds=1)
    connection.execute(update(leases).values(until=ago))


async def test_a_lease_that_was_given_back_is_free_at_once(database_url: str) -> None:
    """The only hub of a database does not wait for the one before it."""
    async with opened(database_url) as database:
        await database.write(bound(take_lease, "work", token="one", ttl=TTL))
        await database.write(drop_all)

        assert await database.write(bound(take_lease, "work", token="two", ttl=TTL))


# --- routes -----------------------------------------------------------------------------------


def put(prefix: str, target: str = HERE, launch: str | None = None) -> Callable[[Connection], int]:
    """Return the unit that adds a route."""
    return bound(routes.put_route, prefix=prefix, target=target, launch_id=launch)


def remove(launch: str, now: datetime = NOW) -> Callable[[Connection], bool]:
    """Return the unit that takes the routes of a launch away."""
    return bound(routes.remove_routes, launch, now=now)


async def table(database: Database, known: int) -> RouteTable:
    """Return what a proxy is told that has a revision."""
    return await database.read(bound(routes.table_since, known, installation="i"))


async def test_an_empty_table_is_revision_0_and_full(database_url: str) -> None:
    """Before the first route there is an answer all the same."""
    async with opened(database_url) as database:
        assert await table(database, 0) == RouteTable(installation="i", revision=0, routes=[])


async def test_every_change_has_a_revision_of_its_own(database_url: str) -> None:
    """Revisions grow by one, and a delta says what came, what changed and what went."""
    async with opened(database_url) as database:
        assert await database.write(put("/")) == 1
        assert await database.write(put("/user/a/", launch="la")) == 2
        assert await database.write(put("/user/b/", launch="lb")) == 3
        assert await database.write(remove("la"))

        changed = await table(database, 2)
        assert changed == RouteTable(
            installation="i",
            revision=4,
            routes=[Route(prefix="/user/b/", target=HERE, launch="lb")],
            removed=[("", "/user/a/")],
            full=False,
        )
        assert (await table(database, 4)).routes == []
        everything = await table(database, 0)
        assert everything.full
        assert {route.prefix for route in everything.routes} == {"/", "/user/b/"}


async def test_the_same_route_again_changes_nothing(database_url: str) -> None:
    """A step that is repeated costs the proxies nothing; another target does."""
    async with opened(database_url) as database:
        first = await database.write(put("/user/a/", launch="la"))
        assert await database.write(put("/user/a/", launch="la")) == first
        assert await database.write(put("/user/a/", THERE, launch="la")) == first + 1
        assert await database.write(put("/user/a/", THERE, launch="lb")) == first + 2


async def test_a_removed_route_can_come_back(database_url: str) -> None:
    """A route that was taken away is put again under a new revision, and is no longer removed."""
    async with opened(database_url) as database:
        await database.write(put("/user/a/", launch="la"))
        await database.write(remove("la"))
        assert not await database.write(remove("la"))
        assert await database.write(put("/user/a/", launch="lb")) == 3

        told = await table(database, 1)
        assert [route.launch for route in told.routes] == ["lb"]
        assert told.removed == []


async def test_a_late_removal_spares_the_route_of_the_next_launch(database_url: str) -> None:
    """The prefix belongs to the launch that has it now."""
    async with opened(database_url) as database:
        await database.write(put("/user/a/", launch="old"))
        await database.write(put("/user/a/", THERE, launch="new"))
        assert not await database.write(remove("old"))

        assert [r.target for r in (await table(database, 0)).routes] == [THERE]


async def test_who_missed_a_purge_is_told_everything(database_url: str) -> None:
    """Once removals are forgotten, a proxy that does not know of them gets the whole table."""
    async with opened(database_url) as database:
        await database.write(put("/"))
        await database.write(put("/user/a/", launch="la"))
        await database.write(remove("la"))
        purge = bound(routes.purge_tombstones, before=NOW)
        assert await database.write(purge) == 0
        purge = bound(routes.purge_tombstones, before=NOW + timedelta(seconds=1))
        assert await database.write(purge) == 1

        behind, up_to_date = await table(database, 2), await table(database, 3)
        assert behind.full
        assert [route.prefix for route in behind.routes] == ["/"]
        assert not up_to_date.full
        assert up_to_date.routes == []


async def test_who_knows_too_much_is_told_everything(database_url: str) -> None:
    """A revision from the future is one of another table: a backup was restored."""
    async with opened(database_url) as database:
        await database.write(put("/"))

        assert (await table(database, 99)).full


async def test_routes_put_at_once_have_different_revisions(database_url: str) -> None:
    """Also the very first ones: a proxy that has one of them is told of the others."""
    async with opened(database_url) as database:
        made = await at_once(database, [put(f"/user/{n}/", launch=f"l{n}") for n in range(8)])

        assert sorted(made) == list(range(1, 9))


async def test_workers_count_while_they_poll(database_url: str) -> None:
    """A worker that was seen lately counts with its newest revision; an old one is forgotten."""

    def live(connection: Connection, now: datetime) -> dict[str, int]:
        return {w.id: w.revision for w in routes.live_workers(connection, now=now)}

    later = NOW + routes.ALIVE
    async with opened(database_url) as database:
        for worker, revision, now in (("a", 1, NOW), ("b", 1, NOW), ("a", 2, later)):
            await database.write(bound(routes.note_worker, worker, revision=revision, now=now))

        assert await database.read(bound(live, later)) == {"a": 2, "b": 1}
        assert await database.read(bound(live, later + timedelta(seconds=1))) == {"a": 2}
        await database.write(bound(routes.purge_workers, before=later))
        assert await database.read(bound(live, NOW)) == {"a": 2}


# --- events -----------------------------------------------------------------------------------


def tell(launch_id: str, code: str) -> Callable[[Connection], None]:
    """Return the unit that records an event."""
    return bound(events.record, launch_id, code, {"n": 1}, asking=ASKING, now=NOW)


async def test_events_are_numbered_without_gaps(database_url: str) -> None:
    """However many are written at once, each launch has its own 1, 2, 3 …"""
    async with opened(database_url) as database:
        one = await database.write(insert_launch)
        other = await database.write(insert_launch)
        units = [tell(launch, f"c{n}") for n in range(15) for launch in (one.id, other.id)]
        await at_once(database, units)

        for launch in (one, other):
            found = await database.read(bound(events.list_events, launch.id))
            assert [event.seq for event in found] == list(range(1, 16))
            assert {event.code for event in found} == {f"c{n}" for n in range(15)}
            assert (found[0].actor, found[0].at, found[0].params) == ("test", NOW, {"n": 1})
            rest = await database.read(bound(events.list_events, launch.id, after=12))
            assert [event.seq for event in rest] == [13, 14, 15]


async def test_events_of_one_launch_are_bounded(database_url: str) -> None:
    """A launch that never comes to rest fills no disk: the first events stay, later ones count."""

    def many(connection: Connection) -> None:
        for _ in range(events.MOST + 3):
            events.record(connection, launch.id, "again", {}, asking=ASKING, now=NOW)

    async with opened(database_url) as database:
        launch = await database.write(insert_launch)
        await database.write(many)

        found = await database.read(bound(events.list_events, launch.id))
        assert len(found) == events.MOST
        counted = await database.read(lambda c: c.scalar(select(launches.c.seq)))
        assert counted == events.MOST + 3


async def test_an_event_of_no_launch_is_dropped(database_url: str) -> None:
    """What is told of a launch that is not there harms nobody."""
    async with opened(database_url) as database:
        await database.write(tell("lch_gone", "late"))

        assert await database.read(bound(events.list_events, "lch_gone")) == []


# --- the installation -------------------------------------------------------------------------


async def test_an_installation_keeps_its_name(database_url: str) -> None:
    """The name given on the first run is that of every later one."""
    async with opened(database_url) as database:
        name = await database.write(bound(ensure_installation, now=NOW))
        assert await database.write(bound(ensure_installation, now=NOW + TTL)) == name


async def test_hubs_that_start_at_once_are_of_one_installation(database_url: str) -> None:
    """Whoever comes second takes the name that the first has given."""
    async with opened(database_url) as database:
        names = await at_once(database, [bound(ensure_installation, now=NOW) for _ in range(8)])

        assert len(set(names)) == 1


async def test_hearing_starts_anew_only_after_a_gap(database_url: str) -> None:
    """Beats without a gap leave it alone; a gap, however short a time too long, moves it."""
    async with opened(database_url) as database:
        await database.write(bound(ensure_installation, now=NOW))
        edge = NOW + DEAF_AFTER
        await database.write(bound(beat, now=edge))
        assert await database.read(hearing_since) == NOW

        late = edge + DEAF_AFTER + timedelta(microseconds=1)
        await database.write(bound(beat, now=late))
        assert await database.read(hearing_since) == late


# --- platforms --------------------------------------------------------------------------------


async def test_the_state_of_a_platform_is_changed_column_by_column(database_url: str) -> None:
    """What one answer says leaves what another said."""
    async with opened(database_url) as database:
        empty = await database.read(bound(spawner_states.find_state, "local"))
        assert empty == spawner_states.SpawnerState(name="local")
        await database.write(bound(spawner_states.save_state, "local", complete_at=NOW))
        await database.write(
            bound(spawner_states.save_state, "local", failing_since=NOW + TTL, error="away")
        )

        found = await database.read(bound(spawner_states.find_state, "local"))
        assert found == spawner_states.SpawnerState(
            name="local", complete_at=NOW, failing_since=NOW + TTL, error="away"
        )


async def test_a_stranger_is_dated_from_its_first_sighting(database_url: str) -> None:
    """Being seen again does not make it younger; being forgotten does."""
    async with opened(database_url) as database:
        for now in (NOW, NOW + TTL):
            note = bound(spawner_states.note_orphan, "local", "pj-x", owner="ann", now=now)
            await database.write(note)
        assert await database.read(bound(spawner_states.list_orphans, "local")) == {"pj-x": NOW}
        assert await database.read(bound(spawner_states.list_orphans, "other")) == {}

        await database.write(bound(spawner_states.forget_orphan, "local", "pj-x"))
        assert await database.read(bound(spawner_states.list_orphans, "local")) == {}


async def test_the_route_counter_is_one_row(database_url: str) -> None:
    """However many hubs begin at once, there is one revision."""
    async with opened(database_url) as database:
        await at_once(database, [put("/") for _ in range(5)])

        rows = await database.read(lambda c: c.execute(select(counters)).all())
        assert len(rows) == 1
