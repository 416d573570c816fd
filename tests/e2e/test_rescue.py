"""A person whose volume is full, in the stock image: the server starts, and helps to clear up."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Browser, expect

from tests.containers import docker_section
from tests.contract.spawners.docker_site import docker, sweep
from tests.e2e.site import PASSWORD, Site, a_site, free_port, wait_for

pytestmark = [pytest.mark.needs("chromium", "docker"), pytest.mark.timeout(300)]

SCREENSHOTS: Final = Path(__file__).parents[1] / "artifacts/screenshots"


def configuration(api_port: int) -> str:
    """Return a site whose volumes are full from the start: not even a mebibyte fits."""
    full = 'volume_options = { type = "tmpfs", device = "tmpfs", o = "size=512k,uid=1000" }'
    return f"""
api_bind = "0.0.0.0:{api_port}"

{docker_section(api_port, full)}

[[profiles]]
name = "kept"
[profiles.storage]
retention = "0 s"
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Run the site; leave nothing of it on the engine."""
    with a_site(tmp_path, extra=configuration(free_port())) as found:
        try:
            yield found
        finally:
            found.stop_server()
    sweep(found.installation(), "docker")


def test_a_server_with_a_full_volume_starts_and_says_why(site: Site, browser: Browser) -> None:
    """Lab opens with the text; the volume is beside it, and what is deleted there is gone."""
    site.start_server()
    (volume,) = site.api("GET", "/perijove/volumes")[1]["volumes"]
    (container,) = docker("ps", "--quiet", "--filter", f"volume={volume['name']}").split()
    docker("exec", container, "dd", "if=/dev/zero", "of=/home/jovyan/big", "bs=1k", "count=300")

    status, listed = site.ask("GET", "/user/admin/api/contents/")
    assert status == 200
    assert sorted(entry["name"] for entry in listed["content"]) == ["RESCUE.md", "jovyan"]

    launch = site.api("GET", "/perijove/users/admin/launches?limit=1")[1]["launches"][0]["id"]
    happened = site.api("GET", f"/perijove/launches/{launch}/events")[1]["events"]
    (warning,) = (each for each in happened if each["code"] == "warning")
    assert warning["params"]["reason"] == "volume-full"
    assert "rescue mode" in warning["text"]

    context = browser.new_context(locale="en-GB")
    page = context.new_page()
    page.goto(f"{site.url}/hub/login?next=/user/admin/")
    page.fill("#username_input", "admin")
    page.fill("#password_input", PASSWORD)
    page.click("#login_submit")
    expect(page.locator(".jp-DirListing")).to_contain_text("RESCUE.md", timeout=60_000)
    expect(page.locator("#jp-main-dock-panel")).to_contain_text("RESCUE MODE", timeout=60_000)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / "rescue-lab.png")
    context.close()

    assert site.ask("DELETE", "/user/admin/api/contents/jovyan/big")[0] == 204
    wait_for(
        lambda: not docker("exec", container, "find", "/home/jovyan", "-size", "+9k"),
        what="the big file to be gone for good, not put into a rubbish bin",
    )
