"""What a client gets through the proxy is what the upstream said, and the other way round."""

import asyncio
from pathlib import Path

import anyio
import anyio.lowlevel
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

pytestmark = pytest.mark.anyio

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"


async def test_a_request_arrives_as_it_was_sent() -> None:
    """Target, Host and fields are the client's own; only X-Forwarded fields are added."""
    async with answering(OK) as upstream, running_proxy(upstream.url) as proxy:
        raw = get("/user/ann/api/contents/a%2Fb%20c?x=%2e%2e&y=a%20b", b"Cookie: a=b\r\nX-A: 1\r\n")
        async with connected_to(proxy.port) as client:
            assert await client.ask(raw) == OK
        assert upstream.received == [
            raw[:-2] + b"X-Forwarded-Proto: http\r\nX-Forwarded-Port: 80\r\n"
            b"X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Host: hub.example.org\r\n\r\n"
        ]


async def test_forwarded_fields_of_a_trusted_proxy_are_kept() -> None:
    """A trusted peer's fields are extended; its word on scheme, host and port stands."""
    said = (
        b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n"
        b"X-Forwarded-Host: public.example.org\r\n"
    )
    async with (
        answering(OK) as upstream,
        running_proxy(upstream.url, trusted_proxies=["127.0.0.0/8"]) as proxy,
        connected_to(proxy.port) as client,
    ):
        await client.ask(get("/", said))
        assert upstream.received[0].endswith(
            b"X-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\n"
            b"X-Forwarded-For: 192.0.2.1, 127.0.0.1\r\n"
            b"X-Forwarded-Host: public.example.org\r\n\r\n"
        )


async def test_connections_are_kept_on_both_sides() -> None:
    """Many requests of one client need one connection to the upstream."""
    async with (
        answering(OK) as upstream,
        running_proxy(upstream.url) as proxy,
        connected_to(proxy.port) as client,
    ):
        for _ in range(20):
            assert await client.ask(get()) == OK
        assert upstream.connections == 1


async def test_pipelined_requests_are_answered_in_turn() -> None:
    """Requests sent at once are served one after the other, in order."""
    answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % n for n in range(5)]
    async with (
        answering(*answers) as upstream,
        running_proxy(upstream.url) as proxy,
        connected_to(proxy.port) as client,
    ):
        await client.send(get("/0") + post(b"body", path="/1") + get("/2") + get("/3") + get("/4"))
        assert [await client.response() for _ in answers] == answers
        assert [raw.split()[1] for raw in upstream.received] == [b"/%d" % n for n in range(5)]
        assert upstream.connections == 1


async def test_thousands_of_pipelined_requests() -> None:
    """Requests that the proxy answers itself do not nest, however many come at once."""
    async with running_proxy() as proxy, connected_to(proxy.port) as client:
        await client.send(
            get("/_chp_healthz") * 5000 + get("/_chp_healthz", b"Connection: close\r\n")
        )
        assert (await client.rest()).count(b'{"status": "OK"}') == 5001


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("GET", CHUNKED),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 5\r\n\r\n"),
        ("GET", b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc"),
        ("GET", b"HTTP/1.1 500 \r\nContent-Length: 3\r\nX: \xe9\r\n\r\nabc"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ],
)
async def test_responses_of_every_kind_keep_the_connection(method: str, answer: bytes) -> None:
    """A response arrives byte by byte as it was sent, and the next one after it."""
    raw = get().replace(b"GET", method.encode(), 1)
    async with (
        answering(answer) as upstream,
        running_proxy(upstream.url) as proxy,
        connected_to(proxy.port) as client,
    ):
        for _ in range(3):
            assert await client.ask(raw, method) == answer
        assert upstream.connections == 1


async def test_a_response_may_come_in_any_pieces() -> None:
    """A response that arrives byte by byte is the same response."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            for at in range(len(CHUNKED)):
                writer.write(CHUNKED[at : at + 1])
                await anyio.lowlevel.checkpoint()

    async with (
        accepting(connected) as url,
        running_proxy(url) as proxy,
        connected_to(proxy.port) as client,
    ):
        for _ in range(3):
            assert await client.ask(get()) == CHUNKED


async def test_a_request_may_come_in_any_pieces() -> None:
    """A request that arrives byte by byte is the same request."""
    raw = post(b"hello", b"X: y\r\n")
    async with (
        answering(OK) as upstream,
        running_proxy(upstream.url) as proxy,
        connected_to(proxy.port) as client,
    ):
        client.writer.get_extra_info("socket").setsockopt(6, 1, 1)
        for at in range(len(raw)):
            await client.send(raw[at : at + 1])
            await anyio.lowlevel.checkpoint()
        assert await client.response() == OK
        assert upstream.received[0].endswith(b"\r\n\r\nhello")


async def test_a_chunked_request_is_passed_on_with_its_trailer() -> None:
    """Chunks, extensions and trailer of a request arrive as they were sent."""
    body = b"3;x=y\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nDigest: z\r\n\r\n"
    raw = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n" + body
    async with (
        answering(OK) as upstream,
        running_proxy(upstream.url) as proxy,
        connected_to(proxy.port) as client,
    ):
        for _ in range(2):
            assert await client.ask(raw) == OK
        assert [request.partition(b"\r\n\r\n")[2] for request in upstream.received] == [body, body]
        assert upstream.connections == 1


async def test_a_body_that_ends_with_the_connection() -> None:
    """A response without a length is relayed to its end, and the client is told it closes."""
    answer = b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nhello"
    async with answering(answer, closes=True) as upstream, running_proxy(upstream.url) as proxy:
        assert await say(proxy.port, get()) == (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nhello"
        )


async def test_connection_close_is_honoured() -> None:
    """A client that wants its connection closed gets the response, and the end."""
    async with answering(OK) as upstream, running_proxy(upstream.url) as proxy:
        closed = await say(proxy.port, get("/", b"Connection: close\r\n"))
        assert closed == OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        assert b"Connection" not in upstream.received[0]


async def test_an_http10_client_is_served() -> None:
    """A client of HTTP/1.0 is answered and its connection closed."""
    async with answering(OK, closes=True) as upstream, running_proxy(upstream.url) as proxy:
        answer = await say(proxy.port, b"GET /a HTTP/1.0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"ok")
        assert upstream.received[0].startswith(b"GET /a HTTP/1.0\r\nConnection: close\r\n")


async def test_an_upstream_that_closes_is_not_used_again() -> None:
    """`Connection: close` of the upstream is between it and us: the client's connection stays."""
    closing = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    async with (
        answering(closing, closes=True) as upstream,
        running_proxy(upstream.url) as proxy,
        connected_to(proxy.port) as client,
    ):
        for _ in range(3):
            assert await client.ask(get()) == OK
        assert upstream.connections == 3


async def test_continue_is_asked_of_the_upstream() -> None:
    """A client that expects 100 gets the upstream's, then sends its body."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Expect: 100-continue\r\n" in head
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        writer.write(OK.replace(b"ok", await reader.readexactly(2)))

    raw = post(b"hi", b"Expect: 100-continue\r\n")
    async with (
        accepting(connected) as url,
        running_proxy(url) as proxy,
        connected_to(proxy.port) as client,
    ):
        await client.send(raw[:-2])
        assert await client.response() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(raw[-2:])
        assert await client.response() == OK.replace(b"ok", b"hi")


async def test_early_hints_are_passed_on() -> None:
    """Interim responses reach the client before the final one."""
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
    async with (
        answering(hints + hints + OK) as upstream,
        running_proxy(upstream.url) as proxy,
        connected_to(proxy.port) as client,
    ):
        await client.send(get())
        assert [await client.response() for _ in range(3)] == [hints, hints, OK]


async def test_an_early_answer_ends_the_upload() -> None:
    """An answer before the end of a body reaches the client, who is told that it is over."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")

    async with (
        accepting(connected) as url,
        running_proxy(url) as proxy,
        connected_to(proxy.port) as client,
    ):
        raw = post(b"x" * 200_000)
        await client.send(raw[:1000])
        answer = await client.response()
        assert b"Connection: close\r\n" in answer
        assert answer.endswith(b"big")
        await client.send(raw[1000:])
        assert await client.rest() == b""


async def test_a_client_that_stops_sending_is_still_answered() -> None:
    """A client may close its sending side after its request."""
    async with (
        answering(OK) as upstream,
        running_proxy(upstream.url) as proxy,
        connected_to(proxy.port) as client,
    ):
        await client.send(get("/1") + get("/2"))
        client.writer.write_eof()
        assert await client.rest() == OK + OK


async def test_a_client_that_leaves_ends_its_request() -> None:
    """The upstream's connection ends when the client goes away in the middle of a body."""
    ended = asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            while await reader.read(65536):
                continue
        finally:
            ended.set()

    async with accepting(connected) as url, running_proxy(url) as proxy:
        async with connected_to(proxy.port) as client:
            await client.send(post(b"x" * 1000)[:-500])
            await eventually(lambda: any(c.exchange.left == 500 for c in proxy.server.clients))
        with anyio.fail_after(DEADLINE):
            await ended.wait()
        await eventually(lambda: not proxy.server.clients)


async def test_events_are_not_held_back() -> None:
    """Each piece of a stream of events arrives before the next is made."""
    ready = asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(3):
            writer.write(b"7\r\ndata: x\r\n")
            await ready.wait()
            ready.clear()
        writer.write(b"0\r\n\r\n")

    async with (
        accepting(connected) as url,
        running_proxy(url) as proxy,
        connected_to(proxy.port) as client,
    ):
        await client.send(get())
        await client.reader.readuntil(b"\r\n\r\n")
        for _ in range(3):
            with anyio.fail_after(DEADLINE):
                assert await client.reader.readexactly(12) == b"7\r\ndata: x\r\n"
            ready.set()
        assert await client.reader.readexactly(5) == b"0\r\n\r\n"


async def test_a_stale_connection_is_replaced() -> None:
    """A kept connection that the upstream closed costs nothing, not even a POST."""
    async with (
        answering(OK, closes=True) as upstream,
        running_proxy(upstream.url) as proxy,
        connected_to(proxy.port) as client,
    ):
        for raw in (get(), post(b"x"), get(), post(b"x")):
            assert await client.ask(raw) == OK
            await eventually(lambda: all(not b.idle for b in proxy.server.routes.backends))


@pytest.mark.parametrize(("raw", "status"), [(get(), b"200"), (post(b"x"), b"503")])
async def test_only_an_idempotent_request_is_sent_twice(raw: bytes, status: bytes) -> None:
    """A kept connection that ends with the next request: a GET goes again, a POST does not."""
    seen: list[bytes] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(OK)
        seen.append(await read_request(reader))
        writer.close()

    async with (
        accepting(connected) as url,
        running_proxy(url) as proxy,
        connected_to(proxy.port) as client,
    ):
        await client.ask(get("/first"))
        assert (await client.ask(raw))[9:12] == status
        assert len(seen) == (3 if status == b"200" else 2)


async def test_health_is_the_proxys_own() -> None:
    """The health path is answered without any route."""
    async with running_proxy() as proxy, connected_to(proxy.port) as client:
        answer = await client.ask(get("/_chp_healthz"))
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b'{"status": "OK"}')


async def test_a_unix_target(tmp_path: Path) -> None:
    """A target may be a unix socket."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            writer.write(OK)

    async with (
        accepting(connected, tmp_path / "s") as url,
        running_proxy(url) as proxy,
        connected_to(proxy.port) as client,
    ):
        assert await client.ask(get()) == OK
        assert await client.ask(get()) == OK
