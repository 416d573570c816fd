"""What is around the servers: the notes of stopped ones, people's namespaces, network policies."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from perijove.domain.launch import Cause, End
from perijove.spawners.kubernetes.manifest import POD
from perijove.spawners.kubernetes.names import DAY, NAME, USER, Ours, day, mark_name, readable
from perijove.spawners.kubernetes.objects import CONFIG_MAPS, NAMESPACES, POLICIES, Object
from perijove.spawners.kubernetes.sections import KubernetesSettings

OVER: Final = "over"
NAMESPACE: Final = "namespace"
NETWORK: Final = "network"


def mark_of(ours: Ours, name: str, *, now: datetime, end: End | None = None) -> dict[str, Any]:
    """Return the note that `name` was stopped, and how it ended once that is known."""
    said = {} if end is None else asdict(end)
    return {
        "apiVersion": CONFIG_MAPS.api_version,
        "kind": CONFIG_MAPS.name,
        "metadata": {
            "name": mark_name(ours, name),
            "labels": {**ours.labels(OVER), NAME: name, DAY: day(now)},
        },
        "data": {"end": json.dumps(said)},
    }


def end_of_mark(mark: Object) -> End:
    """Return how what was stopped ended, as far as it is known: it may never have started."""
    said: Mapping[str, Any] = json.loads(mark["data"]["end"])
    if not said:
        return End(cause=Cause.NEVER_STARTED, reason="cancelled")
    return End(**{**said, "cause": Cause(said["cause"])})


def namespace_of_user(ours: Ours, name: str, user_name: str) -> dict[str, Any]:
    """Return a person's own namespace."""
    return {
        "apiVersion": NAMESPACES.api_version,
        "kind": NAMESPACES.name,
        "metadata": {
            "name": name,
            "labels": {**ours.labels(NAMESPACE), USER: readable(user_name)},
            "annotations": {USER: user_name},
        },
    }


def policy_of(settings: KubernetesSettings, ours: Ours) -> dict[str, Any]:
    """Return who reaches our servers, which is hub and proxy alone, and whom these reach."""
    network = settings.network
    hub: dict[str, Any] = {
        "podSelector": {"matchLabels": network.hub_labels},
        "namespaceSelector": _matching(network.hub_namespace_labels),
    }
    outside = [{"ipBlock": {"cidr": cidr}} for cidr in network.hub_networks]
    everywhere = [
        {
            "ipBlock": {
                "cidr": cidr,
                "except": [one for one in network.blocked if (":" in one) == (":" in cidr)],
            }
        }
        for cidr in ("0.0.0.0/0", "::/0")
    ]
    return {
        "apiVersion": POLICIES.api_version,
        "kind": POLICIES.name,
        "metadata": {"name": policy_name(ours), "labels": ours.labels(NETWORK)},
        "spec": {
            "podSelector": _matching(ours.labels(POD)),
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {
                    "from": [hub, *outside],
                    "ports": [{"protocol": "TCP", "port": settings.port}],
                }
            ],
            # Some networks count pods not among the addresses: name resolution is one.
            "egress": [{"to": [*everywhere, {"namespaceSelector": {}}]}],
        },
    }


def policy_name(ours: Ours) -> str:
    """Return the name of our network policy, one in each namespace."""
    return f"{mark_name(ours, 'perijove').removesuffix('.over')}"


def _matching(labels: Mapping[str, str]) -> dict[str, Any]:
    return {"matchLabels": dict(labels)} if labels else {}
