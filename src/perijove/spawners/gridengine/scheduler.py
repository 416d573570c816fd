"""
Grid Engine as the batch layer's scheduler: 8.1.9 (Son of Grid Engine), and its relatives.

Univa's and Altair's versions differ in what they add: milliseconds in times, ``deleted_by`` in
accounting, further letters in states. All of that is read here, or passed over.

What Grid Engine does not have, and so is never in an answer: estimated starts, ended jobs in the
queue's list, and any record of a job that was deleted while it waited.
"""

import grp
import pwd
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from anyio import to_thread

from perijove.domain.errors import SpawnerRejected, SpawnerTransient
from perijove.domain.launch import Cause, End
from perijove.domain.offer import Objection, Offer
from perijove.kit.clock import Clock, SystemClock, monotonic
from perijove.spawners.batch.scheduler import (
    SCRIPT,
    Command,
    Job,
    JobRequest,
    Result,
    Run,
    RunAs,
    Site,
)
from perijove.spawners.batch.shared import Shared
from perijove.spawners.gridengine import messages, submission
from perijove.spawners.gridengine.accounting import Record, end_of, read_records_of
from perijove.spawners.gridengine.configuration import (
    OVERVIEW,
    Configuration,
    named_of,
    naming,
    read_configuration,
    read_overview,
)
from perijove.spawners.gridengine.hosts import Host, read_hosts
from perijove.spawners.gridengine.offers import Person
from perijove.spawners.gridengine.queue import (
    Details,
    Entry,
    Listing,
    job_of,
    read_details,
    read_ids,
    read_listing,
)
from perijove.spawners.gridengine.submission import Complexes
from perijove.spawners.gridengine.values import first_line

FREE_KEPT: Final = timedelta(seconds=60)
STRUCTURE_KEPT: Final = timedelta(minutes=5)
REASONS_KEPT: Final = timedelta(seconds=30)
"""How often at most it is asked why jobs wait: a second call, for all of them at once."""
_MOST_ASKED: Final = 1000
"""How many jobs are asked about in one call; what each says is 5 KB long."""
ACCOUNTING_LAG: Final = timedelta(seconds=90)
"""After it, what left the queue and is in no accounting never ran (``flush_time`` is 15 s)."""
_DAYS: Final = "31"
"""How far back accounting is read for several jobs at once, by their start."""
_ALONE: Final = 4
"""How many jobs are looked for one by one: each reads the whole accounting file."""
_REMEMBERED: Final = 10_000


class GridEngineScheduler:
    """
    One cell of Grid Engine. Its commands are plain names, found by the site's search path.

    Memory and GPUs are asked for by complexes. Where these are counted for each slot
    (``consumable YES``) what is asked for is divided among the slots, see `submission`;
    `per_job` names those that are counted for the job (``consumable JOB``). A request that no
    empty cluster could run is refused when it is made (``-w e``). `requested`: further complexes
    that the site's own arguments ask for; a queue with a forced one is offered only then.
    """

    def __init__(
        self,
        site: Site,
        *,
        parallel_environment: str | None,
        memory_complex: str,
        gpu_complex: str | None,
        per_job: Collection[str] = (),
        requested: Collection[str] = (),
        clock: Clock | None = None,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._complexes = Complexes(
            memory=memory_complex,
            gpu=gpu_complex,
            parallel_environment=parallel_environment,
            memory_per_slot=memory_complex not in per_job,
            gpu_per_slot=gpu_complex not in per_job,
            others=frozenset(requested),
        )
        self._clock = clock or SystemClock()
        self._zone = _zone(site.environment.get("TZ", ""))
        self._prefix = ""
        self._now = now
        free, structure = FREE_KEPT.total_seconds(), STRUCTURE_KEPT.total_seconds()
        self._listing = Shared[Listing](free, now)
        self._hosts = Shared[tuple[Host, ...]](free, now)
        self._configuration = Shared[Configuration](structure, now)
        self._details: Mapping[str, Details] = {}
        self._details_until = self._clock.now()
        self._seen: dict[str, Entry] = {}
        self._missing_since: dict[str, datetime] = {}

    # --- submit and cancel ----------------------------------------------------------------

    def submission(self, request: JobRequest) -> Command:
        """Return the command that submits `SCRIPT`, see `Scheduler`."""
        return [
            "qsub",
            "-terse",
            *submission.job_arguments(request),
            "-w",
            "e",
            *submission.requests(request, self._complexes),
            SCRIPT,
        ]

    def read_submission(self, result: Result) -> str:
        """Return the job's id, see `Scheduler`."""
        return submission.read_id(result)

    def cancellation(self, job_id: str) -> Command:
        """Return the command that cancels a job; the node's notice comes before the kill."""
        return ["qdel", submission.check_id(job_id)]

    def release(self, job_id: str) -> Command:
        """Return the command that releases a job; holds that are not its owner's stay."""
        return ["qrls", submission.check_id(job_id)]

    def listing_by_name(self, name: str) -> Command:
        """Return the command that shows the jobs of this name; ended ones are not among them."""
        return ["qstat", "-xml", "-j", submission.check_name(name)]

    def read_ids(self, result: Result) -> Sequence[str]:
        """Return the ids that `listing_by_name` shows, oldest first."""
        return read_ids(result)

    # --- the queue ------------------------------------------------------------------------

    async def jobs(self, run: Run, prefix: str) -> Sequence[Job]:
        """Return our jobs: one call, and one or two more now and then for why they wait."""
        self._prefix = prefix
        listing = await self._listing.get(lambda: self._list(run), since=self._now())
        entries = listing.value.named(prefix)
        self._remember(entries)
        await self._explain(run, [entry for entry in entries if entry.is_pending])
        now = self._clock.now()
        return [job_of(entry, self._details.get(entry.id), now) for entry in entries]

    async def _list(self, run: Run) -> Listing:
        return read_listing(await run(["qstat", "-u", "*", "-r", "-xml"]), self._zone)

    def _remember(self, entries: Sequence[Entry]) -> None:
        """Keep how each job was seen last: accounting does not say who deleted it."""
        for entry in entries:
            self._seen.pop(entry.id, None)
            self._seen[entry.id] = entry
        for job_id in list(self._seen)[: max(0, len(self._seen) - _REMEMBERED)]:
            del self._seen[job_id]

    async def _explain(self, run: Run, waiting: Sequence[Entry]) -> None:
        """Ask why jobs wait, unless it was lately; without an answer the old ones count on."""
        left = self._details_until - self._clock.now()
        if not waiting or timedelta(0) < left <= REASONS_KEPT:
            return
        self._details_until = self._clock.now() + REASONS_KEPT
        ids = [entry.id for entry in waiting[-_MOST_ASKED:]]
        try:
            details: Mapping[str, Details] = read_details(await run(self._details_of(ids)))
            if any("h" in entry.state for entry in waiting):
                details = await self._with_holds(run, details)
        except SpawnerTransient:
            return
        self._details = details

    def _details_of(self, job_ids: Sequence[str]) -> Command:
        return ["qstat", "-xml", "-j", ",".join(job_ids)]

    async def _with_holds(self, run: Run, details: Mapping[str, Details]) -> Mapping[str, Details]:
        """Say which jobs their owner holds: only a filter of qstat tells."""
        answer = await run(["qstat", "-u", "*", "-s", "hu", "-xml"])
        own = {entry.id for entry in read_listing(answer, self._zone).named(self._prefix)}
        return {
            job_id: replace(each, is_held_by_owner=job_id in own)
            for job_id, each in details.items()
        }

    async def addresses(self, run: Run, nodes: Sequence[str]) -> Mapping[str, str]:
        """Return nothing: Grid Engine itself reaches a node by the name that it shows."""
        return {}

    # --- how jobs ended -------------------------------------------------------------------

    async def ends(self, run: Run, job_ids: Sequence[str]) -> Mapping[str, End]:
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
        overdue = [job_id for job_id in over if job_id not in records and self._is_overdue(job_id)]
        for job_id in overdue[:_ALONE]:
            records |= await self._record(run, job_id)
        ends = {job_id: self._end(records[job_id]) for job_id in over if job_id in records}
        ends |= {i: self._end_without_record(i) for i in overdue[:_ALONE] if i not in records}
        for job_id in ends:
            self._missing_since.pop(job_id, None)
        return ends

    async def _records(self, run: Run, job_ids: Sequence[str]) -> dict[str, Record]:
        """Return what accounting has of these jobs: all of ours are read when there are several."""
        if len(job_ids) > 1 and self._prefix:
            command = ["qacct", "-d", _DAYS, "-j", f"{self._prefix}*"]
            found = read_records_of(await run(command))
            return {job_id: found[job_id] for job_id in job_ids if job_id in found}
        records: dict[str, Record] = {}
        for job_id in job_ids[:_ALONE]:
            records |= await self._record(run, job_id)
        return records

    async def _record(self, run: Run, job_id: str) -> dict[str, Record]:
        return read_records_of(await run(["qacct", "-j", job_id]))

    async def _queued(self, run: Run, job_ids: Sequence[str]) -> Collection[str]:
        """Return those of `job_ids` that are in the queue, for certain."""
        if not job_ids:
            return ()
        return read_details(await run(self._details_of(job_ids))).keys()

    def _is_overdue(self, job_id: str) -> bool:
        now = self._clock.now()
        return now - self._missing_since.setdefault(job_id, now) >= ACCOUNTING_LAG

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

    # --- what there is --------------------------------------------------------------------

    async def discover(self, run: Run, run_as: RunAs, user_name: str) -> Offer:
        """
        Return what there is for this person.

        Everything is asked for as the hub's account, once for everybody: free resources each
        `FREE_KEPT`, the cell's configuration each `STRUCTURE_KEPT`.
        """
        hosts = await self._hosts.get(lambda: self._read_hosts(run))
        configuration = await self._configuration.get(
            lambda: self._read_configuration(run, hosts.value)
        )
        listing = await self._listing.get(lambda: self._list(run))
        group = await to_thread.run_sync(_primary_group, user_name)
        own = [
            entry
            for entry in listing.value.of_user(user_name)
            if not (self._prefix and entry.name.startswith(self._prefix))
        ]
        person = Person(configuration.value, self._complexes, user_name, group)
        return person.offer(hosts.value, own, hosts.as_of)

    async def _read_hosts(self, run: Run) -> tuple[Host, ...]:
        counted = ["slots", self._complexes.memory, *filter(None, [self._complexes.gpu])]
        return read_hosts(await run(["qhost", "-q", "-F", ",".join(counted), "-xml"]))

    async def _read_configuration(self, run: Run, hosts: Sequence[Host]) -> Configuration:
        overview = read_overview(await run(["qconf", *OVERVIEW]))
        if not (questions := naming(overview, [host.name for host in hosts])):
            return read_configuration(overview, "")
        named = named_of(await run(["qconf", *questions]))
        return read_configuration(overview, named)

    # --- verification ---------------------------------------------------------------------

    async def dry_run(
        self, run_as: RunAs, user_name: str, request: JobRequest
    ) -> Sequence[Objection]:
        """Return what stands against a request even on an empty cluster (``-w v``)."""
        try:
            command = self._verification(request, "v")
        except SpawnerRejected as error:
            field = str(error.params.get("field", ""))
            return [Objection(field=field, code=error.code, words=str(error))]
        result = (await run_as(user_name, [command]))[0]
        report = f"{result.stdout}\n{result.stderr}"
        if result.status == 0:
            return ()
        if messages.is_away(report):
            raise SpawnerTransient(f"qsub could not ask: {first_line(result.stderr)}")
        found = messages.verdict(report, self._complexes.fields())
        if found:
            return [await self._with_culprit(run_as, user_name, request, each) for each in found]
        code, field = messages.refusal(report)
        return [Objection(field=field, code=code, words=submission.plain(report.strip()))]

    async def _with_culprit(
        self, run_as: RunAs, user_name: str, request: JobRequest, objection: Objection
    ) -> Objection:
        """Find out what is too much where Grid Engine only says that there are too few slots."""
        if objection.field or objection.code != "over-size-limit":
            return objection
        asked = request.resources
        for field, less in (
            ("memory", replace(asked, memory_bytes=None)),
            ("gpu", replace(asked, gpu=None)),
        ):
            if less != asked:
                command = self._verification(replace(request, resources=less), "v")
                if (await run_as(user_name, [command]))[0].status == 0:
                    return replace(objection, field=field)
        return replace(objection, field="cpu")

    async def fits_now(self, run_as: RunAs, user_name: str, request: JobRequest) -> bool:
        """Tell whether a request could start at this moment (``-w p``); for a hint, no promise."""
        result = (await run_as(user_name, [self._verification(request, "p")]))[0]
        if messages.is_away(result.stderr):
            raise SpawnerTransient(f"qsub could not ask: {first_line(result.stderr)}")
        return result.status == 0

    def _verification(self, request: JobRequest, level: str) -> Command:
        """Return a ``qsub`` that submits nothing: its ``-w`` comes after all that is the site's."""
        asked = submission.requests(request, self._complexes)
        return ["qsub", *asked, "-w", level, "-b", "y", "/bin/true"]


def _zone(name: str) -> ZoneInfo | None:
    """Return the time zone that the commands are told; None: this machine's."""
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError):
        return None


def _primary_group(user_name: str) -> str:
    """Return the group by which access lists know a person; empty for a stranger."""
    try:
        return grp.getgrgid(pwd.getpwnam(user_name).pw_gid).gr_name
    except KeyError:
        return ""
