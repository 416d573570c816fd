"""
Roles, groups, services and tokens that the hub itself and its configuration file define.

The file is authoritative for what it names (design decision 17): its roles have exactly the
holders it lists, roles and tokens that it no longer lists go away. Members of groups and
administrators are only ever added. Rows made in the browser are never touched.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Column, Connection, Table, delete, insert, select, update

from perijove.db.core import upsert
from perijove.db.tables import (
    group_members,
    groups,
    role_grants,
    roles,
    services,
    tokens,
)
from perijove.domain.errors import ConfigError, HubError, Invalid
from perijove.domain.scope_names import INHERIT, SELF, check_role_name
from perijove.domain.scopes import (
    parse,
)
from perijove.kit.ids import hash_secret
from perijove.services.people import clean_user_name, ensure_user
from perijove.services.sections import FileToken, HubSection, RoleSection

USER: Final = "user"
ADMIN: Final = "admin"
SERVER: Final = "server"
TOKEN: Final = "token"  # noqa: S105 - a role's name

ACTIVITY: Final = "users:activity!user"
"""What every server token may do, whatever role `server` says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltIn:
    """A role that always exists."""

    description: str
    scopes: Sequence[str]


BUILT_IN: Final[Mapping[str, BuiltIn]] = {
    USER: BuiltIn(description="What everybody may do with what is theirs", scopes=[SELF]),
    ADMIN: BuiltIn(
        description="Everything",
        scopes=[
            "admin-ui",
            "admin:users",
            "admin:servers",
            "admin:services",
            "tokens",
            "admin:groups",
            "list:services",
            "read:services",
            "read:hub",
            "proxy",
            "shutdown",
            "access:services",
            "access:servers",
            "read:roles",
            "read:metrics",
            "shares",
        ],
    ),
    SERVER: BuiltIn(
        description="What a server's own token may do",
        scopes=[ACTIVITY, "access:servers!server"],
    ),
    TOKEN: BuiltIn(
        description="What a token may do that was asked for without scopes", scopes=[INHERIT]
    ),
}


def server_token_scopes(connection: Connection) -> list[str]:
    """Return the scopes of a server's own token, bare limits and all (wire §1.10)."""
    return sorted({*role_scopes(connection, SERVER), ACTIVITY})


def role_scopes(connection: Connection, name: str) -> list[str]:
    """Return the scopes of a role by name; none where there is no such role."""
    found = connection.scalar(select(roles.c.scopes).where(roles.c.name == name))
    return list(found or ())


def load(connection: Connection, settings: HubSection, *, now: datetime) -> None:
    """
    Bring the rows in line with the built-in roles and the configuration file, at every start.

    Raises `ConfigError` that lists all faults; then nothing must be committed.
    """
    check(settings)
    names = _Names(connection, now)
    _load_groups(connection, settings.groups, names)
    _load_admins(settings.admins, names)
    _load_roles(connection, settings.roles, names)
    _load_tokens(connection, settings.tokens, names)
    _settle_services(connection, settings)


def check(settings: HubSection) -> None:
    """Raise the `ConfigError` that `load` would; lists all faults."""
    faults = _faults(settings)
    if faults:
        raise ConfigError("hub:\n  " + "\n  ".join(faults), faults=faults)


def _faults(settings: HubSection) -> list[str]:
    faults: list[str] = []

    def check(where: str, rule: Callable[[str], object], texts: Iterable[str]) -> None:
        for text in texts:
            try:
                rule(text)
            except HubError as error:
                faults.append(f"{where}: {error}")

    check("admins", clean_user_name, settings.admins)
    for group, members in settings.groups.items():
        check("groups", _check_name, [group])
        check(f"groups.{group}", clean_user_name, members)
    for role in settings.roles:
        where = f"roles.{role.name}"
        check(where, check_role_name, [role.name])
        check(where, parse, role.scopes)
        check(where, clean_user_name, role.users)
        check(where, _check_name, [*role.groups, *role.services])
        if role.name == ADMIN and role.scopes:
            faults.append(f"{where}: the scopes of this role cannot be changed")
        if role.name in (SERVER, TOKEN) and (role.users or role.groups or role.services):
            faults.append(f"{where}: this role is a template for tokens and has no holders")
    for token in settings.tokens:
        where = f"tokens.{token.name}"
        check(where, parse, token.scopes)
        check(where, clean_user_name, [token.user] if token.user is not None else [])
        check(where, _check_name, [token.service] if token.service is not None else [])
    for what, given in (
        ("role", [role.name for role in settings.roles]),
        ("token", [token.token.get_secret_value() for token in settings.tokens]),
    ):
        if len(set(given)) < len(given):
            faults.append(f"{what}s: one {what} is given twice")
    return faults


def _check_name(name: str) -> None:
    if not 1 <= len(name) <= 255 or "/" in name or name != name.strip() or not name.isprintable():
        raise Invalid(f"name {name[:60]!r} must be 1 to 255 printable characters without /")


class _Names:
    """Ids of users, groups and services by name; who is absent is made."""

    def __init__(self, connection: Connection, now: datetime) -> None:
        self._connection = connection
        self.now = now

    def user(self, name: str, *, admin: bool = False) -> int:
        """Return a user's id."""
        return ensure_user(self._connection, clean_user_name(name), now=self.now, admin=admin).id

    def group(self, name: str) -> int:
        """Return a group's id."""
        return self._ensure(groups, name, {"properties": {}})

    def service(self, name: str) -> int:
        """Return a service's id."""
        return self._ensure(services, name, {"source": "file"})

    def _ensure(self, table: Table, name: str, values: Mapping[str, Any]) -> int:
        upsert(
            self._connection,
            table,
            key={"name": name},
            values={**values, "created_at": self.now},
            on_update={},
        )
        found: int = self._connection.execute(
            select(table.c.id).where(table.c.name == name)
        ).scalar_one()
        return found


def _load_groups(
    connection: Connection, wanted: Mapping[str, Sequence[str]], names: _Names
) -> None:
    # Those of the file before this one: what an authenticator gave stays.
    connection.execute(delete(group_members).where(group_members.c.authenticator.is_(None)))
    for group, members in wanted.items():
        group_id = names.group(group)
        for member in members:
            upsert(
                connection,
                group_members,
                key={"group_id": group_id, "user_id": names.user(member)},
                values={"authenticator": None},
            )


def _load_admins(admins: Sequence[str], names: _Names) -> None:
    for name in admins:
        names.user(name, admin=True)


def _load_roles(connection: Connection, wanted: Sequence[RoleSection], names: _Names) -> None:
    given = {role.name: role for role in wanted}
    connection.execute(
        delete(roles).where(roles.c.source == "file", roles.c.name.not_in([*given, *BUILT_IN]))
    )
    for name, built_in in BUILT_IN.items():
        role = given.pop(name, RoleSection(name=name))
        scopes = role.scopes or built_in.scopes
        description = role.description or built_in.description
        _save_role(connection, name, description, scopes, source="builtin")
        _grant(connection, role, names)
    for role in given.values():
        _save_role(connection, role.name, role.description, role.scopes, source="file")
        _grant(connection, role, names)


def _save_role(
    connection: Connection, name: str, description: str, scopes: Sequence[str], *, source: str
) -> None:
    upsert(
        connection,
        roles,
        key={"name": name},
        values={"description": description, "scopes": list(scopes), "source": source},
    )


def _grant(connection: Connection, role: RoleSection, names: _Names) -> None:
    """Make the listed holders the only ones of a role."""
    role_id = connection.execute(select(roles.c.id).where(roles.c.name == role.name)).scalar_one()
    connection.execute(delete(role_grants).where(role_grants.c.role_id == role_id))
    holders: list[tuple[Column[Any], Iterable[int]]] = [
        (
            role_grants.c.user_id,
            [names.user(name, admin=role.name == ADMIN) for name in role.users],
        ),
        (role_grants.c.group_id, [names.group(name) for name in role.groups]),
        (role_grants.c.service_id, [names.service(name) for name in role.services]),
    ]
    for column, ids in holders:
        for holder in sorted(set(ids)):
            connection.execute(
                insert(role_grants).values({"role_id": role_id, column.name: holder})
            )


def _load_tokens(connection: Connection, wanted: Sequence[FileToken], names: _Names) -> None:
    hashes = {hash_secret(token.token.get_secret_value()): token for token in wanted}
    connection.execute(
        delete(tokens).where(tokens.c.source == "file", tokens.c.hash.not_in(hashes))
    )
    for hash_, token in hashes.items():
        owner = {
            "user_id": None if token.user is None else names.user(token.user),
            "service_id": None if token.service is None else names.service(token.service),
        }
        values = {**owner, "scopes": token.scopes, "note": token.name, "source": "file"}
        upsert(
            connection,
            tokens,
            key={"hash": hash_},
            values={**values, "scheme": "random", "created_at": names.now},
            on_update=values,
        )


def _settle_services(connection: Connection, settings: HubSection) -> None:
    """Drop the services that the file no longer names; who holds role `admin` is one."""
    admins = [name for role in settings.roles if role.name == ADMIN for name in role.services]
    connection.execute(
        update(services)
        .where(services.c.source == "file")
        .values(admin=services.c.name.in_(admins))
    )
    named = {name for role in settings.roles for name in role.services}
    named |= {token.service for token in settings.tokens if token.service is not None}
    connection.execute(
        delete(services).where(services.c.source == "file", services.c.name.not_in(named))
    )
