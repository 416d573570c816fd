"""Lists of users: which, in which order, and one page of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Integer,
    Select,
    String,
    bindparam,
    exists,
    func,
    or_,
    select,
)

from perijove.db.tables import group_members, groups, launches, servers, users
from perijove.domain.launch import Status, Wanted
from perijove.domain.scopes import LimitKind, Limits
from perijove.services.users import SERVER_COLUMNS, USER_COLUMNS, ServerRow, UserRow


class State(StrEnum):
    """Which users a list shows, by their servers."""

    ACTIVE = "active"  #: Something runs or is under way.
    READY = "ready"  #: Something is ready.
    INACTIVE = "inactive"  #: Nothing runs.


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which users a list shows, and in which order."""

    limits: Limits
    """Whom the caller may list."""
    state: State | None = None
    name_filter: str = ""
    sort: str = "id"
    """``id``, ``name`` or ``last_activity``."""
    descending: bool = False
    offset: int = 0
    limit: int


def list_users(connection: Connection, wanted: Selection) -> list[UserRow]:
    """Return one page of users with all their servers."""
    query = _page(_shape(wanted), wanted.sort, wanted.descending)
    page = {
        row[0]: UserRow(*row)
        for row in connection.execute(
            query, {**_arguments(wanted), "limit": wanted.limit, "offset": wanted.offset}
        )
    }
    if page:
        for user_id, *server in connection.execute(_SERVERS_OF, {"ids": list(page)}):
            page[user_id].servers.append(ServerRow(*server))
    return list(page.values())


def count_users(connection: Connection, wanted: Selection) -> int:
    """Return how many users a list has on all its pages."""
    counted = _count(_shape(wanted))
    return connection.scalar(counted, _arguments(wanted)) or 0


@dataclass(frozen=True, slots=True)
class _Shape:
    """What decides the text of the query; the rest are its parameters."""

    state: State | None
    is_filtered: bool
    is_limited: bool


def _shape(wanted: Selection) -> _Shape:
    return _Shape(wanted.state, bool(wanted.name_filter), None not in wanted.limits)


def _arguments(wanted: Selection) -> Mapping[str, Any]:
    names: dict[LimitKind, list[str]] = {LimitKind.USER: [], LimitKind.GROUP: []}
    for limit in wanted.limits:
        if limit is not None:
            names[limit.kind].append(limit.value)
    escaped = wanted.name_filter.lower()
    for special in "\\%_":
        escaped = escaped.replace(special, f"\\{special}")
    return {
        "name_filter": f"%{escaped}%",
        "users": names[LimitKind.USER],
        "groups": names[LimitKind.GROUP],
    }


def _has_launch(*conditions: Any) -> Any:
    return exists(
        select(servers.c.id)
        .select_from(servers.join(launches, launches.c.id == servers.c.launch_id))
        .where(servers.c.user_id == users.c.id, *conditions)
        .correlate(users)
    )


def _where(shape: _Shape) -> list[Any]:
    conditions: list[Any] = []
    is_active = _has_launch(launches.c.status != Status.ENDED)
    match shape.state:
        case State.ACTIVE:
            conditions.append(is_active)
        case State.INACTIVE:
            conditions.append(~is_active)
        case State.READY:
            conditions.append(
                _has_launch(launches.c.status == Status.READY, launches.c.wanted == Wanted.RUN)
            )
    if shape.is_filtered:
        conditions.append(
            func.lower(users.c.name).like(bindparam("name_filter", type_=String), escape="\\")
        )
    if shape.is_limited:
        of_groups = (
            select(group_members.c.user_id)
            .select_from(group_members.join(groups))
            .where(groups.c.name.in_(bindparam("groups", expanding=True)))
        )
        conditions.append(
            or_(
                users.c.name.in_(bindparam("users", expanding=True)),
                users.c.id.in_(of_groups),
            )
        )
    return conditions


_SERVERS_OF: Final[Select[Any]] = (
    select(servers.c.user_id, *SERVER_COLUMNS)
    .select_from(servers.outerjoin(launches, launches.c.id == servers.c.launch_id))
    .where(servers.c.user_id.in_(bindparam("ids", expanding=True)))
    .order_by(servers.c.name)
)


@lru_cache(maxsize=64)
def _page(shape: _Shape, sort: str, descending: bool) -> Select[Any]:
    column = users.c[sort]
    order: Any = column.desc() if descending else column.asc()
    if sort == "last_activity":
        order = order.nulls_last() if descending else order.nulls_first()
    return (
        select(*USER_COLUMNS)
        .where(*_where(shape))
        .order_by(order, users.c.id)
        .limit(bindparam("limit", type_=Integer))
        .offset(bindparam("offset", type_=Integer))
    )


@lru_cache(maxsize=16)
def _count(shape: _Shape) -> Select[Any]:
    return select(func.count()).select_from(users).where(*_where(shape))
