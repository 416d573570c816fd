"""
What Grid Engine's sentences mean: the scheduler's messages, and the reasons of refusals.

Its messages are about single queues and hosts, most of them beside the point ("is not contained
in its hard queue list"), and none says "never". So a message about a waiting job never becomes a
code with which a request is given up: the impossible is refused at submission (``-w e``).
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from perijove.domain.launch import Reason
from perijove.domain.offer import Objection


@dataclass(frozen=True, slots=True)
class _Meaning:
    """What a sentence means. Of several sentences the one that tells most counts, the first."""

    pattern: re.Pattern[str]
    code: str
    field: str = ""


def _means(pattern: str, code: str, field: str = "") -> _Meaning:
    return _Meaning(re.compile(pattern, re.IGNORECASE), code, field)


_WAITING: Final = (
    _means(r"job is in error state", "job-error"),
    _means(r"because of job dependencies", "dependency"),
    _means(r"execution time not reached", "begin-time"),
    _means(r"exceeds limit .* in rule", "quota"),
    _means(r"because of user limitations", "max-jobs-user"),
    _means(r"offers only [a-z]{2}:", "resources"),
    _means(r"in PE .* only offers", "no-slots"),
    _means(r"dropped because it is full", "no-slots"),
    _means(r"dropped because it is overloaded", "no-slots"),
    _means(r"dropped because it is temporarily not available", "node-unavailable"),
    _means(r"dropped because it is (disabled|suspended)", "queue-disabled"),
    _means(r"all queues dropped because of overload or full", "no-slots"),
)

_ASIDE: Final = re.compile(
    r"hard queue list|correct project|no permission|forced|because of cluster queue"
    r"|is not in pe list|not of type|advance reservation|job is in hold state",
    re.IGNORECASE,
)
"""
What tells nothing of a wait: why one queue is none for the job, which says nothing about the
others; and that it is held, for its state says so first, and no more as soon as it is released.
"""


def waiting_reason(messages: Sequence[str]) -> Reason | None:
    """Return why a job waits by the scheduler's messages; None when they do not tell."""
    for meaning in _WAITING:
        for message in messages:
            if meaning.pattern.search(message):
                return Reason(code=meaning.code, words=message)
    told = [message for message in messages if not _ASIDE.search(message)]
    return Reason(code="other", words=told[0]) if told else None


_REFUSALS: Final = (
    _means(r'unknown resource "', "bad-constraints"),
    _means(r"is not a (memory|time|\w+) value", "bad-option"),
    _means(r"requests unknown queue", "invalid-partition", "partition"),
    _means(r"requested project .* does not exist", "invalid-account", "account"),
    _means(r"no access to project", "account-not-allowed", "account"),
    _means(r"no project|project .*required", "invalid-account", "account"),
    _means(r"requested parallel environment", "bad-constraints", "cpu"),
    _means(r"only \d+ jobs are allowed per user", "max-submit"),
    _means(r"only \d+ jobs are allowed", "max-submit"),
    _means(r"no suitable queues", "bad-constraints"),
    _means(r"invalid option argument|argument to -\w+ option", "bad-option"),
)


def refusal(words: str) -> tuple[str, str]:
    """Return code and culprit of a refused submission; ``rejected`` when it is not known."""
    for meaning in _REFUSALS:
        if meaning.pattern.search(words):
            return meaning.code, meaning.field
    return "rejected", ""


_AWAY: Final = re.compile(
    r"commlib|qmaster|got send error|receiv\w+ gdi|cell directory|SGE_ROOT|act_qmaster"
    r"|answer list|no connection",
    re.IGNORECASE,
)


def is_away(words: str) -> bool:
    """Tell whether a command failed because nobody answered it, and so says nothing."""
    return _AWAY.search(words) is not None


# --- verification ------------------------------------------------------------------------------

_JOB = re.compile(r"^(?:Unable to run job: )?Job \d+ (.*)$")
_REQUESTED = re.compile(r"\(-l ([^)]*)\)")
_OFFERED = re.compile(r"offers only [a-z]{2}:([^=\s]+)=")


def verdict(report: str, fields: dict[str, str]) -> Sequence[Objection]:
    """
    Return what a failed ``-w v`` holds against a request, the most telling only.

    `fields` says which option asks for which resource: ``{"h_rt": "time", …}``.
    """
    ranked: list[tuple[int, Objection]] = []
    for line in report.splitlines():
        if match := _JOB.match(line.strip()):
            found = _objection(match[1], fields)
            if found is not None:
                ranked.append(found)
    if not ranked:
        return ()
    best = min(rank for rank, _ in ranked)
    return _distinct(objection for rank, objection in ranked if rank == best)


def _objection(message: str, fields: dict[str, str]) -> tuple[int, Objection] | None:
    """Return how much a message tells, the least number the most, and what."""
    offered = _OFFERED.search(message)
    if offered is not None:
        return 0, _too_much(fields.get(offered[1], ""), message)
    requested = _REQUESTED.search(message)
    if requested is not None and "because of cluster queue" in message:
        names = [pair.partition("=")[0] for pair in requested[1].split(",")]
        culprits = [fields[name] for name in names if name in fields]
        return 0, _too_much(culprits[0] if len(culprits) == 1 else "", message)
    if re.search(r"in PE .* only offers", message):
        # With none offered anything that is counted for each slot may be too much.
        return 1, _too_much("" if "only offers 0 slots" in message else "cpu", message)
    for rank, meaning in _AGAINST:
        if meaning.pattern.search(message):
            return rank, Objection(field=meaning.field, code=meaning.code, words=message)
    return None


_AGAINST: Final = (
    (1, _means(r"exceeds limit .* in rule", "quota")),
    (2, _means(r"correct project|no permission", "account-not-allowed", "account")),
    (3, _means(r"'forced' resource|not in pe list|not of type", "bad-constraints", "partition")),
)


def _too_much(field: str, words: str) -> Objection:
    code = "over-time-limit" if field == "time" else "over-size-limit"
    return Objection(field=field, code=code, words=words)


def _distinct(objections: Iterable[Objection]) -> tuple[Objection, ...]:
    by_culprit: dict[tuple[str, str], Objection] = {}
    for objection in objections:
        by_culprit.setdefault((objection.field, objection.code), objection)
    return tuple(by_culprit.values())
