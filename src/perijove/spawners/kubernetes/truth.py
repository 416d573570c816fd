"""What a pod, its events and the clock come to: one sighting."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from perijove.spawners.contract import Phase, Sighting
from perijove.spawners.kubernetes.ends import end_of
from perijove.spawners.kubernetes.evidence import Evidence
from perijove.spawners.kubernetes.objects import Object, moment, name_of, namespace_of, uid_of
from perijove.spawners.kubernetes.waiting import reason_of


def handle_of(pod: Object) -> Mapping[str, Any]:
    """Return what a pod is found by again, and told from a later one of its name."""
    return {"namespace": namespace_of(pod), "uid": uid_of(pod)}


def sighting_of(evidence: Evidence) -> Sighting:
    """Return what is to be said of a pod."""
    pod = evidence.pod
    seen = Sighting(
        name=name_of(pod),
        phase=Phase.PENDING,
        handle=handle_of(pod),
        node=evidence.spec.get("nodeName", ""),
    )
    if (end := end_of(evidence)) is not None:
        return replace(seen, phase=Phase.GONE, end=end)
    if "running" not in evidence.server:
        return replace(seen, reason=reason_of(evidence))
    return replace(
        seen,
        phase=Phase.RUNNING,
        url=_url(evidence),
        since=moment(evidence.server["running"].get("startedAt")),
        ends_at=_ends_at(evidence),
    )


def _url(evidence: Evidence) -> str:
    address, port = str(evidence.status.get("podIP") or ""), evidence.annotation("port")
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{port}" if address and port else ""


def _ends_at(evidence: Evidence) -> datetime | None:
    began = moment(evidence.status.get("startTime"))
    seconds = evidence.spec.get("activeDeadlineSeconds")
    return began + timedelta(seconds=seconds) if began and seconds else None
