"""From the cell's configuration and what is free to what one person can have of it."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from perijove.domain.offer import Account, Ceiling, Free, Offer, OwnJob, Partition, Shape
from perijove.spawners.contract import Phase
from perijove.spawners.gridengine.configuration import ClusterQueue, Configuration, admits
from perijove.spawners.gridengine.hosts import Host
from perijove.spawners.gridengine.queue import Entry
from perijove.spawners.gridengine.quotas import limits_of
from perijove.spawners.gridengine.submission import Complexes
from perijove.spawners.gridengine.values import read_count, read_memory

_STATES: Final = {
    Phase.PENDING: "queued",
    Phase.HELD: "held",
    Phase.RUNNING: "running",
    Phase.SUSPENDED: "suspended",
}
_INTERACTIVE: Final = frozenset({"INTERACTIVE", "QLOGIN", "QRLOGIN"})
"""The names that Grid Engine gives to jobs of ``qsh``, ``qlogin`` and ``qrsh``."""


class Person:
    """One person's view of a cell."""

    def __init__(
        self, configuration: Configuration, complexes: Complexes, user_name: str, group: str
    ) -> None:
        self._cell = configuration
        self._complexes = complexes
        self._user_name = user_name
        self._lists = configuration.lists_of(user_name, group)

    def offer(self, hosts: Sequence[Host], own: Iterable[Entry], as_of: datetime) -> Offer:
        """Return what there is for this person."""
        queues = self.queues()
        return Offer(
            as_of=as_of,
            accounts=self.accounts(),
            partitions=tuple(self._partition(queue, hosts) for queue in queues),
            shapes=shapes(hosts, queues, self._cell, self._complexes),
            own_jobs=tuple(_own_job(entry) for entry in own),
            must_name_account=self._cell.must_name_project,
            notes=notes(self._cell, self._complexes),
        )

    def projects(self) -> tuple[str, ...]:
        """Return the projects that the person may name; "" is none."""
        names = [
            name for name, access in self._cell.projects.items() if admits(access, self._lists)
        ]
        return tuple(sorted(names)) if self._cell.must_name_project else ("", *sorted(names))

    def queues(self) -> tuple[ClusterQueue, ...]:
        """Return the queues where a job of this person may run, with one project or another."""
        projects = self.projects()
        return tuple(
            queue
            for queue in self._cell.queues
            if queue.is_batch
            and admits(queue.access, self._lists)
            and any(_takes(queue, project) for project in projects)
            and not self._is_forced(queue)
        )

    def _is_forced(self, queue: ClusterQueue) -> bool:
        """Tell whether a queue is kept for jobs that ask for something no option stands for."""
        asked = self._complexes.others.union(self._complexes.fields())
        forced = {each.name for each in self._cell.complexes.values() if each.is_forced}
        return bool(forced.intersection(queue.values) - asked)

    def accounts(self) -> tuple[Account, ...]:
        """Return the projects, and "" where a job needs none, each with the person's limits."""
        queues = self.queues()
        found: list[Account] = []
        for project in self.projects():
            usable = [queue for queue in queues if _takes(queue, project)]
            found.append(
                Account(
                    name=project,
                    is_default=not project,
                    partitions=() if len(usable) == len(queues) else tuple(q.name for q in usable),
                    per_person=self._per_person(project, usable),
                )
            )
        return tuple(found)

    def _per_person(self, project: str, queues: Sequence[ClusterQueue]) -> Ceiling:
        """Return the most over the queues: what one forbids another may allow."""
        ceilings = [self._quota(project, queue.name) for queue in queues]
        return Ceiling(
            cpus=_most(each.cpus for each in ceilings),
            memory_bytes=_most(each.memory_bytes for each in ceilings),
            gpus=_most(each.gpus for each in ceilings),
            jobs=self._cell.max_running,
            submitted=self._cell.max_submitted,
        )

    def _quota(self, project: str, queue: str) -> Ceiling:
        limits = limits_of(
            self._cell.rules,
            user_name=self._user_name,
            lists=self._lists,
            project=project,
            queue=queue,
        )
        by_name = [
            {self._full_name(name): value for name, value in each.items()} for each in limits
        ]
        return Ceiling(
            cpus=_least(read_count(each.get("slots", "")) for each in by_name),
            memory_bytes=_least(
                read_memory(each.get(self._complexes.memory, "")) for each in by_name
            ),
            gpus=_least(read_count(each.get(self._complexes.gpu or "", "")) for each in by_name),
        )

    def _full_name(self, name: str) -> str:
        for each in self._cell.complexes.values():
            if each.shortcut == name:
                return each.name
        return name

    def _partition(self, queue: ClusterQueue, hosts: Sequence[Host]) -> Partition:
        instances = [host.queues[queue.name] for host in hosts if queue.name in host.queues]
        quotas = [self._quota(p, queue.name) for p in self.projects() if _takes(queue, p)]
        allowed = _most(each.cpus for each in quotas)
        cores = _cores(queue.slots, queue, self._complexes)
        return Partition(
            name=queue.name,
            is_up=any(each.is_up for each in instances),
            max_seconds=queue.max_seconds,
            accounts=queue.projects or None,
            denied_accounts=queue.denied_projects,
            per_job=Ceiling(
                cpus=cores if allowed is None else min(cores, allowed),
                memory_bytes=_most(each.memory_bytes for each in quotas),
                gpus=_most(each.gpus for each in quotas),
            ),
        )


def _cores(slots: int, queue: ClusterQueue, complexes: Complexes) -> int:
    """Return how many of these slots of a queue one job can have: more than one by `-pe` only."""
    return slots if complexes.parallel_environment in queue.environments else min(slots, 1)


def _takes(queue: ClusterQueue, project: str) -> bool:
    if queue.projects:
        return project in queue.projects
    return project not in queue.denied_projects


def _least(numbers: Iterable[int | None]) -> int | None:
    return min((number for number in numbers if number is not None), default=None)


def _most(numbers: Iterable[int | None]) -> int | None:
    """Return the largest, of which None, no limit, is the largest of all."""
    every = list(numbers)
    return None if None in every else max((n for n in every if n is not None), default=None)


# --- hosts -------------------------------------------------------------------------------------


def shapes(
    hosts: Sequence[Host],
    queues: Sequence[ClusterQueue],
    configuration: Configuration,
    complexes: Complexes,
) -> tuple[Shape, ...]:
    """Return the hosts that are up and have one of `queues`, alike ones together."""
    alike: dict[tuple[tuple[str, ...], int, int, int], list[tuple[str, Free]]] = {}
    offered = {queue.name: queue for queue in queues}
    for host in hosts:
        names = tuple(n for n, each in host.queues.items() if n in offered and each.is_up)
        if not host.is_up or not names:
            continue
        has = configuration.capacities.get(host.name, {})
        cores = max(_cores(host.queues[n].slots, offered[n], complexes) for n in names)
        cpus = _with_limit(cores, has.get("slots"))
        memory_bytes = read_memory(has.get(complexes.memory, "")) or host.memory_bytes
        gpus = max(_gpus(values, complexes) for values in (has, *_values(offered, names)))
        key = (names, cpus, memory_bytes, gpus)
        alike.setdefault(key, []).append((host.name, _free(host, names, key, complexes)))
    return tuple(
        Shape(
            nodes=tuple(name for name, _ in members),
            partitions=names,
            cpus=cpus,
            memory_bytes=memory_bytes,
            gpus={"": gpus} if gpus else {},
            free=tuple(free for _, free in members),
        )
        for (names, cpus, memory_bytes, gpus), members in alike.items()
    )


def _values(
    queues: Mapping[str, ClusterQueue], names: Iterable[str]
) -> Iterable[Mapping[str, str]]:
    return (queues[name].values for name in names)


def _gpus(values: Mapping[str, str], complexes: Complexes) -> int:
    return read_count(values.get(complexes.gpu or "", "")) or 0


def _free(
    host: Host, names: tuple[str, ...], has: tuple[object, int, int, int], complexes: Complexes
) -> Free:
    _, cpus, memory_bytes, gpus = has
    left = max(host.queues[name].slots - host.queues[name].used for name in names)
    free_memory = read_memory(host.free.get(complexes.memory, ""))
    free_gpus = read_count(host.free.get(complexes.gpu or "", ""))
    return Free(
        cpus=max(0, min(_with_limit(left, host.free.get("slots")), cpus)),
        memory_bytes=memory_bytes if free_memory is None else free_memory,
        gpus={"": gpus if free_gpus is None else free_gpus} if gpus else {},
    )


def _with_limit(slots: int, limit: str | None) -> int:
    most = read_count(limit or "")
    return slots if most is None else min(slots, most)


# --- the rest ----------------------------------------------------------------------------------


def _own_job(entry: Entry) -> OwnJob:
    return OwnJob(
        id=entry.id,
        name=entry.name,
        state=_STATES[entry.phase],
        is_interactive=entry.name in _INTERACTIVE,
        partition=entry.queue,
        account=entry.project,
        cpus=entry.slots,
        since=entry.submitted_at if entry.is_pending else entry.started_at,
    )


def notes(configuration: Configuration, complexes: Complexes) -> tuple[str, ...]:
    """Return what an administrator should know: settings that do not fit the cell."""
    found: list[str] = []
    for what, name, per_slot in (
        ("memory", complexes.memory, complexes.memory_per_slot),
        ("gpu", complexes.gpu, complexes.gpu_per_slot),
    ):
        known = configuration.complexes.get(name) if name else None
        if name and known is None:
            found.append(f"no-{what}-complex")
        elif known is not None and known.consumable == ("JOB" if per_slot else "YES"):
            found.append(f"{what}-counted-otherwise")
    if not configuration.explains:
        found.append("no-scheduling-info")
    environment = complexes.parallel_environment
    if environment and not any(environment in each.environments for each in configuration.queues):
        found.append("no-parallel-environment")
    return tuple(found)
