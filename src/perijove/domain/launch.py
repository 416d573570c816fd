"""The launch: what runs and is reconciled. Values, and one table of transitions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from perijove.domain.errors import Conflict


class Kind(StrEnum):
    """What a launch is for."""

    SERVER = "server"
    JOB = "job"
    BUILD = "build"
    PROBE = "probe"


class Wanted(StrEnum):
    """What was asked for. Written by requests and by policy; never goes back to RUN."""

    RUN = "run"
    END = "end"


class Status(StrEnum):
    """What was last seen. Written by the reconciler only."""

    REQUESTED = "requested"  #: Admitted; nothing exists on the platform yet.
    SUBMITTED = "submitted"  #: Handed to the spawner, or about to be: something may exist.
    QUEUED = "queued"  #: The platform has it and makes it wait.
    HELD = "held"  #: The platform has it and will not start it until somebody acts.
    STARTING = "starting"  #: It runs; where it listens is not known yet.
    CONNECTING = "connecting"  #: It says where it listens; not answering, or not routed yet.
    READY = "ready"  #: It answers, and every live proxy worker has its route.
    SUSPENDED = "suspended"  #: The platform stopped it for a while.
    ENDING = "ending"  #: Its route is gone; it is being removed from the platform.
    ENDED = "ended"  #: Nothing of it exists. Final; `end` says why.


WAITING: Final = frozenset(
    {
        Status.REQUESTED,
        Status.SUBMITTED,
        Status.QUEUED,
        Status.HELD,
        Status.STARTING,
        Status.CONNECTING,
    }
)
"""On the way to ready: the wire's ``pending = "spawn"``."""

ON_PLATFORM: Final = frozenset(Status) - {Status.REQUESTED, Status.ENDED}
"""Something may exist on the platform."""

_ALIVE = {Status.QUEUED, Status.HELD, Status.STARTING, Status.CONNECTING, Status.SUSPENDED}
_NEXT: Final[Mapping[Status, frozenset[Status]]] = {
    Status.REQUESTED: frozenset({Status.SUBMITTED, Status.ENDED}),
    Status.SUBMITTED: frozenset(_ALIVE | {Status.ENDING}),
    Status.QUEUED: frozenset(_ALIVE | {Status.ENDING}),
    Status.HELD: frozenset(_ALIVE | {Status.ENDING}),
    Status.STARTING: frozenset(_ALIVE | {Status.ENDING}),
    Status.CONNECTING: frozenset(_ALIVE | {Status.READY, Status.ENDING}),
    Status.READY: frozenset(
        {Status.SUSPENDED, Status.QUEUED, Status.STARTING, Status.CONNECTING, Status.ENDING}
    ),
    Status.SUSPENDED: frozenset(_ALIVE | {Status.READY, Status.ENDING}),
    Status.ENDING: frozenset({Status.ENDED}),
    Status.ENDED: frozenset(),
}


def may_follow(old: Status, new: Status) -> bool:
    """Tell whether a launch may go from `old` to `new`; staying is always allowed."""
    return old == new or new in _NEXT[old]


def check_transition(old: Status, new: Status) -> None:
    """Raise `Conflict` unless `new` may follow `old`."""
    if not may_follow(old, new):
        raise Conflict(f"a launch cannot go from {old} to {new}")


class Cause(StrEnum):
    """Why a launch ended."""

    USER = "user"
    ADMIN = "admin"
    IDLE = "idle"
    MAX_AGE = "max-age"
    WALLTIME = "walltime"
    OUT_OF_MEMORY = "out-of-memory"
    NODE_FAIL = "node-fail"
    PREEMPTED = "preempted"
    CANCELLED_OUTSIDE = "cancelled-outside"
    EXITED = "exited"
    SIGNAL = "signal"
    NEVER_STARTED = "never-started"
    POLICY = "policy"
    MAINTENANCE = "maintenance"
    UNKNOWN = "unknown"


OUTSIDE: Final = frozenset(
    {
        Cause.OUT_OF_MEMORY,
        Cause.NODE_FAIL,
        Cause.PREEMPTED,
        Cause.CANCELLED_OUTSIDE,
        Cause.EXITED,
        Cause.SIGNAL,
        Cause.UNKNOWN,
    }
)
"""What is seen, not asked for here: the server ended by itself or from outside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """
    Why, with the evidence: ``exited(1)``, ``signal(9)``, ``never-started(start-clock)``.

    `code` is the exit status or the signal number; `reason` a stable word that the catalogue
    knows; `detail` the platform's own words.
    """

    cause: Cause
    code: int | None = None
    reason: str = ""
    detail: str = ""

    def __str__(self) -> str:
        inside = self.reason if self.code is None else str(self.code)
        return f"{self.cause}({inside})" if inside else str(self.cause)


class Clock(StrEnum):
    """The four clocks of a start, each with its own limit and message (design decision 7)."""

    SUBMIT = "submit"
    QUEUE = "queue"
    START = "start"
    CONNECT = "connect"


CLOCK_OF: Final[Mapping[Status, Clock]] = {
    Status.SUBMITTED: Clock.SUBMIT,
    Status.QUEUED: Clock.QUEUE,
    Status.HELD: Clock.QUEUE,
    Status.STARTING: Clock.START,
    Status.CONNECTING: Clock.CONNECT,
}
"""Which clock runs in which status."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why a launch waits: a stable word, what fills its sentence, and the platform's words."""

    code: str
    params: Mapping[str, Any] = field(default_factory=dict)
    words: str = ""
    since: datetime | None = field(default=None, compare=False)
    """Since when it is this one, where that is known: the same reason, whenever it began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What a launch asks for; None where the profile leaves it to the platform."""

    cpu: float | None = None
    """Cores."""
    memory_bytes: int | None = None
    gpu: int | None = None
    time_seconds: int | None = None
    """Wall time; the launch ends with cause walltime after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One row of the launch table: the whole truth about one start."""

    id: str
    kind: Kind
    wanted: Wanted
    status: Status
    name: str
    """Platform name: unique, stored, never recomputed."""
    spawner: str
    user_id: int | None
    user_name: str
    server_id: int | None
    server_name: str
    generation: int
    spec: Mapping[str, Any]
    """Frozen at admission: profile and its revision, options, resources, limits, decision."""
    after: str | None = None
    """Id of the launch that must have ended before this one is submitted (restart)."""
    node: str = ""
    url: str = ""
    """Where it listens, as the hub and the proxy reach it; without path."""
    reason: Reason | None = None
    expected_start: datetime | None = None
    """When the platform thinks it will start, a forecast made at `estimated_at`."""
    estimated_at: datetime | None = None
    ends_at: datetime | None = None
    """When the platform will end it at the latest."""
    queue_asked_at: datetime | None = None
    """When its time in the queue was over and the person was asked whether to go on waiting."""
    queue_extended_at: datetime | None = None
    """When the person said yes; the queue clock begins anew."""
    unknown_since: datetime | None = None
    absences: int = 0
    """Complete answers of the platform, one after the other, that did not show it."""
    failures: int = 0
    requested_at: datetime
    submitted_at: datetime | None = None
    queued_at: datetime | None = None
    starting_at: datetime | None = None
    connecting_at: datetime | None = None
    ready_at: datetime | None = None
    ending_at: datetime | None = None
    ended_at: datetime | None = None
    end: End | None = None
    route_revision: int | None = None
    last_activity: datetime | None = None
    activity_source: str = ""
    heard_at: datetime | None = None
    """When the server itself last reported, busy or not."""
    server_version: str = ""

    @property
    def is_live(self) -> bool:
        """True until the end is final."""
        return self.status != Status.ENDED

    def time_is_over_at(self) -> datetime | None:
        """Return when the time it asked for is over: as the platform says, else as planned."""
        seconds = self.spec.get("resources", {}).get("time_seconds")
        began = self.starting_at or self.connecting_at or self.ready_at
        if self.ends_at is not None or seconds is None or began is None:
            return self.ends_at
        return began + timedelta(seconds=seconds)

    def entered_at(self) -> datetime:
        """Return when the present status was entered."""
        at = {
            Status.SUBMITTED: self.submitted_at,
            Status.QUEUED: self.queued_at,
            Status.HELD: self.queued_at,
            Status.STARTING: self.starting_at,
            Status.CONNECTING: self.connecting_at,
            Status.READY: self.ready_at,
            Status.ENDING: self.ending_at,
            Status.ENDED: self.ended_at,
        }.get(self.status)
        return at or self.requested_at
