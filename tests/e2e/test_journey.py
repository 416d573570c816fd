"""A person with nothing but a browser: signs in, chooses, waits, computes, and stops."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.lab import compute
from tests.e2e.site import PASSWORD, Site, a_site, wait_for

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(300)]

ARTIFACTS = Path(__file__).parents[1] / "artifacts/journey"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Run a site below a path that is not the root."""
    with a_site(tmp_path_factory.mktemp("site"), base_path="/@/jupyter%20hub/") as found:
        yield found


def sign_in(page: Page, site: Site) -> None:
    """Sign in with the form."""
    page.goto(f"{site.url}/hub/login")
    page.fill("#username_input", "admin")
    page.fill("#password_input", PASSWORD)
    page.click("#login_submit")
    page.wait_for_load_state()


def start_and_wait(page: Page, site: Site) -> None:
    """Choose what is offered, start it, and end up in the Lab."""
    page.goto(f"{site.url}/hub/spawn")
    page.click("#spawn-start")
    page.wait_for_url(re.compile(r"/user/admin/"), timeout=90_000)


def keep(page: Page, name: str) -> None:
    """Keep a picture for people to judge."""
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"{name}.png")


def stop_from_the_hub(page: Page, site: Site) -> None:
    """Stop the server on the hub's own page."""
    page.goto(f"{site.url}/hub/home")
    page.click("#stop")
    wait_for(lambda: site.server("admin").get("stopped"), what="the server to be stopped")


@pytest.mark.parametrize(("language", "word"), [("en-GB", "Start"), ("fr-FR", "Démarrer")])
def test_person_computes_in_the_lab_and_stops(
    browser: Browser, site: Site, language: str, word: str
) -> None:
    """From the sign-in form to 42 in a notebook, and back, in the person's language."""
    context = browser.new_context(locale=language)
    page = context.new_page()
    page.on("dialog", lambda dialog: dialog.accept())
    sign_in(page, site)
    page.goto(f"{site.url}/hub/spawn")
    expect(page.locator("#spawn-start")).to_contain_text(word)

    start_and_wait(page, site)
    compute(page, f"{site.url}/user/admin")
    keep(page, language)
    stop_from_the_hub(page, site)

    assert site.servers() == []
    context.close()


def test_person_reaches_the_lab_without_javascript(browser: Browser, site: Site) -> None:
    """With JavaScript off every page up to the Lab works, and the Lab's own page answers."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    sign_in(page, site)
    page.goto(f"{site.url}/hub/spawn")
    page.click("#spawn-start")
    page.wait_for_url(re.compile(r"/user/admin/lab"), timeout=90_000)

    assert "JupyterLab" in page.title()
    stop_from_the_hub(page, site)
    context.close()


def test_link_signs_in_once(browser: Browser, site: Site) -> None:
    """The printed link signs the administrator in, and never again."""
    link = site.link()
    first, second = browser.new_context(), browser.new_context()
    page = first.new_page()
    page.goto(link)
    if "link=" in page.url:
        page.click("main button[type=submit]")
        page.wait_for_load_state()
    expect(page.locator("#logout")).to_be_visible()

    other = second.new_page()
    other.goto(link)
    expect(other.locator("#logout")).to_have_count(0)
    for context in (first, second):
        context.close()


def test_server_that_is_not_running_says_so_and_can_be_started(
    browser: Browser, site: Site
) -> None:
    """The page in the place of a stopped server offers to start it, and leads back to it."""
    context = browser.new_context()
    page = context.new_page()
    sign_in(page, site)
    answer = page.goto(f"{site.url}/user/admin/lab/tree/x.ipynb")

    assert answer is not None
    assert answer.status == 424
    page.click("#start")
    page.click("#spawn-start")
    page.wait_for_url(re.compile(r"/user/admin/lab/tree/x\.ipynb"), timeout=90_000)
    stop_from_the_hub(page, site)
    context.close()


def test_failed_start_shows_why_and_the_end_of_the_log(browser: Browser, tmp_path: Path) -> None:
    """A server that ends at once says with which status, and what it wrote last."""
    spawner = """
[spawners.local]
kind = "local"
command = ["/bin/sh", "-c", "echo the library quux is missing >&2; exit 3"]
"""
    with a_site(tmp_path, extra=spawner) as broken:
        context = browser.new_context()
        page = context.new_page()
        sign_in(page, broken)
        page.goto(f"{broken.url}/hub/spawn")
        page.click("#spawn-start")
        expect(page.locator("main")).to_contain_text("exited(3)", timeout=60_000)

        expect(page.locator("main")).to_contain_text("the library quux is missing")
        keep(page, "failed")
        (launch,) = broken.api("GET", "/perijove/users/admin/launches")[1]["launches"]
        assert (launch["end"]["cause"], launch["end"]["code"]) == ("exited", 3)
        context.close()
