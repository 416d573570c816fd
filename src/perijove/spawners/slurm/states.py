"""Slurm's states: which mean that a job waits, runs or is over, and how it ended."""

from collections.abc import Mapping
from typing import Final

from perijove.domain.launch import Cause, End
from perijove.spawners.batch.exits import end_of_status
from perijove.spawners.contract import Phase
from perijove.spawners.slurm.values import optional

PHASES: Final[Mapping[str, Phase]] = {
    "PENDING": Phase.PENDING,
    "REQUEUED": Phase.PENDING,
    "REQUEUE_FED": Phase.PENDING,
    # Its nodes boot or are prepared, which takes minutes where they are powered down: the
    # script does not run yet, and must not be late.
    "CONFIGURING": Phase.PENDING,
    "POWER_UP_NODE": Phase.PENDING,
    "REQUEUE_HOLD": Phase.HELD,
    "RESV_DEL_HOLD": Phase.HELD,
    "SPECIAL_EXIT": Phase.HELD,
    "RUNNING": Phase.RUNNING,
    "COMPLETING": Phase.RUNNING,  # Its processes are still being ended.
    "RESIZING": Phase.RUNNING,
    "SIGNALING": Phase.RUNNING,
    "STAGE_OUT": Phase.RUNNING,
    "SUSPENDED": Phase.SUSPENDED,
    "STOPPED": Phase.SUSPENDED,
}
"""What is not over."""

_CAUSES: Final[Mapping[str, Cause | None]] = {
    "BOOT_FAIL": Cause.NODE_FAIL,
    "CANCELLED": Cause.CANCELLED_OUTSIDE,
    "COMPLETED": None,
    "DEADLINE": Cause.WALLTIME,
    "FAILED": None,
    "LAUNCH_FAILED": Cause.NODE_FAIL,
    "NODE_FAIL": Cause.NODE_FAIL,
    "OUT_OF_MEMORY": Cause.OUT_OF_MEMORY,
    "PREEMPTED": Cause.PREEMPTED,
    "RECONFIG_FAIL": Cause.NODE_FAIL,
    "REVOKED": Cause.CANCELLED_OUTSIDE,
    "TIMEOUT": Cause.WALLTIME,
}
"""What is over, and why; None: the exit code tells."""


def find_end(state: str, exit_status: int, signal: int, reason: str = "") -> End | None:
    """
    Return how a job in `state` ended; None unless it is over.

    `state` may carry a remark, as accounting's ``CANCELLED by 1001``.
    """
    name = state.partition(" ")[0].rstrip("+")
    if name not in _CAUSES:
        return None
    remark = optional(reason)
    detail = f"{state} ({remark})" if remark else state
    cause = _CAUSES[name]
    if cause is not None:
        return End(cause=cause, detail=detail)
    if signal:
        return End(cause=Cause.SIGNAL, code=signal, detail=detail)
    if name == "FAILED" and not exit_status:
        cause = Cause.NODE_FAIL if remark == "JobLaunchFailure" else Cause.UNKNOWN
        return End(cause=cause, detail=detail)
    return end_of_status(exit_status, detail)
