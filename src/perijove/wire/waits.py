"""Bodies about a wait: what surrounds it, and what its owner is asked."""

import msgspec


class Usual(msgspec.Struct, kw_only=True):
    """How long similar requests waited lately, from our own rows."""

    wait_seconds: float
    """The median."""
    starts: int
    """Of how many."""
    days: int
    """How far back."""


class Room(msgspec.Struct, kw_only=True):
    """What was free at one moment."""

    as_of: str
    cpus: int
    of_cpus: int
    gpus: int
    of_gpus: int
    most_cpus: int
    """On the one node with the most."""
    most_memory_bytes: int


class OwnJob(msgspec.Struct, kw_only=True):
    """A job of the same person that was not started here."""

    id: str
    name: str
    state: str
    interactive: bool
    """It was started to work in it, as the servers here are."""
    cancel: str
    """The command that cancels it, where its owner is signed in; empty where none is known."""
    cpus: int | None
    gpus: int | None


class OwnServer(msgspec.Struct, kw_only=True):
    """Another server of the same person on the same platform."""

    name: str
    launch: str
    status: str


class Window(msgspec.Struct):
    """A reservation of the platform's, or a maintenance."""

    name: str
    starts_at: str
    ends_at: str


class Wait(msgspec.Struct, kw_only=True):
    """Answer of ``GET /launches/:id/wait``."""

    origin: str | None
    """Where the obstacle is: request, policy, capacity, scheduler, node, application, hub."""
    actions: list[str]
    """What helps, the most useful first."""
    field: str
    """The option that is the culprit; empty where none is."""
    waited_seconds: float
    silent_since: str | None
    """Since when the platform has not answered."""
    asked_at: str | None
    """When the queue's limit was reached and its owner asked; ``POST …/keep-waiting`` answers."""
    usual: Usual | None
    room: Room | None
    as_of: str | None
    """When the platform told of `room` and `own_jobs`."""
    reservation: Window | None
    """The one that it asks for."""
    maintenance: Window | None
    """The next one, or the present one, of nodes that it may run on."""
    fits_now: dict[str, float]
    """Less of what it asks for, by option, so much as one node has free now."""
    fits_before: int | None
    """Seconds that would be over before the maintenance, where it asks for more."""
    own_jobs: list[OwnJob]
    own_servers: list[OwnServer]
    notify_by: list[str]
    """The ways in which this site can tell the owner."""
    notified_by: list[str]
    """Those that were chosen."""
