"""People who work on a cluster, with nothing but a browser, on the real schedulers."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from tests import beds, clusters
from tests.clusters import Cluster, asked
from tests.e2e.batch_site import BatchSite, Terminal, a_batch_site
from tests.e2e.lab import compute
from tests.e2e.site import wait_for

pytestmark = [
    pytest.mark.needs("chromium", "root", "users", "slurm", "gridengine"),
    pytest.mark.timeout(400),
]

ARTIFACTS: Final = Path(__file__).parents[1] / "artifacts/batch"
SOON: Final = 90_000
"""Milliseconds in which a change on the cluster is on the page."""
RUNS: Final = {"slurm": "R", "gridengine": "r"}
DESKTOP: Final = {"width": 1280, "height": 900}
LOOKS: Final[dict[str, dict[str, Any]]] = {
    "english": {},
    "french": {"locale": "fr-FR"},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "locale": "fr-FR"},
}


@pytest.fixture(scope="module")
def the_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BatchSite]:
    """Run one site in front of both schedulers for all tests."""
    with a_batch_site(tmp_path_factory.mktemp("site")) as found:
        yield found


@pytest.fixture
def bed(the_site: BatchSite) -> Iterator[BatchSite]:
    """Give the site on clean clusters; its servers, and the jobs beside it, end with the test."""
    with clusters.left_clean("slurm", "gridengine") as ends:
        ends.callback(clusters.end_servers, the_site.site)
        ends.callback(the_site.beside.unblock)
        yield the_site


SignIn = Callable[..., Page]


@pytest.fixture
def sign_in(browser: Browser, bed: BatchSite) -> Iterator[SignIn]:
    """Give a way to be somebody: signs in with the form, through PAM, in a new browser."""
    contexts: list[BrowserContext] = []

    def go(name: str, **given: Any) -> Page:
        context = browser.new_context(**{"viewport": DESKTOP, "locale": "en-GB", **given})
        contexts.append(context)
        page = context.new_page()
        page.goto(f"{bed.site.url}/hub/login")
        page.fill("#username_input", name)
        page.fill("#password_input", os.environ["PERIJOVE_TEST_PASSWORD"])
        page.click("#login_submit")
        page.wait_for_load_state()
        return page

    yield go
    for context in contexts:
        context.close()


def keep(page: Page, name: str, looks: Sequence[str] = tuple(LOOKS)) -> None:
    """Keep pictures of a page for people to judge, in two languages and themes and on a phone."""
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    browser = page.context.browser
    assert browser is not None
    for look in looks:
        context = browser.new_context(
            **{"viewport": DESKTOP, "locale": "en-GB", **LOOKS[look]},
            storage_state=page.context.storage_state(),
        )
        other = context.new_page()
        other.goto(page.url)
        other.screenshot(path=ARTIFACTS / f"{name}.{look}.png", full_page=True)
        context.close()


OFFERED: Final = {
    "account": "", "partition": "", "cpu": "1", "memory": "512", "time": "1", "gpu": "0",
    "ui": "lab",
}  # fmt: skip


def choose(page: Page, bed: BatchSite, profile: str, *, of: str = "", **options: str) -> None:
    """
    Open the form, of a server `of` as ``PERSON/NAME`` or of the default one, and fill it in.

    What is not named is as for who comes for the first time; the form remembers the last choice.
    """
    page.goto(f"{bed.site.url}/hub/spawn" + (f"/{of}" if of else ""))
    page.check(f"input[name=profile][value={profile}]")
    for name, value in {**OFFERED, **options}.items():
        entry = page.locator(f"[name='{profile}.{name}']:not([type=hidden])").first
        if name not in options and not entry.count():
            continue  # there is no choice for this person
        if entry.evaluate("entry => entry.tagName") == "SELECT":
            entry.select_option(value)
        else:
            entry.fill(value)


def start(page: Page) -> None:
    """Press the button, and see how it goes."""
    page.click("#spawn-start")
    page.wait_for_url(re.compile(r"/hub/spawn-pending/|/user/"))


def choices(page: Page, field: str) -> set[str]:
    """Return what a field of the form offers."""
    found = page.locator(f"[name='{field}'] option").evaluate_all("all => all.map(x => x.value)")
    return set(found)


def sign_out(page: Page) -> None:
    """Leave from the home page, with all that runs."""
    page.click("#logout")
    expect(page.locator("main")).to_contain_text("These servers of yours are running")
    page.get_by_role("button", name="Stop them and sign out").click()
    page.wait_for_url(re.compile(r"/hub/login"))


def the_reason(page: Page) -> Locator:
    """Return where the waiting page says why."""
    return page.locator("#progress-message")


# --- from the form to 42, and out ---------------------------------------------------------------


def test_person_computes_in_a_job_of_slurm_and_signs_out(bed: BatchSite, sign_in: SignIn) -> None:
    """The form shows what Slurm has for alice; the Lab computes; signing out ends the job."""
    page = sign_in("alice")
    choose(page, bed, "slurm", cpu="2", memory="600", time="0.5")
    assert choices(page, "slurm.account") == {"", "def-alice", "rrg-bob", "rrg-spent"}
    partitions = choices(page, "slurm.partition")
    assert {"compute", "short", "gpu", "rrgonly"} <= partitions
    assert {"mini:1", "test:1", "test:2"} <= choices(page, "slurm.gpu")
    assert {"onejob", "strict", "interactive"} <= choices(page, "slurm.qos")
    expect(page.locator("input[name='slurm.features'][value=avx2]")).to_be_visible()
    expect(page.get_by_text("cores free").first).to_be_visible()
    keep(page, "form")

    start(page)
    page.wait_for_url(re.compile(r"/user/alice/lab"), timeout=SOON)
    job = bed.job("alice")
    shown = asked("squeue", "-h", "-j", job, "-o", "%u %C %m %l").split()
    assert shown == ["alice", "2", "600M", "30:00"]
    compute(page, f"{bed.site.url}/user/alice")

    page.goto(f"{bed.site.url}/hub/home")
    expect(page.locator("article")).to_contain_text(re.compile(r"\d+\smin left of 30\smin"))
    keep(page, "home")
    sign_out(page)
    bed.no_jobs("alice")


def test_person_computes_in_a_job_of_grid_engine_and_stops_it(
    bed: BatchSite, sign_in: SignIn
) -> None:
    """The same on the other cluster, with its own words; Stop deletes the job."""
    page = sign_in("alice")
    choose(page, bed, "gridengine", cpu="2", memory="600", partition="all.q")
    assert choices(page, "gridengine.account") == {"", "rse"}
    assert {"all.q", "short.q", "rse.q"} <= choices(page, "gridengine.partition")
    start(page)
    page.wait_for_url(re.compile(r"/user/alice/lab"), timeout=SOON)
    assert bed.jobs("alice", "gridengine") == {bed.job("alice", "gridengine"): "r"}
    compute(page, f"{bed.site.url}/user/alice")

    page.goto(f"{bed.site.url}/hub/home")
    page.click("#stop")
    expect(page.locator("#start")).to_have_text("Start", timeout=SOON)
    expect(page.locator("article")).to_contain_text("You stopped it.")
    assert bed.jobs("alice", "gridengine") == {}


def test_signing_out_ends_the_job_on_grid_engine(bed: BatchSite, sign_in: SignIn) -> None:
    """As on the other cluster, it says first what runs, and deletes the job."""
    page = sign_in("alice")
    choose(page, bed, "gridengine", ui="terminal")
    start(page)
    page.wait_for_url(re.compile(r"/user/alice/terminals"), timeout=SOON)
    assert bed.job("alice", "gridengine")
    page.goto(f"{bed.site.url}/hub/home")
    sign_out(page)
    bed.no_jobs("alice", "gridengine")


def test_terminal_with_a_gpu_is_a_terminal_with_a_gpu(bed: BatchSite, sign_in: SignIn) -> None:
    """A terminal is all there is, it has a shell on the node, and the job has the GPU."""
    page = sign_in("alice")
    choose(page, bed, "slurm", partition="gpu", gpu="test:1", ui="terminal")
    start(page)
    page.wait_for_url(re.compile(r"/user/alice/terminals/1"), timeout=SOON)
    assert asked("squeue", "-h", "-j", bed.job("alice"), "-o", "%P %b").split() == [
        "gpu",
        "gres:gpu:test:1",
    ]
    page.locator(".xterm").click(timeout=SOON)
    said = Path("~alice/said-by-the-terminal").expanduser()
    said.unlink(missing_ok=True)
    page.keyboard.type(f"echo $((6*7)) ${{SLURM_JOB_ID:-no job}} > {said}\n")
    wait_for(lambda: said.exists() and said.read_text(), what="what the terminal said")
    assert said.read_text() == "42 no job\n"
    said.unlink()


# --- what cannot be -----------------------------------------------------------------------------

REFUSALS: Final[Sequence[tuple[Cluster, dict[str, str], str, str]]] = [
    (
        "slurm",
        {"account": "def-alice", "partition": "rrgonly"},
        "partition",
        "Account def-alice may not use partition rrgonly.",
    ),
    ("slurm", {"partition": "short", "time": "2"}, "time", "30 min"),
    ("slurm", {"qos": "strict", "cpu": "4"}, "cpu", "2 cores"),
    ("gridengine", {"partition": "short.q", "time": "2"}, "time", "30 min"),
    ("gridengine", {"partition": "rse.q"}, "account", "Choose a project."),
    ("gridengine", {"partition": "all.q", "cpu": "13"}, "cpu", "at most 12 cores"),
]


@pytest.mark.parametrize(("cluster", "options", "field", "words"), REFUSALS)
def test_refusal_stands_beside_its_field_and_nothing_is_lost(
    bed: BatchSite,
    sign_in: SignIn,
    cluster: Cluster,
    options: dict[str, str],
    field: str,
    words: str,
) -> None:
    """Without a script the form lets people ask for anything; the answer names the culprit."""
    page = sign_in("alice", java_script_enabled=False)
    choose(page, bed, cluster, memory="777", **options)
    page.click("#spawn-start")
    entry = page.locator(f"[name='{cluster}.{field}']")
    expect(entry).to_have_attribute("aria-invalid", "true")
    expect(page.locator(".field", has=entry).locator(".error")).to_contain_text(words)
    for name, value in {**options, "memory": "777"}.items():
        expect(page.locator(f"[name='{cluster}.{name}']")).to_have_value(value)
    assert bed.jobs("alice", cluster) == {}


@pytest.mark.parametrize(
    ("account", "words"),
    [("pj-expired", "Your account has expired."), ("pj-locked", "Your account is locked.")],
)
def test_account_that_may_not_come_in_is_told_why(
    bed: BatchSite, browser: Browser, account: str, words: str
) -> None:
    """Who knows the password reads whether the account has expired or is locked."""
    context = browser.new_context(locale="en-GB")
    page = context.new_page()
    page.goto(f"{bed.site.url}/hub/login")
    page.fill("#username_input", account)
    page.fill("#password_input", os.environ["PERIJOVE_TEST_PASSWORD"])
    with page.expect_response(lambda answer: answer.request.method == "POST") as answer:
        page.click("#login_submit")
    assert answer.value.status == 403
    expect(page.get_by_role("alert")).to_contain_text(words)
    context.close()


# --- waiting ------------------------------------------------------------------------------------


def test_person_at_the_accounts_limit_reads_it_and_makes_room(
    bed: BatchSite, sign_in: SignIn
) -> None:
    """carol's account has two cores: a second server waits, says why, and offers to stop one."""
    page = sign_in("carol")
    choose(page, bed, "slurm", cpu="2", ui="terminal")
    start(page)
    page.wait_for_url(re.compile(r"/user/carol/terminals"), timeout=SOON)

    choose(page, bed, "slurm", of="carol/second", cpu="1", ui="terminal")
    start(page)
    expect(the_reason(page)).to_contain_text(
        "You or your group use all the cores you may have at once.", timeout=SOON
    )
    expect(page.locator(".quote")).to_contain_text("AssocGrpCpuLimit")
    keep(page, "limit")
    french = page.context.new_page()
    french.context.add_cookies(
        [{"name": "perijove-language", "value": "fr", "url": f"{bed.site.url}/hub/"}]
    )
    french.goto(page.url)
    expect(the_reason(french)).to_contain_text(
        "Vous ou votre groupe utilisez tous les cœurs auxquels vous avez droit à la fois."
    )
    others = french.locator("#others")
    with french.expect_navigation():
        others.get_by_role("button", name="Arrêter").click()
    french.close()  # else both pages go to the server and sign in there at once
    page.wait_for_url(re.compile(r"/user/carol/second/terminals"), timeout=SOON)
    assert list(bed.jobs("carol").values()).count("R") == 1


def test_wait_outlives_the_hub_and_ends_by_itself(bed: BatchSite, sign_in: SignIn) -> None:
    """Behind another's job: why, whose words, until when; the hub dies twice; then the Lab."""
    bed.beside.block("slurm", "bob", "--partition=gpu", "--gres=gpu:mini:1")
    page = sign_in("alice")
    choose(page, bed, "slurm", partition="gpu", gpu="mini:1")
    start(page)
    expect(the_reason(page)).to_contain_text(
        re.compile("nothing large enough is free yet|Other jobs are ahead"), timeout=SOON
    )
    expect(page.locator(".quote")).to_contain_text(re.compile("Resources|Priority"))
    expect(page.locator(".steps")).to_contain_text("In the queue")
    facts = page.locator(".facts")
    expect(facts).to_contain_text(re.compile(r"about \d\d:\d\d.*as of"), timeout=SOON)
    keep(page, "waiting")
    job = bed.job("alice")
    for _ in range(2):
        bed.kill_hub()
    assert bed.jobs("alice") == {job: "PD"}

    bed.beside.unblock()
    page.wait_for_url(re.compile(r"/user/alice/lab"), timeout=SOON)
    assert bed.jobs("alice") == {job: "R"}


@pytest.mark.parametrize("cluster", clusters.BOTH)
def test_silent_scheduler_loses_nothing(bed: BatchSite, sign_in: SignIn, cluster: Cluster) -> None:
    """Form and waiting page say since when it is silent; the request goes on when it answers."""
    page = sign_in("alice")
    choose(page, bed, cluster)
    beds.disturb(cluster, "stop")
    try:
        wait_for(
            lambda: page.reload() and page.get_by_text("has not answered since").count(),
            what="the form to tell of the silence",
        )
        if cluster == "slurm":
            keep(page, "silent-form", ["french"])  # it takes as long as we wait for an answer
        choose(page, bed, cluster, ui="terminal")
        start(page)
        expect(page.locator("main")).to_contain_text(
            re.compile(r"The computing system has not answered since \d\d:\d\d; nothing is lost."),
            timeout=SOON,
        )
        keep(page, f"silent-waiting-{cluster}", ["english", "french"])
    finally:
        beds.disturb(cluster, "cont")
    page.wait_for_url(re.compile(r"/user/alice/terminals"), timeout=SOON)
    assert len(bed.jobs("alice", cluster)) == 1


def test_end_from_outside_is_told_with_what_can_be_done(bed: BatchSite, sign_in: SignIn) -> None:
    """scancel on a login node: within moments the page says so and offers to start again."""
    page = sign_in("alice")
    choose(page, bed, "slurm", ui="terminal")
    start(page)
    page.wait_for_url(re.compile(r"/user/alice/terminals"), timeout=SOON)
    page.goto(f"{bed.site.url}/hub/spawn-pending/alice?show=1")
    expect(page.locator("h1")).to_have_text("Running")
    assert beds.run_as("alice", "scancel", bed.job("alice")).returncode == 0
    expect(the_reason(page)).to_contain_text("outside", timeout=SOON)
    expect(page.get_by_role("button", name="Start again")).to_be_visible()
    expect(page.get_by_role("link", name="Start with other options")).to_be_visible()
    keep(page, "ended")
    page.get_by_role("button", name="Start again").click()
    page.wait_for_url(re.compile(r"/user/alice/terminals"), timeout=SOON)


def test_quota_and_end_from_outside_on_grid_engine(bed: BatchSite, sign_in: SignIn) -> None:
    """bob has two slots in all: the page says so while he waits; then it tells of his qdel."""
    bed.beside.block("gridengine", "bob", "-pe", "smp", "2")
    page = sign_in("bob")
    choose(page, bed, "gridengine", ui="terminal")
    start(page)
    expect(the_reason(page)).to_contain_text(
        "You or your group use all that a quota of this cluster allows at once.", timeout=SOON
    )
    expect(page.locator(".quote")).to_contain_text("bob_two_slots")
    keep(page, "quota")
    bed.beside.unblock()
    page.wait_for_url(re.compile(r"/user/bob/terminals"), timeout=SOON)
    page.goto(f"{bed.site.url}/hub/spawn-pending/bob?show=1")
    expect(page.locator("h1")).to_have_text("Running")
    assert beds.run_as("bob", "qdel", bed.job("bob", "gridengine")).returncode == 0
    expect(the_reason(page)).to_contain_text("outside", timeout=SOON)
    expect(page.get_by_role("button", name="Start again")).to_be_visible()


# --- without a browser ----------------------------------------------------------------------------


@pytest.mark.parametrize("cluster", clusters.BOTH)
def test_token_from_the_page_does_it_all_from_a_login_node(
    bed: BatchSite, sign_in: SignIn, tmp_path: Path, cluster: Cluster
) -> None:
    """login, start with a live view, list, logs, stop in a terminal; the same by the API."""
    page = sign_in("alice")
    page.goto(f"{bed.site.url}/hub/token")
    # It is closed where somebody has tokens.
    page.locator("details", has=page.locator("#token-note")).evaluate("each => each.open = true")
    page.fill("#token-note", "login node")
    page.get_by_role("button", name="Make the token").click()
    token = page.locator("#token-result code").inner_text()

    terminal = Terminal(
        {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "XDG_CONFIG_HOME": str(tmp_path / "config"),
            "TERM": "xterm-256color",
            "LANG": "C.UTF-8",
        }
    )
    try:
        terminal.run("login", bed.site.url)
        terminal.shows("hub/token", "Token")
        terminal.type(token)
        assert terminal.ends() == 0, terminal.seen
        assert token not in terminal.seen
        terminal.run("start", "work", "--profile", cluster, "--memory", "600", "--time", "0:20:00")
        terminal.shows("Ready", "/user/alice/work/")
        assert terminal.ends() == 0, terminal.seen
        assert set(bed.jobs("alice", cluster).values()) == {RUNS[cluster]}
        terminal.run("list")
        terminal.shows("work", "Running", cluster)
        assert terminal.ends() == 0
        terminal.run("logs", "work")
        terminal.shows("jupyter")
        assert terminal.ends() == 0
        status, model = bed.site.api("GET", "/users/alice", token=token)
        assert (status, model["servers"]["work"]["ready"]) == (200, True)
        terminal.run("stop", "work")
        terminal.shows("Stopped.")
        assert terminal.ends() == 0
    finally:
        terminal.close()
    bed.no_jobs("alice", cluster)

    options = {"profile": cluster, "options": {"memory": 2**29, "ui": "terminal"}}
    assert bed.site.api("POST", "/users/alice/server", options, token=token)[0] in (201, 202)
    wait_for(lambda: bed.site.server("alice").get("ready"), what="the server by the API")
    assert set(bed.jobs("alice", cluster).values()) == {RUNS[cluster]}
    assert bed.site.api("DELETE", "/users/alice/server", token=token)[0] in (202, 204)
    bed.no_jobs("alice", cluster)
