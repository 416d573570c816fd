"""A hub that is not root, with its launcher and its sudo rule, in front of real schedulers."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event

import psutil
import pytest

from tests import beds, clusters
from tests.clusters import Cluster
from tests.contract.spawners.batch_sites import seen_by
from tests.e2e.site import wait_for
from tests.integration.batch.site import BatchSite, a_batch_site
from tests.unprivileged import HUB, LAUNCHER, hand_over, launcher_installed

pytestmark = [
    pytest.mark.needs("root", "users", "hub-account", "slurm", "gridengine"),
    pytest.mark.timeout(180),
]

NAMED = {"slurm": "--job-name", "gridengine": "-N"}
PARTITION = {"slurm": "compute", "gridengine": "all.q"}


@pytest.fixture(scope="module")
def the_site() -> Iterator[BatchSite]:
    """Run a site under the account of its hub."""
    with launcher_installed(), a_batch_site(hand_over) as found:
        yield found


@contextmanager
def all_command_lines() -> Iterator[set[str]]:
    """Collect the command lines that everybody can read, also of what comes and goes meanwhile."""
    seen: set[str] = set()
    is_over = Event()

    def look() -> None:
        while not is_over.wait(0.005):
            for place in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):  # it has ended
                    seen.add(place.read_bytes().replace(b"\0", b" ").decode(errors="replace"))

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        try:
            yield seen
        finally:
            is_over.set()
            looking.result()


def token_of(server: str) -> str:
    """Return the token that a server was given, read from its process as only root can."""
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has ended
            environment = process.environ()
            if environment.get("JUPYTERHUB_SERVER_NAME") == server:
                found.add(environment["JUPYTERHUB_API_TOKEN"])
    (token,) = found
    return token


@pytest.mark.parametrize("kind", clusters.BOTH)
def test_job_and_its_secrets_are_the_persons(site: BatchSite, kind: Cluster) -> None:
    """It is alice's in every respect; what bob named the same is left alone when hers are ended."""
    assert site.site.parts()["hub"].username() == HUB
    wait_for(
        lambda: PARTITION[kind] in site.offered("alice", kind, "partition"),
        what="what the scheduler has for alice",
    )
    server = f"{kind}-hers"
    with all_command_lines() as seen:
        site.start("alice", server, kind)
        site.becomes("alice", server, "ready")
    name = site.row("alice", server)["name"]
    assert [job.user for job in clusters.jobs(kind) if job.name == name] == ["alice"]
    assert site.site.ask("GET", f"/user/alice/{server}/")[0] == 200

    spec = site.folder("alice", server) / "spec.json"
    secrets = (json.loads(spec.read_text())["code"], token_of(server))
    assert beds.run_as("alice", "cat", str(spec)).stdout == spec.read_text()
    for account in (HUB, "bob"):
        assert "Permission denied" in beds.run_as(account, "cat", str(spec)).stderr
    assert [line for line in seen if line.endswith(f"sudo -n -u alice -- {LAUNCHER} ")]
    shown = "\n".join([*seen, seen_by(HUB), seen_by("bob")])
    assert not [secret for secret in secrets if secret in shown]

    bobs = site.beside.block(kind, "bob", NAMED[kind], name)
    site.stop("alice", server)
    assert site.becomes("alice", server, "ended")["end"]["cause"] == "admin"
    # What appears for a server that was stopped is cancelled where it is its person's own.
    hers = site.beside.submit(kind, "alice", NAMED[kind], name)
    wait_for(lambda: hers not in site.jobs_of("alice", server, kind), what="the late job's end")
    assert site.jobs_of("alice", server, kind) == [bobs]
