"""Statements that the driver runs mean what they mean when SQLAlchemy runs them."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import bindparam, insert, select, update

from perijove.db import schema
from perijove.db.core import Work, open_database, sync_engine
from perijove.db.prepared import Statement
from perijove.db.tables import counters, groups, users
from perijove.domain.errors import Conflict

pytestmark = pytest.mark.anyio

AT = datetime(2026, 11, 20, 10, 15, 29, 442695, tzinfo=UTC)
ADD = Statement(insert(users))
BY_NAME = Statement(
    select(users.c.name, users.c.blocked, users.c.created_at, users.c.last_activity).where(
        users.c.name == bindparam("the_name")
    )
)
BLOCK = Statement(update(users).where(users.c.name == bindparam("the_name")))


def running(statement: Statement, **parameters: object) -> Work[int]:
    """Return the unit that runs a statement for what it changes."""
    return lambda connection: statement.run(connection, parameters)


async def test_values_and_defaults_come_back_as_they_went_in(database_url: str) -> None:
    """Instants and flags are converted, and a column that is not named has its default."""
    schema.ensure(database_url)
    async with open_database(database_url) as database:
        await database.write(running(ADD, name="ada", created_at=AT))
        row = await database.read(lambda connection: BY_NAME.first(connection, {"the_name": "ada"}))
    assert row == {"name": "ada", "blocked": False, "created_at": AT, "last_activity": None}


async def test_how_many_rows_were_changed_is_told(database_url: str) -> None:
    """An update of nobody changes none."""
    schema.ensure(database_url)
    async with open_database(database_url) as database:
        await database.write(running(ADD, name="ada", created_at=AT))
        assert await database.write(running(BLOCK, the_name="ada", blocked=True)) == 1
        assert await database.write(running(BLOCK, the_name="bob", blocked=True)) == 0


async def test_a_duplicate_is_a_conflict(database_url: str) -> None:
    """What the driver refuses reaches who asked as the error of the domain."""
    schema.ensure(database_url)
    async with open_database(database_url) as database:
        await database.write(running(ADD, name="ada", created_at=AT))
        with pytest.raises(Conflict):
            await database.write(running(ADD, name="ada", created_at=AT))


def test_a_write_waits_for_the_commit(tmp_path: Path) -> None:
    """On a connection without a transaction one is begun, so that it can be taken back."""
    url = f"sqlite:///{tmp_path / 'hub.db'}"
    schema.ensure(url)
    with sync_engine(url).connect() as connection:
        Statement(insert(counters)).run(connection, {"name": "n", "value": 1})
        connection.rollback()
        assert connection.execute(select(counters.c.name).where(counters.c.name == "n")).all() == []


async def test_what_is_missing_is_refused(tmp_path: Path) -> None:
    """A parameter that was forgotten never becomes NULL, nor does a computed default."""
    url = f"sqlite:///{tmp_path / 'hub.db'}"
    schema.ensure(url)
    async with open_database(url) as database:
        with pytest.raises(TypeError, match="the_name"):
            await database.write(running(BLOCK, blocked=True))
        with pytest.raises(TypeError, match="properties"):
            await database.write(running(Statement(insert(groups)), name="g", created_at=AT))
