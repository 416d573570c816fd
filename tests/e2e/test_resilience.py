"""What people keep when parts of the site die: their servers, their kernels, their way back."""

import json
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from websockets.sync.client import ClientConnection, connect

from tests.e2e.site import ADMIN_TOKEN, Site, a_site, wait_for

pytestmark = [pytest.mark.needs("lab"), pytest.mark.timeout(300)]

QUICK = """
[lifecycle]
reporting_period = "5 s"
[spawners.local]
kind = "local"
survey_period = 1
[[policies]]
idle_timeout = "1 min"
max_age = "1 min"
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Run a site."""
    with a_site(tmp_path) as found:
        yield found


@contextmanager
def kernel(site: Site) -> Iterator[ClientConnection]:
    """Start a kernel on the administrator's server and open its WebSocket."""
    request = urllib.request.Request(
        f"{site.url}/user/admin/api/kernels",
        method="POST",
        data=b"{}",
        headers={"Authorization": f"token {ADMIN_TOKEN}"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        kernel_id = json.loads(answer.read())["id"]
    address = f"{site.url}/user/admin/api/kernels/{kernel_id}/channels".replace("http", "ws", 1)
    with connect(
        address,
        additional_headers={"Authorization": f"token {ADMIN_TOKEN}"},
        open_timeout=30,
        max_size=None,
    ) as socket:
        yield socket


def execute(socket: ClientConnection, code: str, number: int) -> str:
    """Run `code` in the kernel behind a WebSocket and return its result."""
    message = {
        "header": {
            "msg_id": f"m{number}",
            "msg_type": "execute_request",
            "username": "",
            "session": "s",
            "date": "2026-01-01T00:00:00Z",
            "version": "5.3",
        },
        "parent_header": {},
        "metadata": {},
        "channel": "shell",
        "content": {"code": code, "silent": False, "allow_stdin": False},
        "buffers": [],
    }
    socket.send(json.dumps(message))
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        reply = json.loads(socket.recv(timeout=40))
        if (
            reply["msg_type"] == "execute_result"
            and reply["parent_header"].get("msg_id") == f"m{number}"
        ):
            return str(reply["content"]["data"]["text/plain"])
    raise AssertionError("the kernel did not answer")


def test_kernel_websocket_survives_a_hub_that_is_killed(site: Site) -> None:
    """The hub is killed and started anew while a kernel's WebSocket is open: it goes on."""
    site.start_server()
    with kernel(site) as socket:
        assert execute(socket, "6*7", 1) == "42"
        before = site.parts()["hub"]

        before.kill()
        assert execute(socket, "6*8", 2) == "48"
        wait_for(
            lambda: site.parts().get("hub") not in (None, before) and site.is_serving(),
            what="a new hub",
        )

        assert execute(socket, "6*9", 3) == "54"
    assert site.server("admin")["ready"]
    assert len(site.servers()) == 1


def test_killed_proxy_has_its_routes_with_its_first_answer(site: Site) -> None:
    """A proxy that is killed comes back with its routes, also while no hub answers."""
    site.start_server()
    hub, proxy = site.parts()["hub"], site.parts()["proxy"]
    hub.send_signal(signal.SIGSTOP)
    try:
        proxy.kill()
        wait_for(lambda: site.parts().get("proxy") not in (None, proxy), what="a new proxy")

        def first_answer() -> int | None:
            try:  # without a token: the server would ask the hub who that is
                with urllib.request.urlopen(f"{site.url}/user/admin/api", timeout=10) as answer:
                    return int(answer.status)
            except urllib.error.HTTPError as error:
                return error.code
            except OSError:  # it does not listen yet
                return None

        assert wait_for(first_answer, what="an answer") == 200
    finally:
        hub.send_signal(signal.SIGCONT)


def test_everything_killed_at_once_finds_its_servers_again(site: Site) -> None:
    """Supervisor, hub and proxy are killed together; run again, the server is still there."""
    site.start_server()
    (server,) = site.servers()

    site.kill_all()
    assert server.is_running()
    site.start()

    assert site.server("admin")["ready"]
    assert [one.pid for one in site.servers()] == [server.pid]
    with kernel(site) as socket:
        assert execute(socket, "6*7", 1) == "42"


@pytest.mark.parametrize("moment", ["spawn", "stop"])
def test_everything_killed_in_the_middle_is_finished_later(site: Site, moment: str) -> None:
    """Killed while a server starts or stops, the site finishes it: one server, or none."""
    if moment == "stop":
        site.start_server()
        site.api("DELETE", "/users/admin/server?wait=0")
    else:
        site.api("PUT", "/users/admin/server")
        # Not waited for: the answer comes when it is ready.
        request = urllib.request.Request(
            f"{site.url}/hub/api/users/admin/server",
            method="POST",
            headers={"Authorization": f"token {ADMIN_TOKEN}"},
        )
        try:
            urllib.request.urlopen(request, timeout=0.5)
        except OSError:
            wait_for(lambda: not site.server("admin").get("stopped", True), what="the request")
    site.kill_all()
    site.start()

    if moment == "spawn":
        wait_for(lambda: site.server("admin").get("ready"), what="ready", seconds=90)
        assert len(site.servers()) == 1
    else:
        wait_for(lambda: site.server("admin").get("stopped"), what="stopped", seconds=90)
        wait_for(lambda: not site.servers(), what="no process")


def test_killed_server_ends_with_signal_9_and_is_not_revived(site: Site) -> None:
    """A server that is killed ends with that cause, which the API and the page show."""
    site.start_server()
    (server,) = site.servers()
    server.kill()
    wait_for(lambda: site.server("admin").get("stopped"), what="the end")

    status, launches = site.api("GET", "/perijove/users/admin/launches")
    assert status == 200, launches
    assert launches["launches"][0]["end"]["cause"] == "signal"
    assert launches["launches"][0]["end"]["code"] == 9
    psutil.wait_procs([server], timeout=10)
    assert site.servers() == []


def test_hub_away_longer_than_every_limit_ends_nobody(tmp_path: Path) -> None:
    """After an absence longer than idle and age limits no healthy server is ended at once."""
    with a_site(tmp_path, extra=QUICK) as site:
        site.start_server()
        (server,) = site.servers()
        hub = site.parts()["hub"]
        hub.send_signal(signal.SIGSTOP)
        time.sleep(75)  # the absence itself: longer than the limits, and than a heart-beat's gap
        hub.send_signal(signal.SIGCONT)
        wait_for(site.is_serving, what="the hub")
        time.sleep(4)  # longer than a survey and a cull, shorter than two reporting periods

        assert server.is_running()
        assert site.server("admin")["ready"]
