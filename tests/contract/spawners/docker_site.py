"""A Docker engine as a platform for the contract suite."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from perijove.domain.launch import Cause, End
from perijove.kit.ids import new_installation_id
from perijove.spawners.contract import Checkpoint, LaunchSpec, Sighting, Surroundings
from perijove.spawners.docker import DockerSettings, DockerSpawner
from perijove.spawners.docker.labels import INSTALLATION, SPAWNER

_PROGRAM: Final = ("python3", "-I", "-S", "/srv/program.py")
_HERE: Final = 4
"""How many words of the suite's command say where its program is on this machine."""


def docker(*words: str, host: str = "") -> str:
    """Return what the engine's own command says, of the test bed's engine or another `host`."""
    done = subprocess.run(
        ["docker", "--host", host or os.environ["PERIJOVE_TEST_DOCKER_HOST"], *words],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def sweep(installation: str, *spawners: str) -> None:
    """Remove all that some spawners of an installation have on the engine."""
    ours = f"--filter=label={INSTALLATION}={installation}"
    for spawner in spawners:  # the kubelet copies labels of pods, and removes its own containers
        chosen = (ours, f"--filter=label={SPAWNER}={spawner}")
        if left := docker("container", "ls", "--all", "--quiet", *chosen).split():
            docker("container", "rm", "--force", "--volumes", *left)
    for kind in ("volume", "network"):
        if left := docker(kind, "ls", "--quiet", ours).split():
            docker(kind, "rm", *left)


class ImageSpawner(DockerSpawner):
    """Starts by the Python of the test bed's image what a test orders by its own."""

    async def start(self, spec: LaunchSpec, checkpoint: Checkpoint) -> Sighting:
        """Start the program that is in the image."""
        command: Sequence[str] = [*_PROGRAM, *spec.command[_HERE:]]
        return await super().start(replace(spec, command=command), checkpoint)


AnySpawner = TypeVar("AnySpawner", bound=DockerSpawner)


@dataclass(slots=True)
class DockerSite:
    """The engine of the test bed; a test has installations of its own there."""

    data_dir: Path
    installations: dict[str, str] = field(default_factory=dict)
    sections: set[str] = field(default_factory=set)

    def spawner(self, installation: str = "inst") -> ImageSpawner:
        """Return a spawner on the engine, for the suite."""
        return self.place(ImageSpawner, installation)

    def place(
        self,
        kind: type[AnySpawner],
        installation: str = "inst",
        *,
        section: str = "docker",
        system_accounts: bool = False,
        **settings: Any,
    ) -> AnySpawner:
        """Return a spawner on the engine, of a class, as a section configures it."""
        given: dict[str, Any] = {
            "url": os.environ["PERIJOVE_TEST_DOCKER_HOST"],
            "image": os.environ["PERIJOVE_TEST_IMAGE_NULL"],
        }
        self.sections.add(section)
        around = Surroundings(
            name=section,
            installation=self.own(installation),
            data_dir=self.data_dir / section,
            system_accounts=system_accounts,
        )
        return kind(DockerSettings(**given | settings), around)

    def own(self, installation: str = "inst") -> str:
        """Return the installation id that stands for one of the suite's."""
        return self.installations.setdefault(installation, new_installation_id())

    async def kill(self, sighting: Sighting) -> End:
        """Kill the server behind the spawner's back."""
        docker("kill", sighting.name)
        return End(cause=Cause.SIGNAL, code=9)

    @staticmethod
    def has_volume(name: str) -> bool:
        """Tell whether the engine itself knows such a volume."""
        return name in docker("volume", "ls", "--quiet").split()

    def clear(self) -> None:
        """Leave nothing of the test's installations on the engine."""
        for installation in self.installations.values():
            sweep(installation, *self.sections)


@pytest.fixture
def docker_site(tmp_path: Path) -> Iterator[DockerSite]:
    """Give the test bed's engine; afterwards nothing of the test is left there."""
    site = DockerSite(tmp_path / "docker")
    yield site
    site.clear()
