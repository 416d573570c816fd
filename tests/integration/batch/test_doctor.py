"""``perijove doctor``, as an administrator runs it beside a hub."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests import clusters
from tests.clusters import Cluster
from tests.integration.batch.site import BatchSite

pytestmark = [
    pytest.mark.needs("root", "users", "slurm", "gridengine"),
    pytest.mark.timeout(400),
]


def examine(site: BatchSite, kind: Cluster, settings: str, hub: str = "") -> tuple[int, Any]:
    """Return exit status and findings of an examination as alice, with these settings."""
    config = site.site.directory / "doctor.toml"
    config.write_text(
        f"[hub]\ndata_dir = '{site.site.directory / 'data'}'\n{hub}\n"
        + clusters.sign_in_section()
        + clusters.section(kind, settings)
    )
    where = ["--spawner", kind, "--user", "alice", "--config", str(config)]
    done = subprocess.run(
        [sys.executable, "-m", "perijove", "doctor", *where, "--json"],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    return done.returncode, json.loads(done.stdout)


def test_a_cluster_that_is_ready(site: BatchSite) -> None:
    """The whole way of a start is gone with a job, and nothing is found wrong."""
    prefix = os.environ["PERIJOVE_TEST_JOB_SINGLEUSER"]
    status, findings = examine(site, "slurm", f'software = {{ prefix = "{prefix}" }}')
    assert [each for each in findings if not each["ok"]] == []
    assert status == 0
    assert [each["check"] for each in findings] == [
        "scheduler", "launcher", "accounting", "dry-run", "submission", "start", "python", "job",
        "home", "command", "node-to-hub", "port", "hub-to-node", "stop",
    ]  # fmt: skip


def test_each_thing_that_is_wrong_is_named(site: BatchSite) -> None:
    """Software, hub and port that a node does not have: all of it at once, and the job is gone."""
    settings = 'software = { prefix = "/nowhere" }\nports = [1, 1]'
    hub = "api_bind = '127.0.0.1:9'"
    status, findings = examine(site, "gridengine", settings, hub)
    wrong = {each["check"]: each["code"] for each in findings if not each["ok"]}
    assert wrong == {
        "command": "environment-missing", "node-to-hub": "", "port": "port-range-full",
    }  # fmt: skip
    assert status == 1
    assert clusters.jobs("gridengine") == []
