"""A hub with tunnels: the hub here, the tunnels in a process of their own, jobs that dial in."""

import asyncio
import functools
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from perijove.agent.link import SUBPROTOCOL, accept_of
from perijove.domain.launch import Launch
from perijove.kit.loops import until
from perijove.proxy import ControlAddress, ProxyOptions
from perijove.proxy.server import ProxyServer
from perijove.spawners.contract import Claim, Handle, Place, Spawner
from perijove.web.app import create_app
from perijove.web.control import create_control_app
from perijove.web.listen import open_unix, serve
from tests.fakes.spawners import MemoryPlatform, Registering
from tests.integration.registration.jobs import ServedHub, serving_hub

PROGRAM = Path(__file__).with_name("program.py")
PATIENCE = 30.0
KEY = b"A" * 22 + b"=="


class Tunnelling(Registering):
    """Reaches the servers of its jobs through tunnels."""

    def __init__(self, inner: Spawner, sockets: Path) -> None:
        super().__init__(inner)
        self.sockets = sockets
        self.hosts = {""}

    async def check_claim(self, name: str, handles: Sequence[Handle], claim: Claim) -> Place:
        """Return the tunnel's end if the job is the launch's."""
        place = await super().check_claim(name, handles, claim)
        return replace(place, url=f"unix:{self.sockets / name}.sock")


@dataclass(slots=True)
class Site:
    """Where everything of it is; a hub may come and go."""

    directory: Path
    port: int
    host: str = "127.0.0.1"
    """Where nodes reach the tunnels."""
    platform: MemoryPlatform = field(default_factory=lambda: MemoryPlatform(url=""))
    hub_port: int = 0
    dialled: list["Dialled"] = field(default_factory=list)
    """All that dialled in by hand; they stay until the tunnels end, or the test hangs up."""

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
        return f"http://{self.host}:{self.port}"

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
    def tunnels(self, *tls: Path) -> Iterator[subprocess.Popen[bytes]]:
        """Run the tunnels in a process of their own, with TLS if certificate and key are given."""
        self.sockets.mkdir(mode=0o700, exist_ok=True)
        address = f"{self.host}:{self.port}"
        command: list[str | Path] = [
            sys.executable,
            PROGRAM,
            self.control,
            self.sockets,
            address,
            *tls,
        ]
        with (
            (self.directory / "tunnels.log").open("ab") as log,
            subprocess.Popen(command, stdout=log, stderr=log) as process,
        ):
            try:
                yield process
            finally:
                for each in self.dialled:
                    each.hang_up()
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
        """Dial in by hand."""
        named = {"launch_id": "lch_none", "job_id": "17", "nonce": "ab" * 8, "code": "0" * 64}
        named |= fields
        proof = " ".join(named[name] for name in ("launch_id", "job_id", "nonce", "code"))
        return await self.ask(
            b"GET / HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: %b\r\nSec-WebSocket-Protocol: %b\r\n"
            b"Authorization: Perijove-Job %b\r\n\r\n" % (KEY, SUBPROTOCOL.encode(), proof.encode())
        )

    async def ask(self, request: bytes) -> "Dialled":
        """Send a request and read the head of the answer, when the tunnels are there."""
        found: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

        async def is_connected() -> bool:
            try:
                found.append(await asyncio.open_connection("127.0.0.1", self.port))
            except OSError:
                return False
            return True

        assert await until(is_connected, seconds=PATIENCE)
        reader, writer = found[0]
        writer.write(request)
        async with asyncio.timeout(PATIENCE):
            head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ")[1])
        assert status != 101 or accept_of(KEY) in head
        self.dialled.append(Dialled(status, reader, writer))
        return self.dialled[-1]


@dataclass(slots=True)
class Dialled:
    """What the tunnels answered to somebody who dialled in."""

    status: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def hang_up(self) -> None:
        """End the connection."""
        self.writer.transport.abort()
