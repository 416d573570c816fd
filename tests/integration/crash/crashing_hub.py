"""
A hub that kills itself at a chosen commit of a launch's life.

``python -m tests.integration.crash.crashing_hub DATA_DIR DATABASE_URL GOAL POINT``

Asks for the server of `ann`, as a person would who tries again after a failure, until it is
ready (GOAL ``ready``), and then for its end (GOAL ``ended``). POINT is ``none``, or for example
``after:2:NAME``: SIGKILL right after (or ``before``) the second commit of that name. Prints one
JSON line per commit, ``{"commit": name}``, and at the end ``{"launch": …}``.
"""

import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Self, TypeVar

import anyio

from perijove.bootstrap import Running, running
from perijove.db.core import Database, Work, bound, open_database
from perijove.db.launches import get_launch
from perijove.domain.launch import Launch, Status
from perijove.kit.logs import configure
from perijove.kit.loops import until
from perijove.services.hub import Hub
from perijove.services.launches import Asking, request_start, request_stop
from perijove.services.people import ensure_user
from perijove.settings import Settings, load
from tests.hubs import proxy_worker

T = TypeVar("T")

PROGRAM = Path(__file__).parents[2] / "contract/spawners/program.py"
SHELL = Path(__file__).with_name("count_and_serve.py")

BACKGROUND = frozenset(
    {
        "Housekeeper.beat.<locals>.unit",
        "Housekeeper.purge.<locals>.unit",
        "Housekeeper.check_routes.<locals>.unit",
        "Observer._note_silence",
        "take_lease",
        "note_worker",
        "release",
        "renew",
        "_fixed_routes.<locals>.unit",
        "_first_rows.<locals>.unit",
        "_write_seen",
        "ensure_first_admin.<locals>.unit",
        "make_signin_link.<locals>.unit",
        "ask.<locals>.unit",
    }
)
"""Commits that are not of a launch's life: nothing about one can be lost with them."""


class CrashingDatabase:
    """A database that ends the process at a chosen commit of a launch's life."""

    def __init__(self, inner: Database, point: str) -> None:
        self._inner = inner
        self.url = inner.url
        self.dialect = inner.dialect
        self._point = point
        self._done: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        """Open the database within."""
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close the database within."""
        await self._inner.__aexit__(*exc)

    async def read(self, work: Work[T]) -> T:
        """Read within."""
        return await self._inner.read(work)

    async def read_long(self, work: Work[T]) -> T:
        """Read within."""
        return await self._inner.read_long(work)

    async def write(self, work: Work[T]) -> T:
        """Write within, and die where it was said."""
        name = work.__qualname__
        if name in BACKGROUND:
            return await self._inner.write(work)
        self._done[name] += 1
        commit = f"{self._done[name]}:{name}"
        self._die_at(f"before:{commit}")
        result = await self._inner.write(work)
        say(commit=name)
        self._die_at(f"after:{commit}")
        return result

    def _die_at(self, point: str) -> None:
        if point == self._point:
            os.kill(os.getpid(), signal.SIGKILL)


def say(**fact: Any) -> None:
    """Print a fact at once."""
    os.write(1, json.dumps(fact).encode() + b"\n")


async def ask(hub: Hub, goal: str) -> Launch:
    """Ask for the server, and for its end, and wait for the goal."""

    def unit(connection: Any) -> int:
        return ensure_user(connection, "ann", now=hub.clock.now()).id

    user_id = await hub.database.write(unit)
    asking = Asking(actor="ann")
    launch = await request_start(hub, user_id=user_id, server_name="", asking=asking)
    await _until(hub, launch, Status.READY)
    if goal == "ended":
        await request_stop(hub, user_id=user_id, server_name="", asking=asking)
        await _until(hub, launch, Status.ENDED)
    return await hub.database.read(bound(get_launch, launch.id))


async def _until(hub: Hub, launch: Launch, status: Status) -> None:
    async def check() -> bool:
        now = await hub.database.read(bound(get_launch, launch.id))
        return now.status in (status, Status.ENDED)

    if not await until(check, seconds=40):
        now = await hub.database.read(bound(get_launch, launch.id))
        raise AssertionError(f"waited for {status}: {now}")


def settings_of(data_dir: str, database_url: str) -> Settings:
    """Return the configuration: the local spawner, with a small server that counts its starts."""
    spawner = {
        "kind": "local",
        "command": [sys.executable, str(SHELL), str(Path(data_dir) / "starts"), str(PROGRAM)],
        "survey_period": 0.2,
        "stop_grace": 3,
    }
    return load(
        None,
        {},
        {
            "hub": {"data_dir": data_dir, "database": database_url, "log_level": "error"},
            "spawners": {"local": spawner},
            "lifecycle": {"takeover": "2 s"},
        },
    )


async def main(data_dir: str, database_url: str, goal: str, point: str) -> None:
    """Run the hub until the goal is reached, or it is dead."""

    def open_state(url: str) -> Database:
        return CrashingDatabase(open_database(url), point)

    settings = settings_of(data_dir, database_url)
    async with running(settings, {}, open_state=open_state) as found:
        await _work(found, goal)


async def _work(found: Running, goal: str) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(proxy_worker, found.hub)
        launch = await ask(found.hub, goal)
        say(launch=launch.id, name=launch.name, status=str(launch.status), end=str(launch.end))
        tasks.cancel_scope.cancel()


if __name__ == "__main__":
    configure(style="json", level="warning")
    _, data_dir, database_url, goal, point = sys.argv
    anyio.run(main, data_dir, database_url, goal, point)
