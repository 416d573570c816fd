"""Accounting: how jobs ended that the queue shows no more."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from perijove.domain.launch import End
from perijove.spawners.batch.scheduler import Command, Result
from perijove.spawners.slurm.rejections import check_answer
from perijove.spawners.slurm.states import find_end
from perijove.spawners.slurm.submit import check_job_id

_MOST: Final = 200
"""Numbers in one question."""
_ROW = re.compile(r"([0-9]{1,12})\|([A-Za-z_]+\+?(?: by [^|]*)?)\|([0-9]{1,9}):([0-9]{1,9})")


def questions(job_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield the numbers of those jobs that one question asks for."""
    wanted = [check_job_id(each) for each in dict.fromkeys(job_ids)]
    for start in range(0, len(wanted), _MOST):
        yield wanted[start : start + _MOST]


def ask(job_ids: Sequence[str]) -> Command:
    """Return the command that asks for the last run of each of these jobs."""
    return [
        "sacct",
        "--noheader",
        "--parsable2",
        "--allocations",
        f"--jobs={','.join(job_ids)}",
        "--format=JobIDRaw,State,ExitCode",
    ]


def read(result: Result) -> dict[str, End]:
    """
    Return the ends of the jobs that are over; a job that runs or is unknown has none.

    Raises `SpawnerTransient` when accounting is off or does not answer.
    """
    check_answer(result, "sacct")
    found: dict[str, End] = {}
    for line in result.stdout.splitlines():
        match = _ROW.fullmatch(line.strip())
        if match is None:
            continue
        end = find_end(match[2], int(match[3]), int(match[4]))
        if end is not None:
            found[match[1]] = end
    return found
