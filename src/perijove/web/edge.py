"""
What happens to every request on its way in and out, in one fixed order.

=========================  =====================================================================
on the way in              on the way out
=========================  =====================================================================
1. request id              6. status, duration: metrics
2. whom the peer speaks for 5. one line in the access log
3. limit of the body       4. errors to answers
\\                          3. ETag, 304
the application            2. security headers
=========================  =====================================================================

It is one class and not six, because it is on the path of every request and each layer of ASGI
costs a call per message.
"""

import hashlib
import ipaddress
from collections.abc import Awaitable, Callable, Collection, Sequence
from importlib.metadata import version
from itertools import count
from secrets import token_hex
from typing import Any, Final

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response

from perijove.domain.errors import HubError
from perijove.kit.clock import monotonic
from perijove.services.hub import WIRE_VERSION, Hub
from perijove.web import problems
from perijove.web.access_log import AccessLog, path_shown
from perijove.web.asgi import App, Message, Receive, Scope, Send, respond
from perijove.web.exchange import Exchange, exchange_of

log = structlog.get_logger()

Networks = Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]
Header = tuple[bytes, bytes]
ErrorPage = Callable[[Hub, Request, int, Exception], Awaitable[Response]]
"""Makes the page for an error; may fail."""

VERSION: Final = version("perijove")
MOST_BODY: Final = 1 << 20
"""Longest request body in bytes."""
JSON: Final = b"application/json"
PROBLEM_JSON: Final = b"application/problem+json"
_LONGEST_ID: Final = 64
_PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; manifest-src 'self'; form-action 'self'; "
    "base-uri 'none'; "
)


class Edge:
    """The application as a server sees it: `app`, with all that holds for every request."""

    def __init__(
        self,
        hub: Hub,
        app: App,
        *,
        access_log: AccessLog,
        error_page: ErrorPage,
        trusted: Networks = (),
    ) -> None:
        self._hub = hub
        self._error_page = error_page
        self._app = app
        self._access_log = access_log
        self._trusted = trusted
        self._ids = count(1)
        self._id_stem = token_hex(5)
        report = f"frame-ancestors 'none'; report-uri {hub.hub_prefix}security/csp-report"
        common: list[Header] = [
            (b"x-jupyterhub-version", WIRE_VERSION.encode()),
            (b"x-perijove-version", VERSION.encode()),
            (b"access-control-allow-headers", b"accept, content-type, authorization"),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"same-origin"),
        ]
        self._api_headers = [
            *common,
            (b"content-security-policy", f"{report}; default-src 'none'".encode()),
            (b"cache-control", b"no-cache, private"),
        ]
        self._page_headers = [
            *common,
            (b"content-security-policy", (_PAGE_POLICY + report).encode()),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await _refuse_other(scope, receive, send)
            return
        started_at = monotonic()
        peer_is_trusted = self._is_trusted(scope)
        exchange = Exchange(self._request_id(scope, peer_is_trusted))
        scope["state"] = {"request_id": exchange.request_id, "exchange": exchange}
        structlog.contextvars.bind_contextvars(request_id=exchange.request_id)
        if peer_is_trusted:
            self._believe_forwarded(scope)
        outgoing = _Outgoing(self, scope, exchange, send)
        try:
            await self._app(scope, _limited(scope, receive), outgoing)
        except ClientDisconnect:
            exchange.status = exchange.status or 499
        except Exception as error:  # noqa: BLE001 - the last place where an error becomes an answer
            await self._answer_error(scope, exchange, outgoing, error)
        finally:
            seconds = monotonic() - started_at
            self._hub.metrics.request(
                _known_method(scope["method"]), _handler(scope, exchange), exchange.status, seconds
            )
            if not exchange.user and (signed_in := scope["state"].get("signed_in")):
                exchange.user = signed_in.caller.name
            self._access_log.write(scope, exchange, seconds)

    # --- 1. request id -------------------------------------------------------------------------

    def _request_id(self, scope: Scope, peer_is_trusted: bool) -> str:
        if peer_is_trusted:
            given = _header_of(scope, b"x-request-id").decode("ascii", "replace")
            if 0 < len(given) <= _LONGEST_ID and given.replace("-", "").isalnum():
                return given
        return f"{self._id_stem}{next(self._ids):06x}"

    # --- 2. whom the peer speaks for -----------------------------------------------------------

    def _is_trusted(self, scope: Scope) -> bool:
        """Our proxy comes over a unix socket, where a peer has no address."""
        client = scope.get("client")
        return client is None or self._is_in_trusted(client[0])

    def _is_in_trusted(self, host: str) -> bool:
        if not self._trusted:
            return False
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._trusted)

    def _believe_forwarded(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        # From the right: each trusted proxy appended whom it saw; the rest anybody can write.
        hops = headers.get(b"x-forwarded-for", b"").decode("latin-1").split(",")
        for hop in reversed([each.strip() for each in hops]):
            if hop:
                scope["client"] = (hop[:64], 0)
            if not self._is_in_trusted(hop):
                break
        proto = headers.get(b"x-forwarded-proto", b"").split(b",")[0].strip().lower()
        if proto in (b"http", b"https"):
            scope["scheme"] = proto.decode()
        host = headers.get(b"x-forwarded-host", b"").split(b",")[0].strip()
        if host:
            others = [pair for pair in scope["headers"] if pair[0] != b"host"]
            scope["headers"] = [(b"host", host), *others]

    # --- 4. errors to answers ------------------------------------------------------------------

    async def _answer_error(
        self, scope: Scope, exchange: Exchange, send: Send, error: Exception
    ) -> None:
        if not isinstance(error, HubError):
            log.exception(
                "request_failed",
                request_id=exchange.request_id,
                method=scope["method"],
                path=path_shown(scope["path"]),
            )
        if exchange.started:
            raise error  # too late for an answer: the server cuts the connection
        exchange.start = None
        headers = tuple(problems.headers_of(error))
        if exchange.is_own:
            status, body = problems.own_problem(error, exchange.request_id)
            await respond(send, status, body, PROBLEM_JSON, headers)
        elif exchange.is_api:
            status, body = problems.wire_problem(error, exchange.request_id)
            await respond(send, status, body, JSON, headers)
        else:
            await self._answer_page(scope, send, error)

    async def _answer_page(self, scope: Scope, send: Send, error: Exception) -> None:
        status = problems.status_of(error)
        try:
            response = await self._error_page(self._hub, Request(scope), status, error)
        except Exception:
            log.exception("error_page_failed", request_id=exchange_of(scope).request_id)
            response = PlainTextResponse(
                problems.plain(status, exchange_of(scope).request_id), status
            )
        response.headers.raw.extend(problems.headers_of(error))
        await response(scope, _no_more, send)

    # --- 2. security headers -------------------------------------------------------------------

    def headers(self, exchange: Exchange) -> list[Header]:
        """Return the headers that every response of its kind has."""
        is_api = exchange.is_api or exchange.is_own
        return self._api_headers if is_api else self._page_headers


class _Outgoing:
    """Sends a response with all that every response has; answers 304 where the client has it."""

    __slots__ = ("_edge", "_exchange", "_scope", "_send")

    def __init__(self, edge: Edge, scope: Scope, exchange: Exchange, send: Send) -> None:
        self._edge = edge
        self._scope = scope
        self._exchange = exchange
        self._send = send

    async def __call__(self, message: Message) -> None:
        exchange = self._exchange
        if message["type"] == "http.response.start":
            exchange.status = message["status"]
            message["headers"] = self._with_common(message.get("headers", []))
            if exchange.status == 200 and self._scope["method"] == "GET":
                exchange.start = message  # until the body says whether there is an ETag
                return
            exchange.started = True
        elif exchange.start is not None:
            start, exchange.start = exchange.start, None
            exchange.started = True
            if not message.get("more_body", False):
                start, message = self._with_etag(start, message)
            await self._send(start)
        await self._send(message)

    def _with_common(self, own: Collection[Header]) -> list[Header]:
        exchange = self._exchange
        names = {name for name, _ in own}
        return [
            *own,
            *(pair for pair in self._edge.headers(exchange) if pair[0] not in names),
            (b"x-request-id", exchange.request_id.encode()),
        ]

    def _with_etag(self, start: Message, message: Message) -> tuple[Message, Message]:
        headers: list[Header] = start["headers"]
        etag = next((value for name, value in headers if name == b"etag"), b"")
        if not etag:
            digest = hashlib.blake2b(message.get("body", b""), digest_size=16).hexdigest()
            etag = f'"{digest}"'.encode()
            headers.append((b"etag", etag))
        if not _matches(_header_of(self._scope, b"if-none-match"), etag):
            return start, message
        self._exchange.status = 304
        kept = [pair for pair in headers if pair[0] not in (b"content-length", b"content-type")]
        return {**start, "status": 304, "headers": kept}, {"type": "http.response.body"}


def _matches(wanted: bytes, etag: bytes) -> bool:
    if not wanted:
        return False
    found = {each.strip().removeprefix(b"W/") for each in wanted.split(b",")}
    return b"*" in found or etag.removeprefix(b"W/") in found


# --- 3. limit of the body -----------------------------------------------------------------------


def _limited(scope: Scope, receive: Receive) -> Receive:
    """Return a `receive` that raises `BodyTooLarge` instead of going on for ever."""
    size = 0

    async def limited() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > MOST_BODY:
            raise _too_large()
        return message

    length = _header_of(scope, b"content-length")
    if not length and not _header_of(scope, b"transfer-encoding"):
        return receive

    async def refused() -> Message:
        raise _too_large()

    declared = int(length) if length.isdigit() else 0
    return refused if declared > MOST_BODY else limited


def _too_large() -> problems.BodyTooLarge:
    return problems.BodyTooLarge(
        f"the body of a request may have at most {MOST_BODY} bytes", limit=MOST_BODY
    )


# --- small things -------------------------------------------------------------------------------

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _known_method(method: str) -> str:
    return method if method in _METHODS else "other"


def _handler(scope: Scope, exchange: Exchange) -> str:
    """Return the label of the metrics; what Starlette's router matched has left its function."""
    endpoint: Any = scope.get("endpoint")
    if endpoint is None:
        return exchange.handler
    name = getattr(endpoint, "__qualname__", type(endpoint).__qualname__)
    return f"{endpoint.__module__}.{name}"


def _header_of(scope: Scope, name: bytes) -> bytes:
    for key, value in scope["headers"]:
        if key == name:
            found: bytes = value
            return found
    return b""


async def _no_more() -> Message:
    return {"type": "http.disconnect"}


async def _refuse_other(scope: Scope, receive: Receive, send: Send) -> None:
    """The hub speaks no WebSocket: those are for servers, and the proxy takes them there."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
