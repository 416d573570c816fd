"""The protocol that serves one client: requests in turn, bodies as streams, upgrades.

The states, and what moves a connection from one to the next, are drawn in
``docs/design/proxy.md``.
"""

import asyncio
from time import monotonic, time
from typing import Final, cast

from perijove.proxy.context import Context
from perijove.proxy.errors import Page, refusal
from perijove.proxy.exchange import Exchange, refused
from perijove.proxy.fields import BadMessage
from perijove.proxy.head import END, REQUEST_START, PartialHead, parse_request
from perijove.proxy.inbox import Inbox
from perijove.proxy.sockets import keep_alive, reset
from perijove.proxy.states import (
    ANSWERING,
    CLOSED,
    FAILING,
    IDLE,
    LINGERING,
    NEVER,
    QUEUED,
    READING,
    SENDING,
    TUNNEL,
    has_progressed,
    seconds_allowed,
)
from perijove.proxy.tunnel import join
from perijove.proxy.upstream import Backend, Unreachable, UpstreamConnection

HEALTH_PATH: Final = b"/_chp_healthz"
LINGER_BYTES: Final = 1024 * 1024
CLIENT_LEFT: Final = 499
"""Status in the access log of a request whose client left before there was a response."""

_HEALTHY = Page(200, b"application/json", b'{"status": "OK"}')


class ClientConnection(asyncio.Protocol):
    """One client; the counterpart of at most one `UpstreamConnection` at a time."""

    __slots__ = (
        "_forwarded", "_forwarded_host", "_loop", "_partial", "_peer", "_server", "_started_at",
        "_trusted", "_upstream", "deadline", "exchange", "has_ended", "inbox", "is_congested",
        "state", "transport", "unsent",
    )  # fmt: skip

    transport: asyncio.Transport
    inbox: Inbox

    def __init__(self, server: Context, loop: asyncio.AbstractEventLoop) -> None:
        self.state = IDLE
        self.deadline = NEVER
        self.exchange = refused(0.0)
        """The present request, or the last one."""
        self.is_congested = False
        self._server = server
        self._loop = loop
        self._upstream: UpstreamConnection | None = None
        self._partial: PartialHead | None = None
        self.has_ended = False
        """The client sends no more."""
        self._trusted = False
        self.unsent = 0
        """Bytes that waited to be sent when this was looked at last."""
        self._started_at = 0.0
        self._peer = b""
        self._forwarded = b""
        self._forwarded_host: bytes | None = None

    # The connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection into the server's care, or end it if there are too many."""
        self.transport = transport = cast(asyncio.Transport, transport)
        self.inbox = Inbox(transport)
        server = self._server
        if len(server.clients) >= server.limits.max_connections:
            server.counters["connections_refused"] += 1
            self.state = CLOSED
            transport.abort()
            return
        server.clients.add(self)
        transport.set_write_buffer_limits(high=server.limits.buffer_bytes)
        self._peer, self._trusted = server.forwarded.peer(transport)
        self.deadline = server.now + server.limits.idle_seconds

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything; an upstream in use cannot be used again."""
        if self.state in (SENDING, ANSWERING, FAILING):
            self._log(self.exchange.status or CLIENT_LEFT)
        self.state = CLOSED
        self._server.forget(self)
        self._drop_upstream()

    def data_received(self, data: bytes) -> None:
        """Use, keep or drop what the client sends, as the state says."""
        state = self.state
        if state == IDLE:
            self._read_head(data, 0)
        elif state == SENDING:
            self._read_body(data, 0)
        elif state == READING:
            assert self._partial is not None
            self._read_more(self._partial, data, 0)
        elif state == LINGERING:
            self.exchange.received += len(data)
            if self.exchange.received > LINGER_BYTES:
                self.transport.abort()
        elif state != CLOSED:
            self._hold(data, 0)

    def eof_received(self) -> bool:
        """Go on answering a client that only stopped sending; end one that sent half."""
        if self.state in (QUEUED, ANSWERING, FAILING) and self.transport.can_write_eof():
            self.has_ended = True
            self._arm()
            return True
        return False

    def pause_writing(self) -> None:
        """Stop the upstream: the client is slower."""
        self.is_congested = True
        if self._upstream is not None:
            self._upstream.transport.pause_reading()
        self.unsent = self.transport.get_write_buffer_size()
        self._arm()

    def resume_writing(self) -> None:
        """Let the upstream go on, or the next request begin."""
        self.is_congested = False
        if self._upstream is not None:
            self._upstream.transport.resume_reading()
        if self.state == IDLE:
            self._await_request()
        else:
            self._arm()

    # The request

    def _read_head(self, data: bytes, start: int) -> None:
        end = data.find(END, start) + len(END)
        self._started_at = monotonic()
        if end >= len(END):
            self._begin(data if end - start == len(data) else data[start:end], data, end)
        else:
            self.state = READING
            self._partial = PartialHead(REQUEST_START, self._server.limits.head)
            self._arm()
            self._read_more(self._partial, data, start)

    def _read_more(self, partial: PartialHead, data: bytes, start: int) -> None:
        try:
            end = partial.feed(data, start)
        except BadMessage as error:
            self._refuse(error)
            return
        if end >= 0:
            self._partial = None
            self._begin(partial.whole(), data, end)

    def _begin(self, head: bytes, data: bytes, start: int) -> None:
        """Begin the request of `head`; its body, and what follows, is in `data` from `start`."""
        server = self._server
        try:
            request = parse_request(head, server.limits.head, self.exchange.request)
        except BadMessage as error:
            self._refuse(error)
            return
        exchange = self.exchange = Exchange(request, self._started_at)
        self.state = SENDING if exchange.left else ANSWERING
        self._arm()
        backend = exchange.backend = server.routes.find(request.fields.host, request.path)
        if request.path == HEALTH_PATH:
            self._hold(data, start)
            self._answer(_HEALTHY)
        elif backend is None:
            self._hold(data, start)
            self._fail(404 if server.routes.revision else 503)
        else:
            self._forward(exchange, backend, data, start)

    def _forward(self, exchange: Exchange, backend: Backend, data: bytes, start: int) -> None:
        request = exchange.request
        server = self._server
        if backend.route.launch and exchange.is_activity:
            server.activity[backend.route.launch] = time()
        if self._trusted:
            forwarded = server.forwarded.extend(self._peer, request)
        elif request.fields.host == self._forwarded_host:
            forwarded = self._forwarded
        else:
            host = self._forwarded_host = request.fields.host
            forwarded = self._forwarded = server.forwarded.fields(self._peer, host)
        exchange.head = request.to_forward(forwarded, trusted=self._trusted)
        hub, proof = server.hub_proof
        if hub and backend.route.target == hub:
            exchange.head = exchange.head[:-2] + proof
        upstream = backend.checkout()
        if upstream is None:
            self._hold(data, start)
            server.spawn(self._connect(exchange, backend))
        else:
            self._send(upstream, data, start)

    async def _connect(self, exchange: Exchange, backend: Backend) -> None:
        """Give the request a new connection, or fail it, unless it has ended by then."""
        try:
            upstream = await backend.connect()
        except Unreachable as error:
            backend.complain("proxy_target_unreachable", str(error))
            if self._is_at(exchange, SENDING, ANSWERING):
                self._fail(503)
            return
        if self._is_at(exchange, SENDING, ANSWERING):
            self._send(upstream, *self.inbox.take())
            self._read_on()
        else:
            backend.release(upstream)

    def _is_at(self, exchange: Exchange, *states: int) -> bool:
        return self.exchange is exchange and self.state in states

    def _send(self, upstream: UpstreamConnection, data: bytes, start: int) -> None:
        self._upstream = upstream
        upstream.start(self, self.exchange.head)
        if self.is_congested:
            upstream.transport.pause_reading()
        if start < len(data):
            if self.state == SENDING:
                self._read_body(data, start)
            else:
                self._hold(data, start)

    def _read_body(self, data: bytes, start: int) -> None:
        """Pass the request's body on; what follows it is the next request."""
        upstream = self._upstream
        if upstream is None:
            self._hold(data, start)
            return
        exchange = self.exchange
        try:
            end = exchange.take_body(data, start)
        except BadMessage as error:
            self._refuse_body(error)
            return
        upstream.transport.write(data if end - start == len(data) else data[start:end])
        if exchange.left == 0:
            self.state = ANSWERING
            exchange.asked_at = monotonic()
            self._arm()
            self._hold(data, end)

    def _hold(self, data: bytes, start: int) -> None:
        """Keep what came too early; look now and then whether its sender is still there."""
        if start < len(data):
            self.inbox.hold(data, start)
            seconds = self._server.limits.half_closed_seconds
            self.deadline = min(self.deadline, self._server.now + seconds)

    def pause_body(self) -> None:
        """Stop reading: the upstream takes the request's body more slowly than it comes."""
        self.inbox.pause()
        self._arm()

    def resume_body(self) -> None:
        """Read on, unless the next request already waits here."""
        self.inbox.resume()

    # The response

    def begin_response(self, status: int, content: bytes, body_bytes: int, *, close: bool) -> None:
        """Relay the head, rewritten if need be, with as much of the body as came with it."""
        exchange = self.exchange
        exchange.status = status
        exchange.closes = close
        exchange.relayed = body_bytes
        self.transport.write(content)
        if self.deadline != NEVER:
            self._arm()

    def relay(self, data: bytes) -> None:
        """Pass a piece of the response's body on."""
        self.exchange.relayed += len(data)
        self.transport.write(data)

    def pass_interim(self, head: bytes) -> None:
        """Pass a 1xx response on to a client that can know it."""
        self.exchange.awaits_continue = False
        if not self.exchange.request.is_http10:
            self.transport.write(head)
        self._arm()

    def end_response(self) -> None:
        """Close, or go on with the next request."""
        self._upstream = None
        self._log(self.exchange.status)
        if self.exchange.closes or self._server.is_stopping:
            self._close()
        else:
            self._await_request()

    def retry(self, backend: Backend) -> None:
        """Send the request again, on a new connection: the one that was kept had ended."""
        self.exchange.has_retried = True
        self._upstream = None
        self._server.counters["retries"] += 1
        self._server.spawn(self._connect(self.exchange, backend))

    def lose_upstream(self, *, cut: bool) -> None:
        """Show an error page if nothing was sent yet; else end the connection with the response.

        `cut` says that the client must not take the end for an orderly one.
        """
        self._upstream = None
        if self.exchange.status == 0:
            self._fail(503)
            return
        self._log(self.exchange.status)
        if cut:
            self.state = CLOSED
            reset(self.transport)
        else:
            self._close_transport()

    def switch(self, upstream: UpstreamConnection, content: bytes) -> None:
        """Turn both connections into one tunnel, for as long as either side wants."""
        backend = upstream.backend
        self._upstream = None
        self._log(101)
        self._server.counters["upgrades"] += 1
        self.state = TUNNEL
        self.deadline = NEVER

        def lost() -> None:
            self.state = CLOSED
            backend.tunnels.discard(self)
            self._server.forget(self)

        def half_closed() -> None:
            self.deadline = self._server.now + self._server.limits.half_closed_seconds

        keep_alive(self.transport)
        keep_alive(upstream.transport)
        join(
            self.transport,
            upstream.transport,
            half_closed=half_closed,
            client_lost=lost,
            upstream_lost=upstream.leave_pool,
        )
        backend.tunnels.add(self)
        self.transport.write(content)
        early, start = self.inbox.take()
        if start < len(early):
            upstream.transport.write(early[start:])
        self.inbox.resume()
        if backend.is_retired:
            self.close_tunnel()

    def close_tunnel(self) -> None:
        """End an upgraded connection, because its server has ended."""
        self.deadline = self._server.now + self._server.limits.send_seconds
        self.transport.close()

    # What the proxy answers itself

    def _answer(self, page: Page) -> None:
        """Send a whole response of our own."""
        exchange = self.exchange
        close = exchange.closes or exchange.left != 0 or self._server.is_stopping
        exchange.status = page.status
        exchange.relayed = len(page.body)
        with_body = exchange.request.method != b"HEAD"
        self.transport.write(page.response(with_body=with_body, close=close))
        self._log(page.status)
        if close:
            self._close()
        else:
            self._await_request()

    def _refuse(self, error: BadMessage) -> None:
        """Answer a malformed request, and believe nothing that comes after it."""
        self._server.counters["requests_refused"] += 1
        self._partial = None
        self.exchange = refused(self._started_at)
        self._answer(refusal(error.status, error.reason))

    def _refuse_body(self, error: BadMessage) -> None:
        self._drop_upstream()
        if self.exchange.status:
            self.transport.abort()
        else:
            self._refuse(error)

    def _fail(self, status: int) -> None:
        """Answer with the page for `status`: the hub's, or our own if the hub is away."""
        self.state = FAILING
        self._arm()
        page = self._server.errors.find(status, self.exchange.request)
        if page is not None:
            self._answer(page)
        else:
            self._server.spawn(self._fetch_page(status, self.exchange))

    async def _fetch_page(self, status: int, exchange: Exchange) -> None:
        page = await self._server.errors.fetch(status, exchange.request)
        if self._is_at(exchange, FAILING):
            self._answer(page)

    # Between requests

    def _await_request(self) -> None:
        """Begin with the next request as soon as the client has taken most of the last response.

        A request that is here already is begun by the loop, not by us: many of them would
        otherwise nest as deep as they are many.
        """
        if self.is_congested:
            self.state = IDLE
            self.inbox.pause()
            self._arm()
        elif self.inbox:
            self.state = QUEUED
            self._arm()
            self._loop.call_soon(self._begin_queued)
        elif self.has_ended:
            self._close()
        else:
            self.state = IDLE
            self.deadline = self._server.now + self._server.limits.idle_seconds
            self.inbox.resume()

    def _begin_queued(self) -> None:
        if self.state == QUEUED:
            self.state = IDLE
            self._read_head(*self.inbox.take())
            self._read_on()

    def _read_on(self) -> None:
        """Read again, unless the sender of a body, or of many requests, has to wait."""
        upstream = self._upstream
        if not (upstream.is_congested if upstream is not None else self.is_congested):
            self.inbox.resume()

    def _drop_upstream(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.client = None
            upstream.transport.abort()

    def _close(self) -> None:
        """End the connection so that the client still gets the response.

        Closing while the client sends would reset the connection and take the response away;
        so for a while what it sends is read and dropped.
        """
        if (self.exchange.left or self.inbox) and self.transport.can_write_eof():
            self.state = LINGERING
            self.exchange.received = 0
            self.inbox.drop()
            self.transport.write_eof()
            self._arm()
            self.inbox.resume()
        else:
            self._close_transport()

    def _close_transport(self) -> None:
        self.state = CLOSED
        self.unsent = self.transport.get_write_buffer_size()
        self._arm()
        self.transport.close()

    # Time

    def _arm(self) -> None:
        """Set the deadline that the state asks for."""
        server = self._server
        self.deadline = server.now + seconds_allowed(self, server.limits, server.now)

    def expire(self) -> None:
        """Act on the deadline: allow more time for progress, else end what is waited for."""
        state = self.state
        if has_progressed(self, self._server.limits, self._server.now):
            self._arm()
        elif state == READING:
            self._refuse(BadMessage("head not sent in time", 408))
        elif self.is_congested or self.exchange.status or self.has_ended:
            self.transport.abort()
        elif state == SENDING:
            self._drop_upstream()
            self._refuse(BadMessage("body not sent in time", 408))
        elif state == ANSWERING:
            self._drop_upstream()
            self._fail(503)
        else:
            self.transport.abort()

    def _log(self, status: int) -> None:
        self._server.counters["requests"] += 1
        if self._server.access is not None:
            self.exchange.log(self._server.access, self._peer, status)
