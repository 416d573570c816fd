"""
The small notations of Grid Engine: memory, times, lists, and its tables of ``key  value``.

Each function is total: what it cannot read is None or left out, and the rest is kept
(failure 5.33).
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from typing import Final

_NOTHING: Final = frozenset({"", "none", "undefined", "infinity", "unlimited", "-"})
_CONTINUED = re.compile(r"\\\r?\n\s*")
_MEMORY = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)([kKmMgGtT]?)B?", re.ASCII)
_FACTOR: Final = {
    "": 1,
    "k": 10**3, "K": 2**10,
    "m": 10**6, "M": 2**20,
    "g": 10**9, "G": 2**30,
    "t": 10**12, "T": 2**40,
}  # fmt: skip
_DURATION = re.compile(r"(?:(\d{0,9}):)?(?:(\d{0,9}):)?(\d{0,18})(?:\.\d+)?s?", re.ASCII)


def is_nothing(text: str) -> bool:
    """Tell whether `text` is one of Grid Engine's words for: no value, no limit."""
    return text.strip().lower() in _NOTHING


def read_memory(text: str) -> int | None:
    """Return bytes of ``16G``, ``8.023G``, ``500M``, ``410.805MB``; None for no size."""
    match = _MEMORY.fullmatch(text.strip())
    return int(float(match[1]) * _FACTOR[match[2]]) if match else None


def write_memory(size_bytes: int) -> str:
    """Write a size as a request: in M where that is exact, else in K, rounded up."""
    if size_bytes % 2**20 == 0:
        return f"{size_bytes // 2**20}M"
    return f"{-(-size_bytes // 2**10)}K"


def read_duration(text: str) -> int | None:
    """Return seconds of ``3600``, ``8:00:00``, ``0:30:0``, ``1::1``; None for no limit."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        return None
    # With one colon only the first group is the one that matched.
    first, second, third = match.groups()
    if first is not None and second is None:
        return int(first or 0) * 60 + int(third or 0)
    return int(first or 0) * 3600 + int(second or 0) * 60 + int(third or 0)


def read_count(text: str) -> int | None:
    """Return a whole number, also of ``3.000000``; None for none."""
    number = read_memory(text)
    return None if number is None or text.strip().endswith("B") else number


def read_instant(text: str, zone: tzinfo | None) -> datetime | None:
    """Return an aware instant of ``2026-11-20T11:05:56``, local time of `zone` or this machine."""
    try:
        instant = datetime.fromisoformat(text.strip())
        if instant.tzinfo is None and zone is not None:
            instant = instant.replace(tzinfo=zone)
        return instant.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None


def words(text: str) -> tuple[str, ...]:
    """Return the parts of a list, which Grid Engine separates by commas or spaces."""
    return tuple(part for part in re.split(r"[,\s]+", text) if part and not is_nothing(part))


def amounts(text: str) -> dict[str, str]:
    """Return the pairs of ``slots=12,rmem=16G``."""
    pairs = (word.partition("=")[::2] for word in words(text) if "=" in word)
    return dict(pairs)


def read_records(text: str, first: str) -> Iterator[dict[str, str]]:
    """
    Yield the tables of ``key  value`` lines in `text`; each begins with the key `first`.

    A value broken over lines by a backslash is one value again.
    """
    record: dict[str, str] = {}
    for line in _CONTINUED.sub(" ", text).splitlines():
        key, _, value = line.strip().partition(" ")
        if key == first and record:
            yield record
            record = {}
        if key and (record or key == first):
            record.setdefault(key, value.strip())
    if record:
        yield record


def first_line(text: str) -> str:
    """Return the first line that says something, for messages."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:300]
