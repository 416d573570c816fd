"""
The schedulers of the test bed as platforms for the contract suite.

Run as ``python -m tests.contract.spawners.batch_sites KIND DIRECTORY INSTALLATION NAME`` it is a
hub that is killed after the scheduler has taken its job and before it has recorded that.
"""

import os
import pwd
import re
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import anyio

from perijove.kit.ids import new_installation_id, platform_name
from perijove.spawners.batch.spawner import BatchSpawner
from perijove.spawners.contract import Handle, LaunchSpec, Surroundings
from perijove.spawners.gridengine.spawner import GridEngineSettings, GridEngineSpawner
from perijove.spawners.slurm.spawner import SlurmSettings, SlurmSpawner
from tests import beds
from tests.contract.spawners.sites import SECRET, make_spec

CODE: Final = "0d6f2b7c94e1a8835c"
"""A registration code, as recognisable as a secret of a test has to be."""

Kind = Literal["slurm", "gridengine"]


def _asked(user: str, *command: str) -> str:
    done = beds.run_as(user, *command)
    return f"{done.stdout}\n{done.stderr}"


def _submitted(user: str, *command: str) -> str:
    done = beds.run_as(user, *command)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@dataclass(frozen=True, slots=True)
class SlurmCluster:
    """The test bed's Slurm."""

    def spawner(self, around: Surroundings, **given: Any) -> SlurmSpawner:
        """Return a spawner of this cluster."""
        settings = {
            "scheduler_environment": {"SLURM_CONF": os.environ["PERIJOVE_TEST_SLURM_CONF"]},
            "minimum_period": 1,
        }
        return SlurmSpawner(SlurmSettings(**settings | given), around)

    def copy(self, user: str, name: str) -> str:
        """Submit a job with a name as a person; returns its id."""
        quiet = ["--parsable", "--output=/dev/null", "--mem=1M", "--wrap=exec sleep 300"]
        return _submitted(user, "sbatch", f"--job-name={name}", *quiet)

    def live(self, name: str) -> Sequence[str]:
        """Return the ids of the jobs with this name that are not over, whoever owns them."""
        return _asked("root", "squeue", "--noheader", f"--name={name}", "--format=%A").split()

    def cancel(self, job_id: str) -> None:
        """Cancel a job as root."""
        _asked("root", "scancel", job_id)

    def told(self, user: str, job_id: str) -> str:
        """Return all that a person can find out about a job of anybody."""
        return "".join(
            _asked(user, *command.split(), job_id)
            for command in (
                "scontrol --details show job",
                "scontrol write batch_script",
                "squeue --all --Format=JobID,Name:200,Comment:500,Command:500,WorkDir:500 --jobs",
                "sacct --allusers --format=ALL --parsable2 --jobs",
                "sacct --allusers --batch-script --jobs",
                "sacct --allusers --env-vars --jobs",
            )
        )


@dataclass(frozen=True, slots=True)
class GridEngineCluster:
    """The test bed's Grid Engine."""

    def spawner(self, around: Surroundings, **given: Any) -> GridEngineSpawner:
        """Return a spawner of this cluster."""
        environment = {
            name: value
            for name, value in beds.account_environment("alice").items()
            if name.startswith("SGE_")
        }
        settings = {
            "scheduler_environment": environment,
            "minimum_period": 1,
            "parallel_environment": "smp",
            "memory_complex": "rmem",
            "gpu_complex": "gpu",
        }
        return GridEngineSpawner(GridEngineSettings(**settings | given), around)

    def copy(self, user: str, name: str) -> str:
        """Submit a job with a name as a person; returns its id."""
        quiet = ["-terse", "-o", "/dev/null", "-j", "y", "-b", "y", "-l", "rmem=16M"]
        return _submitted(user, "qsub", "-N", name, *quiet, "/bin/sleep", "300")

    def live(self, name: str) -> Sequence[str]:
        """Return the ids of the jobs with this name that are not over, whoever owns them."""
        listing = _asked("root", "qstat", "-u", "*", "-r")
        found = re.findall(r"^ *(\d+) .*\n *Full jobname: +(\S+)$", listing, re.M)
        return [job_id for job_id, each in found if each == name]

    def cancel(self, job_id: str) -> None:
        """Cancel a job as root."""
        _asked("root", "qdel", job_id)

    def told(self, user: str, job_id: str) -> str:
        """Return all that a person can find out about a job of anybody."""
        return "".join(
            _asked(user, *command)
            for command in (
                ("qstat", "-j", job_id),
                ("qstat", "-xml", "-j", job_id),
                ("qstat", "-u", "*", "-r", "-ext", "-urg"),
                ("qacct", "-j", job_id),
            )
        )


CLUSTERS: Final = {"slurm": SlurmCluster(), "gridengine": GridEngineCluster()}


@dataclass(slots=True)
class BatchSite:
    """One scheduler, on which any number of spawner objects of one installation may look."""

    kind: Kind
    data_dir: Path
    installation: str = field(default_factory=new_installation_id)
    name: str = ""
    names: set[str] = field(default_factory=set)
    strangers: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.name = self.name or self.new_name()

    @property
    def cluster(self) -> SlurmCluster | GridEngineCluster:
        """What a test does to the scheduler beside the spawner."""
        return CLUSTERS[self.kind]  # type: ignore[return-value]

    def spawner(self, installation: str = "", **settings: Any) -> BatchSpawner:
        """Return a new spawner, as a hub has after a restart; not entered yet."""
        around = Surroundings(
            name="cluster",
            installation=installation or self.installation,
            data_dir=self.data_dir,
            system_accounts=True,
        )
        return self.cluster.spawner(around, **settings)

    def new_name(self) -> str:
        """Return a platform name that is cleaned up behind."""
        name = platform_name(self.installation)
        self.names.add(name)
        return name

    def spec(self, **changes: Any) -> LaunchSpec:
        """Return a launch of alice's, whose hub is away: its job keeps on asking for it."""
        given: dict[str, Any] = {
            "installation": self.installation,
            "user_name": "alice",
            "code": CODE,
            "command": ["/usr/bin/python3"],
            "environment": {
                "JUPYTERHUB_API_TOKEN": SECRET,
                "JUPYTERHUB_API_URL": "http://127.0.0.1:9/hub/api",
                "PRIVATE": f"private {SECRET}",
            },
        }
        return make_spec(**{"name": self.name, **given, **changes})

    def folder(self, user: str = "alice", name: str = "") -> Path:
        """Return a launch's directory in a person's home."""
        return Path(pwd.getpwnam(user).pw_dir, ".perijove/launches", name or self.name)

    def copy(self, user: str) -> str:
        """Submit a job with the launch's name as a person, without the hub; returns its id."""
        job_id = self.cluster.copy(user, self.name)
        self.strangers.append(job_id)
        return job_id

    def live(self) -> Sequence[str]:
        """Return the ids of the jobs with the launch's name that are not over."""
        return self.cluster.live(self.name)

    async def crash(self) -> None:
        """Have another hub submit the launch, and be killed before it has recorded that."""
        done = await anyio.run_process(
            [sys.executable, "-m", __name__, self.kind, str(self.data_dir), self.installation,
             self.name],
            cwd=beds.ROOT,
            check=False,
        )  # fmt: skip
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()

    def clear(self) -> None:
        """Leave no job and no directory behind."""
        for job_id in [
            *self.strangers,
            *(each for n in self.names for each in self.cluster.live(n)),
        ]:
            self.cluster.cancel(job_id)
        for user in ("alice", "bob"):
            for name in self.names:
                shutil.rmtree(self.folder(user, name), ignore_errors=True)


def seen_by(user: str) -> str:
    """Return the command lines and environments of all processes that a person may read."""
    script = "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'"
    return beds.run_as(user, "/bin/sh", "-c", script).stdout


async def _submit_and_die(site: BatchSite) -> None:
    async def checkpoint(handle: Handle) -> None:
        if "job_id" in handle:
            os.kill(os.getpid(), signal.SIGKILL)

    async with site.spawner() as spawner:
        await spawner.start(site.spec(), checkpoint)


if __name__ == "__main__":
    _, kind, directory, installation, name = sys.argv
    beds.load_environment(os.environ)
    chosen: Kind = "slurm" if kind == "slurm" else "gridengine"
    anyio.run(_submit_and_die, BatchSite(chosen, Path(directory), installation, name))
