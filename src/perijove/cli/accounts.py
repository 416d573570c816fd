"""What ``perijove user``, ``token`` and ``db`` do: on the database, whether a hub runs or not."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import anyio
from sqlalchemy import Connection, select
from sqlalchemy.exc import DBAPIError

from perijove.bootstrap import prepare
from perijove.bootstrap import store_password as store
from perijove.db import schema
from perijove.db.core import Database, bound, open_database
from perijove.db.tables import users
from perijove.domain.errors import HubError, NotFound
from perijove.kit.clock import SystemClock
from perijove.services.access import caller_of_user
from perijove.services.blocking import block, unblock
from perijove.services.people import Person, clean_user_name, ensure_user, find_person
from perijove.services.tokens import NewToken, create_token
from perijove.settings import Settings

T = TypeVar("T")

_ACTOR = "command line"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user, as the list shows one."""

    name: str
    admin: bool
    blocked: bool
    created_at: datetime
    last_activity: datetime | None


def add_user(settings: Settings, name: str, *, admin: bool) -> tuple[Person, bool]:
    """Return the user of a name, made if need be, and whether it was; `admin` is only added."""
    clean = clean_user_name(name)

    def unit(connection: Connection) -> tuple[Person, bool]:
        is_new = find_person(connection, clean) is None
        return ensure_user(connection, clean, now=SystemClock().now(), admin=admin), is_new

    return _on_database(settings, lambda database: database.write(unit))


def list_users(settings: Settings) -> Sequence[Account]:
    """Return all users by name."""

    def unit(connection: Connection) -> Sequence[Account]:
        columns = (
            users.c.name,
            users.c.admin,
            users.c.blocked,
            users.c.created_at,
            users.c.last_activity,
        )
        rows = connection.execute(select(*columns).order_by(users.c.name))
        return [Account(**row) for row in rows.mappings()]

    return _on_database(settings, lambda database: database.read_long(unit))


def get_user(settings: Settings, name: str) -> Person:
    """Return a user; raises `NotFound` that says how to add one."""
    clean = clean_user_name(name)
    return _on_database(settings, lambda database: database.read(bound(_get, clean)))


def set_password(settings: Settings, name: str, password: str) -> None:
    """Set the password of a user; raises `NotFound`, or `Invalid` for one that is too weak."""
    clean = clean_user_name(name)
    _on_database(settings, lambda database: store(settings, database, clean, password))


def block_user(settings: Settings, name: str) -> int:
    """Keep a user out; returns how many servers are being ended. Raises `NotFound`."""
    clean = clean_user_name(name)

    def unit(connection: Connection) -> int:
        return block(connection, _get(connection, clean), actor=_ACTOR, now=SystemClock().now())

    return _on_database(settings, lambda database: database.write(unit))


def unblock_user(settings: Settings, name: str) -> None:
    """Let a user in again; raises `NotFound`."""
    clean = clean_user_name(name)

    def unit(connection: Connection) -> None:
        unblock(connection, _get(connection, clean), actor=_ACTOR, now=SystemClock().now())

    _on_database(settings, lambda database: database.write(unit))


def new_token(settings: Settings, name: str, wanted: NewToken) -> tuple[int, str]:
    """Make a token for a user; returns its id and its value. Raises `NotFound`, `Invalid`."""
    clean = clean_user_name(name)

    def unit(connection: Connection) -> tuple[int, str]:
        owner = caller_of_user(connection, _get(connection, clean).id)
        assert owner is not None
        return create_token(connection, owner, wanted, now=SystemClock().now())

    return _on_database(settings, lambda database: database.write(unit))


def upgrade(settings: Settings) -> tuple[str | None, str]:
    """Bring the tables to this program's version; returns the revisions before and after."""
    try:
        return schema.upgrade(prepare(settings).database_url)
    except (DBAPIError, OSError) as error:
        raise _away(error) from None


def _get(connection: Connection, name: str) -> Person:
    person = find_person(connection, name)
    if person is None:
        raise NotFound(f"no user named {name!r}; to add one: perijove user add {name}")
    return person


def _on_database(settings: Settings, work: Callable[[Database], Awaitable[T]]) -> T:
    """Run `work` on the installation's database; a hub may be running."""
    places = prepare(settings)

    async def opened() -> T:
        async with open_database(places.database_url) as database:
            return await work(database)

    try:
        schema.ensure(places.database_url)
        return anyio.run(opened)
    except (DBAPIError, OSError) as error:
        raise _away(error) from None


def _away(error: Exception) -> HubError:
    cause = error.orig if isinstance(error, DBAPIError) else error
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return HubError(f"the database cannot be used: {lines[0]}")
