"""
What people and the hub see of containers, on a real Docker engine and a real Kubernetes cluster.

Nobody gets past another's sign-in; a hub that is killed loses and doubles nothing; the waiting
page says what is true, and goes on by itself; a full volume can be cleared; platforms that are
restarted take nobody's work away.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Browser, Page, expect

from tests import beds
from tests.contract.spawners.docker_site import docker
from tests.contract.spawners.kubernetes_site import kubectl
from tests.e2e.container_site import (
    GATE,
    PASSWORD,
    START_SECONDS,
    ContainerSite,
    Kind,
    a_container_site,
)
from tests.e2e.site import wait_for

pytestmark = [pytest.mark.needs("chromium", "docker", "kubernetes"), pytest.mark.timeout(600)]

ARTIFACTS: Final = Path(__file__).parents[1] / "artifacts/containers"
BOTH: Final[tuple[Kind, ...]] = ("docker", "kubernetes")
NODE: Final = os.environ.get("PERIJOVE_TEST_KUBERNETES_NODE", "")
LOCALES: Final = {"en": "en-GB", "fr": "fr-FR"}

SignIn = Callable[[str], Page]


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainerSite]:
    """Run a hub in front of both; alice and bob have a server on each, named like the platform."""
    with a_container_site(tmp_path_factory.mktemp("site")) as found:
        for user in ("alice", "bob"):
            status, answer = found.site.api("POST", f"/users/{user}")
            assert status == 201, answer
        for user in ("alice", "bob"):
            for kind in BOTH:
                found.ask_for(user, kind, kind)
        for user in ("alice", "bob"):
            for kind in BOTH:
                found.await_ready(user, kind)
        yield found


@pytest.fixture(scope="module")
def sign_in(browser: Browser, bed: ContainerSite) -> Iterator[SignIn]:
    """Give a function that returns the page of a person who has signed in."""
    with ExitStack() as ends:

        def go(name: str) -> Page:
            context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB")
            ends.callback(context.close)
            page = context.new_page()
            page.goto(f"{bed.site.url}/hub/login")
            page.fill("#username_input", name)
            page.fill("#password_input", PASSWORD)
            page.click("#login_submit")
            page.wait_for_url(re.compile(r"/hub/(home|spawn)"))
            return page

        yield go


@pytest.fixture(scope="module")
def alice(sign_in: SignIn) -> Page:
    """Sign alice in."""
    return sign_in("alice")


def keep(page: Page, name: str) -> dict[str, str]:
    """Keep pictures of a page for people to judge; returns what it says in each language."""
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    browser = page.context.browser
    assert browser is not None
    said = {}
    for language, locale in LOCALES.items():
        context = browser.new_context(
            viewport={"width": 1280, "height": 900},
            locale=locale,
            storage_state=page.context.storage_state(),
        )
        other = context.new_page()
        other.goto(page.url)
        said[language] = other.inner_text("main")
        other.screenshot(path=ARTIFACTS / f"{name}.{language}.png", full_page=True)
        context.close()
    return said


def start(page: Page, bed: ContainerSite, name: str, profile: str) -> None:
    """Choose a profile in the form, and press the button."""
    page.goto(f"{bed.site.url}/hub/spawn/alice/{name}")
    page.check(f"input[name=profile][value={profile}]")
    page.click("#spawn-start")
    page.wait_for_url(re.compile(r"/hub/spawn-pending/|/user/"))


# --- whose it is ------------------------------------------------------------------------------

CONNECT: Final = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 8888), 3)
except OSError as error:
    print("refused", error)
else:
    print("connected")
"""
FETCH: Final = """
import os, sys, urllib.error, urllib.request
url, token = sys.argv[1], os.environ["JUPYTERHUB_API_TOKEN"] if sys.argv[2] == "own" else ""
headers = {"Authorization": f"token {token}"} if token else {}
try:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as got:
        print(got.status, got.url, got.read(300))
except urllib.error.HTTPError as error:
    print(error.code, error.url, error.read(300))
"""
SECRET: Final = "what only alice may read"


@pytest.fixture(scope="module")
def note(bed: ContainerSite) -> str:
    """Put a file of alice's on each of her servers; returns its name."""
    for kind in BOTH:
        body = {"type": "file", "format": "text", "content": SECRET}
        status, answer = bed.site.ask("PUT", f"/user/alice/{kind}/api/contents/secret.txt", body)
        assert status == 201, answer
        assert SECRET in str(bed.inside("alice", kind).ask("api/contents/secret.txt"))
    return "secret.txt"


@pytest.mark.parametrize("kind", BOTH)
def test_others_do_not_get_past_the_sign_in(
    bed: ContainerSite, sign_in: SignIn, note: str, kind: Kind
) -> None:
    """Neither bob's session in a browser nor his token opens alice's server, or stops it."""
    page = sign_in("bob")
    for path in ("lab", f"files/{note}", f"api/contents/{note}", "api/kernels"):
        answer = page.goto(f"{bed.site.url}/user/alice/{kind}/{path}")
        assert answer is not None
        assert answer.status in (403, 404), (path, answer.status, page.url)
        assert SECRET not in page.content()
    answer = page.goto(f"{bed.site.url}/hub/spawn-pending/alice/{kind}")
    assert answer is not None
    assert answer.status == 404
    page.context.close()

    token = bed.token_of("bob")
    assert bed.site.ask("GET", f"/user/bob/{kind}/api/contents", token=token)[0] == 200
    for method, path, body in (
        ("GET", f"/user/alice/{kind}/api/contents/{note}", None),
        ("POST", f"/user/alice/{kind}/api/terminals", {}),
        ("GET", f"/hub/api/users/alice/servers/{kind}/progress", None),
        ("DELETE", f"/hub/api/users/alice/servers/{kind}", None),
    ):
        status, said = bed.site.ask(method, path, body, token)
        assert status in (403, 404), (path, status)
        assert SECRET not in str(said)
    assert bed.site.server("alice", kind)["ready"]


def test_another_container_does_not_reach_a_server_on_docker(bed: ContainerSite, note: str) -> None:
    """From inside bob's container alice's port does not answer; his own does, and so the hub."""
    alices, bobs = bed.placed_of("docker", "alice"), bed.placed_of("docker", "bob")
    assert bed.run_inside("docker", bobs, CONNECT, bobs.address) == "connected"
    assert bed.run_inside("docker", bobs, CONNECT, alices.address).startswith("refused")
    assert_hub_tells_no_others(bed, "docker", note)


def test_another_pod_does_not_get_past_the_server_on_kubernetes(
    bed: ContainerSite, note: str
) -> None:
    """From inside bob's pod alice's server wants a sign-in, also where no policy is enforced."""
    alices, bobs = bed.placed_of("kubernetes", "alice"), bed.placed_of("kubernetes", "bob")
    root = f"http://{alices.address}:8888/user/alice/kubernetes"
    for whose in ("nobody", "own"):
        for path in (f"api/contents/{note}", f"files/{note}", "api/kernels", "api/terminals"):
            got = bed.run_inside("kubernetes", bobs, FETCH, f"{root}/{path}", whose)
            assert SECRET not in got
            assert got.startswith(("403", "404")) or "/hub/login" in got, (path, got)
    assert_hub_tells_no_others(bed, "kubernetes", note)


def assert_hub_tells_no_others(bed: ContainerSite, kind: Kind, note: str) -> None:
    """The token of bob's server is good for bob; of alice the hub tells it nothing."""
    bobs = bed.placed_of(kind, "bob")
    (port,) = re.findall(r'api_bind = "0\.0\.0\.0:(\d+)"', bed.site.extra)
    api = f"http://{os.environ['PERIJOVE_TEST_DOCKER_GATEWAY']}:{port}/hub/api"
    assert bed.run_inside(kind, bobs, FETCH, f"{api}/user", "own").startswith("200")
    for path in ("users/alice", "users", f"users/alice/servers/{kind}/progress"):
        got = bed.run_inside(kind, bobs, FETCH, f"{api}/{path}", "own")
        assert got.startswith(("403", "404")), (path, got)
        assert note not in got


# --- a hub that is killed ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", BOTH)
def test_killed_hub_finds_what_runs(bed: ContainerSite, kind: Kind) -> None:
    """The hub is killed while a kernel computes through the proxy: nothing notices, or doubles."""
    before, launch = bed.placed(kind), bed.launch_of("alice", kind)
    with bed.inside("alice", kind).kernel() as kernel:
        assert kernel.run("kept = 6; print(kept * 7)") == "42"
        bed.kill_hub()
        assert kernel.run("print(kept * 8)") == "48"
        wait_for(lambda: bed.site.server("alice", kind).get("ready"), what="the server")
        assert kernel.run("print(kept * 9)") == "54"
    assert bed.launch_of("alice", kind) == launch
    assert bed.placed(kind) == before


@pytest.mark.parametrize("kind", BOTH)
def test_killed_hub_goes_on_with_what_is_pending(bed: ContainerSite, kind: Kind) -> None:
    """Killed as soon as the platform has the container, the hub leads it to its end: one server."""
    others = {one.name for one in bed.placed(kind)}

    def new() -> set[str]:
        return {one.name for one in bed.placed(kind)} - others

    with ExitStack() as ends:
        if kind == "kubernetes":
            ends.callback(kubectl, "label", "node", NODE, f"{GATE}-")
        bed.ask_for("alice", "late", "gated" if kind == "kubernetes" else kind)
        ends.callback(bed.stop, "alice", "late")
        names = wait_for(new, what="a container")
        launch = bed.launch_of("alice", "late")
        assert bed.site.server("alice", "late")["pending"] == "spawn"
        bed.kill_hub()
        if kind == "kubernetes":
            kubectl("label", "node", NODE, f"{GATE}=open")
        bed.await_ready("alice", "late")
        assert new() == names
        assert len(names) == 1
        assert bed.launch_of("alice", "late") == launch
        assert bed.inside("alice", "late").ask("api/contents")["type"] == "directory"
    wait_for(lambda: not new(), what="its end")


# --- what the waiting page says ---------------------------------------------------------------


def test_cordoned_node_is_told_and_it_goes_on_by_itself(bed: ContainerSite, alice: Page) -> None:
    """While no machine takes it the page says so, in two languages; then it opens the Lab."""
    with ExitStack() as ends:
        kubectl("cordon", NODE)
        ends.callback(kubectl, "uncordon", NODE)
        start(alice, bed, "later", "kubernetes")
        ends.callback(bed.stop, "alice", "later")
        message = alice.locator("#progress-message")
        expect(message).to_have_text("No machine of this site suits it at the moment.",
                                     timeout=60_000)  # fmt: skip
        expect(alice.locator("blockquote")).to_contain_text("unschedulable")
        said = keep(alice, "no-node")
        assert "Aucune machine de ce site ne convient" in said["fr"]
        kubectl("uncordon", NODE)
        alice.wait_for_url(re.compile("/user/alice/later/"), timeout=START_SECONDS * 1000)


def test_more_than_any_node_has_comes_back_at_once(bed: ContainerSite, alice: Page) -> None:
    """Who asks for more memory than any machine has is told at once, and where to change it."""
    alice.goto(f"{bed.site.url}/hub/spawn/alice/vast")
    alice.check("input[name=profile][value=kubernetes]")
    alice.locator("[name='kubernetes.memory']:not([type=hidden])").first.fill("4096")
    alice.click("#spawn-start")
    message = alice.locator("#progress-message")
    expect(message).to_contain_text("You asked for more memory than any machine here has",
                                    timeout=60_000)  # fmt: skip
    said = keep(alice, "over-memory")
    assert "mémoire" in said["fr"]
    alice.locator(".actions a.primary").click()
    entry = alice.locator("[name='kubernetes.memory']:not([type=hidden])").first
    expect(entry).to_have_attribute("aria-invalid", "true")
    keep(alice, "over-memory-form")
    assert {one.user for one in bed.placed("kubernetes")} == {"alice", "bob"}


@pytest.mark.parametrize("kind", BOTH)
def test_missing_image_is_named(bed: ContainerSite, alice: Page, kind: Kind) -> None:
    """An image that does not exist ends the start; the page names it and says what helps."""
    start(alice, bed, f"none-{kind}", f"no-image-{kind}")
    expect(alice.locator("h1")).to_have_text("Did not start", timeout=60_000)
    said = keep(alice, f"no-image-{kind}")
    for language, words, advice in (
        ("en", "There is no image of this name.", "tell your administrator"),
        ("fr", "Il n’existe pas d’image de ce nom.", "votre administrateur"),
    ):
        assert words in said[language]
        assert advice in said[language]
        assert bed.missing in said[language]


# --- a volume that is full --------------------------------------------------------------------


def test_full_volume_is_cleared_and_the_server_is_as_before(bed: ContainerSite) -> None:
    """Filled, stopped, started: rescue mode with a terminal; cleared there, all is as before."""
    bed.ask_for("alice", "tiny", "small")
    bed.await_ready("alice", "tiny")
    tiny = bed.inside("alice", "tiny")
    (volume,) = bed.site.api("GET", "/perijove/volumes")[1]["volumes"]
    image = os.environ["PERIJOVE_TEST_IMAGE_NULL"]
    # A volume in memory is empty again once nobody has it.
    holder = docker("run", "--detach", "--volume", f"{volume['name']}:/held", image, "sleep", "600")
    with ExitStack() as ends:
        ends.callback(docker, "rm", "--force", holder)
        tiny.shell("cd /home/jovyan && echo mine > mine.txt && cat /dev/zero > big")
        bed.stop("alice", "tiny")

        bed.ask_for("alice", "tiny", "small")
        bed.await_ready("alice", "tiny")
        listed = {entry["name"] for entry in tiny.ask("api/contents")["content"]}
        assert "RESCUE.md" in listed
        assert "big" in tiny.ask("api/contents/RESCUE.md")["content"]
        assert tiny.shell("cat /home/jovyan/mine.txt", "rm /home/jovyan/big") == ["mine", ""]
        bed.stop("alice", "tiny")

        bed.ask_for("alice", "tiny", "small")
        bed.await_ready("alice", "tiny")
        listed = {entry["name"] for entry in tiny.ask("api/contents")["content"]}
        assert "mine.txt" in listed
        assert not {"RESCUE.md", "big"} & listed
        bed.stop("alice", "tiny")


# --- platforms that are restarted -------------------------------------------------------------


def expect_silence(page: Page, bed: ContainerSite, name: str, kind: Kind) -> None:
    """See that the waiting page tells that the platform is silent, and since when."""
    page.goto(f"{bed.site.url}/hub/spawn-pending/alice/{name}")
    expect(page.locator("main")).to_contain_text("has not answered since", timeout=90_000)
    keep(page, f"silent-{kind}")


def test_cluster_is_restarted(bed: ContainerSite, alice: Page) -> None:
    """API server, then kubelet, away while one server runs and one waits: both are there after."""
    before, launch = bed.placed("kubernetes"), bed.launch_of("alice", "kubernetes")
    with ExitStack() as ends, bed.inside("alice", "kubernetes").kernel() as kernel:
        assert kernel.run("print(6 * 7)") == "42"
        ends.callback(kubectl, "label", "node", NODE, f"{GATE}-")
        bed.ask_for("alice", "after", "gated")
        ends.callback(bed.stop, "alice", "after")
        wait_for(lambda: len(bed.placed("kubernetes")) > len(before), what="the pod that waits")

        beds.disturb("kubernetes", "stop", "apiserver")
        try:
            expect_silence(alice, bed, "after", "kubernetes")
            assert kernel.run("print(6 * 8)") == "48"
        finally:
            beds.disturb("kubernetes", "start", "apiserver")
        kubectl("label", "node", NODE, f"{GATE}=open")
        beds.disturb("kubernetes", "restart", "kubelet")

        bed.await_ready("alice", "after")
        alice.wait_for_url(re.compile("/user/alice/after/"), timeout=60_000)
        assert kernel.run("print(6 * 9)") == "54"
        assert len(bed.placed("kubernetes")) == len(before) + 1
    assert bed.launch_of("alice", "kubernetes") == launch
    assert bed.site.server("alice", "kubernetes")["ready"]


@pytest.mark.needs("docker-ctl")
def test_engine_is_restarted(bed: ContainerSite, alice: Page) -> None:
    """The engine away while one server runs and one starts: both are there after, once each."""
    before, launch = bed.placed("docker"), bed.launch_of("alice", "docker")
    with ExitStack() as ends, bed.inside("alice", "docker").kernel() as kernel:
        assert kernel.run("print(6 * 7)") == "42"
        bed.ask_for("alice", "after", "docker")
        ends.callback(bed.stop, "alice", "after")
        wait_for(lambda: len(bed.placed("docker")) > len(before), what="the container")
        assert bed.site.server("alice", "after")["pending"] == "spawn"

        beds.disturb("docker", "stop")
        try:
            wait_for(lambda: "platform_silent" in bed.site.output, what="the hub to notice")
            assert kernel.run("print(6 * 8)") == "48"
        finally:
            beds.disturb("docker", "start")

        bed.await_ready("alice", "after")
        assert kernel.run("print(6 * 9)") == "54"
        assert {one.name for one in before} < {one.name for one in bed.placed("docker")}
        assert len(bed.placed("docker")) == len(before) + 1
    assert bed.launch_of("alice", "docker") == launch
    assert bed.site.server("alice", "docker")["ready"]
