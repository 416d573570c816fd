"""The test bed's engine, with what a test needs to look at it beside the spawner."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from perijove.spawners.contract import LaunchSpec
from perijove.spawners.docker import DockerSpawner
from tests.contract.spawners.docker_site import DockerSite, docker
from tests.contract.spawners.sites import NAME, make_spec
from tests.integration.docker.registry import Registry

PROGRAM: Final = ("python3", "-I", "-S", "/srv/program.py")
"""The suite's program, in the image."""
CONNECT: Final = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)
except OSError as error:
    print(error)
else:
    print("connected")
"""


def order(name: str = NAME, mode: str = "plain", **changes: Any) -> LaunchSpec:
    """Return a launch of the program in the image."""
    return make_spec(name, **{"command": [*PROGRAM, mode], **changes})


def inspected(name: str = NAME) -> Any:
    """Return all that the engine tells of a container."""
    return json.loads(docker("container", "inspect", name))[0]


def inside(name: str, *command: str) -> str:
    """Return what a command says that is run in a container."""
    return docker("exec", name, *command)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[DockerSite]:
    """Give the engine; afterwards nothing of the test is left there."""
    site = DockerSite(tmp_path)
    yield site
    site.clear()


@pytest.fixture
async def spawner(site: DockerSite) -> AsyncIterator[DockerSpawner]:
    """Give an entered spawner on the engine."""
    async with site.place(DockerSpawner) as spawner:
        yield spawner


@pytest.fixture
def registry() -> Iterator[Registry]:
    """Give a registry; afterwards the engine has none of its images."""
    with Registry() as registry:
        yield registry
    if left := docker("images", "--quiet", f"{registry.host}/*/*").split():
        docker("rmi", "--force", *left)
