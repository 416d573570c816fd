"""A fact that is asked for once: for how long, for whom, and what a failure does."""

import anyio
import pytest

from perijove.domain.errors import SpawnerTransient
from perijove.spawners.batch.shared import Shared

pytestmark = pytest.mark.anyio


async def test_a_fact_is_good_for_its_time() -> None:
    """It is asked for anew when it is too old, as all of them are or for this caller."""
    time, asked = 0.0, 0
    fact = Shared[int](60, lambda: time)

    async def ask() -> int:
        nonlocal asked
        asked += 1
        return asked

    found = []
    for at, since in ((0, None), (59, None), (61, None), (70, 61), (70, 62), (71, None)):
        time = at
        found.append((await fact.get(ask, since=since)).value)
    assert found == [1, 1, 2, 2, 3, 3]


async def test_an_answer_is_as_old_as_its_question() -> None:
    """What was true when a slow answer was given is not known: its age is that of the question."""
    time = 0.0
    fact = Shared[int](60, lambda: time)

    async def ask() -> int:
        nonlocal time
        time += 50
        return 7

    assert (await fact.get(ask)).asked == 0
    time = 70
    assert (await fact.get(ask)).asked == 70


async def test_failure_is_shared_by_who_waited() -> None:
    """A silent cluster is asked once for all who wait, and again by who comes later."""
    fact = Shared[int](60)
    asked = failures = 0
    gate = anyio.Event()

    async def ask() -> int:
        nonlocal asked
        asked += 1
        await gate.wait()
        raise SpawnerTransient("silent")

    async def look() -> None:
        nonlocal failures
        with pytest.raises(SpawnerTransient):
            await fact.get(ask)
        failures += 1

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(look)
        await anyio.wait_all_tasks_blocked()
        gate.set()
    assert (asked, failures) == (1, 10)
    await look()
    assert asked == 2


async def test_who_stops_waiting_does_not_stop_others() -> None:
    """When the one who asked gives up, the next one asks."""
    fact = Shared[int](60)
    is_stuck = True

    async def ask() -> int:
        if is_stuck:
            await anyio.sleep_forever()
        return 7

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fact.get, ask)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    is_stuck = False
    assert (await fact.get(ask)).value == 7
