"""Connections to one target: the pool, and the protocol that reads responses.

The upstream is hostile: a response nobody asked for, more bytes than declared, framing that
two readers could take differently, or a switch of protocols not asked for end the connection
and, if part of the response was already relayed, the client's too.
"""

import asyncio
import select
import ssl
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import urlsplit

import structlog

from perijove.proxy.body import ChunkedBody
from perijove.proxy.fields import CHUNKED, UNTIL_CLOSE, BadMessage
from perijove.proxy.head import (
    END,
    RESPONSE_START,
    PartialHead,
    ResponseHead,
    body_length,
    parse_response,
)
from perijove.wire.control import Route

if TYPE_CHECKING:
    from perijove.proxy.client import ClientConnection
    from perijove.proxy.context import Context

log = structlog.get_logger()

MAX_INTERIM: Final = 16
"""Most 1xx responses before the final one."""

MAX_IDLE: Final = 64
"""Most unused connections kept to one target."""

_HEAD = 0


class Unreachable(Exception):
    """The target cannot be connected to now."""


class Backend:
    """The target of one route with its connections; never shared by two routes.

    A port that one launch leaves and another takes is another route, so no request of the
    second can reach a process of the first through a connection that was kept.
    """

    __slots__ = (
        "_address",
        "_complained_at",
        "_is_tls",
        "_is_unix",
        "_tls",
        "connections",
        "context",
        "idle",
        "is_retired",
        "launch",
        "route",
        "tunnels",
    )  # fmt: skip

    def __init__(self, route: Route, context: "Context") -> None:
        self.route = route
        self.context = context
        self.launch = route.launch.encode("ascii", "replace").replace(b'"', b"").replace(b"\\", b"")
        self.idle: list[UpstreamConnection] = []
        self.tunnels: set[ClientConnection] = set()
        self.connections = 0
        self.is_retired = False
        self._complained_at = float("-inf")
        self._tls: ssl.SSLContext | None = None
        self._is_tls = route.target.startswith("https:")
        self._is_unix = route.target.startswith("unix:")
        self._address = _address(route.target)

    def checkout(self) -> "UpstreamConnection | None":
        """Return a kept connection on which nothing has happened, if there is one."""
        while self.idle:
            kept = self.idle.pop()
            if kept.is_quiet():
                kept.is_reused = True
                return kept
            kept.transport.abort()
        return None

    def release(self, connection: "UpstreamConnection") -> None:
        """Keep a connection whose response is complete."""
        if self.is_retired or self.context.is_stopping or len(self.idle) >= MAX_IDLE:
            connection.transport.abort()
            return
        connection.idle_at = self.context.now
        self.idle.append(connection)
        self.context.warm.add(self)

    async def connect(self) -> "UpstreamConnection":
        """Return a new connection; raise `Unreachable`."""
        limits = self.context.limits
        if self.connections >= limits.max_connections_per_target:
            raise Unreachable("too many connections to this target")
        self.connections += 1
        try:
            async with asyncio.timeout(limits.connect_seconds):
                return await self._open()
        except TimeoutError as error:
            self.connections -= 1
            raise Unreachable("no answer in time") from error
        except (OSError, ValueError) as error:
            # ValueError: a host name that cannot be one.
            self.connections -= 1
            raise Unreachable(getattr(error, "strerror", None) or type(error).__name__) from error
        except asyncio.CancelledError:
            self.connections -= 1
            raise

    async def _open(self) -> "UpstreamConnection":
        loop = asyncio.get_running_loop()
        host, port = self._address
        if self._is_unix:
            _, made = await loop.create_unix_connection(lambda: UpstreamConnection(self), host)
            return made
        _, made = await loop.create_connection(
            lambda: UpstreamConnection(self), host, port, ssl=self._tls_context()
        )
        return made

    def _tls_context(self) -> ssl.SSLContext | None:
        if self._is_tls and self._tls is None:
            # With an authority given, only that one is believed: the system's are not loaded.
            self._tls = ssl.create_default_context(cadata=self.route.ca or None)
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls

    def expire(self, before: float) -> None:
        """End the connections that were kept since earlier than `before`."""
        expired = [kept for kept in self.idle if kept.idle_at < before]
        self.idle = [kept for kept in self.idle if kept.idle_at >= before]
        for kept in expired:
            kept.transport.abort()

    def retire(self) -> None:
        """End what is idle and what is upgraded; a plain request that runs may finish."""
        self.is_retired = True
        self.expire(float("inf"))
        for client in tuple(self.tunnels):
            client.close_tunnel()

    def complain(self, event: str, reason: str) -> None:
        """Log what is wrong with the target, at most once a second."""
        now = self.context.now
        if now - self._complained_at >= 1:
            self._complained_at = now
            log.warning(event, reason=reason, prefix=self.route.prefix, launch=self.route.launch)


class UpstreamConnection(asyncio.Protocol):
    """One connection to a target; serves one request at a time."""

    __slots__ = (
        "_chunks", "_has_answered", "_interims", "_keep", "_left", "_partial", "_poll", "backend",
        "client", "idle_at", "is_congested", "is_reused", "transport",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.client: ClientConnection | None = None
        self.idle_at = 0.0
        self.is_reused = False
        self._partial: PartialHead | None = None
        self._chunks: ChunkedBody | None = None
        self._left = _HEAD
        self._interims = 0
        self._has_answered = False
        self.is_congested = False
        self._keep = False
        self._poll = select.poll()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Set the limits of the transport."""
        self.transport = transport = cast(asyncio.Transport, transport)
        transport.set_write_buffer_limits(high=self.backend.context.limits.buffer_bytes)
        self._poll.register(
            transport.get_extra_info("socket").fileno(), select.POLLIN | select.POLLRDHUP
        )

    def is_quiet(self) -> bool:
        """Tell whether the kept connection is open and holds no byte nobody asked for.

        The loop has looked at one that was used a moment ago; an older one is asked itself.
        """
        if self.transport.is_closing():
            return False
        return self.idle_at == self.backend.context.now or not self._poll.poll(0)

    def start(self, client: "ClientConnection", head: bytes) -> None:
        """Send the head of a request of `client`; its body, if any, follows by `transport`."""
        self.client = client
        self._interims = 0
        self._has_answered = False
        self.transport.write(head)

    def data_received(self, data: bytes) -> None:
        """Relay what belongs to the response, and nothing else."""
        client = self.client
        left = self._left
        if client is None:
            self.backend.complain("proxy_upstream_spoke_unasked", "bytes on an unused connection")
            self.transport.abort()
        elif left > 0:
            if len(data) > left:
                self._break("more bytes than declared")
                return
            client.relay(data)
            self._left = left = left - len(data)
            if left == 0:
                self._finish(client)
        elif left == UNTIL_CLOSE:
            client.relay(data)
        else:
            try:
                if left == CHUNKED:
                    self._relay_chunked(client, data)
                else:
                    self._read_head(client, data)
            except BadMessage as error:
                self._break(error.reason)

    def _read_head(self, client: "ClientConnection", data: bytes) -> None:
        self._has_answered = True
        limits = self.backend.context.limits.head
        if self._partial is None:
            end = data.find(END) + len(END)
            if end < len(END):
                self._partial = PartialHead(RESPONSE_START, limits)
                self._partial.feed(data, 0)
                return
        else:
            end = self._partial.feed(data, 0)
            if end < 0:
                return
            raw = self._partial.whole()
            self._partial = None
            data, end = raw + data[end:], len(raw)
        head = parse_response(data if end == len(data) else data[:end], limits)
        if head.status < 200:
            self._pass_interim(client, head, data[end:])
        else:
            self._begin_response(client, head, data, end)

    def _begin_response(
        self, client: "ClientConnection", head: ResponseHead, data: bytes, end: int
    ) -> None:
        request = client.exchange.request
        length = body_length(head, request.method)
        here = len(data) - end
        if length == CHUNKED:
            if request.is_http10:
                raise BadMessage("chunks for an HTTP/1.0 client")
            self._chunks = ChunkedBody()
            if self._chunks.feed(data, end) != len(data):
                raise BadMessage("more bytes than declared")
            length = 0 if self._chunks.done else CHUNKED
        elif length >= 0:
            length -= here
            if length < 0:
                raise BadMessage("more bytes than declared")
        self._keep = not head.fields.close and length != UNTIL_CLOSE
        close = (
            request.fields.close
            or length == UNTIL_CLOSE
            or client.exchange.left != 0
            or self.backend.context.is_stopping
        )
        relayed = head.to_relay(close=close)
        if relayed is head.head:
            client.begin_response(head.status, data, here, close=close)
        else:
            client.begin_response(head.status, relayed + data[end:], here, close=close)
        if length == 0:
            self._finish(client)
        else:
            self._left = length

    def _pass_interim(self, client: "ClientConnection", head: ResponseHead, rest: bytes) -> None:
        self._interims += 1
        if self._interims > MAX_INTERIM:
            raise BadMessage("too many interim responses")
        if head.is_http10 or head.fields.length != UNTIL_CLOSE:
            raise BadMessage("interim response with a body or of HTTP/1.0")
        if head.status == 101:
            if not (client.exchange.request.wants_websocket and head.fields.is_websocket):
                raise BadMessage("switch of protocols nobody asked for")
            self.client = None
            client.switch(self, head.to_relay(close=False) + rest)
            return
        client.pass_interim(head.to_relay(close=False))
        if rest:
            self._read_head(client, rest)

    def _relay_chunked(self, client: "ClientConnection", data: bytes) -> None:
        assert self._chunks is not None
        if self._chunks.feed(data) != len(data):
            raise BadMessage("more bytes than declared")
        client.relay(data)
        if self._chunks.done:
            self._finish(client)

    def _finish(self, client: "ClientConnection") -> None:
        self.client = None
        self._chunks = None
        self._left = _HEAD
        if self._keep and client.exchange.left == 0 and not self.is_congested:
            if client.is_congested:
                self.transport.resume_reading()
            self.backend.release(self)
        else:
            self.transport.abort()
        client.end_response()

    def _break(self, reason: str) -> None:
        """End a connection whose response cannot be trusted, and the client's with it."""
        client, self.client = self.client, None
        self.backend.complain("proxy_upstream_refused", reason)
        self.transport.abort()
        if client is not None:
            client.lose_upstream(cut=True)

    def pause_writing(self) -> None:
        """Stop reading the request body: the target is slower than the client."""
        self.is_congested = True
        if self.client is not None:
            self.client.pause_body()

    def resume_writing(self) -> None:
        """Go on reading the request body."""
        self.is_congested = False
        if self.client is not None:
            self.client.resume_body()

    def eof_received(self) -> bool:
        """Take the end of the connection as the end of a body that has no other."""
        if self._left == UNTIL_CLOSE and self.client is not None:
            self._finish(self.client)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Try an idempotent request again if the connection was only stale; else fail it."""
        self.leave_pool()
        client, self.client = self.client, None
        if client is None:
            return
        if self.is_reused and not self._has_answered and client.exchange.may_retry:
            client.retry(self.backend)
        else:
            client.lose_upstream(cut=self._left == UNTIL_CLOSE)

    def leave_pool(self) -> None:
        """Give the place of a connection that has ended back."""
        self.backend.connections -= 1
        if self in self.backend.idle:
            self.backend.idle.remove(self)


def _address(target: str) -> tuple[str, int]:
    """Return host and port of a target; the path, and no port, of a unix socket."""
    if target.startswith("unix:"):
        return target.removeprefix("unix:"), 0
    parts = urlsplit(target)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
