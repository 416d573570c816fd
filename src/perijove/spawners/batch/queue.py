"""
The queue as everybody sees it: one question for all jobs, asked seldom, shared by who needs it.

However many people wait, look and stop, a cluster is asked no more often than its allowance
says (failure 5.4): at most six times a minute, and after a pause at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import anyio

from perijove.domain.errors import SpawnerTransient
from perijove.kit.clock import monotonic
from perijove.spawners.batch.scheduler import Job, Run, Scheduler

_BURST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """All our jobs, as of one question."""

    asked_at: float
    """Monotonic seconds when the question was asked."""
    jobs: Sequence[Job]


class Allowance:
    """How often a cluster may be asked: every `period` seconds, and what was saved before."""

    def __init__(self, period: float, burst: int = _BURST) -> None:
        self._period = period
        self._burst = burst
        self._saved = float(burst)
        self._at = monotonic()

    async def take(self) -> None:
        """Return when one more question is allowed."""
        now = monotonic()
        self._saved = min(self._burst, self._saved + (now - self._at) / self._period) - 1
        self._at = now
        await anyio.sleep(max(0.0, -self._saved * self._period))


class Queue:
    """One cluster's queue. Callers say how old an answer may be; one question is on its way."""

    def __init__(self, scheduler: Scheduler, run: Run, prefix: str, allowance: Allowance) -> None:
        self._scheduler = scheduler
        self._run = run
        self._prefix = prefix
        self._allowance = allowance
        self._asking = anyio.Lock()
        self._last: Answer | None = None

    async def jobs(self, *, since: float) -> Sequence[Job]:
        """
        Return all our jobs by a question asked at `since` (monotonic seconds) or later.

        Raises `SpawnerTransient` when the scheduler does not give a whole answer.
        """
        async with self._asking:
            if self._last is None or self._last.asked_at < since:
                await self._allowance.take()
                asked_at = monotonic()
                self._last = Answer(
                    asked_at=asked_at, jobs=await self._scheduler.jobs(self._run, self._prefix)
                )
            return self._last.jobs

    async def find(self, job_id: str, *, age: float = 10) -> Job:
        """Return one job; raise `SpawnerTransient` while the queue does not show it."""
        for since in (monotonic() - age, monotonic()):
            for job in await self.jobs(since=since):
                if job.id == job_id:
                    return job
        raise SpawnerTransient(f"the queue does not show job {job_id[:40]}")
