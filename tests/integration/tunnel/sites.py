"""A hub with tunnels: the hub here, the tunnels in a process of their own, jobs that dial in."""

import asyncio
import functools
import hashlib
import secrets
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perijove.agent.link import SUBPROTOCOL, accept_of
from perijove.domain.launch import Launch
from perijove.kit.loops import until
from perijove.proxy import ControlAddress, ProxyOptions
from perijove.proxy.server import ProxyServer
from perijove.spawners.contract import Claim, Handle, Spawner
from perijove.web.app import create_app
from perijove.web.control import create_control_app
from perijove.web.listen import open_unix, serve
from tests.fakes.spawners import MemoryPlatform, Registering
from tests.integration.registration.jobs import ServedHub, serving_hub

PROGRAM = Path(__file__).with_name("program.py")
PATIENCE = 30.0


class Tunnelling(Registering):
    """Reaches the servers of its jobs through tunnels."""

    def __init__(self, inner: Spawner, sockets: Path) -> None:
        super().__init__(inner)
        self.sockets = sockets
        self.hosts = {""}

    async def check_claim(self, name: str, handles: Sequence[Handle], claim: Claim) -> str:
        """Return the tunnel's end if the job is the launch's."""
        await super().check_claim(name, handles, claim)
        return f"unix:{self.sockets / name}.sock"


@dataclass(slots=True)
class Site:
    """Where everything of it is; a hub may come and go."""

    directory: Path
    port: int
    platform: MemoryPlatform = field(default_factory=lambda: MemoryPlatform(url=""))
    hub_port: int = 0

    @property
    def sockets(self) -> Path:
        """The directory of the launches' sockets."""
        return self.directory / "t"

    @property
    def control(self) -> Path:
        """The hub's control socket."""
        return self.directory / "c.sock"

    @property
    def url(self) -> str:
        """Where nodes dial to."""
        return f"http://127.0.0.1:{self.port}"

    def socket_of(self, launch: Launch) -> Path:
        """Return a launch's socket."""
        return self.sockets / f"{launch.name}.sock"

    @asynccontextmanager
    async def hub(self, jobs: Mapping[str, str] | None = None) -> AsyncIterator[ServedHub]:
        """Run the hub; the next one is on the same port and database."""
        data = self.directory / "hub"
        data.mkdir(exist_ok=True)
        wrap = functools.partial(Tunnelling, sockets=self.sockets)
        url = f"sqlite:///{data / 'hub.sqlite'}"
        with open_unix(self.control) as listener:
            async with serving_hub(
                url, data, port=self.hub_port, platform=self.platform, jobs=jobs, wrap=wrap
            ) as served:
                self.hub_port = served.port
                control = create_control_app(served.hub.hub, create_app(served.hub.hub))
                served.hub.tasks.start_soon(serve, control, [listener])
                yield served

    @contextmanager
    def tunnels(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run the tunnels in a process of their own."""
        self.sockets.mkdir(mode=0o700, exist_ok=True)
        address = f"127.0.0.1:{self.port}"
        command = [sys.executable, PROGRAM, self.control, self.sockets, address]
        with (
            (self.directory / "tunnels.log").open("ab") as log,
            subprocess.Popen(command, stdout=log, stderr=log) as process,
        ):
            try:
                yield process
            finally:
                process.terminate()

    @asynccontextmanager
    async def proxy(self) -> AsyncIterator[str]:
        """Run the embedded proxy; yields its URL."""
        listener = socket.create_server(("127.0.0.1", 0))
        server = ProxyServer(ProxyOptions(control=ControlAddress(f"unix:{self.control}")))
        await server.start([listener])
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            await server.stop(1)

    async def dial(self, **fields: Any) -> "Dialled":
        """Dial in by hand, until there is an answer other than that the tunnels are away."""
        found: list[Dialled] = []

        async def is_answered() -> bool:
            try:
                found.append(await dial(self.port, **fields))
            except OSError:
                return False
            return True

        assert await until(is_answered, seconds=PATIENCE)
        return found[0]


@dataclass(slots=True)
class Dialled:
    """What the tunnels answered to somebody who dialled in."""

    status: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def hang_up(self) -> None:
        """End the connection."""
        self.writer.transport.abort()


async def dial(port: int, **fields: Any) -> Dialled:
    """Ask for a tunnel as a node does."""
    key = "A" * 22 + "=="
    named = {"launch_id": "lch_none", "job_id": "17", "nonce": "ab" * 8, "code": "0" * 64} | fields
    proof = " ".join(named[name] for name in ("launch_id", "job_id", "nonce", "code"))
    return await ask(
        port,
        f"GET / HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n"
        f"Authorization: Perijove-Job {proof}\r\n\r\n".encode(),
    )


async def ask(port: int, request: bytes) -> Dialled:
    """Send a request and read the head of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    async with asyncio.timeout(20):
        head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split(b" ")[1])
    if status == 101:
        assert accept_of(b"A" * 22 + b"==") in head
    return Dialled(status, reader, writer)


def free_port() -> int:
    """Return a port that nobody has now; the tunnels and their successors get it."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def site(directory: Path) -> Site:
    """Return a site whose sockets' paths are short, wherever the test's own directory is."""
    digest = hashlib.sha256(str(directory).encode()).hexdigest()[:8]
    short = Path("/tmp") / f"pjt-{digest}-{secrets.token_hex(3)}"
    short.mkdir(mode=0o700)
    return Site(short, free_port())
