"""A hub to sign in to: rows, a clock that the test moves, cheap hashes, no loops, no spawners."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio.to_thread
from argon2 import PasswordHasher
from sqlalchemy import Connection, func, insert, select, update

from perijove.auth.contract import Authenticator, PasswordStore
from perijove.auth.demo import DemoAuthenticator, DemoSettings
from perijove.auth.native import NativeAuthenticator, NativeSettings
from perijove.db import schema
from perijove.db.core import open_database
from perijove.db.tables import audit_events, launches, users
from perijove.kit.keyring import Keyring
from perijove.services import roles
from perijove.services.hub import Hub
from perijove.services.people import StoredPasswords, ensure_user
from perijove.services.sections import HubSection, LifecycleSection
from perijove.services.sessions import Opened, SigningIn, Visitor, open_session

CHEAP = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
"""Hashes in no time: nothing in these tests is worth stealing."""
HERE = Visitor(address="192.0.2.7", device="Firefox")
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


class SetClock:
    """A clock that stands still until it is moved."""

    def __init__(self, at: datetime = NOON) -> None:
        self.at = at

    def now(self) -> datetime:
        """Return the instant it stands at."""
        return self.at

    def move(self, **by: float) -> None:
        """Move it on."""
        self.at += timedelta(**by)


def native(passwords: PasswordStore, **settings: Any) -> NativeAuthenticator:
    """Return a native authenticator with cheap hashes."""
    return NativeAuthenticator(
        NativeSettings(**settings), name="native", passwords=passwords, hasher=CHEAP
    )


def demo(passwords: PasswordStore, *, name: str = "demo", **settings: Any) -> DemoAuthenticator:
    """Return a demo authenticator; other names stand for other authenticators."""
    return DemoAuthenticator(DemoSettings(**settings), name=name, passwords=passwords)


@asynccontextmanager
async def signin_hub(
    database_url: str,
    *,
    doors: tuple[str, ...] = ("native",),
    settings: Mapping[str, Any] | None = None,
    clock: SetClock | None = None,
    more: Mapping[str, Authenticator] | None = None,
) -> AsyncIterator[Hub]:
    """
    Open a hub whose authenticators are `doors`, in this order, and then `more`.

    All doors but `native` are demos.
    """
    clock = clock or SetClock()
    section = HubSection(**(settings or {}))
    await anyio.to_thread.run_sync(schema.ensure, database_url)
    async with open_database(database_url) as database:
        passwords = StoredPasswords(database, clock)
        authenticators: dict[str, Authenticator] = {
            name: native(passwords) if name == "native" else demo(passwords, name=name)
            for name in doors
        } | dict(more or {})

        def first_rows(connection: Connection) -> None:
            roles.load(connection, section, now=clock.now())

        await database.write(first_rows)
        yield Hub(
            database=database,
            clock=clock,
            keyring=Keyring({"old": b"o" * 32, "new": b"n" * 32}),
            installation="test",
            settings=section,
            lifecycle=LifecycleSection(),
            api_url="http://127.0.0.1:8081/hub/api",
            authenticators=authenticators,
        )


async def make_user(hub: Hub, name: str, *, admin: bool = False, blocked: bool = False) -> int:
    """Make a user as an administrator does; returns the id."""

    def unit(connection: Connection) -> int:
        person = ensure_user(connection, name, now=hub.clock.now(), admin=admin)
        connection.execute(update(users).where(users.c.id == person.id).values(blocked=blocked))
        return person.id

    return await hub.database.write(unit)


async def open_for(hub: Hub, name: str, visitor: Visitor = HERE) -> Opened:
    """Sign a user in without asking for anything; makes the user if need be."""
    user_id = await make_user(hub, name)

    def unit(connection: Connection) -> Opened:
        signing_in = SigningIn(
            user_id=user_id, user_name=name, authenticator="native", visitor=visitor
        )
        return open_session(
            connection, signing_in, now=hub.clock.now(), lifetime=hub.settings.session_lifetime
        )

    return await hub.database.write(unit)


async def make_launch(
    hub: Hub, launch_id: str, owner: str, server: str = "", *, generation: int = 1
) -> None:
    """Insert the row of a running launch of a user's server."""
    user_id = await make_user(hub, owner)

    def unit(connection: Connection) -> None:
        connection.execute(
            insert(launches).values(
                id=launch_id,
                kind="server",
                wanted="run",
                status="ready",
                name=f"pj-test-{launch_id}",
                spawner="memory",
                user_id=user_id,
                user_name=owner,
                server_name=server,
                generation=generation,
                spec={},
                requested_at=hub.clock.now(),
            )
        )

    await hub.database.write(unit)


async def audited(hub: Hub) -> list[tuple[str, str, str]]:
    """Return (action, actor, target) of the audit trail, the oldest first."""

    def unit(connection: Connection) -> list[tuple[str, str, str]]:
        columns = (audit_events.c.action, audit_events.c.actor, audit_events.c.target)
        rows = connection.execute(select(*columns).order_by(audit_events.c.id))
        return [(row.action, row.actor, row.target) for row in rows]

    return await hub.database.read(unit)


async def count(hub: Hub, table: Any) -> int:
    """Return how many rows a table has."""

    def unit(connection: Connection) -> int:
        return connection.scalar(select(func.count()).select_from(table)) or 0

    return await hub.database.read(unit)
