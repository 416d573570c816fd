"""How often a cell is asked, what is kept, and what is concluded from silence."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import PurePath

import anyio
import pytest

from perijove.domain.errors import SpawnerTransient
from perijove.domain.launch import Cause, Resources
from perijove.spawners.batch.scheduler import Command, JobRequest, Result, Site
from perijove.spawners.contract import Phase
from perijove.spawners.gridengine.ends import ACCOUNTING_LAG, ASKED_AGAIN, FLUSHED
from perijove.spawners.gridengine.scheduler import (
    FREE_KEPT,
    REASONS_KEPT,
    STRUCTURE_KEPT,
    GridEngineScheduler,
)
from tests.unit.spawners.gridengine.corpus import said

pytestmark = pytest.mark.anyio

UNKNOWN = said("qstat-j-unknown-xml")
NO_RECORD = Result(status=1, stdout="", stderr="error: job id 1130 not found\n")
SILENT = Result(status=1, stdout="", stderr="error: commlib error: got select error")
OVERVIEW = Result(
    status=0,
    stdout=said("qconf-sc").stdout.join(
        said(f"qconf-{name}").stdout for name in ("ssconf", "sq-all.q", "sel", "srqs", "sprjl")
    ),
    stderr="",
)
NAMED = Result(
    status=0,
    stdout="".join(said(f"qconf-{name}").stdout for name in ("se", "sprj-rse", "su")),
    stderr="",
)
HOSTS = said("qhost-q-j-xml")


class SteppedClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time = datetime(2026, 11, 20, 11, 6, tzinfo=UTC)

    def now(self) -> datetime:
        """Return the test's time."""
        return self.time

    def pass_by(self, time: timedelta) -> None:
        """Let a little more than `time` pass."""
        self.time += time + timedelta(seconds=1)

    def seconds(self) -> float:
        """Return the test's time as one that never goes back."""
        return self.time.timestamp()


class Cell:
    """Answers as the samples' cell did, counts the questions, and can be made to say else."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.listing = said("qstat-xml-r-all")
        self.held_by_owner = said("qstat-xml-empty")
        self.details = said("qstat-j-xml-all")
        self.accounting = NO_RECORD
        self.verifications: list[Result] = []
        self.commands: list[Command] = []

    async def run(self, command: Command) -> Result:
        """Answer one command."""
        program = PurePath(command[0]).name
        self.counts[program] += 1
        self.commands.append(command)
        await anyio.lowlevel.checkpoint()
        match program, command[1]:
            case "qstat", "-u":
                return self.held_by_owner if "hu" in command else self.listing
            case "qstat", "-xml":
                return self.details
            case "qhost", _:
                return HOSTS
            case "qacct", _:
                return self.accounting
        return OVERVIEW if command[1] == "-sconf" else NAMED

    async def run_as(self, user_name: str, commands: Sequence[Command]) -> Sequence[Result]:
        """Answer verifications in the order in which they were laid out."""
        assert user_name == "alice"
        self.commands += commands
        return [self.verifications.pop(0) for _ in commands]


@pytest.fixture
def clock() -> SteppedClock:
    """Give a clock that stands."""
    return SteppedClock()


@pytest.fixture
def cell() -> Cell:
    """Give a cell."""
    return Cell()


@pytest.fixture
def scheduler(clock: SteppedClock) -> GridEngineScheduler:
    """Give a scheduler for the samples' cell."""
    return GridEngineScheduler(
        Site(bin_dir=PurePath("/opt/sge/bin"), environment={"TZ": "UTC"}),
        parallel_environment="smp",
        memory_complex="rmem",
        gpu_complex="gpu",
        clock=clock,
        now=clock.seconds,
    )


def test_programs_are_plain_names(scheduler: GridEngineScheduler) -> None:
    """Where the programs are is for who runs them: the launcher takes only names that it knows."""
    commands = [
        scheduler.submission(JobRequest(name="pj-a-b", comment="", resources=Resources())),
        scheduler.cancellation("1"),
        scheduler.release("1"),
        scheduler.listing_by_name("pj-a-b"),
    ]

    assert [command[0] for command in commands] == ["qsub", "qdel", "qrls", "qstat"]


async def test_reasons_are_asked_for_now_and_then(
    scheduler: GridEngineScheduler, cell: Cell, clock: SteppedClock
) -> None:
    """A poll is one call; why jobs wait is another, for all at once, each half minute."""
    for _ in range(3):
        clock.pass_by(timedelta())
        jobs = await scheduler.jobs(cell.run, "mem")
        assert {job.reason.code for job in jobs if job.reason} == {"resources"}
    assert cell.counts["qstat"] == 3 + 1
    clock.pass_by(REASONS_KEPT)
    await scheduler.jobs(cell.run, "mem")
    assert cell.counts["qstat"] == 4 + 2


@pytest.mark.parametrize(
    ("held_by_owner", "code"),
    [("qstat-xml-r-all", "held-by-user"), ("qstat-xml-empty", "held-by-admin")],
)
async def test_a_held_job_says_who_holds_it(
    scheduler: GridEngineScheduler, cell: Cell, held_by_owner: str, code: str
) -> None:
    """Only a list filtered by one's own holds tells them from an operator's."""
    cell.held_by_owner = said(held_by_owner)
    jobs = await scheduler.jobs(cell.run, "held")
    reasons = {job.name: job.reason and job.reason.code for job in jobs}
    assert reasons == {"heldop": None, "held": code}


async def test_without_reasons_the_list_still_counts(
    scheduler: GridEngineScheduler, cell: Cell
) -> None:
    """That nobody says why jobs wait makes no job disappear."""
    cell.details = SILENT
    jobs = await scheduler.jobs(cell.run, "mem")
    assert [job.name for job in jobs] == ["memnever", "membusy"]


async def test_half_a_list_is_no_answer(scheduler: GridEngineScheduler, cell: Cell) -> None:
    """An incomplete list raises; nothing is concluded from it."""
    cell.listing = Result(status=0, stdout=cell.listing.stdout[:9000], stderr="")
    with pytest.raises(SpawnerTransient):
        await scheduler.jobs(cell.run, "mem")


async def test_a_hundred_people_are_one_question(
    scheduler: GridEngineScheduler, cell: Cell, clock: SteppedClock
) -> None:
    """What there is, is asked for once for everybody, and again when it is old."""

    async def discover() -> None:
        await scheduler.discover(cell.run, cell.run_as, "alice")

    async with anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(discover)
    assert cell.counts == {"qhost": 1, "qconf": 2, "qstat": 1}
    clock.pass_by(FREE_KEPT)
    await discover()
    assert cell.counts == {"qhost": 2, "qconf": 2, "qstat": 2}
    clock.pass_by(STRUCTURE_KEPT)
    await discover()
    assert cell.counts == {"qhost": 3, "qconf": 4, "qstat": 3}


async def test_the_poll_spares_discovery_its_list(
    scheduler: GridEngineScheduler, cell: Cell
) -> None:
    """The queue's list serves both, and our own jobs are not told as the person's others."""
    await scheduler.jobs(cell.run, "mem")
    before = cell.counts["qstat"]
    offer = await scheduler.discover(cell.run, cell.run_as, "alice")
    assert cell.counts["qstat"] == before
    names = {job.name for job in offer.own_jobs}
    assert "nb" in names
    assert not any(name.startswith("mem") for name in names)


async def test_a_failed_question_is_asked_again(scheduler: GridEngineScheduler, cell: Cell) -> None:
    """A failure is raised and not kept."""
    cell.listing = SILENT
    with pytest.raises(SpawnerTransient):
        await scheduler.discover(cell.run, cell.run_as, "alice")
    cell.listing = said("qstat-xml-r-all")
    assert (await scheduler.discover(cell.run, cell.run_as, "alice")).partitions


async def test_accounting_tells_ends(scheduler: GridEngineScheduler, cell: Cell) -> None:
    """One job is looked up by its id; several in one reading of all of ours."""
    cell.details = UNKNOWN
    cell.accounting = said("qacct-timeout")
    ends = await scheduler.ends(cell.run, ["1127"])
    assert ends["1127"].cause is Cause.WALLTIME
    assert list(cell.commands[-1]) == ["qacct", "-j", "1127"]
    await scheduler.jobs(cell.run, "mem")
    await scheduler.ends(cell.run, ["1127", "1128"])
    assert cell.counts["qacct"] == 2
    assert ["qacct", "-d", "31", "-j", "mem*"] in map(list, cell.commands)


async def test_a_record_of_a_job_in_error_is_no_end(
    scheduler: GridEngineScheduler, cell: Cell
) -> None:
    """Eqw leaves a record each time; the job is over when the queue has it no more."""
    cell.accounting = said("qacct-nodir")
    assert await scheduler.ends(cell.run, ["1131"]) == {}
    cell.details = UNKNOWN
    assert str((await scheduler.ends(cell.run, ["1131"]))["1131"]) == (
        "never-started(home-missing)"
    )


async def test_what_was_deleted_while_it_waited_is_known_in_time(
    scheduler: GridEngineScheduler, cell: Cell, clock: SteppedClock
) -> None:
    """Neither queued nor in accounting for longer than that lags: it never ran."""
    (job,) = await scheduler.jobs(cell.run, "membusy")
    cell.details = UNKNOWN
    assert await scheduler.ends(cell.run, [job.id]) == {}
    clock.pass_by(ACCOUNTING_LAG)
    assert (await scheduler.ends(cell.run, [job.id]))[job.id].cause is Cause.CANCELLED_OUTSIDE


async def test_what_ran_and_left_no_record_is_not_made_up(
    scheduler: GridEngineScheduler, cell: Cell, clock: SteppedClock
) -> None:
    """Without accounting the cause of an end is unknown, and said to be."""
    (job,) = await scheduler.jobs(cell.run, "nb")
    cell.details = UNKNOWN
    await scheduler.ends(cell.run, [job.id])
    clock.pass_by(ACCOUNTING_LAG)
    assert (await scheduler.ends(cell.run, [job.id]))[job.id].cause is Cause.UNKNOWN


def over(*names: str) -> Result:
    """Return the list when these of its jobs have ended: the qmaster remembers the last ones."""
    text = said("qstat-xml-r-all").stdout
    for name in names:
        before, mark, rest = text.partition(f"<JB_name>{name}</JB_name>")
        head, _, number = before.rpartition("<job_list state=")
        number = number.partition(">")[2]
        rest = rest.replace("<state>qw</state>", "<state>z</state>", 1)
        text = f'{head}<job_list state="zombie">{number}{mark}{rest}'
    return Result(status=0, stdout=text, stderr="")


async def test_who_was_deleted_while_they_waited_is_told_so(
    scheduler: GridEngineScheduler, cell: Cell, clock: SteppedClock
) -> None:
    """It is shown as it was until accounting would have it if it had run; then it is gone."""
    (before,) = await scheduler.jobs(cell.run, "membusy")
    assert before.is_live
    cell.listing = over("membusy")
    clock.pass_by(timedelta())
    (ending,) = await scheduler.jobs(cell.run, "membusy")
    assert (ending.phase, ending.reason) == (Phase.PENDING, before.reason)
    assert not ending.is_live
    clock.pass_by(FLUSHED)
    (gone,) = await scheduler.jobs(cell.run, "membusy")
    assert gone.end is not None
    assert (gone.phase, gone.end.cause) == (Phase.GONE, Cause.CANCELLED_OUTSIDE)
    asked = cell.counts["qacct"]
    clock.pass_by(FLUSHED)
    assert await scheduler.jobs(cell.run, "membusy") == [gone]
    assert cell.counts["qacct"] == asked


async def test_an_end_in_accounting_is_told_soon(
    scheduler: GridEngineScheduler, cell: Cell, clock: SteppedClock
) -> None:
    """Also of a job that this hub has not seen before; of others of that id nothing is told."""
    cell.listing = over("nb")
    cell.accounting = said("qacct-timeout")
    assert await scheduler.jobs(cell.run, "nb") == []
    clock.pass_by(timedelta())
    assert await scheduler.jobs(cell.run, "nb") == []
    assert cell.counts["qacct"] == 1
    clock.pass_by(ASKED_AGAIN)
    record = cell.accounting.stdout.replace("tooslow", "nb").replace("1127", "1134")
    cell.accounting = Result(status=0, stdout=record, stderr="")
    (gone,) = await scheduler.jobs(cell.run, "nb")
    assert gone.end is not None
    assert (gone.id, gone.end.cause) == ("1134", Cause.WALLTIME)


@pytest.mark.parametrize("accounting", [NO_RECORD, SILENT])
async def test_what_is_over_without_a_trace_is_held_back_for_a_while_only(
    scheduler: GridEngineScheduler, cell: Cell, clock: SteppedClock, accounting: Result
) -> None:
    """A job that ran, without accounting: as it was at first, and then as if it were missing."""
    cell.accounting = accounting
    await scheduler.jobs(cell.run, "nb")
    cell.listing = over("nb")
    clock.pass_by(timedelta())
    (ending,) = await scheduler.jobs(cell.run, "nb")
    assert (ending.phase, ending.is_live) == (Phase.RUNNING, False)
    clock.pass_by(FLUSHED)
    jobs = await scheduler.jobs(cell.run, "nb")
    assert [job.end and job.end.cause for job in jobs] == (
        [Cause.UNKNOWN] if accounting is NO_RECORD else []
    )
    asked = cell.counts["qacct"]
    clock.pass_by(ASKED_AGAIN)
    await scheduler.jobs(cell.run, "nb")
    assert cell.counts["qacct"] == asked


async def test_what_is_over_is_not_told_as_the_persons_other_job(
    scheduler: GridEngineScheduler, cell: Cell
) -> None:
    """The form counts what takes of limits."""
    cell.listing = over("nb", "gpu-ok")
    offer = await scheduler.discover(cell.run, cell.run_as, "alice")
    names = {job.name for job in offer.own_jobs}
    assert not names & {"nb", "gpu-ok"}
    assert "held" in names


async def test_silence_ends_nothing(scheduler: GridEngineScheduler, cell: Cell) -> None:
    """When the queue cannot be asked, a missing record proves nothing."""
    cell.details = SILENT
    with pytest.raises(SpawnerTransient):
        await scheduler.ends(cell.run, ["1130"])


def verdict(*messages: str) -> Result:
    """Return a failed verification."""
    lines = "".join(f"Job 7 {message}\n" for message in messages)
    return Result(
        status=1,
        stdout="",
        stderr=f"Unable to run job: {lines}verification: no suitable queues\nExiting.\n",
    )


SUITABLE = Result(status=0, stdout="verification: found suitable queue(s)\n", stderr="")
NO_SLOTS = verdict('cannot run in PE "smp" because it only offers 0 slots')


async def test_a_dry_run_submits_nothing(scheduler: GridEngineScheduler, cell: Cell) -> None:
    """The site's own arguments cannot turn a verification into a submission."""
    cell.verifications = [SUITABLE]
    request = JobRequest(
        name="pj-a", comment="", resources=Resources(cpu=2), extra=["-w", "n", "-terse"]
    )
    assert await scheduler.dry_run(cell.run_as, "alice", request) == ()
    assert [command[-5:] for command in cell.commands] == [["-w", "v", "-b", "y", "/bin/true"]]


@pytest.mark.parametrize(
    ("answers", "field"),
    [([NO_SLOTS, SUITABLE], "memory"), ([NO_SLOTS, NO_SLOTS, SUITABLE], "gpu"),
     ([NO_SLOTS, NO_SLOTS, NO_SLOTS], "cpu")],
)  # fmt: skip
async def test_the_culprit_of_too_few_slots_is_found(
    scheduler: GridEngineScheduler, cell: Cell, answers: list[Result], field: str
) -> None:
    """Grid Engine only says "0 slots": what goes through without is what was too much."""
    cell.verifications = answers
    request = JobRequest(
        name="pj-a", comment="", resources=Resources(cpu=2, memory_bytes=2**40, gpu=2)
    )
    (objection,) = await scheduler.dry_run(cell.run_as, "alice", request)
    assert (objection.field, objection.code) == (field, "over-size-limit")
    assert cell.verifications == []


async def test_a_dry_run_without_answer_says_so(scheduler: GridEngineScheduler, cell: Cell) -> None:
    """Silence is no objection and no consent."""
    request = JobRequest(name="pj-a", comment="", resources=Resources())
    cell.verifications = [SILENT]
    with pytest.raises(SpawnerTransient):
        await scheduler.dry_run(cell.run_as, "alice", request)


async def test_what_cannot_be_asked_is_an_objection(
    scheduler: GridEngineScheduler, cell: Cell
) -> None:
    """A value that no argument can be is told with its field, and nothing is run."""
    request = JobRequest(
        name="pj-a", comment="", resources=Resources(), options={"partition": "a b"}
    )
    (objection,) = await scheduler.dry_run(cell.run_as, "alice", request)
    assert (objection.field, objection.code) == ("partition", "bad-option")
    assert cell.commands == []
