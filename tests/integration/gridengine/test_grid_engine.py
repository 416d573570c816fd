"""The scheduler's promises, kept on a real Grid Engine."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from anyio import to_thread

from perijove.domain.errors import SpawnerRejected, SpawnerTransient
from perijove.domain.launch import Cause, Resources
from perijove.spawners.batch.commands import Allowance, Commands
from perijove.spawners.batch.scheduler import Job
from perijove.spawners.contract import Phase
from tests import beds
from tests.integration.gridengine.conftest import Bed

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.needs("root", "users", "gridengine"),
    pytest.mark.timeout(300),
]


def waits_for(code: str) -> Callable[[Job], bool]:
    """Return whether a job waits for the reason of this code."""
    return lambda job: job.reason is not None and job.reason.code == code


def is_running(job: Job) -> bool:
    """Tell whether a job runs."""
    return job.phase is Phase.RUNNING


async def test_a_session_runs_as_its_owner_until_its_time_is_over(bed: Bed) -> None:
    """Owner, node and end are told; a signal comes before the kill; the cause is the limit."""
    job_id = await bed.submit(
        bed.request(Resources(cpu=2, memory_bytes=200 * 2**20, time_seconds=4)),
        "id -un; env; trap 'echo notified; exit 9' USR2; while :; do sleep 0.2; done",
    )
    found = await bed.run(bed.scheduler.listing_by_name(f"{bed.prefix}0"))
    assert bed.scheduler.read_ids(found, "alice") == [job_id]
    job = await bed.job(job_id, is_running)
    assert (job.user, job.nodes) == ("alice", (os.environ["PERIJOVE_TEST_SGE_HOST"],))
    assert job.started_at is not None
    assert job.ends_at == job.started_at + timedelta(seconds=4)
    assert (await bed.end(job_id)).cause is Cause.WALLTIME
    log = (bed.folders[0] / "job.log").read_text()
    assert log.startswith("alice\n")
    assert "NSLOTS=2" in log
    assert "notified" in log
    assert "not-for-the-job" not in log


REFUSED: list[tuple[Resources, dict[str, Any], str, str]] = [
    (Resources(gpu=9), {}, "gpu", "over-size-limit"),
    (Resources(cpu=64, memory_bytes=64 * 2**20), {}, "cpu", "over-size-limit"),
    (Resources(cpu=2, memory_bytes=20 * 2**30), {}, "memory", "over-size-limit"),
    (Resources(time_seconds=3600), {"partition": "short.q"}, "time", "over-time-limit"),
    (Resources(), {"account": "rse"}, "account", "account-not-allowed"),
    (Resources(), {"account": "nosuch"}, "account", "invalid-account"),
    (Resources(), {"partition": "nosuch.q"}, "partition", "invalid-partition"),
]


async def test_what_can_never_run_is_refused_with_its_culprit(bed: Bed) -> None:
    """The dry run and the submission itself refuse; the dry run names the option."""
    for resources, options, field, code in REFUSED:
        request = bed.request(resources, **options)
        objections = await bed.scheduler.dry_run(bed.run_as, "bob", request)
        assert [(each.field, each.code) for each in objections] == [(field, code)], resources
        with pytest.raises(SpawnerRejected) as refused:
            await bed.submit(request, user_name="bob")
        assert refused.value.params["words"]
    assert await bed.scheduler.dry_run(bed.run_as, "bob", bed.request(Resources(cpu=2))) == ()
    assert bed.ids == []


async def test_waiting_jobs_say_why(bed: Bed) -> None:
    """A quota that is used up, and a GPU that somebody else has."""
    first = await bed.submit(bed.request(Resources(cpu=2)), user_name="bob")
    await bed.job(first, is_running)
    second = await bed.submit(bed.request(), user_name="bob")
    assert (await bed.job(second, waits_for("quota"))).phase is Phase.PENDING
    gpus = await bed.submit(bed.request(Resources(gpu=2)))
    await bed.job(gpus, is_running)
    another = await bed.submit(bed.request(Resources(gpu=1)))
    job = await bed.job(another, waits_for("resources"))
    assert job.reason is not None
    assert "gpu" in job.reason.words


async def test_a_held_job_then_an_error_then_no_home(bed: Bed) -> None:
    """Who holds it; what failed on the node; and in the end that its directory was missing."""
    job_id = await bed.submit(bed.request(Resources(), "-h"))
    assert (await bed.job(job_id, waits_for("held-by-user"))).phase is Phase.HELD
    await bed.run(["qhold", "-h", "o", job_id])
    await bed.run(["qrls", "-h", "u", job_id])
    await bed.job(job_id, waits_for("held-by-admin"))
    shutil.rmtree(bed.folders[0])
    await bed.run(["qrls", "-h", "o", job_id])
    job = await bed.job(job_id, lambda job: waits_for("job-error")(job) and "error" in _words(job))
    assert job.phase is Phase.HELD
    assert "No such file or directory" in _words(job)
    assert await bed.ends(job_id) == {}
    await bed.run_as("alice", [bed.scheduler.cancellation(job_id)])
    end = await bed.end(job_id)
    assert (end.cause, end.reason) == (Cause.NEVER_STARTED, "home-missing")


def _words(job: Job) -> str:
    return job.reason.words if job.reason else ""


async def test_ends_from_outside_are_seen(bed: Bed) -> None:
    """qdel of a running and of a waiting job, by their owner."""
    running = await bed.submit(bed.request(), "trap '' USR2; while :; do sleep 0.2; done")
    waiting = await bed.submit(bed.request(Resources(), "-h"))
    await bed.job(running, is_running)
    await bed.job(waiting, waits_for("held-by-user"))
    await bed.run_as("alice", [["qdel", running, waiting]])
    assert (await bed.end(running)).cause is Cause.CANCELLED_OUTSIDE
    gone = await bed.job(waiting, lambda job: job.phase is Phase.GONE)
    assert gone.end is not None
    assert gone.end.cause is Cause.CANCELLED_OUTSIDE


async def test_ends_from_inside_are_told_apart(bed: Bed) -> None:
    """Exit status, signal, a home that is not there, and too little memory."""
    exited = await bed.submit(bed.request(), "exit 3")
    homeless = await bed.submit(bed.request(), "exit 78")
    killed = await bed.submit(bed.request(), "kill -9 $$")
    hungry = await bed.submit(
        bed.request(Resources(memory_bytes=100 * 2**20)),
        "python3 -c 'held = bytearray(400 << 20)'",
    )
    assert str(await bed.end(exited)) == "exited(3)"
    assert (await bed.end(homeless)).reason == "home-missing"
    assert str(await bed.end(killed)) == "signal(9)"
    if os.environ["PERIJOVE_TEST_SGE_CGROUP"] == "1":
        assert (await bed.end(hungry)).cause is Cause.OUT_OF_MEMORY
    ended = await bed.scheduler.ends(bed.run, [exited, homeless, killed])
    assert ended.keys() == {exited, homeless, killed}


async def test_nobody_can_hide_the_queue(bed: Bed) -> None:
    """Control characters in one person's request leave everybody else's jobs visible."""
    (result,) = await bed.run_as(
        "bob", [["qsub", "-terse", "-h", "-l", "arch=\x01\x1b<job_list>", "-b", "y", "/bin/true"]]
    )
    bed.ids.append(result.stdout.strip())
    job_id = await bed.submit(bed.request(Resources(), "-h"))
    assert (await bed.job(job_id, waits_for("held-by-user"))).user == "alice"
    offer = await bed.scheduler.discover(bed.run, bed.run_as, "bob")
    assert bed.ids[0] in {each.id for each in offer.own_jobs}


async def test_discovery_tells_what_the_cell_has(bed: Bed) -> None:
    """Queues, projects, quota, hosts and notes are those that the test bed configures."""
    alice = await bed.scheduler.discover(bed.run, bed.run_as, "alice")
    bob = await bed.scheduler.discover(bed.run, bed.run_as, "bob")
    times = {each.name: each.max_seconds for each in alice.partitions}
    assert times == {"all.q": 345_600, "short.q": 1800, "rse.q": 28_800}
    assert [each.name for each in alice.accounts] == ["", "rse"]
    assert [each.name for each in bob.accounts] == [""]
    assert "rse.q" not in {each.name for each in bob.partitions}
    assert bob.accounts[0].per_person.cpus == 2
    (shape,) = alice.shapes
    assert (shape.cpus, shape.memory_bytes, shape.gpus) == (12, 16 * 2**30, {"": 2})
    assert shape.free[0].memory_bytes <= shape.memory_bytes
    assert (alice.notes, alice.must_name_account) == ((), False)


async def test_a_silent_qmaster_is_no_answer(bed: Bed) -> None:
    """It accepts connections and says nothing: every question ends in time, and proves nothing."""
    job_id = await bed.submit(bed.request(Resources(), "-h"))
    impatient = Commands(replace(bed.site, timeout=1), Allowance(0.001)).run
    await to_thread.run_sync(beds.disturb, "gridengine", "stop")
    try:
        with pytest.raises(SpawnerTransient):
            await bed.scheduler.jobs(impatient, bed.prefix)
        with pytest.raises(SpawnerTransient):
            await bed.scheduler.ends(impatient, [job_id])
    finally:
        await to_thread.run_sync(beds.disturb, "gridengine", "cont")
    assert (await bed.job(job_id, waits_for("held-by-user"))).id == job_id
