"""What Slurm says when it refuses a request, and when it cannot be asked."""

import re
from dataclasses import dataclass
from typing import Final

from perijove.domain.errors import SpawnerTransient
from perijove.spawners.batch.scheduler import Result
from perijove.spawners.slurm.reasons import code_of

_SILENT: Final = re.compile(
    r"socket timed out|unable to contact slurm|unable to establish controller|"
    r"connection (failure|refused|timed out)|zero bytes were transmitted|"
    r"persist_?(conn|init)|talking to the database|resource temporarily unavailable|"
    r"slurmctld .*not respond|not responding|authentication error|munge|"
    r"unable to process configuration file|cannot stat file|could not establish a configuration|"
    r"temporarily unable to accept job|transport endpoint|insane message|"
    r"communication (connection|shutdown|send|receive)|can't find an address|"
    r"database connection|connection to the accounting",
    re.IGNORECASE,
)
"""Signs that a daemon was not reached or did not answer; what was asked may have happened."""

_COMPLAINT: Final = re.compile(r"\b(error|fatal)\b", re.IGNORECASE)
_REFUSED: Final = re.compile(r"submission failed:|allocation failure:|^\s*sbatch:", re.M)

_POLICY: Final = re.compile(r"\b(?:(?:QOS|Assoc)(?:Max|Min|Grp)|Max)[A-Z][A-Za-z]+\b")
"""Names of limits: they stand on a line of their own before the refusal."""

_CODES: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), code, field)
    for pattern, code, field in (
        (r"account not permitted to use", "account-not-allowed", "account"),
        (r"invalid account or account/partition", "invalid-account", "account"),
        (r"group not permitted to use", "rejected", "partition"),
        (r"invalid partition", "invalid-partition", "partition"),
        (r"partition is (down|not up)|partition in state|partition configuration not available",
         "partition-down", "partition"),
        (r"qos (is )?not permitted|invalid qos|qos specification", "invalid-qos", "qos"),
        (r"time limit is invalid|time limit.*exceed", "over-time-limit", "time"),
        (r"denied to requested reservation", "rejected", "reservation"),
        (r"reservation (is )?(invalid|not usable)|invalid reservation", "reservation-gone",
         "reservation"),
        (r"memory (specification|required)", "over-size-limit", "memory"),
        (r"more processors requested|requested more (cpus|nodes)|too many tasks|node count",
         "over-size-limit", "cpu"),
        (r"generic resource|invalid gres|\(gres\)", "bad-constraints", "gpu"),
        (r"invalid feature", "bad-constraints", "features"),
        (r"node configuration is not available", "bad-constraints", ""),
        (r"invalid license|licenses? specification", "licenses", ""),
        (r"invalid .* specification|unrecognized option|ambiguous", "bad-option", ""),
    )
)  # fmt: skip

_FIELDS: Final = {
    "over-time-limit": "time",
    "max-cpus": "cpu",
    "max-gpus": "gpu",
    "max-memory": "memory",
}
"""The option that a limit is about, where its code alone says it."""

_KINDS: Final = (("Cpu", "cpu"), ("GRES", "gpu"), ("Mem", "memory"))
_PREFIX: Final = re.compile(r"^\s*(?:sbatch: )?(?:error: |fatal: |allocation failure: )*")
_GENERIC: Final = ("Batch job submission failed: ", "Unspecified error")
_LONGEST: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A final no: which code and option it comes to, and Slurm's words."""

    code: str
    field: str
    words: str


def is_silence(result: Result) -> bool:
    """Tell whether a command failed because Slurm could not be asked, or was cut off."""
    return result.status < 0 or _SILENT.search(result.stderr) is not None


def check_answer(result: Result, what: str) -> None:
    """
    Raise `SpawnerTransient` unless a question was answered.

    Slurm's programs can end with status 0 and an error on standard error: both count. What
    else they write there, such as a site's greeting, does not.
    """
    if result.status == 0 and not _SILENT.search(result.stderr):
        complaints = [line for line in result.stderr.splitlines() if _COMPLAINT.search(line)]
        if not complaints:
            return
    raise SpawnerTransient(f"{what} failed with status {result.status}: {said(result.stderr)}")


def read_refusal(text: str) -> Refusal:
    """Return what a refusal comes to; code ``rejected`` when nothing about it is known."""
    words = said(text)
    limit = _POLICY.search(text)
    if limit is not None and (code := code_of(limit[0])) != "other":
        return Refusal(code=code, field=_field_of(code, limit[0]), words=words)
    for pattern, code, field in _CODES:
        if pattern.search(text):
            return Refusal(code=code, field=field, words=words)
    return Refusal(code="rejected", field="", words=words)


def is_refusal(result: Result) -> bool:
    """Tell whether `sbatch` itself said no."""
    return bool(_REFUSED.search(result.stderr))


def said(text: str) -> str:
    """Return what a program wrote to standard error, without its own decoration, shortened."""
    lines = [_PREFIX.sub("", line).strip() for line in text.splitlines()]
    plain = [line.removeprefix(_GENERIC[0]) for line in lines if line]
    # A rule of the site says its reason before this.
    told = [line for line in plain if line != _GENERIC[1]] or plain
    return "; ".join(told)[:_LONGEST]


def _field_of(code: str, limit: str) -> str:
    if code in _FIELDS:
        return _FIELDS[code]
    if code == "over-size-limit":
        return next((field for kind, field in _KINDS if kind.lower() in limit.lower()), "")
    return ""
