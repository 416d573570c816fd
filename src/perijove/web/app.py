"""The hub's web application: which part of it answers which path (wire §1.9, §4.1, §4.9)."""

import sys
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote, unquote, unquote_to_bytes

from starlette.routing import BaseRoute, Match, Router

from perijove.domain.errors import Forbidden, NotFound
from perijove.services.hub import Hub
from perijove.web import oauth, pages
from perijove.web.access_log import AccessLog
from perijove.web.api import TABLE
from perijove.web.api.calls import Patience
from perijove.web.api.routing import Api
from perijove.web.asgi import App, Receive, Scope, Send, respond
from perijove.web.edge import Edge, Networks
from perijove.web.exchange import exchange_of
from perijove.web.metrics import MetricsEndpoint
from perijove.web.pages.errors import render_error
from perijove.web.problems import MethodNotAllowed

_HTML: Final = b"text/html; charset=utf-8"
_PATH_SAFE: Final = "/%:@!$&'()*+,;=~-._"
_WITH_SLASH: Final = frozenset({"user", "services"})


def create_app(
    hub: Hub,
    *,
    access_log: AccessLog | None = None,
    trusted: Networks = (),
    patience: Patience | None = None,
) -> App:
    """
    Return the application of a hub.

    `trusted` are networks whose ``X-Forwarded-…`` is believed, beside the proxy that comes over
    a unix socket. `patience` is for tests that will not wait.
    """
    return Edge(
        hub,
        _Application(hub, patience or Patience()),
        access_log=access_log or _access_log(hub),
        error_page=render_error,
        trusted=trusted,
    )


def _access_log(hub: Hub) -> AccessLog:
    """Return the log that looks like the other lines, and is as loud as they are."""
    style = hub.settings.log_format
    is_console = style == "console" or (style == "auto" and sys.stderr.isatty())
    is_on = hub.settings.log_level in ("debug", "info")
    return AccessLog(hub.clock, as_json=not is_console, is_on=is_on)


class _Application:
    """Splits the path once, and hands the request on."""

    def __init__(self, hub: Hub, patience: Patience) -> None:
        self._hub = hub
        self._base = [unquote(each) for each in hub.base_path.split("/")[1:-1]]
        self._api_prefix = f"{hub.hub_prefix}api/".encode()
        self._api = Api(hub, TABLE, patience)
        self._metrics = MetricsEndpoint(hub)
        self._pages = _Routes(pages.routes(hub))
        self._oauth = _Routes(oauth.api_routes(hub), f"{unquote(hub.hub_prefix)}api")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        segments = _segments(scope)
        depth = len(self._base)
        if segments is None or segments[:depth] != self._base:
            exchange_of(scope).is_api = scope["raw_path"].startswith(self._api_prefix)
            raise NotFound("Not Found")
        inside = segments[depth:]
        if not inside or inside[0] != "hub":
            await self._outside(inside, scope, send)
        elif len(inside) == 1:
            await _redirect(send, scope, 301, self._hub.hub_prefix)
        elif inside[1] == "api":
            await self._answer_api(inside[2:] or [""], scope, receive, send)
        elif inside[1:] == ["metrics"]:
            await self._answer_metrics(scope, receive, send)
        elif inside[1:] == ["health"]:
            await self._answer_health(scope, send)
        elif inside[1:] == ["security", "csp-report"] and scope["method"] == "POST":
            exchange_of(scope).handler = "perijove.web.csp_report"
            self._hub.metrics.csp_reports.inc()
            await respond(send, 200)
        else:
            # Routes are written with the base path as it stands in URLs.
            scope["path"] = self._hub.hub_prefix + "/".join(inside[1:])
            await self._pages(scope, receive, send)

    async def _answer_api(
        self, segments: Sequence[str], scope: Scope, receive: Receive, send: Send
    ) -> None:
        exchange = exchange_of(scope)
        if list(segments) == ["metrics"]:
            await self._answer_metrics(scope, receive, send)
            return
        exchange.is_api = True
        exchange.is_own = segments[0] == "perijove"
        if await self._api(segments, scope, receive, send):
            return
        if scope["method"] == "OPTIONS":
            await respond(send, 200)
        elif self._oauth.has(scope):
            await self._oauth(scope, receive, send)
        else:
            raise NotFound("Not Found")

    async def _answer_metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange_of(scope).handler = "perijove.web.metrics"
        if scope["method"] != "GET":
            raise MethodNotAllowed("Method Not Allowed")
        await self._metrics(scope, receive, send)

    async def _answer_health(self, scope: Scope, send: Send) -> None:
        exchange_of(scope).handler = "perijove.web.health"
        if scope["method"] not in ("GET", "HEAD"):
            raise MethodNotAllowed("Method Not Allowed")
        await respond(send, 200, b"", _HTML)

    async def _outside(self, inside: Sequence[str], scope: Scope, send: Send) -> None:
        """Answer what the proxy's default route brings: send browsers to the hub (wire §1.9)."""
        exchange_of(scope).handler = "perijove.web.outside"
        if scope["method"] not in ("GET", "HEAD"):
            if inside and inside[0] == "user" and not _has_token(scope):
                raise Forbidden("'_xsrf' argument missing from POST", code="xsrf")
            raise MethodNotAllowed("Method Not Allowed")
        path = _path(scope)
        if len(inside) == 2 and inside[0] in _WITH_SLASH and inside[1]:
            await _redirect(send, scope, 301, f"{path}/")
            return
        below = path.removeprefix(self._hub.base_path)
        await _redirect(send, scope, 302, self._hub.hub_prefix + below)


class _Routes:
    """Starlette routes below a prefix, as an application."""

    def __init__(self, routes: Sequence[BaseRoute], prefix: str = "") -> None:
        self._routes = routes
        self._prefix = prefix
        self._router = Router(routes, redirect_slashes=False, default=_not_found)

    def has(self, scope: Scope) -> bool:
        """Tell whether any route has the path of a request, whatever its method."""
        child = {**scope, "root_path": self._prefix}
        return any(route.matches(child)[0] is not Match.NONE for route in self._routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["root_path"] = self._prefix
        await self._router(scope, receive, send)


async def _not_found(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise NotFound("Not Found")


def _segments(scope: Scope) -> list[str] | None:
    """Return the path's segments, each decoded once; None where one is no text."""
    raw: bytes = scope["raw_path"]
    if b"%" not in raw and raw.isascii():
        return raw.decode("ascii").split("/")[1:]
    try:
        found = [unquote_to_bytes(each).decode() for each in raw.split(b"/")[1:]]
    except UnicodeDecodeError:
        return None
    return None if any("\0" in each for each in found) else found


def _path(scope: Scope) -> str:
    """Return the path as it was sent, fit for a header."""
    return quote(scope["raw_path"].decode("latin-1"), safe=_PATH_SAFE)


async def _redirect(send: Send, scope: Scope, status: int, location: str) -> None:
    query: bytes = scope["query_string"]
    target = location.encode("ascii") + (b"?" + query if query else b"")
    await respond(send, status, b"", _HTML, ((b"location", target),))


def _has_token(scope: Scope) -> bool:
    return any(name == b"authorization" for name, _ in scope["headers"])
