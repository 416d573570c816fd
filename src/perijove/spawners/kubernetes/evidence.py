"""What is known of one pod: itself, its events in their order, the nodes, and the time."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from perijove.spawners.kubernetes.objects import Object, labels_of, moment, name_of, quantity
from perijove.spawners.kubernetes.sections import OURS, SERVER

_ORDER: Final = (
    "Scheduled",
    "FailedAttachVolume",
    "SuccessfulAttachVolume",
    "FailedMount",
    "Pulling",
    "Failed",
    "BackOff",
    "Pulled",
    "Created",
    "Started",
)
"""What comes after what, where instants tell no difference: they are whole seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node, as far as it matters to a pod."""

    name: str
    ready: bool
    cordoned: bool
    labels: Mapping[str, str]
    allocatable: Mapping[str, Decimal]


def _nowhere(_name: str) -> None:
    """Know of no other pod."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that tells what becomes of a pod."""

    pod: Object
    events: Sequence[Object] = ()
    """In the order in which they happened."""
    nodes: Sequence[Node] | None = None
    """None: we may not know."""
    place_of: Callable[[str], str | None] = _nowhere
    """On which node a pod of ours is, by its name."""
    growable: bool = False
    """Whether larger nodes than these may come."""
    now: datetime

    @property
    def status(self) -> Mapping[str, Any]:
        """Return what the cluster says of the pod."""
        return self.pod.get("status") or {}

    @property
    def spec(self) -> Mapping[str, Any]:
        """Return what was asked for."""
        found: Mapping[str, Any] = self.pod["spec"]
        return found

    @property
    def node(self) -> Node | None:
        """Return the node that the pod is on, if that is known."""
        name = self.spec.get("nodeName")
        return next((one for one in self.nodes or () if one.name == name), None)

    @property
    def deleted_at(self) -> datetime | None:
        """Return when it was to be gone; None where nobody has deleted it."""
        return moment(self.pod["metadata"].get("deletionTimestamp"))

    @property
    def server(self) -> Mapping[str, Any]:
        """Return the state of the server's container: running, waiting or terminated."""
        statuses = {one["name"]: one for one in self.status.get("containerStatuses") or ()}
        names = [one["name"] for one in self.spec["containers"]]
        name = SERVER if SERVER in names else names[0]
        return statuses.get(name, {}).get("state") or {}

    @property
    def preparations(self) -> Sequence[Mapping[str, Any]]:
        """Return the states of the containers that run before the server."""
        return [one.get("state") or {} for one in self.status.get("initContainerStatuses") or ()]

    @property
    def waiting(self) -> Mapping[str, Any]:
        """Return what the first container waits for that has not come to run."""
        for state in (*self.preparations, self.server):
            if "waiting" in state and state["waiting"].get("reason") != "PodInitializing":
                found: Mapping[str, Any] = state["waiting"]
                return found
        return {}

    def annotation(self, key: str) -> str:
        """Return one of our own annotations."""
        annotations = self.pod["metadata"].get("annotations") or {}
        return str(annotations.get(f"{OURS}{key}", ""))

    def condition(self, kind: str) -> Mapping[str, Any]:
        """Return what the cluster says of one side of the pod; empty when nothing."""
        conditions = self.status.get("conditions") or ()
        return next((one for one in conditions if one["type"] == kind), {})

    def latest(self, reasons: Collection[str]) -> Object | None:
        """Return the latest event of one of `reasons`."""
        return next((one for one in reversed(self.events) if one.get("reason") in reasons), None)


def nodes_of(objects: Collection[Object]) -> list[Node]:
    """Read nodes."""
    return [
        Node(
            name=name_of(one),
            ready=any(
                condition["type"] == "Ready" and condition["status"] == "True"
                for condition in one["status"].get("conditions") or ()
            ),
            cordoned=bool(one["spec"].get("unschedulable")),
            labels=labels_of(one),
            allocatable={
                resource: quantity(amount)
                for resource, amount in (one["status"].get("allocatable") or {}).items()
            },
        )
        for one in objects
    ]


def in_order(events: Collection[Object]) -> list[Object]:
    """Return events in the order in which they happened, latest last."""
    return sorted(events, key=_place)


def happened_at(event: Object) -> datetime | None:
    """Return when an event happened the last time."""
    series = event.get("series") or {}
    return moment(
        event.get("lastTimestamp")
        or series.get("lastObservedTime")
        or event.get("eventTime")
        or event.get("firstTimestamp")
        or event["metadata"].get("creationTimestamp")
    )


def _place(event: Object) -> tuple[float, int]:
    at = happened_at(event)
    reason = str(event.get("reason"))
    return (
        int(at.timestamp()) if at else 0,
        _ORDER.index(reason) if reason in _ORDER else -1,
    )
