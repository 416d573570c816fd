"""What the spawner writes on what is its own, and how it asks for that."""

import unicodedata
from collections.abc import Collection, Mapping
from typing import Any, Final

INSTALLATION: Final = "perijove.org/installation"
SPAWNER: Final = "perijove.org/spawner"
LAUNCH: Final = "perijove.org/launch"
PORT: Final = "perijove.org/port"
KIND: Final = "perijove.org/kind"
"""Of a volume or a network: what it is for."""
MARKED_AT: Final = "perijove.org/marked-at"
READABLE: Final = "perijove.org/"
"""Before names that people read; nothing is ever found by them."""
_LONGEST: Final = 128


def readable_labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    """Return labels for people: of their values what can be seen, and not too much of it."""
    return {f"{READABLE}{key}": _readable(value) for key, value in labels.items()}


def read_labels(found: Mapping[str, str], names: Collection[str]) -> Mapping[str, str]:
    """Return what `readable_labels` wrote, without the labels `names` of the spawner itself."""
    return {
        key.removeprefix(READABLE): value
        for key, value in found.items()
        if key.startswith(READABLE) and key not in names
    }


def filters_of(labels: Mapping[str, str]) -> dict[str, Any]:
    """Return the engine's filter for what carries all of `labels`."""
    return {"label": [f"{key}={value}" for key, value in labels.items()]}


def carries(found: Mapping[str, str] | None, labels: Mapping[str, str]) -> bool:
    """Tell whether something with the labels `found` carries all of `labels`."""
    return labels.items() <= (found or {}).items()


def _readable(value: str) -> str:
    seen = (each for each in value if unicodedata.category(each)[0] not in "CZ" or each == " ")
    return "".join(seen)[:_LONGEST]
