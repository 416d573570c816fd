"""The rights that the documents name are those that the hub has in the tests, and no others."""

import re
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from perijove.spawners.kubernetes.rights import cluster_role, role
from tests.beds import ROOT


def documented(mark: str) -> Any:
    """Return the object that stands behind a mark in the administrator's guide."""
    text = (ROOT / "docs/admin/kubernetes.md").read_text()
    found = re.search(rf"<!-- {mark} -->\n```yaml\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return yaml.safe_load(found[1])


@pytest.mark.parametrize(
    ("mark", "given"),
    [("role", role("perijove", "perijove-servers")), ("cluster-role", cluster_role("perijove"))],
)
def test_documented_rights_are_the_hubs(mark: str, given: Mapping[str, Any]) -> None:
    """What an administrator copies from the guide is what the hub is tested with."""
    assert documented(mark) == given


def test_secrets_are_never_read() -> None:
    """The hub makes and removes secrets; nothing allows it to look into one."""
    rules = cluster_role("perijove", namespace_per_user=True)["rules"]
    (secrets,) = (rule for rule in rules if "secrets" in rule["resources"])

    assert not {"get", "list", "watch", "patch", "*"} & set(secrets["verbs"])
