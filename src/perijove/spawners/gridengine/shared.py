"""Facts that one question answers for everybody, kept for a while."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Generic, TypeVar

import anyio

from perijove.kit.clock import Clock

Fact = TypeVar("Fact")


class Shared(Generic[Fact]):
    """One fact: who needs it while it is being asked for waits for the same answer."""

    def __init__(self, clock: Clock, *, kept: timedelta) -> None:
        self._clock = clock
        self._kept = kept
        self._lock = anyio.Lock()
        self._fact: Fact | None = None
        self._fresh_until = clock.now()

    def put(self, fact: Fact) -> None:
        """Keep what was learned on the way."""
        self._fact = fact
        self._fresh_until = self._clock.now() + self._kept

    async def get(self, ask: Callable[[], Awaitable[Fact]]) -> Fact:
        """Return the fact, asked for anew when it is too old; what `ask` raises is raised."""
        async with self._lock:
            left = self._fresh_until - self._clock.now()
            # A clock that was put back makes nothing fresh for longer than it is kept.
            if self._fact is None or not timedelta(0) < left <= self._kept:
                self.put(await ask())
            assert self._fact is not None
            return self._fact
