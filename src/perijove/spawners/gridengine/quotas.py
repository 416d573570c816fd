"""
Resource quota sets: what a person may have at once (sge_resource_quota(5)).

In each set the first rule that fits a request counts, and of several sets the least. Rules about
single hosts or parallel environments, and limits that are formulas, are left out: the scheduler
applies them, and what is said here is never less than what it allows.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from perijove.spawners.gridengine.values import words

_SET = re.compile(r"\{\s*\n(.*?)\n\s*\}", re.DOTALL)
_CONTINUED = re.compile(r"\\\r?\n\s*")
_FILTER: Final = re.compile(
    r"\b(users|projects|queues|hosts|pes)\s+(\{[^}]*\}|[^\s{]+(?:,\s*[^\s{]+)*)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One line ``limit … to …``."""

    users: tuple[str, ...] = ("*",)
    projects: tuple[str, ...] | None = None
    """None: jobs with and without a project."""
    queues: tuple[str, ...] = ("*",)
    limits: Mapping[str, str] = field(default_factory=dict)
    is_partial: bool = False
    """It is about some hosts or parallel environments only."""


def read_rules(text: str) -> tuple[tuple[Rule, ...], ...]:
    """Return the rules of every enabled set in ``qconf -srqs``."""
    sets: list[tuple[Rule, ...]] = []
    for body in _SET.findall(_CONTINUED.sub(" ", text)):
        lines = [line.strip() for line in body.splitlines()]
        enabled = any(re.fullmatch(r"enabled\s+true", line, re.IGNORECASE) for line in lines)
        rules = tuple(_rule(line[5:]) for line in lines if line.startswith("limit"))
        if enabled and rules:
            sets.append(rules)
    return tuple(sets)


def _rule(line: str) -> Rule:
    scope, _, limits = line.partition(" to ")
    filters = {name: words(value.strip("{}")) for name, value in _FILTER.findall(scope)}
    pairs = (word.partition("=")[::2] for word in words(limits) if "=" in word)
    return Rule(
        users=filters.get("users", ("*",)),
        projects=filters.get("projects"),
        queues=filters.get("queues", ("*",)),
        limits=dict(pairs),
        is_partial=any(filters.get(name, ("*",)) != ("*",) for name in ("hosts", "pes")),
    )


def limits_of(
    sets: Iterable[Iterable[Rule]],
    *,
    user_name: str,
    lists: frozenset[str],
    project: str,
    queue: str,
) -> list[Mapping[str, str]]:
    """Return the limits, of each set one at most, on what a person has of a queue at once."""
    names = {user_name, *(f"@{name}" for name in lists)}
    found: list[Mapping[str, str]] = []
    for rules in sets:
        for rule in rules:
            if (
                not rule.is_partial
                and _fits(rule.users, names)
                and _fits(rule.queues, {queue})
                and _fits_project(rule.projects, project)
            ):
                found.append(rule.limits)
                break
    return found


def _fits_project(patterns: tuple[str, ...] | None, project: str) -> bool:
    if patterns is None:
        return True
    if not project:
        return "!*" in patterns
    return _fits(patterns, {project})


def _fits(patterns: tuple[str, ...], names: set[str]) -> bool:
    """Tell whether a filter such as ``*,!@students`` lets one of `names` through."""
    if any(pattern[1:] in names or pattern == "!*" for pattern in patterns if pattern[0] == "!"):
        return False
    wanted = [pattern for pattern in patterns if pattern[0] != "!"]
    return not wanted or any(pattern == "*" or pattern in names for pattern in wanted)
