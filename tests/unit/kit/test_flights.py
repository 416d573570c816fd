"""Of each question only one is under way."""

from functools import partial

import anyio
import pytest
import structlog

from perijove.kit.flights import Flights

pytestmark = pytest.mark.anyio


class Question:
    """Something that takes until it is answered."""

    def __init__(self) -> None:
        self.asked = 0
        self.answered = 0
        self.answer = anyio.Event()

    async def ask(self) -> None:
        """Wait for the answer."""
        self.asked += 1
        await self.answer.wait()
        self.answered += 1


async def test_who_asks_meanwhile_waits_for_the_same_answer() -> None:
    """Twenty who ask the same at once ask it once."""
    flights, question = Flights(), Question()
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(partial(flights.join, "a", question.ask, seconds=10))
        await anyio.wait_all_tasks_blocked()
        question.answer.set()
    assert (question.asked, question.answered) == (1, 1)


async def test_a_question_goes_on_when_nobody_waits_any_more() -> None:
    """Patience has an end; the answer comes all the same, for the next who asks."""
    flights, question = Flights(), Question()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(flights.serve)
        await anyio.wait_all_tasks_blocked()
        await flights.join("a", question.ask, seconds=0.01)
        await flights.join("a", question.ask, seconds=0.01)
        assert (question.asked, question.answered) == (1, 0)
        question.answer.set()
        await flights.join("a", question.ask, seconds=10)
        assert question.answered >= 1
        tasks.cancel_scope.cancel()


async def test_without_a_server_a_question_ends_with_the_patience_of_who_asked() -> None:
    """Nothing is left running where nothing looks after it."""
    flights, question = Flights(), Question()
    await flights.join("a", question.ask, seconds=0.01)
    question.answer.set()
    await anyio.wait_all_tasks_blocked()
    assert (question.asked, question.answered) == (1, 0)


async def test_a_question_that_fails_does_not_end_the_others() -> None:
    """An error is logged, and the same question can be asked again."""
    flights, question = Flights(), Question()

    async def fail() -> None:
        raise RuntimeError("on purpose")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(flights.serve)
        await anyio.wait_all_tasks_blocked()
        with structlog.testing.capture_logs() as logged:
            await flights.join("a", fail, seconds=10)
        assert [line["event"] for line in logged] == ["flight_failed"]
        question.answer.set()
        await flights.join("a", question.ask, seconds=10)
        assert question.answered == 1
        tasks.cancel_scope.cancel()


async def test_only_so_many_questions_are_asked_at_once() -> None:
    """A class that opens the form together does not ask everything together."""
    flights, question = Flights(at_once=2), Question()
    async with anyio.create_task_group() as tasks:
        for key in range(5):
            tasks.start_soon(partial(flights.join, key, question.ask, seconds=10))
        await anyio.wait_all_tasks_blocked()
        assert question.asked == 2
        question.answer.set()
    assert question.answered == 5
