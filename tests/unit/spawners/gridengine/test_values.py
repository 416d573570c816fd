"""Grid Engine's small notations."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.spawners.gridengine import values


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("16G", 16 * 2**30), ("8.023G", int(8.023 * 2**30)), ("500M", 500 * 2**20),
        ("1g", 10**9), ("410.805MB", int(410.805 * 2**20)), ("0.000B", 0), ("1048576", 2**20),
        ("lots", None), ("", None), ("-5G", None), ("1e9", None),
    ],
)  # fmt: skip
def test_memory_is_read(text: str, size_bytes: int | None) -> None:
    """Capital letters are powers of 1024, small ones of 1000."""
    assert values.read_memory(text) == size_bytes


@given(st.integers(min_value=1, max_value=2**50))
def test_memory_is_never_written_smaller(size_bytes: int) -> None:
    """A size that is written and read is the same, or up to a KiB more."""
    written = values.read_memory(values.write_memory(size_bytes))
    assert written is not None
    assert 0 <= written - size_bytes < 1024


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3600", 3600), ("8:00:00", 28800), ("0:30:0", 1800), ("1::1", 3601), ("96:00:00", 345600),
        ("12s", 12), ("INFINITY", None), ("NONE", None), ("", None), ("::", None), ("soon", None),
    ],
)  # fmt: skip
def test_durations_are_read(text: str, seconds: int | None) -> None:
    """Seconds, and hours, minutes and seconds; no limit is None."""
    assert values.read_duration(text) == seconds


def test_times_without_a_zone_are_of_the_one_told() -> None:
    """qstat prints local time of the zone its process was told."""
    noon = datetime(2026, 7, 1, 10, 0, tzinfo=UTC)
    assert values.read_instant("2026-07-01T12:00:00", ZoneInfo("Europe/Paris")) == noon
    assert values.read_instant("2026-07-01T10:00:00.000Z", None) == noon
    assert values.read_instant("-/-", None) is None


@given(st.text())
def test_every_reader_takes_any_text(text: str) -> None:
    """What is no value of a notation is None or nothing, never an exception."""
    for read in (values.read_memory, values.read_duration, values.read_count):
        assert read(text) is None or read(text) >= 0  # type: ignore[operator]
    assert values.read_instant(text, None) is None or text
    assert all(values.words(text))
    assert isinstance(list(values.read_records(text, "qname")), list)


def test_values_broken_over_lines_are_one() -> None:
    """qconf breaks long values with a backslash unless it is told otherwise."""
    tables = values.read_records(
        "hostname a\nx slots=1, \\\n   gpu=2\nhostname b\nx NONE\n", "hostname"
    )
    first, second = tables
    assert values.amounts(first["x"]) == {"slots": "1", "gpu": "2"}
    assert second == {"hostname": "b", "x": "NONE"}
