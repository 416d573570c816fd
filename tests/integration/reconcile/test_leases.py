"""Who holds a launch while its step runs, and what becomes of a lease that nobody gave back."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import Connection, update

from perijove.db.core import Database, Work, database_now
from perijove.db.tables import launches
from perijove.domain.launch import Status
from perijove.kit.loops import until
from perijove.reconcile.launches import LaunchLoop, run_launches
from perijove.spawners.contract import Checkpoint, LaunchSpec, Sighting, Spawner
from tests.fakes.spawners import MemoryPlatform, Wrapper
from tests.hubs import PATIENCE, answering_server, running_hub

pytestmark = pytest.mark.anyio


class ReleaseFails:
    """A database that is away when the first lease is given back."""

    def __init__(self, inner: Database) -> None:
        self._inner = inner
        self.has_failed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def write(self, work: Work[Any]) -> Any:
        """Write, but for the one unit."""
        if work.__qualname__ == "release" and not self.has_failed:
            self.has_failed = True
            raise ConnectionError("the database went away, on purpose")
        return await self._inner.write(work)


class Hangs(Wrapper):
    """Takes for ever to start what a user called bob asks for."""

    def __init__(self, inner: Spawner) -> None:
        super().__init__(inner)
        self.starts = 0

    async def start(self, spec: LaunchSpec, checkpoint: Checkpoint) -> Sighting:
        """Start within, or hang."""
        if spec.user_name == "bob":
            self.starts += 1
            await anyio.sleep_forever()
        return await super().start(spec, checkpoint)


async def test_a_lease_that_could_not_be_given_back_runs_out(
    database_url: str, tmp_path: Path
) -> None:
    """Though the hub is busy all the while: it holds on to nothing but what it works on."""
    async with (
        answering_server() as server,
        running_hub(
            database_url,
            tmp_path,
            platform=MemoryPlatform(url=server.url),
            wrap=Hangs,
            lifecycle={"takeover": "1 s"},
            loops=False,
        ) as hub,
    ):
        database = ReleaseFails(hub.hub.database)
        broken = replace(hub.hub, database=database)
        hub.tasks.start_soon(run_launches, broken, hub.prober)
        await hub.start("bob")
        launch = await hub.becomes(await hub.start("ann"), Status.READY)
        assert await until(_says(lambda: database.has_failed), seconds=PATIENCE)

        await hub.stop("ann")

        await hub.becomes(launch, Status.ENDED)


async def test_a_hub_does_not_step_one_launch_twice_at_once(
    database_url: str, tmp_path: Path
) -> None:
    """A lease that ran out, because the database was slow, is renewed and not claimed anew."""
    async with running_hub(
        database_url, tmp_path, wrap=Hangs, loops=False, with_proxy=False
    ) as hub:
        loop = LaunchLoop(hub.hub, hub.prober)
        await hub.start("bob")
        async with anyio.create_task_group() as tasks:
            await loop.pass_once(tasks)
            assert await until(_says(lambda: hub.spawner.starts == 1), seconds=PATIENCE)

            await hub.hub.database.write(_run_out)
            await loop.pass_once(tasks)
            await anyio.wait_all_tasks_blocked()
            (held,) = await hub.hub.database.read(_held)
            assert not held, "claimed, although its step is under way"

            await loop.renew()
            (held,) = await hub.hub.database.read(_held)
            tasks.cancel_scope.cancel()
        assert hub.spawner.starts == 1
        assert held


def _says(check: Callable[[], bool]) -> Any:
    async def said() -> bool:
        return check()

    return said


def _run_out(connection: Connection) -> None:
    ago = database_now(connection) - timedelta(seconds=1)
    connection.execute(update(launches).values(lease_until=ago))


def _held(connection: Connection) -> list[bool]:
    now = database_now(connection)
    rows = connection.execute(launches.select()).mappings()
    return [row["lease_until"] is not None and row["lease_until"] > now for row in rows]
