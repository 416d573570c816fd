"""
Write those files of the Helm chart that follow from others.

``python -m scripts.chart`` writes the rights of the hub, from those that the spawner says it
needs, and the schema by which Helm refuses a value that the chart does not know. A test compares
both with what this would write.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from perijove.spawners.kubernetes.rights import (
    NAMESPACES_OF_CLUSTER,
    NODES_OF_CLUSTER,
    SERVERS,
    Right,
)

CHART: Final = Path(__file__).parents[1] / "deploy/helm/perijove"
_TITLE: Final = """\
# What the hub may do on the cluster. Made by scripts/chart.py: change
# src/perijove/spawners/kubernetes/rights.py instead.
"""
_PARTS: Final[Sequence[tuple[str, str, Sequence[Right]]]] = (
    ("servers", "In the namespace of the servers; with one for each person, in all.", SERVERS),
    ("nodes", "In the cluster, unless `look_at_nodes` is false.", NODES_OF_CLUSTER),
    ("namespaces", "In the cluster, with `namespace_per_user`.", NAMESPACES_OF_CLUSTER),
)
_FREE: Final = ("resources",)
"""Values whose parts are Kubernetes' own, although the chart gives some."""
_CHOICES: Final = {
    "pullPolicy": ["Always", "IfNotPresent", "Never"],
    "type": ["ClusterIP", "LoadBalancer", "NodePort"],
}
_UNLIKE: Final = {"minAvailable": ["integer", "string"], "nodePort": ["integer", "null"]}
"""Values that may be more than what their default is."""
_TYPES: Final = {
    dict: "object",
    list: "array",
    bool: "boolean",
    int: "integer",
    str: "string",
}


# --- rights ---------------------------------------------------------------------------------


def rights() -> str:
    """Return `files/rights.yaml` as it should be."""
    return _TITLE + "".join(_part(*part) for part in _PARTS)


def _part(name: str, where: str, granted: Sequence[Right]) -> str:
    return f"\n# {where}\n{name}:\n" + "".join(map(_rule, granted))


def _rule(right: Right) -> str:
    rule = "".join(f"    {key}: {json.dumps(value)}\n" for key, value in right.rule().items())
    return f"  # {right.purpose}\n  -{rule[3:]}"


# --- the schema -----------------------------------------------------------------------------


def schema() -> str:
    """Return `values.schema.json` as it should be: the keys of values.yaml and no others."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    root = {"$schema": "http://json-schema.org/draft-07/schema#"} | dict(_schema("", values))
    root["properties"]["global"] = {"type": "object"}  # what Helm itself may add
    return json.dumps(root, indent=2) + "\n"


def _schema(key: str, value: Any) -> Mapping[str, Any]:
    if isinstance(value, dict) and value and key not in _FREE:
        properties = {name: _schema(name, each) for name, each in value.items()}
        return {"type": "object", "properties": properties, "additionalProperties": False}
    if key in _CHOICES:
        return {"enum": _CHOICES[key]}
    return {"type": _UNLIKE.get(key) or _TYPES[type(value)]}


if __name__ == "__main__":
    (CHART / "files/rights.yaml").write_text(rights())
    (CHART / "values.schema.json").write_text(schema())
