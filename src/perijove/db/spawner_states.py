"""What is known of each spawner's health, and the strangers seen on its platform."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, select

from perijove.db.core import upsert
from perijove.db.tables import orphans, spawner_states


@dataclass(frozen=True, slots=True, kw_only=True)
class SpawnerState:
    """When a platform answered last, and since when it does not."""

    name: str
    answered_at: datetime | None = None
    complete_at: datetime | None = None
    failing_since: datetime | None = None
    answering_since: datetime | None = None
    """When its last silence ended; None: it never was silent."""
    error: str = ""
    breaker_since: datetime | None = None
    breaker_count: int = 0


_BY_NAME = select(spawner_states).where(spawner_states.c.name == bindparam("the_name"))


def find_state(connection: Connection, name: str) -> SpawnerState:
    """Return the state of a spawner; an empty one before its first answer."""
    row = connection.execute(_BY_NAME, {"the_name": name}).mappings().first()
    return SpawnerState(**row) if row else SpawnerState(name=name)


def save_state(connection: Connection, name: str, **changes: object) -> None:
    """Write what changed of a spawner's state."""
    upsert(connection, spawner_states, key={"name": name}, values=dict(changes))


def list_orphans(connection: Connection, spawner: str) -> Mapping[str, datetime]:
    """Return the names on a platform that no record knows, with when each was first seen."""
    rows = connection.execute(
        select(orphans.c.name, orphans.c.first_seen_at).where(orphans.c.spawner == spawner)
    )
    return {row.name: row.first_seen_at for row in rows}


def note_orphan(
    connection: Connection, spawner: str, name: str, *, owner: str, now: datetime
) -> None:
    """Record a stranger the first time it is seen."""
    upsert(
        connection,
        orphans,
        key={"spawner": spawner, "name": name},
        values={"first_seen_at": now, "owner": owner},
        on_update={},
    )


def forget_orphan(connection: Connection, spawner: str, name: str) -> None:
    """Drop a stranger that is gone, or known after all."""
    connection.execute(delete(orphans).where(orphans.c.spawner == spawner, orphans.c.name == name))
