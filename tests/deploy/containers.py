"""The image of hub and proxy, built from this clone, and what runs from it."""

import functools
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

import httpx2

from tests import beds
from tests.e2e.site import wait_for

IMAGE: Final = "perijove-test/perijove:deploy"
BASE: Final = "perijove-test/python:3.11"
PASSWORD: Final = "correct horse battery staple"
SECRET: Final = "a-secret-that-hub-and-proxies-share"

_PROXIES: Final = ("http_proxy", "https_proxy", "no_proxy")


def environment(**more: str) -> dict[str, str]:
    """Return what programs that talk to the bed's engine are started with."""
    engine = os.environ["PERIJOVE_TEST_DOCKER_HOST"]
    # The client refuses BuildKit where the plug-in for it is missing, and Debian 12 has none.
    return {**os.environ, "DOCKER_HOST": engine, "DOCKER_BUILDKIT": "0", **more}


def docker(
    *arguments: str, variables: Mapping[str, str] | None = None, seconds: float = 120
) -> str:
    """Return what the engine's client says; secrets go into `variables`, by name."""
    done = subprocess.run(
        ["docker", *arguments],
        env=environment(**(variables or {})), capture_output=True, text=True, timeout=seconds,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"docker {' '.join(arguments)}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


@functools.cache
def built() -> str:
    """Return the name of the image, built as a site builds it but for its base."""
    done = subprocess.run(
        [beds.ROOT / "deploy/image/build", IMAGE, "--build-arg", f"BASE={BASE}", *_proxies()],
        env=environment(), capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return IMAGE


@functools.cache
def postgresql() -> str:
    """Return the name of an image that takes the place of PostgreSQL's own."""
    image = "perijove-test/postgresql:15"
    docker(
        "build", "--tag", image, *_proxies(), "--build-arg", f"BASE={BASE}",
        str(beds.ROOT / "tests/deploy/postgresql"), seconds=600,
    )  # fmt: skip
    return image


def _proxies() -> list[str]:
    names = [name for name in (*_PROXIES, *map(str.upper, _PROXIES)) if os.environ.get(name)]
    return [part for name in names for part in ("--build-arg", name)]


@dataclass(frozen=True, slots=True)
class Container:
    """Something that runs from an image."""

    name: str

    @property
    def log(self) -> str:
        """All it has written."""
        done = subprocess.run(
            ["docker", "logs", self.name],
            env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=30, check=True,
        )  # fmt: skip
        return done.stdout

    def address(self, network: str) -> str:
        """Return its address in a network."""
        form = f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}'
        return docker("inspect", "--format", form, self.name)

    def is_healthy(self) -> bool:
        """Tell whether the image's own check says so."""
        state = docker(
            "inspect", "--format", "{{.State.Status}} {{.State.Health.Status}}", self.name
        )
        assert state.startswith("running"), self.log[-3000:]
        return state == "running healthy"


@contextmanager
def network(name: str) -> Iterator[str]:
    """Give a network of its own."""
    docker("network", "create", name)
    try:
        yield name
    finally:
        docker("network", "rm", name)


@contextmanager
def container(
    name: str, *arguments: str, variables: Mapping[str, str], command: str
) -> Iterator[Container]:
    """Run a program of the image, as tightly as it can be, until the block ends."""
    given = [part for key in variables for part in ("--env", key)]
    docker(
        "run", "--detach", "--name", name, "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL",
        "--security-opt", "no-new-privileges", *given, *arguments, built(), command,
        variables=variables,
    )  # fmt: skip
    try:
        yield Container(name)
    finally:
        docker("rm", "--force", "--volumes", name)


@contextmanager
def signed_in(
    url: str, *, name: str = "admin", password: str = PASSWORD
) -> Iterator[httpx2.Client]:
    """Give a browser's cookies after the door's form, as a person fills it in."""
    with httpx2.Client(base_url=url, follow_redirects=True, trust_env=False, timeout=30) as client:

        def has_form() -> bool:
            with suppress(httpx2.TransportError):
                return client.get("/hub/login").status_code == 200
            return False

        wait_for(has_form, what=f"the door at {url}")
        form = {"username": name, "password": password, "_xsrf": client.cookies["_xsrf"]}
        answer = client.post("/hub/login", data=form)
        assert answer.status_code == 200, answer.text[:2000]
        assert "jupyterhub-hub-login" in client.cookies
        yield client


def use_a_server(person: httpx2.Client, *, name: str = "admin", seconds: float = 120) -> None:
    """Start a person's server, wait until it is ready, and use it through the proxy."""
    answer = person.post(f"/hub/api/users/{name}/server", headers=_proof(person))
    assert answer.status_code in {201, 202}, answer.text[:2000]

    def is_ready() -> bool:
        model = person.get(f"/hub/api/users/{name}", headers=_proof(person)).json()
        server = model["servers"].get("", {})
        assert server, f"it has ended: {model}"
        return bool(server["ready"])

    wait_for(is_ready, what="the server to be ready", seconds=seconds)
    assert person.get(f"/user/{name}/").status_code == 200  # by way of the hub's consent
    status = person.get(f"/user/{name}/api/status")
    assert status.status_code == 200, status.text[:2000]
    assert status.json()["started"]


def stop_server(person: httpx2.Client, *, name: str = "admin", seconds: float = 60) -> None:
    """Stop a person's server and wait until it is gone."""
    answer = person.delete(f"/hub/api/users/{name}/server", headers=_proof(person))
    assert answer.status_code in {202, 204}, answer.text[:2000]

    def is_gone() -> bool:
        model = person.get(f"/hub/api/users/{name}", headers=_proof(person)).json()
        return not model["servers"]

    wait_for(is_gone, what="the server to be gone", seconds=seconds)


def _proof(person: httpx2.Client) -> dict[str, str]:
    """Return what shows that it is the hub's own page that asks."""
    token = person.cookies.get("_xsrf", path="/hub/") or ""
    return {"X-XSRFToken": token, "Referer": f"{person.base_url}hub/home"}
