"""A database with what is offered in it, for the tests of admission and profiles."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Insert, insert, select

from perijove.db.core import Database, open_database, sync_engine
from perijove.db.tables import group_members, groups, launches, metadata, servers, users
from perijove.kit.ids import new_id
from perijove.services.admission import Admission
from perijove.services.offers import PolicySection, ProfileSection
from perijove.services.profiles import load_offers

NOW = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)
GIB = 2**30


def new_database(url: str) -> Database:
    """Return a database with empty tables, to be entered on an event loop."""
    engine = sync_engine(url)
    metadata.create_all(engine)
    engine.dispose()
    return open_database(url)


def make_user(
    connection: Connection, name: str, *, blocked: bool = False, of: Sequence[str] = ()
) -> int:
    """Insert a user who is in the groups `of`; returns the id."""
    made = insert(users).values(name=name, created_at=NOW, blocked=blocked)
    user_id = _insert(connection, made)
    for group in of:
        group_id = connection.scalar(select(groups.c.id).where(groups.c.name == group))
        if group_id is None:
            made = insert(groups).values(name=group, created_at=NOW)
            group_id = _insert(connection, made)
        connection.execute(insert(group_members).values(group_id=group_id, user_id=user_id))
    return user_id


def make_server(connection: Connection, user_id: int, name: str, user_options: Any = None) -> int:
    """Insert a server; returns the id."""
    made = insert(servers).values(
        user_id=user_id, name=name, display_name=name, created_at=NOW, user_options=user_options
    )
    return _insert(connection, made)


def _insert(connection: Connection, statement: Insert) -> int:
    key = connection.execute(statement).inserted_primary_key
    assert key is not None
    return int(key[0])


def make_launch(
    connection: Connection,
    user_id: int,
    server_id: int | None,
    admission: Admission | None = None,
    **values: Any,
) -> str:
    """Insert a launch that is on its way; returns the id."""
    id = new_id("lch")
    row = {
        "id": id,
        "kind": "server",
        "wanted": "run",
        "status": "requested",
        "name": id,
        "spawner": "local",
        "user_id": user_id,
        "user_name": "",
        "server_id": server_id,
        "server_name": "",
        "generation": 1,
        "spec": admission.spec() if admission else {},
        "requested_at": NOW,
    }
    connection.execute(insert(launches).values(**{**row, **values}))
    return id


def load(
    connection: Connection,
    *,
    profiles: Sequence[dict[str, Any]] = (),
    policies: Sequence[dict[str, Any]] = (),
    spawners: Sequence[str] = ("local",),
) -> None:
    """Load a configuration's profiles and policies."""
    load_offers(
        connection,
        profiles=[ProfileSection.model_validate(each) for each in profiles],
        policies=[PolicySection.model_validate(each) for each in policies],
        spawners=spawners,
        now=NOW,
    )
