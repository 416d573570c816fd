"""The test beds themselves: what they promise the tests is there."""

import os
import subprocess
from pathlib import Path

import pytest

from tests import beds

CORPUS = beds.ROOT / "tests/corpus"
PATIENCE = 180
"""Seconds in which a bed proves itself, also beside another lane of the tests."""


@pytest.mark.needs("root", "users", "slurm")
@pytest.mark.timeout(200)
def test_a_job_runs_on_slurm_from_end_to_end() -> None:
    """A job of alice's runs as her, answers on its port, is cancelled and accounted for."""
    subprocess.run([beds.ROOT / "testbeds/slurm/prove.sh"], check=True, timeout=PATIENCE)


@pytest.mark.needs("root", "users", "gridengine")
@pytest.mark.timeout(200)
def test_a_job_runs_on_grid_engine_from_end_to_end() -> None:
    """A job of alice's runs as her, answers on its port, is deleted and accounted for."""
    subprocess.run([beds.ROOT / "testbeds/gridengine/prove.sh"], check=True, timeout=PATIENCE)


@pytest.mark.needs("root", "users")
def test_accounts_can_run_the_single_user_server_and_read_no_other_home() -> None:
    """Alice can start the stock server where jobs find it, and cannot look into bob's home."""
    server = f"{os.environ['PERIJOVE_TEST_JOB_SINGLEUSER']}/bin/jupyterhub-singleuser"

    assert beds.run_as("alice", server, "--version").stdout.startswith("5.")
    assert "Permission denied" in beds.run_as("alice", "ls", "/home/bob").stderr
    assert "perijove-users" in beds.run_as("alice", "id", "-nG").stdout.split()


@pytest.mark.needs("root", "users", "slurm", "gridengine")
def test_commands_of_both_schedulers_answer_an_account() -> None:
    """The environment of an account reaches both schedulers."""
    assert beds.run_as("alice", "squeue", "--me").returncode == 0
    assert beds.run_as("alice", "qstat").returncode == 0


@pytest.mark.needs("root", "docker-ctl")
@pytest.mark.timeout(200)
def test_a_container_runs_from_end_to_end() -> None:
    """A container answers, reaches this machine, outlives a crash of its engine and is removed."""
    subprocess.run([beds.ROOT / "testbeds/docker/prove.sh"], check=True, timeout=PATIENCE)


@pytest.mark.needs("root", "kubernetes")
@pytest.mark.timeout(200)
def test_a_pod_runs_from_end_to_end() -> None:
    """A pod with a volume answers and reaches this machine; roles and limits hold; all goes."""
    subprocess.run([beds.ROOT / "testbeds/kubernetes/prove.sh"], check=True, timeout=PATIENCE)


@pytest.mark.parametrize("folder", ["slurm", "gridengine", "kubernetes"])
def test_each_output_of_the_corpus_says_which_command_made_it(folder: str) -> None:
    """The index of a corpus lists exactly the files that are there."""
    rows = (CORPUS / folder / "INDEX.md").read_text().splitlines()
    listed = [row.split("`")[1] for row in rows if row.startswith("| `")]
    there = [file.name for file in Path(CORPUS, folder).iterdir() if file.name != "INDEX.md"]

    assert sorted(listed) == sorted(there)
