"""One question for everybody: how many are asked, and whom an answer serves."""

import anyio
import pytest

from perijove.domain.errors import SpawnerTransient
from perijove.kit.clock import monotonic
from perijove.spawners.batch.queue import Queue
from perijove.spawners.slurm.scheduler import SlurmScheduler
from tests.unit.spawners.batch.clusters import PREFIX, Cluster

pytestmark = pytest.mark.anyio


@pytest.fixture
def cluster() -> Cluster:
    """Give a cluster with two jobs."""
    return Cluster(jobs=["1", "2"])


@pytest.fixture
def queue(cluster: Cluster) -> Queue:
    """Give its queue."""
    return Queue(SlurmScheduler(), cluster.run, PREFIX)


async def test_who_asks_at_the_same_time_shares_one_question(
    cluster: Cluster, queue: Queue
) -> None:
    """However many want to know the queue as of now, it is asked once."""
    seen: list[int] = []
    since = monotonic()

    async def ask() -> None:
        seen.append(len(await queue.jobs(since=since)))

    async with anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(ask)

    assert (seen, cluster.asked) == ([2] * 100, 1)


@pytest.mark.parametrize("name", ["", "A", "1 2", "1\n", "1\x00", "../1", "1" * 33, "ü"])
async def test_names_that_only_begin_like_ours_are_passed_over(
    cluster: Cluster, queue: Queue, name: str
) -> None:
    """Who gives such a name to a job of their own makes nobody's answer incomplete."""
    cluster.jobs = ["1", "2"]
    cluster.names = {"2": name}
    assert [job.id for job in await queue.jobs(since=monotonic())] == ["1"]


async def test_only_one_question_is_on_its_way(cluster: Cluster, queue: Queue) -> None:
    """Who needs a younger answer than the one on its way waits, and shares the next one."""
    cluster.gate = anyio.Event()
    on_the_way: list[int] = []

    async def ask() -> None:
        on_the_way.append(cluster.asked)
        await queue.jobs(since=monotonic())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        for _ in range(50):
            tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        assert cluster.asked == 1
        cluster.gate.set()

    assert cluster.asked == 2


async def test_an_answer_serves_whom_it_is_not_too_old_for(cluster: Cluster, queue: Queue) -> None:
    """A question that was asked after an instant answers for it; one from before does not."""
    before = monotonic()
    await queue.jobs(since=before)
    cluster.jobs = ["1", "2", "3"]

    assert len(await queue.jobs(since=before)) == 2
    assert len(await queue.jobs(since=monotonic())) == 3
    assert cluster.asked == 2


async def test_silence_is_told_to_who_asked_and_not_kept(cluster: Cluster, queue: Queue) -> None:
    """A question without an answer fails; the next one is asked anew."""
    cluster.silence = SpawnerTransient("squeue did not answer")
    with pytest.raises(SpawnerTransient):
        await queue.jobs(since=monotonic())
    cluster.silence = None

    assert len(await queue.jobs(since=monotonic())) == 2


async def test_who_gives_up_stands_in_nobodys_way(cluster: Cluster, queue: Queue) -> None:
    """A caller that stops waiting leaves the queue to the others."""
    cluster.gate = anyio.Event()
    with anyio.move_on_after(0.01):
        await queue.jobs(since=monotonic())
    cluster.gate.set()

    assert len(await queue.jobs(since=monotonic())) == 2


async def test_find_takes_a_young_answer_and_else_asks_once_more(
    cluster: Cluster, queue: Queue
) -> None:
    """A job in a young answer costs nothing; one that is not yet there costs one question."""
    await queue.jobs(since=monotonic())
    assert (await queue.find("2")).name == f"{PREFIX}2"
    assert cluster.asked == 1

    cluster.jobs = ["1", "2", "3"]
    assert (await queue.find("3")).name == f"{PREFIX}3"
    assert cluster.asked == 2


async def test_find_of_what_is_not_there_is_no_verdict(cluster: Cluster, queue: Queue) -> None:
    """A job that the queue does not show may still come: it may be asked for again."""
    with pytest.raises(SpawnerTransient):
        await queue.find("99")
    assert cluster.asked <= 2
