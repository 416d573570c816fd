"""``perijove user``, ``token`` and ``db``, as run by a shell, beside the database they change."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from sqlalchemy import select, text

from perijove.db import schema
from perijove.db.core import sync_engine
from perijove.db.tables import passwords, tokens, users
from perijove.kit.ids import hash_secret
from tests.integration.cli.programs import answer, perijove, refusal


@contextmanager
def rows(data_dir: Path, query: Any) -> Iterator[Any]:
    """Ask the installation's database."""
    engine = sync_engine(f"sqlite:///{data_dir / 'perijove.sqlite'}")
    with engine.connect() as connection:
        yield connection.execute(query).mappings().all()
    engine.dispose()


def at(data_dir: Path) -> tuple[str, str]:
    """Return the option that names the installation."""
    return "--data-dir", str(data_dir)


def test_a_user_is_added_once(tmp_path: Path) -> None:
    """The first time it is made, the second time it is there; names have one form."""
    here = at(tmp_path / "data")
    assert answer("user", "add", "Ann", *here) == {"name": "ann", "admin": False, "added": True}
    assert answer("user", "add", "ann", *here) == {"name": "ann", "admin": False, "added": False}
    assert answer("user", "add", "ann", "--admin", *here)["admin"]
    assert answer("user", "add", "ann", *here)["admin"]

    assert "administrator ann was there already" in perijove("user", "add", "ann", *here).stdout
    with rows(tmp_path / "data", select(users)) as found:
        assert [(row["name"], row["admin"]) for row in found] == [("ann", True)]


def test_a_bad_name_is_refused(tmp_path: Path) -> None:
    """A name that may not be one changes nothing."""
    here = at(tmp_path / "data")
    for name in ("a/b", "", "\N{RIGHT-TO-LEFT OVERRIDE}x", "x" * 300):
        assert "error:" in refusal("user", "add", name, *here, code=1)

    assert answer("user", "list", *here) == []


def test_users_are_listed(tmp_path: Path) -> None:
    """For people with times that can be read, for programs with exact ones."""
    here = at(tmp_path / "data")
    assert perijove("user", "list", *here).stdout == "none\n"
    perijove("user", "add", "bob", *here)
    perijove("user", "add", "ann", "--admin", *here)

    head, *lines = perijove("user", "list", *here).stdout.splitlines()
    assert head.split() == ["name", "role", "created", "last", "active"]
    assert [line.split()[:2] for line in lines] == [["ann", "admin"], ["bob", "user"]]
    assert all(re.search(r" 20\d\d-\d\d-\d\d \d\d:\d\d  never", line) for line in lines)
    ann, _bob = answer("user", "list", *here)
    assert ann.keys() == {"name", "admin", "blocked", "created_at", "last_activity"}
    assert ann["created_at"].endswith("Z")


def test_a_password_is_set_from_standard_input(tmp_path: Path) -> None:
    """Its hash is stored, and is the hash of what was given."""
    here = at(tmp_path / "data")
    perijove("user", "add", "ann", *here)
    done = perijove("user", "password", "ann", *here, given="correct horse battery\n")

    assert done.returncode == 0
    assert "horse" not in done.stdout + done.stderr
    with rows(tmp_path / "data", select(passwords)) as found:
        (row,) = found
    assert PasswordHasher().verify(row["hash"], "correct horse battery")


def test_a_password_needs_a_user_and_some_length(tmp_path: Path) -> None:
    """An unknown user is said with the command that helps, a weak password with the limit."""
    here = at(tmp_path / "data")
    said = refusal("user", "password", "ann", *here, code=1, given="correct horse battery\n")
    assert "no user named 'ann'; to add one: perijove user add ann" in said

    perijove("user", "add", "ann", *here)
    assert "at least 10" in refusal("user", "password", "ann", *here, code=1, given="short\n")
    with rows(tmp_path / "data", select(passwords)) as found:
        assert found == []


def test_passwords_need_their_authenticator(tmp_path: Path) -> None:
    """Where nobody signs in with a password, none is set."""
    here = at(tmp_path / "data")
    perijove("user", "add", "ann", *here)
    file = tmp_path / "perijove.toml"
    file.write_text("[auth.demo]\n")
    command = ("user", "password", "ann", *here, "--config", str(file))

    assert "[auth.native]" in refusal(*command, code=2, given="correct horse battery\n")


def test_a_token_is_printed_once_and_stored_as_a_hash(tmp_path: Path) -> None:
    """Nothing but the token is on standard output, so that a script can take it."""
    here = at(tmp_path / "data")
    perijove("user", "add", "ann", *here)
    value = perijove("token", "new", "ann", "--note", "for a test", *here).stdout.strip()

    assert re.fullmatch("[0-9a-f]{32}", value)
    with rows(tmp_path / "data", select(tokens)) as found:
        (row,) = found
    assert row["hash"] == hash_secret(value)
    assert (row["note"], row["scopes"], row["expires_at"]) == ("for a test", ["inherit"], None)


def test_a_token_has_an_end_and_scopes(tmp_path: Path) -> None:
    """What was asked of it is what it is."""
    here = at(tmp_path / "data")
    perijove("user", "add", "ann", *here)
    made = answer("token", "new", "ann", "--days", "3", *here)

    assert made["id"] == "a1"
    with rows(tmp_path / "data", select(tokens)) as found:
        (row,) = found
    assert row["hash"] == hash_secret(made["token"])
    assert (row["expires_at"] - row["created_at"]).days == 3


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("nobody",), 1, "no user named 'nobody'"),
        (("ann", "--scope", "zork"), 1, "zork"),
        (("ann", "--scope", "admin:users"), 1, "not held"),
        (("ann", "--days", "0"), 2, "--days"),
        (("ann", "--note", "x" * 2000), 1, "must not exceed"),
    ],
)
def test_a_bad_token_is_refused(
    tmp_path: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    """Whatever is wrong is said, and no token is made."""
    here = at(tmp_path / "data")
    perijove("user", "add", "ann", *here)

    assert says in refusal("token", "new", *arguments, *here, code=code)
    with rows(tmp_path / "data", select(tokens)) as found:
        assert found == []


def test_a_database_is_upgraded(tmp_path: Path) -> None:
    """The first time it is made, the second time there is nothing to do."""
    here = at(tmp_path / "data")
    assert answer("db", "upgrade", *here) == {"before": None, "after": schema.HEAD}
    assert answer("db", "upgrade", *here) == {"before": schema.HEAD, "after": schema.HEAD}
    assert "up to date" in perijove("db", "upgrade", *here).stdout


def test_a_database_of_another_version_is_left_alone(tmp_path: Path) -> None:
    """Every command says so, with exit code 2."""
    data_dir = tmp_path / "data"
    perijove("db", "upgrade", *at(data_dir))
    engine = sync_engine(f"sqlite:///{data_dir / 'perijove.sqlite'}")
    with engine.connect() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        connection.commit()
    engine.dispose()

    for command in (("user", "list"), ("db", "upgrade"), ("hub",)):
        assert "newer program" in refusal(*command, *at(data_dir), code=2)


def test_a_database_that_is_away_is_said_in_one_line(tmp_path: Path) -> None:
    """No traceback, and no password of the URL."""
    environ = {"PERIJOVE__HUB__DATABASE": "postgresql://hub:open-sesame@127.0.0.1:1/hub"}
    said = refusal("user", "list", *at(tmp_path / "data"), code=1, environ=environ)

    assert said.startswith("error: the database cannot be used: ")
    assert "sesame" not in said
