"""Who is ended for lack of use or over age, who is not, and what a deaf hub may conclude."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import Connection, delete, update

from perijove.db.tables import launches, leases
from perijove.domain.launch import Cause, Launch, Status, Wanted
from perijove.reconcile.cull import Culler
from perijove.reconcile.housekeeping import Housekeeper
from perijove.services.offers import PolicySection, ProfileSection
from perijove.spawners.contract import Handle
from tests.fakes.spawners import MemoryPlatform, Wrapper
from tests.hubs import AnsweringServer, ShiftedClock, TestHub, answering_server
from tests.hubs import running_hub as _running_hub

pytestmark = pytest.mark.anyio

IDLE = [PolicySection(idle_timeout="30 min")]


def running_hub(url: str, directory: Path, server: AnsweringServer, **given: Any) -> Any:
    """Run a hub with a shifted clock whose servers are all `server`."""
    platform = MemoryPlatform(url=server.url)
    return _running_hub(url, directory, platform=platform, clock=ShiftedClock(), **given)


async def advance(hub: TestHub, by: timedelta) -> None:
    """Let time go by for a hub that runs all the while."""
    clock = hub.hub.clock
    assert isinstance(clock, ShiftedClock)
    housekeeper = Housekeeper(hub.hub)
    await housekeeper.beat()  # The hub's own may be ten seconds old: with ours it would be deaf.
    while by > timedelta(0):
        clock.shift(min(by, timedelta(seconds=50)))
        by -= timedelta(seconds=50)
        await housekeeper.beat()


async def cull(hub: TestHub) -> None:
    """Run the culler once, although the hub's own loop holds its lease."""
    await hub.hub.database.write(lambda connection: connection.execute(delete(leases)))
    await Culler(hub.hub, hub.prober).cull()


async def ready(hub: TestHub) -> Launch:
    """Start a server and wait until it is ready."""
    return await hub.becomes(await hub.start(), Status.READY)


def kernels(state: str, last_activity: str = "2026-01-01T00:00:00Z") -> bytes:
    """Return the answer of ``api/kernels`` with one kernel."""
    return json.dumps([{"execution_state": state, "last_activity": last_activity}]).encode()


async def test_idle_server_ends_with_cause_idle(database_url: str, tmp_path: Path) -> None:
    """A server unused for its limit is asked, and then ended with cause idle."""
    async with (
        answering_server(b"[]") as server,
        running_hub(database_url, tmp_path, server, policies=IDLE) as hub,
    ):
        launch = await ready(hub)
        await advance(hub, timedelta(minutes=29))
        await cull(hub)
        assert (await hub.launch(launch.id)).wanted is Wanted.RUN

        await advance(hub, timedelta(minutes=2))
        await cull(hub)
        ended = await hub.becomes(launch, Status.ENDED)

        assert ended.end is not None
        assert ended.end.cause is Cause.IDLE
        assert "/user/ann/api/kernels" in server.asked
        assert server.authorised[0].startswith("Authorization: token ")


async def test_busy_kernel_keeps_a_server_up_to_a_limit(database_url: str, tmp_path: Path) -> None:
    """A busy kernel counts as use, until `max_busy` has passed."""
    async with (
        answering_server(b"[]") as server,
        running_hub(
            database_url, tmp_path, server, policies=IDLE, lifecycle={"max_busy": "2 h"}
        ) as hub,
    ):
        server.replies["api/kernels"] = kernels("busy")
        launch = await ready(hub)

        await advance(hub, timedelta(minutes=90))
        await cull(hub)
        assert (await hub.launch(launch.id)).wanted is Wanted.RUN

        await advance(hub, timedelta(minutes=40))
        await cull(hub)
        assert (await hub.launch(launch.id)).wanted is Wanted.END


async def test_what_the_server_says_counts_as_activity(database_url: str, tmp_path: Path) -> None:
    """A terminal used lately keeps the server, and is remembered as its activity."""
    async with (
        answering_server(b"[]") as server,
        running_hub(database_url, tmp_path, server, policies=IDLE) as hub,
    ):
        launch = await ready(hub)
        await advance(hub, timedelta(minutes=40))
        lately = hub.hub.clock.now() - timedelta(minutes=5)
        server.replies["api/terminals"] = json.dumps(
            [{"name": "1", "last_activity": lately.isoformat()}]
        ).encode()
        await cull(hub)

        now = await hub.launch(launch.id)
        assert now.wanted is Wanted.RUN
        assert now.last_activity == lately


async def test_silent_server_is_left_alone_for_a_while(database_url: str, tmp_path: Path) -> None:
    """An idle server that does not answer is ended only long after its limit."""
    async with (
        answering_server(b"[]") as server,
        running_hub(database_url, tmp_path, server, policies=IDLE) as hub,
    ):
        launch = await ready(hub)
        server.silent = True
        await advance(hub, timedelta(minutes=40))
        await cull(hub)
        assert (await hub.launch(launch.id)).wanted is Wanted.RUN

        await advance(hub, timedelta(minutes=25))
        await cull(hub)
        assert (await hub.launch(launch.id)).wanted is Wanted.END


async def test_old_server_ends_although_it_is_used(database_url: str, tmp_path: Path) -> None:
    """A server over its maximum age ends with that cause, busy or not."""
    async with (
        answering_server(kernels("busy")) as server,
        running_hub(database_url, tmp_path, server, policies=[PolicySection(max_age="1 h")]) as hub,
    ):
        launch = await ready(hub)
        await advance(hub, timedelta(minutes=61))
        await cull(hub)

        ended = await hub.becomes(launch, Status.ENDED)
        assert ended.end is not None
        assert ended.end.cause is Cause.MAX_AGE


async def test_nobody_is_culled_for_what_a_deaf_hub_could_not_hear(
    database_url: str, tmp_path: Path
) -> None:
    """After an absence longer than every limit no server ends before two reporting periods."""
    policies = [PolicySection(idle_timeout="30 min", max_age="1 h")]
    profiles = [ProfileSection(name="timed", time="45 min")]
    async with (
        answering_server(b"[]") as server,
        running_hub(
            database_url, tmp_path, server, policies=policies, profile_sections=profiles
        ) as hub,
    ):
        launch = await ready(hub)
        clock = hub.hub.clock
        assert isinstance(clock, ShiftedClock)
        clock.shift(timedelta(hours=5))
        await Housekeeper(hub.hub).beat()

        await cull(hub)
        await advance(hub, timedelta(minutes=9))
        await cull(hub)
        hub.hub.due.ring()
        await anyio.wait_all_tasks_blocked()
        assert (await hub.launch(launch.id)).wanted is Wanted.RUN

        await advance(hub, timedelta(minutes=2))
        await cull(hub)
        assert (await hub.launch(launch.id)).wanted is Wanted.END


async def test_start_that_a_deaf_hub_missed_is_not_timed_out(
    database_url: str, tmp_path: Path
) -> None:
    """A launch that was connecting when the hub went away has its full limit again afterwards."""
    async with (
        answering_server(status=b"503 Away") as server,
        running_hub(database_url, tmp_path, server, spawner={"connect_limit": 30}) as hub,
    ):
        launch = await hub.becomes(await hub.start(), Status.CONNECTING)
        clock = hub.hub.clock
        assert isinstance(clock, ShiftedClock)
        clock.shift(timedelta(hours=5))
        await Housekeeper(hub.hub).beat()
        server.status = b"200 OK"

        await hub.becomes(launch, Status.READY)


async def test_wall_time_ends_a_server_with_that_cause(database_url: str, tmp_path: Path) -> None:
    """A server whose own time is over ends with cause walltime."""
    async with (
        answering_server(b"[]") as server,
        running_hub(
            database_url,
            tmp_path,
            server,
            profile_sections=[ProfileSection(name="timed", time="10 min")],
        ) as hub,
    ):
        launch = await ready(hub)
        await advance(hub, timedelta(minutes=9))
        assert (await hub.launch(launch.id)).wanted is Wanted.RUN
        await advance(hub, timedelta(minutes=2))
        hub.hub.due.ring()

        ended = await hub.becomes(launch, Status.ENDED)
        assert ended.end is not None
        assert ended.end.cause is Cause.WALLTIME


async def test_use_during_the_question_keeps_the_server(database_url: str, tmp_path: Path) -> None:
    """A server used between the question and the answer is not ended."""
    async with (
        answering_server(b"[]") as server,
        running_hub(database_url, tmp_path, server, policies=IDLE) as hub,
    ):
        launch = await ready(hub)
        await advance(hub, timedelta(minutes=40))
        culler = Culler(hub.hub, hub.prober)
        overdue = await hub.hub.database.read_long(culler._list_overdue)

        def use(connection: Connection) -> None:
            now = hub.hub.clock.now()
            connection.execute(
                update(launches).where(launches.c.id == launch.id).values(last_activity=now)
            )

        await hub.hub.database.write(use)
        await hub.hub.database.write(lambda connection: culler._end(connection, overdue[0]))

        assert (await hub.launch(launch.id)).wanted is Wanted.RUN


class SharesAddresses(Wrapper):
    """A platform where another may listen at a launch's address, once it has died."""

    is_owned = True

    async def owns_listener(self, name: str, handle: Handle | None, url: str) -> bool | None:
        """Say what the test wishes."""
        await anyio.lowlevel.checkpoint()
        return self.is_owned


async def test_a_stranger_at_the_address_is_not_shown_the_token(
    database_url: str, tmp_path: Path
) -> None:
    """An idle server that is gone, and whose port another took, is not asked but left alone."""
    async with (
        answering_server(b"[]") as server,
        running_hub(database_url, tmp_path, server, policies=IDLE, wrap=SharesAddresses) as hub,
    ):
        launch = await ready(hub)
        hub.spawner.is_owned = False
        await advance(hub, timedelta(minutes=31))
        await cull(hub)

        assert server.authorised == []
        assert (await hub.launch(launch.id)).wanted is Wanted.RUN
