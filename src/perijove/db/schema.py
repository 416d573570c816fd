"""The version of the schema: what the database has, what this program needs, and the way there."""

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, make_url, text

from perijove.db.core import sync_engine
from perijove.domain.errors import ConfigError

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


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def head() -> str:
    """Return the revision this program needs."""
    found = ScriptDirectory.from_config(_config()).get_current_head()
    assert found is not None
    return found


def current(connection: Connection) -> str | None:
    """Return the revision of a database; None for an empty one."""
    return MigrationContext.configure(connection).get_current_revision()


def upgrade(url: str) -> tuple[str | None, str]:
    """
    Bring a database to `head`; returns the revisions before and after.

    An SQLite file that holds something is copied beside itself first. Safe to call from
    several hubs at once. Raises `ConfigError` when a newer program made the database.
    """
    with _alone(url) as connection:
        before, after = current(connection), head()
        if before is not None and not _is_known(before):
            raise ConfigError(_TOO_NEW.format(found=before, needed=after))
        if before != after:
            if before is not None and connection.dialect.name == "sqlite":
                back_up(Path(make_url(url).database or ""), before)
            command.upgrade(_config(connection), "head")
            connection.commit()
    return before, after


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
    with _alone(url) as connection:
        command.downgrade(_config(connection), revision)
        connection.commit()


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
    elif found != head():
        message = _TOO_OLD if _is_known(found) else _TOO_NEW
        raise ConfigError(message.format(found=found, needed=head()))


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


def _is_known(revision: str) -> bool:
    """Tell whether a revision is one of this program's, and not of a newer one's."""
    scripts = ScriptDirectory.from_config(_config())
    return any(script.revision == revision for script in scripts.walk_revisions())


def back_up(path: Path, revision: str) -> Path:
    """Copy an SQLite file beside itself, with what is only in its log; returns the copy."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    copy = path.with_name(f"{path.name}.{revision}.{stamp}.bak")
    copy.touch(mode=0o600)
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy
