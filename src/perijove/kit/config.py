"""`Section`, the base of every part of the configuration tree.

Each component owns its section and lives beside it, so that adding a spawner or an
authenticator never edits a central class.
"""

import re
from datetime import timedelta
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

from perijove.kit.quantities import DURATION_UNITS, SIZE_UNITS, read_quantity, write_duration


class Section(BaseModel):
    """Base of every section: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


_BETWEEN_QUANTITIES = re.compile(r"(?<=[A-Za-z])\s+(?=\d)")


def parse_duration(value: Any) -> Any:
    """Read ``"90 s"``, ``"2 h"``, ``"1 h 30 min"``; a bare number is seconds."""
    if isinstance(value, timedelta) or value is None:
        return value
    if isinstance(value, bool):
        raise ValueError("a duration is a number of seconds or a text such as '15 min'")
    if isinstance(value, (int, float)):
        seconds = float(value)
    else:
        parts = _BETWEEN_QUANTITIES.split(str(value).strip())
        bare = "s" if len(parts) == 1 else None
        seconds = float(sum(read_quantity(part, DURATION_UNITS, bare=bare) for part in parts))
    try:
        return timedelta(seconds=seconds)
    except (OverflowError, ValueError):
        raise ValueError(f"{str(value)[:40]!r} is not a usable duration") from None


def write_seconds(value: timedelta) -> str:
    """Write a duration as `parse_duration` reads it, exactly."""
    return write_duration(Fraction(value // timedelta(microseconds=1), 1_000_000))


def parse_size(value: Any) -> Any:
    """Read ``"4 GiB"``, ``"500 MB"``; a bare number is bytes; K, M, G and T are powers of 1024."""
    if value is None or isinstance(value, (bool, int)):
        return value
    return int(read_quantity(str(value), SIZE_UNITS, bare="B"))


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
"""A `timedelta`, written as text with a unit."""

Size = Annotated[int, BeforeValidator(parse_size)]
"""A number of bytes, written as text with a unit."""
