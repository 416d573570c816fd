"""
One hub in front of everything: this host, Docker, Kubernetes, Slurm and Grid Engine side by side.

Alice signs in with a browser, starts a server on each, computes in containers, and finds what
she wrote there again, until she deletes it.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Page, expect
from playwright.sync_api import Error as PlaywrightError

from tests import clusters, containers
from tests.contract.spawners.docker_site import DockerSite, docker, sweep
from tests.contract.spawners.kubernetes_site import KubernetesSite, a_namespace
from tests.e2e.lab import compute
from tests.e2e.site import Site, a_site, free_port, wait_for

pytestmark = [
    pytest.mark.needs(
        "chromium", "root", "users", "slurm", "gridengine", "docker", "kubernetes", "lab"
    ),
    pytest.mark.timeout(900),
]

ARTIFACTS: Final = Path(__file__).parents[1] / "artifacts/backends"
PASSWORD: Final = "PERIJOVE_TEST_PASSWORD"
START_SECONDS: Final = 180

PROFILES: Final = """
[[profiles]]
name = "here"
title = { en = "On this machine", fr = "Sur cette machine" }
spawner = "local"

[[profiles]]
name = "container"
title = { en = "In a container", fr = "Dans un conteneur" }
spawner = "docker"
cpu = 1
memory = "1 GiB"
[profiles.storage]
kept = "server"
size = "2 GiB"
retention = "0 s"

[[profiles]]
name = "small"
title = { en = "Small", fr = "Petit" }
spawner = "kubernetes"
cpu = 0.5
memory = "1 GiB"
[profiles.storage]
kept = "server"
size = "2 GiB"
retention = "0 s"

[[profiles]]
name = "slurm"
title = { en = "Interactive session", fr = "Session interactive" }
spawner = "slurm"
memory = "512 MiB"
time = "1 h"

[[profiles]]
name = "gridengine"
title = { en = "On the old cluster", fr = "Sur l'ancienne grappe" }
spawner = "gridengine"
memory = "512 MiB"
time = "1 h"
"""
ON: Final[Mapping[str, str]] = {
    "here": "here",
    "box": "container",
    "pod": "small",
    "job": "slurm",
    "old": "gridengine",
}
"""Names of servers, and of the profile each is started with."""
HAS_VOLUME: Final[Mapping[str, Callable[[str], bool]]] = {
    "box": DockerSite.has_volume,
    "pod": KubernetesSite.has_volume,
}
"""By server that keeps files: how to ask its platform for a volume, past the hub."""


def configuration(api_port: int, namespace: str) -> str:
    """Return the configuration of all five."""
    singleuser = os.environ["PERIJOVE_TEST_JOB_SINGLEUSER"]
    software = f'software = {{ prefix = "{singleuser}" }}\n'
    near = f'api_url = "http://127.0.0.1:{api_port}/hub/api"\n'
    return f"""
api_bind = "0.0.0.0:{api_port}"

[[policies]]
named_servers = 10

{clusters.sign_in_section()}
[spawners.local]
kind = "local"
command = ["{singleuser}/bin/jupyterhub-singleuser"]
{near}
{containers.docker_section(api_port)}
{containers.kubernetes_section(api_port, namespace)}
{clusters.section("slurm", software + near)}
{clusters.section("gridengine", software + near)}
{PROFILES}
"""


def places() -> Mapping[str, str]:
    """Return by server what tells people where it runs: profile, platform, and machine."""
    engine = docker("info", "--format={{.Name}}")
    node = os.environ["PERIJOVE_TEST_KUBERNETES_NODE"]
    some = "|".join(os.environ["PERIJOVE_TEST_SLURM_NODES"].split())
    host = os.environ["PERIJOVE_TEST_SGE_HOST"]
    return {
        "here": "On this machine · local",
        "box": f"In a container · docker · {engine}",
        "pod": f"Small · kubernetes · {node}",
        "job": f"Interactive session · slurm · ({some})",
        "old": f"On the old cluster · gridengine · {host}",
    }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Run one hub in front of all five, on clean clusters; leave nothing anywhere."""
    with a_namespace() as namespace, clusters.left_clean("slurm", "gridengine") as ends:
        extra = configuration(free_port(), namespace)
        with a_site(tmp_path_factory.mktemp("site"), extra=extra) as found:
            try:
                yield found
            finally:
                clusters.end_servers(found)
        ends.callback(sweep, found.installation(), "docker")


@pytest.fixture(scope="module")
def alice(browser: Browser, site: Site) -> Iterator[Page]:
    """Sign alice in, through PAM."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB")
    page = context.new_page()
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto(f"{site.url}/hub/login")
    page.fill("#username_input", "alice")
    page.fill("#password_input", os.environ[PASSWORD])
    page.click("#login_submit")
    page.wait_for_load_state()
    yield page
    context.close()


def start(page: Page, site: Site, name: str) -> None:
    """Start a server by the form, and end up in its Lab."""
    page.goto(f"{site.url}/hub/spawn/alice/{name}")
    page.check(f"input[name=profile][value={ON[name]}]")
    page.click("#spawn-start")
    try:
        page.wait_for_url(re.compile(rf"/user/alice/{name}/"), timeout=START_SECONDS * 1000)
    except PlaywrightError as error:
        shown = page.inner_text("main")
        raise AssertionError(f"{name}: {error}\n{shown}\n{site.output[-3000:]}") from None


def stop(site: Site, name: str) -> None:
    """Stop a server and wait until it is gone."""
    status, answer = site.api("DELETE", f"/users/alice/servers/{name}")
    assert status in (202, 204), answer
    wait_for(
        lambda: site.server("alice", name).get("stopped", True),
        what=f"{name} to be stopped",
        seconds=START_SECONDS,
    )


def contents(site: Site, name: str, path: str, body: object = None) -> int:
    """Read or write a file of a server, by its own API; returns the status."""
    method = "GET" if body is None else "PUT"
    status, _ = site.ask(method, f"/user/alice/{name}/api/contents/{path}", body)
    return int(status)


def volume_of(site: Site, name: str) -> dict[str, Any]:
    """Return what the hub knows of the volume of one of alice's servers."""
    _, answer = site.api("GET", "/perijove/volumes?user=alice")
    found: list[dict[str, Any]] = [one for one in answer["volumes"] if one["server"] == name]
    (volume,) = found
    return volume


def keep(page: Page, name: str) -> None:
    """Keep a picture for people to judge."""
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"{name}.png", full_page=True)


def test_five_back_ends_run_side_by_side(alice: Page, site: Site) -> None:
    """A server on each, and one page that shows all of them and where they run."""
    alice.goto(f"{site.url}/hub/spawn")
    keep(alice, "profiles")
    for name in ON:
        start(alice, site, name)
    alice.goto(f"{site.url}/hub/home")
    keep(alice, "home")
    for name, place in places().items():
        card = alice.locator(f"article[data-server-name={name}]")
        expect(card.locator("p").first).to_have_text(re.compile(f"^{place}$"))
    models = {name: site.server("alice", name) for name in ON}
    assert all(model["ready"] for model in models.values()), models


@pytest.mark.parametrize("name", ["box", "pod"])
def test_person_computes_in_a_container(alice: Page, site: Site, name: str) -> None:
    """From the form to 42 in a cell, in the stock image."""
    if not site.server("alice", name).get("ready"):
        start(alice, site, name)
    compute(alice, f"{site.url}/user/alice/{name}")
    keep(alice, f"computed-{name}")


def test_what_is_on_the_volume_of_a_pod_is_told(alice: Page, site: Site) -> None:
    """The hub may not ask the cluster's nodes: the stock server's pod counts, and tells it."""
    if not site.server("alice", "pod").get("ready"):
        start(alice, site, "pod")
    wait_for(lambda: volume_of(site, "pod")["used_bytes"], what="a measure", seconds=START_SECONDS)
    alice.goto(f"{site.url}/hub/data")
    keep(alice, "data")
    shown = alice.locator(f"#used-{volume_of(site, 'pod')['name']}")
    expect(shown).to_have_text(re.compile(r"^[1-9]\S*\s\w+\s\((at most )?2\sGiB\)$"))


@pytest.mark.parametrize("name", ["box", "pod"])
def test_what_was_written_is_there_until_the_server_is_deleted(
    alice: Page, site: Site, name: str
) -> None:
    """Written, stopped, started: there. Deleted by its typed name: its platform has it no more."""
    if not site.server("alice", name).get("ready"):
        start(alice, site, name)
    note = {"type": "file", "format": "text", "content": "kept"}
    assert contents(site, name, "note.txt", note) == 201
    stop(site, name)
    start(alice, site, name)
    assert contents(site, name, "note.txt") == 200
    volume = volume_of(site, name)["name"]
    stop(site, name)
    assert HAS_VOLUME[name](volume)

    alice.goto(f"{site.url}/hub/server/delete/alice/{name}")
    keep(alice, f"delete-{name}")
    for words in (volume, "2 GiB"):
        expect(alice.locator("main")).to_contain_text(words)
    alice.fill("main form input[type=text]", name)
    alice.click("main form button.danger")
    wait_for(lambda: not site.server("alice", name), what=f"{name} to be deleted")
    wait_for(
        lambda: not HAS_VOLUME[name](volume), what=f"{volume} to be gone", seconds=START_SECONDS
    )
