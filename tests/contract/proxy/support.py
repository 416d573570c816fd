"""A proxy in this process, upstreams and clients that speak in raw bytes."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio

from perijove.proxy.server import ProxyServer
from perijove.proxy.settings import ProxyOptions, ProxySettings
from perijove.wire.control import Route, RouteTable

DEADLINE = 25.0
"""Seconds for what happens at once; fewer than the limits after which the proxy gives up."""
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HOST = b"Host: hub.example.org\r\n"

Connected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def get(path: str = "/", fields: bytes = b"") -> bytes:
    """Return a GET request."""
    return f"GET {path} HTTP/1.1\r\n".encode() + HOST + fields + b"\r\n"


def post(body: bytes, fields: bytes = b"", path: str = "/") -> bytes:
    """Return a POST request whose body has a declared length."""
    length = b"Content-Length: %d\r\n" % len(body)
    return f"POST {path} HTTP/1.1\r\n".encode() + HOST + length + fields + b"\r\n" + body


def listening() -> socket.socket:
    """Return a socket that listens on a free port of this machine."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(128)
    return sock


@dataclass
class Proxy:
    """A running proxy."""

    server: ProxyServer
    port: int
    revision: int = 1

    def route(self, **targets: str) -> None:
        """Serve these targets, by first segment; ``root`` is for everything else."""
        self.revision += 1
        routes = [
            Route("/" if name == "root" else f"/{name}/", target, launch=f"launch-{name}")
            for name, target in targets.items()
        ]
        self.server.apply(RouteTable("test", self.revision, routes))


@contextlib.asynccontextmanager
async def running_proxy(
    target: str | None = None,
    *,
    snapshot: Path | None = None,
    access_fd: int | None = None,
    control: Any = None,
    **settings: Any,
) -> AsyncIterator[Proxy]:
    """Run a proxy that sends all to `target`; numbers in `settings` are seconds or counts."""
    chosen = {
        name: timedelta(seconds=value) if name.endswith("timeout") else value
        for name, value in settings.items()
    }
    options = ProxyOptions(settings=ProxySettings(**chosen), snapshot=snapshot, control=control)
    server = ProxyServer(options)
    sock = listening()
    await server.start([sock], access_fd=access_fd)
    proxy = Proxy(server, sock.getsockname()[1])
    if target is not None:
        proxy.route(root=target)
    try:
        yield proxy
    finally:
        await server.stop(0)


@dataclass
class Upstream:
    """What a raw upstream has seen."""

    url: str = ""
    connections: int = 0
    received: list[bytes] = field(default_factory=list)
    """Whole requests, bodies included as they came."""


@contextlib.asynccontextmanager
async def accepting(
    connected: Connected, path: Path | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Run `connected` for each connection; give the target's address, a unix socket's if `path`."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        # uvloop answers a write after the end of a connection with a RuntimeError.
        with contextlib.suppress(OSError, EOFError, RuntimeError, asyncio.CancelledError):
            await connected(reader, writer)

    if path is None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20, ssl=tls)
        host, port = server.sockets[0].getsockname()
        url = f"http://{host}:{port}"
    else:
        server = await asyncio.start_unix_server(serve, path, limit=1 << 20)
        url = f"unix:{path}"
    try:
        yield url
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """Read one request with its body, as the bytes it came in."""
    head = await reader.readuntil(b"\r\n\r\n")
    lower = head.lower()
    if b"transfer-encoding: chunked" in lower:
        body = b""
        while not (body.startswith(b"0\r\n\r\n") or b"\r\n0\r\n" in body[-200:]):
            body += await reader.readuntil(b"\r\n")
        while not body.endswith(b"\r\n\r\n"):
            body += await reader.readuntil(b"\r\n")
        return head + body
    for line in lower.split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return head + await reader.readexactly(int(line.partition(b":")[2]))
    return head


@contextlib.asynccontextmanager
async def answering(*answers: bytes, closes: bool = False) -> AsyncIterator[Upstream]:
    """Run an upstream that gives its answers in turn, the last for ever."""
    upstream = Upstream()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream.connections += 1
        while True:
            request = await read_request(reader)
            upstream.received.append(request)
            writer.write(answers[min(len(upstream.received), len(answers)) - 1])
            await writer.drain()
            if closes:
                writer.close()
                return

    async with accepting(connected) as upstream.url:
        yield upstream


@dataclass
class Client:
    """A connection to the proxy."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, raw: bytes) -> None:
        """Send bytes."""
        self.writer.write(raw)
        await self.writer.drain()

    async def response(self, method: str = "GET") -> bytes:
        """Read one whole response, as the bytes it came in."""
        with anyio.fail_after(DEADLINE):
            head = await self.reader.readuntil(b"\r\n\r\n")
            lower = head.lower()
            status = int(head[9:12])
            if method == "HEAD" or status in (204, 304) or status < 200:
                return head
            if b"transfer-encoding: chunked" in lower:
                body = b""
                while not body.endswith(b"0\r\n\r\n"):
                    body += await self.reader.readuntil(b"\r\n")
                return head + body
            for line in lower.split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    return head + await self.reader.readexactly(int(line.partition(b":")[2]))
            return head + await self.reader.read()

    async def ask(self, raw: bytes, method: str = "GET") -> bytes:
        """Send a request and read its response."""
        await self.send(raw)
        return await self.response(method)

    async def rest(self) -> bytes:
        """Read until the connection ends, however it ends."""
        with anyio.fail_after(DEADLINE):
            pieces = []
            with contextlib.suppress(ConnectionError):
                while piece := await self.reader.read(65536):
                    pieces.append(piece)
            return b"".join(pieces)


@contextlib.asynccontextmanager
async def connected_to(port: int) -> AsyncIterator[Client]:
    """Give a connection to a port of this machine."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


async def say(port: int, raw: bytes) -> bytes:
    """Send bytes on a connection of their own and return all that comes back until it ends."""
    async with connected_to(port) as client:
        with contextlib.suppress(ConnectionError):
            await client.send(raw)
        return await client.rest()


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait until `holds`, within the deadline."""
    with anyio.fail_after(DEADLINE):
        while not holds():  # noqa: ASYNC110 - what is waited for tells nobody
            await anyio.sleep(0.005)
