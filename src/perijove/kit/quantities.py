"""
Durations and sizes as people write them, read and written exactly.

Arithmetic is on `Fraction`: 0.1 h is 360 s, and three steps of 0.1 are 0.3.
"""

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Final

DURATION_UNITS: Final[Mapping[str, Fraction]] = {
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "min": Fraction(60),
    "h": Fraction(3600),
    "d": Fraction(86400),
    "w": Fraction(604800),
}
"""Seconds in each unit."""

SIZE_UNITS: Final[Mapping[str, Fraction]] = {
    "B": Fraction(1),
    "K": Fraction(2**10), "KB": Fraction(10**3), "KiB": Fraction(2**10),
    "M": Fraction(2**20), "MB": Fraction(10**6), "MiB": Fraction(2**20),
    "G": Fraction(2**30), "GB": Fraction(10**9), "GiB": Fraction(2**30),
    "T": Fraction(2**40), "TB": Fraction(10**12), "TiB": Fraction(2**40),
}  # fmt: skip
"""Bytes in each unit."""

_QUANTITY = re.compile(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([A-Za-z]{0,8})\s*", re.ASCII)
_LARGEST_FIRST = ("TiB", "TB", "GiB", "GB", "MiB", "MB", "KiB", "KB")
_ROUNDED_IN = ("TiB", "GiB", "MiB", "KiB")


def read_quantity(text: str, units: Mapping[str, Fraction], *, bare: str | None) -> Fraction:
    """
    Read a number and a unit of `units`; a number without one is in the unit `bare`.

    Units are taken as written, or else without regard to case. Raises `ValueError`, whose text
    names the units.
    """
    match = _QUANTITY.fullmatch(text)
    if match is not None:
        unit = _find_unit(match[2], units) if match[2] else bare
        if unit is not None:
            return Fraction(match[1]) * units[unit]
    raise ValueError(f"{text[:40]!r} is not a number with one of the units {', '.join(units)}")


def _find_unit(written: str, units: Mapping[str, Fraction]) -> str | None:
    if written in units:
        return written
    return next((unit for unit in units if unit.lower() == written.lower()), None)


def write_number(value: Fraction) -> str:
    """Write a number in plain decimals, rounded after the sixth: ``4``, ``0.5``."""
    return f"{float(round(value, 6)):.6f}".rstrip("0").rstrip(".")


def write_size(value: Fraction) -> str:
    """Write bytes in the largest unit that makes them short: ``1.5 GiB``, ``4 GB``, ``≈ 2 GiB``."""
    for unit in _LARGEST_FIRST:
        count = value / SIZE_UNITS[unit]
        if count >= 1 and (count * 4).denominator == 1:
            return f"{write_number(count)} {unit}"
    for unit in _ROUNDED_IN:
        if value >= SIZE_UNITS[unit]:
            return f"≈ {write_number(round(value / SIZE_UNITS[unit], 2))} {unit}"
    return f"{write_number(value)} B"


def write_duration(value: Fraction) -> str:
    """Write seconds: ``1 h``, ``1 h 30 min``, ``2 d``, ``45 s``."""
    if value < 0:
        return f"-{write_duration(-value)}"
    rest, parts = value, []
    for unit in ("d", "h", "min"):
        count, rest = divmod(rest, DURATION_UNITS[unit])
        if count:
            parts.append(f"{count} {unit}")
    if rest or not parts:
        parts.append(f"{write_number(rest)} s")
    return " ".join(parts)
