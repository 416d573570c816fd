"""`Kept`: answers that are dear to find out and may be a little old."""

from collections.abc import Callable, Hashable
from datetime import datetime, timedelta
from typing import Any, TypeVar, cast

V = TypeVar("V")


class Kept:
    """Remembers up to `most` answers, each for as long as its caller allows."""

    def __init__(self, most: int = 2000) -> None:
        self._most = most
        self._answers: dict[Hashable, tuple[datetime, Any]] = {}

    def get(self, key: Hashable, make: Callable[[], V], *, now: datetime, ttl: timedelta) -> V:
        """Return the answer for `key`, made anew when there is none younger than `ttl`."""
        found = self._answers.get(key)
        if found is not None and timedelta(0) <= now - found[0] < ttl:
            return cast(V, found[1])
        made = make()
        if len(self._answers) >= self._most:
            self._answers.clear()  # the next minute fills it again
        self._answers[key] = (now, made)
        return made
