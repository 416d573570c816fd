"""Sessions as jobs, with a hub, a proxy and real schedulers: what must be shown of them."""

import json
import os
import subprocess
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import psutil
import pytest

from tests import beds
from tests.clusters import BOTH, Cluster, asked
from tests.integration.batch.site import ON_THE_WAY, BatchSite

pytestmark = [
    pytest.mark.needs("root", "users", "slurm", "gridengine"),
    pytest.mark.timeout(400),
]

on_both = pytest.mark.parametrize("kind", BOTH)
HOLD = {"slurm": ["scontrol", "hold"], "gridengine": ["qhold"]}
SUSPEND = {"slurm": ["scontrol", "suspend"], "gridengine": ["qmod", "-sj"]}
RESUME = {"slurm": ["scontrol", "resume"], "gridengine": ["qmod", "-usj"]}
CANCEL = {"slurm": ["scancel"], "gridengine": ["qdel"]}
WAIT: dict[str, dict[str, Any]] = {"slurm": {"qos": "onejob"}, "gridengine": {"gpu": 2}}
"""Options of a request that waits for what `keep_waiting` has taken."""


def keep_waiting(site: BatchSite, kind: Cluster) -> None:
    """See to it that what asks for `WAIT` waits."""
    if kind == "gridengine":
        site.beside.block(kind, "bob", "-l", "gpu=1")
    else:
        site.beside.block(kind, "alice", "--qos=onejob")


@on_both
def test_job_of_the_person_serves_and_suspends(site: BatchSite, kind: Cluster) -> None:
    """Everybody sees whose it is; the proxy leads there; it can be suspended and comes back."""
    site.start("alice", f"{kind}-serves", kind)
    ready = site.becomes("alice", f"{kind}-serves", "ready")
    job_id = site.job_id("alice", f"{kind}-serves")
    shown = asked(*{"slurm": ["squeue", "-u"], "gridengine": ["qstat", "-u"]}[kind], "alice")
    assert job_id in shown.split()
    assert ready["node"]
    request = urllib.request.Request(
        f"{site.site.url}/user/alice/{kind}-serves/",
        headers={"Authorization": "token an-admin-token-that-only-tests-know"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        names = json.loads(answer.read())
    assert "JUPYTERHUB_API_TOKEN" in names
    leaked = ("SLURM_JOB", "SLURM_MEM", "SLURM_CPU", "SGE_TASK", "SGE_O_", "JOB_ID", "NSLOTS")
    assert not [name for name in names if name.startswith(leaked)]
    asked(*SUSPEND[kind], job_id)
    site.becomes("alice", f"{kind}-serves", "suspended")
    asked(*RESUME[kind], job_id)
    site.becomes("alice", f"{kind}-serves", "ready")


@on_both
def test_cancel_in_every_state(site: BatchSite, kind: Cluster) -> None:
    """Whatever a launch is at, stopping it ends it and leaves no job."""
    keep_waiting(site, kind)
    servers = {state: f"{state}-{kind}" for state in ("ready", "suspended")}
    for server in servers.values():
        site.start("alice", server, kind)
        site.becomes("alice", server, "ready")
    asked(*SUSPEND[kind], site.job_id("alice", servers["suspended"]))
    on_the_way = {
        state: f"{state}-{kind}" for state in ("queued", "held", "starting", "connecting")
    }
    for state, server in on_the_way.items():
        given = WAIT[kind] if state in ("queued", "held") else {}
        site.start("alice", server, kind, **given)
    asked(*HOLD[kind], site.job_id("alice", on_the_way["held"]))
    assert len(on_the_way) == ON_THE_WAY
    servers |= on_the_way
    for state, server in servers.items():
        site.becomes("alice", server, state)
    in_line = f"requested-{kind}"
    site.start("alice", in_line, kind)
    site.becomes("alice", in_line, "requested")
    site.stop("alice", in_line)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda server: site.stop("alice", server), servers.values()))
    for server in (in_line, *servers.values()):
        ended = site.becomes("alice", server, "ended")
        assert ended["end"]["cause"] == "admin"
        assert not site.jobs_of("alice", server, kind)
    assert not site.handles("alice", in_line)


@on_both
def test_what_its_owner_holds_is_released_here(site: BatchSite, kind: Cluster) -> None:
    """Put on hold beside the hub, it says who holds it; released in the hub, it goes on."""
    keep_waiting(site, kind)
    server = f"{kind}-released"
    site.start("alice", server, kind, **WAIT[kind])
    job_id = site.job_id("alice", server)
    done = beds.run_as("alice", *HOLD[kind], job_id)
    assert done.returncode == 0, done.stderr
    held = site.until(
        "alice",
        server,
        lambda now: (now["reason"] or {}).get("code") == "held-by-user",
        what="who holds it",
    )
    assert held["status"] == "held"
    path = f"/perijove/launches/{held['id']}/release"
    assert site.site.api("POST", path)[0] == 204
    site.becomes("alice", server, "queued")
    assert "released" in site.codes(held["id"])
    assert site.site.api("POST", path)[0] == 409
    site.beside.unblock()
    site.becomes("alice", server, "ready")
    assert site.job_id("alice", server) == job_id


@on_both
def test_cancelled_outside_is_seen(site: BatchSite, kind: Cluster) -> None:
    """Who cancels running and waiting jobs beside the hub ends the servers, and it says how."""
    keep_waiting(site, kind)
    # One stays: that all is gone at once is never believed at once.
    stays, runs, waits = (f"{kind}-outside-{what}" for what in ("stays", "runs", "waits"))
    for server in (stays, runs):
        site.start("alice", server, kind)
    site.start("alice", waits, kind, **WAIT[kind])
    for server in (stays, runs):
        site.becomes("alice", server, "ready")
    site.becomes("alice", waits, "queued")
    for server in (runs, waits):
        beds.run_as("alice", *CANCEL[kind], site.job_id("alice", server))
    for server in (runs, waits):
        assert site.becomes("alice", server, "ended")["end"]["cause"] == "cancelled-outside"
    kept = site.launch("alice", stays)
    assert kept["status"] == "ready", (kept, site.events(kept["id"]), site.log("alice", stays))


@on_both
def test_memory_that_is_exceeded(site: BatchSite, kind: Cluster) -> None:
    """A server that takes more than it asked for ends with that cause."""
    if os.environ[f"PERIJOVE_TEST_{'SLURM' if kind == 'slurm' else 'SGE'}_CGROUP"] != "1":
        pytest.skip("nothing limits memory here")
    site.start("alice", f"hungry-{kind}", kind, memory="100 MiB")
    ended = site.becomes("alice", f"hungry-{kind}", "ended")
    assert ended["end"]["cause"] == "out-of-memory"


def test_a_node_that_is_lost(site: BatchSite) -> None:
    """What may run again does so, as the same launch with a new token; what may not has ended."""
    site.start("alice", "again", "slurm", partition="many")
    site.start("alice", "lost", "slurm", partition="many")
    first = site.becomes("alice", "again", "ready")
    site.becomes("alice", "lost", "ready")
    job_id = site.job_id("alice", "again")
    asked("scontrol", "update", f"jobid={site.job_id('alice', 'lost')}", "requeue=0")
    generation = site.row("alice", "again")["generation"]
    beds.disturb("slurm", "down", "many1")
    try:
        assert site.becomes("alice", "lost", "ended")["end"]["cause"] == "node-fail"
        site.becomes("alice", "again", "queued")
        assert not site.row("alice", "again")["url"]
    finally:
        with suppress(subprocess.CalledProcessError):  # It may have come back by itself.
            beds.disturb("slurm", "resume", "many1")
    # Slurm makes what it runs again wait for two minutes.
    asked("scontrol", "update", f"jobid={job_id}", "starttime=now")
    again = site.becomes("alice", "again", "ready")
    assert again["id"] == first["id"]
    assert site.job_id("alice", "again") == job_id
    assert site.row("alice", "again")["generation"] == generation + 1
    assert "requeued" in site.codes(again["id"])


def test_a_node_that_crashed(site: BatchSite) -> None:
    """A job that was on a Grid Engine node when it crashed has ended because of the node."""
    site.start("alice", "crashed", "gridengine")
    site.becomes("alice", "crashed", "ready")
    family = family_on_grid_engine(site.job_id("alice", "crashed"))
    beds.disturb("gridengine", "down")
    try:
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        # Whom it still finds alive, the node looks for again only a minute later.
        psutil.wait_procs(family, timeout=20)
    finally:
        beds.disturb("gridengine", "resume")
    assert site.becomes("alice", "crashed", "ended")["end"]["cause"] == "node-fail"


def family_on_grid_engine(job_id: str) -> list[psutil.Process]:
    """Return what looks after a job on its node, and all that it has started."""
    folder = f"/active_jobs/{job_id}.1"
    (shepherd,) = (
        process
        for process in psutil.process_iter(["name", "cwd"])
        if process.info["name"] == "sge_shepherd" and (process.info["cwd"] or "").endswith(folder)
    )
    return [shepherd, *shepherd.children(recursive=True)]


def test_what_the_scheduler_would_refuse_is_refused_at_once(site: BatchSite) -> None:
    """A strange account, a partition's limit: the field is named, and nothing is submitted."""
    for given, field in (
        ({"account": "def-bob"}, "account"),
        ({"partition": "short", "time": "2 h"}, "time"),
        ({"partition": "gpu"}, ""),
    ):
        answer = site.start("alice", "refused", "slurm", expect=[400, 403, 409, 422], **given)
        assert field in answer["message"].lower()
    assert site.servers("alice").count("refused") == 0


def test_a_limit_that_is_reached_is_told_and_a_gpu_is_had(site: BatchSite) -> None:
    """The third core of carol's two waits with the limit's code; alice gets the GPU she chose."""
    site.start("carol", "one", "slurm", cpu=2)
    site.becomes("carol", "one", "ready")
    site.start("carol", "two", "slurm", cpu=1)
    site.start("alice", "gpu", "slurm", partition="gpu", gpu=1)
    waits = site.until(
        "carol",
        "two",
        lambda now: (now["reason"] or {}).get("code") == "max-cpus",
        what="the limit's code",
    )
    assert waits["status"] == "queued"
    assert "Limit" in waits["reason"]["words"]
    assert site.becomes("alice", "gpu", "ready")["node"] == "gpu1"
    shown = asked("scontrol", "show", "job", site.job_id("alice", "gpu"))
    assert "gres/gpu" in shown
    site.stop("carol", "one")
    site.becomes("carol", "two", "ready")


def test_a_job_in_error_says_so(site: BatchSite) -> None:
    """Grid Engine's ``Eqw`` is held, with what went wrong; released it runs."""
    keep_waiting(site, "gridengine")
    site.start("alice", "eqw", "gridengine", gpu=2)
    job_id = site.job_id("alice", "eqw")
    folder = site.folder("alice", "eqw")
    folder.rename(folder.with_name("away"))
    try:
        site.beside.unblock()
        held = site.until(
            "alice",
            "eqw",
            lambda now: (now["reason"] or {}).get("code") == "job-error" and now["reason"]["words"],
            what="an error",
        )
        assert held["status"] == "held"
    finally:
        folder.with_name("away").rename(folder)
    beds.run_as("root", "qmod", "-cj", job_id)  # says 1 although it does it
    site.becomes("alice", "eqw", "ready")


def test_hubs_that_are_killed_lose_and_double_nothing(site: BatchSite) -> None:
    """Killed while it submits and while jobs wait: afterwards each server has its one job."""
    for kind in BOTH:
        keep_waiting(site, kind)
        site.start("alice", f"blocked-{kind}", kind, **WAIT[kind])
    site.until(
        "alice",
        "blocked-slurm",
        lambda now: (now["reason"] or {}).get("code") == "max-jobs-user",
        what="the limit's code",
    )
    site.becomes("alice", "blocked-gridengine", "queued")
    servers = {f"{kind}-killed-{n}": kind for n in range(ON_THE_WAY - 1) for kind in BOTH}
    with ThreadPoolExecutor(len(servers)) as pool:
        for server, kind in servers.items():
            pool.submit(site.try_start, "alice", server, kind)
        site.until_submitting(len(servers))
        site.site.kill_all()
    site.site.start()
    asked_for = [server for server in servers if site.has_launch("alice", server)]
    assert asked_for
    for server in asked_for:
        site.becomes("alice", server, "ready")
        assert len(site.jobs_of("alice", server, servers[server])) == 1
    site.site.kill_all()
    site.beside.unblock()
    site.site.start()
    for kind in BOTH:
        site.becomes("alice", f"blocked-{kind}", "ready")
        assert len(site.jobs_of("alice", f"blocked-{kind}", kind)) == 1
    for server in asked_for:
        assert site.launch("alice", server)["status"] == "ready"


def test_wall_time_that_is_reached(site: BatchSite) -> None:
    """A job that its scheduler ends when its time is over ends with that cause."""
    # A minute is the least that can be asked for here; while a job waits it can be made less.
    keep_waiting(site, "gridengine")
    site.start("alice", "late-gridengine", "gridengine", gpu=2)
    asked("qalter", "-l", "h_rt=10,rmem=64M,gpu=2", site.job_id("alice", "late-gridengine"))
    site.beside.unblock()
    site.start("alice", "late-slurm", "slurm")
    site.becomes("alice", "late-slurm", "ready")
    # Slurm looks for jobs that are over time twice a minute.
    asked("scontrol", "update", f"jobid={site.job_id('alice', 'late-slurm')}", "endtime=now+1")
    for server in ("late-slurm", "late-gridengine"):
        assert site.becomes("alice", server, "ended")["end"]["cause"] == "walltime"
