"""
Units of work: the only module that opens a transaction (design decision 3).

A unit of work is a short *synchronous* function of a Core `Connection`, which reads its results
to the end and has no effect but on the database (it may be run again). There is no await
inside, so no transaction is ever open while a platform or a person is waited for.

====================  ==============================================  =======================
call                  SQLite                                          PostgreSQL
====================  ==============================================  =======================
``db.read(work)``     inline, on the event loop (microseconds)        ``run_sync`` over asyncpg
``db.read_long(…)``   a reader thread with a connection of its own    the same
``db.write(work)``    the one writer thread, many units in a commit   the same
====================  ==============================================  =======================
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import anyio
import anyio.to_thread
import structlog
from sqlalchemy import (
    Connection,
    Engine,
    NullPool,
    Table,
    create_engine,
    event,
    func,
    make_url,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from perijove.db.prepared import Statement
from perijove.domain.errors import ConfigError, Conflict

log = structlog.get_logger()

T = TypeVar("T")
Work = Callable[[Connection], T]

_GROUP = 256
"""Most units that share one commit; bounds how long the first of them waits."""
_RETRIES = 3
"""How often a unit is run again after a deadlock or a serialisation failure."""
_READ_SECONDS = 30
_WRITE_SECONDS = 60
"""How long PostgreSQL may take: a server that has vanished would be waited for without end."""


class DatabaseClosed(Exception):
    """A unit of work came after the database was closed; nothing was written."""


class Database(Protocol):
    """Where the state is."""

    url: str
    """Where, without a password."""
    dialect: str

    async def read(self, work: Work[T]) -> T:
        """Run a short unit that only reads: a handful of indexed look-ups."""
        ...

    async def read_long(self, work: Work[T]) -> T:
        """Run a unit that reads much: lists, reports."""
        ...

    async def write(self, work: Work[T]) -> T:
        """Run a unit that writes; its changes are durable when this returns."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc: object) -> None: ...


def open_database(url: str) -> Database:
    """Return the database of an SQLAlchemy URL; enter it before use. Raises `ConfigError`."""
    parsed = make_url(url)
    match parsed.get_backend_name():
        case "sqlite":
            if not parsed.database or parsed.database == ":memory:":
                raise ConfigError("hub.database: SQLite needs a file, such as sqlite:////var/x.db")
            return SqliteDatabase(Path(parsed.database))
        case "postgresql":
            return PostgresDatabase(url)
    raise ConfigError(
        f"hub.database: {parsed.get_backend_name()!r} is not supported; use sqlite or postgresql"
    )


def sync_engine(url: str) -> Engine:
    """Return a plain engine for tools that are not async: migrations and the command line."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        engine = _sqlite_engine(Path(parsed.database or ""))
        event.listen(engine, "begin", _begin_deferred)
        return engine
    return create_engine(parsed.set(drivername="postgresql+psycopg"), poolclass=NullPool)


def database_now(connection: Connection) -> datetime:
    """Return the database's clock: the one by which leases are counted."""
    if connection.dialect.name == "sqlite":
        return datetime.now(UTC)  # the same machine
    now: datetime = connection.scalar(select(func.clock_timestamp()))  # type: ignore[assignment]
    return now.astimezone(UTC)


def upsert(
    connection: Connection,
    table: Table,
    *,
    key: dict[str, Any],
    values: dict[str, Any],
    on_update: dict[str, Any] | None = None,
) -> bool:
    """
    Insert the row `key` + `values`, or set `on_update` (default: `values`) where it exists.

    False when nothing was written: the row exists, and `on_update` is empty.
    """
    if on_update is None:
        statement = _replacing(connection.dialect.name, table, tuple(key), tuple(values))
        return statement.run(connection, {**key, **values}) > 0
    make: Any = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    inserting = make(table).values({**key, **values})
    if on_update:
        inserting = inserting.on_conflict_do_update(index_elements=list(key), set_=on_update)
    else:
        inserting = inserting.on_conflict_do_nothing(index_elements=list(key))
    return connection.execute(inserting).rowcount > 0


@cache
def _replacing(
    dialect: str, table: Table, key: tuple[str, ...], values: tuple[str, ...]
) -> Statement:
    """Return the upsert that writes the same in both cases; there are as many as callers."""
    make: Any = sqlite.insert if dialect == "sqlite" else postgresql.insert
    inserting = make(table)
    if not values:
        return Statement(inserting.on_conflict_do_nothing(index_elements=list(key)))
    changes = {name: inserting.excluded[name] for name in values}
    return Statement(inserting.on_conflict_do_update(index_elements=list(key), set_=changes))


def _translate(error: IntegrityError) -> Conflict:
    return Conflict(f"the database refused a duplicate or dangling row: {error.orig}")


# --- SQLite -----------------------------------------------------------------------------------


def _sqlite_engine(path: Path) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=NullPool,
        connect_args={"check_same_thread": False, "isolation_level": None, "timeout": 10},
    )

    @event.listens_for(engine, "connect")
    def _set_pragmas(connection: Any, _record: Any) -> None:
        for pragma in (
            "journal_mode = WAL",
            "foreign_keys = ON",
            "synchronous = FULL",  # a power cut must not lose the intent of a submitted job
            "temp_store = MEMORY",
            "cache_size = -16000",
        ):
            connection.execute(f"PRAGMA {pragma}")

    return engine


def _begin_deferred(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN DEFERRED")


def _begin(connection: Connection, mode: str) -> None:
    """Begin by the driver itself: an engine with listeners is a third slower for every query."""
    raw: Any = connection.connection.driver_connection
    if not raw.in_transaction:
        raw.execute(f"BEGIN {mode}")


def _commit(connection: Connection) -> None:
    connection.commit()
    raw: Any = connection.connection.driver_connection
    if raw.in_transaction:  # as below
        raw.commit()


def _rollback(connection: Connection) -> None:
    connection.rollback()
    raw: Any = connection.connection.driver_connection
    if raw.in_transaction:  # a unit that asked nothing has no transaction of SQLAlchemy's
        raw.rollback()


class _Unit:
    """One unit of work on its way through the writer thread, and back to the loop it came from."""

    __slots__ = ("_loop", "future", "work")

    def __init__(self, work: Work[Any]) -> None:
        self.work = work
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self._loop.create_future()

    def finish(self, result: Any, failure: BaseException | None) -> None:
        """Hand the outcome over, without waiting for the loop to take it."""
        with suppress(RuntimeError):  # the loop has ended; nobody waits any more
            self._loop.call_soon_threadsafe(self._deliver, result, failure)

    def _deliver(self, result: Any, failure: BaseException | None) -> None:
        if self.future.done():  # who waited was cancelled
            return
        if failure is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(failure)


class SqliteDatabase:
    """One file, one process: short reads inline, all writes through one thread."""

    dialect = "sqlite"

    def __init__(self, path: Path) -> None:
        self.url = f"sqlite:///{path}"
        self._engine = _sqlite_engine(path)
        self._units: queue.SimpleQueue[_Unit | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_all, name="db-writer", daemon=True)
        self._long_reads = anyio.CapacityLimiter(1)
        self._is_closed = False

    async def __aenter__(self) -> Self:
        # The writer's connection comes first: it may have to make the file and its WAL.
        self._write_connection = self._engine.connect()
        self._inline_connection = self._engine.connect()
        self._long_connection = self._engine.connect()
        self._writer.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._is_closed = True
        self._units.put(None)
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._writer.join)
        for connection in (self._inline_connection, self._long_connection, self._write_connection):
            connection.close()

    async def read(self, work: Work[T]) -> T:
        """Run a short unit that only reads, inline."""
        return _read(self._inline_connection, work)

    async def read_long(self, work: Work[T]) -> T:
        """Run a unit that reads much, in a thread."""
        return await anyio.to_thread.run_sync(
            _read, self._long_connection, work, limiter=self._long_reads
        )

    async def write(self, work: Work[T]) -> T:
        """Run a unit that writes; committed, perhaps together with others, when this returns."""
        if self._is_closed:
            raise DatabaseClosed("the database is closed: this hub is stopping")
        unit = _Unit(work)
        self._units.put(unit)
        result: T = await unit.future
        return result

    def _write_all(self) -> None:
        """Run units until None comes: as many as wait, up to a limit, in one transaction."""
        while (unit := self._units.get()) is not None:
            group = [unit]
            ending = False
            try:
                _begin(self._write_connection, "IMMEDIATE")
                outcomes = [_run(self._write_connection, unit.work)]
                while len(group) < _GROUP:
                    try:
                        following = self._units.get_nowait()
                    except queue.Empty:
                        break
                    if following is None:
                        ending = True
                        break
                    group.append(following)
                    outcomes.append(_run(self._write_connection, following.work))
                _commit(self._write_connection)
            except BaseException as error:  # noqa: BLE001 - the waiters must learn of anything
                outcomes = [(None, error)] * len(group)
                self._recover()
            for done, (result, failure) in zip(group, outcomes, strict=True):
                done.finish(result, failure)
            if ending:
                return

    def _recover(self) -> None:
        """Undo the transaction; on a connection that cannot even do that, take a new one."""
        try:
            _rollback(self._write_connection)
        except Exception:
            log.exception("database_connection_replaced")
            try:
                fresh = self._engine.connect()
            except Exception:  # The thread must go on: the next unit fails, and tries this again.
                log.exception("database_away")
            else:
                self._write_connection.invalidate()
                self._write_connection = fresh


def _read(connection: Connection, work: Work[T]) -> T:
    _begin(connection, "DEFERRED")
    try:
        return work(connection)
    finally:
        _rollback(connection)


def _run(connection: Connection, work: Work[Any]) -> tuple[Any, BaseException | None]:
    """
    Run one unit under a savepoint, so that its failure is its own.

    Of the driver, for SQLAlchemy's own costs more than many a unit.
    """
    raw: Any = connection.connection.driver_connection
    raw.execute("SAVEPOINT unit")
    result: Any = None
    failure: BaseException | None = None
    try:
        result = work(connection)
    except IntegrityError as error:
        failure = _translate(error)
    except OperationalError:
        raise  # disk full, database gone: everyone in this commit must know
    except BaseException as error:  # noqa: BLE001 - goes to the one who asked
        failure = error
    if failure is not None:
        raw.execute("ROLLBACK TO unit")
    raw.execute("RELEASE unit")
    return result, failure


# --- PostgreSQL -------------------------------------------------------------------------------


class PostgresDatabase:
    """A server that several hubs share."""

    dialect = "postgresql"

    def __init__(self, url: str) -> None:
        # It brings the whole ORM with it, which a start with SQLite need not wait for.
        from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415

        parsed = make_url(url).set(drivername="postgresql+asyncpg")
        self.url = parsed.render_as_string(hide_password=True)
        self._engine = create_async_engine(
            parsed,
            pool_size=10,
            max_overflow=10,
            pool_pre_ping=True,
            connect_args={
                "timeout": 10,
                "server_settings": {
                    "application_name": "perijove",
                    "statement_timeout": "15000",
                    "lock_timeout": "10000",
                    "idle_in_transaction_session_timeout": "30000",
                },
            },
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        with anyio.CancelScope(shield=True), anyio.move_on_after(5):
            await self._engine.dispose()

    async def read(self, work: Work[T]) -> T:
        """Run a unit that only reads."""
        with anyio.fail_after(_READ_SECONDS):
            async with self._engine.connect() as connection:
                return await connection.run_sync(work)

    read_long = read

    async def write(self, work: Work[T]) -> T:
        """Run a unit that writes, again after a deadlock; committed when this returns."""
        # A cancelled caller must not leave it open whether the commit happened.
        with anyio.CancelScope(shield=True), anyio.fail_after(_WRITE_SECONDS):
            for attempt in range(_RETRIES + 1):
                try:
                    async with self._engine.begin() as connection:
                        return await connection.run_sync(work)
                except IntegrityError as error:
                    raise _translate(error) from error
                except DBAPIError as error:
                    if attempt == _RETRIES or not _is_retryable(error):
                        raise
                    log.info("database_retry", attempt=attempt, error=type(error.orig).__name__)
                    await anyio.sleep(0.02 * 2**attempt)
        raise AssertionError("unreachable")


def _is_retryable(error: DBAPIError) -> bool:
    """True for a serialisation failure, a deadlock, or a connection that had gone stale."""
    return error.connection_invalidated or getattr(error.orig, "sqlstate", "") in ("40001", "40P01")


def bound(work: Callable[..., T], *args: Any, **kwargs: Any) -> Work[T]:
    """Return `work` with all arguments but the connection given; it keeps its name."""

    def unit(connection: Connection) -> T:
        return work(connection, *args, **kwargs)

    unit.__qualname__ = work.__qualname__
    return unit


__all__ = [
    "Connection",
    "Database",
    "PostgresDatabase",
    "SqliteDatabase",
    "Work",
    "bound",
    "database_now",
    "open_database",
    "sync_engine",
    "upsert",
]
