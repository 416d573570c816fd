"""The proxy and a hub: routes by long poll, snapshot, activity, error pages."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import anyio
import msgspec
import pytest

from perijove.proxy.settings import ControlAddress
from perijove.wire.control import SECRET_HEADER, ActivityReport, Route, RouteTable
from tests.contract.proxy.support import (
    OK,
    Proxy,
    accepting,
    answering,
    connected_to,
    eventually,
    get,
    post,
    read_request,
    running_proxy,
)

pytestmark = pytest.mark.anyio

SECRET = "a-secret"
GONE = "http://127.0.0.1:9"


@dataclass
class Hub:
    """A hub that answers on a control address as the contract says."""

    control: ControlAddress
    table: RouteTable = field(default_factory=lambda: RouteTable("one", 1, []))
    is_failing: bool = False
    polls: list[dict[str, list[str]]] = field(default_factory=list)
    reports: list[dict[str, float]] = field(default_factory=list)
    pages: list[bytes] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def publish(self, table: RouteTable) -> None:
        """Make `table` the one that workers get."""
        self.table = table
        self._changed.set()
        self._changed = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        raw = await read_request(reader)
        head, _, body = raw.partition(b"\r\n\r\n")
        assert f"{SECRET_HEADER}: {SECRET}".encode() in head
        method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
        parts = urlsplit(target)
        routes = await self._routes(parse_qs(parts.query)) if parts.path == "/routes" else b""
        if self.is_failing:
            answer = _answer(b"", 500)
        elif routes:
            answer = _answer(routes)
        elif parts.path == "/activity":
            assert method == "POST"
            self.reports.append(msgspec.json.decode(body, type=ActivityReport).launches)
            answer = b"HTTP/1.1 204 No Content\r\n\r\n"
        else:
            self.pages.append(head)
            page = f"<h1>{parts.path} {unquote(parts.query)}</h1>".encode()
            answer = _answer(page, kind=b"text/html; charset=utf-8\r\nContent-Language: fr")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async def _routes(self, query: dict[str, list[str]]) -> bytes:
        self.polls.append(query)
        if query["revision"] == [str(self.table.revision)]:
            with anyio.move_on_after(float(query["wait"][0])):
                await self._changed.wait()
        return msgspec.json.encode(self.table)


def _answer(body: bytes, status: int = 200, kind: bytes = b"application/json") -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (
        status, kind, len(body), body,
    )  # fmt: skip


@contextlib.asynccontextmanager
async def running_hub(path: Path | None = None) -> AsyncIterator[Hub]:
    """Run a hub on a TCP address, or on a unix socket."""
    hub = Hub(ControlAddress(""))
    async with accepting(hub.serve, path) as url:
        hub.control = ControlAddress(url, SECRET)
        yield hub


def prefixes(proxy: Proxy) -> set[str]:
    """Return the prefixes that the proxy routes."""
    return {backend.route.prefix for backend in proxy.server.routes.backends}


@pytest.mark.parametrize("is_unix", [False, True])
async def test_routes_come_by_long_poll(
    is_unix: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change reaches the proxy at once, and the next poll says that it is used."""
    monkeypatch.setattr("perijove.proxy.poll.MAX_WAIT_SECONDS", 3600)
    async with (
        answering(OK) as upstream,
        running_hub(tmp_path / "s" if is_unix else None) as hub,
        running_proxy(control=hub.control) as proxy,
        connected_to(proxy.port) as client,
    ):
        await eventually(lambda: len(hub.polls) == 2)
        assert hub.polls[0]["revision"] == ["0"]
        assert hub.polls[0]["worker"] == [proxy.server.worker]
        assert hub.polls[1]["revision"] == ["1"]
        assert hub.polls[1]["installation"] == ["one"]
        assert (await client.ask(get("/a/"))).startswith(b"HTTP/1.1 404 ")
        hub.publish(RouteTable("one", 2, [Route("/a/", upstream.url)], full=False))
        await eventually(lambda: hub.polls[-1]["revision"] == ["2"])
        assert await client.ask(get("/a/")) == OK


async def test_the_snapshot_routes_while_every_hub_is_down(tmp_path: Path) -> None:
    """A proxy that starts without a hub uses the last table at once."""
    snapshot = tmp_path / "routes.json"
    async with answering(OK) as upstream:
        async with (
            running_hub() as hub,
            running_proxy(control=hub.control, snapshot=snapshot) as proxy,
        ):
            hub.publish(RouteTable("one", 7, [Route("/a/", upstream.url)]))
            await eventually(snapshot.exists)
            control = hub.control
        assert snapshot.stat().st_mode & 0o777 == 0o600
        async with (
            running_proxy(control=control, snapshot=snapshot) as proxy,
            connected_to(proxy.port) as client,
        ):
            assert await client.ask(get("/a/")) == OK
            assert proxy.server.routes.revision == 7


async def test_a_broken_snapshot_is_left_aside(tmp_path: Path) -> None:
    """A file that is no table does not keep the proxy from starting."""
    (tmp_path / "routes.json").write_bytes(b'{"installation": ')
    async with (
        running_hub() as hub,
        running_proxy(control=hub.control, snapshot=tmp_path / "routes.json") as proxy,
    ):
        hub.publish(RouteTable("one", 7, [Route("/a/", GONE)]))
        await eventually(lambda: prefixes(proxy) == {"/a/"})


@pytest.mark.parametrize("table", [RouteTable("two", 50, []), RouteTable("one", 3, [])])
async def test_a_wrong_table_is_refused(table: RouteTable) -> None:
    """Another installation, or an older table, changes nothing until the right one comes."""
    async with running_hub() as hub, running_proxy(control=hub.control) as proxy:
        hub.publish(RouteTable("one", 5, [Route("/a/", GONE)]))
        await eventually(lambda: prefixes(proxy) == {"/a/"})
        polls = len(hub.polls)
        hub.publish(table)
        await eventually(lambda: len(hub.polls) > polls + 2)
        assert prefixes(proxy) == {"/a/"}
        hub.publish(RouteTable("one", 6, [Route("/b/", GONE)]))
        await eventually(lambda: prefixes(proxy) == {"/b/"})


async def test_a_hub_that_comes_back_is_found() -> None:
    """While the hub is away the table stays; soon after it is back, changes arrive."""
    async with running_hub() as hub, running_proxy(control=hub.control) as proxy:
        hub.publish(RouteTable("one", 5, [Route("/a/", GONE)]))
        await eventually(lambda: prefixes(proxy) == {"/a/"})
        hub.is_failing = True
        hub.publish(RouteTable("one", 6, [Route("/b/", GONE)]))
        async with connected_to(proxy.port) as client:
            for _ in range(20):
                assert (await client.ask(get("/a/api/x"))).startswith(b"HTTP/1.1 503 ")
        assert prefixes(proxy) == {"/a/"}
        hub.is_failing = False
        await eventually(lambda: prefixes(proxy) == {"/b/"})


async def test_activity_is_reported_and_kept_until_it_arrives() -> None:
    """A report that fails is merged into the next; stopping sends the last one."""
    async with answering(OK) as upstream, running_hub() as hub:
        async with (
            running_proxy(control=hub.control) as proxy,
            connected_to(proxy.port) as client,
        ):
            hub.publish(RouteTable("one", 2, [Route("/", upstream.url, launch="l1")]))
            await eventually(lambda: prefixes(proxy) == {"/"})
            assert await client.ask(post(b"x")) == OK
            hub.is_failing = True
            reporter = proxy.server._reporter
            assert reporter is not None
            await reporter.report()
            assert proxy.server.activity.keys() == {"l1"}
            hub.is_failing = False
        assert [report.keys() for report in hub.reports] == [{"l1"}]
        assert hub.reports[0]["l1"] > 1_700_000_000


async def test_error_pages_are_the_hubs() -> None:
    """The hub's page is relayed with the status of the fault; it gets what it needs to make it."""
    asked = get(
        "/user/ann/lab?code=s3cret",
        b"Accept: text/html\r\nAccept-Language: fr\r\nCookie: a=b\r\nX-Other: 1\r\n",
    )
    async with (
        running_hub() as hub,
        running_proxy(control=hub.control) as proxy,
        connected_to(proxy.port) as client,
    ):
        hub.publish(RouteTable("one", 2, [Route("/user/ann/", GONE)]))
        await eventually(lambda: prefixes(proxy) == {"/user/ann/"})
        answer = await client.ask(asked)
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"Content-Language: fr\r\n" in answer
        assert answer.endswith(b"<h1>/error/503 url=/user/ann/lab</h1>")
        for passed_on in (b"Accept: text/html", b"Accept-Language: fr", b"Cookie: a=b"):
            assert passed_on in hub.pages[0]
        assert b"X-Other" not in hub.pages[0]
        assert b"s3cret" not in hub.pages[0]
        assert (await client.ask(get("/nowhere"))).startswith(b"HTTP/1.1 404 ")


async def test_a_burst_of_errors_does_not_storm_the_hub() -> None:
    """The same fault for the same person is asked once; a hub that is away is not asked at all."""
    async with (
        running_hub() as hub,
        running_proxy(control=hub.control) as proxy,
        connected_to(proxy.port) as client,
    ):
        hub.publish(RouteTable("one", 2, [Route("/", GONE)]))
        await eventually(lambda: prefixes(proxy) == {"/"})
        for _ in range(50):
            await client.ask(get())
        assert len(hub.pages) == 1


@pytest.mark.parametrize(
    "target", [GONE, "http://a..b:1", "unix:/nowhere/at.all", "https://[::1]:9"]
)
async def test_a_target_that_cannot_be_reached(target: str) -> None:
    """Whatever is wrong with a target, the client gets the page for it."""
    async with running_proxy(target) as proxy, connected_to(proxy.port) as client:
        for raw in (get(), post(b"x")):
            assert (await client.ask(raw)).startswith(b"HTTP/1.1 503 ")
            if raw.startswith(b"POST"):
                assert await client.rest() == b""
        await eventually(lambda: not any(b.connections for b in proxy.server.routes.backends))


async def test_our_own_page_while_the_hub_is_away() -> None:
    """Without a hub there is still a page in the person's language, and JSON for a program."""
    async with running_proxy(GONE) as proxy, connected_to(proxy.port) as client:
        page = await client.ask(get("/lab", b"Accept: text/html\r\nAccept-Language: pt-BR\r\n"))
        assert page.startswith(b"HTTP/1.1 503 ")
        assert b'<html lang="pt">' in page
        answer = await client.ask(get("/user/ann/api/kernels"))
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert msgspec.json.decode(answer.partition(b"\r\n\r\n")[2])["status"] == 503
