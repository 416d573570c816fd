"""A fact that is asked for seldom and shared by everybody who wants to know it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

import anyio

from perijove.domain.errors import SpawnerTransient
from perijove.kit.clock import monotonic

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Known(Generic[T]):
    """What was found out, and when."""

    value: T
    as_of: datetime
    asked: float


class Fresh(Generic[T]):
    """
    Keeps a value for `seconds`; one question is on its way at most.

    A failure is shared too: who waited while it happened does not ask again.
    """

    def __init__(self, seconds: float, now: Callable[[], float] = monotonic) -> None:
        self._seconds = seconds
        self._now = now
        self._asking = anyio.Lock()
        self._known: Known[T] | None = None
        self._failure: SpawnerTransient | None = None
        self._failed = float("-inf")

    async def get(self, ask: Callable[[], Awaitable[T]]) -> Known[T]:
        """Return the value, asked for anew if it is too old; raise `SpawnerTransient` as `ask`."""
        came = self._now()
        if (known := self._young()) is not None:
            return known
        async with self._asking:
            if (known := self._young()) is not None:
                return known
            if self._failure is not None and self._failed >= came:
                raise SpawnerTransient(str(self._failure))
            return await self._ask(ask)

    def _young(self) -> Known[T] | None:
        known = self._known
        return known if known and self._now() - known.asked < self._seconds else None

    async def _ask(self, ask: Callable[[], Awaitable[T]]) -> Known[T]:
        asked = self._now()
        try:
            value = await ask()
        except SpawnerTransient as error:
            self._failure, self._failed = error, self._now()
            raise
        self._known = Known(value, datetime.now(UTC), asked)
        return self._known
