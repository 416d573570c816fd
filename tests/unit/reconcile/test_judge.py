"""The judgements on what was seen: each rule as a table."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.domain.launch import Cause, Clock, End, Reason, Status, may_follow
from perijove.reconcile.judge import (
    deadline_of,
    is_outdated,
    is_sensible,
    limit_of,
    out_of_time,
    read_sighting,
    sensible,
    trips_breaker,
    walltime_ends_at,
)
from perijove.spawners.contract import Phase, Sighting, SpawnerSettings, Survey
from tests.unit.reconcile.things import NAME, NOW, URL, launch, seen

S, P = Status, Phase
EXIT = End(cause=Cause.EXITED, code=1)
BUSY = Reason(code="resources", params={"partition": "gpu"}, words="(Resources)")
MINUTE = timedelta(minutes=1)
SETTINGS = SpawnerSettings(
    kind="x", submit_limit=10, queue_limit=20, start_limit=30, connect_limit=40
)


# --- reading a sighting -----------------------------------------------------------------------

ON_THE_WAY = (S.SUBMITTED, S.QUEUED, S.HELD, S.STARTING, S.CONNECTING)
BECOMES = [
    *[(old, P.PENDING, "", S.QUEUED) for old in (*ON_THE_WAY, S.READY, S.SUSPENDED)],
    *[(old, P.HELD, "", S.HELD) for old in ON_THE_WAY],
    *[(old, P.SUSPENDED, "", S.SUSPENDED) for old in (*ON_THE_WAY, S.READY, S.SUSPENDED)],
    *[(old, P.RUNNING, "", S.STARTING) for old in ON_THE_WAY],
    *[(old, P.RUNNING, URL, S.CONNECTING) for old in ON_THE_WAY],
    (S.READY, P.RUNNING, "", S.STARTING),  # run again, and not there yet
    (S.READY, P.RUNNING, URL, S.READY),
]


@pytest.mark.parametrize(("old", "phase", "url", "new"), BECOMES)
def test_a_sighting_changes_the_status(old: Status, phase: Phase, url: str, new: Status) -> None:
    """What the platform says decides; a change is an event, and staying is none."""
    change = read_sighting(launch(old), seen(phase, url=url), now=NOW)

    assert change.values.get("status", old) is new
    assert ("status" in change.values) == (new is not old)
    assert change.event == ("" if new is old else str(new))
    assert change.end is None
    assert may_follow(old, new)


@pytest.mark.parametrize("phase", list(P))
@pytest.mark.parametrize("status", [S.SUBMITTED, S.QUEUED, S.STARTING, S.CONNECTING, S.READY])
def test_what_is_known_to_run_does_not_wait_by_an_older_answer(
    status: Status, phase: Phase
) -> None:
    """An answer counts unless it shows waiting what was seen, or has said, to run since."""
    stamps: dict[str, Any] = {f"{status}_at": NOW, "heard_at": None}
    known = replace(launch(status), **stamps)
    waits, runs = phase in (P.PENDING, P.HELD), status in (S.STARTING, S.CONNECTING, S.READY)
    shown = seen(phase)

    assert is_outdated(known, shown, NOW - MINUTE) is (waits and runs)
    assert not is_outdated(known, shown, NOW + MINUTE)
    spoke = replace(known, heard_at=NOW)
    assert is_outdated(spoke, shown, NOW - MINUTE) is waits


def test_a_server_that_was_ready_is_so_again_when_resumed() -> None:
    """What was suspended goes on where it was; what never was ready has to connect first."""
    resumed = launch(S.SUSPENDED, ready_at=NOW, url=URL)
    assert read_sighting(resumed, seen(), now=NOW).values == {"status": S.READY}

    unready = launch(S.SUSPENDED, url=URL)
    assert read_sighting(unready, seen(), now=NOW).values == {"status": S.CONNECTING}

    elsewhere = launch(S.SUSPENDED, ready_at=NOW)
    assert read_sighting(elsewhere, seen(), now=NOW).values == {"status": S.STARTING}


@pytest.mark.parametrize("status", [*ON_THE_WAY, S.READY, S.SUSPENDED])
def test_evidence_of_an_end_is_the_end(status: Status) -> None:
    """Whatever it was doing; the status itself changes when it has been removed."""
    change = read_sighting(launch(status), seen(P.GONE, end=EXIT), now=NOW)

    assert change.end == EXIT
    assert change.values == {}


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("status", [S.ENDING, S.ENDED])
def test_nothing_is_read_of_what_is_being_removed(status: Status, phase: Phase) -> None:
    """Its own step asks the platform, and knows more."""
    change = read_sighting(
        launch(status, absences=1, unknown_since=NOW), seen(phase, end=EXIT), now=NOW
    )

    assert not change


def test_being_seen_ends_every_doubt() -> None:
    """Absences are counted anew, and that it is there again is told."""
    doubted = launch(S.READY, absences=1, unknown_since=NOW, url=URL)
    change = read_sighting(doubted, seen(url=URL), now=NOW)

    assert change.values == {"absences": 0, "unknown_since": None}
    assert change.event == "seen-again"


def test_failures_are_forgotten_when_it_goes_on() -> None:
    """What failed before a launch was moved on does not make the next pause longer."""
    tried = launch(Status.SUBMITTED, failures=3)
    pending = Sighting(name=tried.name, phase=Phase.PENDING)
    assert read_sighting(tried, pending, now=NOW).values["failures"] == 0
    still = launch(Status.QUEUED, failures=3)
    assert "failures" not in read_sighting(still, pending, now=NOW).values


def test_the_same_again_is_no_change() -> None:
    """A survey every few seconds writes nothing while nothing happens."""
    same = launch(S.CONNECTING, node="n1", url=URL)

    assert not read_sighting(same, seen(node="n1", url=URL), now=NOW)


def test_where_it_runs_is_kept_until_it_is_elsewhere() -> None:
    """Node and address are written when they are news, and not forgotten when they are not said."""
    there = launch(S.READY, node="n1", url=URL)
    moved = read_sighting(there, seen(node="n2", url="http://10.0.0.2:1"), now=NOW)

    assert moved.values == {"node": "n2", "url": "http://10.0.0.2:1"}
    assert not read_sighting(there, seen(), now=NOW)


def test_a_reason_is_news_when_its_code_or_numbers_change() -> None:
    """The scheduler's own words change with every answer, and are no news."""
    waiting = launch(S.QUEUED, reason=BUSY)
    assert not read_sighting(
        waiting, seen(P.PENDING, reason=replace(BUSY, words="(Other)")), now=NOW
    )

    other = Reason(code="priority")
    change = read_sighting(waiting, seen(P.PENDING, reason=other), now=NOW)
    assert change.values == {"reason": other}
    assert change.event == "reason"
    assert change.params == {"reason": "priority", "reason_params": {}}


def test_a_reason_ends_with_the_waiting() -> None:
    """What runs waits for nothing."""
    change = read_sighting(launch(S.QUEUED, reason=BUSY), seen(node="n1", reason=BUSY), now=NOW)

    assert change.values == {"status": S.STARTING, "node": "n1", "reason": None}
    assert change.params == {"node": "n1"}


def test_what_can_never_start_ends_with_its_reason() -> None:
    """Waiting for what cannot happen helps nobody: the scheduler's words say what to change."""
    reason = Reason(code="over-time-limit", words="(PartitionTimeLimit)")
    change = read_sighting(launch(S.QUEUED), seen(P.PENDING, reason=reason), now=NOW)

    assert change.end == End(
        cause=Cause.NEVER_STARTED, reason="over-time-limit", detail="(PartitionTimeLimit)"
    )
    assert read_sighting(launch(S.QUEUED), seen(P.PENDING, reason=BUSY), now=NOW).end is None
    assert read_sighting(launch(S.READY), seen(P.RUNNING, reason=reason), now=NOW).end is None


def test_what_is_requeued_listens_nowhere() -> None:
    """Its old address may be a stranger's before it runs again."""
    change = read_sighting(launch(S.READY, url=URL), seen(P.PENDING), now=NOW)

    assert change.values == {"status": S.QUEUED, "url": ""}


def test_a_forecast_is_kept_with_its_age() -> None:
    """A new one is written at once, the same one again once a minute, and none is none."""
    soon, later = NOW + MINUTE, NOW + 2 * MINUTE
    waiting = launch(S.QUEUED, expected_start=soon, estimated_at=NOW)

    same = seen(P.PENDING, expected_start=soon)
    assert not read_sighting(waiting, same, now=NOW + timedelta(seconds=59))
    assert read_sighting(waiting, same, now=later).values == {
        "expected_start": soon,
        "estimated_at": later,
    }
    changed = read_sighting(waiting, seen(P.PENDING, expected_start=later), now=NOW)
    assert changed.values == {"expected_start": later, "estimated_at": NOW}
    withdrawn = read_sighting(waiting, seen(P.PENDING), now=NOW)
    assert withdrawn.values == {"expected_start": None, "estimated_at": None}


def test_the_platform_ends_what_it_says_it_will_end() -> None:
    """Its administrator may have given the job more time."""
    ready = launch(S.READY, starting_at=NOW, ends_at=NOW + MINUTE)
    limited = replace(ready, spec={"resources": {"time_seconds": 60}})
    since = NOW - MINUTE

    assert walltime_ends_at(limited, hearing_since=since, hearing=MINUTE) is None
    own = replace(limited, ends_at=None)
    assert walltime_ends_at(own, hearing_since=since, hearing=MINUTE) == NOW + MINUTE


def test_who_goes_on_waiting_has_the_whole_time_again() -> None:
    """The queue clock begins when the person said so."""
    asked = launch(S.QUEUED, queued_at=NOW, queue_extended_at=NOW + MINUTE)
    clock, at = deadline_of(asked, SETTINGS, hearing_since=NOW - MINUTE) or (None, None)

    assert (clock, at) == (Clock.QUEUE, NOW + MINUTE + timedelta(seconds=20))


# --- what can be believed ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "sighting",
    [
        seen(),
        seen(url="http://node1.example.org:8888"),
        seen(url="https://[::1]:8888"),
        seen(url="unix:/run/x.sock"),
        seen(P.PENDING, reason=BUSY, handle={"job": 1}),
        seen(P.GONE, end=EXIT),
    ],
)
def test_what_makes_sense_is_believed(sighting: Sighting) -> None:
    """Every form that the contract allows."""
    assert is_sensible(sighting)


@pytest.mark.parametrize(
    "sighting",
    [
        None,
        {"name": NAME, "phase": "running"},
        Sighting(name="", phase=P.RUNNING),
        Sighting(name="sshd", phase=P.RUNNING),
        Sighting(name="pj-../../etc", phase=P.RUNNING),
        Sighting(name=f"pj-{'a' * 61}", phase=P.RUNNING),
        Sighting(name=5, phase=P.RUNNING),  # type: ignore[arg-type]
        seen("running"),  # type: ignore[arg-type]
        seen("exploded"),  # type: ignore[arg-type]
        seen(P.GONE),
        seen(P.GONE, end="exited"),
        seen(end="exited"),
        seen(url="nowhere"),
        seen(url="http://127.0.0.1"),
        seen(url="http://127.0.0.1:80/path"),
        seen(url="http://a:1@127.0.0.1:80"),
        seen(url="file:///etc/passwd"),
        seen(url="unix:relative"),
        seen(url="unix:/a\0b"),
        seen(url="http://127.0.0.1:80\n"),
        seen(url=None),
        seen(node=None),
        seen(owner=5),
        seen(handle="job 1"),
        seen(reason="busy"),
    ],
)
def test_what_makes_no_sense_is_not(sighting: object) -> None:
    """A driver comes from anywhere: nothing it says is taken on trust, and nothing raises."""
    assert not is_sensible(sighting)


def test_an_answer_with_nonsense_in_it_is_not_complete() -> None:
    """The rest is used, but nothing may be missed by it."""
    survey = Survey(complete=True, sightings=[seen(), Sighting(name="sshd", phase=P.RUNNING)])

    assert sensible(survey) == Survey(complete=False, sightings=[seen()])


def test_one_name_seen_twice_says_nothing() -> None:
    """Which of the two is the launch cannot be known."""
    survey = Survey(complete=True, sightings=[seen(), seen(P.GONE, end=EXIT)])

    assert sensible(survey) == Survey(complete=False, sightings=[])


def test_a_good_answer_stays_as_it_is() -> None:
    """Complete or not, as the platform said."""
    for complete in (True, False):
        survey = Survey(complete=complete, sightings=[seen()])
        assert sensible(survey) == survey


@pytest.mark.parametrize("answer", [None, [], [seen()], "", {"complete": True}])
def test_what_is_no_answer_is_silence(answer: Any) -> None:
    """An empty list is not "nothing runs"."""
    with pytest.raises(ValueError, match="not a survey"):
        sensible(answer)


# --- the breaker ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("absent", "watched", "trips"),
    [
        (0, 0, False),
        (0, 100, False),
        (1, 1, True),
        (1, 2, False),
        (3, 3, True),
        (3, 20, False),
        (3, 100, False),
        (4, 20, True),
        (10, 100, False),
        (11, 100, True),
        (100, 100, True),
    ],
)
def test_the_breaker(absent: int, watched: int, *, trips: bool) -> None:
    """Many at once, or all there were, is likelier a sick platform than a mass death."""
    assert trips_breaker(absent, watched) is trips


@given(watched=st.integers(1, 10_000), absent=st.integers(0, 10_000))
def test_the_breaker_never_lets_go_with_more(watched: int, absent: int) -> None:
    """If so many are too many, more of as many are too; all are always too many."""
    absent = min(absent, watched)
    if trips_breaker(absent, watched) and absent < watched:
        assert trips_breaker(absent + 1, watched)
    assert trips_breaker(watched, watched)


# --- clocks -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "clock", "seconds"),
    [
        (S.SUBMITTED, Clock.SUBMIT, 10),
        (S.QUEUED, Clock.QUEUE, 20),
        (S.STARTING, Clock.START, 30),
        (S.CONNECTING, Clock.CONNECT, 40),
    ],
)
def test_a_clock_runs_from_when_the_status_was_entered(
    status: Status, clock: Clock, seconds: int
) -> None:
    """Each with its own limit; time in which no hub could hear does not count."""
    entered = NOW + MINUTE
    waiting = launch(status, **{f"{status}_at": entered})
    limit = timedelta(seconds=seconds)

    heard = deadline_of(waiting, SETTINGS, hearing_since=NOW)
    assert heard == (clock, entered + limit)
    later = entered + timedelta(hours=9)
    assert deadline_of(waiting, SETTINGS, hearing_since=later) == (clock, later + limit)


@pytest.mark.parametrize("status", [S.REQUESTED, S.READY, S.SUSPENDED, S.ENDING, S.ENDED])
def test_no_clock_runs_where_nothing_is_waited_for(status: Status) -> None:
    """In line one waits for others; ready is the goal."""
    assert deadline_of(launch(status), SETTINGS, hearing_since=NOW) is None


def test_a_queue_may_have_no_limit() -> None:
    """By default a scheduler may take its time; a policy's limit counts before the spawner's."""
    endless = SETTINGS.model_copy(update={"queue_limit": None})
    waiting = launch(S.QUEUED, queued_at=NOW)
    assert deadline_of(waiting, endless, hearing_since=NOW) is None

    strict = replace(waiting, spec={"limits": {"queue_seconds": 5}})
    assert limit_of(Clock.QUEUE, SETTINGS, strict) == timedelta(seconds=5)
    assert limit_of(Clock.QUEUE, endless, strict) == timedelta(seconds=5)


@pytest.mark.parametrize(
    ("kept", "seconds"),
    [
        ({"queue_wish": 5}, 5),
        ({"queue_wish": 50}, 20),
        ({"queue_wish": 50, "queue_seconds": 30}, 30),
        ({"queue_wish": 50, "queue_seconds": "unlimited"}, 50),
        ({"queue_seconds": "unlimited"}, None),
    ],
)
def test_a_person_may_wish_to_be_asked_sooner(kept: dict[str, Any], seconds: int | None) -> None:
    """Of the site's limit, a policy's before the spawner's, and the person's the sooner counts."""
    waiting = replace(launch(S.QUEUED, queued_at=NOW), spec={"limits": kept})
    limit = None if seconds is None else timedelta(seconds=seconds)
    assert limit_of(Clock.QUEUE, SETTINGS, waiting) == limit


@pytest.mark.parametrize("clock", Clock)
def test_who_ran_out_of_time_is_told_which(clock: Clock) -> None:
    """The cause, the clock and its limit; in the words that JupyterHub's clients look for."""
    end = out_of_time(clock, timedelta(seconds=90))

    assert str(end) == f"never-started({clock}-clock)"
    assert end.detail.startswith("Spawn failed: Timeout")
    assert "90 s" in end.detail


# --- wall time --------------------------------------------------------------------------------

LATER = NOW + timedelta(hours=3)
ONE_HOUR = {"resources": {"time_seconds": 3600}}


@pytest.mark.parametrize(
    ("values", "hearing_since", "ends_at"),
    [
        ({"starting_at": NOW}, NOW, NOW + timedelta(hours=1)),
        ({"starting_at": NOW, "ready_at": LATER}, NOW, NOW + timedelta(hours=1)),
        ({"connecting_at": NOW}, NOW, NOW + timedelta(hours=1)),
        ({"ready_at": NOW}, NOW, NOW + timedelta(hours=1)),
        ({}, NOW, None),
        ({"starting_at": NOW}, LATER, LATER + 10 * MINUTE),
        ({"starting_at": NOW}, NOW + MINUTE, NOW + timedelta(hours=1)),
    ],
)
def test_wall_time_counts_from_the_start(
    values: dict[str, Any], hearing_since: Any, ends_at: Any
) -> None:
    """From when it ran; but nobody is ended before a hub that was away could hear them again."""
    ready = launch(S.READY, spec=ONE_HOUR, **values)

    found = walltime_ends_at(ready, hearing_since=hearing_since, hearing=10 * MINUTE)
    assert found == ends_at


def test_without_a_limit_there_is_no_end() -> None:
    """Most servers run until they are idle."""
    ready = launch(S.READY, starting_at=NOW)

    assert walltime_ends_at(ready, hearing_since=NOW, hearing=MINUTE) is None
