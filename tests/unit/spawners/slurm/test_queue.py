"""The queue as ``squeue`` shows it, whole and unforged."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.domain.errors import SpawnerRejected, SpawnerTransient
from perijove.domain.launch import Cause, End
from perijove.spawners.batch.scheduler import Command, Job, Result
from perijove.spawners.contract import Phase
from perijove.spawners.slurm.queue import (
    listing_by_name,
    question_about_jobs,
    read_ids,
    read_jobs,
    read_own,
)
from perijove.spawners.slurm.scheduler import SlurmScheduler
from tests.unit.spawners.slurm.corpus import (
    FOR_FORMS,
    answer,
    failed,
    of_every_state,
    said,
    waiting_and_running,
)

pytestmark = pytest.mark.anyio

AT: Final = ("1795188683", "1795192283", "1795188600")


def _read(rows: Sequence[Sequence[str]], prefix: str = "") -> dict[str, Job]:
    question = question_about_jobs()
    return {job.id: job for job in read_jobs(question.rows(answer(question, rows)), prefix)}


def _one(state: str, *, code: str = "0", reason: str = "None", nodes: str = "c1") -> Job:
    row = ["7", "alice", state, code, reason, nodes, *AT, "pj-x"]
    return _read([row])["7"]


def test_real_queue_is_read_whole() -> None:
    """Every row of a real queue is a job, whatever its name and reason hold."""
    rows = waiting_and_running()
    jobs = _read(rows)
    assert len(jobs) == len({row[0] for row in rows})
    assert jobs["13"].name == "nb alice|pipe"
    assert jobs["38"].name == "naïve λ"
    held = {job.id for job in jobs.values() if job.phase is Phase.HELD}
    running = {job.id for job in jobs.values() if job.phase is Phase.RUNNING}
    assert held == {"33", "34"}
    assert running == {"8", "13", "14", "19", "21", "23", "25", "26", "37", "42"}
    assert jobs["16"].phase is Phase.SUSPENDED
    assert jobs["14"].nodes == ("gpu1",)


def test_waiting_job_has_a_forecast_and_no_end() -> None:
    """While it waits, the start is a forecast; the end that hangs on it is not told."""
    job = _read(waiting_and_running())["43"]
    assert job.reason is not None
    assert job.reason.code == "resources"
    assert job.expected_start is not None
    assert (job.started_at, job.ends_at, job.end) == (None, None, None)


def test_running_job_has_a_start_and_an_end() -> None:
    """While it runs, the latest end is told, and no reason."""
    job = _one("RUNNING", nodes="c[1-2]")
    assert (job.phase, job.nodes, job.reason) == (Phase.RUNNING, ("c1", "c2"), None)
    assert job.started_at == datetime.fromtimestamp(1795188683, UTC)
    assert job.ends_at == datetime.fromtimestamp(1795192283, UTC)
    assert job.expected_start is None


def test_held_job_has_no_forecast() -> None:
    """Slurm forecasts a start of held jobs too; nothing comes of it."""
    job = _one("PENDING", reason="JobHeldAdmin", nodes="")
    assert (job.phase, job.expected_start) == (Phase.HELD, None)


@pytest.mark.parametrize(
    ("start", "code"), [("N/A", "just-submitted"), (AT[2], "just-submitted"), (AT[0], "begin-time")]
)
def test_begin_time_says_later_only_if_it_is_later(start: str, code: str) -> None:
    """A job that Slurm has not looked at yet waits for nothing."""
    row = ["7", "alice", "PENDING", "0", "BeginTime", "", start, "N/A", AT[2], "pj-x"]
    reason = _read([row])["7"].reason
    assert reason is not None
    assert reason.code == code


@pytest.mark.parametrize(
    ("state", "phase"),
    [
        ("CONFIGURING", Phase.PENDING),
        ("COMPLETING", Phase.RUNNING),
        ("REQUEUED", Phase.PENDING),
        ("REQUEUE_HOLD", Phase.HELD),
        ("SPECIAL_EXIT", Phase.HELD),
        ("RESIZING", Phase.RUNNING),
        ("SIGNALING", Phase.RUNNING),
        ("STAGE_OUT", Phase.RUNNING),
        ("STOPPED", Phase.SUSPENDED),
        ("SUSPENDED", Phase.SUSPENDED),
        ("A_STATE_OF_2030", Phase.RUNNING),
    ],
)
def test_job_in_between_is_not_gone(state: str, phase: Phase) -> None:
    """A job that is being prepared, ended, moved or held is there, also in a state unknown here."""
    job = _one(state)
    assert (job.phase, job.end) == (phase, None)


@pytest.mark.parametrize(
    ("state", "code", "reason", "end"),
    [
        ("COMPLETED", "0", "None", End(cause=Cause.EXITED, code=0)),
        ("FAILED", "768", "NonZeroExitCode", End(cause=Cause.EXITED, code=3)),
        ("FAILED", "3:0", "NonZeroExitCode", End(cause=Cause.EXITED, code=3)),
        ("FAILED", "9", "RaisedSignal:9(Killed)", End(cause=Cause.SIGNAL, code=9)),
        ("FAILED", "0", "JobLaunchFailure", End(cause=Cause.NODE_FAIL)),
        ("FAILED", "0", "None", End(cause=Cause.UNKNOWN)),
        ("FAILED", str(78 << 8), "NonZeroExitCode",
         End(cause=Cause.NEVER_STARTED, code=78, reason="home-missing")),
        ("FAILED", str(81 << 8), "NonZeroExitCode",
         End(cause=Cause.NEVER_STARTED, code=81, reason="hub-unreachable")),
        ("OUT_OF_MEMORY", "125", "OutOfMemory", End(cause=Cause.OUT_OF_MEMORY)),
        ("TIMEOUT", "0", "TimeLimit", End(cause=Cause.WALLTIME)),
        ("DEADLINE", "0", "DeadLine", End(cause=Cause.WALLTIME)),
        ("NODE_FAIL", "0", "NodeDown", End(cause=Cause.NODE_FAIL)),
        ("BOOT_FAIL", "0", "None", End(cause=Cause.NODE_FAIL)),
        ("PREEMPTED", "0", "None", End(cause=Cause.PREEMPTED)),
        ("CANCELLED", "15", "None", End(cause=Cause.CANCELLED_OUTSIDE)),
        ("REVOKED", "0", "None", End(cause=Cause.CANCELLED_OUTSIDE)),
    ],
)  # fmt: skip
def test_final_state_says_how_it_ended(state: str, code: str, reason: str, end: End) -> None:
    """Each final state is evidence of a cause, with Slurm's words."""
    job = _one(state, code=code, reason=reason)
    assert job.phase is Phase.GONE
    assert job.end is not None
    assert job.end.detail.startswith(state)
    assert replace(job.end, detail="") == end


def test_ended_jobs_of_a_real_queue_are_gone() -> None:
    """What a real queue still shows of ended jobs is read as ended."""
    jobs = _read(of_every_state())
    causes = {number: job.end.cause for number, job in jobs.items() if job.end}
    assert causes == {
        "4": Cause.EXITED,
        "5": Cause.UNKNOWN,  # This listing has no exit codes.
        "6": Cause.OUT_OF_MEMORY,
        "7": Cause.NODE_FAIL,
        "9": Cause.CANCELLED_OUTSIDE,
        "10": Cause.CANCELLED_OUTSIDE,
        "11": Cause.NODE_FAIL,
        "12": Cause.CANCELLED_OUTSIDE,
        "15": Cause.EXITED,
    }


def test_jobs_are_ours_by_the_beginning_of_their_name() -> None:
    """Other people's other jobs are left out."""
    rows = [["1", "a", "RUNNING", "0", "None", "c1", *AT, name] for name in ("pj-1-a", "x pj-1-a")]
    assert [job.name for job in _read(rows, "pj-1-").values()] == ["pj-1-a"]


def test_name_cannot_pass_for_a_row() -> None:
    """A job whose name holds line ends and separators is one job, and nobody else's."""
    forged = (
        "x\n7\x1falice\x1fCOMPLETED\x1f0\x1fNone\x1f\x1f0\x1f0\x1f0\x1fpj-x\x1f0123456789abcdef"
    )
    rows = [["8", "mallory", "RUNNING", "0", "None", "c1", *AT, forged + "\n"],
            ["7", "alice", "RUNNING", "0", "None", "c1", *AT, "pj-x"]]  # fmt: skip
    jobs = _read(rows)
    assert jobs.keys() == {"7", "8"}
    assert jobs["7"].phase is Phase.RUNNING
    assert _read(rows, "pj-").keys() == {"7"}


def test_greeting_before_the_rows_is_no_job() -> None:
    """A site's wrapper may say something on standard output first."""
    question = question_about_jobs()
    whole = answer(question, [["7", "alice", "RUNNING", "0", "None", "c1", *AT, "pj-x"]])
    greeted = replace(whole, stdout="Welcome!\nNews: none\n" + whole.stdout)
    assert [job.id for job in read_jobs(question.rows(greeted), "pj-")] == ["7"]


def test_answer_that_is_cut_off_is_none() -> None:
    """Wherever an answer breaks off inside a row, nothing is read from it."""
    question = question_about_jobs()
    row = ["7", "alice", "RUNNING", "0", "None", "c1", *AT, "pj-x"]
    whole = answer(question, [row, row])
    half = len(whole.stdout) // 2
    for length in range(1, len(whole.stdout)):
        if length == half:
            continue
        with pytest.raises(SpawnerTransient):
            question.rows(replace(whole, stdout=whole.stdout[:length]))


@pytest.mark.parametrize(
    "result",
    [
        failed("slurm_load_jobs error: Unable to contact slurm controller (connect failure)"),
        failed("slurm_load_jobs error: Socket timed out on send/recv operation", status=0),
        failed("squeue: error: something new", status=0),
        failed("", status=-9),
        failed("", status=1),
        Result(status=0, stdout="Le service ne répond pas\n", stderr=""),
    ],
)
def test_failed_question_is_no_empty_queue(result: Result) -> None:
    """An answer that is none, with whatever status, never reads as if there were no jobs."""
    with pytest.raises(SpawnerTransient):
        question_about_jobs().rows(result)


def test_empty_queue_is_empty() -> None:
    """No job at all is an answer, and so is one beside a remark of the site."""
    remark = "Maintenance on Tuesday"
    assert question_about_jobs().rows(said("squeue-empty.txt")) == []
    assert question_about_jobs().rows(failed(remark, status=0)) == []


@given(st.text(alphabet="7|\x1f\n-,:[]aN", max_size=80))
def test_any_output_is_read_or_refused(text: str) -> None:
    """Whatever is printed, the answer is a list of jobs or `SpawnerTransient`."""
    question = question_about_jobs()
    output = text.replace("|", f"\x1f{question.mark}\n")
    try:
        jobs = read_jobs(question.rows(Result(status=0, stdout=output, stderr="")), "")
    except SpawnerTransient:
        return
    assert len(jobs) == output.count(f"\x1f{question.mark}\n")


async def test_all_jobs_cost_one_question() -> None:
    """One command shows everybody's jobs, and each time its mark is new."""
    asked: list[Command] = []

    async def run(command: Command) -> Result:
        asked.append(command)
        return Result(status=0, stdout="", stderr="")

    scheduler = SlurmScheduler()
    await scheduler.jobs(run, "pj-")
    await scheduler.jobs(run, "pj-")
    assert [command[0] for command in asked] == ["squeue", "squeue"]
    assert asked[0][-1] != asked[1][-1]


# --- by name ----------------------------------------------------------------------------------


def test_ids_come_oldest_first() -> None:
    """Numbers are numbers, not texts; a stranger's job of the name is the stranger's."""
    rows = "100 ann pj-a-1\n99 ann pj-a-1\n 7 ann pj-a-1\n99 ann pj-a-1\n5 bob pj-a-1\n"
    assert read_ids(Result(status=0, stdout=rows, stderr=""), "ann") == ["7", "99", "100"]
    assert read_ids(said("squeue-empty.txt"), "ann") == []


@pytest.mark.parametrize(
    "result",
    [
        failed("slurm_load_jobs error: Socket timed out on send/recv operation"),
        failed("slurm_load_jobs error: Socket timed out on send/recv operation", status=0),
        Result(status=0, stdout="7 ann pj-a-1\nsomething\n", stderr=""),
    ],
)
def test_ids_are_known_or_not(result: Result) -> None:
    """A submission is not repeated because a question failed."""
    with pytest.raises(SpawnerTransient):
        read_ids(result, "ann")


def test_listing_takes_only_names_of_ours() -> None:
    """A list of names would show other jobs as well."""
    assert "--name=pj-a-1" in listing_by_name("pj-a-1")
    for name in ("a,b", "", "-a", "a b"):
        with pytest.raises(SpawnerRejected):
            listing_by_name(name)


# --- one person's jobs ------------------------------------------------------------------------


def test_own_jobs_are_those_of_one_person() -> None:
    """What somebody has in the queue is told with what it takes; what is over is not."""
    question = question_about_jobs()
    rows = [
        ["1", "alice", "RUNNING", "0", "None", "c1", *AT, "0", "gpu", "def-alice", "4",
         "cpu=4,mem=1G,gres/gpu=2,gres/gpu:a100=2", "salloc"],
        ["2", "alice", "PENDING", "0", "JobHeldUser", "", "N/A", "N/A", AT[2], *FOR_FORMS, "later"],
        ["3", "alice", "COMPLETED", "0", "None", "c1", *AT, *FOR_FORMS, "done"],
        ["4", "bob", "RUNNING", "0", "None", "c1", *AT, *FOR_FORMS, "other"],
    ]  # fmt: skip
    first, second = read_own(question.rows(answer(question, rows)), "alice")
    assert (first.id, first.state, first.is_interactive) == ("1", "running", True)
    assert (first.cpus, first.gpus) == (4, 2)
    assert first.since == datetime.fromtimestamp(int(AT[0]), UTC)
    assert (second.state, second.is_interactive, second.gpus) == ("held", False, None)
    assert second.since == datetime.fromtimestamp(int(AT[2]), UTC)
