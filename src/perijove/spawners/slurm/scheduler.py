"""Slurm 22.05 and newer, as the batch layer wants a scheduler."""

from collections.abc import Callable, Mapping, Sequence

from perijove.domain.errors import SpawnerTransient
from perijove.domain.launch import End
from perijove.domain.offer import Objection, Offer
from perijove.kit.clock import monotonic
from perijove.spawners.batch.scheduler import (
    Command,
    Job,
    JobRequest,
    Result,
    Run,
    RunAs,
    RunForForm,
)
from perijove.spawners.slurm import accounting, queue, submit
from perijove.spawners.slurm.discovery import Discovery


class SlurmScheduler:
    """
    One Slurm cluster: a `Scheduler`.

    Its commands are plain names, found by the site's search path. All of them want
    ``LC_ALL=C``, and ``SLURM_TIME_FORMAT=%s`` so that instants carry no time zone.
    """

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._queue = queue.shared(now)
        self._discovery = Discovery(self._queue, now)

    def submission(self, request: JobRequest) -> Command:
        """Return the ``sbatch`` command; raises `SpawnerRejected` for a value that cannot be."""
        return submit.submission(request)

    def read_submission(self, result: Result) -> str:
        """Return the job's number."""
        return submit.read_submission(result)

    def cancellation(self, job_id: str) -> Command:
        """Return the ``scancel`` command; the job gets TERM, and after KillWait KILL."""
        return ["scancel", submit.check_job_id(job_id)]

    def release(self, job_id: str) -> Command:
        """Return the ``scontrol`` command; a hold of an administrator's stays."""
        return ["scontrol", "release", submit.check_job_id(job_id)]

    def listing_by_name(self, name: str) -> Command:
        """Return the ``squeue`` command for the jobs with this name."""
        return queue.listing_by_name(name)

    def read_ids(self, result: Result, user_name: str) -> Sequence[str]:
        """Return the numbers of a person's jobs that `listing_by_name` shows, oldest first."""
        return queue.read_ids(result, user_name)

    async def jobs(self, run: Run, prefix: str) -> Sequence[Job]:
        """Return every job whose name begins with `prefix`, by one ``squeue``."""
        return queue.read_jobs(await self._rows(run), prefix)

    async def _rows(self, run: Run) -> queue.Rows:
        asked = await self._queue.get(lambda: queue.ask(run), since=self._now())
        return asked.value

    async def ends(self, run: Run, job_ids: Sequence[str]) -> Mapping[str, End]:
        """
        Return the ends of these jobs, by accounting.

        Where that is off or away the controller's memory must do, which is that of a few
        minutes; raises `SpawnerTransient` when both are silent.
        """
        found: dict[str, End] = {}
        for some in accounting.questions(job_ids):
            try:
                found |= accounting.read(await run(accounting.ask(some)))
            except SpawnerTransient:
                return found | await self._remembered(run, set(job_ids) - found.keys())
        return found

    async def find_record(self, run: Run, job_id: str) -> End | None:
        """Return the end of a job as ``sacct`` tells it."""
        return accounting.read(await run(accounting.ask([job_id]))).get(job_id)

    async def _remembered(self, run: Run, job_ids: set[str]) -> dict[str, End]:
        # For all jobs: asked for a single one that it has forgotten, squeue fails.
        ends = queue.read_ends(await self._rows(run))
        return {job_id: end for job_id, end in ends.items() if job_id in job_ids}

    async def addresses(self, run: Run, nodes: Sequence[str]) -> Mapping[str, str]:
        """Return the ``NodeAddr`` of these nodes."""
        return await self._discovery.addresses(run, nodes)

    async def discover(
        self, run: Run, run_as: RunAs, user_name: str, *, for_form: RunForForm | None = None
    ) -> Offer:
        """Return what there is for this person."""
        return await self._discovery.offer(run, for_form or RunForForm(run), run_as, user_name)

    async def dry_run(
        self, run_as: RunAs, user_name: str, request: JobRequest
    ) -> Sequence[Objection]:
        """Return what ``sbatch --test-only`` has against a request."""
        (result,) = await run_as(user_name, [submit.dry_run(request)])
        return submit.read_dry_run(result, request)
