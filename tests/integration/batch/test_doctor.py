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

OLD_SERVER = """#!/bin/sh
echo 3.1.1
"""
NO_ACCOUNTING = """#!/bin/sh
echo "error: accounting file cannot be read" >&2
exit 1
"""


def examine(
    site: BatchSite,
    kind: Cluster,
    settings: str = "",
    *arguments: str,
    hub: str = "",
    user: str = "alice",
    **changes: str,
) -> tuple[int, Any]:
    """
    Return exit status and findings of an examination with these settings.

    Of the settings that the bed's section has, `changes` are put before those of the same name.
    """
    lines = clusters.section(kind, settings).splitlines()
    kept = [line for line in lines if line.partition(" = ")[0] not in changes]
    kept += [f"{name} = {value}" for name, value in changes.items()]
    config = site.site.directory / "doctor.toml"
    config.write_text(
        f"[hub]\ndata_dir = '{site.site.directory / 'data'}'\n{hub}\n"
        + clusters.sign_in_section()
        + "\n".join(kept)
    )
    where = ["--spawner", kind, "--user", user, "--config", str(config), *arguments]
    done = subprocess.run(
        [sys.executable, "-m", "perijove", "doctor", *where, "--json"],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    return done.returncode, json.loads(done.stdout)


def wrong(findings: Any) -> dict[str, str]:
    """Return the codes of what is wrong, by check."""
    return {each["check"]: each["code"] for each in findings if not each["ok"]}


def test_a_cluster_that_is_ready(site: BatchSite) -> None:
    """
    The whole way of a start is gone with a job, and nothing is found wrong.

    Also where the site wants six questions in twelve minutes: the job would not live so long.
    """
    prefix = os.environ["PERIJOVE_TEST_JOB_SINGLEUSER"]
    software = f'software = {{ prefix = "{prefix}" }}'
    status, findings = examine(site, "slurm", software, minimum_period="120")
    assert wrong(findings) == {}
    assert status == 0
    assert [each["check"] for each in findings] == [
        "scheduler", "launcher", "accounting", "dry-run", "submission", "start", "python", "job",
        "home", "command", "node-to-hub", "clock", "port", "hub-to-node", "stop", "record",
    ]  # fmt: skip


def test_nothing_is_submitted_where_nothing_can_be(site: BatchSite) -> None:
    """A scheduler that does not answer, and a person whom no job may be run for."""
    environment = '{ SLURM_CONF = "/nowhere" }'
    status, findings = examine(site, "slurm", user="root", scheduler_environment=environment)
    assert wrong(findings) == {"scheduler": "spawner-away", "launcher": "account-refused"}
    assert (status, len(findings)) == (1, 2)


def test_what_the_scheduler_refuses_is_quoted(site: BatchSite) -> None:
    """The dry run says so first, and then the submission."""
    status, findings = examine(site, "slurm", 'submit_arguments = ["--partition=no-such"]')
    assert wrong(findings).keys() == {"dry-run", "submission"}
    assert all("partition" in each["words"] for each in findings if not each["ok"])
    assert status == 1


def test_job_that_does_not_start_is_not_waited_for(site: BatchSite) -> None:
    """It is said why the scheduler lets it wait, and it is gone afterwards."""
    later = 'submit_arguments = ["--begin=now+1hour"]'
    _, findings = examine(site, "slurm", later, "--wait", "2")
    assert wrong(findings).keys() == {"start"}
    words = {each["check"]: each["words"] for each in findings}
    assert "BeginTime" in words["start"]
    assert findings[-1]["check"] == "stop"
    assert clusters.jobs("slurm") == []


def test_each_thing_that_is_wrong_is_named(site: BatchSite) -> None:
    """Software, hub and port that a node does not have: all of it at once, and the job is gone."""
    settings = 'software = { prefix = "/nowhere" }\nports = [1, 1]'
    hub = "api_bind = '127.0.0.1:9'"
    status, findings = examine(site, "gridengine", settings, hub=hub)
    assert wrong(findings) == {
        "command": "environment-missing", "node-to-hub": "", "port": "port-range-full",
    }  # fmt: skip
    assert status == 1
    assert clusters.jobs("gridengine") == []


def test_what_only_the_hub_can_judge_is_named_too(site: BatchSite) -> None:
    """Settings that do not fit the cell, a server that is too old, and qacct."""
    programs = site.site.directory.parent / "doctor-programs"
    programs.mkdir(mode=0o755)
    for name, text in {"jupyterhub-singleuser": OLD_SERVER, "qacct": NO_ACCOUNTING}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    own = clusters.section("gridengine").partition("scheduler_environment = { ")[2]
    environment = own.partition("\n")[0].removesuffix(" }")
    _, findings = examine(
        site,
        "gridengine",
        gpu_complex='"no-such"',
        command=f'["{programs / "jupyterhub-singleuser"}"]',
        scheduler_environment=f'{{ {environment}, PATH = "{programs}:/usr/bin:/bin" }}',
    )
    assert wrong(findings).keys() == {"accounting", "version", "record"}
    words = {each["check"]: each["words"] for each in findings}
    assert "no-gpu-complex" in words["accounting"]
    assert "3.1.1" in words["version"]
    assert "accounting file cannot be read" in words["record"]
