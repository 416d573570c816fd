"""Durations and sizes as people write them."""

from datetime import timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.kit.config import parse_duration, parse_size
from perijove.kit.quantities import (
    DURATION_UNITS,
    SIZE_UNITS,
    read_quantity,
    write_duration,
    write_number,
    write_size,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [("4 GiB", 2**32), ("1.5GiB", 3 * 2**29), ("500 MB", 500_000_000), ("7", 7), ("2 g", 2**31)],
)
def test_sizes_are_read_exactly(text: str, value: int) -> None:
    """A number and a unit, with or without a space, in either case."""
    assert read_quantity(text, SIZE_UNITS, bare="B") == value


@pytest.mark.parametrize("text", ["", "GiB", "1e3", "-1", "1 2", "1.GiB", "4 GiBs", "٤", "9" * 99])
def test_other_texts_are_no_quantities(text: str) -> None:
    """Whatever is not plainly a number and a unit raises, quickly and with the units named."""
    with pytest.raises(ValueError, match="TiB"):
        read_quantity(text, SIZE_UNITS, bare="B")


def test_a_unit_can_be_required() -> None:
    """Without a unit for bare numbers, a bare number says too little."""
    with pytest.raises(ValueError, match="min, h"):
        read_quantity("5", DURATION_UNITS, bare=None)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2**32, "4 GiB"),
        (3 * 2**29, "1.5 GiB"),
        (4 * 10**9, "4 GB"),
        (2**20, "1 MiB"),
        (10**9 + 1, "≈ 953.67 MiB"),
        (2**31 + 1, "≈ 2 GiB"),
        (12, "12 B"),
        (-12, "-12 B"),
    ],
)
def test_sizes_are_written_short(value: int, text: str) -> None:
    """People read the largest unit that makes a short number."""
    assert write_size(Fraction(value)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Fraction(0), "0 s"),
        (Fraction(45), "45 s"),
        (Fraction(3600), "1 h"),
        (Fraction(5400), "1 h 30 min"),
        (Fraction(90061), "1 d 1 h 1 min 1 s"),
        (Fraction(3, 2), "1.5 s"),
        (Fraction(-60), "-1 min"),
    ],
)
def test_durations_are_written_in_their_units(value: Fraction, text: str) -> None:
    """Days, hours, minutes and seconds, without those that are none."""
    assert write_duration(value) == text


@given(st.integers(0, 10**9), st.sampled_from([1, 10, 1000]))
def test_written_numbers_are_read_back(value: int, parts: int) -> None:
    """A number in plain decimals means the same again."""
    number = Fraction(value, parts)
    assert Fraction(write_number(number)) == number


def test_configuration_reads_the_same() -> None:
    """Sections read sizes and durations with the same words."""
    assert parse_duration("90 min") == timedelta(minutes=90)
    assert parse_size("1.5 GiB") == 3 * 2**29
    with pytest.raises(ValueError, match="usable"):
        parse_duration("99999999999999999 w")
