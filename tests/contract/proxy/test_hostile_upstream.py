"""Upstreams that lie: both connections end, or the client gets an error page."""

import asyncio

import anyio
import pytest

from tests.contract.proxy.support import (
    DEADLINE,
    OK,
    accepting,
    answering,
    connected_to,
    eventually,
    get,
    read_request,
    running_proxy,
    say,
)
from tests.unit.proxy.corpus import BAD_CHUNKS, HOSTILE_RESPONSES

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("fault", HOSTILE_RESPONSES)
async def test_nothing_of_a_bad_response_is_believed(fault: str) -> None:
    """A fault that comes at once gives an error page, and the upstream is asked anew."""
    async with (
        answering(HOSTILE_RESPONSES[fault], OK, closes=True) as upstream,
        running_proxy(upstream.url) as proxy,
        connected_to(proxy.port) as client,
    ):
        answer = b""
        await client.send(get())
        while not answer or answer[9:10] == b"1":
            answer = await client.response()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert await client.ask(get()) == OK
        assert upstream.connections == 2


@pytest.mark.parametrize("fault", HOSTILE_RESPONSES)
async def test_a_bad_response_in_pieces_poisons_nothing(fault: str) -> None:
    """Byte by byte, the client sees at most one response, and the next client a good one."""
    bad = HOSTILE_RESPONSES[fault]
    bad = bad if len(bad) < 5000 else bad[:500]

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader)
        if b"/good" in request:
            writer.write(OK)
            return
        for at in range(len(bad)):
            writer.write(bad[at : at + 1])
            await anyio.sleep(0)  # noqa: ASYNC115 - a turn of the loop, so that pieces stay pieces
        writer.close()

    async with accepting(connected) as url, running_proxy(url) as proxy:
        answer = await say(proxy.port, get("/", b"Connection: close\r\n"))
        finals = answer.count(b"HTTP/1.1 ") - answer.count(b"HTTP/1.1 1")
        assert finals <= 1
        async with connected_to(proxy.port) as client:
            assert await client.ask(get("/good")) == OK


@pytest.mark.parametrize("fault", BAD_CHUNKS)
async def test_a_bad_chunk_cuts_the_response(fault: str) -> None:
    """A fault in the framing ends a response that has begun so that it is not taken for whole."""
    ready = asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await ready.wait()
        writer.write(BAD_CHUNKS[fault] + b"0\r\n\r\n")

    async with (
        accepting(connected) as url,
        running_proxy(url) as proxy,
        connected_to(proxy.port) as client,
    ):
        await client.send(get())
        await client.reader.readuntil(b"\r\n\r\n")
        ready.set()
        assert not (await client.rest()).endswith(b"0\r\n\r\n")
        await eventually(lambda: not proxy.server.clients)


async def test_surplus_after_the_response_reaches_nobody() -> None:
    """Bytes after a response, when its client may ask again, are not taken for the next one."""
    ready = asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        if not ready.is_set():
            await ready.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")

    async with (
        accepting(connected) as url,
        running_proxy(url) as proxy,
        connected_to(proxy.port) as client,
    ):
        assert await client.ask(get()) == OK
        ready.set()
        await eventually(lambda: all(not b.idle for b in proxy.server.routes.backends))
        assert await client.ask(get()) == OK


async def test_more_than_declared_cuts_the_client() -> None:
    """A surplus after part of the body has been relayed ends the client's connection."""
    ready = asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
        await ready.wait()
        writer.write(b"defHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")

    async with (
        accepting(connected) as url,
        running_proxy(url) as proxy,
        connected_to(proxy.port) as client,
    ):
        await client.send(get())
        await client.reader.readuntil(b"abc")
        ready.set()
        assert b"evil" not in await client.rest()


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n",
    ],
)
async def test_a_response_cut_short_is_cut_for_the_client(head: bytes) -> None:
    """A response that ends too early reaches its client as far as it came, then the end."""
    async with (
        answering(head + b"abc", closes=True) as upstream,
        running_proxy(upstream.url) as proxy,
    ):
        assert await say(proxy.port, get()) == head + b"abc"


async def test_a_reset_is_not_the_end_of_a_body() -> None:
    """A body that ends with its connection is not taken for whole when that is reset."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nabc")
        await ready.wait()
        writer.get_extra_info("socket").setsockopt(1, 13, b"\x01\0\0\0\0\0\0\0")
        writer.transport.abort()

    ready = asyncio.Event()
    async with (
        accepting(connected) as url,
        running_proxy(url) as proxy,
        connected_to(proxy.port) as client,
    ):
        await client.send(get())
        await client.reader.readuntil(b"abc")
        ready.set()
        with pytest.raises(ConnectionResetError), anyio.fail_after(DEADLINE):
            await client.reader.read()


async def test_a_switch_needs_a_websocket_answer() -> None:
    """Even to an upgrade that was asked for, only a WebSocket is an answer."""
    bad = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    asked = get("/", b"Connection: Upgrade\r\nUpgrade: websocket\r\n")
    async with (
        answering(bad, closes=True) as upstream,
        running_proxy(upstream.url) as proxy,
        connected_to(proxy.port) as client,
    ):
        assert (await client.ask(asked)).startswith(b"HTTP/1.1 503 ")


async def test_a_refused_upgrade_is_an_ordinary_response() -> None:
    """An upgrade that the server declines leaves a connection for the next request."""
    denied = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"
    asked = get("/", b"Connection: Upgrade\r\nUpgrade: websocket\r\n")
    async with (
        answering(denied, OK) as upstream,
        running_proxy(upstream.url) as proxy,
        connected_to(proxy.port) as client,
    ):
        await client.send(asked + get())
        assert await client.response() == denied
        assert await client.response() == OK


async def test_an_upstream_that_never_answers() -> None:
    """With a limit on the start of a response, waiting ends with an error page."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with (
        accepting(connected) as url,
        running_proxy(url, response_timeout=0.2) as proxy,
        connected_to(proxy.port) as client,
    ):
        assert (await client.ask(get())).startswith(b"HTTP/1.1 503 ")


async def test_too_many_connections_to_a_target() -> None:
    """Requests over a target's limit are answered, not queued."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with (
        accepting(connected) as url,
        running_proxy(url, max_connections_per_target=1) as proxy,
        connected_to(proxy.port) as first,
        connected_to(proxy.port) as second,
    ):
        await first.send(get())
        await eventually(lambda: all(b.connections for b in proxy.server.routes.backends))
        assert (await second.ask(get())).startswith(b"HTTP/1.1 503 ")
