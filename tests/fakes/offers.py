"""One person's view of a small cluster, with something of everything."""

from datetime import UTC, datetime, timedelta

from perijove.domain.offer import (
    Account,
    Ceiling,
    Free,
    Offer,
    OwnJob,
    Partition,
    Qos,
    Reservation,
    Shape,
)

GIB = 2**30
NOW = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)


def cluster_offer(now: datetime = NOW) -> Offer:
    """
    Return three partitions, two accounts, two QOS and maintenance in ten hours.

    GPUs are in the partition gpu only, for two hours; the QOS high is for biology only; the
    account physics may not use gpu-private.
    """
    return Offer(
        as_of=now - timedelta(seconds=20),
        accounts=(
            Account(name="physics", is_default=True, qos=("normal",), default_qos="normal"),
            Account(name="biology", qos=("normal", "high"), default_qos="normal"),
        ),
        qos=(
            Qos(name="normal", per_person=Ceiling(jobs=3, gpus=4)),
            Qos(name="high", max_seconds=3600, per_job=Ceiling(cpus=16)),
        ),
        partitions=(
            Partition(name="cpu", is_default=True, max_seconds=86400, default_seconds=3600),
            Partition(name="gpu", max_seconds=7200),
            Partition(name="gpu-private", max_seconds=86400, accounts=("biology",)),
            Partition(name="closed", is_up=False),
        ),
        shapes=(
            Shape(
                nodes=tuple(f"c{number:02}" for number in range(40)),
                partitions=("cpu",),
                cpus=64,
                memory_bytes=256 * GIB,
                features=frozenset({"amd", "ib"}),
                free=tuple(Free(cpus=4 * n, memory_bytes=8 * GIB) for n in range(10)),
            ),
            Shape(
                nodes=("c90",),
                partitions=("cpu",),
                cpus=32,
                memory_bytes=1024 * GIB,
                features=frozenset({"intel", "bigmem"}),
                free=(Free(cpus=32, memory_bytes=1000 * GIB),),
            ),
            Shape(
                nodes=("g01", "g02", "g03", "g04"),
                partitions=("gpu",),
                cpus=32,
                memory_bytes=128 * GIB,
                gpus={"a100": 2},
                features=frozenset({"amd"}),
                free=(
                    Free(cpus=8, memory_bytes=16 * GIB, gpus={"a100": 1}),
                    Free(cpus=30, memory_bytes=100 * GIB, gpus={"a100": 2}),
                ),
            ),
            Shape(
                nodes=("m01",),
                partitions=("gpu", "gpu-private"),
                cpus=16,
                memory_bytes=64 * GIB,
                gpus={"a100_1g.5gb": 7},
                free=(Free(cpus=2, memory_bytes=4 * GIB, gpus={"a100_1g.5gb": 5}),),
            ),
        ),
        reservations=(
            Reservation(
                name="course",
                starts_at=now - timedelta(hours=1),
                ends_at=now + timedelta(hours=2),
                partition="cpu",
                nodes=("c00", "c01"),
                is_usable=True,
            ),
            Reservation(
                name="maint",
                starts_at=now + timedelta(hours=10),
                ends_at=now + timedelta(hours=18),
                is_maintenance=True,
            ),
        ),
        own_jobs=(
            OwnJob(
                id="4711",
                name="simulation",
                state="running",
                is_interactive=True,
                partition="cpu",
                account="physics",
                since=now - timedelta(hours=3),
            ),
        ),
    )
