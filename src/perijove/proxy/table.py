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
        if b"%" in path:
            path = canonical(path)
        end = 0
        for _ in range(self._depth):
            end = path.find(b"/", end + 1)
            if end < 0:
                break
        else:
            path = path[:end]
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
        wanted = {} if table.full else {k: b.route for k, b in self._backends.items()}
        for key in table.removed:
            wanted.pop((key[0], key[1]), None)
        for route in table.routes:
            if is_usable(route):
                wanted[route.host, route.prefix] = route
            else:
                log.error("proxy_route_unusable", prefix=route.prefix, host=route.host)
        if not (table.full or table.routes or table.removed):
            self.installation, self.revision = table.installation, table.revision
            return
        retired = self._exchange(wanted)
        self.installation, self.revision = table.installation, table.revision
        for backend in retired:
            backend.retire()

    def snapshot(self) -> RouteTable:
        """Return the whole table in use."""
        routes = [backend.route for backend in self._backends.values()]
        return RouteTable(self.installation, self.revision, routes)

    def _exchange(self, wanted: dict[tuple[str, str], Route]) -> list[B]:
        old = self._backends
        new: dict[tuple[str, str], B] = {}
        for key, route in wanted.items():
            kept = old.get(key)
            new[key] = kept if kept and kept.route == route else self._make_backend(route)
        any_host: dict[bytes, B] = {}
        by_host: dict[bytes, dict[bytes, B]] = {}
        depth = 0
        for (host, prefix), backend in new.items():
            key_path = canonical(prefix.encode()).rstrip(b"/")
            depth = max(depth, key_path.count(b"/"))
            if host:
                by_host.setdefault(host.encode(), {})[key_path] = backend
            else:
                any_host[key_path] = backend
        self._backends, self._any_host, self._by_host = new, any_host, by_host
        self._depth = depth
        return [backend for key, backend in old.items() if new.get(key) is not backend]


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
