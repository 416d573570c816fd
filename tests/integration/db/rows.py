"""Rows that tests of the tables need, made as the program makes them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from perijove.db import launches
from perijove.db.servers import ensure_server
from perijove.domain.launch import Kind, Launch, Status, Wanted
from perijove.kit.ids import new_id, platform_name
from perijove.services.people import ensure_user

NOW = datetime(2020, 11, 20, 12, tzinfo=UTC)


def insert_launch(
    connection: Connection,
    *,
    user: str | None = None,
    server: str = "",
    spawner: str = "memory",
    asked: float = 0,
    after: str | None = None,
) -> Launch:
    """Insert a launch that was admitted `asked` seconds after `NOW`, of a new user by default."""
    name = user or new_id("user")
    user_id = ensure_user(connection, name, now=NOW).id
    server_id = ensure_server(connection, user_id, server, now=NOW).id
    launch = Launch(
        id=new_id("lch"),
        kind=Kind.SERVER,
        wanted=Wanted.RUN,
        status=Status.REQUESTED,
        name=platform_name("test"),
        spawner=spawner,
        user_id=user_id,
        user_name=name,
        server_id=server_id,
        server_name=server,
        generation=1,
        spec={"profile": {"name": "small"}},
        after=after,
        requested_at=NOW + timedelta(seconds=asked),
    )
    launches.insert_launch(connection, launch)
    return launches.get_launch(connection, launch.id)


def bring(connection: Connection, launch: Launch, *statuses: Status, **values: Any) -> Launch:
    """Take a launch through statuses, one after the other."""
    for status in statuses:
        launch = launches.change(connection, launch, now=NOW, status=status, **values)
    return launch
