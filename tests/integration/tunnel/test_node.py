"""The node's side: a job whose node nobody can connect to, and what it does about mishaps."""

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import httpx2
import psutil
import pytest

from perijove.db.core import bound
from perijove.db.routes import put_route
from perijove.domain.launch import Launch, Status
from perijove.kit.loops import until
from perijove.web.app import create_app
from perijove.web.listen import open_tcp, serve
from tests.contract.proxy.test_tls import make_identity
from tests.integration.registration.jobs import Job, ServedHub, running_job
from tests.integration.tunnel.sites import PATIENCE, Site

pytestmark = pytest.mark.anyio

SERVER = Path(__file__).with_name("server.py")


def deliver(served: ServedHub, launch: Launch, quiet: Site, **changes: Any) -> Path:
    """Write the directory of a job that dials in."""
    given = {"command": [sys.executable, str(SERVER)], "tunnel": {"url": quiet.url, "ca": ""}}
    return served.deliver(launch, quiet.directory, **given | changes)


async def answers(quiet: Site, launch: Launch) -> dict[str, Any] | None:
    """Return what a launch's server says through its socket; None when it says nothing."""
    transport = httpx2.AsyncHTTPTransport(uds=str(quiet.socket_of(launch)))
    async with httpx2.AsyncClient(transport=transport, timeout=PATIENCE) as client:
        try:
            found: dict[str, Any] = (await client.get("http://server/user/ann/api")).json()
        except httpx2.TransportError:
            return None
        return found


def program_of(job: Job) -> psutil.Process | None:
    """Return the process of a job's tunnel."""
    for each in psutil.Process(job.process.pid).children():
        if "tunnel.py" in " ".join(each.cmdline()):
            return each
    return None


async def test_a_dead_tunnel_program_is_started_again(quiet: Site, tmp_path: Path) -> None:
    """Somebody kills the node's tunnel: the server runs on, and is reached again by itself."""
    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    with quiet.tunnels():
        async with quiet.hub() as served:
            launch = await served.running_launch()
            folder = deliver(served, launch, quiet)
            async with running_job(folder, TMPDIR=str(deep)) as job:
                await served.hub.becomes(launch, Status.READY, seconds=PATIENCE)
                first = await answers(quiet, launch)
                assert first is not None
                program = program_of(job)
                assert program is not None
                assert served.code(launch) not in " ".join(program.cmdline())
                assert served.code(launch) not in str(program.environ())
                program.kill()

                async def is_back() -> bool:
                    return await answers(quiet, launch) == first

                assert await until(is_back, seconds=PATIENCE)
                assert first["PERIJOVE_SOCKET"].startswith("/tmp/pj-")
            assert await job.exit_status() == 0, job.output
            assert not Path(first["PERIJOVE_SOCKET"]).parent.exists()


async def test_a_job_waits_for_tunnels_that_are_away(quiet: Site) -> None:
    """A job that starts before the tunnels do dials until they are there."""
    async with quiet.hub() as served:
        launch = await served.running_launch()
        folder = deliver(served, launch, quiet)
        async with running_job(folder) as job:
            await job.says("tunnel: away")
            with quiet.tunnels():
                await served.hub.becomes(launch, Status.READY, seconds=PATIENCE)
                await served.hub.stop()
                await served.hub.becomes(launch, Status.ENDED)


async def test_a_wrong_code_ends_the_job(quiet: Site) -> None:
    """A job whose code is not the launch's is told so by the tunnels, and says so."""
    with quiet.tunnels():
        async with quiet.hub() as served:
            launch = await served.running_launch()
            folder = deliver(served, launch, quiet, code="0" * 64)
            async with running_job(folder) as job:
                assert await job.exit_status() != 0
            assert "code-refused" in job.output


async def test_a_tunnel_leads_through_the_embedded_proxy(quiet: Site) -> None:
    """A job that can only reach the hub's public address dials to that, and needs no other port."""
    with quiet.tunnels():
        async with quiet.proxy() as public, quiet.hub() as served:
            front = f"unix:{quiet.sockets / 'front.sock'}"
            put = bound(put_route, prefix="/hub/tunnel/", target=front)
            await served.hub.hub.database.write(put)
            launch = await served.running_launch()
            tunnel = {"url": f"http://{public}/hub/tunnel", "ca": ""}
            folder = deliver(served, launch, quiet, tunnel=tunnel)
            async with running_job(folder) as job:
                await served.hub.becomes(launch, Status.READY, seconds=PATIENCE)
                assert await answers(quiet, launch) is not None
            assert await job.exit_status() == 0, job.output


async def test_a_node_believes_the_sites_authority_only(quiet: Site) -> None:
    """Over TLS a job dials when the certificate is of the authority it was given, else never."""
    ours = make_identity(quiet.directory, "ours")
    other = make_identity(quiet.directory, "other")
    with quiet.tunnels(ours.cert, ours.key):
        async with quiet.hub() as served:
            launch = await served.running_launch()
            url = f"https://localhost:{quiet.port}"
            wrong = {"url": url, "ca": other.cert.read_text()}
            folder = deliver(served, launch, quiet, tunnel=wrong)
            async with running_job(folder) as job:
                await job.says("CERTIFICATE_VERIFY_FAILED")
            assert "tunnel: up" not in job.output
            shutil.rmtree(folder)

            right = {"url": url, "ca": ours.cert.read_text()}
            launch = await served.hub.start("bob")
            launch = await served.hub.becomes(launch, Status.STARTING)
            served.spawner.jobs["18"] = launch.name
            folder = deliver(served, launch, quiet, tunnel=right)
            async with running_job(folder, "18"):
                await served.hub.becomes(launch, Status.READY, seconds=PATIENCE)


# --- a node in a network of its own -----------------------------------------------------------


@contextmanager
def closed_node() -> Iterator[tuple[str, str, str]]:
    """Make a network of one node; yields its name, our address there, and the node's."""
    name = f"pj{uuid4().hex[:8]}"
    block = f"10.213.{int(name[2:4], 16)}"
    commands = [
        f"ip netns add {name}",
        f"ip link add {name} type veth peer name eth0 netns {name}",
        f"ip addr add {block}.1/24 dev {name}",
        f"ip link set {name} up",
        f"ip -n {name} addr add {block}.2/24 dev eth0",
        f"ip -n {name} link set eth0 up",
        f"ip -n {name} link set lo up",
    ]
    try:
        for command in commands:
            subprocess.run(command.split(), check=True)
        yield name, f"{block}.1", f"{block}.2"
    finally:
        subprocess.run(["ip", "link", "del", name], check=False)
        subprocess.run(["ip", "netns", "del", name], check=False)


def listening_at(pid: int) -> set[str]:
    """Return the addresses at which anybody in a process's network listens, in the kernel's way."""
    found = set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] in ("0A", "07"):  # listens; a datagram socket that anybody can send to
                found.add(f"{table} {fields[1]}")
    return found


def is_refused(address: str, port: int) -> bool:
    """Tell whether nobody takes a connection there."""
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((address, port)) != 0


@pytest.mark.needs("root")
async def test_a_node_without_a_port_is_reached(quiet: Site) -> None:
    """In a network where only the job connects outward its server is used all the same."""
    with closed_node() as (name, ours, nodes):
        quiet.host = ours
        with quiet.tunnels():
            async with quiet.hub() as served:
                listener = open_tcp(f"{ours}:0")
                started = anyio.Event()

                async def serve_there() -> None:
                    await serve(create_app(served.hub.hub), [listener], started=started.set)

                served.hub.tasks.start_soon(serve_there)
                await started.wait()
                api = f"http://{ours}:{listener.getsockname()[1]}/hub/api"
                launch = await served.running_launch()
                folder = deliver(
                    served,
                    launch,
                    quiet,
                    hub_api=api,
                    register_url=f"{api}/perijove/registrations",
                )
                (folder / "job.sh").rename(folder / "inside.sh")
                (folder / "job.sh").write_text(f"exec ip netns exec {name} /bin/sh ./inside.sh\n")
                async with running_job(folder) as job:
                    await served.hub.becomes(launch, Status.READY, seconds=PATIENCE)
                    assert await answers(quiet, launch) is not None
                    inside = psutil.Process(job.process.pid).children()[0].pid
                    assert listening_at(inside) == set()
                    assert all(is_refused(nodes, port) for port in (22, 8000, 8888))
                    connections = psutil.Process(inside).net_connections("tcp")
                    assert all(each.raddr.ip == ours for each in connections)
