"""Servers as names: made, described and renamed by their owners, whatever runs behind them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from perijove.db.servers import change_server, ensure_server, find_server
from perijove.domain.errors import Conflict, Invalid, NotFound
from perijove.domain.names import check_display_name
from perijove.services.admission import admit_server
from perijove.services.profiles import read_user_options
from perijove.services.users import UserRow, hold_by_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What is said of a server; None leaves it as it is."""

    name: str | None = None
    display_name: str | None = None
    user_options: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Raise `Invalid` for what no server can be."""
        if self.display_name is not None:
            object.__setattr__(self, "display_name", check_display_name(self.display_name))
        if self.user_options is not None:
            read_user_options(self.user_options)


def create_server(
    connection: Connection, user: UserRow, name: str, said: Description, *, now: datetime
) -> None:
    """Make a named server without starting it; raises `Conflict` where it exists, and `Refused`."""
    if not name:
        raise Conflict(f"User {user.name} already has a default server", code="server-exists")
    if find_server(connection, user.id, name) is not None:
        raise Conflict(f"User {user.name} already has server {name}", code="server-exists")
    admit_server(connection, user_id=user.id, server_name=name)
    server = ensure_server(
        connection, user.id, name, now=now, display_name=said.display_name or name
    )
    if said.user_options is not None:
        change_server(connection, server.id, user_options=dict(said.user_options))


def change_description(
    connection: Connection, user: UserRow, name: str, said: Description, *, now: datetime
) -> str:
    """
    Rename or describe a server that is not active; returns its name.

    Raises `NotFound`, `Invalid` while it is active, `Conflict` for a name that is taken.
    """
    row = hold_by_name(connection, user.name).find_server(name)
    if row is None and name:
        raise NotFound(f"{user.name} has no server named {name!r}", code="server-unknown")
    if row is not None and not row.is_stopped:
        raise Invalid(
            f"{user.name}:{name} is active. Please stop it before modifying it.",
            code="server-active",
        )
    values: dict[str, Any] = {}
    if said.name is not None and said.name != name:
        _check_free(connection, user, said.name)
        values["name"] = said.name
    if said.display_name is not None:
        values["display_name"] = said.display_name
    if said.user_options is not None:
        values["user_options"] = dict(said.user_options)
    server = ensure_server(connection, user.id, name, now=now)
    if values:
        change_server(connection, server.id, **values)
    renamed: str = values.get("name", name)
    return renamed


def _check_free(connection: Connection, user: UserRow, name: str) -> None:
    if not name or find_server(connection, user.id, name) is not None:
        raise Conflict(f"User {user.name} already has server {name}", code="server-exists")
    admit_server(connection, user_id=user.id, server_name=name)
