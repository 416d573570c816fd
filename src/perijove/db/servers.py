"""The server table: names that point to at most one live launch."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from perijove.db.prepared import Statement
from perijove.db.tables import servers


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One user's server, named or default (name ``""``)."""

    id: int
    user_id: int
    name: str
    display_name: str
    created_at: datetime
    last_activity: datetime | None
    user_options: Mapping[str, Any] | None
    launch_id: str | None
    remove: bool


_BY_NAME = Statement(
    select(servers).where(
        servers.c.user_id == bindparam("the_user"), servers.c.name == bindparam("the_name")
    )
)
_ADD = Statement(insert(servers).returning(*servers.c))
_CHANGE = Statement(update(servers).where(servers.c.id == bindparam("the_id")))
_REMOVE_IF_ASKED = Statement(
    delete(servers).where(servers.c.id == bindparam("the_id"), servers.c.remove)
)


def find_server(connection: Connection, user_id: int, name: str) -> Server | None:
    """Return a user's server by name."""
    row = _BY_NAME.first(connection, {"the_user": user_id, "the_name": name})
    return Server(**row) if row else None


def ensure_server(
    connection: Connection, user_id: int, name: str, *, now: datetime, display_name: str = ""
) -> Server:
    """Return a user's server, making its row if need be."""
    found = find_server(connection, user_id, name)
    if found is not None:
        return found
    values = {
        "user_id": user_id,
        "name": name,
        "display_name": display_name or name,
        "created_at": now,
        "remove": False,
    }
    (row,) = _ADD.rows(connection, values)
    return Server(**row)


def change_server(connection: Connection, server_id: int, **values: Any) -> None:
    """Write columns of a server."""
    _CHANGE.run(connection, {**values, "the_id": server_id})


def remove_if_asked(connection: Connection, server_id: int) -> bool:
    """Delete the row of a server whose removal was asked for; True when it was."""
    return _REMOVE_IF_ASKED.run(connection, {"the_id": server_id}) > 0


def delete_server(connection: Connection, server_id: int) -> None:
    """Delete the row of a server; its launches stay as a record of use."""
    connection.execute(delete(servers).where(servers.c.id == server_id))
