"""What the proxy and the hub say to each other, on the control socket.

The control socket is a unix socket of mode 0600 (or a TCP address with a shared secret);
no request of a browser ever arrives there.

``GET /routes?worker=W&installation=I&revision=N&wait=S``
    Long poll. Answers a `RouteTable` as soon as the hub's revision differs from `N`, or after
    `S` seconds (at most `MAX_WAIT_SECONDS`). A worker says with `revision` which table it is
    *using*: the hub counts a launch as routed when every live worker has asked with the
    revision of its route. `revision=0` asks for everything.
``POST /activity``
    Body: an `ActivityReport`. Answers 204.
``GET /error/<status>?url=<path>``
    The hub's error page for a failed request, to be relayed with that status. The headers
    ``Accept``, ``Accept-Language`` and ``Cookie`` of the person's request are passed on.
``POST /tunnels``
    Body: a `TunnelClaim`, of a job that dials in. Answers 200 with a `TunnelGrant`; 403 for a
    wrong code, 409 for a job beside the one that registered, 410 when nobody wants the launch.
``POST /tunnels/over``
    Body: `Launches` that have tunnels. Answers with those of them that are over.
"""

import msgspec

from perijove.wire.registration import Identity

MAX_WAIT_SECONDS = 4.0
"""Longest a poll stays open: also how often a worker proves that it lives."""

SECRET_HEADER = "X-Perijove-Control"
"""Carries the shared secret where the control address is TCP."""

PROXY_HEADER = "X-Perijove-Proxy"
"""
Carries the same secret on a person's request that a proxy on another machine passes on.

Over the hub's unix socket only its own proxy can come; over TCP this is what makes the hub
believe ``X-Forwarded-*``. One that a browser sent stands before ours and is not looked at.
"""


class Route(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entry of the table: requests below `prefix` go to `target`."""

    prefix: str
    """Path with leading and trailing slash, percent-encoded as in URLs; matched by segments."""
    target: str
    """``http://host:port``, ``https://host:port`` or ``unix:/path/of.sock``; nothing after it."""
    host: str = ""
    """Host name the route is limited to, lower case, without port; empty for any."""
    ca: str = ""
    """PEM of the only authority accepted for an ``https`` target."""
    launch: str = ""
    """Id of the launch behind the route; activity is reported under it. Empty: not reported."""


class RouteTable(msgspec.Struct, frozen=True, omit_defaults=True):
    """All routes, or what changed since the revision that was asked with."""

    installation: str
    """A proxy refuses a table of another installation than the one it has."""
    revision: int
    """Grows with every change. A proxy refuses a lower one from the same installation."""
    routes: list[Route]
    """To add or replace, keyed by (host, prefix)."""
    removed: list[tuple[str, str]] = []
    """Keys (host, prefix) to drop; only with `full` false."""
    full: bool = True
    """True: what is not in `routes` goes away."""


class TunnelClaim(Identity, frozen=True, kw_only=True):
    """Who dials in, with the proof, and from where."""

    address: str = ""


class TunnelGrant(msgspec.Struct, frozen=True):
    """Whose tunnel it is."""

    name: str
    """The launch's platform name; its socket is called by it."""


class Launches(msgspec.Struct, frozen=True):
    """Some launches, by their ids."""

    launches: list[str]


class ActivityReport(msgspec.Struct, frozen=True):
    """When a person last did something through a route; seconds since the epoch, by launch id."""

    launches: dict[str, float]
