"""Limits: what several of them together allow."""

from collections.abc import Mapping
from dataclasses import replace

from perijove.domain.offer import Ceiling
from perijove.spawners.slurm.values import Tres


def ceiling(tres: Tres, *, jobs: int | None = None, submitted: int | None = None) -> Ceiling:
    """Return the limit that a list of TRES and numbers of jobs make."""
    return Ceiling(
        cpus=tres.cpus,
        memory_bytes=tres.memory_bytes,
        gpus=tres.gpus,
        gpus_by_type=tres.gpus_by_type,
        jobs=jobs,
        submitted=submitted,
    )


def lower(one: int | None, other: int | None) -> int | None:
    """Return the lower of two limits; None is no limit."""
    known = [each for each in (one, other) if each is not None]
    return min(known, default=None)


def higher(one: int | None, other: int | None) -> int | None:
    """Return the higher of two limits, None if one is none."""
    return None if one is None or other is None else max(one, other)


def tighter(one: Ceiling, other: Ceiling) -> Ceiling:
    """Return what is allowed where both limits hold."""
    return Ceiling(
        cpus=lower(one.cpus, other.cpus),
        memory_bytes=lower(one.memory_bytes, other.memory_bytes),
        gpus=lower(one.gpus, other.gpus),
        gpus_by_type=_lower_each(one.gpus_by_type, other.gpus_by_type),
        jobs=lower(one.jobs, other.jobs),
        submitted=lower(one.submitted, other.submitted),
    )


def for_one_job(group: Ceiling) -> Ceiling:
    """Return what a limit for many jobs together means for a single one."""
    return replace(group, jobs=None, submitted=None)


def looser(one: Ceiling, other: Ceiling) -> Ceiling:
    """Return what is allowed where either limit can be chosen."""
    both = one.gpus_by_type.keys() & other.gpus_by_type.keys()
    return Ceiling(
        cpus=higher(one.cpus, other.cpus),
        memory_bytes=higher(one.memory_bytes, other.memory_bytes),
        gpus=higher(one.gpus, other.gpus),
        gpus_by_type={key: max(one.gpus_by_type[key], other.gpus_by_type[key]) for key in both},
        jobs=higher(one.jobs, other.jobs),
        submitted=higher(one.submitted, other.submitted),
    )


def _lower_each(one: Mapping[str, int], other: Mapping[str, int]) -> Mapping[str, int]:
    return {key: min(each[key] for each in (one, other) if key in each) for key in {**one, **other}}
