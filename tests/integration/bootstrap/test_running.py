"""The composition root: what a hub that runs has opened, and what it leaves behind."""

import stat
from pathlib import Path

import anyio
import httpx2
import pytest
from sqlalchemy import Connection, select

from perijove.bootstrap import Running, running
from perijove.db.launches import claim_due
from perijove.db.tables import launches
from perijove.domain.errors import ConfigError
from perijove.domain.launch import Status
from perijove.kit.loops import until
from perijove.services.launches import request_start
from perijove.services.people import ensure_user
from perijove.settings import Settings, load
from tests.hubs import PATIENCE, TEST

pytestmark = pytest.mark.anyio

NOBODY = "http://127.0.0.1:9"
"""Where no server listens."""


def settings_of(data_dir: Path, **hub: object) -> Settings:
    """Return the configuration of a hub whose servers do nothing but answer."""
    return load(
        None,
        {},
        {"hub": {"data_dir": str(data_dir), **hub}, "spawners": {"null": {"url": NOBODY}}},
    )


def client_of(hub: Running) -> httpx2.AsyncClient:
    """Return a client that comes in by the hub's own socket, as the proxy does."""
    transport = httpx2.AsyncHTTPTransport(uds=str(hub.places.hub_socket))
    return httpx2.AsyncClient(transport=transport, base_url="http://hub", timeout=PATIENCE)


async def test_a_hub_serves_while_it_runs_and_leaves_nothing_open(tmp_path: Path) -> None:
    """Every address answers inside the block, and none after it."""
    async with running(settings_of(tmp_path / "data"), {}) as hub, client_of(hub) as client:
        assert (await client.get("/hub/health")).status_code == 200
        async with httpx2.AsyncClient(trust_env=False, timeout=PATIENCE) as direct:
            assert (await direct.get(f"{hub.hub.api_url}/")).status_code == 200
        api_url = hub.hub.api_url

    async with httpx2.AsyncClient(trust_env=False, timeout=PATIENCE) as direct:
        with pytest.raises(httpx2.ConnectError):
            await direct.get(f"{api_url}/")


async def test_files_and_sockets_are_private(tmp_path: Path) -> None:
    """Nobody else on the machine can read the keys or the state, or speak to the sockets."""
    async with running(settings_of(tmp_path / "data"), {}) as hub:
        places = hub.places
        assert stat.S_IMODE(places.data_dir.stat().st_mode) == 0o700
        assert stat.S_IMODE(places.sockets.stat().st_mode) == 0o700
        for path in (places.hub_socket, places.control_socket, places.data_dir / "keyring"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_hub_that_comes_back_is_the_same(tmp_path: Path) -> None:
    """Servers that outlived it find it at the same address, under the same name and keys."""
    async with running(settings_of(tmp_path / "data"), {}) as hub:
        before = (hub.hub.api_url, hub.hub.installation, hub.hub.keyring)
    async with running(settings_of(tmp_path / "data"), {}) as hub:
        assert (hub.hub.api_url, hub.hub.installation, hub.hub.keyring) == before


async def test_a_second_hub_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    """The first one is not disturbed."""
    async with running(settings_of(tmp_path / "data"), {}) as hub, client_of(hub) as client:
        with pytest.raises(ConfigError, match="in use by another hub"):
            async with running(settings_of(tmp_path / "data"), {}):
                pass
        assert (await client.get("/hub/health")).status_code == 200


async def test_a_link_leads_in_while_nobody_has_signed_in(tmp_path: Path) -> None:
    """The first run, and every one until somebody came in, shows a way; each link is another."""
    async with running(settings_of(tmp_path / "data"), {}) as hub:
        first = hub.signin_link
    async with running(settings_of(tmp_path / "data"), {}) as hub:
        assert hub.signin_link is not None
        assert hub.signin_link != first
        async with client_of(hub) as client:
            answer = await client.get(hub.signin_link)
        assert answer.status_code < 400


async def test_a_hub_without_administrators_starts(tmp_path: Path) -> None:
    """Where somebody else signs people in, none need be named."""
    async with running(settings_of(tmp_path / "data", admins=[]), {}) as hub:
        assert hub.signin_link is None


async def test_work_that_a_killed_hub_held_is_free_at_once(tmp_path: Path) -> None:
    """A lease that nobody can hold any more delays nothing (SQLite: there is one hub)."""
    settings = settings_of(tmp_path / "data")
    async with running(settings, {}) as hub:
        held = hub.hub

        def user(connection: Connection) -> int:
            return ensure_user(connection, "ann", now=held.clock.now()).id

        user_id = await held.database.write(user)
        launch = await request_start(held, user_id=user_id, server_name="", asking=TEST)

        def take(connection: Connection) -> None:
            claim_due(
                connection,
                token="dead",
                now=held.clock.now(),
                ttl=held.lifecycle.takeover * 1000,
                limit=100,
            )

        await held.database.write(take)

    async with running(settings, {}) as hub:
        found = hub.hub

        async def is_moving() -> bool:
            def status(connection: Connection) -> str:
                return str(
                    connection.execute(
                        select(launches.c.status).where(launches.c.id == launch.id)
                    ).scalar_one()
                )

            now = await found.database.read(status)
            return now not in (Status.REQUESTED, Status.SUBMITTED)

        assert await until(is_moving, seconds=PATIENCE)


async def test_what_fails_at_the_start_closes_what_was_opened(tmp_path: Path) -> None:
    """After a refusal the directory and the addresses are free for the next try."""
    with pytest.raises(ConfigError, match="scope"):
        async with running(
            settings_of(tmp_path / "data", roles=[{"name": "help", "scopes": ["zork"]}]), {}
        ):
            pass
    with anyio.fail_after(PATIENCE):
        async with running(settings_of(tmp_path / "data"), {}) as hub, client_of(hub) as client:
            assert (await client.get("/hub/health")).status_code == 200
