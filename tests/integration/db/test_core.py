"""Units of work: what one promises to who asked for it, and to everybody else."""

import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest
from sqlalchemy import URL, Connection, event, insert, make_url, select, text, update

from perijove.db import schema
from perijove.db.core import Database, DatabaseClosed, bound, open_database, upsert
from perijove.db.tables import counters
from perijove.domain.errors import ConfigError, Conflict
from perijove.kit.loops import until

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    """Open a database with all tables."""
    schema.ensure(url)
    async with open_database(url) as database:
        yield database


def add(connection: Connection, name: str, value: int = 0) -> str:
    """Insert a row, which may be there already."""
    connection.execute(insert(counters).values(name=name, value=value))
    return f"added {name}"


def add_and_fail(connection: Connection, name: str) -> None:
    """Insert a row, and then find that it was not right."""
    add(connection, name)
    raise LookupError(name)


def count_up(connection: Connection, name: str) -> int:
    """Read a number and write one more, in two statements."""
    value = connection.execute(select(counters.c.value).where(counters.c.name == name)).scalar_one()
    connection.execute(update(counters).where(counters.c.name == name).values(value=value + 1))
    return int(value) + 1


def names(connection: Connection) -> list[str]:
    """Return which rows are there."""
    return list(connection.scalars(select(counters.c.name).order_by(counters.c.name)))


class Gate:
    """A unit of work that stays inside its transaction until the test lets it go on."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def hold(self, connection: Connection, name: str) -> str:
        """Write, and stay."""
        added = add(connection, name)
        self.entered.set()
        if not self.opened.wait(20):
            raise TimeoutError
        return added


@contextmanager
def gate() -> Iterator[Gate]:
    """Give a gate that is open at the end, whatever happens."""
    found = Gate()
    try:
        yield found
    finally:
        found.opened.set()


async def entered(found: Gate) -> None:
    """Wait until the unit is inside its transaction."""
    with anyio.fail_after(20):
        assert await anyio.to_thread.run_sync(found.entered.wait, 20)


async def test_a_result_arrives(database_url: str) -> None:
    """What a unit returns is what the caller gets, of reads and writes alike."""
    async with opened(database_url) as database:
        assert await database.write(bound(add, "a")) == "added a"
        assert await database.read(names) == ["a"]
        assert await database.read_long(names) == ["a"]


async def test_a_write_is_seen_by_the_next_read(database_url: str) -> None:
    """As soon as a write returns, every kind of read shows it."""
    async with opened(database_url) as database:
        for number in range(20):
            await database.write(bound(add, f"{number:02}"))
            assert len(await database.read(names)) == number + 1
            assert len(await database.read_long(names)) == number + 1


async def test_many_units_at_once_all_count(database_url: str) -> None:
    """Units that share a commit follow one another: none reads what another is about to write."""
    results: list[int] = []

    async with opened(database_url) as database:
        await database.write(bound(add, "n"))

        async def one() -> None:
            results.append(await database.write(bound(locked_count_up, "n")))

        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(one)

    assert sorted(results) == list(range(1, 51))


def locked_count_up(connection: Connection, name: str) -> int:
    """Count up under a lock of the row, which SQLite neither has nor needs."""
    connection.execute(select(counters).where(counters.c.name == name).with_for_update())
    return count_up(connection, name)


async def test_a_failing_unit_hurts_nobody_else(database_url: str) -> None:
    """Of many units, those that fail leave nothing behind, and the others are committed."""
    failures: list[str] = []

    async with opened(database_url) as database:

        async def one(number: int) -> None:
            name = f"{number:02}"
            if number % 3 == 0:
                with pytest.raises(LookupError, match=name):
                    await database.write(bound(add_and_fail, name))
                failures.append(name)
            else:
                await database.write(bound(add, name))

        async with anyio.create_task_group() as tasks:
            for number in range(30):
                tasks.start_soon(one, number)

        assert len(failures) == 10
        assert await database.read(names) == [f"{n:02}" for n in range(30) if n % 3]


async def test_a_duplicate_is_a_conflict(database_url: str) -> None:
    """What a unique index refuses is a `Conflict`, and the first row stays."""
    async with opened(database_url) as database:
        await database.write(bound(add, "a", 1))
        with pytest.raises(Conflict):
            await database.write(bound(add, "a", 2))
        await database.write(bound(add, "b"))

        assert await database.read(names) == ["a", "b"]


async def test_a_unit_that_is_no_longer_waited_for_harms_nothing(database_url: str) -> None:
    """Who is cancelled while waiting leaves nothing half-written, and nobody waiting."""
    async with opened(database_url) as database:
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(database.write, bound(add_both, number))
            await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()

        await database.write(bound(add, "after"))
        there = set(await database.read(names))

    assert "after" in there
    for number in range(20):
        assert (f"{number} first" in there) == (f"{number} second" in there)


def add_both(connection: Connection, number: int) -> None:
    """Write twice: both are there, or neither is."""
    add(connection, f"{number} first")
    add(connection, f"{number} second")


async def test_upsert_inserts_updates_and_keeps(database_url: str) -> None:
    """One call makes a row, changes it, or leaves it alone, as was asked."""

    def put(connection: Connection, value: int, on_update: dict[str, Any] | None = None) -> int:
        key = {"name": "n"}
        upsert(connection, counters, key=key, values={"value": value}, on_update=on_update)
        return int(connection.scalar(select(counters.c.value)) or 0)

    async with opened(database_url) as database:
        assert await database.write(bound(put, 1)) == 1
        assert await database.write(bound(put, 2)) == 2
        assert await database.write(bound(put, 3, on_update={})) == 2
        assert await database.write(bound(put, 4, on_update={"value": 9})) == 9


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("mysql://localhost/hub", "not supported"),
    ],
)
def test_other_databases_are_refused(url: str, says: str) -> None:
    """What cannot keep the state is refused by name."""
    with pytest.raises(ConfigError, match=says):
        open_database(url)


# --- SQLite only ------------------------------------------------------------------------------


@pytest.fixture
def sqlite_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give the URL of an empty file."""
    return f"sqlite:///{tmp_path_factory.mktemp('state') / 'hub.sqlite'}"


async def test_sqlite_reads_do_not_wait_for_a_writer(sqlite_url: str) -> None:
    """While a unit writes, both kinds of read answer, with what was committed before."""
    async with opened(sqlite_url) as database:
        await database.write(bound(add, "before"))
        async with anyio.create_task_group() as tasks:
            with gate() as held:
                tasks.start_soon(database.write, bound(held.hold, "during"))
                await entered(held)
                with anyio.fail_after(10):
                    assert await database.read(names) == ["before"]
                    assert await database.read_long(names) == ["before"]
        assert await database.read(names) == ["before", "during"]


async def test_sqlite_commits_what_waits_together(sqlite_url: str) -> None:
    """Units that came while one was written share a commit, so that many cost few."""
    async with opened(sqlite_url) as database:
        commits = 0

        def count(connection: Connection) -> None:
            def committed(*_args: object) -> None:
                nonlocal commits
                commits += 1

            event.listen(connection.engine, "commit", committed)

        with gate() as held:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(database.write, count)
                await anyio.lowlevel.checkpoint()
                tasks.start_soon(database.write, bound(held.hold, "first"))
                await entered(held)
                for number in range(40):
                    tasks.start_soon(database.write, bound(add, f"{number}"))
                await anyio.lowlevel.checkpoint()
                held.opened.set()

        assert len(await database.read(names)) == 41
    assert 1 <= commits < 10


async def test_sqlite_is_closed_after_what_waits_is_written(sqlite_url: str) -> None:
    """A hub that stops loses no unit that was handed over before."""
    async with anyio.create_task_group() as tasks, opened(sqlite_url) as database:
        with gate() as held:
            tasks.start_soon(database.write, bound(held.hold, "0"))
            await entered(held)
            for number in range(1, 30):
                tasks.start_soon(database.write, bound(add, f"{number}"))
            await anyio.lowlevel.checkpoint()

    async with opened(sqlite_url) as database:
        assert len(await database.read(names)) == 30


async def test_sqlite_is_safe_against_power_cuts(sqlite_url: str) -> None:
    """A commit is on the disk, foreign keys hold, and readers have a log to read beside."""

    def pragmas(connection: Connection) -> list[object]:
        wanted = ("synchronous", "foreign_keys", "journal_mode")
        return [connection.scalar(text(f"PRAGMA {name}")) for name in wanted]

    async with opened(sqlite_url) as database:
        for ask in (database.read, database.read_long, database.write):
            assert await ask(pragmas) == [2, 1, "wal"]


async def test_sqlite_goes_on_when_its_file_is_there_again(tmp_path: Path) -> None:
    """While neither connection nor file can be used a write fails, and none is waited for."""
    directory, away = tmp_path / "state", tmp_path / "away"
    directory.mkdir()
    async with opened(f"sqlite:///{directory / 'hub.sqlite'}") as database:
        await database.write(bound(add, "before"))
        directory.rename(away)
        for unit in (break_connection, bound(add, "meanwhile")):
            with pytest.raises(Exception, match="closed"), anyio.fail_after(20):
                await database.write(unit)

        away.rename(directory)

        async def works() -> bool:
            try:
                return bool(await database.write(bound(add, "after")))
            except sqlite3.ProgrammingError:  # of the connection that is replaced by this
                return False

        assert await until(works, seconds=20)
        assert await database.read(names) == ["after", "before"]


def break_connection(connection: Connection) -> None:
    """Close the driver's connection, as no rollback can mend."""
    raw: Any = connection.connection.driver_connection
    raw.close()


# --- PostgreSQL only --------------------------------------------------------------------------


class Relay:
    """A way to PostgreSQL that may swallow everything, and neither end learns of it."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._is_open = anyio.Event()
        self._is_open.set()

    def swallow(self) -> None:
        """Let nothing through from now on."""
        self._is_open = anyio.Event()

    def carry_on(self) -> None:
        """Let everything through again, also what was held."""
        self._is_open.set()

    async def handle(self, client: anyio.abc.ByteStream) -> None:
        """Carry one connection."""
        await self._is_open.wait()
        server = await anyio.connect_tcp(self._url.host or "", self._url.port or 5432)
        async with client, server, anyio.create_task_group() as tasks:
            tasks.start_soon(self._carry, client, server)
            await self._carry(server, client)
            tasks.cancel_scope.cancel()

    async def _carry(self, one: anyio.abc.ByteStream, other: anyio.abc.ByteStream) -> None:
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            while True:
                piece = await one.receive()
                await self._is_open.wait()
                await other.send(piece)


@pytest.mark.needs("postgresql")
async def test_postgresql_that_vanishes_is_waited_for_only_so_long(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server behind a network that swallows everything makes a unit fail, not wait for ever."""
    monkeypatch.setattr("perijove.db.core._READ_SECONDS", 0.5)
    monkeypatch.setattr("perijove.db.core._WRITE_SECONDS", 0.5)
    schema.ensure(postgresql_url)
    relay = Relay(make_url(postgresql_url))
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    url = make_url(postgresql_url).set(host="127.0.0.1", port=port)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, relay.handle)
        async with open_database(url.render_as_string(hide_password=False)) as database:
            assert await database.read(names) == []
            relay.swallow()
            for ask in (database.read, database.read_long, database.write):
                with pytest.raises(TimeoutError), anyio.move_on_after(20):
                    await ask(names)
            relay.carry_on()
            assert await database.read(names) == []
        tasks.cancel_scope.cancel()


@pytest.mark.needs("postgresql")
async def test_postgresql_runs_a_unit_again_after_a_deadlock(postgresql_url: str) -> None:
    """Two units that lock each other out both succeed, and each counts once."""

    def crossing(first: str, second: str) -> Callable[[Connection], None]:
        tries = 0

        def unit(connection: Connection) -> None:
            nonlocal tries
            locked_count_up(connection, first)
            tries += 1
            if tries == 1:
                arrived.append(first)
                while len(arrived) < 2:  # until the other holds its own
                    connection.execute(text("SELECT pg_sleep(0.01)"))
            locked_count_up(connection, second)

        return unit

    arrived: list[str] = []
    async with opened(postgresql_url) as database:
        await database.write(bound(add, "a"))
        await database.write(bound(add, "b"))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(database.write, crossing("a", "b"))
            tasks.start_soon(database.write, crossing("b", "a"))

        values = await database.read(
            lambda connection: list(connection.scalars(select(counters.c.value)))
        )
    assert sorted(arrived) == ["a", "b"]
    assert values == [2, 2]


@pytest.mark.needs("postgresql")
async def test_postgresql_hides_its_password(postgresql_url: str) -> None:
    """The URL that may be shown holds no secret."""
    url = make_url(postgresql_url).set(username="x", password="topsecret")

    assert "topsecret" not in open_database(url.render_as_string(hide_password=False)).url


async def test_sqlite_refuses_units_after_it_was_closed(sqlite_url: str) -> None:
    """A unit that comes too late is told so at once, instead of waiting for ever."""
    async with opened(sqlite_url) as database:
        await database.write(bound(add, "early"))
    with pytest.raises(DatabaseClosed), anyio.fail_after(5):
        await database.write(bound(add, "late"))
