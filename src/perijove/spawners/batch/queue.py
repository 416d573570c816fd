"""
The queue as everybody sees it: one question for all jobs, asked seldom, shared by who needs it.

However many people wait, look and stop, one question is on its way, and its answer serves all
whom it is not too old for (failure 5.4).
"""

import re
from collections.abc import Sequence
from typing import Final

from perijove.domain.errors import SpawnerTransient
from perijove.kit.clock import monotonic
from perijove.spawners.batch.scheduler import Job, Run, Scheduler
from perijove.spawners.batch.shared import Shared

_REST: Final = r"[a-z0-9-]{1,32}"
"""What follows the prefix in a name that the hub has made."""


class Queue:
    """One cluster's queue. Callers say how old an answer may be; one question is on its way."""

    def __init__(self, scheduler: Scheduler, run: Run, prefix: str) -> None:
        self._scheduler = scheduler
        self._run = run
        self._prefix = prefix
        self._own = re.compile(re.escape(prefix) + _REST)
        self._jobs = Shared[Sequence[Job]](0)

    async def jobs(self, *, since: float) -> Sequence[Job]:
        """
        Return all our jobs by a question asked at `since` (monotonic seconds) or later.

        Raises `SpawnerTransient` when the scheduler does not give a whole answer.
        """
        known = await self._jobs.get(self._ask, since=since)
        return known.value

    async def _ask(self) -> Sequence[Job]:
        """
        Return the jobs that carry a name as the hub makes them.

        Anybody can submit others that only begin like ours. They are nobody's concern: an answer
        with names that make no sense would count as one that is not whole.
        """
        jobs = await self._scheduler.jobs(self._run, self._prefix)
        return [job for job in jobs if self._own.fullmatch(job.name)]

    async def find(self, job_id: str, *, age: float = 10) -> Job:
        """Return one job; raise `SpawnerTransient` while the queue does not show it."""
        for since in (monotonic() - age, monotonic()):
            for job in await self.jobs(since=since):
                if job.id == job_id:
                    return job
        raise SpawnerTransient(f"the queue does not show job {job_id[:40]}")
