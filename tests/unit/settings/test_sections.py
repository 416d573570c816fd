"""Durations and sizes as the configuration reads and writes them."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from perijove.kit.config import Duration, Section, Size, parse_duration, parse_size, write_seconds


class Limits(Section):
    """A section with one of each."""

    time: Duration = timedelta(0)
    """How long."""
    memory: Size = 0
    """How much."""


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("90 s", 90),
        ("15 min", 900),
        ("2h", 7200),
        ("1 h 30 min", 5400),
        ("1 min 15 s", 75),
        (" 30 d ", 30 * 86400),
        (12, 12),
        (0.5, 0.5),
        ("500 ms", 0.5),
    ],
)
def test_a_duration_is_read(written: Any, seconds: float) -> None:
    """As people write them: with a unit, with several, or as a number of seconds."""
    assert parse_duration(written) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "written", ["", "soon", "5 parsec", "1 h 30", "h", True, "1e400 s", "99999999999 d", "- 5 s"]
)
def test_what_is_no_duration_is_refused(written: Any) -> None:
    """Nothing is guessed: half of it right is all of it wrong."""
    with pytest.raises(ValidationError):
        Limits.model_validate({"time": written})


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=400)))
def test_a_written_duration_is_read_back(value: timedelta) -> None:
    """What is shown can be put into the file, and means the same."""
    assert parse_duration(write_seconds(value)) == value


@pytest.mark.parametrize(
    ("written", "size"), [("4 GiB", 4 * 2**30), ("500 MB", 500_000_000), ("1.5 K", 1536), (7, 7)]
)
def test_a_size_is_read(written: Any, size: int) -> None:
    """Powers of 1000 and of 1024 are kept apart by their names."""
    assert parse_size(written) == size


def test_a_section_is_strict_and_never_changes() -> None:
    """An unknown key is an error, and so is a later change."""
    with pytest.raises(ValidationError):
        Limits.model_validate({"tiem": 1})
    with pytest.raises(ValidationError):
        Limits().time = timedelta(1)  # type: ignore[misc]
