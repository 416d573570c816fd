"""What a person installed once is a kernel in every later session, until it is removed."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.site import ADMIN_TOKEN, Site, a_site, wait_for

pytestmark = [pytest.mark.needs("lab"), pytest.mark.timeout(400)]

ENVIRONMENTS = "/perijove/users/admin/environments"
BUILD_SECONDS = 240


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Run a site."""
    with a_site(tmp_path) as found:
        yield found


def named(site: Site, name: str) -> dict[str, Any]:
    """Return an environment as the API has it; empty when it is gone."""
    status, answer = site.api("GET", ENVIRONMENTS)
    assert status == 200, answer
    return next((each for each in answer["environments"] if each["name"] == name), {})


def reaches(site: Site, name: str, state: str) -> dict[str, Any]:
    """Wait until an environment is as far as this."""

    def look() -> dict[str, Any] | None:
        found = named(site, name)
        assert found.get("state") != "failed" or state == "failed", found
        return found if found.get("state") == state else None

    return wait_for(look, what=f"{name} to be {state}", seconds=BUILD_SECONDS)


def create(site: Site, **wish: Any) -> dict[str, Any]:
    """Ask for an environment."""
    status, answer = site.api("POST", ENVIRONMENTS, wish)
    assert status == 201, answer
    made: dict[str, Any] = answer
    return made


def kernels(site: Site) -> dict[str, Any]:
    """Return what the server offers to start."""
    request = urllib.request.Request(
        f"{site.url}/user/admin/api/kernelspecs", headers={"Authorization": f"token {ADMIN_TOKEN}"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: dict[str, Any] = json.loads(answer.read())["kernelspecs"]
    return found


def python_of(site: Site, name: str) -> Path:
    """Return the Python of an environment, in its person's home."""
    (found,) = (site.directory / "data").glob(f"**/.perijove/environments/envs/{name}/bin/python")
    return found


def test_an_environment_outlives_its_session(site: Site) -> None:
    """Asked for while nothing runs, built in the first session, offered in the next, removed."""
    site.start_server()
    site.stop_server()
    made = create(site, name="tiny", packages=["iniconfig >=2", "# a remark", ""])
    assert made["state"] == "wanted"
    assert made["packages"] == ["iniconfig>=2"]

    site.start_server()
    built = reaches(site, "tiny", "ready")
    assert built["size_bytes"] > 1_000_000
    assert "env-tiny" in kernels(site)
    what_cannot_be_installed_says_why(site, built["id"])
    site.stop_server()
    assert not site.servers()

    site.start_server()
    assert kernels(site)["env-tiny"]["spec"]["display_name"] == "tiny"
    status, lock = site.api("GET", f"{ENVIRONMENTS}/{built['id']}/lock")
    assert status == 200
    assert "iniconfig==" in lock
    assert python_of(site, "tiny").exists()
    status, _ = site.api("DELETE", f"{ENVIRONMENTS}/{built['id']}")
    assert status == 202
    wait_for(lambda: not named(site, "tiny"), what="tiny to be gone", seconds=60)
    assert "env-tiny" not in kernels(site)
    assert not list((site.directory / "data").glob("**/.perijove/environments/*/tiny"))


def what_cannot_be_installed_says_why(site: Site, id_: int) -> None:
    """The words of pip are shown; what was there before goes on working."""
    before = python_of(site, "tiny").resolve()
    wish = {"packages": ["perijove-has-no-such-package"]}
    assert site.api("PATCH", f"{ENVIRONMENTS}/{id_}", wish)[0] == 200
    failed = reaches(site, "tiny", "failed")
    assert "perijove-has-no-such-package" in failed["error"]
    assert "env-tiny" in kernels(site)
    assert python_of(site, "tiny").resolve() == before
