"""
When somebody, or something, was last active.

What a server reports is written at once. That a token was *used* is only remembered in memory,
at a resolution of half a minute, and written by `flush` every few seconds: nothing depends on
it, so losing the last seconds in a crash is harmless, and reading stays free of writes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Column, Connection, Table, bindparam, or_, select, update

from perijove.db.core import bound
from perijove.db.tables import launches, servers, tokens, users
from perijove.db.types import Instant
from perijove.domain.errors import Invalid
from perijove.domain.launch import Status

if TYPE_CHECKING:
    from perijove.services.access import Caller
    from perijove.services.hub import Hub

RESOLUTION_SECONDS: Final = 30.0
"""Uses closer together than this count as one (wire §3.7)."""
_MOST_REMEMBERED: Final = 50_000


class Seen:
    """Tokens and users seen in use and not written yet. One per process."""

    def __init__(self) -> None:
        self._noted: dict[int, float] = {}
        self._tokens: dict[int, datetime] = {}
        self._users: dict[int, datetime] = {}

    def note(self, caller: "Caller", now: datetime) -> None:
        """Remember that a caller's token was used; a server's own is no activity of its user."""
        token_id = caller.token_id
        if token_id is None:
            return
        at = now.timestamp()
        if at - self._noted.get(token_id, 0.0) < RESOLUTION_SECONDS:
            return
        if len(self._noted) >= _MOST_REMEMBERED:
            self._noted.clear()
        self._noted[token_id] = at
        self._tokens[token_id] = now
        if caller.user_id is not None and caller.launch_id is None:
            self._users[caller.user_id] = now

    def take(self) -> tuple[Mapping[int, datetime], Mapping[int, datetime]]:
        """Return (tokens, users) that were seen, and forget them."""
        taken = self._tokens, self._users
        self._tokens, self._users = {}, {}
        return taken


async def flush(hub: "Hub") -> None:
    """Write what was seen; the step of a loop that runs every few seconds."""
    seen_tokens, seen_users = hub.seen.take()
    if seen_tokens or seen_users:
        await hub.database.write(bound(_write_seen, seen_tokens, seen_users))


def _write_seen(
    connection: Connection,
    seen_tokens: Mapping[int, datetime],
    seen_users: Mapping[int, datetime],
) -> None:
    for statement, seen in ((_TOKEN_SEEN, seen_tokens), (_USER_SEEN, seen_users)):
        # In one order everywhere, so that two replicas never wait for each other.
        rows = [{"row": row, "at": at} for row, at in sorted(seen.items())]
        if rows:
            connection.execute(statement, rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was said about a user's activity."""

    user_id: int
    user_name: str
    at: datetime | None
    """When the user was last active."""
    servers: Mapping[str, datetime]
    """When each server was, by name."""
    launch_id: str | None
    """The launch that reports about itself, if one does: it was heard."""


def apply(connection: Connection, told: Report, *, now: datetime) -> None:
    """
    Record what was reported; times only ever increase.

    Raises `Invalid` for a server that the user does not have, and nothing is written.
    """
    found = {row.name: row for row in connection.execute(_SERVERS, {"user": told.user_id})}
    for name in told.servers:
        if name and name not in found:
            raise Invalid(
                f"No such server {name!r} for user {told.user_name}",
                code="server-unknown",
                name=name,
            )
    if told.at is not None:
        connection.execute(_USER_SEEN, {"row": told.user_id, "at": told.at})
    for name, at in sorted(told.servers.items()):
        if row := found.get(name):
            connection.execute(_SERVER_SEEN, {"row": row.id, "at": at})
            connection.execute(_LAUNCH_SEEN, {"row": row.launch_id, "at": at})
    if told.launch_id is not None:
        connection.execute(_HEARD, {"row": told.launch_id, "now": now})


def _seen(table: Table) -> Any:
    """Update ``last_activity`` of one row, unless it is later already."""
    column: Column[Any] = table.c.last_activity
    at = bindparam("at", type_=Instant)
    return (
        update(table)
        .where(table.c.id == bindparam("row"), or_(column.is_(None), column < at))
        .values(last_activity=at)
    )


_TOKEN_SEEN = _seen(tokens)
_USER_SEEN = _seen(users)
_SERVER_SEEN = _seen(servers)
_LAUNCH_SEEN = (
    _seen(launches).where(launches.c.status != Status.ENDED).values(activity_source="server")
)
_HEARD = (
    update(launches)
    .where(launches.c.id == bindparam("row"))
    .values(heard_at=bindparam("now", type_=Instant))
)
_SERVERS = select(servers.c.id, servers.c.name, servers.c.launch_id).where(
    servers.c.user_id == bindparam("user")
)
