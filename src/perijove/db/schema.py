"""The version of the schema: what the database has, what this program needs, and the way there."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, make_url, text

from perijove.db.core import sync_engine
from perijove.domain.errors import ConfigError

_LOCK = 7205759403792793
"""PostgreSQL advisory lock under which schemas are changed: any fixed number of our own."""


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
    several hubs at once.
    """
    engine = sync_engine(url)
    with engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
            connection.commit()
        before = current(connection)
        connection.rollback()
        after = head()
        if before != after:
            if before is not None and connection.dialect.name == "sqlite":
                _back_up(Path(make_url(url).database or ""), before)
            command.upgrade(_config(connection), "head")
            connection.commit()
    engine.dispose()
    return before, after


def downgrade(url: str, revision: str) -> None:
    """Take a database back to `revision` (``base`` empties it)."""
    engine = sync_engine(url)
    with engine.connect() as connection:
        command.downgrade(_config(connection), revision)
        connection.commit()
    engine.dispose()


def ensure(url: str) -> None:
    """
    Make the tables of an empty database; raise `ConfigError` when it is of another version.

    A hub never changes a schema that holds data by itself: an administrator does.
    """
    engine = sync_engine(url)
    with engine.connect() as connection:
        found = current(connection)
    engine.dispose()
    if found is None:
        upgrade(url)
    elif found != head():
        raise ConfigError(
            f"the database has schema {found}, this program needs {head()}: "
            "stop every hub and run `perijove db upgrade`"
        )


def _back_up(path: Path, revision: str) -> None:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    shutil.copy2(path, path.with_name(f"{path.name}.{revision}.{stamp}.bak"))
