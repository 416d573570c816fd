"""Why a pod waits, in the hub's words with the cluster's own beside them."""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from perijove.domain.launch import Reason
from perijove.kit.clock import isoformat
from perijove.spawners.kubernetes.ends import PULL_FAILURES, pull_words
from perijove.spawners.kubernetes.evidence import Evidence, Node, happened_at
from perijove.spawners.kubernetes.objects import Object, quantity

_WORDS: Final = 500
_GROWING: Final = timedelta(minutes=15)
_RARITY: Final = ("gpu", "memory", "cpu", "")
_INSUFFICIENT: Final = re.compile(r"Insufficient ([A-Za-z0-9./_-]+[A-Za-z0-9])")
_HOLDERS: Final = re.compile(r"already used by pod\(s\) (.+)")
_UNBOUND: Final = re.compile(r"unbound immediate|PersistentVolumeClaim|persistentvolumeclaim")
_TELLING: Final = {
    "Scheduled",
    "FailedAttachVolume",
    "SuccessfulAttachVolume",
    "FailedMount",
    "Pulling",
    "Pulled",
    "Created",
    "Started",
}


def reason_of(evidence: Evidence) -> Reason:
    """Return why a pod has not come to run yet."""
    if not evidence.spec.get("nodeName"):
        return _unscheduled(evidence)
    if any("running" in state for state in evidence.preparations):
        return Reason(code="init-running")
    if evidence.waiting.get("reason") in PULL_FAILURES:
        return _reason("image-pull-failing", pull_words(evidence), image=_image(evidence))
    event = evidence.latest(_TELLING)
    if event is not None and event["reason"] in _BY_EVENT:
        return _BY_EVENT[event["reason"]](evidence, event)
    return _reason("container-creating", evidence.waiting.get("message"))


def _unscheduled(evidence: Evidence) -> Reason:
    scheduled = evidence.condition("PodScheduled")
    words = str(scheduled.get("message", ""))
    growth = evidence.latest({"TriggeredScaleUp", "NotTriggerScaleUp"})
    if growth is not None and growth["reason"] == "TriggeredScaleUp":
        at = happened_at(growth)
        if at is not None and evidence.now - at < _GROWING:
            return _reason("node-pool-growing", growth.get("message"))
    if scheduled.get("reason") != "Unschedulable":
        return _reason("just-submitted", words)
    lacking = _INSUFFICIENT.findall(words)
    if lacking:
        return _lacking(evidence, lacking, words)
    return _reason("volume-pending" if _UNBOUND.search(words) else "no-node", words)


def _lacking(evidence: Evidence, lacking: Sequence[str], words: str) -> Reason:
    """Return what there is too little of: first what no node has at all, then what is rarest."""
    asked = requested(evidence.spec)
    kinds = {resource: _kind(evidence, resource) for resource in lacking}
    by_rarity = sorted(kinds, key=lambda resource: _RARITY.index(kinds[resource]))
    for resource in by_rarity:
        kind = kinds[resource]
        most = _largest(evidence, resource)
        if kind and most is not None and asked.get(resource, Decimal(0)) > most:
            return _reason(f"over-{kind}", words, **_amounts(kind, asked[resource], most))
    kind = kinds[by_rarity[0]]
    return _reason(f"no-{kind}" if kind else "resources", words)


def _kind(evidence: Evidence, resource: str) -> str:
    """Return what people call a resource: cpu, memory or gpu; empty for anything else."""
    if resource in {"cpu", "memory"}:
        return resource
    return "gpu" if resource == evidence.annotation("gpu") else ""


def _amounts(kind: str, asked: Decimal, most: Decimal) -> dict[str, Any]:
    read = float if kind == "cpu" else int
    return {"asked": read(asked), "most": read(most)}


def requested(spec: Mapping[str, Any]) -> dict[str, Decimal]:
    """Return what a pod's containers ask for together."""
    total: dict[str, Decimal] = {}
    for container in spec["containers"]:
        for resource, amount in (container.get("resources", {}).get("requests") or {}).items():
            total[resource] = total.get(resource, Decimal(0)) + quantity(amount)
    return total


def _largest(evidence: Evidence, resource: str) -> Decimal | None:
    """Return the most that any node has which it could be on; None where that is not known."""
    if evidence.growable:
        return None
    suitable = [node for node in evidence.nodes or () if _suits(node, evidence.spec)]
    amounts = [node.allocatable.get(resource, Decimal(0)) for node in suitable]
    return max(amounts, default=None)


def _suits(node: Node, spec: Mapping[str, Any]) -> bool:
    wanted: Mapping[str, str] = spec.get("nodeSelector") or {}
    return wanted.items() <= node.labels.items()


def _pulling(evidence: Evidence, event: Object) -> Reason:
    since = happened_at(event)
    known = {"since": isoformat(since)} if since else {}
    return _reason("pulling-image", event.get("message"), image=_image(evidence), **known)


def _image(evidence: Evidence) -> str:
    return str(evidence.spec["containers"][0].get("image", ""))


def _attaching(evidence: Evidence, event: Object) -> Reason:
    words = str(event.get("message", ""))
    if "Multi-Attach" not in words:
        return _reason("volume-attaching", words)
    holders = _HOLDERS.search(words)
    names = [name.strip() for name in holders[1].split(",")] if holders else []
    nodes = [node for name in names if (node := evidence.place_of(name))]
    known = {"holder": ", ".join(names)} if names else {}
    return _reason("volume-held", words, **known, **({"node": nodes[0]} if nodes else {}))


def _mounting(_evidence: Evidence, event: Object) -> Reason:
    return _reason("volume-attaching", event.get("message"))


_BY_EVENT: Final[Mapping[str, Callable[[Evidence, Object], Reason]]] = {
    "Pulling": _pulling,
    "FailedAttachVolume": _attaching,
    "FailedMount": _mounting,
}


def _reason(code: str, words: object = "", **params: Any) -> Reason:
    return Reason(code=code, params=params, words=str(words or "").strip()[:_WORDS])
