"""`Hub`: what every service, loop and page works with, built once by `bootstrap`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote

import anyio

from perijove.db.core import Database
from perijove.kit.clock import Clock
from perijove.kit.flights import Flights
from perijove.kit.kept import Kept
from perijove.kit.keyring import Keyring
from perijove.kit.loops import Doorbell, Gong
from perijove.services.activity import Seen
from perijove.services.metrics import Metrics
from perijove.services.sections import HubSection, LifecycleSection
from perijove.services.senders import NotifySection
from perijove.spawners.contract import Spawner, SpawnerSettings

if TYPE_CHECKING:
    from perijove.auth.contract import Authenticator

WIRE_VERSION = "6.1.1"
"""The version of the JupyterHub protocol this hub speaks, and claims (design decision 9)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedSpawner:
    """A spawner instance of the configuration with its settings."""

    spawner: Spawner
    settings: SpawnerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """The parts of a running hub. Immutable; the state is in the database."""

    database: Database
    clock: Clock
    keyring: Keyring
    installation: str
    settings: HubSection
    lifecycle: LifecycleSection
    notify: NotifySection = field(default_factory=NotifySection)
    api_url: str
    """``http://host:port`` + ``B hub/api``, as servers reach it (wire §1.2)."""
    spawners: Mapping[str, PlacedSpawner] = field(default_factory=dict)
    authenticators: Mapping[str, "Authenticator"] = field(default_factory=dict)
    due: Doorbell = field(default_factory=Doorbell)
    """Rung when a launch has become due: wakes the reconciler."""
    look: Doorbell = field(default_factory=Doorbell)
    """Rung when something is on its way: wakes the observers."""
    events: Gong = field(default_factory=Gong)
    """Struck when events were written: wakes streams."""
    routes: Gong = field(default_factory=Gong)
    """Struck when the route table changed: wakes the proxies' polls."""
    workers: Gong = field(default_factory=Gong)
    """Struck when a proxy worker has asked with a new revision: wakes who waits for it."""

    flights: Flights = field(default_factory=Flights)
    """Questions to platforms that go on while a page waits for them, see `discovery`."""

    metrics: Metrics = field(default_factory=Metrics)
    seen: Seen = field(default_factory=Seen)
    """Tokens in use, to be written by the loop of `services.activity.flush`."""

    kept: Kept = field(default_factory=Kept)
    """What pages ask again and again and may be a minute old."""

    stopping: anyio.Event = field(default_factory=anyio.Event)
    """Set when this process is about to stop: streams end, so that clients ask another."""

    @property
    def base_path(self) -> str:
        """`B` of the wire document: begins and ends with a slash."""
        return self.settings.base_path

    @property
    def hub_prefix(self) -> str:
        """`B hub/`."""
        return self.settings.base_path + "hub/"


def quote_name(name: str) -> str:
    """Percent-encode a user or server name for a URL path; `@` and `~` stay (wire §0.1)."""
    return quote(name, safe="@~")


def server_prefix(base_path: str, user: str, server: str) -> str:
    """Return ``B user/:n/`` or ``B user/:n/:s/`` (wire §1.1)."""
    prefix = f"{base_path}user/{quote_name(user)}/"
    return f"{prefix}{quote_name(server)}/" if server else prefix


def client_id_of(user: str, server: str) -> str:
    """Return the OAuth client id and cookie name of a server; nothing stays literal (wire §0.1)."""
    client = f"jupyterhub-user-{quote(user, safe='')}"
    return f"{client}-{quote(server, safe='')}" if server else client
