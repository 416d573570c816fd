"""The local spawner starts the stock single-user server, in each release that sites have."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import anyio
import httpx2
import pytest

from perijove.domain.launch import Cause
from perijove.spawners.contract import LaunchSpec, Phase
from perijove.spawners.local import LocalSpawner
from tests import beds
from tests.contract.spawners.sites import NAME, SECRET, eventually, make_spec, phase, recorded

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

PREFIX = "/base/user/ann/"


class _Hub(BaseHTTPRequestHandler):
    """As much of a hub as a single-user server asks before it listens (wire §1.3)."""

    def do_GET(self) -> None:
        self._answer(200, {"version": "6.1.1"})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(200, {})

    def _answer(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("X-JupyterHub-Version", "6.1.1")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    """Give the address of a hub's API."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hub) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/base/hub/api"
        server.shutdown()


def make_order(command: str, hub: str) -> LaunchSpec:
    """Return the order for a stock server, with the variables that it must have (wire §1.2)."""
    scopes = json.dumps(["access:servers!server=ann/", "access:servers!user=ann"])
    return make_spec(
        command=[command],
        prefix=PREFIX,
        environment={
            "JUPYTERHUB_API_TOKEN": SECRET,
            "JUPYTERHUB_CLIENT_ID": "jupyterhub-user-ann",
            "JUPYTERHUB_HOST": "",
            "JUPYTERHUB_OAUTH_CALLBACK_URL": f"{PREFIX}oauth_callback",
            "JUPYTERHUB_OAUTH_ACCESS_SCOPES": scopes,
            "JUPYTERHUB_OAUTH_SCOPES": scopes,
            "JUPYTERHUB_USER": "ann",
            "JUPYTERHUB_SERVER_NAME": "",
            "JUPYTERHUB_API_URL": hub,
            "JUPYTERHUB_ACTIVITY_URL": f"{hub}/users/ann/activity",
            "JUPYTERHUB_BASE_URL": "/base/",
            "JUPYTERHUB_SERVICE_PREFIX": PREFIX,
        },
    )


@pytest.mark.parametrize(
    "release",
    [
        pytest.param(release, marks=pytest.mark.needs(f"singleuser-{release}"))
        for release in ("4.1", "5", "6")
    ],
)
async def test_stock_server_comes_up_and_ends(local: LocalSpawner, hub: str, release: str) -> None:
    """The stock server answers below its prefix, owns its port, and ends by itself when asked."""
    await local.start(make_order(str(beds.singleuser(release)), hub), recorded)
    sighting = await phase(local, NAME, Phase.RUNNING)
    url = f"{sighting.url}{PREFIX}api"

    async with httpx2.AsyncClient(follow_redirects=False) as client:

        async def is_up() -> bool:
            assert (await phase(local, NAME, Phase.RUNNING)).url == sighting.url
            try:
                return (await client.get(url)).status_code < 500
            except httpx2.TransportError:
                return False

        with anyio.fail_after(90):
            while not await eventually(is_up):
                pass
        version = (await client.get(url)).headers["X-JupyterHub-Version"]

    assert version.startswith(release)
    assert await local.owns_listener(NAME, None, sighting.url) is True
    assert SECRET not in await local.log_tail(NAME, None, lines=1000)
    gone = await local.stop(NAME, None, grace=30)
    assert gone is not None
    assert gone.end is not None
    assert (gone.end.cause, gone.end.code) == (Cause.EXITED, 0)
