"""
Slurm's words for why a job waits, as codes of the catalogue (`domain/reasons.py`).

Slurm has well over a hundred such words, and more with each release; most are made of parts
(``QOSMaxCpuPerUserLimit``), and so they are read by their parts: the first rule that fits.
Some are sentences with names in them: rules look at beginnings.
"""

import re
from typing import Final

from perijove.domain.launch import Reason
from perijove.spawners.slurm.values import optional

HELD: Final = frozenset({"held-by-user", "held-by-admin", "held-by-system", "launch-failed-held"})
"""Codes with which a job waits until somebody releases it."""

_WHOSE: Final = "(QOS|Assoc)?"

_RULES: Final = tuple(
    (re.compile(pattern, re.ASCII | re.IGNORECASE), code)
    for pattern, code in (
        (r"Priority", "priority"),
        (r"Resources", "resources"),
        (r"(None|\(null\))?$", "just-submitted"),
        (r"BeginTime", "begin-time"),
        (r"JobHeldUser", "held-by-user"),
        (r"JobHeldAdmin", "held-by-admin"),
        (r"launch failed requeued held", "launch-failed-held"),
        (r"job requeued in held state|JobHoldMaxRequeue", "held-by-system"),
        (r"Dependency|JobArrayTaskLimit|FedJobLock", "dependency"),
        (r"Licenses", "licenses"),
        (r"(Bad)?Constraints|PartitionConfig|QOSMin", "bad-constraints"),
        (r"InvalidAccount", "invalid-account"),
        (r"AccountNotAllowed|Job's account not permitted", "account-not-allowed"),
        (r"InvalidQOS|QOSNotAllowed|Job's QOS not permitted", "invalid-qos"),
        (r"PartitionDown|PartitionInactive", "partition-down"),
        (r"PartitionTimeLimit|(AssociationTime|QOSTime)Limit", "over-time-limit"),
        (r"PartitionNodeLimit|MaxMemPerLimit", "over-size-limit"),
        (r"ReservationDeleted|ReservationInvalid", "reservation-gone"),
        # What a maintenance reservation does to jobs that would run into it.
        (r"ReqNodeNotAvail.*(reserved for (other job|maintenance))", "maintenance"),
        (r"ReqNodeNotAvail|Nodes required for job are", "node-unavailable"),
        (r"Reservation", "reservation"),
        (r"NodeDown|SystemFailure|FrontEndDown", "node-down"),
        (rf"{_WHOSE}Max\w*(WallDuration|MinutesPerJob)", "over-time-limit"),
        (rf"{_WHOSE}Max\w*(PerJob|PerNode)", "over-size-limit"),
        (rf"{_WHOSE}Grp\w*(?<!Run)(Minutes|Wall)|QOSUsageThreshold", "no-budget"),
        (rf"{_WHOSE}(Max|Grp)Submit", "max-submit"),
        (rf"{_WHOSE}(GrpJobs|MaxJobsPerAccount)", "max-jobs-account"),
        (rf"{_WHOSE}MaxJobs|(Association|QOS)JobLimit", "max-jobs-user"),
        (rf"{_WHOSE}(Max|Grp)GRES", "max-gpus"),
        (rf"{_WHOSE}(Max|Grp)Mem", "max-memory"),
        (rf"{_WHOSE}(Max|Grp)License", "licenses"),
        (rf"{_WHOSE}(Max|Grp)(CPU|Node|Billing)|(Association|QOS)ResourceLimit", "max-cpus"),
        (rf"{_WHOSE}(Max|Grp)(BB|Energy|Unknown)|AccountingPolicy", "quota"),
    )
)  # fmt: skip

_NODES = re.compile(r"UnavailableNodes:(\S+)")


def code_of(words: str) -> str:
    """Return the code of a reason as Slurm prints it; ``other`` if no rule fits."""
    plain = words.strip().replace("_", " ")
    return next((code for rule, code in _RULES if rule.match(plain)), "other")


def read_reason(words: str) -> Reason:
    """Return why a job waits, with Slurm's own words."""
    nodes = _NODES.search(words)
    return Reason(
        code=code_of(words),
        params={"nodes": nodes[1]} if nodes else {},
        words=optional(words),
    )
