"""
The catalogue of reasons: why a launch waits, why it could not start, why it ended.

A driver says one of these codes and adds the platform's own words; what its scheduler calls
the same thing stays in the driver. Here stands what follows from a code, in no language; the
sentences are in `web/texts/reasons.py`, and a test holds the two against each other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from perijove.domain.launch import Cause, Clock, End, Reason


class Origin(StrEnum):
    """Where the obstacle is, and so whose turn it is."""

    REQUEST = "request"  #: What was asked for cannot be, or is too much.
    POLICY = "policy"  #: A rule or a limit of the site.
    CAPACITY = "capacity"  #: Others use what was asked for.
    SCHEDULER = "scheduler"  #: The scheduler, or whoever looks after it.
    NODE = "node"  #: The machine it runs on, or was to run on.
    APPLICATION = "application"  #: The server's own program, software or home.
    HUB = "hub"  #: This program, or the way between it and the node.


class Action(StrEnum):
    """What a person can do about it, besides cancelling, which is always possible."""

    KEEP_WAITING = "keep-waiting"  #: Say that one goes on waiting.
    RELEASE = "release"  #: Take one's own hold off.
    CHANGE_REQUEST = "change-request"  #: Back to the form, with what was entered.
    OWN_JOBS = "own-jobs"  #: Look at one's other jobs, which take of the same limit.
    START_AGAIN = "start-again"  #: The same once more.
    MORE_MEMORY = "more-memory"
    MORE_TIME = "more-time"
    READ_LOG = "read-log"
    ASK_ADMIN = "ask-admin"


@dataclass(frozen=True, slots=True)
class Known:
    """What follows from a code."""

    origin: Origin
    actions: tuple[Action, ...] = ()
    """The most useful first."""
    field: str = ""
    """The option that is the culprit, where it is always the same one."""
    can_never_start: bool = False
    """While it holds, waiting is useless: the request is ended and the form comes back."""
    id: str = ""
    """What people search for and report, where that is not the code."""


_CHANGE: Final = (Action.CHANGE_REQUEST,)
_JOBS: Final = (Action.OWN_JOBS, Action.CHANGE_REQUEST)
_AGAIN: Final = (Action.START_AGAIN, Action.CHANGE_REQUEST)
_AGAIN_OR_ADMIN: Final = (*_AGAIN, Action.ASK_ADMIN)
_LOG: Final = (Action.READ_LOG, Action.START_AGAIN)
_ADMIN: Final = (Action.ASK_ADMIN,)
_ADMIN_OR_CHANGE: Final = (Action.ASK_ADMIN, Action.CHANGE_REQUEST)


def _never(field: str = "", origin: Origin = Origin.REQUEST) -> Known:
    return Known(origin, _CHANGE, field, can_never_start=True)


WAITING: Final[Mapping[str, Known]] = MappingProxyType(
    {
        "priority": Known(Origin.CAPACITY, _CHANGE),
        "resources": Known(Origin.CAPACITY, _CHANGE),
        "no-slots": Known(Origin.CAPACITY, _CHANGE),
        "licenses": Known(Origin.CAPACITY),
        "just-submitted": Known(Origin.SCHEDULER),
        "begin-time": Known(Origin.SCHEDULER),
        "dependency": Known(Origin.SCHEDULER),
        "max-jobs-user": Known(Origin.POLICY, _JOBS),
        "max-jobs-account": Known(Origin.POLICY, _JOBS, "account"),
        "max-submit": Known(Origin.POLICY, _JOBS),
        "max-cpus": Known(Origin.POLICY, _JOBS, "cpu"),
        "max-gpus": Known(Origin.POLICY, _JOBS, "gpu"),
        "max-memory": Known(Origin.POLICY, _JOBS, "memory"),
        "quota": Known(Origin.POLICY, _JOBS),
        "no-budget": Known(Origin.POLICY, _CHANGE, "account"),
        "over-time-limit": _never("time", Origin.POLICY),
        "over-size-limit": _never(origin=Origin.POLICY),
        "node-starting": Known(Origin.NODE),
        "node-unavailable": Known(Origin.NODE, _CHANGE),
        "maintenance": Known(Origin.SCHEDULER, _CHANGE, "time"),
        "reservation": Known(Origin.SCHEDULER, _CHANGE, "reservation"),
        "reservation-gone": _never("reservation"),
        "held-by-user": Known(Origin.SCHEDULER, (Action.RELEASE,)),
        "held-by-admin": Known(Origin.SCHEDULER, _ADMIN),
        "held-by-system": Known(Origin.SCHEDULER, _ADMIN_OR_CHANGE),
        "bad-constraints": _never(),
        "account-not-allowed": _never("account", Origin.POLICY),
        "invalid-account": _never("account"),
        "invalid-qos": _never("qos"),
        "invalid-partition": _never("partition"),
        "partition-down": Known(Origin.SCHEDULER, _CHANGE, "partition"),
        "queue-disabled": Known(Origin.SCHEDULER, _CHANGE, "partition"),
        "launch-failed-held": Known(Origin.NODE, _AGAIN_OR_ADMIN),
        "node-down": Known(Origin.NODE),
        "job-error": Known(Origin.NODE, _AGAIN_OR_ADMIN),
        "other": Known(Origin.SCHEDULER),
        # Containers.
        "pulling-image": Known(Origin.NODE),
        "image-pull-failing": Known(Origin.NODE, _CHANGE, "image"),
        "container-creating": Known(Origin.NODE),
        "init-running": Known(Origin.NODE),
        "no-cpu": Known(Origin.CAPACITY, _CHANGE, "cpu"),
        "no-memory": Known(Origin.CAPACITY, _CHANGE, "memory"),
        "no-gpu": Known(Origin.CAPACITY, _CHANGE, "gpu"),
        "no-node": Known(Origin.SCHEDULER, _ADMIN_OR_CHANGE),
        "over-cpu": _never("cpu"),
        "over-memory": _never("memory"),
        "over-gpu": _never("gpu"),
        "over-resource": Known(Origin.REQUEST, _ADMIN_OR_CHANGE, can_never_start=True),
        "node-pool-growing": Known(Origin.CAPACITY),
        "namespace-quota": Known(Origin.POLICY, _JOBS),
        "over-cpu-quota": _never("cpu", Origin.POLICY),
        "over-memory-quota": _never("memory", Origin.POLICY),
        "over-gpu-quota": _never("gpu", Origin.POLICY),
        "over-quota": _never(origin=Origin.POLICY),
        "volume-pending": Known(Origin.NODE),
        "volume-attaching": Known(Origin.NODE),
        "volume-held": Known(Origin.NODE, _ADMIN),
        "volume-held-by-another": Known(Origin.NODE, _ADMIN),
        # The hub's own.
        "in-line": Known(Origin.CAPACITY),
        "after": Known(Origin.HUB),
        "spawner-silent": Known(Origin.SCHEDULER),
        "spawner-failed": Known(Origin.SCHEDULER),
        "spawner-missing": Known(Origin.HUB, _CHANGE),
        "proxy-away": Known(Origin.HUB),
        "breaker": Known(Origin.HUB),
        "queue-limit-asked": Known(Origin.POLICY, (Action.KEEP_WAITING, Action.CHANGE_REQUEST)),
        "queue-limit-cancels": Known(Origin.POLICY, (Action.KEEP_WAITING, Action.CHANGE_REQUEST)),
    }
)
"""Why a launch waits."""

PREPARING: Final = frozenset(
    {"pulling-image", "image-pull-failing", "volume-pending", "namespace-quota"}
)
"""Meanwhile the platform has not taken the request yet, and is not late with that either."""

CANNOT: Final[Mapping[str, Known]] = MappingProxyType(
    {
        # The scheduler, or the way to it, refused.
        "rejected": Known(Origin.REQUEST, _CHANGE),
        "bad-option": Known(Origin.REQUEST, _CHANGE),
        "account-unknown": Known(Origin.SCHEDULER, _ADMIN),
        "account-refused": Known(Origin.POLICY, _ADMIN),
        "launcher-refused": Known(Origin.HUB, _ADMIN),
        "launcher-silent": Known(Origin.HUB, _AGAIN),
        # What runs on the node could not bring the server up.
        "hub-unreachable": Known(Origin.HUB, _ADMIN),
        "cannot-reach": Known(Origin.HUB, _ADMIN),
        "host-refused": Known(Origin.HUB, _ADMIN),
        "port-refused": Known(Origin.HUB, _ADMIN),
        "port-range-full": Known(Origin.NODE, _AGAIN),
        "port-taken": Known(Origin.NODE, _AGAIN),
        "job-mismatch": Known(Origin.HUB, _AGAIN),
        "code-refused": Known(Origin.HUB, _AGAIN),
        "second-job": Known(Origin.HUB, _AGAIN),
        "tunnel-failed": Known(Origin.HUB, _ADMIN),
        "command-missing": Known(Origin.APPLICATION, _ADMIN_OR_CHANGE),
        "command-failed": Known(Origin.APPLICATION, _LOG),
        "module-failed": Known(Origin.APPLICATION, _ADMIN_OR_CHANGE),
        "environment-missing": Known(Origin.APPLICATION, _ADMIN_OR_CHANGE),
        "container-failed": Known(Origin.APPLICATION, _ADMIN_OR_CHANGE),
        "setup-failed": Known(Origin.APPLICATION, _LOG),
        "python-too-old": Known(Origin.NODE, _ADMIN),
        "home-missing": Known(Origin.NODE, _ADMIN),
        "home-full": Known(Origin.APPLICATION, (Action.START_AGAIN,)),
        "spec-unreadable": Known(Origin.NODE, _AGAIN),
        "wrapper-failed": Known(Origin.NODE, _LOG),
        # Containers.
        "image-not-found": Known(Origin.REQUEST, _ADMIN_OR_CHANGE, "image"),
        "image-denied": Known(Origin.POLICY, _ADMIN_OR_CHANGE, "image"),
        "image-not-allowed": Known(Origin.POLICY, _CHANGE, "image"),
        "image-invalid": Known(Origin.REQUEST, _CHANGE, "image"),
        "image-pull-failed": Known(Origin.NODE, _AGAIN, "image"),
        "container-refused": Known(Origin.SCHEDULER, _ADMIN_OR_CHANGE),
        "config-missing": Known(Origin.HUB, _ADMIN),
        "init-failed": Known(Origin.APPLICATION, _LOG),
        "volume-failed": Known(Origin.NODE, _ADMIN),
        "volume-missing": Known(Origin.NODE, _ADMIN),
        "no-storage": Known(Origin.HUB, _ADMIN),
        "platform-forbids": Known(Origin.HUB, _ADMIN),
        "evicted": Known(Origin.NODE, _AGAIN),
        # The hub's own.
        "cancelled": Known(Origin.REQUEST, _AGAIN),
        "absent": Known(Origin.SCHEDULER, _AGAIN),
        **{
            f"{clock}-clock": Known(origin, actions, id="spawn-timeout")
            for clock, origin, actions in (
                (Clock.SUBMIT, Origin.SCHEDULER, _AGAIN),
                (Clock.QUEUE, Origin.POLICY, _CHANGE),
                (Clock.START, Origin.NODE, _LOG),
                (Clock.CONNECT, Origin.APPLICATION, _LOG),
            )
        },
    }
)
"""Why a launch never started, besides those of `WAITING` with which none can."""

ENDS: Final[Mapping[Cause, Known]] = MappingProxyType(
    {
        Cause.USER: Known(Origin.REQUEST, _AGAIN),
        Cause.ADMIN: Known(Origin.POLICY, _ADMIN),
        Cause.IDLE: Known(Origin.POLICY, _AGAIN),
        Cause.MAX_AGE: Known(Origin.POLICY, _AGAIN),
        Cause.WALLTIME: Known(Origin.REQUEST, (Action.MORE_TIME, *_AGAIN), "time"),
        Cause.OUT_OF_MEMORY: Known(Origin.REQUEST, (Action.MORE_MEMORY, *_AGAIN), "memory"),
        Cause.NODE_FAIL: Known(Origin.NODE, _AGAIN),
        Cause.PREEMPTED: Known(Origin.POLICY, _AGAIN),
        Cause.CANCELLED_OUTSIDE: Known(Origin.SCHEDULER, _AGAIN),
        Cause.EXITED: Known(Origin.APPLICATION, _LOG),
        Cause.SIGNAL: Known(Origin.APPLICATION, _LOG),
        Cause.NEVER_STARTED: Known(Origin.SCHEDULER, _AGAIN),
        Cause.POLICY: Known(Origin.POLICY, _ADMIN),
        Cause.MAINTENANCE: Known(Origin.SCHEDULER, _AGAIN),
        Cause.UNKNOWN: Known(Origin.SCHEDULER, _AGAIN),
    }
)
"""Why a launch ended, by its cause."""


def find_reason(code: str) -> Known:
    """Return what follows from the code of a `Reason`, an `Objection` or a failed start."""
    return WAITING.get(code) or CANNOT.get(code) or WAITING["other"]


def holds_since(reason: Reason) -> datetime | None:
    """Return since when a reason holds, as whoever gave it says; None where they do not."""
    try:
        since = datetime.fromisoformat(str(reason.params.get("since", "")))
    except ValueError:
        return None
    return since if since.tzinfo is not None else None


def of_end(end: End) -> Known:
    """Return what follows from an end: of a start that failed, what stopped it."""
    if end.cause is Cause.NEVER_STARTED and (end.reason in CANNOT or end.reason in WAITING):
        return find_reason(end.reason)
    return ENDS[end.cause]
