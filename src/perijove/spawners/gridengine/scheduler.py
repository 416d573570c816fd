"""
Grid Engine as the batch layer's scheduler: 8.1.9 (Son of Grid Engine), and its relatives.

Univa's and Altair's versions differ in what they add: milliseconds in times, ``deleted_by`` in
accounting, further letters in states. All of that is read here, or passed over.

What Grid Engine does not have, and so is never in an answer: estimated starts, and a record of a
job that was deleted while it waited (`ends`).
"""

import grp
import pwd
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from anyio import to_thread

from perijove.domain.errors import SpawnerRejected, SpawnerTransient
from perijove.domain.launch import End
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
    RunForForm,
    Site,
)
from perijove.spawners.batch.shared import Asked, Shared, renew
from perijove.spawners.gridengine import messages, submission
from perijove.spawners.gridengine.configuration import (
    OVERVIEW,
    Configuration,
    named_of,
    naming,
    read_configuration,
    read_overview,
)
from perijove.spawners.gridengine.ends import Ends
from perijove.spawners.gridengine.hosts import Host, read_hosts
from perijove.spawners.gridengine.offers import Person
from perijove.spawners.gridengine.queue import (
    Details,
    Entry,
    Listing,
    details_of,
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
        self._ends = Ends(self._complexes, self._clock)
        self._now = now
        free, structure = FREE_KEPT.total_seconds(), STRUCTURE_KEPT.total_seconds()
        self._listing = Shared[Listing](free, now)
        self._hosts = Shared[tuple[Host, ...]](free, now)
        self._configuration = Shared[Configuration](structure, now)
        self._details: Mapping[str, Details] = {}
        self._details_until = self._clock.now()

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

    def read_ids(self, result: Result, user_name: str) -> Sequence[str]:
        """Return the ids of a person's jobs that `listing_by_name` shows, oldest first."""
        return read_ids(result, user_name)

    # --- the queue ------------------------------------------------------------------------

    async def jobs(self, run: Run, prefix: str) -> Sequence[Job]:
        """Return our jobs: one call, and one or two more now and then for why they wait."""
        self._ends.prefix = prefix
        listing = await self._listing.get(lambda: self._list(run), since=self._now())
        entries = listing.value.named(prefix)
        queued = [entry for entry in entries if not entry.is_over]
        self._ends.remember(queued)
        gone, ending = await self._ends.settle(run, [entry for entry in entries if entry.is_over])
        await self._explain(run, [entry for entry in queued if entry.is_pending])
        return [
            *(self._job_of(entry) for entry in queued),
            *(replace(self._job_of(entry), is_over=True) for entry in ending),
            *gone,
        ]

    def _job_of(self, entry: Entry) -> Job:
        return job_of(entry, self._details.get(entry.id), self._clock.now())

    async def _list(self, run: Run) -> Listing:
        # With what is over (``z``): how it ended is not in the list, but that it did.
        command = ["qstat", "-u", "*", "-s", "prsz", "-r", "-xml"]
        return read_listing(await run(command), self._zone)

    async def _explain(self, run: Run, waiting: Sequence[Entry]) -> None:
        """Ask why jobs wait, unless it was lately; without an answer the old ones count on."""
        left = self._details_until - self._clock.now()
        if not waiting or timedelta(0) < left <= REASONS_KEPT:
            return
        self._details_until = self._clock.now() + REASONS_KEPT
        ids = [entry.id for entry in waiting[-_MOST_ASKED:]]
        try:
            details: Mapping[str, Details] = read_details(await run(details_of(ids)))
            if any("h" in entry.state for entry in waiting):
                details = await self._with_holds(run, details)
        except SpawnerTransient:
            return
        self._details = details

    async def _with_holds(self, run: Run, details: Mapping[str, Details]) -> Mapping[str, Details]:
        """Say which jobs their owner holds: only a filter of qstat tells."""
        answer = await run(["qstat", "-u", "*", "-s", "hu", "-xml"])
        own = {entry.id for entry in read_listing(answer, self._zone).named(self._ends.prefix)}
        return {
            job_id: replace(each, is_held_by_owner=job_id in own)
            for job_id, each in details.items()
        }

    async def addresses(self, run: Run, nodes: Sequence[str]) -> Mapping[str, str]:
        """Return nothing: Grid Engine itself reaches a node by the name that it shows."""
        return {}

    # --- how jobs ended -------------------------------------------------------------------

    async def ends(self, run: Run, job_ids: Sequence[str]) -> Mapping[str, End]:
        """Return the end of each of these jobs that is over, see `Ends.find`."""
        return await self._ends.find(run, job_ids)

    async def find_record(self, run: Run, job_id: str) -> End | None:
        """Return the end of a job as ``qacct`` tells it."""
        return await self._ends.find_record(run, job_id)

    # --- what there is --------------------------------------------------------------------

    async def discover(
        self, run: Run, run_as: RunAs, user_name: str, *, for_form: RunForForm | None = None
    ) -> Offer:
        """
        Return what there is for this person.

        Everything is asked for as the hub's account, once for everybody: free resources each
        `FREE_KEPT`, the cell's configuration each `STRUCTURE_KEPT`.
        """
        form = for_form or RunForForm(run)
        read_hosts = partial(self._read_hosts, form.run)
        # Surveys wait for the list, too: it is asked for where they ask.
        first: list[Asked] = [(self._hosts, read_hosts), (self._listing, partial(self._list, run))]
        await renew(first, form.has_turn)
        hosts = self._hosts.known
        read_configuration = partial(self._read_configuration, form.run, hosts.value)
        await renew([(self._configuration, read_configuration)], form.has_turn)
        group = await to_thread.run_sync(_primary_group, user_name)
        own = [
            entry
            for entry in self._listing.known.value.of_user(user_name)
            if not (self._ends.prefix and entry.name.startswith(self._ends.prefix))
        ]
        person = Person(self._configuration.known.value, self._complexes, user_name, group)
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
            command = self._verification(request)
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
                command = self._verification(replace(request, resources=less))
                if (await run_as(user_name, [command]))[0].status == 0:
                    return replace(objection, field=field)
        return replace(objection, field="cpu")

    def _verification(self, request: JobRequest) -> Command:
        """Return a ``qsub`` that submits nothing: its ``-w`` comes after all that is the site's."""
        asked = submission.requests(request, self._complexes)
        return ["qsub", *asked, "-w", "v", "-b", "y", "/bin/true"]


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
