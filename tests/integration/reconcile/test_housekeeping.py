"""The nets under the loops: routes that differ from launches, rows that have expired."""

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, delete, insert, select

from perijove.db.installation import hearing_since
from perijove.db.routes import put_route
from perijove.db.tables import events, oauth_codes, routes, tokens
from perijove.domain.launch import Cause, End, Status
from perijove.reconcile.housekeeping import Housekeeper
from tests.fakes.spawners import MemoryPlatform
from tests.hubs import ShiftedClock, answering_server, running_hub

pytestmark = pytest.mark.anyio


async def test_routes_are_brought_in_line_with_launches(database_url: str, tmp_path: Path) -> None:
    """A route of no live launch goes away, and one that a ready launch lacks comes back."""
    async with (
        answering_server() as server,
        running_hub(database_url, tmp_path, platform=MemoryPlatform(url=server.url)) as hub,
    ):
        await hub.becomes(await hub.start(), Status.READY)

        def spoil(connection: Connection) -> None:
            connection.execute(delete(routes))
            put_route(connection, prefix="/user/gone/", target=server.url, launch_id="lch_gone")

        await hub.hub.database.write(spoil)
        await Housekeeper(hub.hub).check_routes()

        assert await hub.prefixes() == {"/user/ann/"}


async def test_what_has_expired_is_forgotten(database_url: str, tmp_path: Path) -> None:
    """Expired tokens and the events of launches that ended long ago are deleted; others stay."""
    async with (
        answering_server() as server,
        running_hub(
            database_url,
            tmp_path,
            platform=MemoryPlatform(url=server.url),
            clock=ShiftedClock(),
        ) as hub,
    ):
        launch = await hub.becomes(await hub.start(), Status.READY)
        await hub.stop()
        await hub.becomes(launch, Status.ENDED)
        user_id = await hub.user()
        clock = hub.hub.clock
        assert isinstance(clock, ShiftedClock)
        soon = clock.now() + timedelta(days=1)

        def add(connection: Connection) -> None:
            for name, expires_at in (("old", soon), ("lasting", None)):
                connection.execute(
                    insert(tokens).values(
                        hash=name,
                        scheme="random",
                        user_id=user_id,
                        scopes=["inherit"],
                        created_at=clock.now(),
                        expires_at=expires_at,
                    )
                )

        await hub.hub.database.write(add)
        clock.shift(timedelta(days=100))
        await Housekeeper(hub.hub).purge()

        def left(connection: Connection) -> tuple[list[str], int, int]:
            return (
                list(connection.scalars(select(tokens.c.hash))),
                len(connection.execute(select(events)).all()),
                len(connection.execute(select(oauth_codes)).all()),
            )

        assert await hub.hub.database.read(left) == (["lasting"], 0, 0)
        assert (await hub.launch(launch.id)).ended_at is not None


async def test_metrics_count_starts_and_stops(database_url: str, tmp_path: Path) -> None:
    """A start that succeeds, one that fails, and a stop are in the hub's metrics."""
    async with (
        answering_server() as server,
        running_hub(database_url, tmp_path, platform=MemoryPlatform(url=server.url)) as hub,
    ):
        launch = await hub.becomes(await hub.start(), Status.READY)
        await hub.stop()
        await hub.becomes(launch, Status.ENDED)
        server.status = b"503 Away"
        launch = await hub.becomes(await hub.start("bob"), Status.CONNECTING)
        hub.platform.end(launch.name, End(cause=Cause.EXITED, code=1))
        await hub.becomes(launch, Status.ENDED)

        count = hub.hub.metrics.registry.get_sample_value
        spawns = "jupyterhub_server_spawn_duration_seconds_count"
        assert count(spawns, {"status": "success", "reason": ""}) == 1
        assert count(spawns, {"status": "failure", "reason": "exited"}) == 1
        assert count("jupyterhub_server_stop_seconds_count", {"status": "success"}) == 2


async def test_heartbeat_is_written(database_url: str, tmp_path: Path) -> None:
    """A hub that runs says so, so that time without one is known."""
    async with running_hub(database_url, tmp_path, clock=ShiftedClock()) as hub:
        before = await hub.hub.database.read(hearing_since)
        clock = hub.hub.clock
        assert isinstance(clock, ShiftedClock)
        clock.shift(timedelta(hours=1))
        await Housekeeper(hub.hub).beat()

        assert await hub.hub.database.read(hearing_since) > before
