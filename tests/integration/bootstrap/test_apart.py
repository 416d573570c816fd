"""A hub and its proxies on different machines: one address by TCP, and a secret."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import select

from perijove.bootstrap import Running, control_address, prepare, running
from perijove.db.core import bound
from perijove.db.routes import live_workers
from perijove.db.tables import sessions
from perijove.domain.errors import ConfigError
from perijove.kit.loops import until
from perijove.proxy import ProxyOptions
from perijove.proxy.server import ProxyServer
from perijove.settings import Settings, load
from perijove.wire.control import PROXY_HEADER, SECRET_HEADER
from tests.hubs import PATIENCE

pytestmark = pytest.mark.anyio

SECRET = "a-secret-that-hub-and-proxies-share"
ELSEWHERE = "203.0.113.9"


def settings_of(tmp_path: Path, **hub: object) -> Settings:
    """Return the configuration that hub and proxies share."""
    null = {"url": "http://127.0.0.1:9"}
    hub = {"data_dir": str(tmp_path / "data"), **hub}
    return load(None, {}, {"hub": hub, "spawners": {"null": null}})


@dataclass(frozen=True, slots=True)
class Apart:
    """A hub, and a proxy that knows no more of it than its address."""

    hub: Running
    inside: str
    """The hub's address for proxies."""
    outside: str
    """The proxy's."""


@asynccontextmanager
async def apart(tmp_path: Path) -> AsyncIterator[Apart]:
    """Run both until the proxy has routes."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    inside = f"http://{address}"
    settings = settings_of(tmp_path, proxy_bind=address, proxy_url=inside, proxy_secret=SECRET)
    async with running(settings, {}) as hub:
        listener = socket.create_server(("127.0.0.1", 0))
        control = control_address(settings, prepare(settings))
        proxy = ProxyServer(ProxyOptions(control=control), saves_snapshot=False)
        await proxy.start([listener])

        async def is_routed() -> bool:
            now = hub.hub.clock.now()
            workers = await hub.hub.database.read(bound(live_workers, now=now))
            return bool(workers) and bool(proxy.routes.revision)

        try:
            assert await until(is_routed, seconds=PATIENCE)
            outside = f"http://127.0.0.1:{listener.getsockname()[1]}"
            yield Apart(hub=hub, inside=inside, outside=outside)
        finally:
            await proxy.stop(1)


def browser() -> httpx2.AsyncClient:
    """Return a client with patience."""
    return httpx2.AsyncClient(trust_env=False, timeout=PATIENCE)


async def test_a_proxy_on_another_machine_serves_the_hub(tmp_path: Path) -> None:
    """People come in by it, and the hub knows where from, whatever they say of themselves."""
    async with apart(tmp_path) as site, browser() as client:
        assert site.hub.signin_link is not None
        lies = {"X-Forwarded-For": ELSEWHERE, PROXY_HEADER: "nothing"}
        answer = await client.get(f"{site.outside}{site.hub.signin_link}", headers=lies)
        assert answer.status_code < 400
        home = await client.get(f"{site.outside}/hub/home")
        assert home.status_code == 200
        found = await site.hub.hub.database.read(
            lambda connection: connection.scalars(select(sessions.c.address)).all()
        )
        assert list(found) == ["127.0.0.1"]


@pytest.mark.parametrize("header", [None, PROXY_HEADER, SECRET_HEADER])
async def test_who_does_not_know_the_secret_is_refused(tmp_path: Path, header: str | None) -> None:
    """Neither pages nor routes are for anybody else on that network."""
    given = {header: SECRET[:-1] + "x"} if header else {}
    async with apart(tmp_path) as site, browser() as client:
        for path in ("/hub/login", "/routes?worker=w", "/activity"):
            answer = await client.get(f"{site.inside}{path}", headers=given)
            assert answer.status_code == 403, path


@pytest.mark.parametrize(
    ("hub", "named"),
    [
        ({"proxy_bind": "127.0.0.1:8082"}, "proxy_url"),
        ({"proxy_url": "http://hub:8082"}, "proxy_secret"),
        ({"proxy_url": "http://hub:8082", "proxy_secret": "short"}, "proxy_secret"),
        ({"proxy_url": "http://hub:8082/x", "proxy_secret": SECRET}, "proxy_url"),
        ({"proxy_url": "https://hub:8082", "proxy_secret": SECRET}, "proxy_url"),
    ],
)
def test_half_an_address_is_refused(tmp_path: Path, hub: dict[str, object], named: str) -> None:
    """What is missing or cannot be is said when the configuration is read."""
    with pytest.raises(ConfigError, match=named):
        settings_of(tmp_path, **hub)
