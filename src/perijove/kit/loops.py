"""Loops that cannot die quietly, and the doorbell that shortens their pauses."""

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar
from weakref import WeakValueDictionary

import anyio
import structlog

from perijove.kit.clock import monotonic

log = structlog.get_logger()

T = TypeVar("T")


class Doorbell:
    """
    Wakes whoever waits; a ring while nobody waits is remembered once.

    A lost ring costs one period, never correctness: loops look at what is, not at who rang.
    """

    def __init__(self) -> None:
        self._event = anyio.Event()

    def ring(self) -> None:
        """Wake the waiters, now or at their next wait."""
        self._event.set()

    async def wait(self, seconds: float) -> None:
        """Return when rung or after `seconds`, whichever is first."""
        event = self._event
        with anyio.move_on_after(seconds):
            await event.wait()
        if event.is_set() and self._event is event:  # else another waiter has renewed it
            self._event = anyio.Event()


class Gong:
    """
    Wakes everyone who waits at this moment; nothing is remembered.

    Who waits for one subject is not woken by strikes for others: two hundred who wait for a
    launch each would look two hundred times at every change of any.
    """

    def __init__(self) -> None:
        self._events: WeakValueDictionary[str, anyio.Event] = WeakValueDictionary()

    def strike(self, *subjects: str) -> None:
        """Wake who waits for one of `subjects` or for anything; without subjects, everyone."""
        for subject in (*subjects, "") if subjects else list(self._events):
            event = self._events.pop(subject, None)
            if event is not None:
                event.set()

    def listen(self, subject: str = "") -> anyio.Event:
        """
        Return the event of the next strike; take it *before* looking at what may change.

        Without a `subject`, of the next strike for anything.
        """
        event = self._events.get(subject)
        if event is None:
            event = self._events[subject] = anyio.Event()
        return event


async def every(
    period: float,
    step: Callable[[], Awaitable[None]],
    *,
    name: str,
    deadline: float,
    wait: Callable[[float], Awaitable[None]] = anyio.sleep,
) -> None:
    """
    Run `step` now and then every `period` seconds, until cancelled.

    A step that raises, or outlives `deadline`, is logged and counted and the loop goes on,
    ever more slowly; only cancellation ends it. Pass a doorbell's `wait` to let a request
    shorten the pause.
    """
    failures = 0
    while True:
        try:
            with anyio.fail_after(deadline):
                await step()
            failures = 0
        except Exception:
            failures += 1
            log.exception("loop_step_failed", loop=name, failures=failures)
        if failures:
            # A failing loop must not spin, however often its doorbell rings.
            await anyio.sleep(max(period, min(period * 2 ** min(failures - 1, 6), 60)))
        else:
            await wait(period)


async def for_each(
    things: Iterable[T], act: Callable[[T], Awaitable[None]], *, at_once: int
) -> None:
    """Run `act` for all of `things`, `at_once` at a time: one that is slow holds up no other."""
    slots = anyio.Semaphore(at_once)

    async def one(thing: T) -> None:
        async with slots:
            await act(thing)

    async with anyio.create_task_group() as tasks:
        for thing in things:
            tasks.start_soon(one, thing)


async def until(
    check: Callable[[], Awaitable[bool]], *, seconds: float, pause: float = 0.05
) -> bool:
    """Ask `check` again and again until it is true; False when `seconds` have passed."""
    end = monotonic() + seconds
    while not await check():
        if monotonic() >= end:
            return False
        await anyio.sleep(pause)
    return True
