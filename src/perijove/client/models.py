"""
What the client reads of the hub's answers.

A part of `perijove.wire.launches`, with a default for all that another version of the hub may
not say: the client on a login node need not be as new as the hub.
"""

from datetime import datetime
from typing import Any

import msgspec


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What a person reads, in their language."""

    state: str = ""
    text: str = ""
    advice: str = ""


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Why it waits."""

    code: str = ""
    words: str = ""
    """The platform's own."""
    since: datetime | None = None
    """Since when it is this one."""


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How it ended."""

    cause: str = ""
    reason: str = ""
    detail: str = ""


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """One start of a server."""

    id: str
    status: str
    wanted: str = "run"
    server: str = ""
    profile: str = ""
    spawner: str = ""
    node: str = ""
    resources: dict[str, Any] = {}
    said: Said = Said()
    reason: Reason | None = None
    end: Ended | None = None
    entered_at: datetime
    unknown_since: datetime | None = None
    expected_start: datetime | None = None
    estimated_at: datetime | None = None
    ends_at: datetime | None = None
    timeline: dict[str, datetime] = {}
    server_url: str = ""

    @property
    def is_over(self) -> bool:
        """Tell whether nothing of it runs any more."""
        return self.status == "ended"

    @property
    def is_ready(self) -> bool:
        """Tell whether it can be used."""
        return self.status == "ready" and self.wanted == "run"

    @property
    def is_decided(self) -> bool:
        """Tell whether waiting for it to start is over."""
        return self.is_ready or self.is_over or self.wanted == "end"


class Usual(msgspec.Struct, frozen=True, kw_only=True):
    """How long similar starts waited."""

    wait_seconds: float
    starts: int
    days: int


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """What was free at one moment."""

    as_of: datetime
    cpus: int = 0
    of_cpus: int = 0
    gpus: int = 0
    of_gpus: int = 0


class Other(msgspec.Struct, frozen=True, kw_only=True):
    """Something else of the same person that may stand in the way."""

    name: str = ""
    state: str = ""
    status: str = ""
    interactive: bool = False
    cancel: str = ""
    """The command that cancels it, of a job that was not started here."""


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """A reservation of the platform's, or a maintenance."""

    starts_at: datetime
    ends_at: datetime
    name: str = ""


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """What surrounds a wait."""

    actions: list[str] = []
    """What helps, the most useful first."""
    silent_since: datetime | None = None
    """Since when the platform has not answered."""
    asked_at: datetime | None = None
    """Since when the site asks whether to go on waiting."""
    usual: Usual | None = None
    room: Room | None = None
    as_of: datetime | None = None
    """When the platform told of `room` and `own_jobs`."""
    reservation: Window | None = None
    """The one that it asks for."""
    maintenance: Window | None = None
    """The next one of nodes that it may run on."""
    fits_now: dict[str, float] = {}
    """Less of what it asks for, by option, so much as one node has free now."""
    fits_before: int | None = None
    """Seconds that would be over before the maintenance, where it asks for more."""
    own_jobs: list[Other] = []
    own_servers: list[Other] = []


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a launch."""

    seq: int
    at: datetime
    code: str
    text: str = ""
    params: dict[str, Any] = {}


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A server, running or not."""

    name: str
    display_name: str = ""
    ready: bool = False
    stopped: bool = True
    pending: str | None = None
    url: str = ""


class User(msgspec.Struct, frozen=True, kw_only=True):
    """Whose the token is."""

    name: str
    kind: str = "user"
    servers: dict[str, Server] = {}


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Something that can be started."""

    name: str
    title: dict[str, str] = {}
    description: dict[str, str] = {}
    schema: dict[str, Any] = {}
    refused: dict[str, Any] | None = None


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """What was chosen last."""

    profile: str = ""
    options: dict[str, Any] = {}


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """Something installed once, for all later sessions."""

    id: int
    name: str
    owner: str = ""
    maker: str = "hub"
    place: str = ""
    state: str = ""
    packages: list[str] = []
    locked: bool = False
    has_lock: bool = False
    shared_with: list[str] = []
    size_bytes: int | None = None
    error: str = ""
    created_at: datetime | None = None
    changed_at: datetime | None = None
    seen_at: datetime | None = None


class Environments(msgspec.Struct, frozen=True, kw_only=True):
    """What the user has, what others share, and where new ones can lie."""

    environments: list[Environment] = []
    shared: list[Environment] = []
    places: list[str] = []


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """All that can be started, and how."""

    profiles: list[Profile] = []
    chosen: Chosen = Chosen()
