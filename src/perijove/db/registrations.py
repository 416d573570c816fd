"""What wrappers said of themselves: one row for each launch that runs as a job."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from perijove.db.core import upsert
from perijove.db.launches import append_handle
from perijove.db.prepared import Statement
from perijove.db.tables import handles, registrations

_ROW = Statement(
    select(
        registrations.c.job_id,
        registrations.c.nonce_hash,
        registrations.c.url,
        registrations.c.registered_at,
        registrations.c.listening_at,
    ).where(registrations.c.launch_id == bindparam("the_launch"))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """The run of a job that a launch belongs to."""

    job_id: str
    nonce_hash: str
    url: str
    registered_at: datetime
    listening_at: datetime | None


def find_registration(connection: Connection, launch_id: str) -> Registered | None:
    """Return the registration of a launch, if its job has come."""
    row = _ROW.first(connection, {"the_launch": launch_id})
    return Registered(**row) if row else None


def save_registration(connection: Connection, launch_id: str, **values: Any) -> None:
    """Write who registered; what it says of listening begins anew."""
    upsert(
        connection,
        registrations,
        key={"launch_id": launch_id},
        values={"listening_at": None, **values},
    )


def mark_listening(connection: Connection, launch_id: str, *, now: datetime) -> None:
    """Write that the registered server listens."""
    connection.execute(
        update(registrations).where(registrations.c.launch_id == launch_id).values(listening_at=now)
    )


def mark_handle(
    connection: Connection, launch_id: str, body: Mapping[str, Any], *, now: datetime
) -> None:
    """Record the handle of what registered, and that it is the one that lives."""
    append_handle(connection, launch_id, body, now=now)
    rows = connection.execute(
        select(handles.c.id, handles.c.body).where(handles.c.launch_id == launch_id)
    )
    same = [row.id for row in rows if row.body == dict(body)]
    connection.execute(update(handles).where(handles.c.id.in_(same)).values(registered_at=now))
