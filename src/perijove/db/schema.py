"""The version of the schema: what the database has, what this program needs, and the way there."""

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, inspect, make_url, text

from perijove.db.core import sync_engine
from perijove.domain.errors import ConfigError

HEAD: Final = "0001"
"""The revision this program needs: the last one of the tree, which a test holds it to."""

_LOCK = 7205759403792793
"""PostgreSQL advisory lock under which schemas are changed: any fixed number of our own."""
_APPLICATION = 0x504A5631
"""What says in an SQLite file whose it is (``file`` shows it)."""
_TOO_OLD = (
    "the database has schema {found}, this program needs {needed}: "
    "stop every hub and run `perijove db upgrade`"
)
_TOO_NEW = (
    "the database has schema {found}, made by a newer program than this one, which needs "
    "{needed}: install the newer one, or restore the copy that its upgrade has made"
)


def current(connection: Connection) -> str | None:
    """Return the revision of a database; None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return None if found is None else str(found)


def upgrade(url: str) -> tuple[str | None, str]:
    """
    Bring a database to `HEAD`; returns the revisions before and after.

    An SQLite file that holds something is copied beside itself first. Safe to call from
    several hubs at once. Raises `ConfigError` when a newer program made the database.
    """
    from perijove.db import revisions  # noqa: PLC0415 - see there

    with _alone(url) as connection:
        before = current(connection)
        if before is not None and not revisions.is_known(before):
            raise ConfigError(_TOO_NEW.format(found=before, needed=HEAD))
        if before != HEAD:
            if before is not None and connection.dialect.name == "sqlite":
                back_up(Path(make_url(url).database or ""), before)
            revisions.upgrade(connection)
    return before, HEAD


@contextmanager
def _alone(url: str) -> Iterator[Connection]:
    """Open a connection whose holder alone may change the tables; others wait here."""
    engine = sync_engine(url)
    with _in_turn(url), _disposing(engine), engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
            connection.commit()
        else:
            # To change a column, Alembic builds the table anew and drops the old one: with
            # foreign keys in force that would delete every row that refers to it.
            raw: Any = connection.connection.driver_connection
            raw.execute("PRAGMA foreign_keys = OFF")
            # Any write will do: from here on the transaction is the only one that writes.
            connection.exec_driver_sql(f"PRAGMA application_id = {_APPLICATION}")
        yield connection


def downgrade(url: str, revision: str) -> None:
    """Take a database back to `revision` (``base`` empties it)."""
    from perijove.db import revisions  # noqa: PLC0415 - see there

    with _alone(url) as connection:
        revisions.downgrade(connection, revision)


def ensure(url: str) -> None:
    """
    Make the tables of an empty database; raise `ConfigError` when it is of another version.

    A hub never changes a schema that holds data by itself: an administrator does.
    """
    engine = sync_engine(url)
    with _in_turn(url), _disposing(engine), engine.connect() as connection:
        found = current(connection)
    if found is None:
        upgrade(url)
    elif found != HEAD:
        from perijove.db import revisions  # noqa: PLC0415 - see there

        message = _TOO_OLD if revisions.is_known(found) else _TOO_NEW
        raise ConfigError(message.format(found=found, needed=HEAD))


@contextmanager
def _in_turn(url: str) -> Iterator[None]:
    """Wait while another program looks at an SQLite file or makes it; the first one must."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        yield  # there an advisory lock does it
        return
    path = Path(parsed.database or "")
    if not path.parent.is_dir():
        raise ConfigError(f"hub.database: there is no directory {path.parent}")
    with path.with_name(f"{path.name}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _disposing(engine: Engine) -> Iterator[None]:
    try:
        yield
    finally:
        engine.dispose()


def back_up(path: Path, revision: str) -> Path:
    """Copy an SQLite file beside itself, with what is only in its log; returns the copy."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    copy = path.with_name(f"{path.name}.{revision}.{stamp}.bak")
    copy.touch(mode=0o600)
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy
