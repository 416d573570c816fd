"""Blocking an account while it has things."""

from pathlib import Path

import pytest
from sqlalchemy import Connection

from perijove.domain.launch import Cause, End, Status
from perijove.services.access import caller_by_token
from perijove.services.blocking import block, unblock
from perijove.services.people import get_person
from perijove.services.specs import server_token
from tests.fakes.spawners import MemoryPlatform
from tests.hubs import answering_server, running_hub

pytestmark = pytest.mark.anyio


async def test_blocking_ends_servers_and_closes_tokens(database_url: str, tmp_path: Path) -> None:
    """A blocked user's server ends with cause policy, the token opens nothing; then it does."""
    async with (
        answering_server() as server,
        running_hub(database_url, tmp_path, platform=MemoryPlatform(url=server.url)) as hub,
    ):
        launch = await hub.becomes(await hub.start(), Status.READY)
        other = await hub.becomes(await hub.start("bob"), Status.READY)
        token = server_token(hub.hub, launch)
        now = hub.hub.clock.now()

        def keep_out(connection: Connection) -> tuple[int, bool]:
            ending = block(connection, get_person(connection, "ann"), actor="root", now=now)
            return ending, caller_by_token(connection, token, now) is not None

        assert await hub.hub.database.write(keep_out) == (1, False)
        hub.hub.due.ring()
        ended = await hub.becomes(launch, Status.ENDED)

        assert ended.end == End(cause=Cause.POLICY, reason="blocked")
        assert (await hub.launch(other.id)).status is Status.READY

        def let_in(connection: Connection) -> None:
            unblock(connection, get_person(connection, "ann"), actor="root", now=now)

        await hub.hub.database.write(let_in)
        await hub.becomes(await hub.start(), Status.READY)
