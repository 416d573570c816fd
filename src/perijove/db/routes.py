"""The route table, its revision, and the proxy workers that use it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from perijove.db.core import upsert
from perijove.db.prepared import Statement
from perijove.db.tables import counters, launches, proxy_workers, routes
from perijove.domain.launch import Status
from perijove.wire.control import Route, RouteTable

_COUNTER = "routes"
ALIVE = timedelta(seconds=5)
"""A proxy worker whose poll was open within this time is alive (design §2.4)."""


_REVISION = select(counters.c.value).where(counters.c.name == _COUNTER)
_LIVE_WORKERS = Statement(
    select(proxy_workers.c.id, proxy_workers.c.revision, proxy_workers.c.seen_at).where(
        proxy_workers.c.seen_at >= bindparam("since")
    )
)


def revision(connection: Connection) -> int:
    """Return the revision of the route table."""
    return connection.scalar(_REVISION) or 0


def _counting(make: Any) -> Statement:
    return Statement(
        make(counters)
        .values(name=_COUNTER, value=1)
        .on_conflict_do_update(index_elements=["name"], set_={"value": counters.c.value + 1})
        .returning(counters.c.value)
    )


_NEXT_REVISION = {
    "sqlite": _counting(sqlite.insert),
    "postgresql": _counting(postgresql.insert),
}


def _next_revision(connection: Connection) -> int:
    """Count one change; the counter's row makes changes wait for each other, also the first."""
    (row,) = _NEXT_REVISION[connection.dialect.name].rows(connection, {})
    return int(row["value"])


_ROUTE = Statement(
    select(routes.c.revision, routes.c.target, routes.c.launch_id).where(
        routes.c.host == bindparam("the_host"),
        routes.c.prefix == bindparam("the_prefix"),
        routes.c.removed_at.is_(None),
    )
)
_OF_LAUNCH = (routes.c.launch_id == bindparam("the_launch")) & routes.c.removed_at.is_(None)
_ROUTE_OF = Statement(select(routes.c.prefix).where(_OF_LAUNCH).limit(1))
_REMOVE = Statement(update(routes).where(_OF_LAUNCH))


def put_route(
    connection: Connection,
    *,
    prefix: str,
    target: str,
    launch_id: str | None = None,
    host: str = "",
) -> int:
    """Add or replace a route; returns the table's revision that has it."""
    found = _ROUTE.first(connection, {"the_host": host, "the_prefix": prefix})
    if found is not None and (found["target"], found["launch_id"]) == (target, launch_id):
        return int(found["revision"])
    number = _next_revision(connection)
    upsert(
        connection,
        routes,
        key={"host": host, "prefix": prefix},
        values={
            "target": target,
            "launch_id": launch_id,
            "revision": number,
            "removed_at": None,
        },
    )
    return number


def remove_routes(connection: Connection, launch_id: str, *, now: datetime) -> bool:
    """Take a launch's routes out of the table; True when there were any."""
    if _ROUTE_OF.first(connection, {"the_launch": launch_id}) is None:
        return False
    number = _next_revision(connection)
    _REMOVE.run(connection, {"the_launch": launch_id, "removed_at": now, "revision": number})
    return True


def table_since(connection: Connection, known: int, *, installation: str) -> RouteTable:
    """Return what changed since revision `known`; everything when it is 0 or from elsewhere."""
    number = revision(connection)
    full = known <= 0 or known > number or known < _oldest_tombstone_base(connection)
    query = select(
        routes.c.host,
        routes.c.prefix,
        routes.c.target,
        routes.c.launch_id,
        routes.c.removed_at,
    )
    query = query.where(routes.c.removed_at.is_(None) if full else routes.c.revision > known)
    table: list[Route] = []
    removed: list[tuple[str, str]] = []
    for host, prefix, target, launch_id, removed_at in connection.execute(query):
        if removed_at is None:
            table.append(Route(prefix=prefix, target=target, host=host, launch=launch_id or ""))
        else:
            removed.append((host, prefix))
    return RouteTable(
        installation=installation, revision=number, routes=table, removed=removed, full=full
    )


_PURGED = "routes-purged"


def _oldest_tombstone_base(connection: Connection) -> int:
    """Return the revision up to which tombstones were purged: older tables need everything."""
    return connection.scalar(select(counters.c.value).where(counters.c.name == _PURGED)) or 0


def purge_tombstones(connection: Connection, *, before: datetime) -> int:
    """Forget routes removed before an instant; returns how many."""
    old = (routes.c.removed_at.is_not(None)) & (routes.c.removed_at < before)
    newest = connection.scalar(select(func.max(routes.c.revision)).where(old))
    if newest is None:
        return 0
    upsert(connection, counters, key={"name": _PURGED}, values={"value": newest})
    return connection.execute(delete(routes).where(old)).rowcount


_ROUTED = (Status.READY, Status.SUSPENDED)


def repair_routes(
    connection: Connection, *, now: datetime, prefix_of: Callable[[str, str], str]
) -> int:
    """Remove routes of launches that are over, add those that ready ones lack; returns how many."""
    live = select(launches.c.id).where(launches.c.status.in_((*_ROUTED, Status.CONNECTING)))
    stale = connection.scalars(
        select(routes.c.launch_id)
        .where(
            routes.c.removed_at.is_(None),
            routes.c.launch_id.is_not(None),
            routes.c.launch_id.not_in(live),
        )
        .distinct()
    ).all()
    for launch_id in stale:
        remove_routes(connection, launch_id, now=now)
    routed = select(routes.c.launch_id).where(
        routes.c.removed_at.is_(None), routes.c.launch_id.is_not(None)
    )
    lacking = connection.execute(
        select(launches.c.id, launches.c.user_name, launches.c.server_name, launches.c.url).where(
            launches.c.status.in_(_ROUTED),
            launches.c.ready_at.is_not(None),
            launches.c.id.not_in(routed),
        )
    ).all()
    for row in lacking:
        prefix = prefix_of(row.user_name, row.server_name)
        put_route(connection, prefix=prefix, target=row.url, launch_id=row.id)
    return len(stale) + len(lacking)


# --- proxy workers ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyWorker:
    """One process of a proxy, as its polls show it."""

    id: str
    revision: int
    seen_at: datetime


def note_worker(connection: Connection, worker: str, *, revision: int, now: datetime) -> None:
    """Record that a worker polls, and with which revision of the table."""
    upsert(
        connection,
        proxy_workers,
        key={"id": worker},
        values={"revision": revision, "seen_at": now},
    )


def live_workers(connection: Connection, *, now: datetime) -> Sequence[ProxyWorker]:
    """Return the workers whose poll was open lately."""
    rows = _LIVE_WORKERS.rows(connection, {"since": now - ALIVE})
    return [ProxyWorker(**row) for row in rows]


def purge_workers(connection: Connection, *, before: datetime) -> None:
    """Forget workers not seen since an instant."""
    connection.execute(delete(proxy_workers).where(proxy_workers.c.seen_at < before))
