"""
Users as the REST API shows and changes them, with their servers.

Rows here are made for reading many of them fast: instants and JSON stay the text they are sent
as (`db/rendered.py`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    Connection,
    String,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from perijove.db.locks import hold_user
from perijove.db.prepared import Prepared
from perijove.db.rendered import instant_text, json_list, json_text
from perijove.db.tables import group_members, groups, launches, role_grants, roles, servers, users
from perijove.db.volumes import remember_names
from perijove.domain.errors import Conflict, Forbidden, Invalid, NotFound
from perijove.domain.launch import WAITING, Status, Wanted
from perijove.services.people import clean_user_name
from perijove.services.roles import ADMIN, USER

# --- rows -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ServerRow:
    """A server and its newest launch; in the order of `SERVER_COLUMNS`."""

    name: str
    display_name: str
    last_activity: str | None
    user_options: str | None
    launch_id: str | None
    status: str | None
    wanted: str | None
    started: str | None
    platform_name: str | None
    node: str | None

    @property
    def pending(self) -> str | None:
        """What is under way, in the wire's words (its Appendix B)."""
        return _WORDS[self.status, self.wanted][0]

    @property
    def is_ready(self) -> bool:
        """True when it runs, is routed, and nothing is under way."""
        return _WORDS[self.status, self.wanted][1]

    @property
    def is_stopped(self) -> bool:
        """True when nothing of it runs or is under way."""
        return _WORDS[self.status, self.wanted] == _STOPPED


_STOPPED: Final = (None, False)


def _words() -> dict[tuple[str | None, str | None], tuple[str | None, bool]]:
    """Return (pending, ready) for every status of a launch and what is wanted of it."""
    words: dict[tuple[str | None, str | None], tuple[str | None, bool]] = {(None, None): _STOPPED}
    for status in Status:
        running = (
            ("spawn", False)
            if status in WAITING
            else {Status.READY: (None, True), Status.SUSPENDED: ("check", False)}.get(
                status, ("stop", False)
            )
        )
        ended = status is Status.ENDED
        words[status, Wanted.RUN] = _STOPPED if ended else running
        words[status, Wanted.END] = _STOPPED if ended else ("stop", False)
    return words


_WORDS: Final = _words()


@dataclass(frozen=True, slots=True)
class UserRow:
    """A user; `roles` and `groups` are JSON arrays of names."""

    id: int
    name: str
    admin: bool
    created: str
    last_activity: str | None
    user_info: str | None
    roles: str
    groups: str
    servers: list[ServerRow] = field(default_factory=list)

    def find_server(self, name: str) -> ServerRow | None:
        """Return a server by name."""
        return next((server for server in self.servers if server.name == name), None)


# --- queries ----------------------------------------------------------------------------------

_ROLES = (
    select(json_list(roles.c.name))
    .where(
        or_(
            roles.c.name == USER,
            and_(roles.c.name == ADMIN, users.c.admin),
            roles.c.id.in_(
                select(role_grants.c.role_id)
                .where(role_grants.c.user_id == users.c.id)
                .correlate(users)
            ),
        )
    )
    .correlate(users)
    .scalar_subquery()
)
_GROUPS = (
    select(json_list(groups.c.name))
    .select_from(groups.join(group_members))
    .where(group_members.c.user_id == users.c.id)
    .correlate(users)
    .scalar_subquery()
)
USER_COLUMNS = (
    users.c.id,
    users.c.name,
    users.c.admin,
    instant_text(users.c.created_at),
    instant_text(users.c.last_activity),
    json_text(users.c.user_info),
    _ROLES,
    _GROUPS,
)
SERVER_COLUMNS = (
    servers.c.name,
    servers.c.display_name,
    instant_text(
        case(
            (launches.c.last_activity > servers.c.last_activity, launches.c.last_activity),
            else_=func.coalesce(servers.c.last_activity, launches.c.last_activity),
        )
    ),
    json_text(servers.c.user_options),
    servers.c.launch_id,
    launches.c.status,
    launches.c.wanted,
    instant_text(
        func.coalesce(
            launches.c.starting_at,
            launches.c.connecting_at,
            launches.c.ready_at,
            launches.c.requested_at,
        )
    ),
    launches.c.name,
    launches.c.node,
)
_USER_WIDTH: Final = len(USER_COLUMNS)

_ONE: Final = Prepared(
    select(*USER_COLUMNS, *SERVER_COLUMNS)
    .select_from(
        users.outerjoin(servers, servers.c.user_id == users.c.id).outerjoin(
            launches, launches.c.id == servers.c.launch_id
        )
    )
    .where(users.c.name == bindparam("name", type_=String))
    .order_by(servers.c.name)
)


def find_user(connection: Connection, name: str) -> UserRow | None:
    """Return a user with all their servers, stopped ones too."""
    rows = _ONE.rows(connection, {"name": name})
    if not rows:
        return None
    user = UserRow(*rows[0][:_USER_WIDTH])
    if rows[0][_USER_WIDTH] is not None:
        user.servers.extend(ServerRow(*row[_USER_WIDTH:]) for row in rows)
    return user


def find_name(connection: Connection, user_id: int) -> str | None:
    """Return the name that a user has now."""
    return connection.scalar(select(users.c.name).where(users.c.id == user_id))


def get_user(connection: Connection, name: str) -> UserRow:
    """Return a user with all their servers; raises `NotFound`."""
    user = find_user(connection, name)
    if user is None:
        raise NotFound("No access to resources or resources not found", code="user-unknown")
    return user


def hold_by_name(connection: Connection, name: str) -> UserRow:
    """Return a user as `get_user`, of whom nothing starts until this unit ends."""
    hold_user(connection, get_user(connection, name).id)
    return get_user(connection, name)


# --- changes ----------------------------------------------------------------------------------


def check_may_change(connection: Connection, name: str, *, by_admin: bool) -> None:
    """Raise `Forbidden` where somebody who is no administrator would change one."""
    admin = connection.scalar(select(users.c.admin).where(users.c.name == name))
    if admin and not by_admin:
        raise Forbidden("Only admins can modify other admins", code="admin-only")


def check_may_make_admin(*, by_admin: bool) -> None:
    """Raise `Forbidden` where somebody who is no administrator would make one."""
    if not by_admin:
        raise Forbidden("Only admins can grant admin permissions", code="admin-only")


def create_users(
    connection: Connection, names: Sequence[str], *, admin: bool, now: datetime
) -> list[UserRow]:
    """
    Make the users that do not exist yet, and return them.

    Raises `Invalid` when any name is wrong and `Conflict` when all exist; then none is made.
    """
    cleaned = _clean_all(names)
    known = set(connection.scalars(select(users.c.name).where(users.c.name.in_(cleaned))))
    fresh = [name for name in cleaned if name not in known]
    if not fresh:
        raise Conflict(f"All {len(names)} users already exist", code="user-exists")
    for name in fresh:
        _insert(connection, name, admin=admin, now=now)
    return [get_user(connection, name) for name in fresh]


def create_user(connection: Connection, name: str, *, admin: bool, now: datetime) -> UserRow:
    """Make one user; raises `Invalid` for a wrong name, `Conflict` for one that exists."""
    (cleaned,) = _clean_all([name])
    if connection.scalar(select(users.c.id).where(users.c.name == cleaned)) is not None:
        raise Conflict(f"User {cleaned} already exists", code="user-exists", name=cleaned)
    _insert(connection, cleaned, admin=admin, now=now)
    return get_user(connection, cleaned)


def _insert(connection: Connection, name: str, *, admin: bool, now: datetime) -> None:
    connection.execute(insert(users).values(name=name, admin=admin, created_at=now))


def _clean_all(names: Iterable[str]) -> list[str]:
    cleaned: dict[str, None] = {}
    wrong: list[str] = []
    for name in names:
        try:
            cleaned[clean_user_name(name)] = None
        except Invalid as error:
            wrong.append(str(error.params.get("name", "")))
    if wrong:
        word = "username" if len(wrong) == 1 else "usernames"
        raise Invalid(f"Invalid {word}: {', '.join(wrong)}", field="name", code="user-name")
    return list(cleaned)


def change_user(
    connection: Connection, name: str, *, new_name: str | None, admin: bool | None
) -> UserRow:
    """
    Rename a user, or change whether they are an administrator; an unchanged name is no change.

    A name that is taken, and a user of whom something runs (whose address would change under
    it), are `Invalid`.
    """
    user = hold_by_name(connection, name)
    values: dict[str, Any] = {}
    if admin is not None:
        values["admin"] = admin
    if new_name is not None and (cleaned := _clean_all([new_name])[0]) != user.name:
        if connection.scalar(select(users.c.id).where(users.c.name == cleaned)) is not None:
            raise Invalid(
                f"User {cleaned} already exists, username must be unique", code="user-exists"
            )
        if any(not server.is_stopped for server in user.servers):
            raise Invalid(
                f"{user.name} has active servers. Please stop them before renaming.",
                code="server-active",
            )
        values["name"] = cleaned
    if values:
        connection.execute(update(users).where(users.c.id == user.id).values(**values))
    return get_user(connection, values.get("name", user.name))


def delete_user(connection: Connection, name: str) -> None:
    """
    Delete a user with tokens, sessions and servers; what they ran stays as a record of use.

    Raises `Invalid` while something of theirs still runs.
    """
    user = hold_by_name(connection, name)
    if any(not server.is_stopped for server in user.servers):
        raise Invalid(
            f"{user.name}'s server is in the process of stopping, please wait.",
            code="server-active",
        )
    remember_names(connection, user.id)
    connection.execute(delete(users).where(users.c.id == user.id))
