"""What proxies ask of the hub, over a real unix socket, on both databases."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import httpx2
import msgspec
import pytest
from sqlalchemy import Connection, func, select

from perijove.db import launches as rows
from perijove.db.core import bound
from perijove.db.routes import live_workers, put_route, remove_routes
from perijove.db.tables import launches, servers, users
from perijove.domain.launch import Launch, Status
from perijove.kit.clock import monotonic
from perijove.kit.loops import until
from perijove.web.app import create_app
from perijove.web.control import create_control_app
from perijove.web.listen import open_unix, serve
from perijove.wire.control import MAX_WAIT_SECONDS, SECRET_HEADER, RouteTable
from tests.hubs import TestHub, running_hub

pytestmark = pytest.mark.anyio

HERE = "http://127.0.0.1:1"
PATIENCE = 50.0
"""Seconds a proxy waits for an answer, on a machine that may be busy."""
LONG = 3600.0


@dataclass(frozen=True)
class Control:
    """A hub, and a proxy's connection to it."""

    hub: TestHub
    client: httpx2.AsyncClient
    socket: Path

    async def poll(
        self, revision: int = 0, *, worker: str = "w1", wait: float = 0, installation: str = ""
    ) -> RouteTable:
        """Ask for routes as a proxy does."""
        response = await self.client.get(
            "/routes",
            params={
                "worker": worker,
                "revision": revision,
                "wait": wait,
                "installation": installation,
            },
        )
        assert response.status_code == 200
        return msgspec.json.decode(response.content, type=RouteTable)

    async def put(self, prefix: str, launch: str | None = None) -> int:
        """Change the table as a step of a launch does."""
        revision = await self.hub.hub.database.write(
            bound(put_route, prefix=prefix, target=HERE, launch_id=launch)
        )
        self.hub.hub.routes.strike()
        return revision

    async def is_polled(self) -> bool:
        """Tell whether a worker polls."""
        read = bound(live_workers, now=self.hub.hub.clock.now())
        return bool(await self.hub.hub.database.read(read))

    async def report(self, seen: dict[str, float]) -> int:
        """Report activity as a proxy does; returns the status."""
        response = await self.client.post("/activity", json={"launches": seen})
        return response.status_code


@asynccontextmanager
async def control(
    database_url: str, directory: Path, *, secret: str = ""
) -> AsyncIterator[Control]:
    """Serve the control application of a hub that does nothing else."""
    path = directory / "control.sock"
    with open_unix(path) as listener:
        async with (
            running_hub(database_url, directory, loops=False, with_proxy=False) as hub,
            httpx2.AsyncClient(
                transport=httpx2.AsyncHTTPTransport(uds=str(path)),
                base_url="http://hub",
                timeout=PATIENCE,
            ) as client,
        ):
            app = create_control_app(hub.hub, create_app(hub.hub), secret=secret)
            hub.tasks.start_soon(serve, app, [listener])
            yield Control(hub, client, path)
            hub.hub.stopping.set()
            hub.hub.routes.strike()


# --- routes -----------------------------------------------------------------------------------


@pytest.fixture
def _polls_may_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a poll without an answer last longer than anybody here waits for one."""
    monkeypatch.setattr("perijove.web.control.MAX_WAIT_SECONDS", LONG)


@pytest.mark.usefixtures("_polls_may_last")
async def test_a_poll_returns_as_soon_as_something_changes(
    database_url: str, tmp_path: Path
) -> None:
    """Who waits with the newest revision is told of a change within a moment, and only of it."""
    async with control(database_url, tmp_path) as site:
        known = await site.put("/")
        told: list[RouteTable] = []

        async def wait() -> None:
            told.append(await site.poll(known, wait=LONG))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            assert await until(site.is_polled, seconds=PATIENCE)
            assert told == []
            await site.put("/user/ann/", "lch_a")

    (table,) = told
    assert not table.full
    assert [(route.prefix, route.launch) for route in table.routes] == [("/user/ann/", "lch_a")]
    assert table.revision == known + 1


async def test_a_poll_without_change_ends_after_its_time(database_url: str, tmp_path: Path) -> None:
    """However long a worker asks to wait, it proves at least every few seconds that it lives."""
    async with control(database_url, tmp_path) as site:
        known = await site.put("/")
        began = monotonic()
        table = await site.poll(known, wait=LONG)

        assert monotonic() - began >= MAX_WAIT_SECONDS - 0.1
        assert (table.revision, table.routes, table.removed) == (known, [], [])


@pytest.mark.usefixtures("_polls_may_last")
async def test_a_poll_that_is_behind_is_answered_at_once(database_url: str, tmp_path: Path) -> None:
    """A delta for who knows a revision, everything for who knows none."""
    async with control(database_url, tmp_path) as site:
        await site.put("/")
        known = await site.put("/user/a/", "lch_a")
        await site.put("/user/b/", "lch_b")
        await site.hub.hub.database.write(
            bound(remove_routes, "lch_a", now=site.hub.hub.clock.now())
        )
        delta = await site.poll(known, wait=LONG)
        everything = await site.poll(0, wait=LONG)

        assert not delta.full
        assert [route.prefix for route in delta.routes] == ["/user/b/"]
        assert delta.removed == [("", "/user/a/")]
        assert everything.full
        assert {route.prefix for route in everything.routes} == {"/", "/user/b/"}
        assert everything.installation == site.hub.hub.installation


@pytest.mark.usefixtures("_polls_may_last")
async def test_a_proxy_of_another_installation_is_told_everything(
    database_url: str, tmp_path: Path
) -> None:
    """Its revision means nothing here."""
    async with control(database_url, tmp_path) as site:
        known = await site.put("/")
        table = await site.poll(known, installation="other", wait=LONG)

        assert table.full
        assert [route.prefix for route in table.routes] == ["/"]


async def test_a_poll_says_which_table_a_worker_uses(database_url: str, tmp_path: Path) -> None:
    """The hub counts a worker, and the revision it asked with, from the start of its poll."""
    async with control(database_url, tmp_path) as site:
        known = await site.put("/")
        await site.poll(0, worker="w1")
        await site.poll(known, worker="w2")
        read = bound(live_workers, now=site.hub.hub.clock.now())
        found = await site.hub.hub.database.read(read)

        assert {worker.id: worker.revision for worker in found} == {"w1": 0, "w2": known}


@pytest.mark.usefixtures("_polls_may_last")
async def test_a_hub_that_stops_lets_polls_go(database_url: str, tmp_path: Path) -> None:
    """A proxy is not kept waiting by a hub that is about to end."""
    async with control(database_url, tmp_path) as site:
        known = await site.put("/")
        site.hub.hub.stopping.set()
        table = await site.poll(known, wait=LONG)

        assert table.revision == known


@pytest.mark.parametrize(
    "query",
    [
        "",
        "revision=0",
        "worker=",
        "worker=w&revision=x",
        "worker=w&revision=-1",
        f"worker=w&revision={10**30}",
        "worker=w&wait=x",
        "worker=w&wait=nan",
        "worker=w&wait=inf",
        "worker=w&wait=-1",
        "worker=%00",
        "worker=%ff%fe",
        f"worker={'w' * 65}",
    ],
)
async def test_a_poll_that_makes_no_sense_is_refused(
    database_url: str, tmp_path: Path, query: str
) -> None:
    """400, no worker is noted, and the next poll is answered."""
    async with control(database_url, tmp_path) as site:
        response = await site.client.get(f"/routes?{query}")
        assert response.status_code == 400
        read = bound(live_workers, now=site.hub.hub.clock.now())
        assert await site.hub.hub.database.read(read) == []
        await site.poll()


# --- activity ---------------------------------------------------------------------------------


async def ready_launch(site: Control, name: str = "ann") -> Launch:
    """Return a launch that is ready, last active some time ago."""
    launch = await site.hub.start(name)
    now = site.hub.hub.clock.now()

    def unit(connection: Connection) -> Launch:
        current = rows.get_launch(connection, launch.id)
        for status in (Status.SUBMITTED, Status.CONNECTING, Status.READY):
            current = rows.change(connection, current, now=now, status=status)
        return rows.change(connection, current, now=now, last_activity=now - timedelta(hours=1))

    return await site.hub.hub.database.write(unit)


def last(connection: Connection) -> list[datetime | None]:
    """Return when a launch, a server and a user were last active."""
    return [
        connection.scalar(select(func.max(table.c.last_activity)))
        for table in (launches, servers, users)
    ]


async def test_activity_is_written_and_never_goes_back(database_url: str, tmp_path: Path) -> None:
    """A report raises the launch's last activity, its server's and its user's, or nothing."""
    async with control(database_url, tmp_path) as site:
        launch = await ready_launch(site)
        at = site.hub.hub.clock.now() + timedelta(seconds=10)
        assert await site.report({launch.id: at.timestamp()}) == 204
        assert await site.hub.hub.database.read(last) == [at] * 3

        assert await site.report({launch.id: at.timestamp() - 3000}) == 204
        assert await site.hub.hub.database.read(last) == [at] * 3
        found = await site.hub.launch(launch.id)
        assert found.activity_source == "proxy"


async def test_activity_is_never_in_the_future(database_url: str, tmp_path: Path) -> None:
    """A proxy whose clock is wrong cannot keep a server alive for ever."""
    async with control(database_url, tmp_path) as site:
        launch = await ready_launch(site)
        tomorrow = site.hub.hub.clock.now() + timedelta(days=1)
        assert await site.report({launch.id: tomorrow.timestamp()}) == 204

        found = (await site.hub.launch(launch.id)).last_activity
        assert found is not None
        assert found <= site.hub.hub.clock.now() + timedelta(minutes=1)


async def test_activity_counts_only_for_what_is_ready(database_url: str, tmp_path: Path) -> None:
    """What is unknown, on its way or over is passed over; the rest of the report counts."""
    async with control(database_url, tmp_path) as site:
        ready = await ready_launch(site)
        waiting = await site.hub.start("bob")
        at = site.hub.hub.clock.now() + timedelta(seconds=10)
        seen = dict.fromkeys(["lch_gone", "\0", waiting.id, ready.id], at.timestamp())
        assert await site.report(seen) == 204

        assert (await site.hub.launch(ready.id)).last_activity == at
        assert (await site.hub.launch(waiting.id)).last_activity is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"launches": []}',
        b'{"launches": {"a": "now"}}',
        b'{"launches": {"a": 1e300}}',
        b'{"launches": {"a": -1e300}}',
        b'{"launches": {"a": NaN}}',
        b"\xff",
        b" " * (5 << 20),
    ],
)
async def test_a_report_that_makes_no_sense_is_refused(
    database_url: str, tmp_path: Path, body: bytes
) -> None:
    """400, and the next one counts."""
    async with control(database_url, tmp_path) as site:
        response = await site.client.post("/activity", content=body)

        assert response.status_code == 400
        assert await site.report({}) == 204


# --- who may ask ------------------------------------------------------------------------------


async def test_the_socket_is_for_its_owner_only(database_url: str, tmp_path: Path) -> None:
    """Nobody else can connect; what an earlier hub left there is replaced."""
    (tmp_path / "control.sock").touch(mode=0o666)
    async with control(database_url, tmp_path) as site:
        assert site.socket.stat().st_mode & 0o777 == 0o600
        await site.poll()


async def test_a_secret_is_asked_for_where_one_is_set(database_url: str, tmp_path: Path) -> None:
    """Over TCP the mode of a socket protects nothing."""
    async with control(database_url, tmp_path, secret="open-sesame") as site:
        for headers in ({}, {SECRET_HEADER: "open"}, {SECRET_HEADER: ""}):
            response = await site.client.get("/routes?worker=w", headers=headers)
            assert response.status_code == 403
        right = {SECRET_HEADER: "open-sesame"}
        response = await site.client.get("/routes?worker=w", headers=right)
        assert response.status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/routes"), ("GET", "/activity"), ("GET", "/"), ("GET", "/hub/api/users")],
)
async def test_nothing_else_is_there(
    database_url: str, tmp_path: Path, method: str, path: str
) -> None:
    """The control socket is no second way into the hub."""
    async with control(database_url, tmp_path) as site:
        response = await site.client.request(method, path)
        assert response.status_code == 404


async def test_the_public_application_knows_nothing_of_it(
    database_url: str, tmp_path: Path
) -> None:
    """What a browser can reach answers no proxy: neither routes nor reports."""
    async with control(database_url, tmp_path) as site:
        launch = await ready_launch(site)
        await site.put("/user/ann/", launch.id)
        transport = httpx2.ASGITransport(app=create_app(site.hub.hub))
        report = {"launches": {launch.id: datetime.now(UTC).timestamp()}}
        async with httpx2.AsyncClient(transport=transport, base_url="http://hub") as public:
            for base in ("", "/hub", "/hub/api"):
                routes = await public.get(f"{base}/routes?worker=w")
                reported = await public.post(f"{base}/activity", json=report)
                assert routes.status_code in (302, 403, 404)
                assert HERE not in routes.text
                assert reported.status_code in (403, 404, 405)

        assert (await site.hub.launch(launch.id)).last_activity == launch.last_activity


async def test_an_error_page_is_relayed(database_url: str, tmp_path: Path) -> None:
    """The page is the public application's, with the person's language and the status asked for."""
    async with control(database_url, tmp_path) as site:
        headers = {"Accept": "text/html", "Accept-Language": "fr"}
        page = await site.client.get("/error/503?url=/user/ann/lab", headers=headers)

        assert page.status_code == 200  # the proxy relays it with the status it asked about
        assert 'lang="fr"' in page.text
