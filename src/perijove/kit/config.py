"""`Section`, the base of every part of the configuration tree.

Each component owns its section and lives beside it, so that adding a spawner or an
authenticator never edits a central class.
"""

from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

from perijove.kit.quantities import DURATION_UNITS, SIZE_UNITS, read_quantity


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
        seconds = float(read_quantity(str(value), DURATION_UNITS, bare="s"))
    try:
        return timedelta(seconds=seconds)
    except (OverflowError, ValueError):
        raise ValueError(f"{str(value)[:40]!r} is not a usable duration") from None


def parse_size(value: Any) -> Any:
    """Read ``"4 GiB"``, ``"500 MB"``; a bare number is bytes; K, M, G and T are powers of 1024."""
    if value is None or isinstance(value, (bool, int)):
        return value
    return int(read_quantity(str(value), SIZE_UNITS, bare="B"))


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
"""A `timedelta`, written as text with a unit."""

Size = Annotated[int, BeforeValidator(parse_size)]
"""A number of bytes, written as text with a unit."""
