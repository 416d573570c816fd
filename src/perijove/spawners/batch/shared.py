"""`Shared`: what is asked of a scheduler once for everybody who wants to know it."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from typing import Any, Generic, TypeVar

import anyio

from perijove.domain.errors import SpawnerTransient
from perijove.kit.clock import monotonic

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Known(Generic[T]):
    """What was found out."""

    value: T
    as_of: datetime
    """When it was asked for, for people to read; ages are told by `asked`."""
    asked: float
    """The same instant in monotonic seconds."""


class Shared(Generic[T]):
    """
    One fact of a cluster, good for `seconds` from when it was asked for.

    One question is on its way at most, and who comes meanwhile waits for it. Whoever asked gives
    up by being cancelled: then the next one asks.

    A failure is shared with those who waited while it happened, and not kept. A silent scheduler
    takes its whole time limit for each question: were it asked again for everybody in turn, the
    last would hear it only after the sum of them. Who comes later asks anew.

    Ages are those of a clock that never goes back: one that is set must make no fact old before
    its time, nor keep it for longer.
    """

    def __init__(self, seconds: float, now: Callable[[], float] = monotonic) -> None:
        self._seconds = seconds
        self._now = now
        self._asking = anyio.Lock()
        self._known: Known[T] | None = None
        self._failure: SpawnerTransient | None = None
        self._failures = 0

    @property
    def known(self) -> Known[T]:
        """Return what was found out last, however old; raises `LookupError` if nothing was."""
        if self._known is None:
            raise LookupError("nothing is known of it")
        return self._known

    @property
    def age(self) -> float:
        """Return how old that is, in its times: from 1 on it is too old. Infinite for nothing."""
        return (self._now() - self._known.asked) / self._seconds if self._known else inf

    async def get(self, ask: Callable[[], Awaitable[T]], *, since: float | None = None) -> Known[T]:
        """
        Return the fact, asked for by `ask` when what is known is too old.

        `since`: it has to have been asked for then (monotonic seconds) or later, instead of less
        than the usual time ago. Raises `SpawnerTransient` as `ask` does.
        """
        failures = self._failures
        oldest = self._now() - self._seconds if since is None else since
        if (known := self._young(oldest)) is not None:
            return known
        async with self._asking:
            if (known := self._young(oldest)) is not None:
                return known
            if self._failure is not None and self._failures != failures:
                raise _again(self._failure)
            return await self._ask(ask)

    def _young(self, oldest: float) -> Known[T] | None:
        return self._known if self._known and self._known.asked >= oldest else None

    async def _ask(self, ask: Callable[[], Awaitable[T]]) -> Known[T]:
        asked, as_of = self._now(), datetime.now(UTC)
        try:
            value = await ask()
        except SpawnerTransient as error:
            self._failure = error
            self._failures += 1
            raise
        self._known, self._failure = Known(value, as_of, asked), None
        return self._known


Asked = tuple[Shared[Any], Callable[[], Awaitable[Any]]]
"""A fact, and what asks for it."""


async def renew(facts: Iterable[Asked], has_turn: Callable[[], bool]) -> None:
    """
    Have all these facts `known`, each asked for by its question if it is too old.

    The oldest of them comes first. When there is no turn for a question, what is known will do,
    and it is asked for another time; only for what is not known at all one waits.
    """
    for fact, ask in sorted(facts, key=lambda each: each[0].age, reverse=True):
        if fact.age == inf or (fact.age >= 1 and has_turn()):
            await fact.get(ask)


def _again(error: SpawnerTransient) -> SpawnerTransient:
    return SpawnerTransient(str(error), code=error.code, **error.params)
