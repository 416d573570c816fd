"""The container image: small in rights, and enough to run a hub and its proxies apart."""

import os
from pathlib import Path

import pytest

from tests.deploy import containers
from tests.deploy.containers import PASSWORD, SECRET, container, docker, network
from tests.e2e.site import wait_for

pytestmark = [pytest.mark.needs("docker"), pytest.mark.timeout(900)]

CONFIG = """
[hub]
bind = "0.0.0.0:8000"
api_bind = "0.0.0.0:8081"
proxy_bind = "0.0.0.0:8082"
proxy_url = "http://{hub}:8082"

[spawners.null]
url = "http://127.0.0.1:9"
"""

MOST_BYTES = 340_000_000
"""Today's are 293 million; the client of Kubernetes alone is 126 of them, compiled."""


def test_hub_and_proxy_run_apart_and_let_people_in(tmp_path: Path) -> None:
    """One container of each, with nothing they could do without, and a person signs in."""
    name = f"perijove-deploy-{os.getpid()}"
    config = tmp_path / "perijove.toml"
    config.write_text(CONFIG.format(hub=f"{name}-hub"))
    tmp_path.chmod(0o755)
    common = ("--network", name, "--volume", f"{config}:/etc/perijove/perijove.toml:ro")
    secret = {"PERIJOVE__HUB__PROXY_SECRET": SECRET}
    first = {
        **secret,
        "PERIJOVE_ADMIN_PASSWORD": PASSWORD,
        "PERIJOVE_HEALTH_URL": "http://127.0.0.1:8081/hub/health",
    }
    with (
        network(name),
        container(f"{name}-hub", *common, variables=first, command="hub") as hub,
        container(f"{name}-proxy", *common, variables=secret, command="proxy") as proxy,
    ):
        with containers.signed_in(f"http://{proxy.address(name)}:8000") as person:
            assert person.get("/hub/home").status_code == 200
        for each in (hub, proxy):
            wait_for(each.is_healthy, what=f"{each.name} to be healthy")
            assert SECRET not in each.log
            assert PASSWORD not in each.log


def test_the_image_is_small() -> None:
    """Beside its base it holds the hub and what that needs, and nothing of the building."""
    image, base = (
        int(docker("inspect", "--format", "{{.Size}}", name))
        for name in (containers.built(), containers.BASE)
    )
    assert image - base < MOST_BYTES


def test_the_image_says_what_it_lacks() -> None:
    """Without a configuration it does not run everybody's servers as one account in public."""
    with container(f"perijove-bare-{os.getpid()}", variables={}, command="hub") as bare:
        assert docker("wait", bare.name) == "2"
        assert "shared_account" in bare.log


def test_the_image_is_nobodys_and_has_no_secrets() -> None:
    """It runs as a number of its own, without a package installer, and knows no pip's password."""
    image = containers.built()
    assert docker("inspect", "--format", "{{.Config.User}}", image) == "10001:0"
    python = ("run", "--rm", "--entrypoint", "/opt/perijove/bin/python", image, "-c")
    found = docker(*python, "import importlib.util as u; print(u.find_spec('pip'))")
    assert found == "None"
    assert docker("run", "--rm", image, "--version").startswith("perijove ")
