"""What is known of one pod: itself, events in their order, the nodes, and the time."""

import re
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
_UNBOUND: Final = re.compile(r"unbound immediate|PersistentVolumeClaim|persistentvolumeclaim")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node, as far as it matters to a pod."""

    name: str
    ready: bool
    cordoned: bool
    labels: Mapping[str, str]
    room: Mapping[str, Decimal]
    """What pods have of it while there are none; of devices also those that fail at the moment."""


def _unknown(_name: str) -> None:
    """Know of no other pod."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that tells what becomes of a pod."""

    pod: Object
    events: Sequence[Object] = ()
    """In the order in which they happened."""
    claim_events: Sequence[Object] = ()
    """Those of the claims it has its volumes by, in their order."""
    deaf: bool = False
    """Events are not heard of for so long that they do not tell how it is now."""
    nodes: Sequence[Node] | None = None
    """None: we may not know."""
    find_pod: Callable[[str], Object | None] = _unknown
    """Return a pod of ours by its name."""
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

    def current(self, reasons: Collection[str]) -> Object | None:
        """Return the latest event of one of `reasons`, where events tell how it is now."""
        return None if self.deaf else self.latest(reasons)

    @property
    def awaits_claim(self) -> bool:
        """Tell whether it has no node because a claim has no volume."""
        words = str(self.condition("PodScheduled").get("message", ""))
        return not self.spec.get("nodeName") and _UNBOUND.search(words) is not None

    @property
    def about_claims(self) -> Object | None:
        """
        Return what was said last of a claim that is waited for, where that tells how it is now.

        What was said before the pod was made was said to an earlier one, and may be mended. Nobody
        says that a claim has its volume at last, but then it is not waited for.
        """
        made = moment(self.pod["metadata"].get("creationTimestamp"))
        if self.deaf or made is None or not self.claim_events or not self.awaits_claim:
            return None
        at = happened_at(self.claim_events[-1])
        return self.claim_events[-1] if at is not None and at >= made else None


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
            room=_room(one["status"]),
        )
        for one in objects
    ]


def _room(status: Mapping[str, Any]) -> dict[str, Decimal]:
    """Return what pods can have; a device that is not well now, or not said to be, may be again."""
    capacity = {
        resource: amount
        for resource, amount in (status.get("capacity") or {}).items()
        if "/" in resource
    }
    written = (status.get("allocatable") or {}) | capacity
    return {resource: quantity(amount) for resource, amount in written.items()}


def claims_of(pod: Object) -> list[str]:
    """Return the names of the claims that a pod has its volumes by."""
    volumes = pod["spec"].get("volumes") or ()
    return [
        one["persistentVolumeClaim"]["claimName"]
        for one in volumes
        if one.get("persistentVolumeClaim")
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
