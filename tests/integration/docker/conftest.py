"""The test bed's engine, with what a test needs to look at it beside the spawner."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import pytest

from perijove.spawners.contract import LaunchSpec
from perijove.spawners.docker import DockerSpawner
from tests.contract.spawners.docker_site import DockerSite, docker, docker_site
from tests.contract.spawners.sites import NAME, make_spec
from tests.integration.docker.registry import Registry

__all__ = ["docker_site"]

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
def site(docker_site: DockerSite) -> DockerSite:
    """Give the engine."""
    return docker_site


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
