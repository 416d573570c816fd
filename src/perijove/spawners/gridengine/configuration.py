"""
Reading ``qconf``: queues, projects, access lists, hosts' capacities, and the cell's rules.

Calls to a scheduler are few and rationed (failure 5.4), and qconf answers many questions in one:
an `Overview` of all that has a wildcard, and then all that must be asked for by name.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from perijove.domain.errors import SpawnerTransient
from perijove.spawners.batch.scheduler import Result
from perijove.spawners.gridengine.quotas import Rule, read_rules
from perijove.spawners.gridengine.values import (
    amounts,
    first_line,
    is_nothing,
    read_count,
    read_duration,
    read_records,
    words,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may use a thing, by names of access lists; the same for queues, projects and hosts."""

    only: tuple[str, ...] = ()
    """The lists of which one must hold the person; empty: everybody."""
    never: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterQueue:
    """A queue's definition."""

    name: str
    slots: int
    """The most that it has on one host."""
    max_seconds: int | None
    access: Access
    projects: tuple[str, ...]
    """The only ones that may use it; empty: all, and jobs without."""
    denied_projects: tuple[str, ...]
    values: Mapping[str, str]
    """Its ``complex_values``."""
    is_batch: bool
    environments: tuple[str, ...]
    """Parallel environments, on whichever of its hosts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Complex:
    """A resource that can be asked for."""

    name: str
    shortcut: str
    kind: str
    is_forced: bool
    """What a queue or host has of it can be used only by jobs that ask for it."""
    consumable: str
    """``NO``, ``YES`` (for each slot) or ``JOB``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """All that changes rarely. Discovery keeps it for minutes, for everybody."""

    queues: tuple[ClusterQueue, ...] = ()
    complexes: Mapping[str, Complex] = field(default_factory=dict)
    projects: Mapping[str, Access] = field(default_factory=dict)
    members: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By access list: user names, and groups as ``@name``."""
    capacities: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By host: its ``complex_values``."""
    rules: tuple[tuple[Rule, ...], ...] = ()
    must_name_project: bool = False
    max_submitted: int | None = None
    max_running: int | None = None
    explains: bool = True
    """The scheduler says why jobs wait (``schedd_job_info``)."""

    def lists_of(self, user_name: str, group: str) -> frozenset[str]:
        """Return the access lists that hold a person, by name or by their primary group."""
        who = {user_name, f"@{group}"}
        return frozenset(name for name, members in self.members.items() if members & who)


def admits(access: Access, lists: frozenset[str]) -> bool:
    """Tell whether who is in these access lists may use the thing."""
    if lists.intersection(access.never):
        return False
    return not access.only or bool(lists.intersection(access.only))


_COLUMNS: Final = 8
"""Of the table of complexes."""
OVERVIEW: Final = (
    *("-sconf", "-ssconf", "-sc", "-sq", "*"),
    *("-sc", "-sul", "-sc", "-srqs", "-sc", "-sprjl"),
)
"""
The arguments for an overview.

The answers follow each other without a mark. The table of complexes, whose lines are like no
others, stands between those that could not be told apart.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What ``qconf`` prints for `OVERVIEW`, taken apart."""

    settings: str
    complexes: str
    queues: str
    lists: tuple[str, ...]
    rules: str
    projects: tuple[str, ...]


def read_overview(result: Result) -> Overview:
    """
    Return the overview.

    qconf fails when there are no quotas or no projects, and has answered the rest. Raises
    `SpawnerTransient` when something is missing.
    """
    complexes: list[str] = []
    sections: list[list[str]] = [[]]
    in_table = False
    for line in result.stdout.splitlines():
        if line.startswith("#name "):
            in_table = True
            sections.append([])
        elif in_table and (line.startswith("#") or len(line.split()) >= _COLUMNS):
            complexes.append(line)
        else:
            in_table = False
            sections[-1].append(line)
    if len(sections) != 5 or not sections[1]:
        raise SpawnerTransient(f"qconf: {first_line(result.stderr) or 'an incomplete answer'}")
    settings, queues, lists, rules, projects = ("\n".join(each) for each in sections)
    return Overview(
        settings=settings,
        complexes="\n".join(complexes),
        queues=queues,
        lists=words(lists),
        rules=rules,
        projects=words(projects),
    )


def naming(overview: Overview, hosts: Iterable[str]) -> list[str]:
    """Return the arguments that ask for what has no wildcard."""
    arguments: list[str] = []
    for host in hosts:
        arguments += ["-se", host]
    for project in overview.projects:
        arguments += ["-sprj", project]
    if overview.lists:
        arguments += ["-su", ",".join(overview.lists)]
    return arguments


def named_of(result: Result) -> str:
    """Return the answer to `naming`; raises `SpawnerTransient` unless it is complete."""
    if result.status != 0:
        raise SpawnerTransient(f"qconf: {first_line(result.stderr or result.stdout)}")
    return result.stdout


def read_queues(text: str) -> Iterator[ClusterQueue]:
    """Yield the queues of ``-sq '*'``."""
    for table in read_records(text, "qname"):
        times = [read_duration(value) for value in _settings(table.get("h_rt", ""))]
        slots = [read_count(value) or 0 for value in _settings(table.get("slots", ""))]
        yield ClusterQueue(
            name=table["qname"],
            slots=max(slots, default=0),
            # A queue that has no limit on some host has none worth a bound.
            max_seconds=max((each for each in times if each is not None), default=None)
            if None not in times
            else None,
            access=_access(table, "user_lists", "xuser_lists"),
            projects=words(_default(table.get("projects", ""))),
            denied_projects=words(_default(table.get("xprojects", ""))),
            values=amounts(_default(table.get("complex_values", ""))),
            is_batch="BATCH" in table.get("qtype", "BATCH").upper(),
            environments=tuple(
                name for names in _settings(table.get("pe_list", "")) for name in words(names)
            ),
        )


def _settings(text: str) -> list[str]:
    """Return the values of ``1,[host1=16],[@large=32]``."""
    overrides = re.findall(r"\[[^=\]]+=([^\]]*)\]", text)
    return [value.strip() for value in (_default(text), *overrides) if value.strip()]


def _default(text: str) -> str:
    return re.sub(r",?\s*\[[^\]]*\]", "", text)


def _access(table: Mapping[str, str], only: str, never: str) -> Access:
    return Access(
        only=words(_default(table.get(only, ""))), never=words(_default(table.get(never, "")))
    )


def read_projects(text: str) -> dict[str, Access]:
    """Return who may use each project of ``-sprj A -sprj B``."""
    tables = (table for table in read_records(text, "name") if "acl" in table)
    return {table["name"]: _access(table, "acl", "xacl") for table in tables}


def read_members(text: str) -> dict[str, frozenset[str]]:
    """Return who is in each access list of ``-su A,B``."""
    tables = (table for table in read_records(text, "name") if "entries" in table)
    return {table["name"]: frozenset(words(table["entries"])) for table in tables}


def read_capacities(text: str) -> dict[str, Mapping[str, str]]:
    """Return the ``complex_values`` of each host of ``-se A -se B``."""
    tables = read_records(text, "hostname")
    return {table["hostname"]: amounts(table.get("complex_values", "")) for table in tables}


def read_complexes(text: str) -> dict[str, Complex]:
    """Return the rows of ``-sc`` by name."""
    found: dict[str, Complex] = {}
    for line in text.splitlines():
        cells = line.split()
        if len(cells) >= _COLUMNS and not line.startswith("#"):
            found[cells[0]] = Complex(
                name=cells[0],
                shortcut=cells[1],
                kind=cells[2],
                is_forced=cells[4].upper() == "FORCED",
                consumable=cells[5].upper(),
            )
    return found


def read_settings(text: str) -> dict[str, str]:
    """Return the lines of ``-sconf`` and ``-ssconf``, which share no name."""
    lines = (line for line in text.splitlines() if line.strip() and not line.startswith("#"))
    first = next(lines, "").split(maxsplit=1)
    return next(read_records(text, first[0]), {}) if first else {}


def read_configuration(overview: Overview, named: str) -> Configuration:
    """Return the cell's configuration."""
    settings = read_settings(overview.settings)
    return Configuration(
        queues=tuple(read_queues(overview.queues)),
        complexes=read_complexes(overview.complexes),
        projects=read_projects(named),
        members=read_members(named),
        capacities=read_capacities(named),
        rules=read_rules(overview.rules),
        must_name_project=settings.get("enforce_project", "").lower() == "true",
        max_submitted=_limit(settings.get("max_u_jobs", "")),
        max_running=_limit(settings.get("maxujobs", "")),
        explains=settings.get("schedd_job_info", "true").lower() != "false",
    )


def _limit(text: str) -> int | None:
    """Return a limit that 0 switches off."""
    return None if is_nothing(text) else read_count(text) or None
