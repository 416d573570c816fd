"""The migrations: they lead to the tables the code speaks of, there and back, on both databases."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import CheckConstraint, Connection, inspect, make_url, text
from sqlalchemy.exc import IntegrityError

from perijove.db import revisions, schema
from perijove.db.core import sync_engine
from perijove.db.tables import metadata
from perijove.domain.errors import ConfigError

AT_ONCE = 3
"""How many programs start on the same empty database."""
STARTING = """
import sys
from perijove.db import revisions, schema
print("loaded", flush=True)
sys.stdin.readline()
schema.ensure(sys.argv[1])
"""


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """Open one connection and leave nothing open behind it."""
    engine = sync_engine(url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def tables_of(url: str) -> set[str]:
    """Return the names of the tables that hold the program's data."""
    with connected(url) as connection:
        return set(inspect(connection).get_table_names()) - {"alembic_version"}


def set_version(url: str, version: str) -> None:
    """Let a database say that it is of another version."""
    with connected(url) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :to"), {"to": version})
        connection.commit()


def test_upgrade_makes_what_the_code_expects(database_url: str) -> None:
    """After an upgrade the database and the definitions in the code do not differ."""
    schema.upgrade(database_url)

    with connected(database_url) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_upgrade_makes_every_check(database_url: str) -> None:
    """What the code says a column may hold, the database enforces (Alembic does not compare)."""
    schema.upgrade(database_url)

    with connected(database_url) as connection:
        inspector = inspect(connection)
        made = {
            (table, str(check["name"]))
            for table in metadata.tables
            for check in inspector.get_check_constraints(table)
        }
    wanted = {
        (table.name, str(check.name))
        for table in metadata.tables.values()
        for check in table.constraints
        if isinstance(check, CheckConstraint)
    }
    assert wanted <= made


def test_upgrade_makes_partial_indexes_partial(database_url: str) -> None:
    """An index that the code limits to some rows is limited in the database, by the same words."""
    schema.upgrade(database_url)

    option = f"{make_url(database_url).get_backend_name()}_where"
    wanted = {
        str(index.name): str(index.dialect_kwargs[option])
        for table in metadata.tables.values()
        for index in table.indexes
        if index.dialect_kwargs.get(option) is not None
    }
    with connected(database_url) as connection:
        made = _conditions(connection)
    assert wanted.keys() == made.keys()
    for name, condition in wanted.items():
        assert _words(made[name]) == _words(condition)


def _conditions(connection: Connection) -> dict[str, str]:
    """Return the condition of every partial index, as the database tells it."""
    found = {}
    for table in metadata.tables:
        for index in inspect(connection).get_indexes(table):
            options: dict[str, Any] = dict(index.get("dialect_options", {}))
            for key, condition in options.items():
                if key.endswith("_where"):
                    found[str(index["name"])] = str(condition)
    return found


def _words(condition: str) -> list[str]:
    """Return a condition without what PostgreSQL adds when it repeats one."""
    for noise in ("(", ")", "::text", "::character varying"):
        condition = condition.replace(noise, "")
    return condition.lower().split()


def test_checks_refuse_what_no_code_knows(database_url: str) -> None:
    """A second row of the installation is refused by the database itself."""
    schema.upgrade(database_url)
    add = text(
        "INSERT INTO installation (id, name, created_at, hearing_since, heard_until)"
        " VALUES (2, 'b', '2026-01-01 00:00Z', '2026-01-01 00:00Z', '2026-01-01 00:00Z')"
    )
    with connected(database_url) as connection, pytest.raises(IntegrityError):
        connection.execute(add)


def test_downgrade_leaves_nothing_and_upgrade_works_again(database_url: str) -> None:
    """Base is empty, and the way up is open again."""
    before, after = schema.upgrade(database_url)
    assert before is None
    assert after == schema.HEAD
    assert tables_of(database_url) == set(metadata.tables)

    schema.downgrade(database_url, "base")
    assert tables_of(database_url) == set()

    assert schema.upgrade(database_url) == (None, schema.HEAD)
    assert tables_of(database_url) == set(metadata.tables)


def test_upgrade_of_what_is_up_to_date_changes_nothing(database_url: str, tmp_path: Path) -> None:
    """A second upgrade says that nothing was to be done, and copies nothing."""
    schema.upgrade(database_url)

    assert schema.upgrade(database_url) == (schema.HEAD, schema.HEAD)
    assert list(tmp_path.glob("*.bak")) == []


def test_ensure_makes_the_tables_of_an_empty_database(database_url: str) -> None:
    """A first run needs no command, and a second one finds everything."""
    schema.ensure(database_url)
    schema.ensure(database_url)

    assert tables_of(database_url) == set(metadata.tables)


def test_a_database_of_a_newer_program_is_refused(database_url: str) -> None:
    """What an older program would make of newer tables is not tried out."""
    schema.upgrade(database_url)
    set_version(database_url, "9999")

    for refusing in (schema.ensure, schema.upgrade):
        with pytest.raises(ConfigError, match="newer program") as refused:
            refusing(database_url)
        assert "9999" in str(refused.value)
        assert schema.HEAD in str(refused.value)


def test_a_file_in_no_directory_is_a_fault_of_the_configuration(tmp_path: Path) -> None:
    """A wrong path is said with its name, not with a traceback."""
    with pytest.raises(ConfigError, match=r"no directory .*/nowhere"):
        schema.ensure(f"sqlite:///{tmp_path}/nowhere/hub.sqlite")


def test_programs_that_start_at_once_all_succeed(database_url: str) -> None:
    """Whoever comes second waits for the tables of the first."""
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", STARTING, database_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(AT_ONCE)
    ]
    for program in programs:
        assert program.stdout is not None
        assert program.stdout.readline() == b"loaded\n"
    for program in programs:
        assert program.stdin is not None
        program.stdin.write(b"go\n")
        program.stdin.flush()
    said = [program.communicate(timeout=50)[1].decode() for program in programs]

    assert [program.returncode for program in programs] == [0] * AT_ONCE, said
    assert tables_of(database_url) == set(metadata.tables)


def test_upgrade_copies_an_sqlite_file_first(tmp_path: Path) -> None:
    """Before data is changed there is a whole copy, also of what is still in the log."""
    path = tmp_path / "hub.sqlite"
    url = f"sqlite:///{path}"
    schema.upgrade(url)
    writer = sqlite3.connect(path)  # held open, so that the write-ahead log is not folded in
    writer.execute("INSERT INTO counters (name, value) VALUES ('kept', 7)")
    writer.commit()

    copy = schema.back_up(path, "0001")
    writer.close()

    assert copy.parent == tmp_path
    with sqlite3.connect(copy) as connection:
        rows = connection.execute("SELECT value FROM counters WHERE name = 'kept'").fetchall()
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    assert rows == [(7,)]
    assert copy.stat().st_mode & 0o077 == 0


def test_needed_revision_is_the_last_of_the_tree() -> None:
    """What the program asks a database for is what its own upgrade leads to."""
    assert revisions.newest() == schema.HEAD
