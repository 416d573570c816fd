"""The launch table: every query of it. Repositories take a connection and never commit."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    Connection,
    RowMapping,
    Select,
    and_,
    bindparam,
    case,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)

from perijove.db.core import database_now
from perijove.db.prepared import Statement
from perijove.db.tables import handles, launches
from perijove.domain.errors import LeaseLost, NotFound
from perijove.domain.launch import (
    ON_PLATFORM,
    WAITING,
    Cause,
    End,
    Kind,
    Launch,
    Reason,
    Status,
    Wanted,
    check_transition,
)
from perijove.domain.reasons import holds_since
from perijove.kit.clock import isoformat

_STAMPS: Mapping[Status, str] = {
    Status.SUBMITTED: "submitted_at",
    Status.QUEUED: "queued_at",
    Status.HELD: "queued_at",
    Status.STARTING: "starting_at",
    Status.CONNECTING: "connecting_at",
    Status.READY: "ready_at",
    Status.ENDING: "ending_at",
    Status.ENDED: "ended_at",
}
_IN_QUEUE = frozenset({Status.QUEUED, Status.HELD})
"""One stay in the platform's queue, with one time stamp: being held does not start it anew."""
_FIELDS = tuple(
    column
    for column in launches.c
    if column.name not in ("seq", "due_at", "lease_token", "lease_until", "end_cause")
)


def _select() -> Select[Any]:
    return select(*_FIELDS)


IS_LIVE = launches.c.status != literal_column(f"'{Status.ENDED}'")
"""The condition of the index of live launches, word for word: without it a query reads them all."""

# What every step asks for is built once: building a statement costs more than running it. Names
# of parameters differ from those of columns, which are values in an `update`.
_BY_ID = Statement(_select().where(launches.c.id == bindparam("the_id")))
_HOLD = Statement(
    _select().where(launches.c.id == bindparam("the_id")).with_for_update(key_share=True)
)
_LIVE_OF = Statement(
    _select()
    .where(launches.c.server_id == bindparam("the_server"), IS_LIVE)
    .order_by(
        case((launches.c.wanted == Wanted.RUN, 0), else_=1),
        launches.c.requested_at.desc(),
    )
    .limit(1)
)
_LAST_OF = Statement(
    _select()
    .where(launches.c.server_id == bindparam("the_server"))
    .order_by(launches.c.requested_at.desc(), launches.c.generation.desc())
    .limit(1)
)
_INSERT = Statement(insert(launches))
_SEEN = (
    update(launches)
    .where(
        launches.c.id == bindparam("the_id"),
        launches.c.status == bindparam("the_status"),
        launches.c.wanted == bindparam("the_wanted"),
    )
    .returning(*_FIELDS)
)
_CHANGE = Statement(_SEEN)
_CHANGE_LEASED = Statement(_SEEN.where(launches.c.lease_token == bindparam("the_lease")))
_RELEASE = Statement(
    update(launches)
    .where(launches.c.id == bindparam("the_id"), launches.c.lease_token == bindparam("the_lease"))
    .values(lease_token=None, lease_until=None)
)
_ADD_HANDLE = Statement(insert(handles))
_HANDLES = Statement(
    select(handles.c.body)
    .where(handles.c.launch_id == bindparam("the_id"))
    .order_by(case((handles.c.registered_at.is_not(None), 0), else_=1), handles.c.id)
)


def launch_of(row: RowMapping | Mapping[str, Any]) -> Launch:
    """Return the value of a row."""
    values = dict(row)
    values["kind"] = Kind(values["kind"])
    values["wanted"] = Wanted(values["wanted"])
    values["status"] = Status(values["status"])
    if values["reason"] is not None:
        values["reason"] = reason_of(values["reason"])
    if values["end"] is not None:
        values["end"] = end_of(values["end"])
    return Launch(**values)


def end_of(stored: Mapping[str, Any]) -> End:
    """Return the value of a stored end."""
    return End(**{**stored, "cause": Cause(stored["cause"])})


def end_as_json(end: End) -> dict[str, Any]:
    """Return what is stored of an end."""
    return {
        "cause": str(end.cause),
        "code": end.code,
        "reason": end.reason,
        "detail": end.detail[-4000:],
    }


def reason_of(stored: Mapping[str, Any]) -> Reason:
    """Return the value of a stored reason."""
    since = stored.get("since")
    return Reason(**{**stored, "since": datetime.fromisoformat(since) if since else None})


def reason_as_json(reason: Reason | None) -> dict[str, Any] | None:
    """Return what is stored of a reason."""
    if reason is None:
        return None
    return {
        "code": reason.code,
        "params": dict(reason.params),
        "words": reason.words[:1000],
        "since": isoformat(reason.since) if reason.since else None,
    }


def insert_launch(connection: Connection, launch: Launch) -> None:
    """
    Insert a launch that was admitted.

    Raises `Conflict` (through the unique index) when its server has a wanted launch already.
    """
    _INSERT.run(
        connection,
        {
            "id": launch.id,
            "kind": launch.kind,
            "wanted": launch.wanted,
            "status": launch.status,
            "name": launch.name,
            "spawner": launch.spawner,
            "user_id": launch.user_id,
            "user_name": launch.user_name,
            "server_id": launch.server_id,
            "server_name": launch.server_name,
            "generation": launch.generation,
            "spec": dict(launch.spec),
            "after": launch.after,
            "requested_at": launch.requested_at,
        },
    )


def find_launch(connection: Connection, launch_id: str) -> Launch | None:
    """Return a launch by id."""
    row = _BY_ID.first(connection, {"the_id": launch_id})
    return launch_of(row) if row else None


def get_launch(connection: Connection, launch_id: str) -> Launch:
    """Return a launch by id; raises `NotFound`."""
    return _get(connection, launch_id, _BY_ID)


def hold_launch(connection: Connection, launch_id: str) -> Launch:
    """Return a launch as it stays until this unit ends, but for what the unit itself writes."""
    return _get(connection, launch_id, _HOLD)


def _get(connection: Connection, launch_id: str, statement: Statement) -> Launch:
    row = statement.first(connection, {"the_id": launch_id})
    if row is None:
        raise NotFound(f"no launch {launch_id}")
    return launch_of(row)


def find_by_name(connection: Connection, name: str) -> Launch | None:
    """Return the launch with a platform name."""
    row = connection.execute(_select().where(launches.c.name == name)).mappings().first()
    return launch_of(row) if row else None


def live_launch_of(connection: Connection, server_id: int) -> Launch | None:
    """Return the server's launch that is not over: the wanted one, else the newest that ends."""
    row = _LIVE_OF.first(connection, {"the_server": server_id})
    return launch_of(row) if row else None


def last_launch_of(connection: Connection, server_id: int) -> Launch | None:
    """Return the server's newest launch, live or over."""
    row = _LAST_OF.first(connection, {"the_server": server_id})
    return launch_of(row) if row else None


def list_live(
    connection: Connection, *, spawner: str | None = None, user_id: int | None = None
) -> list[Launch]:
    """Return all launches that are not over, oldest first."""
    query = _select().where(IS_LIVE).order_by(launches.c.requested_at)
    if spawner is not None:
        query = query.where(launches.c.spawner == spawner)
    if user_id is not None:
        query = query.where(launches.c.user_id == user_id)
    return [launch_of(row) for row in connection.execute(query).mappings()]


def list_newest(
    connection: Connection, user_id: int, *, server_name: str | None, limit: int
) -> list[Launch]:
    """Return a user's launches, live or over, newest first."""
    query = (
        _select()
        .where(launches.c.user_id == user_id)
        .order_by(launches.c.requested_at.desc(), launches.c.id)
        .limit(limit)
    )
    if server_name is not None:
        query = query.where(launches.c.server_name == server_name)
    return [launch_of(row) for row in connection.execute(query).mappings()]


# --- changes ----------------------------------------------------------------------------------


def change(
    connection: Connection,
    launch: Launch,
    *,
    now: datetime,
    lease: str | None = None,
    status: Status | None = None,
    due_at: datetime | bool | None = False,
    **values: Any,
) -> Launch:
    """
    Write what was seen of a launch, and return it as it is now.

    `launch` must have been read in the same unit: the row is changed only while its status, and
    what is wanted of it, are still those. With `lease` it must also still be held, and raises
    `LeaseLost` otherwise.
    A new `status` must be allowed (`check_transition`) and sets its time stamp.
    A `reason` holds since now, or for as long as the one before where that was the same, or as
    long as whoever gave it says. `due_at` False leaves it alone.
    """
    if status is not None and status != launch.status:
        check_transition(launch.status, status)
        values["status"] = status
        stamp = _STAMPS.get(status)
        if stamp and not (launch.status in _IN_QUEUE and status in _IN_QUEUE):
            values[stamp] = now
    if "reason" in values:
        values["reason"] = reason_as_json(_dated(values["reason"], launch.reason, now))
    if isinstance(values.get("end"), End):
        values["end"] = end_as_json(values["end"])
    if values.get("status") == Status.ENDED:
        values["end_cause"] = (values.get("end") or end_as_json(launch.end or _UNKNOWN))["cause"]
    if due_at is not False:
        values["due_at"] = due_at
    if not values:
        return launch
    values |= {
        "the_id": launch.id,
        "the_status": launch.status,
        "the_wanted": launch.wanted,
    }
    statement = _CHANGE
    if lease is not None:
        values["the_lease"] = lease
        statement = _CHANGE_LEASED
    row = statement.first(connection, values)
    if row is None:
        raise LeaseLost(f"launch {launch.id} was changed by another replica")
    return launch_of(row)


def _dated(new: Reason | None, old: Reason | None, now: datetime) -> Reason | None:
    if new is None:
        return None
    before = old.since if old is not None and old.code == new.code else now
    return replace(new, since=holds_since(new) or before)


_UNKNOWN = End(cause=Cause.UNKNOWN)


_NEXT_DUE = select(
    func.min(
        case(
            (
                and_(
                    launches.c.lease_until.is_not(None),
                    launches.c.lease_until > launches.c.due_at,
                ),
                launches.c.lease_until,
            ),
            else_=launches.c.due_at,
        )
    )
).where(launches.c.due_at.is_not(None))


def next_due(connection: Connection) -> datetime | None:
    """Return when the next launch that nobody works on is due; past lease ends count."""
    at: datetime | None = connection.scalar(_NEXT_DUE)
    return at


def claim_due(
    connection: Connection,
    *,
    token: str,
    now: datetime,
    ttl: timedelta,
    limit: int,
    but: Collection[str] = (),
) -> list[Launch]:
    """Lease up to `limit` due launches, `but` these, to `token` and return them."""
    lease_now = database_now(connection)
    free = or_(launches.c.lease_until.is_(None), launches.c.lease_until < lease_now)
    due = (
        select(launches.c.id)
        .where(launches.c.due_at <= now, free, launches.c.id.not_in(but))
        .order_by(launches.c.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True, key_share=True)  # ignored by SQLite
        .cte("due")  # not a subquery: PostgreSQL might evaluate that more than once
    )
    rows = connection.execute(
        update(launches)
        .where(launches.c.id.in_(select(due.c.id)))
        .values(lease_token=token, lease_until=lease_now + ttl)
        .returning(*_FIELDS)
    )
    return [launch_of(row) for row in rows.mappings()]


def release(connection: Connection, launch_id: str, *, token: str) -> None:
    """Give the lease of a launch back, if it is still held."""
    _RELEASE.run(connection, {"the_id": launch_id, "the_lease": token})


def renew(
    connection: Connection, launch_ids: Collection[str], *, token: str, ttl: timedelta
) -> None:
    """Hold the leases of these launches for longer; what was lost meanwhile stays lost."""
    connection.execute(
        update(launches)
        .where(launches.c.id.in_(launch_ids), launches.c.lease_token == token)
        .values(lease_until=database_now(connection) + ttl)
    )


def release_all(connection: Connection) -> None:
    """Take every lease back: for a database that only one hub uses, when that one starts."""
    connection.execute(
        update(launches)
        .where(launches.c.lease_token.is_not(None))
        .values(lease_token=None, lease_until=None)
    )


# --- the line ---------------------------------------------------------------------------------

_ON_THE_WAY = WAITING & ON_PLATFORM


def count_on_the_way(connection: Connection, spawner: str) -> int:
    """Count the launches a spawner is busy starting."""
    return (
        connection.scalar(
            select(func.count())
            .select_from(launches)
            .where(IS_LIVE, launches.c.spawner == spawner, launches.c.status.in_(_ON_THE_WAY))
        )
        or 0
    )


def line_of(connection: Connection, spawner: str, *, limit: int | None = None) -> list[Launch]:
    """
    Return the launches that wait to be submitted, next one first.

    Fair per user: who has fewer launches on the platform and earlier in the line comes first,
    then who asked first. A restart whose predecessor has not ended yet is not in the line.
    """
    busy = (
        select(launches.c.user_id, func.count().label("busy"))
        .where(IS_LIVE, launches.c.spawner == spawner, launches.c.status.in_(ON_PLATFORM))
        .group_by(launches.c.user_id)
        .subquery()
    )
    earlier = launches.alias("earlier")
    turn = func.row_number().over(
        partition_by=launches.c.user_id, order_by=(launches.c.requested_at, launches.c.id)
    )
    waiting = (
        select(*_FIELDS, (turn + func.coalesce(busy.c.busy, 0)).label("turn"))
        .outerjoin(busy, busy.c.user_id == launches.c.user_id)
        .outerjoin(
            earlier,
            and_(earlier.c.id == launches.c.after, earlier.c.status != Status.ENDED),
        )
        .where(
            IS_LIVE,
            launches.c.spawner == spawner,
            launches.c.status == Status.REQUESTED,
            launches.c.wanted == Wanted.RUN,
            earlier.c.id.is_(None),
        )
        .subquery()
    )
    query = select(*(waiting.c[column.name] for column in _FIELDS)).order_by(
        waiting.c.turn, waiting.c.requested_at, waiting.c.id
    )
    if limit is not None:
        query = query.limit(limit)
    return [launch_of(row) for row in connection.execute(query).mappings()]


def lock_line(connection: Connection, spawner: str) -> None:
    """Let no other replica submit from this spawner's line until the transaction ends."""
    if connection.dialect.name == "postgresql":  # SQLite has one writer anyway
        key = func.hashtext(f"perijove-line-{spawner}")
        connection.execute(select(func.pg_advisory_xact_lock(key)))


_WITH_LINE = (
    select(launches.c.spawner)
    .where(IS_LIVE, launches.c.status == Status.REQUESTED, launches.c.wanted == Wanted.RUN)
    .distinct()
)


def spawners_with_line(connection: Connection) -> Collection[str]:
    """Return the names of the spawners for which a launch waits to be submitted."""
    return set(connection.scalars(_WITH_LINE))


# --- handles ----------------------------------------------------------------------------------


def append_handle(
    connection: Connection, launch_id: str, body: Mapping[str, Any], *, now: datetime
) -> None:
    """Record a handle, unless the very same one is recorded already. Needs no lease."""
    if dict(body) in list_handles(connection, launch_id):
        return
    _ADD_HANDLE.run(connection, {"launch_id": launch_id, "body": dict(body), "created_at": now})


def last_handles(connection: Connection, ids: Collection[str]) -> Mapping[str, Any]:
    """Return the newest handle of each of these launches that has one."""
    statement = (
        select(handles.c.launch_id, handles.c.body)
        .where(handles.c.launch_id.in_(ids))
        .order_by(handles.c.id)
    )
    return {row.launch_id: row.body for row in connection.execute(statement)}


def list_handles(connection: Connection, launch_id: str) -> list[Mapping[str, Any]]:
    """Return the handles of a launch: the one that lives first (registered, else the older)."""
    return [row["body"] for row in _HANDLES.rows(connection, {"the_id": launch_id})]
