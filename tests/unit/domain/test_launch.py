"""The states of a launch: which may follow which, walked at random."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from perijove.domain.errors import Conflict
from perijove.domain.launch import (
    CLOCK_OF,
    ON_PLATFORM,
    WAITING,
    Cause,
    Clock,
    End,
    Kind,
    Launch,
    Status,
    Wanted,
    check_transition,
    may_follow,
)

NOW = datetime(2020, 11, 20, 12, tzinfo=UTC)


class Walk(RuleBasedStateMachine):
    """A launch that is told anything at all, and believes only what may follow."""

    def __init__(self) -> None:
        super().__init__()
        self.status = Status.REQUESTED
        self.path = [Status.REQUESTED]

    @rule(told=st.sampled_from(Status))
    def tell(self, told: Status) -> None:
        """Try any status; what is refused changes nothing."""
        try:
            check_transition(self.status, told)
        except Conflict:
            assert not may_follow(self.status, told)
            return
        self.status = told
        self.path.append(told)

    @rule()
    def repeat(self) -> None:
        """Seeing the same again is never wrong."""
        check_transition(self.status, self.status)

    @precondition(lambda self: self.status in ON_PLATFORM)
    @rule()
    def end(self) -> None:
        """Wherever a launch is on a platform, it can be ended."""
        check_transition(self.status, Status.ENDING)

    @invariant()
    def nothing_follows_the_end(self) -> None:
        """An end is final, and what may exist on a platform passed through being removed."""
        if Status.ENDED in self.path:
            since = self.path[self.path.index(Status.ENDED) :]
            assert set(since) == {Status.ENDED}
            if ON_PLATFORM & set(self.path):
                assert Status.ENDING in self.path

    @invariant()
    def nothing_is_ready_that_was_not_asked(self) -> None:
        """Only what says where it listens becomes ready, and only what was submitted runs."""
        if Status.READY in self.path:
            before = self.path[: self.path.index(Status.READY)]
            assert Status.CONNECTING in before or Status.SUSPENDED in before
        if len(set(self.path)) > 1:
            following = next(s for s in self.path if s is not Status.REQUESTED)
            assert following in (Status.SUBMITTED, Status.ENDED)

    @invariant()
    def nothing_that_ends_comes_back(self) -> None:
        """After ending there is only the end."""
        if Status.ENDING in self.path:
            assert set(self.path[self.path.index(Status.ENDING) :]) <= {
                Status.ENDING,
                Status.ENDED,
            }


TestWalk = Walk.TestCase


@pytest.mark.parametrize("status", Status)
def test_every_status_can_reach_the_end(status: Status) -> None:
    """From everywhere there is a way out, so no launch can be stuck by the table."""
    reached = {status}
    while new := {s for s in Status if any(may_follow(r, s) for r in reached)} - reached:
        reached |= new

    assert Status.ENDED in reached


@pytest.mark.parametrize("status", sorted(set(Status) - {Status.REQUESTED}))
def test_every_status_can_be_reached(status: Status) -> None:
    """No status is there in vain."""
    assert any(may_follow(other, status) for other in set(Status) - {status})


def test_a_clock_runs_in_every_status_that_waits_for_a_platform() -> None:
    """Nothing on its way can wait for ever unseen; in line, one waits for the others."""
    assert CLOCK_OF.keys() == WAITING - {Status.REQUESTED}
    assert set(CLOCK_OF.values()) == set(Clock)


@pytest.mark.parametrize(
    ("end", "text"),
    [
        (End(cause=Cause.USER), "user"),
        (End(cause=Cause.EXITED, code=1), "exited(1)"),
        (End(cause=Cause.EXITED, code=0), "exited(0)"),
        (End(cause=Cause.SIGNAL, code=9, detail="Killed"), "signal(9)"),
        (End(cause=Cause.NEVER_STARTED, reason="start-clock"), "never-started(start-clock)"),
    ],
)
def test_an_end_is_written_with_its_evidence(end: End, text: str) -> None:
    """The cause, and what is most telling of it, fit in one word."""
    assert str(end) == text


def test_a_launch_says_when_its_status_was_entered() -> None:
    """Each status has its own instant; where one is not known, the request's stands for it."""
    launch = Launch(
        id="lch_a",
        kind=Kind.SERVER,
        wanted=Wanted.RUN,
        status=Status.REQUESTED,
        name="pj-a-b",
        spawner="local",
        user_id=1,
        user_name="ann",
        server_id=1,
        server_name="",
        generation=1,
        spec={},
        requested_at=NOW,
        queued_at=NOW + timedelta(seconds=1),
        ended_at=NOW + timedelta(seconds=2),
    )

    assert launch.entered_at() == NOW
    assert replace(launch, status=Status.HELD).entered_at() == launch.queued_at
    assert replace(launch, status=Status.READY).entered_at() == NOW
    ended = replace(launch, status=Status.ENDED)
    assert ended.entered_at() == launch.ended_at
    assert launch.is_live
    assert not ended.is_live
