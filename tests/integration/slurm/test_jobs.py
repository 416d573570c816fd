"""Jobs on a real Slurm: submitted, seen, refused, ended."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from perijove.domain.errors import SpawnerRejected, SpawnerTransient
from perijove.domain.launch import Cause, End, Resources
from perijove.spawners.batch.scheduler import Command, Job, Result
from perijove.spawners.contract import Phase
from tests.integration.slurm.conftest import MIB, SMALL, Bed, until

pytestmark = [pytest.mark.anyio, pytest.mark.needs("slurm")]


def _is_running(job: Job) -> bool:
    return job.phase is Phase.RUNNING


def _is_gone(job: Job) -> bool:
    return job.phase is Phase.GONE


async def test_job_has_what_was_asked_and_nothing_of_the_caller(bed: Bed) -> None:
    """Every choice reaches Slurm; the job runs as the person, without the submitter's variables."""
    request = bed.request(
        Resources(cpu=1.5, memory_bytes=100 * MIB + 1, gpu=1, time_seconds=601),
        account="def-alice",
        partition="gpu",
        qos="normal",
        gpu_type="mini",
        features=["gpu"],
        extra=["--nice=1"],
    )
    script = """
        env > env.txt; id -un > who.txt; echo "$CUDA_VISIBLE_DEVICES" > gpu.txt
        touch done; sleep 300
    """
    job_id = await bed.submit("alice", request, script, CANARY="of the submitter")
    job = await bed.until(job_id, _is_running)
    assert (job.name, job.user, job.nodes) == (request.name, "alice", ("gpu1",))
    assert job.started_at is not None
    assert job.ends_at is not None
    assert (job.ends_at - job.started_at).total_seconds() == 11 * 60
    shown = await bed.run(["scontrol", "--oneliner", "show", "job", job_id])
    for said in (
        "NumCPUs=2",
        "mem=101M",
        "gres/gpu:mini=1",
        "QOS=normal",
        "Features=gpu",
        "Nice=1",
    ):
        assert said in shown.stdout
    (directory,) = bed.directories

    async def is_done() -> bool:
        return (directory / "done").exists()

    await until(is_done)
    assert (directory / "who.txt").read_text() == "alice\n"
    assert "CANARY" not in (directory / "env.txt").read_text()
    assert (directory / "gpu.txt").read_text().strip()
    listed = await bed.run(bed.scheduler.listing_by_name(request.name))
    assert bed.scheduler.read_ids(listed, "alice") == [job_id]


OUT_OF_MEMORY = (Cause.OUT_OF_MEMORY, None)


async def test_ends_say_how(bed: Bed) -> None:
    """Each way to end is told by the queue, and the same by accounting."""
    scripts: dict[str, tuple[Cause, int | None]] = {
        "exit 0": (Cause.EXITED, 0),
        "exit 3": (Cause.EXITED, 3),
        "exit 78": (Cause.NEVER_STARTED, 78),
        "kill -9 $$": (Cause.SIGNAL, 9),
    }
    if os.environ["PERIJOVE_TEST_SLURM_CGROUP"] == "1":
        scripts["x=$(head -c 300000000 /dev/zero | tr '\\0' x); sleep 30"] = OUT_OF_MEMORY
    expected = {
        await bed.submit("alice", bed.request(), script): end for script, end in scripts.items()
    }
    cancelled = await bed.submit("alice", bed.request())
    held = await bed.submit("alice", bed.request(extra=["--hold"]))
    late = await bed.submit("alice", bed.request())
    for job_id in (cancelled, late):
        await bed.until(job_id, _is_running)
    await bed.run_as("alice", [bed.scheduler.cancellation(each) for each in (cancelled, held)])
    # Slurm looks for jobs that are over time twice a minute.
    await bed.run(["scontrol", "update", f"jobid={late}", "endtime=now+1"])
    expected |= {
        cancelled: (Cause.CANCELLED_OUTSIDE, None),
        held: (Cause.CANCELLED_OUTSIDE, None),
        late: (Cause.WALLTIME, None),
    }
    for job_id, (cause, code) in expected.items():
        job = await bed.until(job_id, _is_gone)
        assert job.end is not None
        assert (job.end.cause, job.end.code) == (cause, code), job.end.detail
    # A job that was held all its life is in no accounting.
    wanted = expected.keys() - {held}
    ends: Mapping[str, End] = {}

    async def all_known() -> bool:
        nonlocal ends
        ends = await bed.scheduler.ends(bed.run, list(expected))
        return wanted <= ends.keys()

    await until(all_known)
    found = {job_id: (end.cause, end.code) for job_id, end in ends.items()}
    assert found == {job_id: expected[job_id] for job_id in found}


def _waits_for(code: str, job: Job) -> bool:
    return job.reason is not None and job.reason.code == code


async def test_waiting_jobs_say_why(bed: Bed) -> None:
    """Reasons of a real queue come to their codes, and held jobs are told from waiting ones."""
    jobs = {
        await bed.submit("alice", bed.request(partition="closed")): "partition-down",
        await bed.submit("alice", bed.request(extra=["--hold"])): "held-by-user",
        await bed.submit("alice", bed.request(extra=["--begin=now+3600"])): "begin-time",
        await bed.submit("alice", bed.request(extra=["--nodelist=off1"])): "node-unavailable",
        await bed.submit("alice", bed.request(account="rrg-spent")): "no-budget",
        await bed.submit("carol", bed.request(Resources(cpu=3, memory_bytes=MIB))): "max-cpus",
    }
    for qos, code in (("onejob", "max-jobs-user"), ("gpuone", "max-gpus")):
        kind = {"partition": "gpu"} if qos == "gpuone" else {}
        request = bed.request(replace(SMALL, gpu=1 if kind else None), qos=qos, **kind)
        await bed.until(await bed.submit("bob", request), _is_running)
        again = replace(request, name=f"{request.name}2")
        jobs[await bed.submit("bob", again)] = code
    for job_id, code in jobs.items():
        job = await bed.until(job_id, partial(_waits_for, code))
        assert job.phase is (Phase.HELD if code.startswith("held") else Phase.PENDING)
        assert job.reason is not None
        assert job.reason.words
        assert job.nodes == ()


REFUSED: Mapping[str, tuple[str, Resources, Mapping[str, Any], str]] = {
    "invalid-account": ("alice", SMALL, {"account": "def-bob"}, "account"),
    "invalid-partition": ("alice", SMALL, {"partition": "nosuch"}, "partition"),
    "invalid-qos": ("carol", SMALL, {"qos": "interactive"}, "qos"),
    "over-time-limit": ("alice", replace(SMALL, time_seconds=7200), {"partition": "short"}, "time"),
    "over-size-limit": ("alice", Resources(cpu=4, time_seconds=60), {"qos": "strict"}, "cpu"),
    "bad-constraints": ("alice", SMALL, {"features": ["nosuch"]}, "features"),
    "reservation-gone": ("alice", SMALL, {"reservation": "nosuch"}, "reservation"),
    "rejected": ("alice", SMALL, {"partition": "gpu"}, ""),
}
"""By code: who asks for what, and the field that is the culprit."""


@pytest.mark.parametrize("code", REFUSED)
async def test_refusal_and_dry_run_name_the_same_culprit(bed: Bed, code: str) -> None:
    """What Slurm would refuse is known beforehand, and refused with the same code and words."""
    user, resources, options, field = REFUSED[code]
    request = bed.request(resources, **options)
    (objection,) = await bed.scheduler.dry_run(bed.run_as, user, request)
    with pytest.raises(SpawnerRejected) as caught:
        await bed.submit(user, request)
    assert (caught.value.code, caught.value.params["field"]) == (code, field)
    assert (objection.code, objection.field) == (code, field)
    assert objection.words == caught.value.params["words"]


async def test_dry_run_submits_nothing(bed: Bed) -> None:
    """A request that Slurm would take leaves no job behind."""
    request = bed.request(account="def-alice", features=["avx2"])
    assert await bed.scheduler.dry_run(bed.run_as, "alice", request) == ()
    assert await bed.scheduler.jobs(bed.run, bed.prefix) == []


async def test_name_of_a_stranger_forges_nothing(bed: Bed) -> None:
    """A real job whose name looks like rows is one job, of its owner."""
    job_id = await bed.submit("alice", bed.request())
    await bed.until(job_id, _is_running)
    (target,) = await bed.scheduler.jobs(bed.run, bed.prefix)
    row = ["", target.id, "alice", "COMPLETED", "0", "None", "", "0", "0", "0", target.name, ""]
    forged = f"{bed.prefix}x" + "\x1f0123456789abcdef\n".join(["", "\x1f".join(row[1:]), ""])
    command = ["sbatch", "--parsable", "--export=NONE", "--output=/dev/null", "--wrap=sleep 60"]
    (result,) = await bed.run_as("carol", [[*command, "--mem=1", f"--job-name={forged}"]])
    strange = bed.scheduler.read_submission(result)
    bed.submitted.append(strange)
    seen = {job.id: job for job in await bed.scheduler.jobs(bed.run, bed.prefix)}
    assert seen.keys() == {job_id, strange}
    assert (seen[job_id].phase, seen[strange].user) == (Phase.RUNNING, "carol")
    assert "\n" in seen[strange].name


async def test_controller_that_is_away_is_silence(away: Bed) -> None:
    """Nothing is refused, and nothing is gone, because nobody answers."""

    async def run_all(_: str, commands: Sequence[Command]) -> Sequence[Result]:
        return [await away.run(command) for command in commands]

    with pytest.raises(SpawnerTransient):
        await away.scheduler.jobs(away.run, away.prefix)
    with pytest.raises(SpawnerTransient):
        await away.scheduler.dry_run(run_all, "", away.request())
