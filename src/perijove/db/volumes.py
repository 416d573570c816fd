"""The rows of volumes: whose they are, where, and how they stand on their platform."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from perijove.db.core import upsert
from perijove.db.tables import servers, unknown_volumes, users, volumes
from perijove.domain.storage import Fullness, Kept, fullness


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """What somebody keeps beyond a launch."""

    id: int = 0
    name: str
    """On the platform: stored, never made again from other names (failure 5.16)."""
    spawner: str
    kind: Kept
    user_id: int | None
    """None: its owner's account was deleted."""
    user_name: str
    server_id: int | None
    """Of a server's own volume; None: the server was deleted."""
    server_name: str
    attached: bool = True
    """Whether a start finds it."""
    path: str
    size_bytes: int | None
    storage_class: str
    retention_seconds: int
    created_at: datetime
    last_used_at: datetime | None = None
    seen_at: datetime | None = None
    missing_since: datetime | None = None
    """Since when a platform that had it says it has it no more."""
    used_bytes: int | None = None
    measured_at: datetime | None = None
    enforced: bool = False
    """Whether the platform enforces the size; else it is only measured."""
    held_by: str = ""
    """Platform name of a launch that has it there."""
    delete_after: datetime | None = None
    """Deleted by its owner, who can have it back until then."""
    removing_at: datetime | None = None
    """Being removed from the platform: nobody can have it back any more."""
    deleted_at: datetime | None = None
    """Seen gone from the platform."""

    @property
    def retention(self) -> timedelta:
        """How long its owner can have it back after deleting it."""
        return timedelta(seconds=self.retention_seconds)

    @property
    def fullness(self) -> Fullness:
        """How its use compares with its size."""
        return fullness(self.used_bytes, self.size_bytes)


_NAMES = {
    "user_name": func.coalesce(users.c.name, volumes.c.user_name).label("user_name"),
    "server_name": func.coalesce(servers.c.name, volumes.c.server_name).label("server_name"),
}
_SELECT = (
    select(*(_NAMES.get(column.name, column) for column in volumes.c))
    .outerjoin(users, users.c.id == volumes.c.user_id)
    .outerjoin(servers, servers.c.id == volumes.c.server_id)
)
"""People and servers as they are called now; those that are no more, as they were called last."""


def insert_volume(connection: Connection, volume: Volume) -> Volume:
    """Write a new row; returns the volume with its id."""
    values = {column.name: getattr(volume, column.name) for column in volumes.c}
    del values["id"]
    row = connection.execute(insert(volumes).values(**values).returning(*volumes.c)).mappings()
    return _volume(row.one())


def change_volume(connection: Connection, volume_id: int, **values: Any) -> None:
    """Write columns of a volume."""
    connection.execute(update(volumes).where(volumes.c.id == volume_id).values(**values))


def begin_removal(connection: Connection, volume_id: int, now: datetime) -> bool:
    """Mark a volume that is due as being removed; False if it was had back meanwhile."""
    statement = update(volumes).where(
        volumes.c.id == volume_id, volumes.c.removing_at.is_(None), volumes.c.delete_after <= now
    )
    return connection.execute(statement.values(removing_at=now)).rowcount > 0


def take_back(connection: Connection, volume_id: int, **values: Any) -> bool:
    """Undo a deletion and write columns; False, and nothing done, if it is being removed."""
    statement = update(volumes).where(volumes.c.id == volume_id, volumes.c.removing_at.is_(None))
    return connection.execute(statement.values(delete_after=None, **values)).rowcount > 0


def remember_names(connection: Connection, user_id: int) -> None:
    """Write down what an owner and the servers are called, for when they are no more."""
    for volume in list_volumes(connection, user_id=user_id):
        names = {"user_name": volume.user_name, "server_name": volume.server_name}
        change_volume(connection, volume.id, **names)


def find_volume(connection: Connection, name: str) -> Volume | None:
    """Return the volume of a platform name, also one that is gone."""
    row = connection.execute(_SELECT.where(volumes.c.name == name)).mappings().first()
    return _volume(row) if row else None


def find_attached(
    connection: Connection, *, spawner: str, kind: Kept, user_id: int, server_id: int
) -> Volume | None:
    """Return the volume that a start uses: the server's own, or the person's."""
    of_server = volumes.c.server_id == server_id
    query = _SELECT.where(
        volumes.c.attached,
        volumes.c.spawner == spawner,
        volumes.c.kind == kind,
        volumes.c.user_id == user_id,
        *([of_server] if kind is Kept.SERVER else []),
    )
    row = connection.execute(query).mappings().first()
    return _volume(row) if row else None


def list_volumes(
    connection: Connection,
    *,
    user_id: int | None = None,
    server_id: int | None = None,
    spawner: str | None = None,
) -> Sequence[Volume]:
    """Return the volumes that are not gone, of one person, server or platform or of all."""
    query = _SELECT.where(volumes.c.deleted_at.is_(None))
    given = {"user_id": user_id, "server_id": server_id, "spawner": spawner}
    for column, value in given.items():
        if value is not None:
            query = query.where(volumes.c[column] == value)
    query = query.order_by(_NAMES["user_name"], volumes.c.created_at, volumes.c.id)
    return [_volume(row) for row in connection.execute(query).mappings()]


def list_due(connection: Connection, spawner: str, now: datetime) -> Sequence[Volume]:
    """Return the volumes of a platform whose time to be had back is over."""
    query = _SELECT.where(
        volumes.c.spawner == spawner,
        volumes.c.deleted_at.is_(None),
        volumes.c.delete_after <= now,
    )
    return [_volume(row) for row in connection.execute(query).mappings()]


def _volume(row: Mapping[str, Any] | Any) -> Volume:
    return Volume(**{**row, "kind": Kept(row["kind"])})


# --- what no row knows ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownVolume:
    """A volume of this installation on a platform that no row knows."""

    spawner: str
    name: str
    used_bytes: int | None
    labels: Mapping[str, str] = field(default_factory=dict)
    first_seen_at: datetime


def list_unknown(connection: Connection, spawner: str | None = None) -> Sequence[UnknownVolume]:
    """Return them all, or those of one platform."""
    query = select(unknown_volumes).order_by(unknown_volumes.c.spawner, unknown_volumes.c.name)
    if spawner is not None:
        query = query.where(unknown_volumes.c.spawner == spawner)
    return [UnknownVolume(**row) for row in connection.execute(query).mappings()]


def note_unknown(connection: Connection, found: UnknownVolume) -> None:
    """Record one, and what it holds now; when it was first seen stays."""
    upsert(
        connection,
        unknown_volumes,
        key={"spawner": found.spawner, "name": found.name[:255]},
        values={
            "used_bytes": found.used_bytes,
            "labels": dict(found.labels),
            "first_seen_at": found.first_seen_at,
        },
        on_update={"used_bytes": found.used_bytes},
    )


def forget_unknown(connection: Connection, spawner: str, name: str) -> None:
    """Drop one that is gone, or known after all."""
    connection.execute(
        delete(unknown_volumes).where(
            unknown_volumes.c.spawner == spawner, unknown_volumes.c.name == name
        )
    )
