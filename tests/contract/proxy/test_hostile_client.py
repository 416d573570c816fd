"""Clients that lie, linger or ask for too much, through real sockets."""

import asyncio
import contextlib

import anyio
import pytest

from tests.contract.proxy.support import (
    DEADLINE,
    HOST,
    OK,
    accepting,
    answering,
    connected_to,
    eventually,
    get,
    post,
    read_request,
    running_proxy,
    say,
)
from tests.unit.proxy.corpus import BAD_CHUNKS, REFUSED_HEADS

pytestmark = pytest.mark.anyio

SMUGGLED = get("/smuggled")


@pytest.mark.parametrize("fault", REFUSED_HEADS)
async def test_a_refused_head_ends_the_connection(fault: str) -> None:
    """The fault is answered with its status, nothing reaches the upstream, nothing follows."""
    raw, status = REFUSED_HEADS[fault]
    async with answering(OK) as upstream, running_proxy(upstream.url) as proxy:
        answer = await say(proxy.port, raw + SMUGGLED)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert answer.count(b"HTTP/1.1 ") == 1
        assert upstream.received == []


@pytest.mark.parametrize("fault", REFUSED_HEADS)
async def test_a_refused_head_in_pieces(fault: str) -> None:
    """The same in pieces, after a good request on the same connection."""
    raw, _ = REFUSED_HEADS[fault]
    async with (
        answering(OK) as upstream,
        running_proxy(upstream.url) as proxy,
        connected_to(proxy.port) as client,
    ):
        assert await client.ask(get()) == OK
        with contextlib.suppress(ConnectionError):
            for at in range(0, len(raw), 7):
                await client.send(raw[at : at + 7])
            await client.send(SMUGGLED)
        assert (await client.rest())[:10] in (b"HTTP/1.1 4", b"HTTP/1.1 5")
        assert len(upstream.received) == 1


@pytest.mark.parametrize("fault", BAD_CHUNKS)
@pytest.mark.parametrize("size", [1, 1 << 20])
async def test_a_bad_chunk_ends_both_connections(fault: str, size: int) -> None:
    """Nothing after the fault reaches the upstream, and its connection is not used again."""
    got = bytearray()
    ended = asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(65536):
                got.extend(piece)
        finally:
            ended.set()

    head = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    raw = BAD_CHUNKS[fault] + SMUGGLED
    async with (
        accepting(connected) as url,
        running_proxy(url) as proxy,
        connected_to(proxy.port) as client,
    ):
        await client.send(head)
        await eventually(lambda: b"chunked\r\n" in got)
        with contextlib.suppress(ConnectionError):
            for at in range(0, len(raw), size):
                await client.send(raw[at : at + size])
        assert (await client.rest()).startswith(b"HTTP/1.1 400 ")
        with anyio.fail_after(DEADLINE):
            await ended.wait()
        assert b"/smuggled" not in got


async def test_a_body_is_not_taken_for_a_request() -> None:
    """What a body holds is the upstream's to read, and what follows it is the next request."""
    inner = get("/inner")
    async with (
        answering(OK) as upstream,
        running_proxy(upstream.url) as proxy,
        connected_to(proxy.port) as client,
    ):
        await client.send(post(inner, path="/outer") + get("/next"))
        assert await client.response() == OK
        assert await client.response() == OK
        assert [raw.split()[1] for raw in upstream.received] == [b"/outer", b"/next"]
        assert upstream.received[0].endswith(inner)


async def test_the_control_secret_is_never_passed_on() -> None:
    """A client cannot speak to a target as the proxy speaks to the hub."""
    async with (
        answering(OK) as upstream,
        running_proxy(upstream.url) as proxy,
        connected_to(proxy.port) as client,
    ):
        await client.ask(get("/", b"X-Perijove-Control: s\r\nx-perijove-control: t\r\n"))
        assert b"perijove" not in upstream.received[0].lower()


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /" + b"a" * 70_000, b"414"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"a" * 70_000, b"431"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 12_000 + b"\r\n", b"431"),
        (b"\x16\x03\x01\x02\x00", b"400"),
        (b"GET / HTTP/1.1\nHost", b"400"),
        (b"<html>", b"400"),
    ],
)
async def test_what_cannot_become_a_request_is_not_waited_for(raw: bytes, status: bytes) -> None:
    """Too much, or the wrong bytes, are refused before the end of a head."""
    async with running_proxy() as proxy:
        assert (await say(proxy.port, raw))[9:12] == status


async def test_a_slow_head_is_refused() -> None:
    """A head must be whole in time, however steadily it trickles."""
    async with (
        running_proxy(head_timeout=0.2) as proxy,
        connected_to(proxy.port) as client,
        anyio.create_task_group() as group,
    ):

        async def trickle() -> None:
            with contextlib.suppress(ConnectionError):
                await client.send(b"GET / HTTP/1.1\r\n" + HOST)
                while True:
                    await client.send(b"A: b\r\n")
                    await anyio.sleep(0.02)

        group.start_soon(trickle)
        answer = await client.rest()
        group.cancel_scope.cancel()
    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_an_idle_client_is_closed() -> None:
    """A connection that asks for nothing, at first or any more, ends."""
    async with (
        answering(OK) as upstream,
        running_proxy(upstream.url, idle_timeout=1) as proxy,
        connected_to(proxy.port) as fresh,
        connected_to(proxy.port) as used,
    ):
        assert await used.ask(get()) == OK
        assert await fresh.rest() == b""
        assert await used.rest() == b""


async def test_a_slow_body_is_refused() -> None:
    """A body that makes no progress ends the request and its upstream."""
    async with answering(OK) as upstream, running_proxy(upstream.url, body_timeout=0.2) as proxy:
        answer = await say(proxy.port, post(b"x" * 1000)[:-500])
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert upstream.received == []


async def test_a_client_that_expects_to_continue_has_a_limit_too() -> None:
    """A body that is held back until it is asked for is not waited for without end."""
    async with answering(OK) as upstream, running_proxy(upstream.url, send_timeout=0.2) as proxy:
        raw = post(b"x" * 10, b"Expect: 100-continue\r\n")[:-10]
        assert (await say(proxy.port, raw)).startswith(b"HTTP/1.1 408 ")


async def test_a_body_that_makes_progress_may_take_longer() -> None:
    """The limit is on progress, not on the whole."""
    async with (
        answering(OK) as upstream,
        running_proxy(upstream.url, body_timeout=1) as proxy,
        connected_to(proxy.port) as client,
    ):
        raw = post(b"x" * 40_000)
        for at in range(0, len(raw), 4000):
            await client.send(raw[at : at + 4000])
            await anyio.sleep(0.15)
        assert await client.response() == OK


async def test_a_client_that_reads_nothing_is_closed() -> None:
    """A response that its client does not take ends, and the upstream's connection with it."""
    ended = asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
            while True:
                writer.write(b"x" * 100_000)
                await writer.drain()
        finally:
            ended.set()

    async with (
        accepting(connected) as url,
        running_proxy(url, send_timeout=0.2) as proxy,
        connected_to(proxy.port) as client,
    ):
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(get())
        with anyio.fail_after(DEADLINE):
            await ended.wait()
        await eventually(lambda: not proxy.server.clients)


async def test_a_client_that_asks_and_reads_nothing_is_not_served_on() -> None:
    """Requests without end whose answers are not taken use bounded memory."""
    async with running_proxy(send_timeout=0.5) as proxy, connected_to(proxy.port) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        with contextlib.suppress(ConnectionError):
            while True:
                await client.send(get("/_chp_healthz") * 100)
                for served in proxy.server.clients:
                    size = served.transport.get_write_buffer_size()
                    assert size < 2 * 1024 * 1024
        await eventually(lambda: not proxy.server.clients)


async def test_too_many_connections_are_refused() -> None:
    """Connections over the limit end at once; those before are served."""
    async with running_proxy(max_connections=2) as proxy:
        async with connected_to(proxy.port) as one, connected_to(proxy.port) as two:
            assert (await one.ask(get("/_chp_healthz"))).startswith(b"HTTP/1.1 200")
            assert (await two.ask(get("/_chp_healthz"))).startswith(b"HTTP/1.1 200")
            assert await say(proxy.port, get("/_chp_healthz")) == b""
        await eventually(lambda: not proxy.server.clients)
        async with connected_to(proxy.port) as three:
            assert (await three.ask(get("/_chp_healthz"))).startswith(b"HTTP/1.1 200")


async def test_a_client_that_leaves_behind_a_request_is_noticed() -> None:
    """A client that sent its next request too early, and left, does not hold its server's."""
    ended = asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(65536):
                continue
        finally:
            ended.set()

    async with accepting(connected) as url, running_proxy(url, half_closed_timeout=0.1) as proxy:
        async with connected_to(proxy.port) as client:
            await client.send(get("/endless") + get("/next"))
            await eventually(lambda: any(b.connections for b in proxy.server.routes.backends))
        with anyio.fail_after(DEADLINE):
            await ended.wait()
        await eventually(lambda: not proxy.server.clients)


async def test_a_client_that_waits_behind_a_request_is_served() -> None:
    """A client that sent its next request too early, and waits, is not cut."""
    ready = asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            await ready.wait()
            writer.write(OK)

    async with (
        accepting(connected) as url,
        running_proxy(url, half_closed_timeout=0.1) as proxy,
        connected_to(proxy.port) as client,
    ):
        await client.send(get("/slow") + get("/next"))
        await anyio.sleep(0.5)  # longer than the limit, which is for those who have left
        ready.set()
        assert await client.response() == OK
        assert await client.response() == OK
