"""
Which choices go together: account, partition, QOS, time, nodes, maintenance (failure 5.7).

Pure over what a scheduler has said. A request that passes fits at least one kind of node; one
that does not is told why, by field, fact and limit. What was left to the scheduler is judged
with what the scheduler takes then. Limits that only make a job wait are no faults.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any, Final

from perijove.domain.faults import Fault
from perijove.domain.market import (
    Market,
    accounts_for,
    find_accounts,
    find_partition,
    find_qos,
    is_shard,
    most_gpus,
    most_of,
    shapes_in,
    size_of,
)
from perijove.domain.offer import Account, Ceiling, Offer, Partition, Qos, Reservation, Shape
from perijove.domain.profile import (
    ACCOUNT,
    FEATURES,
    GPU_TYPE,
    PARTITION,
    QOS,
    RESERVATION,
    RESOURCES,
    Value,
    as_json,
    term,
)

BEFORE_MAINTENANCE: Final = "over-maintenance"
"""The code of a time that goes beyond the beginning of the next maintenance."""
_SLACK: Final = 60
"""Seconds between the choice and the start, at least, that a time before maintenance leaves."""
_ROUND: Final = 300
"""Such a time is said in whole multiples of so many seconds."""


@dataclass(frozen=True, slots=True)
class Most:
    """The most of a quantity that a request can have, and what sets the limit."""

    value: Fraction
    code: str
    """Of the fault that more would be."""
    params: Mapping[str, str]


def impossible(market: Market, profile: str, values: Mapping[str, Value]) -> list[Fault]:
    """Return why no node could ever run what is asked; nothing when one could."""
    if market.offer is None:
        return []
    request = _Request.of(market, market.offer, profile, values)
    if faults := list(request.membership()):
        return faults
    faults = list(request.nodes())
    said = {fault.field for fault in faults}
    return faults + [
        request.fault(name, most.code, limit=most.value, **most.params)
        for name, most in request.ceilings().items()
        if name not in said and request.asks_more(name, most)
    ]


def ceilings(market: Market, values: Mapping[str, Value]) -> Mapping[str, Most]:
    """Return the most of each quantity that can go together with `values`."""
    if market.offer is None:
        return {}
    return _Request.of(market, market.offer, "", values).ceilings()


def rules(market: Market) -> list[dict[str, Any]]:
    """
    Return what follows from the choice of a partition, account or QOS, as data for clients.

    Each is ``{"when": {field: value}, "then": {field: {"maximum": …} or {"enum": […]}}}``:
    whatever `impossible` lets pass obeys all of them. Names are listed without "".
    """
    offer = market.offer
    if offer is None:
        return []
    found = [_rule(PARTITION, each.name, _of_partition(offer, each)) for each in offer.partitions]
    accounts = dict.fromkeys(account.name for account in offer.accounts)
    found += [_rule(ACCOUNT, name, _of_account(offer, name)) for name in accounts]
    found += [_rule(QOS, each.name, _of_qos(offer, each)) for each in offer.qos]
    return [rule for rule in found if rule["then"]]


# --- one request ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """A request with what the scheduler takes where nothing is asked."""

    market: Market
    offer: Offer
    profile: str
    values: Mapping[str, Value]
    partition: Partition | None
    accounts: Sequence[Account]
    """Rows of the one account; empty when it is not known."""
    qos: Qos | None
    qos_name: str
    reservation: Reservation | None

    @classmethod
    def of(
        cls, market: Market, offer: Offer, profile: str, values: Mapping[str, Value]
    ) -> "_Request":
        chosen = {name: str(values.get(name) or "") for name in (ACCOUNT, QOS, RESERVATION)}
        reservation = next(
            (each for each in offer.reservations if each.name == chosen[RESERVATION]), None
        )
        partition = str(values.get(PARTITION) or "")
        if not partition and reservation is not None:
            partition = reservation.partition
        place = find_partition(offer, partition or market.preferred(PARTITION))
        accounts = find_accounts(offer, chosen[ACCOUNT] or market.preferred(ACCOUNT))
        if place is not None:  # of several rows, the one for this partition decides
            fit = accounts_for(offer, place)
            accounts.sort(key=lambda each: each not in fit)
        qos = chosen[QOS] or next((each.default_qos for each in accounts if each.default_qos), "")
        return cls(
            market=market,
            offer=offer,
            profile=profile,
            values=values,
            partition=place,
            accounts=accounts,
            qos=find_qos(offer, qos),
            qos_name=qos,
            reservation=reservation,
        )

    # --- who may use what ---------------------------------------------------------------------

    def membership(self) -> Iterator[Fault]:
        """Yield what does not belong together, whatever its size."""
        yield from self._account_and_partition()
        if not self.qos_name:
            return
        if self.accounts and not self._account_has_qos():
            field = QOS if self.values.get(QOS) else ACCOUNT
            yield self.fault(field, self._code("qos-not-for", ACCOUNT), account=self._account)
        if (partition := self.partition) is not None:
            only = partition.qos is not None and self.qos_name not in partition.qos
            if only or self.qos_name in partition.denied_qos:
                yield self.fault(QOS, self._code("qos-not-for", PARTITION), partition=self._place)

    def _account_and_partition(self) -> Iterator[Fault]:
        partition = self.partition
        if not self.accounts and self.offer.accounts and self.market.must_name_account:
            yield self.fault(ACCOUNT, self._code("must-name", ACCOUNT))
        if partition is None:
            return
        if not partition.is_up:
            yield self.fault(PARTITION, self._code("down", PARTITION), partition=partition.name)
        elif self.accounts:
            fit = accounts_for(self.offer, partition)
            if any(each in fit for each in self.accounts):
                return
            if not self._account:  # no project, which other queues may take
                yield self.fault(ACCOUNT, self._code("must-name", ACCOUNT))
                return
            field = PARTITION if self.values.get(PARTITION) else ACCOUNT
            code = self._code("not-for", ACCOUNT)
            yield self.fault(field, code, account=self._account, partition=partition.name)

    def _account_has_qos(self) -> bool:
        known = [each.qos for each in self.accounts if each.qos]
        return not known or any(self.qos_name in names for names in known)

    # --- sizes --------------------------------------------------------------------------------

    def ceilings(self) -> dict[str, Most]:
        """Return the tightest limit of each quantity that has one."""
        found: dict[str, Most] = {}
        for name in RESOURCES:
            limits = [*self._limits(name), *self._node_limits(name)]
            if limits:
                found[name] = min(limits, key=lambda most: most.value)
        return found

    def _limits(self, name: str) -> Iterator[Most]:
        """Yield what partition, QOS, account and reservation allow one job."""
        account = self.accounts[0] if self.accounts else None
        if self.partition is not None:
            limits = (_seconds_or(name, self.partition), self._part(name, self.partition.per_job))
            yield from self._each(PARTITION, self.partition.name, limits)
        own = self._two(name, account)
        theirs = self._two(name, self.qos)
        # A QOS that sets a limit takes the place of the account's.
        yield from self._each(QOS, self.qos_name, theirs)
        left = (mine for mine, qos in zip(own, theirs, strict=True) if qos is None)
        yield from self._each(ACCOUNT, self._account, left)
        if self.qos is not None:
            yield from self._each(QOS, self.qos_name, [self._part(name, self.qos.group)])
        if name == "time" and (reservation := self.reservation) is not None:
            begins = max(self.market.now, reservation.starts_at)
            left_over = int((reservation.ends_at - begins).total_seconds())
            yield from self._each(RESERVATION, reservation.name, [_whole(left_over)])

    def _two(self, name: str, who: Account | Qos | None) -> tuple[int | None, ...]:
        if who is None:
            return (None, None, None)
        return (
            who.max_seconds if name == "time" else None,
            self._part(name, who.per_job),
            self._part(name, who.per_person),
        )

    def _part(self, name: str, ceiling: Ceiling) -> int | None:
        if name == "cpu":
            return ceiling.cpus
        if name == "memory":
            return ceiling.memory_bytes
        if name != "gpu":
            return None
        typed = ceiling.gpus_by_type.get(self._gpu_type) if self._gpu_type else None
        if is_shard(self._gpu_type):
            return typed  # limits of whole GPUs do not count them
        return min((each for each in (ceiling.gpus, typed) if each is not None), default=None)

    def _each(self, field: str, of: str, limits: Iterable[int | None]) -> Iterator[Most]:
        word = term(field, self.market.kind)
        for limit in limits:
            if limit is not None:
                yield Most(Fraction(limit), f"over-{word}", {"name": of})

    def asks_more(self, name: str, most: Most) -> bool:
        """Tell whether more is asked for than can be had."""
        asked = self.values.get(name)
        return isinstance(asked, Fraction) and asked > most.value

    # --- nodes --------------------------------------------------------------------------------

    def nodes(self) -> Iterator[Fault]:
        """Yield why no node has what was asked for, as far as it has no number."""
        if not self.offer.shapes:
            return
        shapes = self._shapes()
        if not shapes:
            field = RESERVATION if self.reservation else PARTITION
            code = "reservation-empty" if self.reservation else self._code("down", PARTITION)
            yield self.fault(field, code, partition=self._place)
        elif not self._with_features(shapes):
            yield self.fault(FEATURES, self._in("no-such-features"), partition=self._place)
        elif not self._with_gpus(self._with_features(shapes)):
            most = most_of("gpu", self._with_features(shapes), gpu_type=self._gpu_type)
            yield self.fault(
                "gpu",
                self._in("no-such-gpu"),
                limit=most or Fraction(0),
                gpu_type=self._gpu_type or "GPU",
                partition=self._place,
            )

    def _node_limits(self, name: str) -> Iterator[Most]:
        """Yield the most that one node has of it, among those that have the rest."""
        if not self.offer.shapes:
            return
        fit = self._with_features(self._shapes())
        if name == "gpu":
            most = most_of("gpu", fit, gpu_type=self._gpu_type)
            if most is not None:
                kind = {"gpu_type": self._gpu_type or "GPU", "partition": self._place}
                yield Most(most, self._in("no-such-gpu"), kind)
            return
        fit = self._with_gpus(fit)
        for other in ("memory", "cpu"):
            if name == other:
                most = most_of(name, fit)
                if most is not None:
                    yield Most(most, self._in("over-node"), {"partition": self._place})
                return
            fit = _filter(fit, self._has(other))
        yield from self._before_maintenance(fit)

    def _shapes(self) -> list[Shape]:
        place = None if self.partition is None else (self.partition.name,)
        shapes = shapes_in(self.offer, place)
        if self.reservation is not None and self.reservation.nodes:
            return _filter(shapes, lambda shape: bool(self._reserved(shape)))
        return shapes

    def _reserved(self, shape: Shape) -> list[str]:
        """Return the nodes of a kind that the request could run on."""
        if self.reservation is None or not self.reservation.nodes:
            return list(shape.nodes)
        return [node for node in shape.nodes if node in self.reservation.nodes]

    def _with_features(self, shapes: Sequence[Shape]) -> list[Shape]:
        return with_features(shapes, self.values)

    def _with_gpus(self, shapes: Sequence[Shape]) -> list[Shape]:
        if not self._gpus:
            return list(shapes)
        return _filter(shapes, self._has("gpu"))

    def _has(self, name: str) -> Callable[[Shape], bool]:
        asked = self.values.get(name)
        if not isinstance(asked, Fraction):
            return lambda shape: True
        return lambda shape: size_of(name, shape, gpu_type=self._gpu_type) >= asked

    # --- maintenance --------------------------------------------------------------------------

    def _before_maintenance(self, shapes: Sequence[Shape]) -> Iterator[Most]:
        """
        Yield how long it can run before the last of its nodes goes into maintenance.

        Nothing where that has begun, or leaves no time to speak of: then it waits for the end.
        """
        nodes = [(shape, node) for shape in shapes for node in self._reserved(shape)]
        begins = [self._next_maintenance(shape, node) for shape, node in nodes]
        known = [each for each in begins if each is not None]
        if not known or len(known) < len(begins):
            return
        latest = max(known)
        seconds = int((latest - self.market.now).total_seconds()) - _SLACK
        if seconds >= _ROUND:
            yield Most(_whole(seconds), BEFORE_MAINTENANCE, {"starts": latest.isoformat()})

    def _next_maintenance(self, shape: Shape, node: str) -> datetime | None:
        begins = [
            max(each.starts_at, self.market.now)
            for each in self.offer.reservations
            if each.is_maintenance and each.ends_at > self.market.now and _covers(each, shape, node)
        ]
        return min(begins, default=None)

    # --- words --------------------------------------------------------------------------------

    def fault(self, field: str, code: str, *, limit: Value = "", **params: str) -> Fault:
        """Return a fault of this request."""
        return Fault.of(
            profile=self.profile,
            field=field,
            code=code,
            limit=limit,
            asked=self.values.get(field, ""),
            kind=self.market.kind,
            params={"qos": self.qos_name, **params},
        )

    def _code(self, stem: str, field: str) -> str:
        return f"{stem}-{term(field, self.market.kind)}"

    def _in(self, stem: str) -> str:
        return f"{stem}-in" if self.partition else stem

    @property
    def _account(self) -> str:
        return self.accounts[0].name if self.accounts else ""

    @property
    def _place(self) -> str:
        return self.partition.name if self.partition else ""

    @property
    def _gpus(self) -> int:
        count = self.values.get("gpu")
        return int(count) if isinstance(count, Fraction) else 0

    @property
    def _gpu_type(self) -> str:
        return str(self.values.get(GPU_TYPE) or "")


def _seconds_or(name: str, partition: Partition) -> int | None:
    return partition.max_seconds if name == "time" else None


def _filter(shapes: Iterable[Shape], holds: Callable[[Shape], bool]) -> list[Shape]:
    return [shape for shape in shapes if holds(shape)]


def with_features(shapes: Iterable[Shape], values: Mapping[str, Value]) -> list[Shape]:
    """Return those of these nodes that have the features which are asked for."""
    wanted = set(values.get(FEATURES) or ())  # type: ignore[arg-type]
    return _filter(shapes, lambda shape: wanted <= shape.features)


def _covers(reservation: Reservation, shape: Shape, node: str) -> bool:
    """Tell whether a reservation takes this node, of this kind."""
    if reservation.nodes:
        return node in reservation.nodes
    return not reservation.partition or reservation.partition in shape.partitions


def _whole(seconds: int) -> Any:
    """Return a time as one says it: whole multiples of five minutes where it has any."""
    return Fraction(seconds // _ROUND * _ROUND if seconds >= _ROUND else max(seconds, 0))


# --- what follows from one choice -------------------------------------------------------------


def _rule(field: str, value: str, then: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    return {"when": {field: value}, "then": {name: each for name, each in then.items() if each}}


def _of_partition(offer: Offer, partition: Partition) -> dict[str, dict[str, Any]]:
    shapes = shapes_in(offer, (partition.name,))
    then = _of_ceiling(offer, partition.max_seconds, partition.per_job)
    for name in ("cpu", "memory", "gpu"):
        most = most_gpus(shapes) if name == "gpu" else most_of(name, shapes)
        if most is not None:
            limit = min(then.get(name, {}).get("maximum", most), most)
            then[name] = {"maximum": as_json(Fraction(limit))}
    if offer.shapes:
        then[GPU_TYPE] = {"enum": sorted({name for shape in shapes for name in shape.gpus if name})}
        then[FEATURES] = {"enum": sorted({name for shape in shapes for name in shape.features})}
    if offer.accounts:
        names = dict.fromkeys(each.name for each in accounts_for(offer, partition))
        then[ACCOUNT] = {"enum": list(names)}
    if offer.qos:
        allowed = [
            each.name
            for each in offer.qos
            if (partition.qos is None or each.name in partition.qos)
            and each.name not in partition.denied_qos
        ]
        then[QOS] = {"enum": allowed}
    return then


def _of_account(offer: Offer, name: str) -> dict[str, dict[str, Any]]:
    rows = find_accounts(offer, name)
    places = [
        each.name
        for each in offer.partitions
        if any(row in accounts_for(offer, each) for row in rows)
    ]
    qos = list(dict.fromkeys(qos for row in rows for qos in row.qos))
    return {
        PARTITION: {"enum": places} if offer.partitions else {},
        QOS: {"enum": qos} if qos else {},
    }


def _of_qos(offer: Offer, qos: Qos) -> dict[str, dict[str, Any]]:
    return _of_ceiling(offer, qos.max_seconds, qos.per_job)


def _of_ceiling(offer: Offer, seconds: int | None, ceiling: Ceiling) -> dict[str, dict[str, Any]]:
    shards = any(is_shard(kind) for shape in offer.shapes for kind in shape.gpus)
    limits = {
        "time": seconds,
        "cpu": ceiling.cpus,
        "memory": ceiling.memory_bytes,
        "gpu": None if shards else ceiling.gpus,
    }
    return {name: {"maximum": limit} for name, limit in limits.items() if limit is not None}


def maintenance(
    market: Market, within: timedelta, shapes: Sequence[Shape] = ()
) -> Reservation | None:
    """
    Return the next maintenance, or the present one, that begins within a time.

    Of `shapes` it has to take a node. Without any it may be any: during one no node may be up.
    """
    if market.offer is None:
        return None
    coming = [
        each
        for each in market.offer.reservations
        if each.is_maintenance
        and market.now < each.ends_at
        and each.starts_at < market.now + within
        and (
            not shapes
            or any(_covers(each, shape, node) for shape in shapes for node in shape.nodes)
        )
    ]
    return min(coming, key=lambda each: each.starts_at, default=None)
