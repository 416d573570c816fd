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
from perijove.spawners.kubernetes.names import SERVER, USER
from perijove.spawners.kubernetes.objects import Object, labels_of, quantity

_WORDS: Final = 500
_GROWING: Final = timedelta(minutes=15)
_RARITY: Final = ("gpu", "memory", "cpu", "")
_INSUFFICIENT: Final = re.compile(r"Insufficient ([A-Za-z0-9./_-]+[A-Za-z0-9])")
_TOO_MANY: Final = "Too many pods"
_HOLDERS: Final = re.compile(r"already used by (.+)")
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
    event = evidence.current(_TELLING)
    if event is not None and event["reason"] in _BY_EVENT:
        return _BY_EVENT[event["reason"]](evidence, event)
    return _reason("container-creating", evidence.waiting.get("message"))


def _unscheduled(evidence: Evidence) -> Reason:
    scheduled = evidence.condition("PodScheduled")
    words = str(scheduled.get("message", ""))
    growth = evidence.current({"TriggeredScaleUp", "NotTriggerScaleUp"})
    if growth is not None and growth["reason"] == "TriggeredScaleUp":
        at = happened_at(growth)
        if at is not None and evidence.now - at < _GROWING:
            return _reason("node-pool-growing", growth.get("message"))
    if scheduled.get("reason") != "Unschedulable":
        return _reason("just-submitted", words)
    lacking = _INSUFFICIENT.findall(words)
    if lacking:
        return _lacking(evidence, lacking, words)
    if evidence.awaits_claim:
        return _reason("volume-pending", (evidence.about_claims or {}).get("message", words))
    return _reason("resources" if _TOO_MANY in words else "no-node", words)


def _lacking(evidence: Evidence, lacking: Sequence[str], words: str) -> Reason:
    """Return what there is too little of: first what no node has at all, then what is rarest."""
    asked = requested(evidence.spec)
    kinds = {resource: _kind(evidence, resource) for resource in lacking}
    by_rarity = sorted(kinds, key=lambda resource: _RARITY.index(kinds[resource]))
    for resource in by_rarity:
        kind = kinds[resource]
        most = _largest(evidence, resource)
        if most is not None and asked.get(resource, Decimal(0)) > most:
            amounts = _amounts(kind, asked[resource], most)
            return _reason(f"over-{kind or 'resource'}", words, **amounts)
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
    """
    Return what a node has to have free for a pod.

    Its containers run at once; of those before them one at a time, beside such that stay.
    """
    staying: dict[str, Decimal] = {}
    most: dict[str, Decimal] = {}
    for container in spec.get("initContainers") or ():
        there = _sum(staying, _asked(container))
        if container.get("restartPolicy") == "Always":
            staying = there
        most = _most(most, there)
    together = _sum(staying, *(_asked(container) for container in spec["containers"]))
    return _sum(_most(most, together), _quantities(spec.get("overhead")))


def _asked(container: Mapping[str, Any]) -> dict[str, Decimal]:
    return _quantities((container.get("resources") or {}).get("requests"))


def _quantities(written: Mapping[str, str] | None) -> dict[str, Decimal]:
    return {resource: quantity(amount) for resource, amount in (written or {}).items()}


def _sum(*amounts: Mapping[str, Decimal]) -> dict[str, Decimal]:
    return {
        resource: sum((one.get(resource, Decimal(0)) for one in amounts), Decimal(0))
        for resource in {resource for one in amounts for resource in one}
    }


def _most(*amounts: Mapping[str, Decimal]) -> dict[str, Decimal]:
    return {
        resource: max(one.get(resource, Decimal(0)) for one in amounts)
        for resource in {resource for one in amounts for resource in one}
    }


def _largest(evidence: Evidence, resource: str) -> Decimal | None:
    """Return the most that any node has which it could be on; None where that is not known."""
    if evidence.growable:
        return None
    suitable = [node for node in evidence.nodes or () if _suits(node, evidence.spec)]
    amounts = [node.room.get(resource, Decimal(0)) for node in suitable]
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
    said = _HOLDERS.search(words)
    names = re.split(r"[, ]+", said[1]) if said else []  # Other words are nobody's name.
    known = [pod for name in names if (pod := evidence.find_pod(name)) is not None]
    own = [pod for pod in known if _user_of(pod) == _user_of(evidence.pod)]
    nodes = [pod["spec"].get("nodeName") for pod in own[:1] or known]
    placed = {"node": nodes[0]} if nodes and nodes[0] else {}
    if own:
        return _reason("volume-held", words, server=_server_of(own[0]), **placed)
    return _reason("volume-held-by-another" if names else "volume-held", words, **placed)


def _user_of(pod: Object) -> str:
    return str((pod["metadata"].get("annotations") or {}).get(USER, ""))


def _server_of(pod: Object) -> str:
    """Return a server's name; of pods made before it was written down, what its label has of it."""
    annotations = pod["metadata"].get("annotations") or {}
    return str(annotations.get(SERVER, labels_of(pod).get(SERVER, "")))


def _mounting(_evidence: Evidence, event: Object) -> Reason:
    return _reason("volume-attaching", event.get("message"))


_BY_EVENT: Final[Mapping[str, Callable[[Evidence, Object], Reason]]] = {
    "Pulling": _pulling,
    "FailedAttachVolume": _attaching,
    "FailedMount": _mounting,
}


def _reason(code: str, words: object = "", **params: Any) -> Reason:
    return Reason(code=code, params=params, words=str(words or "").strip()[:_WORDS])
