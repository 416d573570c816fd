"""
What one person can have of the cluster: facts shared by everybody, and those of this person.

What is the same for all is asked for once and kept (anchors 5.7): the queue, and nodes with what
is free on them, for a minute, the rest of the structure for five, what hardly ever changes and
each person's associations for fifteen. However many people look at the form, the cluster is asked
a few times a minute, by the hub's own account; only associations are asked for as the person.
"""

import grp
import pwd
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from os import getgrouplist
from typing import Final, TypeVar

import anyio

from perijove.domain.offer import Account, Offer, Partition, Qos, Shape
from perijove.kit.clock import monotonic
from perijove.spawners.batch.scheduler import Command, Result, Run, RunAs, RunForForm
from perijove.spawners.batch.shared import Asked, Shared, renew
from perijove.spawners.slurm import cluster, people, queue
from perijove.spawners.slurm.ceilings import lower, tighter

T = TypeVar("T")

_FREE_SECONDS: Final = 60.0
_STRUCTURE_SECONDS: Final = 300.0
_RARE_SECONDS: Final = 900.0
_MOST_PEOPLE: Final = 2000

Accounts = tuple[Account, ...]


class Discovery:
    """Finds out what each person can have of one cluster."""

    def __init__(self, jobs: Shared[queue.Rows], now: Callable[[], float] = monotonic) -> None:
        """`jobs`: the queue, of which surveys ask for a newer one now and then."""
        self._now = now
        self._queue = jobs
        self._settings = Shared[cluster.Settings](_RARE_SECONDS, now)
        self._partitions = Shared[tuple[cluster.Rules, ...]](_STRUCTURE_SECONDS, now)
        self._reservations = Shared[tuple[cluster.Kept, ...]](_STRUCTURE_SECONDS, now)
        self._shapes = Shared[tuple[Shape, ...]](_FREE_SECONDS, now)
        self._addresses = Shared[Mapping[str, str]](_STRUCTURE_SECONDS, now)
        self._qos = Shared[Mapping[str, Qos]](_RARE_SECONDS, now)
        self._accounts: OrderedDict[str, Shared[Accounts]] = OrderedDict()

    async def offer(self, run: Run, form: RunForForm, run_as: RunAs, user: str) -> Offer:
        """Return what there is for `user`; raises `SpawnerTransient` when Slurm is silent."""
        # Surveys wait for the queue, too: it is asked for where they ask. So are the settings, for
        # then the turns of both sorts together are enough for a first form.
        read_settings = _asking(run, cluster.SETTINGS, cluster.read_settings)
        first: list[Asked] = [
            (self._settings, read_settings),
            (self._queue, partial(queue.ask, run)),
        ]
        await renew(first, form.has_turn)
        settings, jobs = self._settings.known.value, self._queue.known
        await renew(self._facts(form.run, settings), form.has_turn)
        every_qos = self._qos.known.value if settings.has_accounting else {}
        accounts = await self._accounts_of(user, run_as, settings)
        shapes = self._shapes.known
        groups = await anyio.to_thread.run_sync(unix_groups, user)
        names = frozenset(account.name for account in accounts)
        reservations = tuple(
            replace(each.reservation, is_usable=each.admits(user, names, groups))
            for each in self._reservations.known.value
        )
        has_reservation = any(each.is_usable for each in reservations)
        open_to = {qos for account in accounts for qos in account.qos}
        return Offer(
            as_of=min(shapes.as_of, jobs.as_of),
            accounts=accounts,
            qos=tuple(each for name, each in every_qos.items() if name in open_to),
            partitions=tuple(
                _limited(each, every_qos)
                for each in self._partitions.known.value
                if each.admits(groups, has_reservation=has_reservation)
            ),
            shapes=shapes.value,
            reservations=reservations,
            own_jobs=queue.read_own(jobs.value, user),
            must_name_account=settings.needs_account
            and not any(account.is_default for account in accounts),
            notes=() if settings.has_accounting else ("no-accounting",),
        )

    async def addresses(self, run: Run, nodes: Sequence[str]) -> Mapping[str, str]:
        """Return where the cluster reaches those of `nodes` that it knows."""
        known = await self._addresses.get(_asking(run, cluster.NODES, cluster.read_addresses))
        return {node: known.value[node] for node in nodes if node in known.value}

    def _facts(self, run: Run, settings: cluster.Settings) -> list[Asked]:
        """Return what everybody's form shows, with how to ask for it."""
        facts: list[Asked] = [
            (self._shapes, _asking(run, cluster.NODES, cluster.read_shapes)),
            (self._partitions, _asking(run, cluster.PARTITIONS, cluster.read_partitions)),
            (self._reservations, _asking(run, cluster.RESERVATIONS, cluster.read_reservations)),
        ]
        if settings.has_accounting:
            facts.append((self._qos, _asking(run, people.ask_for_qos(), people.read_qos)))
        return facts

    async def _accounts_of(self, user: str, run_as: RunAs, settings: cluster.Settings) -> Accounts:
        if not settings.has_accounting:
            return ()
        ask = partial(_ask_for_accounts, run_as, user, settings.cluster)
        return (await self._of(user).get(ask)).value

    def _of(self, user: str) -> Shared[Accounts]:
        """Return what is kept of one person; the ones who asked longest ago are forgotten."""
        kept = self._accounts.setdefault(user, Shared(_RARE_SECONDS, self._now))
        self._accounts.move_to_end(user)
        if len(self._accounts) > _MOST_PEOPLE:
            self._accounts.popitem(last=False)
        return kept


def unix_groups(user: str) -> frozenset[str]:
    """Return the names of a person's Unix groups; none for somebody unknown here. Blocks."""
    try:
        person = pwd.getpwnam(user)
    except (KeyError, ValueError):
        return frozenset()
    found = set()
    for number in getgrouplist(person.pw_name, person.pw_gid):
        try:
            found.add(grp.getgrgid(number).gr_name)
        except KeyError:
            continue
    return frozenset(found)


def _asking(run: Run, command: Command, read: Callable[[Result], T]) -> Callable[[], Awaitable[T]]:
    """Return what asks and reads; off the loop, for there may be thousands of nodes."""

    async def ask() -> T:
        return await anyio.to_thread.run_sync(read, await run(command))

    return ask


async def _ask_for_accounts(run_as: RunAs, user: str, of: str) -> Accounts:
    (own,) = await run_as(user, [people.ask_for_person(user, of)])
    accounts = people.read_accounts(own)
    if not accounts:
        return ()
    (shared,) = await run_as(user, [people.ask_for_accounts(list(accounts), of)])
    return people.with_shared_limits(accounts, shared)


def _limited(rules: cluster.Rules, every: Mapping[str, Qos]) -> Partition:
    """Return a partition with the limits of its own QOS, which hold for every job in it."""
    partition, qos = rules.partition, every.get(rules.qos)
    if qos is None:
        return partition
    return replace(
        partition,
        max_seconds=lower(partition.max_seconds, qos.max_seconds),
        per_job=tighter(partition.per_job, qos.per_job),
    )
