"""What a quota's refusal says: whether others have to end first, or it never can be."""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from perijove.spawners.kubernetes.objects import quantity

_REFUSAL: Final = re.compile(r"exceeded quota: \S+, requested: (\S+), used: \S+, limited: (\S+)")
_SCOPE: Final = re.compile(r"(requests|limits)\.")


def hopeless_code(words: str, *, gpu_resource: str) -> str:
    """
    Return the code for a request that is larger than a whole quota, alone in it.

    Empty for what starts when others end, and for words that cannot be read.
    """
    said = _REFUSAL.search(words)
    if said is None:
        return ""
    try:
        requested, limited = (_amounts(part) for part in said.groups())
    except ValueError:
        return ""
    over = {
        _SCOPE.sub("", resource)
        for resource, amount in requested.items()
        if resource in limited and amount > limited[resource]
    }
    for resource, kind in ((gpu_resource, "gpu"), ("memory", "memory"), ("cpu", "cpu")):
        if resource in over:
            return f"over-{kind}-quota"
    return "over-quota" if over else ""


def _amounts(written: str) -> Mapping[str, Decimal]:
    pairs = (each.split("=") for each in written.split(","))
    return {resource: quantity(amount) for resource, amount in pairs}
