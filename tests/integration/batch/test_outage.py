"""A scheduler that is away: nothing ends for it, and what came meanwhile is done afterwards."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Literal

import pytest

from tests import beds
from tests.clusters import Cluster, asked
from tests.e2e.site import wait_for
from tests.integration.batch.site import BatchSite

pytestmark = [
    pytest.mark.needs("root", "users", "slurm", "gridengine"),
    pytest.mark.timeout(400),
]


def slurm_saves(job: str) -> None:
    """
    Have Slurm write down all it knows by now, so that one that is killed knows it still.

    It writes only after a change, and may have done so before this is called: then nothing
    would come for minutes. So something of the job is changed that nobody looks at.
    """
    shown = asked("scontrol", "show", "config")
    folder = re.search(r"^StateSaveLocation\s*=\s*(\S+)$", shown, re.M)
    assert folder is not None
    file = Path(folder[1], "job_state")

    def saved_at() -> int:
        with suppress(FileNotFoundError):  # Slurm removes the old one before the new is there.
            return file.stat().st_mtime_ns
        return 0

    before = saved_at()
    asked("scontrol", "update", f"jobid={job}", f"admincomment=saved-after-{before}")
    wait_for(lambda: saved_at() > before, what="Slurm to save what it knows")


@pytest.mark.parametrize(("kind", "how"), [("slurm", "kill"), ("gridengine", "stop")])
def test_outage(site: BatchSite, kind: Cluster, how: Literal["kill", "stop"]) -> None:
    """What runs goes on; what is asked for waits with the scheduler's words; then it is done."""
    runs, comes, goes, never = (f"{kind}-{name}" for name in ("runs", "comes", "goes", "never"))
    for server in (runs, goes):
        site.start("alice", server, kind)
    for server in (runs, goes):
        site.becomes("alice", server, "ready")
    if kind == "slurm":
        slurm_saves(site.jobs_of("alice", goes, kind)[0])
    beds.disturb(kind, how)
    try:
        wait_for(lambda: site.state(kind)["failing_since"], what="the silence to be noted")
        for server in (comes, never):
            site.start("alice", server, kind)
        site.stop("alice", goes)
        waits = site.until(
            "alice", comes, lambda now: now["reason"] and now["reason"]["words"], what="a reason"
        )
        assert waits["status"] == "submitted"
        assert waits["reason"]["code"] in ("spawner-failed", "spawner-silent")
        site.becomes("alice", never, "submitted")
        site.stop("alice", never)
        assert site.launch("alice", goes)["status"] == "ending"
        running = site.launch("alice", runs)
        assert running["status"] == "ready"
        assert running["unknown_since"]
    finally:
        beds.disturb(kind, "cont" if how == "stop" else "start")
    site.becomes("alice", comes, "ready")
    assert len(site.jobs_of("alice", comes, kind)) == 1
    for server in (goes, never):
        site.becomes("alice", server, "ended")
        assert not site.jobs_of("alice", server, kind)
    wait_for(lambda: not site.state(kind)["failing_since"], what="the end of the silence")
    assert site.launch("alice", runs)["status"] == "ready"
    codes = site.codes(running["id"])
    assert codes.count("ready") == 1, site.events(running["id"])
    assert codes[-2:] == ["unknown", "seen-again"]
