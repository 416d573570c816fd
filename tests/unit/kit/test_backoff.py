"""How long to wait after failures."""

import pytest

from perijove.kit.backoff import backoff


def test_it_doubles_up_to_a_cap() -> None:
    """The first failure waits the base, each further one twice as long, up to the cap."""
    waits = [backoff(n, base=0.5, cap=5).total_seconds() for n in range(1, 7)]

    assert waits == [0.5, 1, 2, 4, 5, 5]


@pytest.mark.parametrize("failures", [-1, 0, 1])
def test_no_failure_is_like_the_first(failures: int) -> None:
    """There is always a pause."""
    assert backoff(failures, base=3).total_seconds() == 3


def test_it_stays_finite() -> None:
    """However long something fails."""
    assert backoff(10**9, cap=300).total_seconds() == 300
