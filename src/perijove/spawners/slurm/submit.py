"""
Submitting: from a request to the arguments of ``sbatch``, and from its answer to a job's id.

Every value stands behind a pattern and in an argument of its own (failure 5.14). Whether a
job may be requeued is left to the cluster; a site says ``--requeue`` or ``--no-requeue`` among
its own arguments.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from perijove.domain.errors import SpawnerRejected, SpawnerTransient
from perijove.domain.launch import Resources
from perijove.domain.offer import Objection
from perijove.spawners.batch.scheduler import OUTPUT, SCRIPT, Command, JobRequest, Result
from perijove.spawners.slurm.rejections import (
    Refusal,
    is_refusal,
    is_silence,
    read_refusal,
    said,
)
from perijove.spawners.slurm.values import gres_request

WARNING_SECONDS: Final = 300
"""How long before its end a job is told, by USR1."""
_SHORTEST_WARNED: Final = 600

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@/+=-]{0,127}", re.ASCII)
"""Of an account, a partition, a QOS, a reservation or a feature."""
_JOB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
_COMMENT = re.compile(r"[ -~]{0,500}", re.ASCII)
_GPU_TYPE = re.compile(r"(?:shard:)?[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}", re.ASCII)
_EXTRA = re.compile(r"--([a-z][a-z-]*)(=[ -~]*)?", re.ASCII)
_JOB_ID = re.compile(r"[1-9][0-9]{0,11}", re.ASCII)
_LAST_ID = re.compile(r"([1-9][0-9]{0,11})(?:;[A-Za-z0-9_.-]+)?", re.ASCII)
_MOST_FEATURES: Final = 20

_OURS: Final = (
    "array", "chdir", "clusters", "comment", "error", "export", "export-file", "get-user-env",
    "gid", "help", "job-name", "kill-on-invalid-dep", "open-mode", "output", "parsable",
    "test-only", "uid", "usage", "version", "wait", "wrap",
)  # fmt: skip
"""Options that make a job what this program expects of it."""


def submission(request: JobRequest) -> Command:
    """Return the command that submits `SCRIPT`; see `Scheduler.submission`."""
    return [
        "sbatch",
        "--parsable",
        f"--output={OUTPUT}",
        "--open-mode=append",
        *_arguments(request),
        SCRIPT,
    ]


def dry_run(request: JobRequest) -> Command:
    """Return the command that asks whether `request` could be submitted, and does not."""
    return ["sbatch", "--test-only", "--output=/dev/null", *_arguments(request), "--wrap=true"]


def read_submission(result: Result) -> str:
    """Return the job's id; see `Scheduler.read_submission`."""
    if result.status == 0:
        lines = result.stdout.split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        match = _LAST_ID.fullmatch(last)
        if match is not None:
            return match[1]
        raise SpawnerTransient(f"sbatch said no job's number: {said(result.stderr)}")
    refusal = _refusal(result)
    raise SpawnerRejected(
        refusal.words, code=refusal.code, field=refusal.field, words=refusal.words
    )


def read_dry_run(result: Result, request: JobRequest) -> Sequence[Objection]:
    """Return what Slurm has against `request`; raise `SpawnerTransient` if it cannot tell."""
    if result.status == 0:
        return ()
    refusal = _refusal(result)
    field = refusal.field
    if refusal.code == "bad-constraints" and not field:
        field = _likely_culprit(request)
    return (Objection(field=field, code=refusal.code, words=refusal.words),)


def check_job_id(job_id: str) -> str:
    """Return `job_id` if it can be one; raise `SpawnerRejected` otherwise."""
    if _JOB_ID.fullmatch(job_id) is None:
        raise SpawnerRejected(f"{job_id[:40]!r} is not a job's number", code="bad-option")
    return job_id


def check_job_name(name: str) -> str:
    """Return `name` if a job of ours can have it; raise `SpawnerRejected` otherwise."""
    return _checked("name", name, _JOB_NAME)


def _refusal(result: Result) -> Refusal:
    if is_silence(result) or not is_refusal(result):
        raise SpawnerTransient(f"sbatch failed with status {result.status}: {said(result.stderr)}")
    return read_refusal(result.stderr)


def _likely_culprit(request: JobRequest) -> str:
    """Return what is most often wrong when no node is as asked for."""
    if request.resources.gpu:
        return "gpu_type" if request.options.get("gpu_type") else "gpu"
    return "features" if request.options.get("features") else ""


# --- arguments --------------------------------------------------------------------------------


def _arguments(request: JobRequest) -> list[str]:
    return [
        f"--job-name={check_job_name(request.name)}",
        f"--comment={_checked('comment', request.comment, _COMMENT)}",
        # Not ``--export=NONE``: with it the node runs the person's start files, waits for them
        # before it starts the job, and fails it when they do not end.
        "--export-file=/dev/null",
        "--nodes=1",
        "--ntasks=1",
        *_amounts(request.resources, request.options),
        *_choices(request.options),
        *(_extra(each) for each in request.extra),
    ]


def _amounts(resources: Resources, options: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    if resources.time_seconds is not None:
        seconds = _amount("time", resources.time_seconds)
        found.append(f"--time={_up(seconds, 60)}")
        if seconds >= _SHORTEST_WARNED:
            found.append(f"--signal=B:USR1@{WARNING_SECONDS}")
    if resources.memory_bytes is not None:
        found.append(f"--mem={_up(_amount('memory', resources.memory_bytes), 2**20)}M")
    if resources.cpu is not None:
        found.append(f"--cpus-per-task={_up(_amount('cpu', resources.cpu), 1)}")
    if resources.gpu:
        kind = _chosen(options, "gpu_type", _GPU_TYPE)
        found.append(f"--gres={gres_request(kind, _up(_amount('gpu', resources.gpu), 1))}")
    return found


def _choices(options: Mapping[str, Any]) -> list[str]:
    chosen = {
        name: _chosen(options, name, _NAME)
        for name in ("account", "partition", "qos", "reservation")
    }
    arguments = [f"--{name}={value}" for name, value in chosen.items() if value]
    features = options.get("features") or ()
    if not isinstance(features, list | tuple) or len(features) > _MOST_FEATURES:
        raise _bad("features", features)
    if features:
        checked = [_checked("features", each, _NAME) for each in features]
        arguments.append(f"--constraint={'&'.join(checked)}")
    return arguments


def _chosen(options: Mapping[str, Any], name: str, pattern: re.Pattern[str]) -> str:
    value = options.get(name)
    return "" if value is None or value == "" else _checked(name, value, pattern)


def _checked(field: str, value: object, pattern: re.Pattern[str]) -> str:
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise _bad(field, value)
    return value


def _amount(field: str, value: float) -> float:
    if not math.isfinite(value) or value <= 0 or value >= 2**60:
        raise _bad(field, value)
    return value


def _up(value: float, unit: int) -> int:
    """Return `value` in whole units, rounded up: never less than was asked for."""
    return max(1, math.ceil(value / unit))


def _extra(argument: str) -> str:
    """
    Return an argument of the site if it leaves alone what makes the job ours.

    ``sbatch`` takes the beginning of an option's name for the option: so does this.
    """
    match = _EXTRA.fullmatch(argument)
    if match is None or any(own.startswith(match[1]) for own in _OURS):
        raise _bad("extra", argument)
    return argument


def _bad(field: str, value: object) -> SpawnerRejected:
    return SpawnerRejected(
        f"{field}: {str(value)[:80]!r} cannot be asked of Slurm", code="bad-option", field=field
    )
