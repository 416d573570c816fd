"""Whatever clients and upstreams do to each other, nothing is left behind."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable

import anyio
import pytest

from tests.contract.proxy.support import (
    OK,
    Client,
    accepting,
    connected_to,
    eventually,
    get,
    post,
    read_request,
    running_proxy,
)
from tests.unit.proxy.corpus import BAD_CHUNKS, HOSTILE_RESPONSES, REFUSED_HEADS

pytestmark = pytest.mark.anyio

CHUNKS = b"Transfer-Encoding: chunked\r\n"
ANSWERS = [
    OK,
    b"HTTP/1.1 200 OK\r\n" + CHUNKS + b"\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000,
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi",
    *HOSTILE_RESPONSES.values(),
    *(b"HTTP/1.1 200 OK\r\n" + CHUNKS + b"\r\n" + chunk for chunk in BAD_CHUNKS.values()),
]
REQUESTS = [
    get(),
    get() * 3,
    post(b"x" * 1000),
    post(b"x" * 300_000),
    get("/", b"Connection: Upgrade\r\nUpgrade: websocket\r\n") + b"early",
    get("/", b"Connection: close\r\n"),
    *(raw for raw, _ in REFUSED_HEADS.values()),
    *(post(b"").replace(b"Content-Length: 0\r\n", CHUNKS) + chunk for chunk in BAD_CHUNKS.values()),
]


@pytest.mark.parametrize("seed", range(3))
async def test_nothing_is_left_behind(seed: int) -> None:
    """After hundreds of clients that break off anywhere, every connection is accounted for."""
    chance = random.Random(seed)

    async def in_pieces(raw: bytes, write: Callable[[bytes], Awaitable[None]]) -> None:
        size = chance.choice([7, 100, 1 << 20])
        until = chance.choice([len(raw), chance.randrange(len(raw) + 1)])
        for at in range(0, min(until, 5000 * size), size):
            await write(raw[at : min(at + size, until)])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def write(piece: bytes) -> None:
            writer.write(piece)
            await writer.drain()

        while chance.random() < 0.8:
            if chance.random() < 0.9:
                await read_request(reader)
            await in_pieces(chance.choice(ANSWERS), write)
        writer.close()

    async def visit(port: int) -> None:
        async with connected_to(port) as client:
            # uvloop answers a write after the end with a RuntimeError.
            with contextlib.suppress(OSError, EOFError, TimeoutError, RuntimeError):
                await _speak(client)

    async def _speak(client: Client) -> None:
        for _ in range(chance.randrange(1, 4)):
            await in_pieces(chance.choice(REQUESTS), client.send)
            if chance.random() < 0.2:
                client.writer.write_eof()
            if chance.random() < 0.7:
                with anyio.fail_after(0.05):
                    await client.reader.read(1 << 20)

    async with accepting(serve) as url, running_proxy(url, half_closed_timeout=0.3) as proxy:
        server = proxy.server
        for _ in range(10):
            async with anyio.create_task_group() as group:
                for _ in range(30):
                    group.start_soon(visit, proxy.port)
        (backend,) = server.routes.backends
        await eventually(lambda: not server.clients)
        await eventually(lambda: not server._tasks)
        backend.expire(float("inf"))
        await eventually(lambda: backend.connections == 0)
        assert not backend.tunnels
        assert not backend.idle
        proxy.route(root=url)
