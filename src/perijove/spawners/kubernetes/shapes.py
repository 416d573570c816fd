"""
What Kubernetes knows in a pod, by the models of its official client.

An API server drops a key that it does not know, often without a word: for one wrong letter a
container would have no limits, or a pod no affinity.
"""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final

from kubernetes.aio import client

_LIST: Final = re.compile(r"List\[(.+)\]")
_TABLE: Final = re.compile(r"Dict\[str, (.+)\]")
_SHOWN: Final = 80

_SCALARS: Final[Mapping[str, tuple[tuple[type, ...], str]]] = {
    # A quantity, which the models call a text, may be a number.
    "str": ((str, int, float), "a text"),
    "bytes": ((str,), "a text"),
    "datetime": ((str,), "a text"),
    "int": ((int,), "a whole number"),
    "bool": ((bool,), "true or false"),
}
"""By the models' word for a type: how it may be written, and what people call it."""


def check_shape(written: object, kind: str, where: str = "") -> None:
    """
    Raise `ValueError` for a key that Kubernetes does not know there, or a value of another type.

    `kind` is a type as the client's models write it, such as `List[V1Container]`.
    """
    if written is None or kind == "object":
        return  # Nothing is said; or anything may be.
    if entry := _LIST.fullmatch(kind):
        if not isinstance(written, Sequence) or isinstance(written, str):
            raise ValueError(f"{where} must be a list")
        for number, one in enumerate(written):
            check_shape(one, entry[1], f"{where}[{number}]")
    elif kind in _SCALARS:
        _check_scalar(written, kind, where)
    elif not isinstance(written, Mapping):
        raise ValueError(f"{where} must be a table")
    else:
        _check_table(written, kind, where)


def _check_table(written: Mapping[str, Any], kind: str, where: str) -> None:
    value = _TABLE.fullmatch(kind)
    known = {} if value else _kinds_in(kind)
    for key, one in written.items():
        path = f"{where}.{key}"[-_SHOWN:].lstrip(".")
        if value is None and key not in known:
            near = get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{path}: Kubernetes knows no such key{hint}")
        check_shape(one, value[1] if value else known[key], path)


def _kinds_in(kind: str) -> dict[str, str]:
    """Return the types of what an object has, by their keys in a manifest."""
    model = getattr(client, kind)
    return {model.attribute_map[name]: of for name, of in model.openapi_types.items()}


def _check_scalar(written: object, kind: str, where: str) -> None:
    types, words = _SCALARS[kind]
    # To Python true is a number.
    if not isinstance(written, types) or (isinstance(written, bool) and kind != "bool"):
        raise ValueError(f"{where} must be {words}")
