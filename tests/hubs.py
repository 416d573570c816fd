"""A hub for tests: a real database, the real loops, and spawners that the test chooses."""

import functools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
from sqlalchemy import Connection, select

from perijove.db import schema
from perijove.db.core import bound, open_database
from perijove.db.events import Event, list_events
from perijove.db.installation import beat, ensure_installation
from perijove.db.launches import get_launch, list_live
from perijove.db.routes import note_worker, revision
from perijove.db.tables import routes
from perijove.domain.asking import Asking
from perijove.domain.launch import Launch, Status
from perijove.kit.clock import Clock, SystemClock
from perijove.kit.keyring import Keyring
from perijove.kit.loops import until
from perijove.reconcile.loops import start_loops
from perijove.reconcile.probe import Prober
from perijove.services import profiles, roles
from perijove.services.choices import ImageSection
from perijove.services.hub import Hub, PlacedSpawner
from perijove.services.launches import request_start, request_stop
from perijove.services.offers import PolicySection, ProfileSection
from perijove.services.people import ensure_user
from perijove.services.sections import HubSection, LifecycleSection
from perijove.services.senders import NotifySection
from perijove.spawners.contract import Spawner, Surroundings
from tests.fakes.spawners import MemoryPlatform, MemorySettings, MemorySpawner

PATIENCE = 60.0
"""Seconds a test waits for what must happen; long, because the machine may be busy."""
TEST = Asking(actor="test")


class ShiftedClock:
    """The machine's clock, moved on by hand."""

    def __init__(self) -> None:
        self._ahead = timedelta(0)

    def now(self) -> datetime:
        """Return the shifted instant."""
        return datetime.now(UTC) + self._ahead

    def shift(self, by: timedelta) -> None:
        """Move on; to a hub that runs, more than a minute at once looks like its own absence."""
        self._ahead += by


@dataclass(slots=True)
class TestHub:
    """A hub, its platform, and the ways a test looks at both."""

    __test__ = False

    hub: Hub
    platform: MemoryPlatform
    spawner: Any
    """What the hub talks to: the spawner in memory, or a wrapper around it."""
    prober: Prober
    tasks: anyio.abc.TaskGroup
    database_url: str
    users: dict[str, int] = field(default_factory=dict)

    async def user(self, name: str = "ann", *, admin: bool = False) -> int:
        """Return the id of a user, made if need be."""
        if name not in self.users:

            def unit(connection: Connection) -> int:
                person = ensure_user(connection, name, now=self.hub.clock.now(), admin=admin)
                return person.id

            self.users[name] = await self.hub.database.write(unit)
        return self.users[name]

    async def start(self, name: str = "ann", server: str = "", **given: Any) -> Launch:
        """Ask for a server of a user."""
        user_id = await self.user(name)
        return await request_start(
            self.hub, user_id=user_id, server_name=server, asking=TEST, **given
        )

    async def stop(self, name: str = "ann", server: str = "", **given: Any) -> Launch | None:
        """Ask for a server of a user to end."""
        user_id = await self.user(name)
        return await request_stop(
            self.hub, user_id=user_id, server_name=server, asking=TEST, **given
        )

    async def launch(self, launch_id: str) -> Launch:
        """Return a launch as it is."""
        return await self.hub.database.read(bound(get_launch, launch_id))

    async def live(self) -> list[Launch]:
        """Return all launches that are not over."""
        return await self.hub.database.read(list_live)

    async def events(self, launch_id: str) -> list[Event]:
        """Return a launch's events."""
        return await self.hub.database.read(bound(list_events, launch_id))

    async def prefixes(self) -> set[str]:
        """Return the prefixes that are routed, but for the hub's own."""

        def unit(connection: Connection) -> set[str]:
            live = routes.c.removed_at.is_(None) & (routes.c.prefix != "/")
            return set(connection.scalars(select(routes.c.prefix).where(live)))

        return await self.hub.database.read(unit)

    async def becomes(self, launch: Launch, *statuses: Status, seconds: float = PATIENCE) -> Launch:
        """Wait until a launch has one of the statuses; fail with what it has instead."""
        return await self.until(
            launch, lambda now: now.status in statuses, what=str(statuses), seconds=seconds
        )

    async def until(
        self,
        launch: Launch,
        holds: Callable[[Launch], bool],
        *,
        what: str = "it",
        seconds: float = PATIENCE,
    ) -> Launch:
        """Wait until something holds of a launch; fail with what is the case instead."""

        seen = launch

        async def check() -> bool:
            nonlocal seen
            seen = await self.launch(launch.id)
            return holds(seen)

        if not await until(check, seconds=seconds):
            events = [(e.code, dict(e.params)) for e in await self.events(launch.id)]
            raise AssertionError(f"waited {seconds} s for {what}: {seen}\nevents: {events}")
        return seen


@asynccontextmanager
async def running_hub(
    database_url: str,
    directory: Path,
    *,
    wrap: Callable[[Spawner], Spawner] | None = None,
    platform: MemoryPlatform | None = None,
    clock: Clock | None = None,
    settings: Mapping[str, Any] | None = None,
    lifecycle: Mapping[str, Any] | None = None,
    notify: Mapping[str, Any] | None = None,
    spawner: Mapping[str, Any] | None = None,
    profile_sections: list[ProfileSection] | None = None,
    policies: list[PolicySection] | None = None,
    images: Mapping[str, ImageSection] | None = None,
    loops: bool = True,
    with_proxy: bool = True,
) -> AsyncIterator[TestHub]:
    """Run a hub on `database_url` whose only spawner, ``memory``, is on `platform`."""
    clock = clock or SystemClock()
    spawner_settings = MemorySettings(survey_period=0.2, stop_grace=0.5, **(spawner or {}))
    schema.ensure(database_url)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(database_url))
        section = HubSection(data_dir=directory, **(settings or {}))
        installation = await database.write(
            functools.partial(
                _first_rows,
                section=section,
                profile_sections=profile_sections or [],
                policies=policies or [],
                images=images or {},
                clock=clock,
            )
        )
        surroundings = Surroundings(name="memory", installation=installation, data_dir=directory)
        inner = MemorySpawner(spawner_settings, surroundings, platform)
        platform = inner.platform
        outer: Any = wrap(inner) if wrap else inner
        hub = Hub(
            database=database,
            clock=clock,
            keyring=Keyring({"test": b"k" * 32}),
            installation=installation,
            settings=section,
            lifecycle=LifecycleSection(**(lifecycle or {})),
            notify=NotifySection.model_validate(notify or {}),
            api_url="http://127.0.0.1:8081/hub/api",
            spawners={"memory": PlacedSpawner(spawner=outer, settings=spawner_settings)},
        )
        prober = await stack.enter_async_context(Prober())
        tasks = await stack.enter_async_context(anyio.create_task_group())
        if with_proxy:
            tasks.start_soon(proxy_worker, hub)
        if loops:
            start_loops(tasks, hub, prober, database_url=database_url)
        yield TestHub(
            hub=hub,
            platform=platform,
            spawner=outer,
            prober=prober,
            tasks=tasks,
            database_url=database_url,
        )
        tasks.cancel_scope.cancel()


def _first_rows(
    connection: Connection,
    *,
    section: HubSection,
    profile_sections: list[ProfileSection],
    policies: list[PolicySection],
    images: Mapping[str, ImageSection],
    clock: Clock,
) -> str:
    now = clock.now()
    name = ensure_installation(connection, now=now)
    beat(connection, now=now)
    roles.load(connection, section, now=now)
    profiles.load_offers(
        connection,
        profiles=profile_sections,
        policies=policies,
        spawners=["memory"],
        images=images,
        now=now,
    )
    return name


async def proxy_worker(hub: Hub) -> None:
    """Be a proxy worker that takes every table at once."""
    while True:
        strike = hub.routes.listen()
        known = await hub.database.read(revision)
        now = hub.clock.now()
        await hub.database.write(bound(note_worker, "test-worker", revision=known, now=now))
        hub.workers.strike()
        with anyio.move_on_after(0.5):
            await strike.wait()


@asynccontextmanager
async def answering_server(
    reply: bytes = b"{}", status: bytes = b"200 OK"
) -> AsyncIterator["AnsweringServer"]:
    """Run a server that answers every request alike; what it says can be changed."""
    server = AnsweringServer(reply, status)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    server.url = f"http://127.0.0.1:{port}"
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, server.handle)
        yield server
        tasks.cancel_scope.cancel()


class AnsweringServer:
    """What a user's server looks like from the hub: it answers, or it does not."""

    def __init__(self, reply: bytes, status: bytes) -> None:
        self.status = status
        self.replies: dict[str, bytes] = {"": reply}
        self.silent = False
        self.url = ""
        self.asked: list[str] = []
        self.authorised: list[str] = []

    async def handle(self, stream: anyio.abc.SocketStream) -> None:
        """Answer one request."""
        async with stream:
            head = b""
            try:
                while b"\r\n\r\n" not in head:
                    head += await stream.receive()
            except anyio.EndOfStream:
                return
            path = head.split(b" ")[1].decode()
            self.asked.append(path)
            for line in head.split(b"\r\n"):
                if line.lower().startswith(b"authorization:"):
                    self.authorised.append(line.decode())
            if self.silent:
                return
            body = next((b for end, b in self.replies.items() if end and path.endswith(end)), None)
            body = self.replies[""] if body is None else body
            await stream.send(
                b"HTTP/1.1 %b\r\nX-JupyterHub-Version: 6.1.1\r\nContent-Length: %d\r\n"
                b"Connection: close\r\n\r\n%b" % (self.status, len(body), body)
            )
