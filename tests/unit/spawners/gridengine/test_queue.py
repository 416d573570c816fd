"""The queue as qstat lists it, and why jobs wait."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.domain.errors import SpawnerTransient
from perijove.spawners.batch.scheduler import Job, Result
from perijove.spawners.contract import Phase
from perijove.spawners.gridengine.queue import (
    Listing,
    job_of,
    read_details,
    read_ids,
    read_listing,
)
from tests.unit.spawners.gridengine.corpus import said

NOW = datetime(2026, 11, 20, 11, 6, 0, tzinfo=UTC)


def listing(name: str = "qstat-xml-r-all") -> Listing:
    """Return a listing of the corpus."""
    return read_listing(said(name), UTC)


def jobs() -> dict[str, Job]:
    """Return all jobs of the corpus's queue, with their reasons."""
    details = read_details(said("qstat-j-xml-all"))
    return {each.name: job_of(each, details.get(each.id), NOW) for each in listing().named("")}


PHASES = {
    "nb": Phase.RUNNING, "heldop": Phase.RUNNING, "susp": Phase.SUSPENDED, "busy": Phase.PENDING,
    "nodir": Phase.HELD, "held": Phase.HELD, "later": Phase.PENDING,
}  # fmt: skip


def test_letters_become_phases() -> None:
    """r, hr, s, qw, Eqw and hqw each come to one phase."""
    found = jobs()
    assert {name: found[name].phase for name in PHASES} == PHASES


@pytest.mark.parametrize(
    ("state", "is_pending", "phase"),
    [
        ("Rq", True, Phase.PENDING), ("hRwq", True, Phase.HELD), ("EhRqw", True, Phase.HELD),
        ("dqw", True, Phase.PENDING), ("t", False, Phase.RUNNING), ("Rr", False, Phase.RUNNING),
        ("dr", False, Phase.RUNNING), ("dRs", False, Phase.SUSPENDED),
        ("tS", False, Phase.SUSPENDED), ("T", False, Phase.SUSPENDED),
        ("N", False, Phase.RUNNING), ("Y", True, Phase.PENDING),
    ],
)  # fmt: skip
def test_every_letter_of_the_manual_has_a_phase(state: str, is_pending: bool, phase: Phase) -> None:
    """Letters of sge_status(5) that the corpus has not, and letters that nobody knows."""
    section = "pending" if is_pending else "running"
    text = listing().text.replace('state="running"', f'state="{section}"')
    text = text.replace("<state>r</state>", f"<state>{state}</state>")
    (entry,) = Listing(text, UTC).named("nb")
    assert entry.phase is phase


def test_a_running_job_says_where_and_until_when() -> None:
    """Node from the queue's instance, end from start and h_rt."""
    job = jobs()["nb"]
    started = datetime(2026, 11, 20, 11, 5, 56, tzinfo=UTC)
    assert (job.id, job.user, job.nodes) == ("1134", "alice", ("vm",))
    assert (job.started_at, job.ends_at) == (started, started + timedelta(hours=1))
    assert job.reason is None


REASONS = {
    "gpu-busy": "quota", "rqs-b": "quota", "held": "held-by-user", "after": "dependency",
    "later": "begin-time", "memnever": "resources", "membusy": "resources",
    "slotnever": "no-slots", "busy": "no-slots", "nodir": "job-error", "noshell": "job-error",
}  # fmt: skip


def test_waiting_jobs_say_why() -> None:
    """Each kind of wait in the corpus has its code, never one that gives a request up."""
    found = jobs()
    reasons = {name: found[name].reason for name in REASONS}
    assert {name: each.code for name, each in reasons.items() if each} == REASONS
    assert all(each and each.words for each in reasons.values())


def test_a_released_job_is_no_longer_held_by_what_was_said_before() -> None:
    """The scheduler's messages are older than the list, and speak of a hold that is over."""
    details = read_details(said("qstat-j-xml-all"))
    text = listing().text.replace("<state>hqw</state>", "<state>qw</state>")
    entry = next(each for each in Listing(text, UTC).named("held") if each.name == "held")
    assert any("hold state" in each for each in details[entry.id].messages)
    job = job_of(entry, details[entry.id], NOW)
    assert job.phase is Phase.PENDING
    assert job.reason is not None
    assert job.reason.code == "priority"


def test_a_job_in_error_says_the_error() -> None:
    """Eqw shows what failed on the node, not that something did."""
    reason = jobs()["nodir"].reason
    assert reason is not None
    assert "can't chdir to /nosuch/dir: No such file or directory" in reason.words


def test_without_details_a_wait_is_told_by_its_age() -> None:
    """Just submitted at first; later nothing is made up."""
    (entry,) = listing().named("membusy")
    assert job_of(entry, None, NOW).reason is not None
    reasons = [job_of(entry, None, NOW + timedelta(minutes=m)).reason for m in (0, 5)]
    assert [each and each.code for each in reasons] == ["just-submitted", "other"]


def test_names_are_complete() -> None:
    """The table cuts names after ten letters, the XML does not, with -r or without."""
    long = "a-very-long-name-of-a-notebook-server-indeed"
    for name in ("qstat-xml-r-all", "qstat-xml-all"):
        assert [each.id for each in listing(name).named(long)] == ["1152"]
    assert listing().named("a-very-long-name-of-a-notebook-server-indeed-not") == []


def test_a_deletion_under_way_is_seen() -> None:
    """The letter d says that somebody asked for the end."""
    (entry,) = listing("qstat-xml-deleting").named("notify")
    assert (entry.phase, entry.is_being_deleted) == (Phase.RUNNING, True)


def test_an_empty_queue_is_an_answer() -> None:
    """Nobody's jobs are no jobs, and no failure."""
    assert listing("qstat-xml-empty").named("") == []


@pytest.mark.parametrize(
    "result",
    [
        Result(status=0, stdout="", stderr=""),
        Result(status=0, stdout="Welcome to the cluster!", stderr=""),
        Result(status=1, stdout="", stderr="error: commlib error: got select error"),
        Result(status=0, stdout=said("qstat-xml-all").stdout[:4000], stderr=""),
        said("qstat-all"),
    ],
)
def test_half_an_answer_is_none(result: Result) -> None:
    """Empty, cut off, failed or in another format: nobody's job is missing."""
    with pytest.raises(SpawnerTransient):
        read_listing(result, None)


def test_control_characters_of_one_job_hide_no_other() -> None:
    """8.1.9 prints what a person put into a request as it is, which is no XML."""
    text = listing().text.replace(">500M<", ">\x01\ud800\x1b[0m%lt;/job_list&gt;<")
    (entry,) = Listing(text, UTC).named("nb")
    assert entry.requests["rmem"] == "\ufffd\ufffd\ufffd[0m%lt;/job_list>"


def test_entities_are_never_declared() -> None:
    """A document with a declaration is refused before a parser sees it."""
    bomb = '<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx">]><detailed_job_info>&x;</detailed_job_info>'
    with pytest.raises(SpawnerTransient):
        read_details(Result(status=0, stdout=bomb, stderr=""))


@given(st.text(max_size=200))
def test_any_text_is_an_answer_or_none(text: str) -> None:
    """Whatever a command prints, reading it ends in a list or in `SpawnerTransient`."""
    result = Result(status=0, stdout=text, stderr=text)
    reads: list[Callable[[Result], object]] = [
        read_details,
        lambda each: read_ids(each, ""),
        lambda each: read_listing(each, None),
    ]
    for read in reads:
        try:
            read(result)
        except SpawnerTransient:
            continue
        assert text.strip()


def test_ids_of_a_name_come_oldest_first() -> None:
    """A name that nobody's job has gives no ids: exit 0, and another document."""
    assert read_ids(said("qstat-j-unknown-xml"), "alice") == []
    ids = read_ids(said("qstat-j-xml-all"), "alice")
    assert ids == sorted(ids, key=int)
    assert "1134" in ids
    assert not set(ids) & set(read_ids(said("qstat-j-xml-all"), "bob"))
