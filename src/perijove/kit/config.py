"""`Section`, the base of every part of the configuration tree.

Each component owns its section and lives beside it, so that adding a spawner or an
authenticator never edits a central class.
"""

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

_DURATION_UNITS = {"ms": 0.001, "s": 1, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_SIZE_UNITS = {
    "": 1, "B": 1,
    "K": 2**10, "KB": 10**3, "KiB": 2**10,
    "M": 2**20, "MB": 10**6, "MiB": 2**20,
    "G": 2**30, "GB": 10**9, "GiB": 2**30,
    "T": 2**40, "TB": 10**12, "TiB": 2**40,
}  # fmt: skip
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


class Section(BaseModel):
    """Base of every section: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def parse_duration(value: Any) -> Any:
    """Read ``"90 s"``, ``"15 min"``, ``"2 h"``, ``"30 d"``; a bare number is seconds."""
    if isinstance(value, timedelta) or value is None:
        return value
    if isinstance(value, bool):
        raise ValueError("a duration is a number of seconds or a text such as '15 min'")
    if isinstance(value, (int, float)):
        seconds = float(value)
    else:
        match = _QUANTITY.fullmatch(str(value))
        unit = (match[2] or "s") if match else ""
        if match is None or unit not in _DURATION_UNITS:
            raise ValueError(
                f"{str(value)[:40]!r} is not a duration: write a number and one of "
                + ", ".join(_DURATION_UNITS)
            )
        seconds = float(match[1]) * _DURATION_UNITS[unit]
    try:
        return timedelta(seconds=seconds)
    except (OverflowError, ValueError):
        raise ValueError(f"{str(value)[:40]!r} is not a usable duration") from None


def parse_size(value: Any) -> Any:
    """Read ``"4 GiB"``, ``"500 MB"``; a bare number is bytes; K, M, G and T are powers of 1024."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value
    match = _QUANTITY.fullmatch(str(value))
    if match is None or match[2] not in _SIZE_UNITS:
        raise ValueError(
            f"{str(value)[:40]!r} is not a size: write a number and one of KiB, MiB, GiB, TiB"
        )
    return int(float(match[1]) * _SIZE_UNITS[match[2]])


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
"""A `timedelta`, written as text with a unit."""

Size = Annotated[int, BeforeValidator(parse_size)]
"""A number of bytes, written as text with a unit."""
