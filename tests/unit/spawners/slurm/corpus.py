"""What a real Slurm said (`tests/corpus/slurm`), and rows of it in the form we ask for."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from perijove.spawners.batch.scheduler import Result
from perijove.spawners.slurm.records import Question
from tests.beds import ROOT

CORPUS = ROOT / "tests/corpus/slurm"
FOR_FORMS: Final = ("1", "cpu", "def-alice", "1", "cpu=1")
"""Whether it is a batch job, its partition and account, and what it takes."""


def said(name: str) -> Result:
    """Return what a command of the corpus said, with status 0."""
    text = (CORPUS / name).read_bytes().decode(errors="replace")
    return Result(status=0, stdout=text, stderr="")


def failed(stderr: str, status: int = 1) -> Result:
    """Return the result of a command that said nothing but this."""
    return Result(status=status, stdout="", stderr=stderr)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt that was refused, or went wrong."""

    title: str
    result: Result


_BLOCK = re.compile(r"^## (?P<title>.*)\n", re.MULTILINE)
_EXIT = re.compile(r"^exit (\d+)", re.MULTILINE)
_STDOUT = re.compile(r"^stdout: '(.*)'$", re.MULTILINE)


def attempts() -> Iterator[Attempt]:
    """Yield every attempt to submit that `rejections.txt` holds."""
    text = (CORPUS / "rejections.txt").read_text()
    _, *parts = _BLOCK.split(text)
    for title, block in zip(parts[::2], parts[1::2], strict=True):
        status, stdout = _EXIT.search(block), _STDOUT.search(block)
        if status and stdout:
            stderr = block.partition("stderr:\n")[2]
            yield Attempt(title, Result(status=int(status[1]), stdout=stdout[1], stderr=stderr))


def answer(question: Question, rows: Sequence[Sequence[str]]) -> Result:
    """Return what ``squeue`` says to `question`; of rows without what only forms show, too."""
    end = f"\x1f{question.mark}\n"
    whole = [[*row[:9], *(row[9:-1] or FOR_FORMS), row[-1]] for row in rows]
    return Result(status=0, stdout="".join("\x1f".join(row) + end for row in whole), stderr="")


def waiting_and_running() -> list[list[str]]:
    """Return the corpus's queue in the columns of `question_about_jobs`, but for those of forms."""
    rows = []
    for line in said("squeue-o-pipe.txt").stdout.splitlines():
        each = line.split("|", 22)
        number, user, state, reason, nodes = each[0], each[3], each[7], each[9], each[11]
        rows.append(
            [number.partition("_")[0], user, state, "0", reason, nodes, *each[15:18], each[22]]
        )
    return rows


def of_every_state() -> list[list[str]]:
    """Return jobs that wait, run or are over in the same columns; the corpus names no owner."""
    rows = []
    for line in said("squeue-all-states.txt").stdout.splitlines():
        number, state, _, reason, nodes, end, name = line.split("|", 6)
        number = number.partition("_")[0]
        rows.append([number, "", state, "0", reason, nodes, "N/A", end, "N/A", name])
    return rows
