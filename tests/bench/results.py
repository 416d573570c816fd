"""What was measured, and how two systems compare."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One measurement of one system."""

    work: float
    """How much was done: requests, launches, bytes, starts."""
    seconds: float
    cpu: float
    """Processor seconds the servers spent on it."""

    @property
    def rate(self) -> float:
        """Return the work done in a second."""
        return self.work / self.seconds

    @property
    def cost(self) -> float:
        """Return the processor seconds for one piece of work; at least a clock tick for all."""
        return max(self.cpu, 0.01) / self.work


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What a measurement is about, and what it must reach."""

    name: str
    what: str
    unit: str
    """Of `rate`, as in ``requests/s``."""
    at_least: float
    """The least ratio of rates, ours by theirs."""
    cpu_at_least: float | None = None
    """The least ratio of costs, theirs by ours; None where only the rate is asked for."""
    scale: float = 1.0
    """By how much a rate is divided to be shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A line of the table."""

    name: str
    what: str
    unit: str
    ours: float
    theirs: float
    ratio: float
    cpu_ratio: float | None
    """How many times less processor time ours took."""
    goal: str
    is_met: bool
    rounds: int

    def as_json(self) -> dict[str, Any]:
        """Return what ``--json`` writes."""
        return {name: getattr(self, name) for name in self.__slots__}


def compare(goal: Goal, rounds: Sequence[tuple[Sample, Sample]]) -> Result:
    """Return the medians of what was measured in turns, each ratio within its own round."""
    ratio = median(ours.rate / theirs.rate for ours, theirs in rounds)
    cpu_ratio = median(theirs.cost / ours.cost for ours, theirs in rounds)
    wanted = f"≥ {goal.at_least:g} ×"
    if goal.cpu_at_least:
        wanted += f", CPU ≥ {goal.cpu_at_least:g} × less"
    return Result(
        name=goal.name,
        what=goal.what,
        unit=goal.unit,
        ours=median(ours.rate for ours, _ in rounds) / goal.scale,
        theirs=median(theirs.rate for _, theirs in rounds) / goal.scale,
        ratio=ratio,
        cpu_ratio=cpu_ratio,
        goal=wanted,
        is_met=ratio >= goal.at_least and cpu_ratio >= (goal.cpu_at_least or 0),
        rounds=len(rounds),
    )


def at_most(
    name: str, what: str, unit: str, rounds: Sequence[tuple[float, float]], *, ratio: float
) -> Result:
    """Return the comparison of values where less is better and ours may be `ratio` of theirs."""
    found = median(ours / theirs for ours, theirs in rounds)
    return Result(
        name=name,
        what=what,
        unit=unit,
        ours=median(ours for ours, _ in rounds),
        theirs=median(theirs for _, theirs in rounds),
        ratio=found,
        cpu_ratio=None,
        goal=f"≤ {ratio:g} ×",
        is_met=found <= ratio,
        rounds=len(rounds),
    )
