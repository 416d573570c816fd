"""
Write the rights of the Helm chart's hub from those that the spawner says it needs.

``python -m scripts.chart_rights`` writes `deploy/helm/perijove/files/rights.yaml`; a test
compares it with what this would write.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from perijove.spawners.kubernetes.rights import (
    NAMESPACES_OF_CLUSTER,
    NODES_OF_CLUSTER,
    SERVERS,
    Right,
)

FILE: Final = Path(__file__).parents[1] / "deploy/helm/perijove/files/rights.yaml"
_TITLE: Final = """\
# What the hub may do on the cluster. Made by scripts/chart_rights.py: change
# src/perijove/spawners/kubernetes/rights.py instead.
"""
_PARTS: Final[Sequence[tuple[str, str, Sequence[Right]]]] = (
    ("servers", "In the namespace of the servers; with one for each person, in all.", SERVERS),
    ("nodes", "In the cluster, unless `look_at_nodes` is false.", NODES_OF_CLUSTER),
    ("namespaces", "In the cluster, with `namespace_per_user`.", NAMESPACES_OF_CLUSTER),
)


def text() -> str:
    """Return the file as it should be."""
    return _TITLE + "".join(_part(*part) for part in _PARTS)


def _part(name: str, where: str, rights: Sequence[Right]) -> str:
    return f"\n# {where}\n{name}:\n" + "".join(map(_rule, rights))


def _rule(right: Right) -> str:
    rule = "".join(f"    {key}: {json.dumps(value)}\n" for key, value in right.rule().items())
    return f"  # {right.purpose}\n  -{rule[3:]}"


if __name__ == "__main__":
    FILE.write_text(text())
