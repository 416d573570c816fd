"""Rows of persistent environments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from perijove.db.tables import environments, users
from perijove.domain.environments import Maker, State


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """One row, and its owner's name."""

    id: int
    user_id: int
    user_name: str
    place: str
    """On which storage: ``volume:<platform name>`` or ``homes:<name>``."""
    name: str
    maker: Maker
    packages: Sequence[str] = ()
    """What was asked for."""
    lock: str = ""
    """What is in it, exactly; empty until it was built once."""
    is_locked: bool = False
    """It is not to be changed: made and made again from its lock."""
    is_wanted: bool = True
    revision: int = 1
    state: State = State.WANTED
    error: str = ""
    size_bytes: int | None = None
    shared: Sequence[str] = field(default_factory=tuple)
    """Groups whose members see it and may make their own of it."""
    created_at: datetime
    changed_at: datetime
    seen_at: datetime | None = None
    """When a session last spoke of it."""


_COLUMNS = [*environments.c, users.c.name.label("user_name")]
_FROM = environments.join(users, users.c.id == environments.c.user_id)


def list_of(connection: Connection, user_id: int, *, place: str | None = None) -> list[Environment]:
    """Return a person's environments, all or those at one place, by name."""
    query = select(*_COLUMNS).select_from(_FROM).where(environments.c.user_id == user_id)
    if place is not None:
        query = query.where(environments.c.place == place)
    ordered = query.order_by(environments.c.name, environments.c.place)
    return [_environment(row) for row in connection.execute(ordered).mappings()]


def list_shared(connection: Connection, *, limit: int = 1000) -> list[Environment]:
    """Return what anybody shares and is built, newest first."""
    query = (
        select(*_COLUMNS)
        .select_from(_FROM)
        .where(environments.c.is_shared, environments.c.is_wanted, environments.c.lock != "")
        .order_by(environments.c.changed_at.desc())
        .limit(limit)
    )
    return [_environment(row) for row in connection.execute(query).mappings()]


def find(connection: Connection, id_: int) -> Environment | None:
    """Return one, if it is there."""
    query = select(*_COLUMNS).select_from(_FROM).where(environments.c.id == id_)
    row = connection.execute(query).mappings().first()
    return _environment(row) if row else None


def add(connection: Connection, **values: Any) -> int:
    """Insert a row and return its id."""
    shared = list(values.get("shared", ()))
    result = connection.execute(
        insert(environments).values(**{**values, "shared": shared, "is_shared": bool(shared)})
    )
    key = result.inserted_primary_key
    assert key is not None
    return int(key[0])


def change(connection: Connection, id_: int, **values: Any) -> None:
    """Write some columns."""
    if "shared" in values:
        values["shared"] = list(values["shared"])
        values["is_shared"] = bool(values["shared"])
    connection.execute(update(environments).where(environments.c.id == id_).values(**values))


def remove(connection: Connection, id_: int) -> None:
    """Forget one."""
    connection.execute(delete(environments).where(environments.c.id == id_))


def remove_place(connection: Connection, place: str) -> None:
    """Forget all at one place."""
    connection.execute(delete(environments).where(environments.c.place == place))


def _environment(row: Mapping[Any, Any]) -> Environment:
    values = {name: row[name] for name in Environment.__dataclass_fields__}
    values |= {"state": State(values["state"]), "maker": Maker(values["maker"])}
    return Environment(**values)
