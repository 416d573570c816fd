"""How jobs ended, as accounting has it."""

import pytest

from perijove.agent.cannot import EXITS
from perijove.domain.errors import SpawnerTransient
from perijove.domain.launch import Cause, End
from perijove.spawners.batch.scheduler import Result
from perijove.spawners.gridengine.accounting import Record, end_of, read_records_of
from tests.unit.spawners.gridengine.corpus import said


def record(name: str, **changed: str) -> Record:
    """Return the record in a file of the corpus, with some lines changed."""
    text = said(f"qacct-{name}").stdout
    lines = text.splitlines()
    for key, value in changed.items():
        lines = [f"{key} {value}" if line.startswith(f"{key} ") else line for line in lines]
    result = Result(status=0, stdout="\n".join(lines), stderr="")
    (found,) = read_records_of(result).values()
    return found


def end(found: Record, *, deleting: bool = False) -> End:
    """Return what a record comes to on the samples' site."""
    return end_of(found, memory="rmem", memory_per_slot=True, was_being_deleted=deleting)


ENDS = {
    "completed": "exited(0)", "failed3": "exited(3)", "notify": "exited(8)",
    "timeout": "walltime", "timeout-soft": "exited(7)", "exit100": "exited(100)",
    "nodir": "never-started(home-missing)", "noout": "never-started(home-missing)",
    "noshell": "never-started(job-error)",
}  # fmt: skip


def test_each_record_has_its_cause() -> None:
    """The records of the corpus come to the causes that people will read."""
    assert {name: str(end(record(name))) for name in ENDS} == ENDS


def test_what_never_began_may_be_in_the_queue_still() -> None:
    """A job in error leaves a record and stays; one that ran is over."""
    names = ("nodir", "noout", "noshell", "exit100")
    assert not any(record(name).is_final for name in names)
    assert all(record(name).is_final for name in ("completed", "timeout", "notify"))


KILLED = {"failed": "100 : assumedly after job", "exit_status": "137                  (Killed)"}


def test_a_kill_is_a_signal_unless_more_is_known() -> None:
    """137 alone is signal 9; seen deleted it is a cancellation, by whoever accounting names."""
    killed = record("completed", **KILLED)
    assert str(end(killed)) == "signal(9)"
    assert end(killed, deleting=True).cause is Cause.CANCELLED_OUTSIDE
    assert end(record("timeout"), deleting=True).cause is Cause.WALLTIME
    named = record("completed", **KILLED | {"account": "sge\ndeleted_by bob"})
    assert end(named) == End(cause=Cause.CANCELLED_OUTSIDE, detail="deleted by bob")


@pytest.mark.parametrize(
    ("failed", "cause"),
    [
        ("0", Cause.CANCELLED_OUTSIDE),
        ("100 : assumedly after job", Cause.CANCELLED_OUTSIDE),
        ("37  : qmaster enforced h_rt, h_cpu, or h_vmem limit", Cause.WALLTIME),
        ("19  : before writing exit_status", Cause.NODE_FAIL),
    ],
)
def test_the_notice_of_a_deletion_is_in_the_exit_status(failed: str, cause: Cause) -> None:
    """Heeded or died of, it says that the job was deleted, unless Grid Engine says why itself."""
    heard = record("timeout", failed=failed, exit_status="140                  (User defined)")
    assert end(heard).cause is cause


@pytest.mark.parametrize(
    ("peak", "cause"), [("104.586KB", Cause.OUT_OF_MEMORY), ("60.1KB", Cause.SIGNAL)]
)
def test_a_kill_with_full_memory_is_out_of_memory(peak: str, cause: Cause) -> None:
    """The peak of a process in its whole request is the evidence; 8.1.9 prints it as KB."""
    killed = record("rmem", exit_status="137                  (Killed)", ru_maxrss=peak)
    assert end(killed).cause is cause


@pytest.mark.parametrize(("code", "status"), EXITS.items())
def test_a_job_says_why_it_could_not_start(code: str, status: int) -> None:
    """The exit statuses of the job's own programs are reasons, not the end of a server."""
    told = end(record("failed3", exit_status=f"{status}"))
    assert (told.cause, told.code, told.reason) == (Cause.NEVER_STARTED, status, code)


def test_a_lost_shepherd_is_a_lost_node() -> None:
    """What ended because nobody was left to look after it is no fault of the person."""
    lost = record("completed", failed="19  : before writing exit_status")
    assert end(lost).cause is Cause.NODE_FAIL


def test_an_unknown_job_is_no_failure() -> None:
    """A job that accounting does not know leaves the question open."""
    unknown = Result(status=1, stdout="", stderr="error: job id 999999 not found\n")
    assert read_records_of(unknown) == {}
    with pytest.raises(SpawnerTransient):
        read_records_of(Result(status=1, stdout="", stderr="error: cell directory does not exist"))


def test_of_several_runs_the_last_counts() -> None:
    """A job that was in error first has two records."""
    text = said("qacct-nodir").stdout + said("qacct-completed").stdout.replace("1121", "1131")
    (last,) = read_records_of(Result(status=0, stdout=text, stderr="")).values()
    assert (last.job_id, str(end(last))) == ("1131", "exited(0)")
