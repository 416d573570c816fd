"""The kinds of objects that the spawner knows, and how objects are read: plain mappings."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

Object = Mapping[str, Any]
"""An object of the cluster, as the API server writes it."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of objects, and where the API server has them."""

    name: str
    resource: str
    group: str = ""
    version: str = "v1"

    @property
    def api_version(self) -> str:
        """Return what objects of it say as their ``apiVersion``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None, name: str = "") -> str:
        """Return the URL path of one object, or of all; `namespace` None: of the whole cluster."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        inside = f"/namespaces/{namespace}" if namespace is not None else ""
        return f"{root}{inside}/{self.resource}" + (f"/{name}" if name else "")


PODS: Final = Kind("Pod", "pods")
EVENTS: Final = Kind("Event", "events")
SECRETS: Final = Kind("Secret", "secrets")
CONFIG_MAPS: Final = Kind("ConfigMap", "configmaps")
CLAIMS: Final = Kind("PersistentVolumeClaim", "persistentvolumeclaims")
NODES: Final = Kind("Node", "nodes")
NAMESPACES: Final = Kind("Namespace", "namespaces")
POLICIES: Final = Kind("NetworkPolicy", "networkpolicies", "networking.k8s.io")

_QUANTITY: Final = re.compile(r"([0-9.]+(?:[eE][+-]?[0-9]+)?)([numkMGTPE]|[KMGTPE]i)?")
_FACTORS: Final[Mapping[str, Decimal]] = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", 1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", 1)},
}


def name_of(one: Object) -> str:
    """Return an object's name."""
    return str(one["metadata"]["name"])


def uid_of(one: Object) -> str:
    """Return what tells an object from an earlier one of the same name."""
    return str(one["metadata"]["uid"])


def namespace_of(one: Object) -> str:
    """Return the namespace an object is in; empty where it is in none."""
    return str(one["metadata"].get("namespace", ""))


def labels_of(one: Object) -> Mapping[str, str]:
    """Return an object's labels."""
    return one["metadata"].get("labels") or {}


def quantity(written: object) -> Decimal:
    """Read a quantity such as ``500m`` or ``4Gi``; raises `ValueError` for anything else."""
    match = _QUANTITY.fullmatch(str(written).strip())
    if match is None:
        raise ValueError(f"{str(written)[:40]!r} is not a quantity such as 500m or 4Gi")
    try:
        return Decimal(match[1]) * _FACTORS[match[2] or ""]
    except InvalidOperation:
        raise ValueError(f"{str(written)[:40]!r} is not a number") from None


def moment(written: object) -> datetime | None:
    """Read an instant as the API server writes it; None where there is none."""
    return datetime.fromisoformat(str(written).replace("Z", "+00:00")) if written else None
