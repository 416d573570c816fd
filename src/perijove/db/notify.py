"""Doorbells that reach other replicas: PostgreSQL's NOTIFY, after commit and coalesced."""

from collections.abc import Callable

import anyio
from sqlalchemy import Connection, func, make_url, select

CHANNEL = "perijove"


def notify(connection: Connection, what: str) -> None:
    """Ring `what` (``due``, ``routes``) on the other replicas when this transaction commits."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_notify(CHANNEL, what)))


async def listen(url: str, heard: Callable[[str], None]) -> None:
    """
    Call `heard` for every ring of another replica, until cancelled or the connection is lost.

    On a direct connection of its own: poolers that share connections cannot listen.
    """
    import asyncpg  # noqa: PLC0415 - an extra: who uses SQLite has no need of it

    parsed = make_url(url).set(drivername="postgresql")
    connection = await asyncpg.connect(parsed.render_as_string(hide_password=False), timeout=10)
    lost = anyio.Event()

    def hear(_connection: object, _pid: int, _channel: str, payload: object) -> None:
        heard(str(payload))

    try:
        connection.add_termination_listener(lambda _connection: lost.set())
        await connection.add_listener(CHANNEL, hear)
        heard("due")  # what was rung while nobody listened
        await lost.wait()
        raise ConnectionError("the database closed the connection that listens")
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(2):
            await connection.close()
