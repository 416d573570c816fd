"""A hub that answers at an address, and the real program beside it, as on a login node."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from perijove.domain.launch import Reason
from perijove.services.offers import PolicySection, ProfileSection
from perijove.spawners.contract import (
    Checkpoint,
    LaunchSpec,
    Phase,
    Sighting,
    Spawner,
    Survey,
)
from perijove.web.listen import open_tcp, serve
from tests.apis import ANN, TestApi, running_api
from tests.fakes.spawners import Wrapper

PATIENCE = 120
PROFILE: Mapping[str, Any] = {
    "name": "interactive",
    "title": {"en": "Interactive", "fr": "Interactif"},
    "spawner": "memory",
    "fields": {
        "cpu": {"default": 1, "max": 16},
        "memory": {"default": "2 GiB", "max": "32 GiB"},
        "time": {"default": "1 h", "max": "8 h"},
        "ui": {"default": "lab", "choices": ["lab", "notebook"]},
    },
}


@dataclass(frozen=True, slots=True)
class Done:
    """How a run of the program ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def answer(self) -> Any:
        """What it printed for programs; it must have worked."""
        assert self.code == 0, (self.code, self.stdout, self.stderr)
        return json.loads(self.stdout)

    @property
    def error(self) -> dict[str, Any]:
        """What it said for programs of its failure."""
        found: dict[str, Any] = json.loads(self.stderr)["error"]
        return found


@dataclass(slots=True)
class LoginNode:
    """A machine with the program, and a hub to use it with."""

    api: TestApi
    url: str
    home: Path
    environ: dict[str, str] = field(default_factory=dict)

    def environment(self, **more: str) -> dict[str, str]:
        """Return what the program sees of its surroundings."""
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PERIJOVE", "XDG", "LC_", "LANG", "DISPLAY", "BROWSER"))
        }
        return {
            **clean, "XDG_CONFIG_HOME": str(self.home), "NO_COLOR": "1", "COLUMNS": "200",
            "TZ": "UTC", **self.environ, **more,
        }  # fmt: skip

    async def run(self, *arguments: str, given: str = "", **environ: str) -> Done:
        """Run a command to its end, while the hub serves."""
        environment = self.environment(**environ)

        def work() -> Done:
            done = subprocess.run(
                [sys.executable, "-m", "perijove", *arguments],
                input=given,
                env=environment,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
            assert "Traceback" not in done.stderr, done.stderr
            return Done(done.returncode, done.stdout, done.stderr)

        return await anyio.to_thread.run_sync(work)

    async def sign_in(self, token: str = ANN) -> None:
        """Sign in, as ann if nobody else."""
        done = await self.run("login", self.url, given=f"{token}\n")
        assert done.code == 0, done.stderr


class Queue(Wrapper):
    """A platform on which everything waits, and says why and until when, while it is active."""

    def __init__(self, inner: Spawner, *, words: str = "(Resources)") -> None:
        super().__init__(inner)
        self._reason = Reason(code="resources", words=words)

    async def start(self, spec: LaunchSpec, checkpoint: Checkpoint) -> Sighting:
        """Start within, and say that it waits."""
        return self._hold(await super().start(spec, checkpoint))

    async def survey(self) -> Survey:
        """Survey within, and show what runs as waiting."""
        found = await super().survey()
        return replace(found, sightings=[self._hold(each) for each in found.sightings])

    def _hold(self, sighting: Sighting) -> Sighting:
        if not self.active or sighting.phase is not Phase.RUNNING:
            return sighting
        expected = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=23)
        return replace(
            sighting, phase=Phase.PENDING, url="", reason=self._reason, expected_start=expected
        )


@asynccontextmanager
async def login_node(directory: Path, **given: Any) -> AsyncIterator[LoginNode]:
    """Serve a hub with one profile, where servers become ready at once."""
    profiles = given.pop("profile_sections", None) or [ProfileSection.model_validate(PROFILE)]
    policies = [PolicySection.model_validate(each) for each in given.pop("policies", [])]
    database = f"sqlite:///{directory / 'hub.sqlite'}"
    async with (
        running_api(
            database, directory, profile_sections=profiles, policies=policies, **given
        ) as api,
        anyio.create_task_group() as tasks,
    ):
        listener = open_tcp("127.0.0.1:0")
        started = anyio.Event()
        tasks.start_soon(lambda: serve(api.app, [listener], started=started.set))
        await started.wait()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        try:
            yield LoginNode(api, url, directory / "config")
        finally:
            tasks.cancel_scope.cancel()
