"""
What is kept for a person beyond one launch, and how it stands. Pure.

A profile says whether its servers keep data on volumes, where and how much; a policy may say it
for some people otherwise. Volumes themselves are rows (`db/volumes.py`) and things on a platform.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

from perijove.domain.policy import Limits, Rule


class Kept(StrEnum):
    """For whom data is kept."""

    NONE = "none"  #: For nobody: it ends with the launch, or lies on file systems of the site.
    USER = "user"  #: One volume for all servers of a person.
    SERVER = "server"  #: One volume for each server.


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """What a launch keeps."""

    kept: Kept
    path: str
    """Where the server sees it."""
    size_bytes: int | None
    """What it may hold; None where nobody limits it."""
    storage_class: str
    """The platform's kind of storage; empty: its default."""
    retention: timedelta
    """How long after its deletion a volume can be had back."""

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> "Storage":
        """Return what a stored profile says."""
        return cls(
            kept=Kept(body["kept"]),
            path=body["path"],
            size_bytes=body.get("size"),
            storage_class=body.get("storage_class", ""),
            retention=timedelta(seconds=body["retention"]),
        )

    def as_json(self) -> dict[str, Any]:
        """Return it as the API shows it."""
        return {
            "kept": str(self.kept),
            "path": self.path,
            "size_bytes": self.size_bytes,
            "retention_seconds": int(self.retention.total_seconds()),
        }


def storage_under(body: Mapping[str, Any] | None, limits: Limits) -> Storage | None:
    """
    Return what a person's launch of a profile keeps; None for nothing.

    `body` is what the profile says. What a policy says of sizes is the most there can be, and
    what it says is kept goes for every profile that keeps anything.
    """
    if not body:
        return None
    said = Storage.from_body(body)
    forced = limits.value(Rule.STORAGE_KEPT)
    kept = said.kept if forced is None else Kept(forced)
    if kept is Kept.NONE:
        return None
    sizes = [size for size in (said.size_bytes, limits.value(Rule.STORAGE)) if size is not None]
    return Storage(
        kept=kept,
        path=said.path,
        size_bytes=min(sizes) if sizes else None,
        storage_class=said.storage_class,
        retention=said.retention,
    )


class Fullness(StrEnum):
    """How a volume's use compares with its size."""

    UNKNOWN = "unknown"  #: Nobody has measured it, or it has no size.
    ROOMY = "roomy"
    NEARLY_FULL = "nearly-full"
    FULL = "full"


_NEARLY = 0.9


def fullness(used_bytes: int | None, size_bytes: int | None) -> Fullness:
    """Return how full a volume is."""
    if used_bytes is None or not size_bytes:
        return Fullness.UNKNOWN
    share = used_bytes / size_bytes
    if share >= 1:
        return Fullness.FULL
    return Fullness.NEARLY_FULL if share >= _NEARLY else Fullness.ROOMY
