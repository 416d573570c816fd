"""Answers that are kept: young ones are used again, old ones and too many are not."""

from datetime import UTC, datetime, timedelta
from itertools import count

from perijove.kit.kept import Kept

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def test_an_answer_is_made_once_while_it_is_young() -> None:
    """Within its time the same answer is given, also None; afterwards it is made anew."""
    kept, made = Kept(), count()

    def get(key: str, at: datetime) -> int:
        return kept.get(key, lambda: next(made), now=at, ttl=MINUTE)

    assert [get("a", NOON), get("a", NOON + 0.9 * MINUTE), get("b", NOON)] == [0, 0, 1]
    assert get("a", NOON + MINUTE) == 2
    assert get("a", NOON) == 3  # the clock was set back
    nothing = Kept()
    calls: list[None] = []
    for _ in range(2):
        assert nothing.get("n", lambda: calls.append(None), now=NOON, ttl=MINUTE) is None
    assert len(calls) == 1


def test_it_does_not_grow_without_bound() -> None:
    """More answers than allowed are not kept."""
    kept, made = Kept(most=2), count()
    for key in ("a", "b", "c", "a"):
        kept.get(key, lambda: next(made), now=NOON, ttl=MINUTE)
    assert next(made) == 4
