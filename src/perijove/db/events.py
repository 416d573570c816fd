"""Events of a launch: code and parameters, numbered per launch, written with the change."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from perijove.db.prepared import Statement
from perijove.db.tables import events, launches
from perijove.domain.asking import Asking

MOST = 500
"""Events kept per launch; what comes after is counted but not stored."""

_NEXT_SEQ = Statement(
    update(launches)
    .where(launches.c.id == bindparam("the_launch"))
    .values(seq=launches.c.seq + 1)
    .returning(launches.c.seq)
)
_ADD = Statement(insert(events))


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a launch. The sentence is made where it is shown."""

    launch_id: str
    seq: int
    at: datetime
    code: str
    params: Mapping[str, Any]
    actor: str


def record(
    connection: Connection,
    launch_id: str,
    code: str,
    params: Mapping[str, Any],
    *,
    asking: Asking,
    now: datetime,
) -> None:
    """Append an event in the transaction of the change it tells of."""
    counted = _NEXT_SEQ.first(connection, {"the_launch": launch_id})
    if counted is None or counted["seq"] > MOST:
        return
    _ADD.run(
        connection,
        {
            "launch_id": launch_id,
            "seq": counted["seq"],
            "at": now,
            "code": code,
            "params": dict(params),
            "actor": asking.actor,
            "token_id": asking.token_id,
            "session_id": asking.session_id,
            "on_behalf": asking.on_behalf,
            "request_id": asking.request_id,
        },
    )


def list_events(connection: Connection, launch_id: str, *, after: int = 0) -> list[Event]:
    """Return the events of a launch with a number above `after`, in order."""
    rows = connection.execute(
        select(
            events.c.launch_id,
            events.c.seq,
            events.c.at,
            events.c.code,
            events.c.params,
            events.c.actor,
        )
        .where(events.c.launch_id == launch_id, events.c.seq > after)
        .order_by(events.c.seq)
    )
    return [Event(**row) for row in rows.mappings()]
