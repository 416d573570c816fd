"""Loops that cannot die quietly, doorbells and gongs."""

from collections.abc import Awaitable, Callable

import anyio
import pytest
from structlog.testing import capture_logs

from perijove.kit.loops import Doorbell, Gong, every, for_each, until

pytestmark = pytest.mark.anyio

SOON = 10.0
"""Seconds in which what must happen happens."""
NEVER = 1000.0


class Steps:
    """The steps of a loop: what each does is given; after the last the loop is stopped."""

    def __init__(self, *steps: Callable[[], Awaitable[None]]) -> None:
        self._steps = list(steps)
        self.done = 0
        self.pauses: list[float] = []
        self._scope = anyio.CancelScope()

    async def run(self, period: float = 0.001, deadline: float = SOON) -> None:
        """Run the loop until the steps are used up."""
        with anyio.fail_after(SOON), self._scope:
            await every(period, self._step, name="test", deadline=deadline, wait=self._wait)

    async def _step(self) -> None:
        if self.done == len(self._steps):
            self._scope.cancel()
            await anyio.lowlevel.checkpoint()
        self.done += 1
        await self._steps[self.done - 1]()

    async def _wait(self, seconds: float) -> None:
        self.pauses.append(seconds)


async def good() -> None:
    """Do what was to be done."""


async def bad() -> None:
    """Fail."""
    raise LookupError("no such thing")


async def hang() -> None:
    """Never return."""
    await anyio.sleep(NEVER)


async def test_every_runs_at_once_and_then_after_each_pause() -> None:
    """The first step does not wait; the pause is what was asked for."""
    steps = Steps(good, good, good)
    await steps.run(period=NEVER)

    assert steps.done == 3
    assert steps.pauses == [NEVER] * 3


async def test_every_goes_on_after_failures_and_says_so() -> None:
    """A step that raises is logged with a count that starts anew after a success."""
    steps = Steps(bad, bad, good, bad, good)
    with capture_logs() as logs:
        await steps.run()

    assert steps.done == 5
    assert [(log["event"], log["loop"], log["failures"]) for log in logs] == [
        ("loop_step_failed", "test", 1),
        ("loop_step_failed", "test", 2),
        ("loop_step_failed", "test", 1),
    ]


async def test_every_cuts_a_step_that_hangs() -> None:
    """A step that outlives its deadline has failed, and the loop goes on."""
    steps = Steps(hang, good)
    with capture_logs() as logs:
        await steps.run(deadline=0.01)

    assert steps.done == 2
    assert len(logs) == 1


@pytest.mark.parametrize(
    ("period", "expected"),
    [(1, [1, 2, 4, 8, 16, 32, 60, 60]), (10, [10, 20, 40, 60, 60]), (600, [600, 600])],
)
async def test_every_slows_down_while_it_fails(
    monkeypatch: pytest.MonkeyPatch, period: float, expected: list[float]
) -> None:
    """Ever longer pauses up to a minute, and never shorter than when all is well."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(anyio, "sleep", sleep)
    with capture_logs():
        await Steps(*[bad] * len(expected)).run(period=period)

    assert pauses == expected


async def test_a_doorbell_that_rings_ends_the_wait() -> None:
    """Who waits goes on when rung, and not only when the time is over."""
    bell = Doorbell()
    with anyio.fail_after(SOON):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bell.wait, NEVER)
            await anyio.wait_all_tasks_blocked()
            bell.ring()


async def test_a_doorbell_remembers_one_ring() -> None:
    """A ring that nobody waited for ends the next wait; several count as one."""
    bell = Doorbell()
    bell.ring()
    bell.ring()
    with anyio.fail_after(SOON):
        await bell.wait(NEVER)

    assert await lasts(bell)


async def lasts(bell: Doorbell) -> bool:
    """Tell whether a wait goes on until somebody rings."""
    with anyio.move_on_after(0.02) as scope:
        await bell.wait(NEVER)
    return scope.cancelled_caught


async def test_a_doorbell_wakes_everyone_who_waits() -> None:
    """Also who goes on waiting when another has given up."""
    bell = Doorbell()
    with anyio.fail_after(SOON):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bell.wait, NEVER)
            tasks.start_soon(bell.wait, NEVER)
            await anyio.wait_all_tasks_blocked()
            await bell.wait(0.01)
            bell.ring()

    assert await lasts(bell)


async def test_a_gong_wakes_who_waits_for_the_subject_or_for_anything() -> None:
    """A strike for one thing leaves who waits for another asleep; one for all wakes all."""
    gong = Gong()
    mine, other, anything = gong.listen("a"), gong.listen("b"), gong.listen()
    gong.strike("a")
    assert (mine.is_set(), other.is_set(), anything.is_set()) == (True, False, True)

    again = gong.listen("a")
    gong.strike()
    assert (again.is_set(), other.is_set()) == (True, True)


async def test_a_gong_remembers_nothing() -> None:
    """Who listens after a strike waits for the next one."""
    gong = Gong()
    gong.strike("a")
    gong.strike()

    assert not gong.listen("a").is_set()
    assert gong.listen("a") is not gong.listen("b")


async def test_until_returns_as_soon_as_it_is_so() -> None:
    """The check is asked again and again; how it ended is the answer."""
    answers = iter([False, False, True])

    async def check() -> bool:
        return next(answers)

    async def never() -> bool:
        return False

    assert await until(check, seconds=SOON, pause=0)
    assert not await until(never, seconds=0.01, pause=0.001)


async def test_for_each_does_some_at_a_time_and_all_in_the_end() -> None:
    """Three wait for one another, which they can only when they are under way together."""
    together, seen, most = anyio.Event(), list[int](), 0
    under_way = 0

    async def act(number: int) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        if under_way == 3:
            together.set()
        with anyio.fail_after(SOON):
            await together.wait()
        await anyio.lowlevel.checkpoint()
        under_way -= 1
        seen.append(number)

    await for_each(range(10), act, at_once=3)

    assert sorted(seen) == list(range(10))
    assert most == 3
