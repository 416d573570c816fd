"""
The rights that the hub needs on a cluster, and no others: what documents, chart and tests say.

Who may make pods in a namespace may read its secrets by way of one. So the namespace of servers
is for servers alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from perijove.spawners.kubernetes.objects import (
    CLAIMS,
    CONFIG_MAPS,
    EVENTS,
    NAMESPACES,
    NODES,
    PODS,
    POLICIES,
    SECRETS,
    Kind,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """What may be done with the objects of one kind."""

    kind: Kind
    verbs: Sequence[str]
    purpose: str
    subresource: str = ""

    def rule(self) -> Mapping[str, Any]:
        """Return it as a rule of a Role."""
        resource = f"{self.kind.resource}/{self.subresource}".rstrip("/")
        return {
            "apiGroups": [self.kind.group],
            "resources": [resource],
            "verbs": list(self.verbs),
        }


SERVERS: Final = (
    Right(
        kind=PODS,
        verbs=("create", "get", "list", "watch", "delete"),
        purpose="servers: started, watched, stopped",
    ),
    Right(kind=PODS, subresource="log", verbs=("get",), purpose="what a server has written"),
    Right(kind=EVENTS, verbs=("list", "watch"), purpose="why a server waits"),
    Right(
        kind=SECRETS,
        verbs=("create", "update", "deletecollection"),
        purpose="a server's environment, with its token; never read",
    ),
    Right(
        kind=CONFIG_MAPS,
        verbs=("create", "get", "update", "deletecollection"),
        purpose="which servers were stopped, for a day or two",
    ),
    Right(
        kind=CLAIMS,
        verbs=("create", "get", "list", "delete"),
        purpose="volumes",
    ),
    Right(
        kind=POLICIES,
        verbs=("create", "update"),
        purpose="who reaches servers; not with `network.policy = false`",
    ),
)
"""In the namespace of the servers; with one for each person, in all of them."""

NODES_OF_CLUSTER: Final = (
    Right(
        kind=NODES,
        verbs=("list",),
        purpose="requests that no node can meet, and nodes that are drained or lost; optional",
    ),
)
"""In the cluster."""

NAMESPACES_OF_CLUSTER: Final = (
    Right(kind=NAMESPACES, verbs=("create",), purpose="a namespace for each person"),
)
"""In the cluster, with a namespace for each person only."""


def role(name: str, namespace: str) -> Mapping[str, Any]:
    """Return the Role of a hub whose servers share a namespace."""
    return _written("Role", {"name": name, "namespace": namespace}, SERVERS)


def cluster_role(name: str, *, namespace_per_user: bool = False) -> Mapping[str, Any]:
    """Return what a hub may do in the whole cluster."""
    rights = (*SERVERS, *NAMESPACES_OF_CLUSTER) if namespace_per_user else ()
    return _written("ClusterRole", {"name": name}, (*rights, *NODES_OF_CLUSTER))


def _written(kind: str, metadata: Mapping[str, str], rights: Sequence[Right]) -> Mapping[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": dict(metadata),
        "rules": [right.rule() for right in rights],
    }
