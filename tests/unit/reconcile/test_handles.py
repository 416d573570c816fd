"""By which handles a launch is stopped."""

from collections.abc import Sequence

import pytest

from perijove.reconcile.steps import to_stop
from perijove.spawners.contract import Handle

USER: Handle = {"user": "ann"}
JOB: Handle = {"user": "ann", "job_id": "7", "where": ["a", "b"]}
OTHER: Handle = {"user": "ann", "job_id": "8"}


@pytest.mark.parametrize(
    ("handles", "stopped"),
    [
        ([], []),
        ([USER], [USER]),
        ([USER, JOB], [JOB]),
        ([JOB, USER], [JOB]),
        ([USER, JOB, OTHER], [JOB, OTHER]),
        ([OTHER, {"user": "bob"}], [OTHER, {"user": "bob"}]),
    ],
)
def test_what_another_completes_is_not_stopped_on_its_own(
    handles: Sequence[Handle], stopped: Sequence[Handle]
) -> None:
    """A batch launch has a handle before its submission and a fuller one after: one stop."""
    assert to_stop(handles) == stopped
