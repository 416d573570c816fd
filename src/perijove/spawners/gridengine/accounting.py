"""
Reading ``qacct``: how jobs ended.

The accounting file is read from its beginning by every call, and a job that was deleted while
it waited is never in it; what is concluded from that is in `ends`.
"""

import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from perijove.domain.errors import SpawnerTransient
from perijove.domain.launch import Cause, End
from perijove.spawners.batch.exits import end_of_status
from perijove.spawners.batch.scheduler import Result
from perijove.spawners.gridengine.values import (
    amounts,
    first_line,
    is_nothing,
    read_count,
    read_duration,
    read_memory,
    read_records,
)

_NO_DIRECTORY: Final = frozenset({26, 28})
"""``failed``: could not open the output file, or change to the job's directory."""
_NEVER_STARTED: Final = frozenset({*range(1, 12), *range(26, 30), *range(31, 37), 38})
"""``failed``: something was wrong before the script began (sge_status(5))."""
_NODE_FAILED: Final = frozenset({18, 19, 21})
"""``failed``: what was to look after the job on its node is gone."""
_TO_RUN_AGAIN: Final = frozenset({24, 25, 30})
_LIMIT: Final = 37
"""``failed``: qmaster enforced h_rt, h_cpu, or h_vmem limit."""
_KILLED: Final = 128
_DELETED: Final = _KILLED + signal.SIGUSR2
"""
``-notify`` says with this signal that a job will be deleted: who dies of it, or heeds it as our
wrapper does, ends so.
"""
_FULL: Final = 0.95
"""Of its memory: a job killed with this much in use was killed for it."""
_NOT_FOUND = re.compile(r"not found|no jobs running|no accounting", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One run of one job; a job in error or begun anew has several."""

    job_id: str
    name: str
    failed: int
    failure: str
    """Its words."""
    exit_status: int
    seconds: int
    slots: int
    limits: Mapping[str, str]
    peak_bytes: int
    """The most that one of its processes held (``ru_maxrss``)."""
    deleted_by: str
    """Who deleted it, where the version says (Univa's and Altair's)."""

    @property
    def is_final(self) -> bool:
        """False: the job may be in the queue again, in error (``Eqw``) or waiting (``Rq``)."""
        return self.failed not in _NEVER_STARTED | _TO_RUN_AGAIN


def read_records_of(result: Result) -> dict[str, Record]:
    """Return the last record of each job; raises `SpawnerTransient` when it cannot be read."""
    if result.status != 0:
        if _NOT_FOUND.search(result.stderr):
            return {}
        raise SpawnerTransient(f"qacct: {first_line(result.stderr)}")
    found = (_record(table) for table in read_records(result.stdout, "qname"))
    return {record.job_id: record for record in found if record is not None}


def _record(table: Mapping[str, str]) -> Record | None:
    failed, _, failure = table.get("failed", "").partition(":")
    job_id, exit_status = table.get("jobnumber", ""), _number(table.get("exit_status", ""))
    if not job_id or exit_status is None:
        return None
    deleted_by = table.get("deleted_by", "")
    return Record(
        job_id=job_id,
        name=table.get("jobname", ""),
        failed=_number(failed) or 0,
        failure=failure.strip(),
        exit_status=exit_status,
        seconds=read_duration(table.get("ru_wallclock", "")) or 0,
        slots=read_count(table.get("slots", "")) or 1,
        limits=_limits(table.get("category", "")),
        peak_bytes=_peak_bytes(table.get("ru_maxrss", "")),
        deleted_by="" if is_nothing(deleted_by) else deleted_by,
    )


def _number(text: str) -> int | None:
    match = re.match(r"\s*(\d{1,9})", text, re.ASCII)
    return int(match[1]) if match else None


def _limits(category: str) -> dict[str, str]:
    """Return what ``-l h_rt=10,rmem=1G -pe smp 2`` asks for."""
    found: dict[str, str] = {}
    for part in re.findall(r"-l (\S+)", category):
        found |= amounts(part)
    return found


def _peak_bytes(text: str) -> int:
    """Return ``ru_maxrss``, which 8.1.9 prints in the wrong unit: its KB are MB."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG]?)B?", text.strip(), re.ASCII)
    if match is None:
        return 0
    kilobytes = float(match[1]) * {"": 1 / 1000, "K": 1, "M": 1000, "G": 1000**2}[match[2]]
    return int(kilobytes * 1000 * 1024)


def end_of(record: Record, *, memory: str, memory_per_slot: bool, was_being_deleted: bool) -> End:
    """
    Return how a job ended.

    `was_being_deleted`: the queue showed it so. Without that, a name in accounting or the status
    of a job that heard the notice, nobody can say: deleted jobs that had to be killed and jobs
    that were killed on their node have the same record (``failed 100``, 137), and are told as
    killed.
    """
    detail = f"failed {record.failed}: {record.failure}" if record.failed else ""
    if record.failed in _NEVER_STARTED:
        reason = "home-missing" if record.failed in _NO_DIRECTORY else "job-error"
        return End(cause=Cause.NEVER_STARTED, reason=reason, detail=detail)
    # The queue shows what is over its limit as being deleted, too.
    if record.failed == _LIMIT:
        return End(cause=_exceeded(record), detail=detail)
    if record.failed in _NODE_FAILED:
        return End(cause=Cause.NODE_FAIL, detail=detail)
    if record.deleted_by or was_being_deleted or record.exit_status == _DELETED:
        by = f"deleted by {record.deleted_by}" if record.deleted_by else detail
        return End(cause=Cause.CANCELLED_OUTSIDE, detail=by)
    return _end_by_status(record, memory, memory_per_slot, detail)


def _end_by_status(record: Record, memory: str, memory_per_slot: bool, detail: str) -> End:
    if record.exit_status <= _KILLED:
        return end_of_status(record.exit_status, detail)
    if record.exit_status == _KILLED + 9 and _is_full(record, memory, memory_per_slot):
        return End(cause=Cause.OUT_OF_MEMORY, detail=_memory_words(record, memory))
    return End(cause=Cause.SIGNAL, code=record.exit_status - _KILLED, detail=detail)


def _exceeded(record: Record) -> Cause:
    """Return which of three limits was enforced, which Grid Engine names in one sentence."""
    longest = read_duration(record.limits.get("h_rt", ""))
    # Without one of its own it was the queue's.
    if longest is None or record.seconds >= longest:
        return Cause.WALLTIME
    return Cause.OUT_OF_MEMORY if "h_vmem" in record.limits else Cause.UNKNOWN


def _is_full(record: Record, memory: str, memory_per_slot: bool) -> bool:
    size_bytes = read_memory(record.limits.get(memory, ""))
    if not size_bytes:
        return False
    return record.peak_bytes >= _FULL * size_bytes * (record.slots if memory_per_slot else 1)


def _memory_words(record: Record, memory: str) -> str:
    return f"killed with {record.peak_bytes >> 20} MiB in use; {memory}={record.limits[memory]}"
