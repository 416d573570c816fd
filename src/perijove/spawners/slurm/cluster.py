"""The cluster as ``scontrol`` shows it: nodes, partitions, reservations, settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from perijove.domain.offer import Free, Partition, Reservation, Shape
from perijove.spawners.batch.scheduler import Command, Result
from perijove.spawners.slurm.ceilings import ceiling
from perijove.spawners.slurm.rejections import check_answer
from perijove.spawners.slurm.values import (
    Tres,
    expand_hosts,
    optional,
    read_duration,
    read_gres,
    read_instant,
    read_record,
    words,
)

NODES: Final[Command] = ["scontrol", "--oneliner", "--details", "show", "node"]
PARTITIONS: Final[Command] = ["scontrol", "--oneliner", "--all", "show", "partition"]
RESERVATIONS: Final[Command] = ["scontrol", "--oneliner", "show", "reservation"]
SETTINGS: Final[Command] = ["scontrol", "show", "config"]

_AWAY: Final = frozenset(
    {
        "BLOCKED", "DOWN", "DRAIN", "DRAINED", "DRAINING", "ERROR", "FAIL", "FAILING", "FUTURE",
        "INVAL", "INVALID", "INVALID_REG", "NOT_RESPONDING", "UNKNOWN",
    }
)  # fmt: skip
"""A node in any of these takes no jobs until somebody acts."""
_KEPT: Final = frozenset({"MAINT", "RESERVED"})
"""A node in any of these is up, but what is free there is not for everybody."""


def records(result: Result, key: str) -> Sequence[Mapping[str, str]]:
    """Return the records of one ``--oneliner`` answer, each of which begins with `key`."""
    check_answer(result, "scontrol")
    lines = [line for line in result.stdout.splitlines() if line.startswith(f"{key}=")]
    return [read_record(line) for line in lines]


# --- settings ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What of the cluster's configuration matters to who submits."""

    cluster: str
    has_accounting: bool
    needs_account: bool
    """Jobs without an association are refused."""


def read_settings(result: Result) -> Settings:
    """Read ``scontrol show config``."""
    check_answer(result, "scontrol")
    pairs = (line.partition("=")[::2] for line in result.stdout.splitlines())
    found = {key.strip(): value.strip() for key, value in pairs}
    enforced = set(words(found.get("AccountingStorageEnforce", "").lower()))
    return Settings(
        cluster=optional(found.get("ClusterName", "")),
        has_accounting=found.get("AccountingStorageType", "").endswith("slurmdbd"),
        needs_account=bool(enforced & {"associations", "limits", "qos", "safe", "all", "1"}),
    )


# --- nodes ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Kind:
    """What alike nodes have in common."""

    partitions: tuple[str, ...]
    cpus: int
    memory_bytes: int
    gpus: tuple[tuple[str, int], ...]
    features: frozenset[str]


def read_shapes(result: Result) -> tuple[Shape, ...]:
    """Return the nodes that take jobs, those that are alike together, the largest first."""
    names: dict[_Kind, list[str]] = {}
    free: dict[_Kind, list[Free]] = {}
    for node in records(result, "NodeName"):
        states = set(node.get("State", "UNKNOWN").replace("*", "+NOT_RESPONDING").split("+"))
        kind = _kind(node)
        if kind is None or states & _AWAY:
            continue
        names.setdefault(kind, []).append(node["NodeName"])
        if not states & _KEPT:
            free.setdefault(kind, []).append(_free(node, kind))
    shapes = [
        Shape(
            nodes=tuple(names[kind]),
            partitions=kind.partitions,
            cpus=kind.cpus,
            memory_bytes=kind.memory_bytes,
            gpus=dict(kind.gpus),
            features=kind.features,
            free=tuple(free.get(kind, ())),
        )
        for kind in names
    ]
    return tuple(sorted(shapes, key=lambda each: (-each.cpus, -each.memory_bytes, each.nodes)))


def read_addresses(result: Result) -> Mapping[str, str]:
    """Return where the cluster itself reaches each node, in service or not."""
    nodes = records(result, "NodeName")
    addresses = {node["NodeName"]: optional(node.get("NodeAddr", "")) for node in nodes}
    return {name: address for name, address in addresses.items() if address}


def _kind(node: Mapping[str, str]) -> _Kind | None:
    """Return what the node has for jobs; None if it is in no partition."""
    partitions = words(node.get("Partitions", ""))
    if not partitions:
        return None
    megabytes = _number(node, "RealMemory") - _number(node, "MemSpecLimit")
    return _Kind(
        partitions=partitions,
        # What the operating system keeps for itself is not counted.
        cpus=_number(node, "CPUEfctv") or _number(node, "CPUTot"),
        memory_bytes=max(0, megabytes) * 2**20,
        gpus=tuple(sorted(read_gres(node.get("Gres", "")).items())),
        features=frozenset(words(node.get("ActiveFeatures", ""))),
    )


def _free(node: Mapping[str, str], kind: _Kind) -> Free:
    used = read_gres(node.get("GresUsed", ""))
    return Free(
        cpus=max(0, kind.cpus - _number(node, "CPUAlloc")),
        memory_bytes=max(0, kind.memory_bytes - _number(node, "AllocMem") * 2**20),
        gpus={key: max(0, count - used.get(key, 0)) for key, count in kind.gpus},
    )


def _number(record: Mapping[str, str], key: str) -> int:
    text = record.get(key, "")
    return int(text) if text.isdecimal() and len(text) < 16 else 0


# --- partitions -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """A partition with those of its rules that depend on who asks."""

    partition: Partition
    qos: str
    """The QOS whose limits hold for every job in it; "" for none."""
    groups: tuple[str, ...] | None
    """The only Unix groups allowed; None: all."""
    root_only: bool
    needs_reservation: bool

    def admits(self, groups: frozenset[str], *, has_reservation: bool) -> bool:
        """Tell whether somebody in these groups may use it at all."""
        if self.root_only or (self.needs_reservation and not has_reservation):
            return False
        return self.groups is None or not groups.isdisjoint(self.groups)


def read_partitions(result: Result) -> tuple[Rules, ...]:
    """Return the partitions and their rules, in the cluster's order."""
    return tuple(_rules(each) for each in records(result, "PartitionName"))


def _rules(record: Mapping[str, str]) -> Rules:
    per_node = Tres(
        cpus=_number(record, "MaxCPUsPerNode") or None,
        memory_bytes=_number(record, "MaxMemPerNode") * 2**20 or None,
    )
    partition = Partition(
        name=record["PartitionName"],
        is_default=record.get("Default") == "YES",
        is_up=record.get("State") == "UP",
        max_seconds=read_duration(record.get("MaxTime", "")),
        default_seconds=read_duration(record.get("DefaultTime", "")),
        accounts=_only(record.get("AllowAccounts", "ALL")),
        denied_accounts=words(record.get("DenyAccounts", "")),
        qos=_only(record.get("AllowQos", "ALL")),
        denied_qos=words(record.get("DenyQos", "")),
        per_job=ceiling(per_node),
    )
    return Rules(
        partition=partition,
        qos=optional(record.get("QoS", "")),
        groups=_only(record.get("AllowGroups", "ALL")),
        root_only=record.get("RootOnly") == "YES",
        needs_reservation=record.get("ReqResv") == "YES",
    )


def _only(text: str) -> tuple[str, ...] | None:
    return None if text == "ALL" else words(text)


# --- reservations -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A reservation and whom it is for."""

    reservation: Reservation
    users: tuple[str, ...]
    accounts: tuple[str, ...]
    groups: tuple[str, ...]

    def admits(self, user: str, accounts: frozenset[str], groups: frozenset[str]) -> bool:
        """Tell whether `user`, with these accounts and Unix groups, may ask for it."""
        listed = (self.users, {user}), (self.accounts, accounts), (self.groups, groups)
        for names, own in listed:
            if any(name.startswith("-") and name[1:] in own for name in names):
                return False
        named = [(names, own) for names, own in listed if names and not names[0].startswith("-")]
        return any(not own.isdisjoint(names) for names, own in named) if named else True


def read_reservations(result: Result) -> tuple[Kept, ...]:
    """Return the reservations, active and coming, the next first."""
    kept = [each for record in records(result, "ReservationName") if (each := _kept(record))]
    return tuple(sorted(kept, key=lambda each: each.reservation.starts_at))


def _kept(record: Mapping[str, str]) -> Kept | None:
    starts, ends = (read_instant(record.get(key, "")) for key in ("StartTime", "EndTime"))
    if starts is None or ends is None:
        return None
    return Kept(
        reservation=Reservation(
            name=record["ReservationName"],
            starts_at=starts,
            ends_at=ends,
            partition=optional(record.get("PartitionName", "")),
            nodes=expand_hosts(record.get("Nodes", "")),
            is_maintenance="MAINT" in words(record.get("Flags", "")),
        ),
        users=words(record.get("Users", "")),
        accounts=words(record.get("Accounts", "")),
        groups=words(record.get("Groups", "")),
    )
