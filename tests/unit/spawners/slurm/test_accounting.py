"""What accounting remembers, and what is done where it does not."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from perijove.domain.errors import SpawnerRejected, SpawnerTransient
from perijove.domain.launch import Cause
from perijove.spawners.batch.scheduler import Command, Result
from perijove.spawners.slurm.accounting import read
from perijove.spawners.slurm.queue import question_about_jobs
from perijove.spawners.slurm.scheduler import SlurmScheduler
from tests.unit.spawners.slurm.corpus import answer, failed, of_every_state, said

pytestmark = pytest.mark.anyio


def _remembered() -> Result:
    """Return the corpus's accounting in the columns that are asked for."""
    lines = []
    for line in said("sacct-P-X.txt").stdout.splitlines():
        each = line.split("|")
        lines.append("|".join((each[1], each[6], each[7])))
    return Result(status=0, stdout="\n".join(lines) + "\n", stderr="")


def test_real_ends_are_read() -> None:
    """Each final state of a real accounting is an end; what waits, runs or was requeued is not."""
    ends = read(_remembered())
    assert {number: end.cause for number, end in ends.items()} == {
        **dict.fromkeys(("1", "9", "12", "53", "58"), Cause.CANCELLED_OUTSIDE),
        **dict.fromkeys(("2", "3", "4", "5", "15", "46", "47", "48", "49"), Cause.EXITED),
        "6": Cause.OUT_OF_MEMORY,
        "7": Cause.SIGNAL,
        "8": Cause.WALLTIME,
        "11": Cause.NODE_FAIL,
    }
    assert (ends["5"].code, ends["4"].code, ends["7"].code) == (3, 0, 9)
    assert ends["9"].detail == "CANCELLED by 1001"


@pytest.mark.parametrize(
    "result",
    [
        failed("Slurm accounting storage is disabled"),
        failed("sacct: error: slurm_persist_conn_open: No response to persist_init"),
        failed("sacct: error: Problem talking to the database: Connection refused", status=0),
    ],
)
def test_accounting_that_is_off_or_away_says_nothing(result: Result) -> None:
    """No answer is not an empty one."""
    with pytest.raises(SpawnerTransient):
        read(result)


async def test_thousands_of_jobs_are_asked_for_in_few_questions() -> None:
    """Each number is asked for once, many at a time."""
    asked: list[Command] = []

    async def run(command: Command) -> Result:
        asked.append(command)
        return Result(status=0, stdout="", stderr="")

    numbers = [str(number) for number in range(1, 1001)]
    assert await SlurmScheduler().ends(run, [*numbers, *numbers]) == {}
    jobs = [each for command in asked for each in command if each.startswith("--jobs=")]
    assert len(asked) == len(jobs) == 5
    assert ",".join(each.removeprefix("--jobs=") for each in jobs).split(",") == numbers


async def test_number_that_is_none_is_not_asked_for() -> None:
    """A handle is data: what is no job's number reaches no command."""

    async def run(_: Command) -> Result:
        raise AssertionError

    with pytest.raises(SpawnerRejected):
        await SlurmScheduler().ends(run, ["7", "--help"])


ROWS = of_every_state()


def _without_accounting(queue: Callable[[Result], Result]) -> Callable[[Command], Result]:
    def say(command: Command) -> Result:
        if command[0] == "sacct":
            return failed("Slurm accounting storage is disabled")
        question = question_about_jobs()
        mark = command[-1].rpartition("\x1f")[2]
        return queue(answer(replace(question, mark=mark), ROWS))

    return say


async def test_queue_remembers_where_accounting_does_not() -> None:
    """Without accounting, the ends that the controller still knows are told, and no others."""
    say = _without_accounting(lambda result: result)

    async def run(command: Command) -> Result:
        return say(command)

    ends = await SlurmScheduler().ends(run, ["6", "11", "13", "999"])
    assert {number: end.cause for number, end in ends.items()} == {
        "6": Cause.OUT_OF_MEMORY,
        "11": Cause.NODE_FAIL,
    }


async def test_silence_of_both_is_silence() -> None:
    """When neither answers, nobody is declared gone or unknown."""
    say = _without_accounting(lambda _: failed("slurm_load_jobs error: Socket timed out"))

    async def run(command: Command) -> Result:
        return say(command)

    with pytest.raises(SpawnerTransient):
        await SlurmScheduler().ends(run, ["6"])
