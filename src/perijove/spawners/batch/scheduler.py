"""
What a scheduler adds to the batch layer: its commands, and how to read what they print.

Everything that can be a pure function is one: from a request to arguments, from output to jobs.
Commands are lists, never lines for a shell; what a person chose is always an argument of its
own, ``--account=NAME``, behind a pattern (failure 5.14).
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePath
from typing import Any, Final, Protocol

from perijove.domain.launch import End, Reason, Resources
from perijove.domain.offer import Objection, Offer
from perijove.spawners.contract import Phase

SCRIPT: Final = "job.sh"
"""The job's script: the same for every job, in the job's directory, where it is submitted."""
OUTPUT: Final = "job.log"
"""Where the scheduler puts what the job prints, in the same directory."""

Command = Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a command said. Texts are decoded leniently."""

    status: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """What is asked of a scheduler for one launch."""

    name: str
    """The job's name: the launch's platform name."""
    comment: str
    """Readable, for people who look at the queue; no secret, printable ASCII."""
    resources: Resources
    options: Mapping[str, Any] = field(default_factory=dict)
    """Account, partition, qos, reservation, features (list), gpu_type: those that were chosen."""
    extra: Sequence[str] = ()
    """Arguments of the site's configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job as the queue shows it."""

    id: str
    name: str
    user: str
    phase: Phase
    reason: Reason | None = None
    """Why it waits, by a code of the catalogue, with the scheduler's words."""
    nodes: tuple[str, ...] = ()
    """Where it runs."""
    submitted_at: datetime | None = None
    started_at: datetime | None = None
    expected_start: datetime | None = None
    ends_at: datetime | None = None
    end: End | None = None
    """Always there when the phase is gone."""
    is_over: bool = False
    """It has left the queue, and it is not known yet how: all else is as it was seen last."""

    @property
    def is_live(self) -> bool:
        """Tell whether it still has to end."""
        return self.phase is not Phase.GONE and not self.is_over

    @property
    def node(self) -> str:
        """Where it runs, as a sighting says it."""
        return ",".join(self.nodes)[:255]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where a cluster's commands are and how long they may take."""

    bin_dir: PurePath | None = None
    """Where the scheduler's programs are; None: the search path."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What they need: ``SLURM_CONF``, ``SGE_ROOT``, …; ``LC_ALL=C`` is added."""
    timeout: float = 15.0


Run = Callable[[Command], Awaitable[Result]]
"""
Runs a command of the scheduler as the hub's own account, with a deadline, counted.

Raises `SpawnerTransient` when it could not be run or did not return in time.
"""
RunAs = Callable[[str, Sequence[Command]], Awaitable[Sequence[Result]]]
"""Runs commands, one after the other, as the named person; raises as `Run` does."""


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class RunForForm:
    """How to ask for what only forms show: such a question may have to wait for its turn."""

    run: Run
    has_turn: Callable[[], bool] = _always
    """Tells whether it would not have to wait."""


class Scheduler(Protocol):
    """One batch system, as one cluster has it."""

    def submission(self, request: JobRequest) -> Command:
        """
        Return the command that submits `SCRIPT` from the job's directory.

        Raises `SpawnerRejected` (code ``bad-option``) for a value that no such name can be.
        The caller's environment is never exported to the job.
        """
        ...

    def read_submission(self, result: Result) -> str:
        """
        Return the job's id.

        Raises `SpawnerRejected` with the culprit's code when the scheduler refuses (trying
        again is useless), `SpawnerTransient` when it is away or the outcome is unknown.
        """
        ...

    def cancellation(self, job_id: str) -> Command:
        """Return the command that cancels a job, whatever its state."""
        ...

    def release(self, job_id: str) -> Command:
        """Return the command with which its owner takes their own hold off a job."""
        ...

    def listing_by_name(self, name: str) -> Command:
        """
        Return the command that shows the jobs with this name, ended lately or not.

        Its answer holds each job's id and name: the launcher cancels and releases only what is
        shown so.
        """
        ...

    def read_ids(self, result: Result, user_name: str) -> Sequence[str]:
        """
        Return the ids of a person's jobs that `listing_by_name` shows, oldest first.

        Others may have given theirs the same name. Raises `SpawnerTransient`.
        """
        ...

    async def jobs(self, run: Run, prefix: str) -> Sequence[Job]:
        """
        Return every job whose name begins with `prefix`, of all people, in one call or two.

        Those that ended lately may be among them. Raises `SpawnerTransient` unless the answer
        is complete.
        """
        ...

    async def ends(self, run: Run, job_ids: Sequence[str]) -> Mapping[str, End]:
        """Return the end of each of these jobs that is over, by accounting; others are unknown."""
        ...

    async def find_record(self, run: Run, job_id: str) -> End | None:
        """
        Return the end of a job as accounting has it, and nothing else; None while it has none.

        Raises `SpawnerTransient` when accounting cannot be read.
        """
        ...

    async def addresses(self, run: Run, nodes: Sequence[str]) -> Mapping[str, str]:
        """
        Return under which address, or other name, the cluster itself reaches these nodes.

        A node's name there may mean nothing elsewhere. What is not in the answer is reached by
        its name. Structure, so a few minutes old at the most.
        """
        ...

    async def discover(
        self, run: Run, run_as: RunAs, user_name: str, *, for_form: RunForForm | None = None
    ) -> Offer:
        """
        Return what there is for this person, see `contract.Discovers`.

        `for_form` asks what no survey waits for; without it `run` does that, too. What is known
        of it, however old, will do while there is no turn (`shared.renew`).
        """
        ...

    async def dry_run(
        self, run_as: RunAs, user_name: str, request: JobRequest
    ) -> Sequence[Objection]:
        """Return what the scheduler has against a request, without submitting it."""
        ...
