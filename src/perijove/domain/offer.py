"""
What one person can have of one cluster, as its scheduler says it: discovery (failure 5.7).

The words are Slurm's where the schedulers differ: Grid Engine's queue is a partition here, its
project an account. None always means: the scheduler sets no limit, or does not say.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """The most that something allows: one job, one person at a time, or one group."""

    cpus: int | None = None
    memory_bytes: int | None = None
    gpus: int | None = None
    gpus_by_type: Mapping[str, int] = field(default_factory=dict)
    jobs: int | None = None
    """Jobs that run at once."""
    submitted: int | None = None
    """Jobs that run or wait at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What a person's use is charged to: an association, or a Grid Engine project."""

    name: str
    is_default: bool = False
    qos: tuple[str, ...] = ()
    """Those that may be asked for with it; empty: the cluster has none."""
    default_qos: str = ""
    partitions: tuple[str, ...] = ()
    """The only partitions it is good for; empty: all."""
    max_seconds: int | None = None
    per_job: Ceiling = Ceiling()
    per_person: Ceiling = Ceiling()


@dataclass(frozen=True, slots=True, kw_only=True)
class Qos:
    """A quality of service."""

    name: str
    max_seconds: int | None = None
    per_job: Ceiling = Ceiling()
    per_person: Ceiling = Ceiling()
    group: Ceiling = Ceiling()


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Nodes that are alike: how many, what one of them has, and what is free now."""

    nodes: tuple[str, ...]
    """Names of those that are up."""
    partitions: tuple[str, ...]
    cpus: int
    memory_bytes: int
    gpus: Mapping[str, int] = field(default_factory=dict)
    """GPUs of one node by type; "" is the type of untyped ones. MIG slices and shards too."""
    features: frozenset[str] = frozenset()
    free: tuple["Free", ...] = ()
    """What is free on each node of which it is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Free:
    """What one node has left at this moment."""

    cpus: int
    memory_bytes: int
    gpus: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """A set of nodes with rules; Grid Engine's queue."""

    name: str
    is_default: bool = False
    is_up: bool = True
    max_seconds: int | None = None
    default_seconds: int | None = None
    accounts: tuple[str, ...] | None = None
    """The only accounts allowed; None: all."""
    denied_accounts: tuple[str, ...] = ()
    qos: tuple[str, ...] | None = None
    """The only QOS allowed; None: all."""
    denied_qos: tuple[str, ...] = ()
    per_job: Ceiling = Ceiling()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Nodes kept for some people, or for maintenance, for a time."""

    name: str
    starts_at: datetime
    ends_at: datetime
    partition: str = ""
    nodes: tuple[str, ...] = ()
    is_maintenance: bool = False
    is_usable: bool = False
    """This person may ask for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnJob:
    """A job of the same person that is not ours to manage; it takes of the same limits."""

    id: str
    name: str
    state: str
    """``running``, ``queued``, ``held`` or ``suspended``."""
    is_interactive: bool = False
    partition: str = ""
    account: str = ""
    cpus: int | None = None
    gpus: int | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One person's view of one cluster at one moment."""

    as_of: datetime
    accounts: tuple[Account, ...] = ()
    qos: tuple[Qos, ...] = ()
    partitions: tuple[Partition, ...] = ()
    shapes: tuple[Shape, ...] = ()
    reservations: tuple[Reservation, ...] = ()
    """Active or coming, maintenance among them, the next first."""
    own_jobs: tuple[OwnJob, ...] = ()
    must_name_account: bool = False
    """The scheduler refuses jobs without an account of one's own."""
    notes: tuple[str, ...] = field(default=())
    """Codes of what could not be found out, such as ``no-accounting``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objection:
    """What a scheduler has against a request."""

    field: str
    """Which option is the culprit; "" when the scheduler does not say."""
    code: str
    """A stable word that the catalogue of reasons knows."""
    words: str
    """The scheduler's own words."""
