"""Why a server is ended for lack of use or for its age: the rules as a table."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from perijove.domain.launch import Cause, Launch, Status, Wanted
from perijove.reconcile.cull import idle_limit, idle_since, overdue_cause
from tests.unit.reconcile.things import NOW, launch

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
PERIOD = 5 * MINUTE
LIMITS = {"limits": {"idle_seconds": 3600, "max_age_seconds": 10 * 3600}}


def ready(**values: Any) -> Launch:
    """Return a launch that is ready since `NOW` and has limits."""
    return replace(launch(Status.READY, ready_at=NOW, spec=LIMITS), **values)


@pytest.mark.parametrize(
    ("values", "after", "cause"),
    [
        ({}, HOUR - MINUTE, None),
        ({}, HOUR, Cause.IDLE),
        ({"last_activity": NOW + MINUTE}, HOUR, None),
        ({"last_activity": NOW + MINUTE}, HOUR + MINUTE, Cause.IDLE),
        ({"last_activity": NOW - HOUR}, HOUR - MINUTE, None),
        ({"last_activity": NOW + 9.5 * HOUR}, 10 * HOUR - MINUTE, None),
        ({"last_activity": NOW + 9.5 * HOUR}, 10 * HOUR, Cause.MAX_AGE),
        ({}, 20 * HOUR, Cause.MAX_AGE),
        ({"spec": {}}, 1000 * HOUR, None),
        ({"spec": {"limits": {"idle_seconds": None}}}, 1000 * HOUR, None),
        ({"spec": {"limits": {"idle_seconds": 1}}}, PERIOD - MINUTE, None),
        ({"spec": {"limits": {"idle_seconds": 1}}}, PERIOD, Cause.IDLE),
        ({"wanted": Wanted.END}, 20 * HOUR, None),
        ({"unknown_since": NOW + HOUR}, 20 * HOUR, None),
    ],
)
def test_what_is_overdue(values: dict[str, Any], after: timedelta, cause: Cause | None) -> None:
    """Not used for its limit, or too old; never what is doubted or ends anyway."""
    found = overdue_cause(
        ready(**values), now=NOW + after, heard_since=NOW - HOUR, reporting_period=PERIOD
    )

    assert found is cause


@pytest.mark.parametrize("status", sorted(set(Status) - {Status.READY}))
def test_only_what_is_ready_is_culled(status: Status) -> None:
    """What is on its way has clocks of its own, and what is suspended cannot be used."""
    found = overdue_cause(
        ready(status=status), now=NOW + 100 * HOUR, heard_since=NOW, reporting_period=PERIOD
    )

    assert found is None


@pytest.mark.parametrize(
    ("heard_for", "cause"),
    [
        (timedelta(0), None),
        (2 * PERIOD - MINUTE, None),
        (2 * PERIOD, Cause.MAX_AGE),
    ],
)
def test_nobody_is_culled_for_what_a_hub_could_not_hear(
    heard_for: timedelta, cause: Cause | None
) -> None:
    """After the hub's own absence every server has two reporting periods to be heard again."""
    now = NOW + 100 * HOUR
    found = overdue_cause(ready(), now=now, heard_since=now - heard_for, reporting_period=PERIOD)

    assert found is cause


def test_use_before_it_was_ready_is_no_use() -> None:
    """Idle time begins when a person could begin."""
    assert idle_since(ready(last_activity=NOW - HOUR)) == NOW
    assert idle_since(ready(last_activity=NOW + HOUR)) == NOW + HOUR
    assert idle_since(ready(last_activity=None)) == NOW


def test_a_limit_below_the_reporting_period_is_raised_to_it() -> None:
    """Who reports every five minutes cannot be judged every minute."""
    short = ready(spec={"limits": {"idle_seconds": 60}})

    assert idle_limit(short, PERIOD) == PERIOD
    assert idle_limit(ready(), PERIOD) == HOUR
    assert idle_limit(ready(spec={}), PERIOD) is None
