"""Roles of the hub and of its configuration file (wire §3.4, §3.6)."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, update

from perijove.db import schema
from perijove.db.core import sync_engine
from perijove.db.tables import group_members, groups, role_grants, roles, services, tokens, users
from perijove.domain.errors import ConfigError
from perijove.services.access import caller_by_token
from perijove.services.roles import BUILT_IN, load, server_token_scopes
from perijove.services.sections import FileToken, HubSection, RoleSection

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    """Give a connection to an empty database."""
    url = f"sqlite:///{tmp_path}/hub.db"
    schema.upgrade(url)
    engine = sync_engine(url)
    with engine.connect() as connected:
        yield connected
    engine.dispose()


def section(**given: Any) -> HubSection:
    """Return a configuration with nothing but what is given."""
    return HubSection(**{"admins": [], **given})


def names(connection: Connection, table: Any) -> set[str]:
    """Return the names in a table."""
    return set(connection.scalars(select(table.c.name)))


def test_built_in_roles_are_there_and_loading_again_changes_nothing(connection: Connection) -> None:
    """Every start makes the same rows of the same file."""
    given = section(
        admins=["Ann"],
        roles=[RoleSection(name="auditor", scopes=["read:hub"], users=["bob"], groups=["class"])],
        groups={"class": ["cy"]},
        tokens=[FileToken(name="x", service="culler", token="12345678")],
    )
    load(connection, given, now=NOW)
    tables = (users, groups, group_members, roles, role_grants, services, tokens)
    first = [connection.execute(select(table)).all() for table in tables[:4] + tables[5:]]
    load(connection, given, now=NOW)
    second = [connection.execute(select(table)).all() for table in tables[:4] + tables[5:]]

    assert first == second
    assert names(connection, roles) == {*BUILT_IN, "auditor"}
    assert names(connection, users) == {"ann", "bob", "cy"}
    assert len(connection.execute(select(role_grants)).all()) == 2


def test_roles_of_the_file_replace_and_those_of_the_browser_stay(connection: Connection) -> None:
    """A role that the file no longer lists goes, with its holders; others are not touched."""
    load(connection, section(roles=[RoleSection(name="auditor", users=["bob"])]), now=NOW)
    connection.execute(insert(roles).values(name="made-here", scopes=[], source="browser"))
    load(connection, section(roles=[RoleSection(name="teacher", users=["bob"])]), now=NOW)

    assert names(connection, roles) == {*BUILT_IN, "teacher", "made-here"}
    assert len(connection.execute(select(role_grants)).all()) == 1


def test_who_is_listed_no_more_is_no_member(connection: Connection) -> None:
    """A group has the members that the file lists now, and those that an authenticator gave."""
    load(connection, section(groups={"class": ["ann", "bob"], "old": ["ann"]}), now=NOW)
    given = group_members.c.authenticator
    bob = select(users.c.id).where(users.c.name == "bob").scalar_subquery()
    row = group_members.c.user_id == bob
    connection.execute(update(group_members).where(row).values({given: "pam"}))
    load(connection, section(groups={"class": ["cy"]}), now=NOW)

    found = connection.execute(
        select(users.c.name, groups.c.name, given).select_from(
            group_members.join(users).join(groups)
        )
    ).all()
    assert sorted(map(tuple, found)) == [("bob", "class", "pam"), ("cy", "class", None)]


def test_role_user_may_be_redefined_and_reset(connection: Connection) -> None:
    """What everybody may do is the file's to say, and the default again when it is silent."""
    token = FileToken(name="x", user="ann", token="12345678")
    given = section(tokens=[token], roles=[RoleSection(name="user", scopes=["read:hub"])])
    load(connection, given, now=NOW)
    changed = caller_by_token(connection, "12345678", NOW)
    load(connection, section(tokens=[token]), now=NOW)
    default = caller_by_token(connection, "12345678", NOW)

    assert changed is not None
    assert default is not None
    assert changed.scopes.texts() == ["read:hub"]
    assert default.may("servers", user="ann")
    assert not default.may("read:hub")


def test_role_admin_makes_administrators_of_people_and_services(connection: Connection) -> None:
    """Holding the role and being an administrator are one thing."""
    role = RoleSection(name="admin", users=["ann"], services=["robot"])
    token = FileToken(name="x", service="robot", token="12345678")
    load(connection, section(roles=[role], tokens=[token]), now=NOW)
    robot = caller_by_token(connection, "12345678", NOW)
    load(connection, section(tokens=[token]), now=NOW)
    dismissed = caller_by_token(connection, "12345678", NOW)

    assert connection.scalar(select(users.c.admin).where(users.c.name == "ann"))
    assert robot is not None
    assert robot.admin
    assert robot.may("admin:users")
    assert dismissed is not None
    assert not dismissed.admin
    assert not dismissed.scopes


def test_server_tokens_report_activity_whatever_the_file_says(connection: Connection) -> None:
    """The template for servers' tokens may be widened, and never loses the activity report."""
    role = RoleSection(name="server", scopes=["read:groups!user", "access:servers!server"])
    load(connection, section(roles=[role]), now=NOW)

    assert server_token_scopes(connection) == [
        "access:servers!server",
        "read:groups!user",
        "users:activity!user",
    ]


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"roles": [RoleSection(name="AB")]}, "role name 'AB'"),
        ({"roles": [RoleSection(name="abc", scopes=["zzz"])]}, "roles.abc: scope 'zzz'"),
        ({"roles": [RoleSection(name="abc", users=["a/b"])]}, "roles.abc: Invalid username: a/b"),
        ({"roles": [RoleSection(name="abc", groups=[""])]}, "roles.abc: name ''"),
        ({"roles": [RoleSection(name="admin", scopes=["read:hub"])]}, "cannot be changed"),
        ({"roles": [RoleSection(name="token", users=["ann"])]}, "has no holders"),
        ({"roles": [RoleSection(name="abc"), RoleSection(name="abc")]}, "one role is given twice"),
        ({"groups": {"x/y": []}}, "groups: name 'x/y'"),
        ({"groups": {"g": [".."]}}, "groups.g: Invalid username: .."),
        ({"admins": [""]}, "admins: Invalid username"),
        (
            {"tokens": [FileToken(name="t", user="ann", token="12345678", scopes=["zzz"])]},
            "tokens.t: scope 'zzz'",
        ),
    ],
)
def test_faults_of_the_file_are_named(
    connection: Connection, given: dict[str, Any], fault: str
) -> None:
    """A wrong name or scope stops the start, says where it is, and leaves no row."""
    with pytest.raises(ConfigError) as caught:
        load(connection, section(**given), now=NOW)

    assert fault in str(caught.value)
    assert names(connection, roles) == set()


def test_all_faults_are_told_at_once(connection: Connection) -> None:
    """Nobody has to start the hub once per mistake."""
    given = section(admins=[".."], roles=[RoleSection(name="x", scopes=["a", "b"])])
    with pytest.raises(ConfigError) as caught:
        load(connection, given, now=NOW)

    assert len(str(caught.value).splitlines()) == 5
