"""
The small notations of Slurm: times, sizes, TRES, GRES, host lists, ``Key=value`` records.

Each function reads one notation and is total: what it cannot read is None or left out, and the
rest is kept (failure 5.33).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import product
from typing import Final

_NOTHING: Final = frozenset(
    {"", "(null)", "N/A", "n/a", "NONE", "None", "Unknown", "NULL", "None assigned", "(none)"}
)
MOST_HOSTS: Final = 65_536
"""How many names one list may stand for; Slurm's own limit is of this size."""


def optional(text: str) -> str:
    """Return `text` without Slurm's several words for nothing."""
    text = text.strip()
    return "" if text in _NOTHING else text


def words(text: str) -> tuple[str, ...]:
    """Return the parts of a list with commas."""
    return tuple(part for each in optional(text).split(",") if (part := each.strip()))


# --- times ------------------------------------------------------------------------------------

_DURATION = re.compile(
    r"(?:(?P<days>\d{1,9})-)?(?P<first>\d{1,9})(?::(?P<second>\d{1,9}))?(?::(?P<third>\d{1,9}))?",
    re.ASCII,
)


def read_duration(text: str) -> int | None:
    """
    Return seconds; None for no limit, and for what is no duration.

    A bare number is minutes, ``m:s`` minutes and seconds, ``h:m:s`` hours; after ``d-`` the
    first number is hours.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        return None
    first, second, third = (int(match[name] or 0) for name in ("first", "second", "third"))
    if match["days"] is not None:
        return int(match["days"]) * 86400 + first * 3600 + second * 60 + third
    if match["third"] is not None:
        return first * 3600 + second * 60 + third
    return first * 60 + second


def read_instant(text: str) -> datetime | None:
    """
    Return an aware instant; None for none.

    Slurm writes seconds since 1970 with ``SLURM_TIME_FORMAT=%s``, and else local time without
    a zone, which is taken as this machine's.
    """
    text = optional(text)
    try:
        if text.isdecimal():
            return datetime.fromtimestamp(int(text), UTC) if int(text) else None
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None


# --- sizes ------------------------------------------------------------------------------------

_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)([KMGTP]?)[Bnc]?", re.ASCII)
_POWER: Final = {"K": 10, "": 20, "M": 20, "G": 30, "T": 40, "P": 50}


def read_memory(text: str) -> int | None:
    """Return bytes of ``4000`` (MiB), ``4000M``, ``4Gn``, ``62.50G``; None for no size."""
    match = _SIZE.fullmatch(text.strip())
    return int(float(match[1]) * 2 ** _POWER[match[2]]) if match else None


# --- TRES and GRES ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Tres:
    """Amounts of what Slurm can track, as in ``cpu=8,mem=4G,gres/gpu:a100=2``."""

    cpus: int | None = None
    memory_bytes: int | None = None
    gpus: int | None = None
    gpus_by_type: Mapping[str, int] = field(default_factory=dict)
    """By the keys of `read_gres`."""


def read_tres(text: str) -> Tres:
    """Read a list of TRES; unknown ones are left out."""
    amounts = dict(part.partition("=")[::2] for part in words(text))
    by_type: dict[str, int] = {}
    for name, amount in amounts.items():
        device, _, kind = name.removeprefix("gres/").partition(":")
        key, count = _key(device, kind), _count(amount)
        if key and count is not None:
            by_type[key] = count
    return Tres(
        cpus=_count(amounts.get("cpu", "")),
        memory_bytes=read_memory(amounts.get("mem", "")),
        gpus=_count(amounts.get("gres/gpu", "")),
        gpus_by_type=by_type,
    )


def read_gres(text: str) -> dict[str, int]:
    """
    Return how many GPUs of each type ``gpu:a100:4(S:0-1),gpu:2,shard:a100:40`` names.

    The key is what `gres_request` takes: the type, "" for untyped GPUs, and for shares of a GPU
    ``shard`` or ``shard:TYPE``. Anything that is neither is left out.
    """
    found: dict[str, int] = {}
    for entry in words(_PARENTHESES.sub("", optional(text))):
        bare = entry.removeprefix("gres:").removeprefix("gres/")
        name, *rest = (part for part in bare.split(":") if part != "no_consume")
        count = _count(rest.pop()) if rest and _count(rest[-1]) is not None else 1
        key = _key(name, rest[0] if rest else "")
        if key is not None and count:
            found[key] = found.get(key, 0) + count
    return found


def gres_request(key: str, count: int) -> str:
    """Return the argument of ``--gres`` for `count` of what `read_gres` calls `key`."""
    if key == "shard" or key.startswith("shard:"):
        return f"{key}:{count}"
    return f"gpu:{key}:{count}" if key else f"gpu:{count}"


def _key(name: str, kind: str) -> str | None:
    if name == "gpu":
        return kind
    if name == "shard":
        return f"shard:{kind}" if kind else "shard"
    return None


_COUNT = re.compile(r"(\d{1,15})([KMG]?)", re.ASCII)


def _count(text: str) -> int | None:
    match = _COUNT.fullmatch(text)
    return int(match[1]) * 2 ** (10 * "_KMG".index(match[2] or "_")) if match else None


_PARENTHESES = re.compile(r"\([^()]*\)?")
"""Sockets and indices, which hold commas."""


# --- host lists -------------------------------------------------------------------------------

_ITEMS = re.compile(r"(?:[^,\[\]]|\[[^\[\]]*\])+")
_PARTS = re.compile(r"\[([^\[\]]*)\]")


def expand_hosts(text: str) -> tuple[str, ...]:
    """
    Return the names that ``c[001-010,20],gpu-[1-2]`` stands for, in order.

    At most `MOST_HOSTS`; what is no list is one name.
    """
    found: list[str] = []
    for item in _ITEMS.findall(optional(text)):
        pieces = _PARTS.split(item)
        choices = [_numbers(piece) if at % 2 else [piece] for at, piece in enumerate(pieces)]
        for combination in product(*choices):
            found.append("".join(combination))
            if len(found) >= MOST_HOSTS:
                return tuple(found)
    return tuple(found)


_RANGE = re.compile(r"(\d{1,9})-(\d{1,9})", re.ASCII)


def _numbers(text: str) -> list[str]:
    """Return the numbers of ``001-003,20`` with their leading zeros."""
    found: list[str] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            found.append(part)
            continue
        low, high = int(match[1]), int(match[2])
        width = len(match[1])
        found += [str(each).zfill(width) for each in range(low, min(high, low + MOST_HOSTS) + 1)]
    return found


# --- records ----------------------------------------------------------------------------------

_PAIR = re.compile(r"(?:^|\s)([A-Za-z][A-Za-z0-9_:/]*)=(\S*)")


def read_record(line: str) -> Mapping[str, str]:
    """
    Read one line of ``scontrol --oneliner``.

    Of a key that comes twice the first counts: free text, which may hold anything, is last.
    """
    found: dict[str, str] = {}
    for key, value in _PAIR.findall(line):
        found.setdefault(key, value)
    return found
