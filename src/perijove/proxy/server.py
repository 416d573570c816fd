"""One proxy process: its sockets, its connections, its clock, its work in the background."""

import asyncio
import collections
import contextlib
import secrets
import socket
import ssl
from collections.abc import Coroutine, Sequence
from time import monotonic
from typing import Any, Final

import structlog

from perijove.proxy.access import AccessLog
from perijove.proxy.activity import ActivityReporter
from perijove.proxy.client import ClientConnection
from perijove.proxy.control import ControlClient
from perijove.proxy.errors import ErrorPages
from perijove.proxy.forwarded import Forwarded
from perijove.proxy.head import END
from perijove.proxy.poll import RoutePoller, SnapshotKeeper, load_snapshot
from perijove.proxy.settings import ControlAddress, Limits, ProxyOptions
from perijove.proxy.states import IDLE, TUNNEL
from perijove.proxy.table import Routes
from perijove.proxy.upstream import Backend
from perijove.wire.control import PROXY_HEADER, RouteTable

log = structlog.get_logger()

LAST_REPORT_SECONDS: Final = 2.0
"""Time the hub has to take the last report of activity when the proxy stops."""


class ProxyServer:
    """Serves clients on listening sockets, by a table of routes.

    Give it routes with `apply`, or a control address, or both; `start` it in a running loop
    and `stop` it there.
    """

    def __init__(self, options: ProxyOptions, *, saves_snapshot: bool = True) -> None:
        settings = options.settings
        self.limits = Limits.of(settings)
        self.routes: Routes[Backend] = Routes(lambda route: Backend(route, self))
        self.clients: set[ClientConnection] = set()
        self.warm: set[Backend] = set()
        self.forwarded = Forwarded(settings.trusted_proxies, is_tls=settings.tls_cert is not None)
        self.access: AccessLog | None = None
        self.activity: dict[str, float] = {}
        self.counters: dict[str, int] = collections.Counter()
        self.now = monotonic()
        self.is_stopping = False
        self.worker = secrets.token_hex(8)
        self._options = options
        self._saves_snapshot = saves_snapshot
        self._hub = ControlClient(options.control) if options.control else None
        self.hub_proof = _proof(options.control)
        self.errors = ErrorPages(self._hub, monotonic)
        self._reporter = ActivityReporter(self._hub, self.activity) if self._hub else None
        self._snapshots: SnapshotKeeper | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._settled = asyncio.Event()
        self._servers: list[asyncio.Server] = []
        self._tick_seconds = min(1.0, _shortest(self.limits) / 4)
        self._ticking: asyncio.TimerHandle | None = None

    async def start(
        self, sockets: Sequence[socket.socket], *, access_fd: int | None = None
    ) -> None:
        """Serve on `sockets`, which listen already; log requests to `access_fd` if it is given."""
        loop = asyncio.get_running_loop()
        if access_fd is not None:
            self.access = AccessLog(access_fd, loop.call_later)
        self._tick()
        self._start_routes()
        tls = tls_context(self._options)
        for sock in sockets:
            server = await loop.create_server(
                lambda: ClientConnection(self, loop),
                sock=sock,
                ssl=tls,
                ssl_handshake_timeout=self.limits.head_seconds if tls else None,
                backlog=1024,
            )
            self._servers.append(server)

    def apply(self, table: RouteTable) -> None:
        """Use `table`; raise `RefusedTable`."""
        self.routes.apply(table)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` to its end, or to that of the server."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def forget(self, client: ClientConnection | None) -> None:
        """Take a connection that has ended out of the server's care."""
        if client is not None:
            self.clients.discard(client)
        if self.is_stopping and all(client.state == TUNNEL for client in self.clients):
            self._settled.set()

    async def stop(self, grace: float) -> None:
        """Take no new connection, let running requests end within `grace` seconds, then close.

        Upgraded connections are not waited for: they would never end, and browsers connect
        again by themselves.
        """
        self.is_stopping = True
        for server in self._servers:
            server.close()
        for client in tuple(self.clients):
            if client.state == IDLE:
                client.transport.close()
        self.forget(None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._settled.wait()
        for client in tuple(self.clients):
            client.transport.abort()
        await self._stop_work()
        for backend in tuple(self.routes.backends):
            backend.retire()
        if self._ticking is not None:
            self._ticking.cancel()
        if self.access is not None:
            self.access.flush()
            self.counters["log_lines_dropped"] = self.access.dropped
        log.info("proxy_stopped", worker=self.worker, **self.counters)

    def _start_routes(self) -> None:
        snapshot = self._options.snapshot
        if snapshot is not None:
            load_snapshot(snapshot, self.routes)
            if self._saves_snapshot and self._hub is not None:
                self._snapshots = SnapshotKeeper(snapshot, self.routes)
                self.spawn(self._snapshots.run())
        if self._hub is not None and self._reporter is not None:
            changed = self._snapshots.changed if self._snapshots else _nothing
            self.spawn(RoutePoller(self._hub, self.routes, self.worker).run(changed))
            self.spawn(self._reporter.run())

    async def _stop_work(self) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._snapshots is not None:
            self._snapshots.finish()
        if self._reporter is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_REPORT_SECONDS):
                    await self._reporter.report()

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("proxy_task_failed", task=task.get_name(), exc_info=error)

    def _tick(self) -> None:
        """Look at every deadline: coarse, so that requests need set no timers."""
        self.now = now = monotonic()
        for client in tuple(self.clients):
            if client.deadline <= now:
                client.expire()
        for backend in tuple(self.warm):
            backend.expire(now - self.limits.upstream_idle_seconds)
            if not backend.idle:
                self.warm.discard(backend)
        self._ticking = asyncio.get_running_loop().call_later(self._tick_seconds, self._tick)


def tls_context(options: ProxyOptions) -> ssl.SSLContext | None:
    """Return what the public address speaks TLS with, or None."""
    settings = options.settings
    if settings.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(settings.tls_cert, settings.tls_key)
    return context


def _proof(control: ControlAddress | None) -> tuple[str, bytes]:
    """Return a hub's address by TCP, and the field and blank line that end a head sent there."""
    if control is None or not control.secret:
        return "", b""
    return control.url, f"{PROXY_HEADER}: {control.secret}".encode() + END


def _shortest(limits: Limits) -> float:
    return min(
        limits.head_seconds,
        limits.idle_seconds,
        limits.body_seconds,
        limits.send_seconds,
        limits.response_seconds,
        limits.upstream_idle_seconds,
        limits.half_closed_seconds,
    )


def _nothing() -> None:
    """Nobody keeps a snapshot here."""
