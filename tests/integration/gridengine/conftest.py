"""A person's side of the Grid Engine of the test bed."""

import os
import pwd
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from perijove.domain.launch import End, Resources
from perijove.spawners.batch.commands import Allowance, Commands
from perijove.spawners.batch.scheduler import SCRIPT, Command, Job, JobRequest, Result, Site
from perijove.spawners.gridengine.scheduler import GridEngineScheduler
from tests import beds, clusters


class ShiftedClock:
    """The machine's clock, put forward by a test instead of waiting."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        """Return the time, aware, UTC."""
        return datetime.now(UTC) + self.ahead


class Bed:
    """Submits as people do, and asks as the hub does; what it submitted ends with the test."""

    def __init__(self) -> None:
        self.prefix = f"pj-{secrets.token_hex(4)}-"
        self.clock = ShiftedClock()
        settings = {
            name: value
            for name, value in beds.account_environment("alice").items()
            if name.startswith("SGE_")
        }
        self.site = Site(environment=settings)
        self.scheduler = GridEngineScheduler(
            self.site,
            parallel_environment="smp",
            memory_complex="rmem",
            gpu_complex="gpu",
            clock=self.clock,
        )
        self.run = Commands(self.site, Allowance(0.001)).run
        self.ids: list[str] = []
        self.folders: list[Path] = []

    async def run_as(
        self, user_name: str, commands: Sequence[Command], folder: Path | None = None, **extra: str
    ) -> Sequence[Result]:
        """Run commands as a person, with `extra` in the environment."""
        entry = pwd.getpwnam(user_name)
        results: list[Result] = []
        for command in commands:
            done = await anyio.run_process(
                list(command),
                check=False,
                cwd=folder or entry.pw_dir,
                env={**beds.account_environment(user_name), **extra},
                user=entry.pw_uid,
                group=entry.pw_gid,
                extra_groups=[],
            )
            results.append(
                Result(
                    status=done.returncode,
                    stdout=done.stdout.decode(errors="replace"),
                    stderr=done.stderr.decode(errors="replace"),
                )
            )
        return results

    def folder(self, user_name: str, script: str) -> Path:
        """Make a job's directory in a person's home, with its script."""
        entry = pwd.getpwnam(user_name)
        folder = Path(tempfile.mkdtemp(prefix="job-", dir=entry.pw_dir))
        (folder / SCRIPT).write_text(f"#!/bin/sh\n{script}\n")
        for path in (folder, folder / SCRIPT):
            os.chown(path, entry.pw_uid, entry.pw_gid)
        self.folders.append(folder)
        return folder

    def request(
        self, resources: Resources = Resources(), *extra: str, **options: Any
    ) -> JobRequest:
        """Return a request for a job of this test."""
        return JobRequest(
            name=f"{self.prefix}{len(self.ids)}",
            comment="made by a test",
            resources=resources,
            options=options,
            extra=extra,
        )

    async def submit(
        self, request: JobRequest, script: str = "exec sleep 300", *, user_name: str = "alice"
    ) -> str:
        """Submit a job as a person and return its id."""
        folder = self.folder(user_name, script)
        command = self.scheduler.submission(request)
        (result,) = await self.run_as(user_name, [command], folder, SECRET="not-for-the-job")
        job_id = self.scheduler.read_submission(result)
        self.ids.append(job_id)
        return job_id

    async def job(self, job_id: str, until: Callable[[Job], bool]) -> Job:
        """Return a job as soon as the queue shows it as `until` says."""
        with anyio.fail_after(90):
            while True:
                for job in await self.scheduler.jobs(self.run, self.prefix):
                    if job.id == job_id and until(job):
                        return job
                self.clock.ahead += timedelta(seconds=31)
                await anyio.sleep(0.2)
        raise AssertionError

    async def end(self, job_id: str) -> End:
        """Return how a job ended as soon as that is known."""
        with anyio.fail_after(90):
            while True:
                if ends := await self.ends(job_id):
                    return ends[job_id]
                await anyio.sleep(0.3)
        raise AssertionError

    async def ends(self, job_id: str) -> Mapping[str, End]:
        """Return the job's end, if it is known, after a look at the queue."""
        await self.scheduler.jobs(self.run, self.prefix)
        return await self.scheduler.ends(self.run, [job_id])

    async def clear(self) -> None:
        """End what this test submitted, by its ids."""
        if self.ids:
            await self.run(["qdel", *self.ids])
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def bed() -> AsyncIterator[Bed]:
    """Give the bed, clean."""
    with clusters.left_clean("gridengine"):
        one = Bed()
        try:
            yield one
        finally:
            await one.clear()
