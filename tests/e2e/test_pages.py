"""Every page in a real browser: readable by all, translated, calm, and alive where it should be."""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from playwright.sync_api import Browser, BrowserContext, Page, expect
from sqlalchemy import Connection, update

from perijove.db.tables import launches
from tests.e2e.gallery import Gallery, gallery
from tests.e2e.scenes import PASSWORD, cookie_of

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(300)]

SCREENSHOTS: Final = Path(__file__).parents[1] / "artifacts/screenshots"
DESKTOP: Final = {"width": 1280, "height": 800}
PHONE: Final = {"width": 320, "height": 640}
"""The narrowest there is, and what is left of a wide window at four times the size."""

PAGES: Final = {
    "sign-in": ("", "login"),
    "home": ("ann", "home"),
    "home-none": ("zoe", "home"),
    "home-twenty": ("max", "home"),
    "new-server": ("ann", "new"),
    "options": ("ann", "spawn/ann/memory?form=1&opt-profile=interactive"),
    "options-batch": ("bea", "spawn/bea?form=1&opt-profile=batch"),
    "options-images": ("ida", "spawn/ida?form=1&opt-profile=workspace"),
    "options-silent": ("gus", "spawn/gus?form=1&opt-profile=queues"),
    "options-running": ("ann", "spawn/ann?again=1"),
    "waiting-in-queue": ("ann", "spawn-pending/ann/climate"),
    "waiting-at-limit": ("kim", "spawn-pending/kim/limit"),
    "waiting-asked": ("kim", "spawn-pending/kim/asked"),
    "waiting-silent": ("kim", "spawn-pending/kim/silent"),
    "waiting-preparing": ("ida", "spawn-pending/ida/survey"),
    "waiting-held": ("ida", "spawn-pending/ida/held"),
    "waiting-starting": ("ann", "spawn-pending/ann/starting"),
    "running-steps": ("ann", "spawn-pending/ann/low?show=1"),
    "ended-failed": ("ann", "spawn-pending/ann/late"),
    "ended-memory": ("ann", "spawn-pending/ann/memory"),
    "ended-impossible": ("kim", "spawn-pending/kim/never"),
    "options-again": ("kim", "spawn/kim/never?problem=lch_kimnever"),
    "little-time": ("kim", "spawn-pending/kim/short?show=1"),
    "home-busy": ("kim", "home"),
    "not-running": ("ann", "user/ann/memory/lab"),
    "delete": ("ann", "server/delete/ann/climate"),
    "data": ("vera", "data"),
    "data-none": ("zoe", "data"),
    "data-home": ("vera", "home"),
    "data-waiting": ("vera", "spawn-pending/vera/rescue"),
    "data-delete-server": ("vera", "server/delete/vera/spectra"),
    "data-delete": ("vera", "data/pj-s4g2-0000000000000000/delete"),
    "data-attach": ("vera", "data/pj-s4g2-thesisthesis2025/attach"),
    "data-everybody": ("admin", "admin/data"),
    "environments": ("vera", "environments"),
    "environments-none": ("zoe", "environments"),
    "environment": ("vera", "environments/1"),
    "environment-failed": ("vera", "environments/3"),
    "tokens": ("zoe", "token"),
    "password": ("ann", "password"),
    "sign-out": ("ann", "logout"),
    "admin": ("admin", "admin"),
    "not-found": ("ann", "nowhere"),
    "error": ("ann", "error/503"),
}
"""By name: who looks, and at what below the hub's prefix."""


@dataclass(frozen=True, slots=True)
class Show:
    """The gallery, seen from a thread beside it."""

    gallery: Gallery
    portal: BlockingPortal

    def url(self, name: str) -> str:
        """Return the address of a page."""
        return f"{self.gallery.url}hub/{PAGES[name][1]}"

    def sign_in(self, context: BrowserContext, name: str) -> None:
        """Let a browser be somebody."""
        if name:
            cookie = self.portal.call(cookie_of, self.gallery.hub, name)
            address = f"{self.gallery.url}hub/"
            context.add_cookies([{"name": "jupyterhub-hub-login", "value": cookie, "url": address}])

    def change(self, launch_id: str, **values: Any) -> None:
        """Let something happen to a launch."""

        def unit(connection: Connection) -> None:
            connection.execute(update(launches).where(launches.c.id == launch_id).values(**values))

        self.portal.call(self.gallery.hub.database.write, unit)
        self.portal.call(self.gallery.hub.events.strike)


@pytest.fixture(scope="module")
def show(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Show]:
    """Give a hub full of things to look at."""
    directory = tmp_path_factory.mktemp("gallery")
    settings = {"logout_stops_servers": True}
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(gallery(directory, settings=settings)) as shown,
    ):
        yield Show(shown, portal)


Opener = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, show: Show) -> Iterator[Opener]:
    """Give a way to open a page as the one who looks at it."""
    contexts: list[BrowserContext] = []

    def go(name: str, *, language: str = "", **context: Any) -> Page:
        opened = browser.new_context(**{"viewport": DESKTOP, "locale": "en-GB", **context})
        contexts.append(opened)
        show.sign_in(opened, PAGES[name][0])
        if language:
            address = f"{show.gallery.url}hub/"
            cookie = {"name": "perijove-language", "value": language, "url": address}
            opened.add_cookies([cookie])  # type: ignore[list-item]
        page = opened.new_page()
        page.goto(show.url(name))
        return page

    yield go
    for context in contexts:
        context.close()


@pytest.mark.needs("axe-core")
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_page_has_no_serious_fault_of_accessibility(
    open_page: Opener, name: str, theme: str
) -> None:
    """axe-core finds nothing serious, in either theme."""
    page = open_page(name, color_scheme=theme, bypass_csp=True, reduced_motion="reduce")
    for details in page.locator("details").all():
        details.evaluate("details => { details.open = true }")
    page.add_script_tag(path=os.environ["PERIJOVE_TEST_AXE"])
    found = page.evaluate("axe.run({ resultTypes: ['violations'] })")
    faults = [
        (fault["id"], [node["html"][:160] for node in fault["nodes"]])
        for fault in found["violations"]
        if fault["impact"] in ("serious", "critical")
    ]
    assert faults == []


UNTRANSLATED = r"""
() => {
  const body = document.body.cloneNode(true);
  const names = ["aria-label", "placeholder", "title"];
  const attributes = [...body.querySelectorAll("[aria-label], [placeholder], [title]")]
    .filter((element) => !element.closest("[translate=no], time"))
    .flatMap((element) => names.map((name) => element.getAttribute(name)))
    .filter(Boolean);
  const theirs = "[translate=no], time, script, style, noscript, svg";
  for (const element of body.querySelectorAll(theirs)) element.replaceWith(" ");
  for (const element of body.querySelectorAll("*")) element.append(" ");
  const heading = document.title.split(" · ")[0];
  let left = [heading, ...attributes, body.textContent].join("\n");
  for (let before = ""; before !== left;) {
    before = left;
    left = left.replace(/⟦[^⟦⟧]*⟧/gu, "");
  }
  return left.split(/\s{2,}|\n/u).filter((text) => /\p{L}/u.test(text));
}
"""


@pytest.mark.parametrize("name", PAGES)
def test_page_shows_no_untranslated_text(open_page: Opener, name: str) -> None:
    """In the pseudo-language every text of ours stands in brackets."""
    page = open_page(name, language="xx")
    assert page.evaluate(UNTRANSLATED) == []


@pytest.mark.parametrize("name", PAGES)
def test_page_is_quiet_and_does_not_jump(open_page: Opener, name: str) -> None:
    """No script error, nothing the security policy blocks, no layout shift."""
    page = open_page(name)
    said: list[str] = []
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("console", lambda message: said.append(message.text))
    page.add_init_script(
        "window.shift = 0; new PerformanceObserver((list) => {"
        "for (const entry of list.getEntries()) window.shift += entry.value;"
        "}).observe({ type: 'layout-shift', buffered: true });"
    )
    page.reload()
    page.wait_for_function("window._jupyterhub_page_loaded")
    assert [text for text in said if not text.startswith("Failed to load resource")] == []
    assert page.evaluate("window.shift") < 0.02
    data = page.evaluate("window.jhdata")
    assert {"base_url", "prefix", "user", "admin_access", "options_form", "xsrf_token"} == set(data)


LOOKS: Final[dict[str, dict[str, Any]]] = {
    "light": {},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": PHONE, "locale": "es-ES"},
    "french": {"locale": "fr-FR"},
    "no-script": {"java_script_enabled": False, "locale": "pt-BR"},
}


CUT_OFF: Final = """
[...document.querySelectorAll("h1, h2, .button, .badge, .card, .table th, .table td")]
  .filter((element) => element.scrollWidth > element.clientWidth + 1)
  .map((element) => element.outerHTML.slice(0, 120))
"""
"""What does not fit into the box it stands in."""


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("name", PAGES)
def test_page_fits_its_window_and_is_kept_as_a_picture(
    open_page: Opener, name: str, look: str
) -> None:
    """Nothing has to be scrolled sideways; the picture is there for people to judge."""
    page = open_page(name, **LOOKS[look])
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.{look}.png", full_page=True)
    if look == "no-script":
        return
    width = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert width <= 0
    assert page.evaluate(CUT_OFF) == []


def test_person_signs_in_without_a_script(browser: Browser, show: Show) -> None:
    """A form is all it takes; a wrong password is said without telling what was wrong."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{show.gallery.url}hub/home")
    for password in ("wrong", PASSWORD):
        page.fill("#username_input", "zoe")
        page.fill("#password_input", password)
        page.click("#login_submit")
        if password == "wrong":
            expect(page.locator(".login_error")).to_contain_text("Invalid username or password")
            expect(page.locator("#username_input")).to_have_value("zoe")
    expect(page.locator("h1")).to_have_text("Your servers")
    page.click("#start")
    page.get_by_text("Interactive").click()
    expect(page.locator("#interactive-cpu")).to_be_visible()
    expect(page.locator("#gpu-gpu")).to_be_hidden()
    page.fill("#interactive-cpu", "99")
    page.click("#spawn-start")
    expect(page.locator(".field .error")).to_contain_text("at most 16 cores")
    expect(page.locator("#interactive-cpu")).to_have_value("99")
    context.close()


def test_consequence_follows_the_input(open_page: Opener) -> None:
    """What the form asks for is said in one line, and changes as one types."""
    page = open_page("options")
    line = page.locator("#consequence")
    expect(line).to_have_text("Interactive · 2 cores · 8 GiB · 2 h · JupyterLab")
    page.fill("#interactive-cpu", "1")
    expect(line).to_contain_text("1 core ·")
    page.get_by_text("With a GPU").click()
    expect(line).to_contain_text("With a GPU · 8 cores")


def test_password_can_be_looked_at(open_page: Opener) -> None:
    """The eye shows what was typed, and says so to those who do not see it."""
    page = open_page("sign-in")
    page.fill("#password_input", "secret")
    button = page.get_by_role("button", name="Show the password")
    button.click()
    expect(page.locator("#password_input")).to_have_attribute("type", "text")
    expect(button).to_have_attribute("aria-pressed", "true")


def test_times_are_in_the_persons_zone(open_page: Opener) -> None:
    """The same instant reads differently in another place; the full time is on hover."""
    utc = open_page("waiting-in-queue", timezone_id="UTC").locator("time").first
    tokyo = open_page("waiting-in-queue", timezone_id="Asia/Tokyo").locator("time").first
    assert utc.get_attribute("datetime") == tokyo.get_attribute("datetime")
    assert utc.inner_text() != tokyo.inner_text()
    assert "GMT+9" in (tokyo.get_attribute("title") or "")


def test_theme_can_be_chosen(open_page: Opener) -> None:
    """A person's choice comes before the system's, and stays."""
    page = open_page("home", color_scheme="light")
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("link", name="Dark").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    after = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert before != after
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == after


def test_keyboard_reaches_everything(open_page: Opener) -> None:
    """The first tab skips to the content; a menu opens and closes without a mouse."""
    page = open_page("home")
    page.keyboard.press("Tab")
    skip = page.locator(".skip")
    expect(skip).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    summary = page.locator("#more-climate summary")
    summary.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#delete-climate")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#delete-climate")).to_be_hidden()
    expect(summary).to_be_focused()


def test_waiting_page_follows_what_happens(open_page: Opener, show: Show) -> None:
    """The page tells of each change by itself and goes on when the server is ready."""
    page = open_page("waiting-starting")
    expect(page.locator("h1")).to_have_text("Starting")
    with page.expect_response(lambda response: "/events?" in response.url) as stream:
        page.reload()
    assert stream.value.status == 200
    assert stream.value.headers["content-type"] == "text/event-stream"
    show.change("lch_annstarting", status="connecting")
    expect(page.locator("h1")).to_have_text("Connecting", timeout=20_000)
    expect(page.locator("#announcer")).to_have_text(
        "Connecting. Your server has started; we are waiting for it to answer."
    )
    show.change("lch_annstarting", status="ready")
    page.wait_for_url("**/user/ann/starting/**", timeout=20_000)
    show.change("lch_annstarting", status="starting")


_ELSEWHERE = """
Object.defineProperty(document, "hidden", { get: () => sessionStorage.elsewhere === "yes" });
window.Notification = class extends Notification {
  constructor(title, options) { super(title, options); sessionStorage.told = options.body; }
};
"""
"""Says that the person looks elsewhere, once that is so, and keeps what the browser notified of."""


_LOOK_AGAIN = """
document.getElementById("live").dataset.poll = 0.1;
document.dispatchEvent(new Event("visibilitychange"));
"""
"""Has a page look again now, which a hidden one does three times a minute."""


def test_who_looks_elsewhere_is_notified(open_page: Opener, show: Show) -> None:
    """The browser tells of a question, a failure, a ready server; and nothing of a sign-out."""
    page = open_page("home", permissions=["notifications"])
    page.add_init_script(_ELSEWHERE)
    now = show.gallery.hub.clock.now()

    def look_elsewhere() -> None:
        page.evaluate("sessionStorage.clear()")
        page.goto(show.url("waiting-starting"))
        page.get_by_role("button", name="Keep waiting and notify me").click()
        expect(page.get_by_text("We will notify you.")).to_be_visible()
        page.evaluate("sessionStorage.elsewhere = 'yes'")

    def happens(**values: Any) -> None:
        show.change("lch_annstarting", **values)
        page.evaluate(_LOOK_AGAIN)

    def told(text: str) -> None:
        page.wait_for_function("text => sessionStorage.told === text", arg=text, timeout=30_000)

    look_elsewhere()
    happens(status="queued", queued_at=now, queue_asked_at=now)
    expect(page.locator("#question")).to_be_visible(timeout=30_000)
    expect(page).to_have_title(re.compile("^In the queue"))
    told(page.locator("#question").inner_text())

    happens(**_TOO_SLOW, ended_at=now)
    expect(page.get_by_role("button", name="Start again")).to_be_visible(timeout=30_000)
    told(page.locator("h1").inner_text())

    show.change("lch_annstarting", **_STARTING)
    look_elsewhere()
    happens(status="ready")
    told("Your server is ready.")
    page.wait_for_url("**/user/ann/starting/**", timeout=30_000)
    show.change("lch_annstarting", status="starting")

    look_elsewhere()
    page.context.clear_cookies()
    happens(status="connecting")
    page.wait_for_url("**/hub/login?**", timeout=30_000)
    assert page.evaluate("sessionStorage.told") is None
    show.change("lch_annstarting", status="starting")


_TOO_SLOW: Final = {
    "wanted": "end",
    "status": "ended",
    "end_cause": "never-started",
    "end": {"cause": "never-started", "code": None, "reason": "start-clock", "detail": ""},
}
_STARTING: Final = {
    "wanted": "run",
    "status": "starting",
    "queued_at": None,
    "queue_asked_at": None,
    "ended_at": None,
    "end_cause": None,
    "end": None,
}


def test_what_a_person_does_is_not_undone_by_a_change(open_page: Opener, show: Show) -> None:
    """What is focused, ticked or open stays so when the page is replaced under one's hands."""
    page = open_page("waiting-held")
    page.locator("#notify summary").click()
    page.get_by_label("By e-mail").check()
    change = page.get_by_role("link", name="Change the request")
    change.focus()
    words = {"code": "held-by-user", "params": {}, "words": "(JobHeldUser) for a while"}
    show.change("lch_idaheld", reason=words)
    expect(page.locator(".quote")).to_have_text("(JobHeldUser) for a while", timeout=20_000)
    expect(change).to_be_focused()
    expect(page.get_by_label("By e-mail")).to_be_checked()
    expect(page.locator("#announcer")).to_be_empty()


def test_little_time_is_announced(open_page: Opener, show: Show) -> None:
    """When a warning comes while the page is open, it is said aloud as well as shown."""
    page = open_page("little-time")
    ends_at = show.gallery.hub.clock.now()
    show.change("lch_kimshort", ends_at=ends_at + timedelta(minutes=5))
    page.reload()
    expect(page.locator(".warning")).to_contain_text("left: save your work now")
    show.change("lch_kimshort", ends_at=ends_at + timedelta(minutes=1))
    expect(page.locator("#announcer")).to_contain_text("save your work now", timeout=20_000)
    show.change("lch_kimshort", ends_at=None)


@pytest.mark.parametrize("name", PAGES)
def test_page_is_small(open_page: Opener, name: str) -> None:
    """A page is at most 30 kB as it travels, with all that it shows, also in many words."""
    page = open_page(name, locale="fr-FR")
    size = page.evaluate("performance.getEntriesByType('navigation')[0].encodedBodySize")
    assert size <= 30_000


def test_one_choice_bounds_the_others(open_page: Opener) -> None:
    """With the script, a partition leaves only what its nodes and limits can give."""
    page = open_page("options-batch")
    gpu = page.locator("[name='batch.gpu']")
    expect(gpu.locator("option[value='a100:2']")).to_be_disabled()
    expect(page.locator("[name='batch.time']")).to_have_attribute("max", "24")
    page.select_option("[name='batch.partition']", "gpu")
    expect(gpu.locator("option[value='a100:2']")).to_be_enabled()
    expect(page.locator("[name='batch.time']")).to_have_attribute("max", "2")
    hint = page.locator("#batch-time-hint")
    expect(hint).to_have_text("With what you chose, at most 2 h.")
    expect(page.locator("[name='batch.cpu']")).to_have_attribute("max", "32")
    gpu.select_option("a100:2")
    page.check("input[value=amd]")
    expect(page.locator("#consequence")).to_contain_text("2 × A100")
    expect(page.locator("#consequence")).to_contain_text("amd")
    page.select_option("[name='batch.partition']", "cpu")
    expect(page.locator("[name='batch.time']")).to_have_attribute("max", "24")
    expect(hint).not_to_contain_text("With what you chose")


def test_a_text_of_ones_own_is_asked_for_when_it_is_chosen(open_page: Opener) -> None:
    """The field beside a list shows with its choice; a refusal stands under it, all else stays."""
    page = open_page("options-images")
    own = page.locator("[name='workspace.image--other']")
    consequence = page.locator("#consequence")
    expect(own).to_be_hidden()
    expect(consequence).to_have_text(
        "Workspace · Small · 1 core · 4 GiB · Data release 1 · Astronomy", use_inner_text=True
    )
    page.check("[name='workspace.size'][value=large]")
    page.check("[name='workspace.image'][value='--other']")
    own.fill("docker.io/library/python:3.13")
    expect(consequence).to_contain_text("4 cores · 16 GiB")
    expect(consequence).to_contain_text("docker.io/library/python:3.13")
    page.click("#spawn-start")
    expect(page.get_by_text("Only images of quay.io and registry.example.org")).to_be_visible()
    expect(own).to_have_value("docker.io/library/python:3.13")
    expect(own).to_have_attribute("aria-invalid", "true")
    expect(page.locator("[name='workspace.size'][value=large]")).to_be_checked()
    page.screenshot(path=SCREENSHOTS / "options-images-refused.png", full_page=True)
