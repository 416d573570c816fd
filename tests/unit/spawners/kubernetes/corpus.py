"""What a real cluster said: see `tests/corpus/kubernetes/INDEX.md`."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from perijove.spawners.kubernetes.evidence import Evidence, Node, in_order, nodes_of
from perijove.spawners.kubernetes.objects import moment
from tests.beds import ROOT

FOLDER: Final = ROOT / "tests/corpus/kubernetes"
GPU: Final = "nvidia.com/gpu"
NOW: Final = datetime(2026, 11, 20, 20, 0, tzinfo=UTC)


def read(name: str) -> Any:
    """Return one file."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def nodes(name: str = "nodes") -> Sequence[Node]:
    """Return the nodes of one list."""
    return nodes_of(read(name)["items"])


def evidence(name: str, **changes: Any) -> Evidence:
    """Return what was known of a pod two minutes after it was made, had we made it."""
    said = read(name)
    pod = said["pod"]
    ours = {"perijove.org/port": "8888", "perijove.org/gpu": GPU}
    pod["metadata"].setdefault("annotations", {}).update(ours)
    made = moment(pod["metadata"]["creationTimestamp"]) or NOW
    known = Evidence(
        pod=pod,
        events=in_order(said["events"]),
        claim_events=in_order([one for claim in said.get("claims", ()) for one in claim["events"]]),
        nodes=nodes(),
        now=made + timedelta(minutes=2),
    )
    return replace(known, **changes)


def event(reason: str, message: str, at: str = "2026-11-20T19:30:00Z") -> dict[str, Any]:
    """Return an event, for what this cluster cannot be made to say."""
    return {"metadata": {"uid": message}, "reason": reason, "message": message, "lastTimestamp": at}
