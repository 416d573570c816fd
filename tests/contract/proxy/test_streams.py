"""Long bodies, slow receivers, upgraded connections."""

import asyncio
import hashlib
import re

import anyio
import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from perijove.wire.control import Route, RouteTable
from tests.contract.proxy.support import (
    OK,
    accepting,
    connected_to,
    eventually,
    get,
    post,
    read_request,
    running_proxy,
)

pytestmark = pytest.mark.anyio

BIG = 64 * 1024 * 1024
PIECE = b"0123456789abcdef" * 4096
UPGRADE = get("/", b"Connection: Upgrade\r\nUpgrade: websocket\r\n")
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


async def test_a_slow_client_stops_the_upstream() -> None:
    """A response that nobody takes is not gathered in memory, and arrives whole later."""
    sent = 0

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BIG)
        while sent < BIG:
            writer.write(PIECE)
            sent += len(PIECE)
            await writer.drain()

    async with (
        accepting(connected) as url,
        running_proxy(url) as proxy,
        connected_to(proxy.port) as client,
    ):
        await client.send(get())
        await client.reader.readuntil(b"\r\n\r\n")
        await eventually(lambda: any(c.is_congested for c in proxy.server.clients))
        held = max(c.transport.get_write_buffer_size() for c in proxy.server.clients)
        assert held < 1024 * 1024
        assert sent < BIG
        digest, got = hashlib.sha256(), 0
        while got < BIG:
            piece = await client.reader.read(1 << 20)
            digest.update(piece)
            got += len(piece)
        assert digest.digest() == hashlib.sha256(PIECE * (BIG // len(PIECE))).digest()


async def test_a_slow_upstream_stops_the_client() -> None:
    """A body that the upstream does not take is not gathered in memory, and arrives whole later."""
    taking = asyncio.Event()
    digest = hashlib.sha256()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await taking.wait()
        got = 0
        while got < BIG:
            piece = await reader.read(1 << 20)
            digest.update(piece)
            got += len(piece)
        writer.write(OK)

    sent = 0
    async with (
        accepting(connected) as url,
        running_proxy(url) as proxy,
        connected_to(proxy.port) as client,
        anyio.create_task_group() as group,
    ):
        await client.send(post(b"").replace(b"Length: 0", b"Length: %d" % BIG))

        async def upload() -> None:
            nonlocal sent
            while sent < BIG:
                await client.send(PIECE)
                sent += len(PIECE)

        def upstream_is_full() -> bool:
            return any(
                c._upstream is not None and c._upstream.is_congested for c in proxy.server.clients
            )

        group.start_soon(upload)
        await eventually(upstream_is_full)
        (served,) = proxy.server.clients
        assert served._upstream is not None
        assert served._upstream.transport.get_write_buffer_size() < 1024 * 1024
        assert sent < BIG
        taking.set()
        assert await client.response() == OK
    assert digest.digest() == hashlib.sha256(PIECE * (BIG // len(PIECE))).digest()


async def test_a_connection_goes_on_after_congestion() -> None:
    """Requests after a large response and a large upload use the same connections."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 3_000_000)
            await writer.drain()

    async with (
        accepting(connected) as url,
        running_proxy(url) as proxy,
        connected_to(proxy.port) as client,
    ):
        for _ in range(5):
            answer = await client.ask(post(b"y" * 900_000))
            assert len(answer.partition(b"\r\n\r\n")[2]) == 3_000_000


async def echo(connection: ServerConnection) -> None:
    """Send back what comes."""
    async for message in connection:
        await connection.send(message)


async def test_websockets() -> None:
    """Messages of any size and kind go both ways, many at a time, and closing is orderly."""
    async with serve(echo, "127.0.0.1", 0, max_size=None) as upstream:
        port = upstream.sockets[0].getsockname()[1]
        async with running_proxy(f"http://127.0.0.1:{port}", idle_timeout=1) as proxy:
            async with connect(f"ws://127.0.0.1:{proxy.port}/x", max_size=None) as client:
                for message in ("", "é" * 1000, b"\x00" * 5_000_000):
                    await client.send(message)
                    assert await client.recv() == message
                for number in range(100):
                    await client.send(str(number))
                assert [await client.recv() for _ in range(100)] == [str(n) for n in range(100)]
                await anyio.sleep(1.5)  # longer than the idle limit, which is not for WebSockets
                await client.send("still")
                assert await client.recv() == "still"
            assert client.close_code == 1000
            await eventually(lambda: not proxy.server.clients)
            await eventually(lambda: not any(b.connections for b in proxy.server.routes.backends))


async def test_a_websocket_ends_with_its_route() -> None:
    """Upgraded connections end when their route is gone or leads elsewhere; others stay."""
    async with serve(echo, "127.0.0.1", 0) as upstream:
        port = upstream.sockets[0].getsockname()[1]
        target = f"http://127.0.0.1:{port}"
        async with running_proxy() as proxy:
            proxy.route(a=target, b=target, c=target)
            url = f"ws://127.0.0.1:{proxy.port}"
            async with (
                connect(f"{url}/a/") as gone,
                connect(f"{url}/b/") as moved,
                connect(f"{url}/c/") as kept,
            ):
                kept_route = Route("/c/", target, launch="launch-c")
                moved_route = Route("/b/", target, launch="another")
                proxy.server.apply(RouteTable("test", 9, [kept_route, moved_route]))
                for ended in (gone, moved):
                    with pytest.raises(ConnectionClosed):
                        await ended.recv()
                await kept.send("still")
                assert await kept.recv() == "still"


async def test_a_running_request_outlives_its_route() -> None:
    """A plain request finishes although its route is gone; its connection is not kept."""
    ready = asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await ready.wait()
        writer.write(OK)

    async with (
        accepting(connected) as url,
        running_proxy(url) as proxy,
        connected_to(proxy.port) as client,
    ):
        (backend,) = proxy.server.routes.backends
        await client.send(get())
        await eventually(lambda: backend.connections == 1)
        proxy.route()
        ready.set()
        assert await client.response() == OK
        await eventually(lambda: backend.connections == 0)
        assert (await client.ask(get())).startswith(b"HTTP/1.1 404 ")


async def test_bytes_around_the_switch_arrive() -> None:
    """What either side sends with the upgrade, in one piece, reaches the other."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCHED + b"hello")
        writer.write(await reader.readexactly(5))

    async with (
        accepting(connected) as url,
        running_proxy(url) as proxy,
        connected_to(proxy.port) as client,
    ):
        await client.send(UPGRADE + b"early")
        assert await client.reader.readuntil(b"\r\n\r\n") == SWITCHED
        assert await client.reader.readexactly(10) == b"helloearly"


async def test_a_half_closed_tunnel_ends_in_time() -> None:
    """After one side stopped sending, the other may still, for a limited time."""
    seen = asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCHED)
        assert await reader.read() == b"bye"
        seen.set()
        writer.write(b"last words")
        await asyncio.Event().wait()

    async with (
        accepting(connected) as url,
        running_proxy(url, half_closed_timeout=0.2) as proxy,
        connected_to(proxy.port) as client,
    ):
        await client.send(UPGRADE)
        await client.reader.readuntil(b"\r\n\r\n")
        await client.send(b"bye")
        client.writer.write_eof()
        await seen.wait()
        assert await client.rest() == b"last words"
        await eventually(lambda: not proxy.server.clients)


async def test_a_slow_websocket_stops_the_other_side() -> None:
    """Messages that are not taken are not gathered in memory."""
    sent = 0

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCHED)
        while sent < BIG:
            writer.write(PIECE)
            await writer.drain()
            sent += len(PIECE)

    async with (
        accepting(connected) as url,
        running_proxy(url) as proxy,
        connected_to(proxy.port) as client,
    ):
        await client.send(UPGRADE)
        await client.reader.readuntil(b"\r\n\r\n")
        high = proxy.server.limits.buffer_bytes
        await eventually(
            lambda: any(c.transport.get_write_buffer_size() > high for c in proxy.server.clients)
        )
        got = 0
        while got < BIG:
            got += len(await client.reader.read(1 << 20))
            assert all(c.transport.get_write_buffer_size() < 4 * high for c in proxy.server.clients)


async def test_activity_is_what_a_person_does(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Changes and navigations count; polls and WebSockets do not; the log has no query."""
    log = tmp_path_factory.mktemp("log") / "access"
    with log.open("wb") as file:
        async with (
            serve(echo, "127.0.0.1", 0) as websockets,
            accepting(_always_ok) as url,
            running_proxy(access_fd=file.fileno()) as proxy,
            connected_to(proxy.port) as client,
        ):
            port = websockets.sockets[0].getsockname()[1]
            proxy.route(poll=url, post=url, page=url, ws=f"http://127.0.0.1:{port}")
            await client.ask(get("/poll/?token=s3cret", b"Sec-Fetch-Mode: cors\r\n"))
            await client.ask(get("/page/?code=s3cret", b"Sec-Fetch-Mode: navigate\r\n"))
            await client.ask(post(b"", path="/post/"))
            async with connect(f"ws://127.0.0.1:{proxy.port}/ws/") as socket:
                await socket.send("x")
                await socket.recv()
            assert proxy.server.activity.keys() == {"launch-page", "launch-post"}
    lines = log.read_text()
    assert re.findall(r'"path":"(.*?)","status":(\d+)', lines) == [
        ("/poll/", "200"), ("/page/", "200"), ("/post/", "200"), ("/ws/", "101"),
    ]  # fmt: skip
    assert "s3cret" not in lines


async def _always_ok(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await read_request(reader)
        writer.write(OK)
