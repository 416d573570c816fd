"""What is asked for once, for everybody, and how long it is kept."""

from collections import Counter
from collections.abc import Sequence
from math import inf
from typing import Final

import anyio
import pytest

from perijove.domain.errors import SpawnerTransient
from perijove.domain.offer import Offer
from perijove.spawners.batch.commands import Allowance
from perijove.spawners.batch.scheduler import Command, Result, RunForForm
from perijove.spawners.slurm.discovery import Discovery, unix_groups
from perijove.spawners.slurm.queue import shared
from perijove.spawners.slurm.scheduler import SlurmScheduler
from tests.unit.spawners.slurm.corpus import failed, said

pytestmark = pytest.mark.anyio


def _one_line_each(name: str) -> Result:
    records = said(name).stdout.split("\n\n")
    return _says("\n".join(" ".join(record.split()) for record in records))


def _says(text: str) -> Result:
    return Result(status=0, stdout=text, stderr="")


ANSWERS: Final = {
    "config": said("scontrol-show-config.txt"),
    "node": _one_line_each("scontrol-show-node.txt"),
    "partition": said("scontrol-show-partition-oneliner.txt"),
    "reservation": _one_line_each("scontrol-show-reservation.txt"),
    "sacctmgr": _says("normal|||||||||\ntiny||||cpu=2|||||\nother|||||||||\n"),
    "squeue": said("squeue-empty.txt"),
}
"""By what is asked for; read before any loop runs."""


class Cluster:
    """Says what the corpus says, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.time = 0.0
        self.answers = dict(ANSWERS)
        self.turns: float = inf
        self.discovery = Discovery(shared(self.now), self.now)

    def now(self) -> float:
        """Return the time, in seconds."""
        return self.time

    async def run(self, command: Command) -> Result:
        """Answer a question of the hub's own account."""
        what = command[-1] if command[0] == "scontrol" else command[0]
        self.asked[what] += 1
        await anyio.lowlevel.checkpoint()
        return self.answers[what]

    async def run_as(self, user: str, commands: Sequence[Command]) -> Sequence[Result]:
        """Answer questions of a person."""
        self.asked[user] += 1
        (command,) = commands
        if "withassoc" in command:
            return [_says("x|x||normal,tiny|normal||||||\n")]
        return [_says("x||cpu=2\n")]

    async def offer(self, user: str = "alice") -> Offer:
        """Return what there is for `user`."""
        form = RunForForm(self.run_for_form, lambda: self.turns > 0)
        return await self.discovery.offer(self.run, form, self.run_as, user)

    async def run_for_form(self, command: Command) -> Result:
        """Answer a question of the hub's own account that a form has."""
        self.turns -= 1
        return await self.run(command)


async def test_offer_holds_what_the_cluster_says() -> None:
    """Accounts, QOS that may be asked for, partitions, shapes and maintenance are all there."""
    offer = await Cluster().offer()
    assert [each.name for each in offer.accounts] == ["x"]
    assert offer.accounts[0].per_job.cpus == 2
    assert [each.name for each in offer.qos] == ["normal", "tiny"]
    assert len(offer.partitions) == 5
    assert [each.nodes[0] for each in offer.shapes] == ["cpu1", "cpu2", "gpu1"]
    assert [(each.name, each.is_usable) for each in offer.reservations] == [("maint", False)]
    assert not offer.must_name_account
    assert offer.notes == ()


async def test_qos_of_a_partition_limits_every_job_in_it() -> None:
    """The narrower of the partition's own limit and its QOS's counts."""
    cluster = Cluster()
    cluster.answers["partition"] = _says("PartitionName=p AllowGroups=ALL MaxTime=60:00 QoS=part")
    cluster.answers["sacctmgr"] = _says("part|10:00|cpu=2|||||||\n")
    (partition,) = (await cluster.offer()).partitions
    assert (partition.max_seconds, partition.per_job.cpus) == (600, 2)


async def test_hundred_people_do_not_ask_a_hundred_times() -> None:
    """People who look at the form at the same time share each answer but their own."""
    cluster = Cluster()
    async with anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(cluster.offer, f"user{number}")
    shared = {name: count for name, count in cluster.asked.items() if not name.startswith("user")}
    assert shared == dict.fromkeys(
        ("config", "node", "partition", "reservation", "sacctmgr", "squeue"), 1
    )
    await cluster.offer("user7")
    assert cluster.asked["user7"] == 2


@pytest.mark.parametrize(
    ("seconds", "asked"),
    [
        (59, set()),
        (61, {"squeue", "node"}),
        (301, {"squeue", "node", "partition", "reservation"}),
        (901, {"squeue", "node", "config", "partition", "reservation", "sacctmgr", "alice"}),
    ],
)
async def test_each_fact_has_its_age(seconds: float, asked: set[str]) -> None:
    """What changes often is asked for often."""
    cluster = Cluster()
    await cluster.offer()
    cluster.asked.clear()
    cluster.time = seconds
    await cluster.offer()
    assert set(cluster.asked) == asked


async def test_what_is_old_will_do_while_there_is_no_turn() -> None:
    """A form waits only for what nobody knows yet; then the longest overdue is asked for first."""
    cluster = Cluster()
    cluster.turns = 0
    assert (await cluster.offer()).partitions
    cluster.asked.clear()

    cluster.time = 330
    assert (await cluster.offer()).partitions
    assert not cluster.asked

    asked = []
    for _ in range(5):
        cluster.asked.clear()
        cluster.turns = 1
        await cluster.offer("bob")
        asked.append(set(cluster.asked) - {"bob"})
    assert asked == [
        {"squeue", "node"},
        {"partition"},
        {"reservation"},
        set(),
        set(),
    ]


async def test_first_form_has_its_turns_beside_a_survey() -> None:
    """What is asked for a first form and a first look at the queue are six questions together."""
    cluster = Cluster()
    allowance = Allowance(3600)

    async def run(command: Command) -> Result:
        await allowance.take()
        return await cluster.run(command)

    async def run_for_form(command: Command) -> Result:
        await allowance.take(for_form=True)
        return await cluster.run(command)

    form = RunForForm(run_for_form, allowance.has_turn_for_form)
    scheduler = SlurmScheduler(cluster.now)
    with anyio.fail_after(30):
        await scheduler.discover(run, cluster.run_as, "alice", for_form=form)
        assert await scheduler.jobs(run, "pj-") == []
    assert not allowance.has_turn_for_form()


async def test_addresses_are_those_of_the_cluster() -> None:
    """Where a node is reached is asked for once in five minutes; unknown nodes are left out."""
    cluster = Cluster()
    for cluster.time in (0, 299):
        found = await cluster.discovery.addresses(cluster.run, ["cpu1", "off1", "elsewhere"])
        assert found == {"cpu1": "127.0.0.1", "off1": "127.0.0.1"}
    assert cluster.asked["node"] == 1


async def test_cluster_without_accounting_says_so() -> None:
    """Then there are no accounts to choose, and nobody is asked for them."""
    cluster = Cluster()
    cluster.answers["config"] = _says("ClusterName = small\n")
    offer = await cluster.offer()
    assert (offer.accounts, offer.notes) == ((), ("no-accounting",))
    assert cluster.asked["sacctmgr"] == cluster.asked["alice"] == 0


async def test_silent_cluster_offers_nothing() -> None:
    """Without an answer there is no offer, rather than an empty one."""
    cluster = Cluster()
    cluster.answers["config"] = failed(
        "slurm_load_ctl_conf error: Unable to contact slurm controller"
    )
    with pytest.raises(SpawnerTransient):
        await cluster.offer()


def test_groups_are_those_of_the_machine() -> None:
    """Somebody unknown here is in no group."""
    assert "root" in unix_groups("root")
    assert unix_groups("nobody-of-this-name") == frozenset()
