"""The Compose file: shut in where it can be, and a site that people can use."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from perijove.settings import load
from tests import beds
from tests.deploy import containers
from tests.deploy.containers import PASSWORD, SECRET, Container
from tests.e2e.site import free_port, wait_for

FILES: Final = beds.ROOT / "deploy/compose"


def described() -> dict[str, Any]:
    """Return the file's services."""
    services: dict[str, Any] = yaml.safe_load((FILES / "compose.yaml").read_text())["services"]
    return services


def test_only_the_hub_has_the_engine() -> None:
    """Who has the socket is root on the machine: neither proxy nor database gets it."""
    with_socket = [
        name for name, service in described().items()
        if any("docker.sock" in volume for volume in service["volumes"])
    ]  # fmt: skip
    assert with_socket == ["hub"]


@pytest.mark.parametrize("name", ["hub", "proxy"])
def test_ours_are_shut_in(name: str) -> None:
    """Neither writes where it need not, or can gain any right."""
    service = described()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service


def test_every_variable_is_explained() -> None:
    """What the file asks for without a default stands in the example to be filled in."""
    text = (FILES / "compose.yaml").read_text()
    asked = {part.partition(":?")[0] for part in text.split("${")[1:] if ":?" in part.split("}")[0]}
    explained = (FILES / ".env.example").read_text()
    assert asked
    assert all(f"\n{name}=" in explained for name in asked)


def test_the_example_is_a_configuration() -> None:
    """Hub and proxy accept perijove.toml with the secrets that the file gives them."""
    settings = load(FILES / "perijove.toml", {"PERIJOVE__HUB__PROXY_SECRET": SECRET})
    names = {service.get("container_name") for service in described().values()}
    assert set(settings.spawners["docker"].join) <= names


@dataclass(frozen=True, slots=True)
class Project:
    """What runs by the file."""

    directory: Path
    variables: Mapping[str, str]

    def compose(self, *arguments: str) -> None:
        """Run the older of the two programs, which is stricter."""
        done = subprocess.run(
            ["docker-compose", *arguments], cwd=self.directory, env=self.variables,
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def up(directory: Path, port: int) -> Iterator[Project]:
    """Run the file as it is, with images of our own and the engine's socket."""
    socket = Path(os.environ["PERIJOVE_TEST_DOCKER_HOST"].removeprefix("unix://"))
    variables = containers.environment(
        PERIJOVE_IMAGE=containers.built(),
        POSTGRESQL_IMAGE=containers.postgresql(),
        POSTGRESQL_PASSWORD=SECRET,
        PROXY_SECRET=SECRET,
        ADMIN_PASSWORD=PASSWORD,
        DOCKER_GROUP=str(socket.stat().st_gid),
        DOCKER_SOCKET=str(socket),
        PUBLIC=f"127.0.0.1:{port}",
        COMPOSE_PROJECT_NAME=f"perijove-test-{os.getpid()}",
    )

    project = Project(directory, variables)
    try:
        project.compose("up", "--detach")
        yield project
    finally:
        project.compose("down", "--volumes", "--timeout", "5")


@pytest.mark.needs("docker", "docker-compose")
@pytest.mark.timeout(900)
def test_a_site_by_compose(tmp_path: Path) -> None:
    """A person's server in a container beside is used, also after hub and proxy are made anew."""
    shutil.copytree(FILES, tmp_path, dirs_exist_ok=True)
    config = tmp_path / "perijove.toml"
    image = os.environ["PERIJOVE_TEST_IMAGE_SINGLEUSER"]
    config.write_text(config.read_text().replace("quay.io/jupyter/minimal-notebook:latest", image))
    tmp_path.chmod(0o755)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with up(tmp_path, port) as project, containers.signed_in(url) as person:
        containers.use_a_server(person)
        project.compose("up", "--detach", "--force-recreate", "--no-deps", "hub", "proxy")
        for name in ("perijove-hub", "perijove-proxy"):
            wait_for(Container(name).is_healthy, what=f"{name} to be healthy")
        wait_for(
            lambda: person.get("/user/admin/api/status").status_code == 200,
            what="the server to be reached again",
        )
        containers.stop_server(person)
