"""
How jobs ended, which a cell tells late, and of some jobs never.

Accounting is the witness. It is written some seconds after an end, by one flush of the qmaster
for many jobs, and has no record of a job that was deleted while it waited. That one is over all
the same, the qmaster says at once (``z``, of its last hundred jobs; `Ends.settle`).
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from perijove.domain.errors import SpawnerTransient
from perijove.domain.launch import Cause, End
from perijove.kit.clock import Clock
from perijove.spawners.batch.scheduler import Job, Run
from perijove.spawners.contract import Phase
from perijove.spawners.gridengine.accounting import Record, end_of, read_records_of
from perijove.spawners.gridengine.queue import Entry, details_of, read_details
from perijove.spawners.gridengine.submission import Complexes

FLUSHED: Final = timedelta(seconds=20)
"""After it, what the qmaster says is over and is in no accounting never ran (``flush_time``)."""
ASKED_AGAIN: Final = timedelta(seconds=10)
"""How often at most it is asked for these: who waits for the queue's answer waits for that, too."""
ACCOUNTING_LAG: Final = timedelta(seconds=90)
"""As `FLUSHED`, of what is only missing in the queue."""
_DAYS: Final = "31"
"""How far back accounting is read for several jobs at once, by their start."""
_ALONE: Final = 4
"""How many jobs are looked for one by one: each reads the whole accounting file."""
_REMEMBERED: Final = 10_000


class Ends:
    """What is known of the ends of one cell's jobs whose names begin with `prefix`."""

    def __init__(self, complexes: Complexes, clock: Clock) -> None:
        self.prefix = ""
        self._complexes = complexes
        self._clock = clock
        self._seen: dict[str, Entry] = {}
        self._missing_since: dict[str, datetime] = {}
        self._settled: Mapping[str, End | None] = {}
        self._ask_at = clock.now()

    def remember(self, queued: Sequence[Entry]) -> None:
        """Keep how each job was seen last: accounting does not say who deleted it."""
        for entry in queued:
            self._seen.pop(entry.id, None)
            self._seen[entry.id] = entry
            self._missing_since.pop(entry.id, None)
        for kept in (self._seen, self._missing_since):
            for job_id in list(kept)[: max(0, len(kept) - _REMEMBERED)]:
                del kept[job_id]

    # --- what the qmaster says is over ----------------------------------------------------

    async def settle(self, run: Run, over: Sequence[Entry]) -> tuple[list[Job], list[Entry]]:
        """
        Return the jobs that are gone, and how others were seen last: their ends come later.

        Those of which nothing will be known are in neither, as if the list did not have them; nor
        are, until accounting has them, those that this process has not seen before.
        """
        known = {entry.id: self._settled[entry.id] for entry in over if entry.id in self._settled}
        doubtful = [entry.id for entry in over if entry.id not in known]
        if doubtful and self._clock.now() >= self._ask_at:
            known |= await self._find(run, doubtful)
            self._ask_at = self._clock.now() + ASKED_AGAIN
        self._settled = known
        for job_id in known:
            self._missing_since.pop(job_id, None)
        ends = [(entry, known.get(entry.id)) for entry in over]
        gone = [_gone(entry, end) for entry, end in ends if end is not None]
        ending = [self._seen[i] for i in doubtful if i not in known and i in self._seen]
        return gone, ending

    async def _find(self, run: Run, job_ids: Sequence[str]) -> dict[str, End | None]:
        """Return what can be said now of jobs that are over; None: nothing, now and later."""
        overdue = [job_id for job_id in job_ids if self._is_overdue(job_id, FLUSHED)]
        found: dict[str, End | None] = dict.fromkeys(overdue)
        try:
            records = await self._records(run, job_ids)
        except SpawnerTransient:
            return found
        found |= {i: self._end_without_record(i) for i in overdue if i in self._seen}
        return found | {job_id: self._end(record) for job_id, record in records.items()}

    # --- what is missing in the queue -----------------------------------------------------

    async def find(self, run: Run, job_ids: Sequence[str]) -> Mapping[str, End]:
        """
        Return the end of each of these jobs that is over.

        A job that left the queue and that accounting still does not know after `ACCOUNTING_LAG`
        was deleted while it waited, if that is how it was seen last. Nothing else is known of
        such jobs: whether it was us who cancelled it, our own marks say.
        """
        wanted = [job_id for job_id in job_ids if job_id.isdecimal()]
        records = await self._records(run, wanted)
        doubtful = [i for i in wanted if i not in records or not records[i].is_final]
        queued = await self._queued(run, doubtful)
        over = [job_id for job_id in wanted if job_id not in queued]
        for job_id in queued:
            self._missing_since.pop(job_id, None)
        overdue = [
            job_id
            for job_id in over
            if job_id not in records and self._is_overdue(job_id, ACCOUNTING_LAG)
        ]
        for job_id in overdue[:_ALONE]:
            records |= await self._record(run, job_id)
        ends = {job_id: self._end(records[job_id]) for job_id in over if job_id in records}
        ends |= {i: self._end_without_record(i) for i in overdue[:_ALONE] if i not in records}
        for job_id in ends:
            self._missing_since.pop(job_id, None)
        return ends

    async def find_record(self, run: Run, job_id: str) -> End | None:
        """Return the end of a job that accounting has; None while it has none."""
        record = (await self._record(run, job_id)).get(job_id)
        return self._end(record) if record is not None and record.is_final else None

    async def _queued(self, run: Run, job_ids: Sequence[str]) -> Collection[str]:
        """Return those of `job_ids` that are in the queue, for certain."""
        if not job_ids:
            return ()
        return read_details(await run(details_of(job_ids))).keys()

    def _is_overdue(self, job_id: str, lag: timedelta) -> bool:
        now = self._clock.now()
        return now - self._missing_since.setdefault(job_id, now) >= lag

    # --- accounting -----------------------------------------------------------------------

    async def _records(self, run: Run, job_ids: Sequence[str]) -> dict[str, Record]:
        """Return what accounting has of these jobs: all of ours are read when there are several."""
        if len(job_ids) > 1 and self.prefix:
            command = ["qacct", "-d", _DAYS, "-j", f"{self.prefix}*"]
            found = read_records_of(await run(command))
            return {job_id: found[job_id] for job_id in job_ids if job_id in found}
        records: dict[str, Record] = {}
        for job_id in job_ids[:_ALONE]:
            records |= await self._record(run, job_id)
        return records

    async def _record(self, run: Run, job_id: str) -> dict[str, Record]:
        """Return the job's own record: ids begin anew, and accounting keeps those of years."""
        found = read_records_of(await run(["qacct", "-j", job_id]))
        return {each.job_id: each for each in found.values() if each.name.startswith(self.prefix)}

    def _end(self, record: Record) -> End:
        seen = self._seen.get(record.job_id)
        return end_of(
            record,
            memory=self._complexes.memory,
            memory_per_slot=self._complexes.memory_per_slot,
            was_being_deleted=seen is not None and seen.is_being_deleted,
        )

    def _end_without_record(self, job_id: str) -> End:
        seen = self._seen.get(job_id)
        if seen is not None and seen.is_pending:
            return End(cause=Cause.CANCELLED_OUTSIDE, detail="left the queue without having run")
        return End(
            cause=Cause.UNKNOWN, reason="absent", detail="neither in the queue nor in accounting"
        )


def _gone(entry: Entry, end: End) -> Job:
    return Job(
        id=entry.id,
        name=entry.name,
        user=entry.user,
        phase=Phase.GONE,
        submitted_at=entry.submitted_at,
        end=end,
    )
