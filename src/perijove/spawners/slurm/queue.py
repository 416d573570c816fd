"""The queue: our jobs as ``squeue`` shows them, by one question for everybody's."""

import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from anyio import to_thread

from perijove.domain.errors import SpawnerTransient
from perijove.domain.launch import End, Reason
from perijove.domain.offer import OwnJob
from perijove.spawners.batch.scheduler import Command, Job, Result, Run
from perijove.spawners.batch.shared import Shared
from perijove.spawners.contract import Phase
from perijove.spawners.slurm.reasons import HELD, read_reason
from perijove.spawners.slurm.records import Question
from perijove.spawners.slurm.rejections import check_answer
from perijove.spawners.slurm.states import PHASES, find_end
from perijove.spawners.slurm.submit import check_job_name
from perijove.spawners.slurm.values import expand_hosts, read_instant, read_tres

_COLUMNS: Final = (
    "JobID", "UserName", "State", "exit_code", "Reason", "NodeList", "StartTime", "EndTime",
    "SubmitTime", "BatchFlag", "Partition", "Account", "NumCPUs", "tres-alloc", "Name",
)  # fmt: skip
_KEPT_SECONDS: Final = 60.0
_JUST: Final = timedelta(seconds=30)

Rows = Sequence[Sequence[str]]
"""Everybody's jobs, in columns of ours; `read_jobs` and `read_own` take what they want of them."""


def shared(now: Callable[[], float]) -> Shared[Rows]:
    """Return what keeps the queue: surveys ask for a new one, forms take one of a minute ago."""
    return Shared(_KEPT_SECONDS, now)


async def ask(run: Run) -> Rows:
    """
    Return the queue: ``squeue`` cannot filter by the beginning of a name.

    Raises `SpawnerTransient` unless the answer is whole.
    """
    question = question_about_jobs()
    result = await run(question.command())
    return await to_thread.run_sync(question.rows, result)


def question_about_jobs() -> Question:
    """Return the question for all jobs."""
    return Question.about(*_COLUMNS)


def read_jobs(rows: Rows, prefix: str) -> Sequence[Job]:
    """Return the jobs whose name begins with `prefix`; raise `SpawnerTransient` if unreadable."""
    return [_job(row) for row in rows if row[-1].startswith(prefix)]


def read_ends(rows: Rows) -> dict[str, End]:
    """Return the ends of those jobs, of any name, that are over but not yet forgotten."""
    jobs = (_job(row) for row in rows)
    return {job.id: job.end for job in jobs if job.end is not None}


def listing_by_name(name: str) -> Command:
    """Return the command that shows numbers, owners and name of the jobs with this name."""
    return [
        "squeue",
        "--noheader",
        "--all",
        "--local",
        "--states=all",
        f"--name={check_job_name(name)}",
        "--format=%A %u %j",
    ]


def read_ids(result: Result, user_name: str) -> Sequence[str]:
    """Return the numbers of a person's jobs that `listing_by_name` shows, the oldest first."""
    check_answer(result, "squeue")
    rows = [line.split() for line in result.stdout.splitlines() if line.strip()]
    if any(len(row) != 3 or not _NUMBER.fullmatch(row[0]) for row in rows):
        raise SpawnerTransient("squeue's answer is garbled")
    return sorted({number for number, user, _ in rows if user == user_name}, key=int)


_NUMBER = re.compile(r"[0-9]{1,12}", re.ASCII)


def _job(row: Sequence[str]) -> Job:
    number, user, state, status, words, hosts, *times = row[:9]
    if _NUMBER.fullmatch(number) is None:
        raise SpawnerTransient("squeue's answer is garbled")
    nodes = expand_hosts(hosts)
    start, stop, submitted = (read_instant(each) for each in times)
    end = find_end(state, *_exit_code(status), words)
    if end is not None:
        phase, reason = Phase.GONE, None
    else:
        phase, reason = _present(state, words, begins_later=_is_later(start, submitted))
        if state not in PHASES and nodes:
            phase = Phase.RUNNING  # A state of a newer release; it has nodes.
    is_waiting = phase is Phase.PENDING
    is_there = phase in (Phase.RUNNING, Phase.SUSPENDED)
    return Job(
        id=number,
        name=row[-1],
        user=user,
        phase=phase,
        reason=reason if phase is not Phase.RUNNING else None,
        nodes=nodes,
        submitted_at=submitted,
        started_at=start if is_there or (end and nodes) else None,
        expected_start=start if is_waiting else None,
        ends_at=stop if is_there else None,
        end=end,
    )


_CODES = {"CONFIGURING": "node-starting"}


def _present(state: str, words: str, *, begins_later: bool) -> tuple[Phase, Reason | None]:
    """Return the phase of a job that is not over, and why it does not run."""
    phase = PHASES.get(state, Phase.PENDING)
    if phase is Phase.RUNNING:
        return phase, None
    if phase is Phase.SUSPENDED:
        return phase, Reason(code="other", words=state)
    if state != "PENDING":
        others = "held-by-system" if phase is Phase.HELD else "other"
        return phase, Reason(code=_CODES.get(state, others), words=state)
    reason = read_reason(words)
    if reason.code == "begin-time" and not begins_later:
        # So says Slurm too of a job that it has not looked at yet.
        reason = Reason(code="just-submitted", words=reason.words)
    return (Phase.HELD if reason.code in HELD else Phase.PENDING), reason


def _is_later(start: datetime | None, submitted: datetime | None) -> bool:
    return start is not None and submitted is not None and start - submitted > _JUST


def _exit_code(text: str) -> tuple[int, int]:
    """Return exit status and signal of ``768``, as from `wait`, or of ``3:0``."""
    status, colon, signal = text.strip().partition(":")
    if not (status.isdecimal() and len(status) < 10):
        return 0, 0
    if colon:
        return int(status), int(signal) if signal.isdecimal() and len(signal) < 10 else 0
    return int(status) >> 8 & 0xFF, int(status) & 0x7F


# --- one person's jobs, for the form ----------------------------------------------------------


def read_own(rows: Rows, user_name: str) -> tuple[OwnJob, ...]:
    """Return one person's jobs that are not over, with what they take of limits."""
    return tuple(job for row in rows if row[1] == user_name and (job := _own(row)) is not None)


_WORDS: Final = {
    Phase.PENDING: "queued",
    Phase.HELD: "held",
    Phase.RUNNING: "running",
    Phase.SUSPENDED: "suspended",
}


def _own(row: Sequence[str]) -> OwnJob | None:
    number, _, state, _, reason, _, *rest, name = row
    began, _, queued, batch, partition, account, cpus, tres = rest
    if find_end(state, 0, 0) is not None:
        return None
    start, submitted = read_instant(began), read_instant(queued)
    phase, _ = _present(state, reason, begins_later=False)
    return OwnJob(
        id=number,
        name=name,
        state=_WORDS[phase],
        is_interactive=batch == "0",
        partition=partition,
        account=account,
        cpus=int(cpus) if cpus.isdecimal() and len(cpus) < 10 else None,
        gpus=read_tres(tres).gpus,
        since=start if phase in (Phase.RUNNING, Phase.SUSPENDED) else submitted,
    )
