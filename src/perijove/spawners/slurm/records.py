"""
Rows of ``squeue`` that nobody can forge.

Anybody may give a job a name with line ends and separators in it, and so write what looks like
the row of somebody else's job. Rows therefore end with a number that is new in each question.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from perijove.domain.errors import SpawnerTransient
from perijove.spawners.batch.scheduler import Command, Result
from perijove.spawners.slurm.rejections import check_answer

_UNIT: Final = "\x1f"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question to ``squeue``: for these columns, the last of which may hold anything."""

    columns: Sequence[str]
    """Names as ``--Format`` has them; the first is ``JobID``."""
    mark: str

    @classmethod
    def about(cls, *columns: str) -> "Question":
        """Return a question with a mark of its own."""
        return cls(columns=columns, mark=secrets.token_hex(8))

    def command(self, *arguments: str) -> Command:
        """Return the command: all states and partitions, of this cluster alone."""
        wanted = ",".join(f"{column}:{_UNIT}" for column in self.columns)
        return [
            "squeue",
            "--noheader",
            "--all",
            "--local",
            "--states=all",
            *arguments,
            f"--Format={wanted}{self.mark}",
        ]

    def rows(self, result: Result) -> Sequence[Sequence[str]]:
        """
        Return every row of a whole answer.

        Raises `SpawnerTransient` for one that is cut off or garbled: a missing row would read
        as a job that is gone.
        """
        check_answer(result, "squeue")
        *written, rest = result.stdout.split(f"{_UNIT}{self.mark}\n")
        if rest.strip():
            raise SpawnerTransient("squeue's answer is cut off")
        rows = [row.split(_UNIT, len(self.columns) - 1) for row in written]
        if any(len(row) != len(self.columns) for row in rows):
            raise SpawnerTransient("squeue's answer is garbled")
        if rows:
            # A wrapper of the site may greet before the first row.
            rows[0][0] = rows[0][0].rpartition("\n")[2]
        return rows
