"""Nodes, partitions and reservations as a real ``scontrol`` shows them."""

from datetime import timedelta

import pytest

from perijove.domain.errors import SpawnerTransient
from perijove.domain.offer import Free
from perijove.spawners.batch.scheduler import Result
from perijove.spawners.slurm.cluster import (
    read_partitions,
    read_reservations,
    read_settings,
    read_shapes,
)
from tests.unit.spawners.slurm.corpus import failed, said

MIB = 2**20
NOBODY: frozenset[str] = frozenset()


def _lines(*lines: str) -> Result:
    return Result(status=0, stdout="".join(f"{line}\n" for line in lines), stderr="")


def _one_line_each(name: str) -> Result:
    """Return what ``--oneliner`` makes of an answer in several lines a record."""
    records = said(name).stdout.strip().split("\n\n")
    return _lines(*(" ".join(record.split()) for record in records))


def _node(**changes: str) -> str:
    fields = {"NodeName": "n1", "CPUAlloc": "0", "CPUEfctv": "8", "CPUTot": "8", "Gres": "(null)",
              "RealMemory": "8000", "AllocMem": "0", "State": "IDLE", "Partitions": "cpu",
              "ActiveFeatures": "(null)"} | changes  # fmt: skip
    return " ".join(f"{key}={value}" for key, value in fields.items())


def test_real_nodes_become_shapes() -> None:
    """Nodes that are alike come together, and one that is down is not there."""
    shapes = read_shapes(_one_line_each("scontrol-show-node.txt"))
    assert [shape.nodes for shape in shapes] == [("cpu1",), ("cpu2",), ("gpu1",)]
    cpu1, _, gpu1 = shapes
    assert cpu1.partitions == ("compute", "short", "closed", "rrgonly")
    assert cpu1.features == {"cascade", "avx2"}
    assert cpu1.free == (Free(cpus=0, memory_bytes=(8000 - 2048) * MIB),)
    assert gpu1.gpus == {"test": 2}


def test_alike_nodes_come_together() -> None:
    """One shape lists all its nodes, with what each has left."""
    gres = {"Gres": "gpu:a100:4(S:0-1)", "GresUsed": "gpu:a100:3(IDX:0-2)"}
    free = {"Gres": "gpu:a100:4(S:0-1)", "GresUsed": "gpu:a100:0(IDX:N/A)"}
    (shape,) = read_shapes(_lines(_node(**gres), _node(NodeName="n2", CPUAlloc="3", **free)))
    assert shape.nodes == ("n1", "n2")
    assert [each.gpus for each in shape.free] == [{"a100": 1}, {"a100": 4}]
    assert [each.cpus for each in shape.free] == [8, 5]


def test_what_the_system_keeps_is_not_offered() -> None:
    """Cores and memory that are reserved for the node's own system cannot be asked for."""
    (shape,) = read_shapes(_lines(_node(CPUEfctv="6", MemSpecLimit="1000")))
    assert (shape.cpus, shape.memory_bytes) == (6, 7000 * MIB)


@pytest.mark.parametrize(
    "state",
    ["DOWN", "DOWN*", "IDLE+DRAIN", "MIXED+DRAIN", "IDLE+NOT_RESPONDING", "DOWN+NOT_RESPONDING",
     "FUTURE", "UNKNOWN", "IDLE+FAIL", "IDLE+INVALID_REG"],
)  # fmt: skip
def test_node_that_takes_no_jobs_is_not_offered(state: str) -> None:
    """What is down, drained or lost makes no bound larger."""
    assert read_shapes(_lines(_node(State=state))) == ()


@pytest.mark.parametrize("state", ["IDLE+MAINT", "IDLE+RESERVED", "MIXED+MAINT"])
def test_node_in_a_reservation_has_nothing_free(state: str) -> None:
    """It may be asked for, for afterwards; it is not free now."""
    (shape,) = read_shapes(_lines(_node(State=state)))
    assert (shape.nodes, shape.free) == (("n1",), ())


@pytest.mark.parametrize(
    "state", ["IDLE", "MIXED", "ALLOCATED", "IDLE+PLANNED", "IDLE+CLOUD+POWERED_DOWN", "COMPLETING"]
)
def test_node_that_takes_jobs_is_offered(state: str) -> None:
    """Nodes that are in use, planned for, or powered down until needed count."""
    assert len(read_shapes(_lines(_node(State=state)))) == 1


def test_node_of_no_partition_is_not_offered() -> None:
    """Nobody can ask for it."""
    assert read_shapes(_lines(_node(Partitions=""))) == ()


def test_real_partitions_are_read() -> None:
    """Limits, defaults, state and allowed accounts are those of the configuration."""
    rules = read_partitions(said("scontrol-show-partition-oneliner.txt"))
    found = {each.partition.name: each.partition for each in rules}
    assert list(found) == ["compute", "short", "gpu", "closed", "rrgonly"]
    assert found["compute"].is_default
    assert (found["compute"].max_seconds, found["compute"].default_seconds) == (36_000, 3600)
    assert (found["short"].max_seconds, found["short"].is_default) == (1800, False)
    assert not found["closed"].is_up
    assert (found["closed"].default_seconds, found["closed"].accounts) == (None, None)
    assert found["rrgonly"].accounts == ("rrg-bob",)
    assert all(each.admits(NOBODY, has_reservation=False) for each in rules)


def test_partition_is_for_its_groups() -> None:
    """Unix groups, root's own partitions and those for reservations only are kept apart."""
    groups, root, reserved = read_partitions(
        _lines(
            "PartitionName=a AllowGroups=staff,chem MaxCPUsPerNode=4 MaxMemPerNode=1000 State=UP",
            "PartitionName=b AllowGroups=ALL RootOnly=YES State=UP DenyAccounts=x,y",
            "PartitionName=c AllowGroups=ALL ReqResv=YES State=UP DenyQos=z QoS=part",
        )
    )
    assert groups.admits(frozenset({"chem"}), has_reservation=False)
    assert not groups.admits(frozenset({"bio"}), has_reservation=True)
    assert groups.partition.per_job.cpus == 4
    assert groups.partition.per_job.memory_bytes == 1000 * MIB
    assert not root.admits(frozenset({"root"}), has_reservation=True)
    assert root.partition.denied_accounts == ("x", "y")
    assert not reserved.admits(NOBODY, has_reservation=False)
    assert reserved.admits(NOBODY, has_reservation=True)
    assert (reserved.partition.denied_qos, reserved.qos) == (("z",), "part")


def test_real_reservation_is_maintenance() -> None:
    """Maintenance is known as such, with its nodes and times, and is not for everybody."""
    (kept,) = read_reservations(_one_line_each("scontrol-show-reservation.txt"))
    reservation = kept.reservation
    assert (reservation.name, reservation.nodes) == ("maint", ("cpu1",))
    assert reservation.is_maintenance
    assert reservation.ends_at - reservation.starts_at == timedelta(hours=2)
    assert not kept.admits("alice", frozenset({"def-alice"}), NOBODY)
    assert kept.admits("root", NOBODY, NOBODY)


@pytest.mark.parametrize(
    ("whom", "may"),
    [
        ("Users=alice,bob", True),
        ("Users=bob", False),
        ("Users=(null) Accounts=def-a", True),
        ("Users=bob Accounts=def-a", True),
        ("Users=-alice Accounts=def-a", False),
        ("Users=-bob Accounts=def-a", True),
        ("Users=-bob", True),
        ("Accounts=-def-a", False),
        ("Groups=chem", True),
        ("Groups=bio", False),
    ],
)
def test_reservation_is_for_whom_it_names(whom: str, may: bool) -> None:
    """People, accounts and groups may be named, or left out with a dash."""
    line = f"ReservationName=r StartTime=1795188683 EndTime=1795192283 Nodes=n1 {whom}"
    (kept,) = read_reservations(_lines(line))
    assert kept.admits("alice", frozenset({"def-a"}), frozenset({"chem"})) is may


def test_next_reservation_comes_first() -> None:
    """They are in the order in which they begin; one without times is left out."""
    times = {"a": "1795188683", "b": "1795180000", "c": "N/A"}
    lines = [
        f"ReservationName={name} StartTime={start} EndTime=1795192283 Users=x"
        for name, start in times.items()
    ]
    found = read_reservations(_lines(*lines))
    assert [each.reservation.name for each in found] == ["b", "a"]


def test_no_reservation_is_none() -> None:
    """Slurm says so in a sentence."""
    assert read_reservations(_lines("No reservations in the system")) == ()


def test_real_settings_are_read() -> None:
    """The cluster's name, its accounting, and whether an association is needed."""
    settings = read_settings(said("scontrol-show-config.txt"))
    assert settings.cluster == "testbed"
    assert settings.has_accounting
    assert settings.needs_account


def test_cluster_without_accounting_needs_no_account() -> None:
    """A small cluster has neither associations nor QOS."""
    settings = read_settings(
        _lines("AccountingStorageEnforce = none", "AccountingStorageType = (null)")
    )
    assert (settings.cluster, settings.has_accounting, settings.needs_account) == ("", False, False)


def test_silent_controller_has_no_nodes_to_tell() -> None:
    """A failed question is not a cluster without nodes."""
    with pytest.raises(SpawnerTransient):
        read_shapes(failed("slurm_load_node error: Unable to contact slurm controller"))
