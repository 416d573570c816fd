"""Jobs without a scheduler: the files that one is delivered with, run as a batch node runs them."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import anyio

from perijove.agent import job_files
from perijove.domain.launch import Launch, Status
from perijove.kit.loops import until
from perijove.services.specs import registration_code, server_token, spec_of
from perijove.spawners.contract import Spawner
from perijove.web.app import create_app
from perijove.web.listen import open_tcp, serve
from tests.contract.spawners.sites import PROGRAM
from tests.fakes.spawners import MemoryPlatform, Registering
from tests.hubs import PATIENCE, TestHub, running_hub


@asynccontextmanager
async def serving_hub(
    database_url: str,
    directory: Path,
    *,
    port: int = 0,
    platform: MemoryPlatform | None = None,
    jobs: Mapping[str, str] | None = None,
    wrap: Callable[[Spawner], Registering] = Registering,
) -> AsyncIterator["ServedHub"]:
    """Run a hub that answers on TCP, with a platform whose launches say where they listen."""
    platform = platform or MemoryPlatform(url="")
    async with running_hub(
        database_url, directory, wrap=wrap, platform=platform, spawner={"start_limit": 60}
    ) as hub:
        spawner: Registering = hub.spawner
        spawner.jobs.update(jobs or {})
        listener = open_tcp(f"127.0.0.1:{port}")
        started = anyio.Event()

        async def serve_app() -> None:
            await serve(create_app(hub.hub), [listener], started=started.set)

        hub.tasks.start_soon(serve_app)
        with anyio.fail_after(PATIENCE):
            await started.wait()
        yield ServedHub(hub=hub, spawner=spawner, port=listener.getsockname()[1])
        hub.tasks.cancel_scope.cancel()


@dataclass(slots=True)
class ServedHub:
    """A hub with an address."""

    hub: TestHub
    spawner: Registering
    port: int

    @property
    def api(self) -> str:
        """The URL of its API, as jobs use it."""
        return f"http://127.0.0.1:{self.port}/hub/api"

    async def running_launch(self, job_id: str = "17") -> Launch:
        """Return a launch of ann's that runs on the platform as a job, and listens nowhere yet."""
        launch = await self.hub.start()
        launch = await self.hub.becomes(launch, Status.STARTING)
        self.spawner.jobs[job_id] = launch.name
        return launch

    def token(self, launch: Launch) -> str:
        """Return the token of a launch's server."""
        return server_token(self.hub.hub, launch)

    def code(self, launch: Launch) -> str:
        """Return what a launch's job proves itself with."""
        return registration_code(self.hub.hub, launch)

    def deliver(self, launch: Launch, folder: Path, **changes: Any) -> Path:
        """Write a launch's job directory."""
        spec = spec_of(replace(self.hub.hub, api_url=self.api), launch)
        environment = dict(spec.environment)
        del environment["JUPYTERHUB_API_TOKEN"]
        home = folder / "home"
        job = folder / launch.name
        home.mkdir(exist_ok=True)
        job.mkdir(mode=0o700)
        order = {
            "version": 1,
            "name": spec.name,
            "launch_id": spec.launch_id,
            "hub_api": self.api,
            "register_url": f"{self.api}/perijove/registrations",
            "code": spec.code,
            "environment": environment,
            "command": [sys.executable, str(PROGRAM), "plain"],
            "prefix": spec.prefix,
            "networks": ["127.0.0.0/8"],
            "ports": None,
            "software": {},
            "resources": {"cpu": 2},
            "safe_mode": False,
            "log_limit": 1 << 20,
            "grace": 5,
            "home": str(home),
            **changes,
        }
        for name, text in {**job_files(), "spec.json": json.dumps(order)}.items():
            (job / name).write_text(text)
        return job


@dataclass(slots=True)
class Job:
    """A job as its scheduler runs it."""

    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def output(self) -> str:
        """What it has printed."""
        return (self.folder / "job.log").read_text(errors="replace")

    @property
    def end(self) -> dict[str, Any]:
        """What it says of its end."""
        found: dict[str, Any] = json.loads((self.folder / "end.json").read_text())
        return found

    async def exit_status(self) -> int:
        """Wait until it is over."""

        async def is_over() -> bool:
            return self.process.poll() is not None

        assert await until(is_over, seconds=PATIENCE), self.output
        return int(self.process.returncode)

    async def says(self, words: str) -> None:
        """Wait until it has printed something."""

        async def is_said() -> bool:
            return words in self.output

        assert await until(is_said, seconds=PATIENCE), self.output


@asynccontextmanager
async def running_job(folder: Path, job_id: str = "17", **variables: str) -> AsyncIterator[Job]:
    """Run the job in a directory; at the end nothing of it is left."""
    job = Job(folder, _start(folder, job_id, variables))
    try:
        yield job
    finally:
        job.process.terminate()
        await job.exit_status()


def _start(folder: Path, job_id: str, variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    environment = {
        "PATH": os.environ["PATH"],
        "SLURM_JOB_ID": job_id,
        "SLURM_CPUS_ON_NODE": "64",
        "TMPDIR": str(folder.parent),
        **variables,
    }
    with (folder / "job.log").open("ab") as output:
        return subprocess.Popen(
            ["/bin/sh", "./job.sh"],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


async def seen_by(launch: Launch) -> dict[str, str]:
    """Return the environment of a launch's server, which it tells to all who ask."""

    def ask() -> dict[str, str]:
        with urlopen(f"{launch.url}/user/ann/api", timeout=PATIENCE) as answer:
            found: dict[str, str] = json.load(answer)
            return found

    return await anyio.to_thread.run_sync(ask)
