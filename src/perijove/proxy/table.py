"""The route table of one proxy process: which backend a request goes to.

Routes are kept in dictionaries by prefix, so that a look-up is a walk over the few segments a
prefix can have, however long the path and however many the routes.
"""

import re
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

import structlog

from perijove.proxy.head import host_name
from perijove.wire.control import Route, RouteTable

log = structlog.get_logger()

_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_PREFIX = re.compile(rb"/(?:[!\"$-.0->@-\[\]-~]++/)*+")
_TARGET = re.compile(
    r"unix:/[^\x00]+|https?://(?:[A-Za-z0-9_.\-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?"
)


class Retirable(Protocol):
    """What stands behind a route."""

    @property
    def route(self) -> Route:
        """Return the route it was made for."""

    def retire(self) -> None:
        """Serve no new request: the route is gone or leads elsewhere."""


B = TypeVar("B", bound=Retirable)


class RefusedTable(Exception):
    """A table that must not be used: of another installation, or older than the present one."""


class Routes(Generic[B]):
    """The table in use, its installation and its revision."""

    def __init__(self, make_backend: Callable[[Route], B]) -> None:
        self.installation = ""
        self.revision = 0
        self._make_backend = make_backend
        self._backends: dict[tuple[str, str], B] = {}
        self._any_host: dict[bytes, B] = {}
        self._by_host: dict[bytes, dict[bytes, B]] = {}
        self._depth = 0

    def __len__(self) -> int:
        return len(self._backends)

    @property
    def backends(self) -> Iterable[B]:
        """Every backend in use."""
        return self._backends.values()

    def find(self, host: bytes, path: bytes) -> B | None:
        """Return the backend of the longest prefix of `path`; routes of the host come first."""
        end = 0
        for _ in range(self._depth):
            end = path.find(b"/", end + 1)
            if end < 0:
                break
        else:
            path = path[:end]
        if b"%" in path:
            path = canonical(path)
        if self._by_host:
            of_host = self._by_host.get(host_name(host)) if host else None
            if of_host is not None:
                found = _longest(of_host, path)
                if found is not None:
                    return found
        return _longest(self._any_host, path)

    def apply(self, table: RouteTable) -> None:
        """Take over `table`, retiring what is gone or changed; raise `RefusedTable`.

        A backend whose route is the same as before stays as it is, connections included.
        """
        if self.installation and table.installation != self.installation:
            raise RefusedTable(f"of installation {table.installation!r}, not {self.installation!r}")
        if table.revision < self.revision:
            raise RefusedTable(f"of revision {table.revision}, older than {self.revision}")
        if table.full:
            named = {(route.host, route.prefix) for route in table.routes}
            gone = [key for key in self._backends if key not in named]
        else:
            gone = [(host, prefix) for host, prefix in table.removed]
        retired = [self._drop(key) for key in gone if key in self._backends]
        for route in table.routes:
            key = (route.host, route.prefix)
            present = self._backends.get(key)
            if present is not None and present.route == route:
                continue
            if present is not None:
                retired.append(self._drop(key))
            if is_usable(route):
                self._put(key, route)
            else:
                log.error("proxy_route_unusable", prefix=route.prefix, host=route.host)
        self.installation, self.revision = table.installation, table.revision
        for backend in retired:
            backend.retire()

    def snapshot(self) -> RouteTable:
        """Return the whole table in use."""
        routes = [backend.route for backend in self._backends.values()]
        return RouteTable(self.installation, self.revision, routes)

    def _put(self, key: tuple[str, str], route: Route) -> None:
        host, path = _place(key)
        of_host = self._by_host.setdefault(host, {}) if host else self._any_host
        self._backends[key] = of_host[path] = self._make_backend(route)
        self._depth = max(self._depth, path.count(b"/"))

    def _drop(self, key: tuple[str, str]) -> B:
        host, path = _place(key)
        of_host = self._by_host[host] if host else self._any_host
        backend = self._backends.pop(key)
        if of_host.get(path) is backend:
            del of_host[path]
        if host and not of_host:
            del self._by_host[host]
        return backend


def _place(key: tuple[str, str]) -> tuple[bytes, bytes]:
    """Return host and path of a route as look-ups have them."""
    host, prefix = key
    return host.encode(), canonical(prefix.encode()).rstrip(b"/")


def canonical(path: bytes) -> bytes:
    """Return `path` with every escape decoded, but ``%2F`` and ``%25``, which stay.

    Two paths that an upstream reads alike have one canonical form, and a slash that was escaped
    never divides segments. Serves matching only; what is forwarded is the path as it came.
    """
    return _ESCAPE.sub(_decode, path)


def _decode(match: re.Match[bytes]) -> bytes:
    byte = bytes((int(match[1], 16),))
    return match[0].upper() if byte in (b"/", b"%") else byte


def is_usable(route: Route) -> bool:
    """Tell whether a route has a form that can be matched and connected to."""
    target = _TARGET.fullmatch(route.target)
    return (
        target is not None
        and (target[1] is None or 0 < int(target[1]) < 65536)
        and route.prefix.isascii()
        and _PREFIX.fullmatch(route.prefix.encode()) is not None
        and route.host.isascii()
    )


def _longest(routes: dict[bytes, B], path: bytes) -> B | None:
    while True:
        found = routes.get(path)
        if found is not None:
            return found
        cut = path.rfind(b"/")
        if cut < 0:
            return None
        path = path[:cut]
