"""A Slurm that says what a test puts into it, in the format it was asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import anyio

from perijove.spawners.batch.scheduler import Command, Result

PREFIX = "pj-inst-"


@dataclass(slots=True)
class Cluster:
    """Answers ``squeue``; counts the questions, and can be made to wait or to be silent."""

    jobs: Sequence[str] = ()
    """Ids of running jobs; job N has the name ``pj-inst-N``, or with another end by `names`."""
    names: Mapping[str, str] = field(default_factory=dict)
    asked: int = 0
    silence: Exception | None = None
    gate: anyio.Event | None = None
    begun: list[Command] = field(default_factory=list)

    async def run(self, command: Command) -> Result:
        """Return the queue as it is when the question comes."""
        self.asked += 1
        self.begun.append(command)
        answer = squeue(command, {each: self.names.get(each, each) for each in self.jobs})
        if self.gate is not None:
            await self.gate.wait()
        if self.silence is not None:
            raise self.silence
        return answer


def squeue(command: Command, jobs: Mapping[str, str]) -> Result:
    """Return what ``squeue`` prints for one question of jobs, each with the end of its name."""
    mark = command[-1][-16:]
    columns = (
        "alice", "RUNNING", "0", "None", "c1", "1700000000", "1700003600", "1699999999",
        "1", "cpu", "def-alice", "1", "cpu=1",
    )  # fmt: skip
    rows = [
        "\x1f".join([job_id, *columns, f"{PREFIX}{name}", f"{mark}\n"])
        for job_id, name in jobs.items()
    ]
    return Result(status=0, stdout="".join(rows), stderr="")
