"""A Slurm that says what a test puts into it, in the format it was asked for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import anyio

from perijove.spawners.batch.scheduler import Command, Result

PREFIX = "pj-inst-"


@dataclass(slots=True)
class Cluster:
    """Answers ``squeue``; counts the questions, and can be made to wait or to be silent."""

    jobs: Sequence[str] = ()
    """Ids of running jobs; job N has the name ``pj-inst-N``."""
    asked: int = 0
    silence: Exception | None = None
    gate: anyio.Event | None = None
    begun: list[Command] = field(default_factory=list)

    async def run(self, command: Command) -> Result:
        """Return the queue as it is when the question comes."""
        self.asked += 1
        self.begun.append(command)
        answer = squeue(command, self.jobs)
        if self.gate is not None:
            await self.gate.wait()
        if self.silence is not None:
            raise self.silence
        return answer


def squeue(command: Command, jobs: Iterable[str], *, state: str = "RUNNING") -> Result:
    """Return what ``squeue`` prints of jobs for one question."""
    mark = command[-1][-16:]
    columns = ("alice", state, "0", "None", "c1", "1700000000", "1700003600", "1699999999")
    rows = ["\x1f".join([job_id, *columns, f"{PREFIX}{job_id}", f"{mark}\n"]) for job_id in jobs]
    return Result(status=0, stdout="".join(rows), stderr="")
