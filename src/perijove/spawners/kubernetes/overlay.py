"""
A part of a pod's manifest that an administrator lays over ours: merged, but not anywhere.

What makes the pod ours, and what holds the server's token, cannot be changed by it.
"""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

REFUSED: Final = (
    "apiVersion",
    "kind",
    "status",
    "metadata.name",
    "metadata.generateName",
    "metadata.namespace",
    "metadata.uid",
    "metadata.ownerReferences",
    "metadata.finalizers",
    "metadata.labels.perijove.org/*",
    "metadata.annotations.perijove.org/*",
    "spec.restartPolicy",
    "spec.nodeName",
    "spec.containers.server.envFrom",
    "spec.containers.server.env.JUPYTERHUB_*",
)
"""Paths that stay as they are; entries of lists go by their names."""

_TOP: Final = {"metadata", "spec"}


def check_overlay(overlay: Mapping[str, Any]) -> None:
    """Raise `ValueError` for what cannot be laid over."""
    for path in _paths(overlay):
        written = ".".join(path)
        if path[0] not in _TOP or any(fnmatchcase(written, one) for one in REFUSED):
            raise ValueError(f"{written[:120]} cannot be changed")
    # A table of ours cannot be taken away or become something else: its parts would go with it.
    for written, kind in (("metadata", Mapping), ("spec", Mapping)):
        if written in overlay and not isinstance(overlay[written], kind):
            raise ValueError(f"{written} must be a table")
    _check_kept(overlay)


def _check_kept(overlay: Mapping[str, Any]) -> None:
    metadata, spec = overlay.get("metadata", {}), overlay.get("spec", {})
    for inside, key in ((metadata, "labels"), (metadata, "annotations")):
        if key in inside and not isinstance(inside[key], Mapping):
            raise ValueError(f"metadata.{key} must be a table")
    if "containers" not in spec:
        return
    # No entries at all would take away the server's own.
    if not _is_named(spec["containers"]):
        raise ValueError("spec.containers must be a list of tables with a `name`")
    for one in spec["containers"]:
        if not _is_named(one.get("env", [])) and one.get("env", []) != []:
            raise ValueError("env must be a list of tables with a `name`")


def merged(below: Any, above: Any) -> Any:
    """Return `above` laid over `below`; None takes away what is there."""
    if isinstance(below, Mapping) and isinstance(above, Mapping):
        both = dict(below)
        for key, value in above.items():
            if value is None:
                both.pop(key, None)
            else:
                both[key] = merged(below.get(key), value)
        return both
    if _is_named(below) and _is_named(above):
        named = {one["name"]: one for one in below}
        for one in above:
            named[one["name"]] = merged(named.get(one["name"]), one)
        return list(named.values())
    if isinstance(above, Mapping):
        return merged({}, above)
    return above


def _is_named(entries: object) -> bool:
    """Tell whether `entries` is a list, not empty, of tables that have names."""
    return (
        isinstance(entries, Sequence)
        and not isinstance(entries, (str, bytes))
        and bool(entries)
        and all(isinstance(one, Mapping) and isinstance(one.get("name"), str) for one in entries)
    )


def _paths(tree: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Return the path of everything in `tree`; entries of lists go by their names."""
    if path:
        yield path
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _paths(value, (*path, str(key)))
    elif isinstance(tree, Sequence) and not isinstance(tree, (str, bytes)):
        for value in tree:
            if isinstance(value, Mapping):
                yield from _paths(value, (*path, str(value.get("name", ""))))
