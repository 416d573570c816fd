"""The test bed's Slurm, asked as the hub asks it and as people do."""

import os
import pwd
import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import mkdtemp
from types import MappingProxyType
from typing import Any, Final

import anyio
import pytest

from perijove.domain.launch import Resources
from perijove.spawners.batch.commands import environment_of
from perijove.spawners.batch.scheduler import SCRIPT, Command, Job, JobRequest, Result, Site
from perijove.spawners.slurm.scheduler import SlurmScheduler
from tests import beds, clusters

MIB: Final = 2**20
SMALL: Final = Resources(cpu=1, memory_bytes=64 * MIB, time_seconds=600)


async def until(is_so: Callable[[], Awaitable[bool]], *, seconds: float = 60) -> None:
    """Return as soon as something is so; raise `TimeoutError` if it takes too long."""
    with anyio.fail_after(seconds):
        while True:
            if await is_so():
                return
            await anyio.sleep(0.2)


@dataclass(slots=True, kw_only=True)
class Bed:
    """One test's view of the cluster: its jobs carry a prefix of their own."""

    site: Site
    prefix: str
    scheduler: SlurmScheduler = field(default_factory=SlurmScheduler)
    submitted: list[str] = field(default_factory=list)
    directories: list[Path] = field(default_factory=list)

    async def run(self, command: Command) -> Result:
        """Run a command as the hub."""
        done = await anyio.run_process(command, check=False, env=environment_of(self.site))
        return Result(
            status=done.returncode,
            stdout=done.stdout.decode(errors="replace"),
            stderr=done.stderr.decode(errors="replace"),
        )

    async def run_as(self, user: str, commands: Sequence[Command]) -> Sequence[Result]:
        """Run commands as a person, one after the other."""
        return [await anyio.to_thread.run_sync(self._as, user, command) for command in commands]

    def request(
        self, resources: Resources = SMALL, *, extra: Sequence[str] = (), **options: Any
    ) -> JobRequest:
        """Return a request with a new name."""
        name = f"{self.prefix}{secrets.token_hex(6)}"
        return JobRequest(
            name=name, comment=f"test {name}", resources=resources, options=options, extra=extra
        )

    async def attempt(
        self, user: str, request: JobRequest, script: str = "sleep 300", **variables: str
    ) -> Result:
        """Submit as `user`, from a directory of the job's own; `variables` are the submitter's."""
        command = self.scheduler.submission(request)
        directory = self._directory(user, script)
        result = await anyio.to_thread.run_sync(self._as, user, command, directory, variables)
        if result.status == 0:
            self.submitted.append(self.scheduler.read_submission(result))
        return result

    async def submit(
        self, user: str, request: JobRequest, script: str = "sleep 300", **variables: str
    ) -> str:
        """Submit as `user` and return the job's number."""
        result = await self.attempt(user, request, script, **variables)
        return self.scheduler.read_submission(result)

    async def until(self, job_id: str, is_so: Callable[[Job], bool], *, seconds: float = 90) -> Job:
        """Return a job as soon as the queue shows that something is so."""
        job: Job | None = None

        async def seen() -> bool:
            nonlocal job
            jobs = await self.scheduler.jobs(self.run, self.prefix)
            job = next((each for each in jobs if each.id == job_id), job)
            return job is not None and is_so(job)

        try:
            await until(seen, seconds=seconds)
        except TimeoutError:
            raise AssertionError(f"after {seconds} s: {job}") from None
        assert job is not None
        return job

    def _directory(self, user: str, script: str) -> Path:
        entry = pwd.getpwnam(user)
        directory = Path(mkdtemp(prefix=self.prefix, dir=entry.pw_dir))
        self.directories.append(directory)
        (directory / SCRIPT).write_text(f"#!/bin/sh\n{script}\n")
        os.chown(directory, entry.pw_uid, entry.pw_gid)
        return directory

    def _as(
        self,
        user: str,
        command: Command,
        directory: Path = Path(),
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> Result:
        environment = {**environment_of(self.site), **variables}
        settings = (f"{name}={value}" for name, value in environment.items())
        done = beds.run_as(user, "env", f"--chdir={directory}", *settings, *command)
        return Result(status=done.returncode, stdout=done.stdout, stderr=done.stderr)


@pytest.fixture
async def bed() -> AsyncIterator[Bed]:
    """Give the cluster, clean; afterwards what was submitted is cancelled."""
    variables = {"SLURM_CONF": os.environ["PERIJOVE_TEST_SLURM_CONF"], "SLURM_TIME_FORMAT": "%s"}
    bed = Bed(site=Site(environment=variables), prefix=f"pj-test{secrets.token_hex(4)}-")
    with clusters.left_clean("slurm"):
        try:
            yield bed
        finally:
            for job_id in bed.submitted:
                await bed.run(bed.scheduler.cancellation(job_id))
            for directory in bed.directories:
                shutil.rmtree(directory)


@pytest.fixture
def away(bed: Bed, tmp_path: Path) -> Bed:
    """Give the same cluster behind a controller's port where nobody listens."""
    there = Path(bed.site.environment["SLURM_CONF"])
    kept = [
        line
        for line in there.read_text().splitlines()
        if not line.startswith(("SlurmctldPort=", "MessageTimeout="))
    ]
    conf = tmp_path / "slurm.conf"
    conf.write_text("\n".join([*kept, "SlurmctldPort=1", "MessageTimeout=1", ""]))
    environment = {**bed.site.environment, "SLURM_CONF": str(conf)}
    return replace(bed, site=replace(bed.site, environment=environment))
