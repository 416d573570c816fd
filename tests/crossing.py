"""Two hubs at one PostgreSQL, of which one is held in the middle of a unit of work."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from sqlalchemy import Connection, Engine, text

from perijove.db.core import sync_engine
from perijove.kit.loops import until
from tests.hubs import PATIENCE

T = TypeVar("T")

_WAITING = text(
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


async def during(
    url: str, unit: Callable[[Connection], object], act: Callable[[], Awaitable[T]]
) -> T:
    """
    Return what comes of `act`, begun when another hub has done `unit` and not committed it.

    The other commits as soon as `act` waits for it, or is over without having waited.
    """
    outcome: list[T] = []
    failure: list[Exception] = []

    async def run() -> None:
        try:
            outcome.append(await act())
        except Exception as error:  # noqa: BLE001 - raised again where it was asked for
            failure.append(error)

    engine = sync_engine(url)
    async with anyio.create_task_group() as tasks:
        with engine.begin() as other:
            unit(other)
            tasks.start_soon(run)

            async def is_time() -> bool:
                return bool(outcome or failure) or is_waited_for(engine)

            assert await until(is_time, seconds=PATIENCE)
    if failure:
        raise failure[0]
    return outcome[0]


def is_waited_for(engine: Engine) -> bool:
    """Tell whether anybody waits for somebody else's lock."""
    with engine.connect() as connection:
        return bool(connection.scalar(_WAITING))
