"""From a request to the arguments of ``qsub``, and what ``qsub`` answers."""

import math
import re
from dataclasses import dataclass
from typing import Any, Final

from perijove.domain.errors import SpawnerRejected, SpawnerTransient
from perijove.spawners.batch.scheduler import OUTPUT, JobRequest, Result
from perijove.spawners.gridengine import messages
from perijove.spawners.gridengine.values import first_line, write_memory

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}", re.ASCII)
"""A job's, queue's or project's name: what Grid Engine allows, without patterns and lists."""
_DIGITS = re.compile(r"[1-9]\d{0,9}", re.ASCII)
_UNFIT_IN_CONTEXT = re.compile(r"[^A-Za-z0-9 ._@/:+-]", re.ASCII)
_ID = re.compile(r"(\d+)(?:\.\d+-\d+:\d+)?", re.ASCII)

NO_MEANING: Final = ("qos", "features", "gpu_type")
"""Options of other schedulers: a request with one is refused, never silently changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Complexes:
    """By which resources a cell counts what a request names."""

    memory: str
    gpu: str | None
    parallel_environment: str | None
    memory_per_slot: bool
    """Memory is counted for each slot (``consumable YES``), not for the job (``JOB``)."""
    gpu_per_slot: bool
    others: frozenset[str] = frozenset()
    """Further resources that the site's own arguments ask for."""

    def fields(self) -> dict[str, str]:
        """Return which option asks for which resource."""
        found = {"h_rt": "time", "slots": "cpu", self.memory: "memory"}
        if self.gpu:
            found[self.gpu] = "gpu"
        return found


def requests(request: JobRequest, complexes: Complexes) -> list[str]:
    """
    Return the arguments that say what is asked for.

    Raises `SpawnerRejected`, code ``bad-option``, for what cannot be said to Grid Engine.
    """
    for option in NO_MEANING:
        if request.options.get(option):
            raise _bad(option, request.options[option], "means nothing to Grid Engine")
    slots = slots_of(request)
    arguments: list[str] = []
    if wanted := _resources(request, complexes, slots):
        arguments += ["-l", ",".join(wanted)]
    if slots > 1:
        if complexes.parallel_environment is None:
            raise _bad("cpu", slots, "needs a parallel environment, and none is configured")
        arguments += ["-pe", complexes.parallel_environment, str(slots)]
    for option, flag, pattern in (
        ("account", "-P", _NAME),
        ("partition", "-q", _NAME),
        ("reservation", "-ar", _DIGITS),
    ):
        value = request.options.get(option)
        if value not in (None, ""):
            if not isinstance(value, str) or not pattern.fullmatch(value):
                raise _bad(option, value, "is no name that Grid Engine knows")
            arguments += [flag, value]
    return [*arguments, *request.extra]


def slots_of(request: JobRequest) -> int:
    """Return how many slots the cores of a request are; raises `SpawnerRejected`."""
    cores = 1 if request.resources.cpu is None else request.resources.cpu
    if not (math.isfinite(cores) and 0 < cores <= 100_000):
        raise _bad("cpu", cores, "is no number of cores")
    return math.ceil(cores)


def _resources(request: JobRequest, complexes: Complexes, slots: int) -> list[str]:
    """
    Return the list of ``-l``.

    What Grid Engine counts for each slot is divided among the slots: memory is rounded up to
    whole KiB, while GPUs that the slots cannot share evenly cannot be had that way.
    """
    asked = request.resources
    wanted: list[str] = []
    if asked.time_seconds is not None:
        wanted.append(f"h_rt={_positive('time', asked.time_seconds)}")
    if asked.memory_bytes is not None:
        share = slots if complexes.memory_per_slot else 1
        memory_bytes = -(-_positive("memory", asked.memory_bytes) // share)
        wanted.append(f"{complexes.memory}={write_memory(memory_bytes)}")
    if asked.gpu:
        if complexes.gpu is None:
            raise _bad("gpu", asked.gpu, "needs a GPU complex, and none is configured")
        gpus, rest = divmod(_positive("gpu", asked.gpu), slots if complexes.gpu_per_slot else 1)
        if rest:
            raise _bad("gpu", asked.gpu, f"is no multiple of the {slots} slots that count them")
        wanted.append(f"{complexes.gpu}={gpus}")
    return wanted


def _positive(field: str, value: int) -> int:
    if not 0 < value < 2**60:
        raise _bad(field, value, "is out of range")
    return int(value)


def check_name(name: str) -> str:
    """Return `name` if it is one job's name, and no pattern, id or option; else raise."""
    if not _NAME.fullmatch(name):
        raise _bad("name", name, "is no job name")
    return name


def check_id(job_id: str) -> str:
    """Return `job_id` if it is one job's id; else raise."""
    if not _DIGITS.fullmatch(job_id):
        raise _bad("job_id", job_id, "is no job id")
    return job_id


def job_arguments(request: JobRequest) -> list[str]:
    """
    Return the arguments that say how the job runs.

    ``-r n``: a session whose node was lost has lost what was in it; starting it again, perhaps
    hours later, is for the person. ``-notify``: a signal comes before the kill, so that the
    wrapper can say goodbye. No ``-V`` and no ``-v``: everybody reads them in ``qstat -j``.
    """
    arguments = ["-N", check_name(request.name), "-cwd", "-o", OUTPUT, "-j", "y", "-S", "/bin/sh"]
    arguments += ["-r", "n", "-notify"]
    if comment := _UNFIT_IN_CONTEXT.sub("_", request.comment)[:200].strip():
        arguments += ["-ac", f"perijove={comment}"]
    return arguments


def _bad(field: str, value: Any, why: str) -> SpawnerRejected:
    words = f"{field}: {str(value)[:80]!r} {why}"
    return SpawnerRejected(words, code="bad-option", field=field, words=words)


def read_id(result: Result) -> str:
    """Return the id that ``qsub -terse`` printed, see `Scheduler.read_submission`."""
    said = result.stderr.strip() or result.stdout.strip()
    if result.status == 0:
        # Warnings may come on standard output, before the id.
        last = result.stdout.strip().rpartition("\n")[2].strip()
        if match := _ID.fullmatch(last):
            return match[1]
        raise SpawnerTransient(f"qsub named no job: {first_line(said)!r}")
    if messages.is_away(said) or not _is_refusal(result):
        raise SpawnerTransient(f"qsub could not ask: {first_line(said)}")
    code, field = messages.refusal(said)
    raise SpawnerRejected(
        f"Grid Engine refuses the job: {first_line(said)}",
        code=code,
        field=field,
        words=plain(said),
    )


def _is_refusal(result: Result) -> bool:
    """Tell whether qsub itself said no; a shell, a signal or a time-out did not ask anybody."""
    return 0 < result.status < 100 and bool(result.stderr.strip() or result.stdout.strip())


def plain(said: str) -> str:
    """Return qsub's words without those that it says to everybody."""
    lines = [line.strip().removeprefix("Unable to run job: ") for line in said.splitlines()]
    return "\n".join(line for line in lines if line and line != "Exiting.")[:2000]
