"""
`Market`: what is known of the platform a profile starts on, for one person, at one moment.

What may be chosen at all is answered here, field by field; which choices go together is decided
in `combination.py`.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

from perijove.domain.offer import Account, Offer, Partition, Qos, Reservation, Shape
from perijove.domain.profile import (
    ACCOUNT,
    FEATURES,
    GPU_TYPE,
    MOST_NAMES,
    PARTITION,
    QOS,
    RESERVATION,
    is_name,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """One person's view of a platform that can tell what it has."""

    now: datetime
    kind: str = ""
    """Of the spawner: whose words are used."""
    offer: Offer | None = None
    """None: it has never answered, and nothing is known."""
    silent_since: datetime | None = None
    """Since when it does not answer; what is known is then of before."""

    def names(self, field: str, *, within: Collection[str] | None = None) -> tuple[str, ...] | None:
        """
        Return the names that a field can have, the platform's order; None when unknown.

        `within` are the only partitions that count for what nodes have.
        """
        if self.offer is None:
            return None
        found = _names(self.offer, field, self.now, within)
        return None if found is None else _safe(found)

    def preferred(self, field: str) -> str:
        """Return what the scheduler takes where nothing is asked; "" when it does not say."""
        if self.offer is None:
            return ""
        if field == PARTITION:
            return next((each.name for each in self.offer.partitions if each.is_default), "")
        if field == ACCOUNT:
            return next((each.name for each in self.offer.accounts if each.is_default), "")
        return ""

    @property
    def must_name_account(self) -> bool:
        """Whether the scheduler refuses who leaves the account to it."""
        return self.offer is not None and self.offer.must_name_account

    def most(self, field: str, within: Collection[str] | None) -> Fraction | None:
        """
        Return the most of a quantity that one job can have in the partitions `within`.

        Of cores, memory and GPUs that is what the biggest single node has; None: no limit known.
        """
        if self.offer is None:
            return None
        if field == "time":
            return _most_time(self.offer, within)
        shapes = shapes_in(self.offer, within)
        return most_gpus(shapes) if field == "gpu" else most_of(field, shapes)


def most_of(field: str, shapes: Iterable[Shape], *, gpu_type: str = "") -> Fraction | None:
    """Return how much of cores, memory or GPUs the biggest of these nodes has; None of none."""
    sizes = [size_of(field, shape, gpu_type=gpu_type) for shape in shapes]
    return Fraction(max(sizes)) if sizes else None


def size_of(field: str, shape: Shape, *, gpu_type: str = "") -> int:
    """Return how much of cores, memory or GPUs one such node has."""
    if field == "cpu":
        return shape.cpus
    if field == "memory":
        return shape.memory_bytes
    if gpu_type:
        return shape.gpus.get(gpu_type, 0)
    return whole_gpus(shape.gpus)


def whole_gpus(gpus: Mapping[str, int]) -> int:
    """Return how many GPUs of any type these are, those that are only shares left out."""
    return sum(count for kind, count in gpus.items() if not is_shard(kind))


def most_gpus(shapes: Iterable[Shape]) -> Fraction | None:
    """Return the most GPUs that one of these nodes has, of one type or of any; None of none."""
    sizes = [max(size_of("gpu", shape), *shape.gpus.values(), 0) for shape in shapes]
    return Fraction(max(sizes)) if sizes else None


def is_shard(kind: str) -> bool:
    """Tell whether a type of GPU is a share of one, which has to be asked for by its name."""
    return kind == "shard" or kind.startswith("shard:")


def shapes_in(offer: Offer, within: Collection[str] | None) -> list[Shape]:
    """Return the nodes of these partitions that are up; of all for None."""
    return [
        shape
        for shape in offer.shapes
        if shape.nodes and (within is None or not set(within).isdisjoint(shape.partitions))
    ]


def accounts_for(offer: Offer, partition: Partition) -> list[Account]:
    """Return the person's accounts that may use a partition."""
    return [
        each
        for each in offer.accounts
        if (not each.partitions or partition.name in each.partitions)
        and (partition.accounts is None or each.name in partition.accounts)
        and each.name not in partition.denied_accounts
    ]


def find_partition(offer: Offer, name: str) -> Partition | None:
    """Return the partition of a name."""
    return next((each for each in offer.partitions if each.name == name), None)


def find_accounts(offer: Offer, name: str) -> list[Account]:
    """Return what is known of an account: there may be one row for each partition."""
    return [each for each in offer.accounts if each.name == name]


def find_qos(offer: Offer, name: str) -> Qos | None:
    """Return the QOS of a name."""
    return next((each for each in offer.qos if each.name == name), None)


def usable_reservations(offer: Offer, now: datetime) -> list[Reservation]:
    """Return the reservations that this person may ask for."""
    return [
        each
        for each in offer.reservations
        if each.is_usable and not each.is_maintenance and each.ends_at > now
    ]


def _names(
    offer: Offer, field: str, now: datetime, within: Collection[str] | None
) -> Sequence[str] | None:
    if field == ACCOUNT:
        return [each.name for each in offer.accounts] or None
    if field == PARTITION:
        return [each.name for each in offer.partitions if _is_open(offer, each)] or None
    if field == QOS:
        known = bool(offer.accounts or offer.qos)
        return [name for each in offer.accounts for name in each.qos] if known else None
    if field == RESERVATION:
        return [each.name for each in usable_reservations(offer, now)]
    assert field in (GPU_TYPE, FEATURES)
    return _of_nodes(shapes_in(offer, within), field) if offer.shapes else None


def _of_nodes(shapes: Iterable[Shape], field: str) -> list[str]:
    if field == FEATURES:
        return sorted({name for shape in shapes for name in shape.features})
    return sorted({name for shape in shapes for name, count in shape.gpus.items() if count})


def _is_open(offer: Offer, partition: Partition) -> bool:
    return not offer.accounts or bool(accounts_for(offer, partition))


def _safe(names: Iterable[str]) -> tuple[str, ...]:
    """Return those that may be given back to the scheduler, each once."""
    return tuple(dict.fromkeys(filter(is_name, names)))[:MOST_NAMES]


def _most_time(offer: Offer, within: Collection[str] | None) -> Fraction | None:
    """Return the longest that any partition, and any account with any QOS, allows."""
    partitions = [
        each.max_seconds for each in offer.partitions if within is None or each.name in within
    ]
    people = []
    for account in offer.accounts:
        qos = [find_qos(offer, name) for name in account.qos] or [None]
        people += [
            each.max_seconds if each and each.max_seconds is not None else account.max_seconds
            for each in qos
        ]
    return min(filter(None, (_longest(partitions), _longest(people))), default=None)


def _longest(seconds: Sequence[int | None]) -> Fraction | None:
    known = [each for each in seconds if each is not None]
    return Fraction(max(known)) if known and len(known) == len(seconds) else None
