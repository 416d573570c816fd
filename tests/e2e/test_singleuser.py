"""The stock single-user server, three releases of it, through the real OAuth round trip."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from tests import beds
from tests.e2e.site import PASSWORD, PATIENCE, Site, a_site, wait_for

pytestmark = pytest.mark.timeout(300)

RELEASES = [
    pytest.param(release, marks=pytest.mark.needs(f"singleuser-{release}"))
    for release in ("4.1", "5", "6")
]


@pytest.fixture(params=RELEASES)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """Run a site whose servers are of one release, with a server that is ready."""
    command = beds.singleuser(request.param)
    extra = f"""
[lifecycle]
reporting_period = "5 s"
[spawners.local]
kind = "local"
command = ["{command}"]
"""
    with a_site(tmp_path, extra=extra) as found:
        found.start_server()
        yield found


def signed_in(site: Site, name: str = "admin", password: str = PASSWORD) -> httpx2.Client:
    """Return a client that has signed in with the form, as scripts do."""
    client = httpx2.Client(
        base_url=site.url,
        follow_redirects=True,
        trust_env=False,
        timeout=PATIENCE,
        headers={"Accept": "text/html", "Sec-Fetch-Mode": "navigate"},
    )
    client.get("/hub/login")
    form = {"username": name, "password": password, "_xsrf": client.cookies["_xsrf"]}
    answer = client.post("/hub/login?next=%2Fhub%2Fhome", data=form)
    assert answer.status_code == 200, answer.text
    assert "login_error" not in answer.text
    return client


def test_browser_reaches_the_lab_and_is_signed_out_with_the_hub(site: Site) -> None:
    """The server sends the browser to the hub, learns who it is, and lets the owner in."""
    with closing(signed_in(site)) as client:
        answer = client.get("/user/admin/lab")
        assert answer.status_code == 200, answer.text[:500]
        assert "jupyter-config-data" in answer.text
        hops = [hop.url.path for hop in answer.history]
        assert "/hub/api/oauth2/authorize" in hops
        assert "/user/admin/oauth_callback" in hops
        assert "jupyterhub-user-admin" in client.cookies

        tokens = site.api("GET", "/users/admin/tokens")[1]["api_tokens"]
        issued = [one for one in tokens if one["oauth_client"].startswith("Server at")]
        assert issued
        assert client.get("/hub/logout").status_code == 200
        tokens = site.api("GET", "/users/admin/tokens")[1]["api_tokens"]
        assert not [one for one in tokens if one["session_id"] == issued[-1]["session_id"]]


def test_server_reports_activity_and_keeps_strangers_out(site: Site) -> None:
    """Its own reports move the activity on; another user's token is refused."""
    before = site.server("admin")["last_activity"]
    assert site.ask("GET", "/user/admin/api/status")[0] == 200
    assert site.ask("POST", "/user/admin/api/kernels", {})[0] == 201
    wait_for(lambda: site.server("admin")["last_activity"] > before, what="a report")

    assert site.api("POST", "/users/eve")[0] == 201
    eve = site.api("POST", "/users/eve/tokens", {})[1]["token"]
    assert site.ask("GET", "/user/admin/api/status", token=eve)[0] == 403


def test_killed_server_answers_424_to_the_lab(site: Site) -> None:
    """API calls to a server that is gone get the 424 that the Lab understands."""
    (server,) = site.servers()
    server.kill()
    wait_for(lambda: site.server("admin").get("stopped"), what="the end")

    status, answer = site.ask("GET", "/user/admin/api/status")

    assert status == 424
    assert "no longer running" in answer["message"]
