"""The stock server of every release, used through the embedded proxy and a tunnel."""

import json
import signal
import stat
import uuid
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import anyio
import httpx2
import psutil
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake

from perijove.domain.launch import Launch, Status
from perijove.kit.loops import until
from tests.beds import singleuser
from tests.integration.registration.jobs import ServedHub, running_job
from tests.integration.tunnel.sites import PATIENCE, Site

pytestmark = pytest.mark.anyio

RELEASES = [
    pytest.param(each, marks=pytest.mark.needs(f"singleuser-{each}")) for each in ("4.1", "5", "6")
]


def in_tunnel(served: ServedHub, launch: Launch, quiet: Site, release: str) -> Path:
    """Deliver a job whose server is only reached through the tunnels."""
    return served.deliver(
        launch,
        quiet.directory,
        command=[str(singleuser(release))],
        tunnel={"url": quiet.url, "ca": ""},
    )


async def compute(channel: ClientConnection, code: str) -> str:
    """Run code in a kernel and return what it prints."""
    await channel.send(
        json.dumps(
            {
                "header": {
                    "msg_id": uuid.uuid4().hex,
                    "msg_type": "execute_request",
                    "username": "ann",
                    "session": "s",
                    "version": "5.3",
                },
                "parent_header": {},
                "metadata": {},
                "channel": "shell",
                "content": {"code": code, "silent": False, "store_history": False},
            }
        )
    )
    with anyio.fail_after(PATIENCE):
        async for raw in channel:
            message = json.loads(raw)
            if message["msg_type"] == "stream":
                return str(message["content"]["text"]).strip()
    raise AssertionError("the kernel said nothing")


async def start_kernel(url: str, token: str) -> str:
    """Start a kernel behind the proxy; returns the URL of its channels."""
    headers = {"Authorization": f"token {token}"}
    async with httpx2.AsyncClient(base_url=f"http://{url}", headers=headers, timeout=60) as client:

        async def answers() -> bool:
            return (await client.get("/user/ann/api")).status_code == 200

        assert await until(answers, seconds=PATIENCE)
        made = await client.post("/user/ann/api/kernels", json={})
        assert made.status_code == 201, made.text
        return f"ws://{url}/user/ann/api/kernels/{made.json()['id']}/channels"


async def reconnect(channels: str, headers: dict[str, str]) -> ClientConnection:
    """Open a kernel's channels as soon as that works."""
    found: list[ClientConnection] = []

    async def is_open() -> bool:
        try:
            found.append(await connect(channels, additional_headers=headers))
        except (OSError, InvalidHandshake):
            return False
        return True

    assert await until(is_open, seconds=PATIENCE)
    return found[0]


def open_ports(pid: int) -> list[str]:
    """
    Return where a process and those below it listen, but for kernels on the loopback interface:
    each has one port there for the output of its own children.
    """
    found = []
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # a server starts many a program for a moment
            is_kernel = "ipykernel_launcher" in process.cmdline()
            found += [
                f"{each.laddr.ip}:{each.laddr.port} {process.name()}"
                for each in process.net_connections("tcp")
                if each.status == psutil.CONN_LISTEN
                and not (is_kernel and each.laddr.ip == "127.0.0.1")
            ]
    return found


@pytest.mark.timeout(150)
@pytest.mark.parametrize("release", RELEASES)
async def test_a_kernel_outlives_the_hub_and_the_tunnels(quiet: Site, release: str) -> None:
    """
    Without a port on the node a kernel computes for its person; a restart of the hub does not
    even cut the WebSocket, one of the tunnels only that.
    """
    async with quiet.proxy() as url, AsyncExitStack() as jobs, AsyncExitStack() as hubs:
        with quiet.tunnels():
            served = await hubs.enter_async_context(quiet.hub())
            launch = await served.running_launch()
            headers = {"Authorization": f"token {served.token(launch)}"}
            folder = in_tunnel(served, launch, quiet, release)
            job = await jobs.enter_async_context(running_job(folder, TMPDIR="/tmp"))
            ready = await served.hub.becomes(launch, Status.READY, seconds=60)
            assert ready.url == f"unix:{quiet.socket_of(launch)}"
            assert stat.S_IMODE(quiet.socket_of(launch).stat().st_mode) == 0o600
            channels = await start_kernel(url, served.token(launch))
            async with await reconnect(channels, headers) as channel:
                assert await compute(channel, "x = 6 * 7; print(x)") == "42"
                assert open_ports(job.process.pid) == []

                await hubs.aclose()
                assert await compute(channel, "print(x + 1)") == "43"
                served = await hubs.enter_async_context(quiet.hub({"17": launch.name}))
                assert await compute(channel, "print(x + 2)") == "44"

        with quiet.tunnels():
            async with await reconnect(channels, headers) as channel:
                assert await compute(channel, "print(x + 3)") == "45"
            assert (await served.hub.launch(launch.id)).status is Status.READY
            await jobs.aclose()
            assert served.token(launch) not in job.output
            # A signal that meets Jupyter's server while it writes to its log is lost in there; the
            # server is killed then.
            assert await job.exit_status() in (0, 128 + signal.SIGKILL), job.output
