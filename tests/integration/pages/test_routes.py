"""The pages over HTTP: who may see what, where one is sent, what a form changes."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio.to_thread
import httpx2
import pytest

from perijove.db.core import bound
from perijove.domain.launch import Cause, Status
from perijove.services.overview import find_shown, get_owner
from perijove.web.access_log import AccessLog
from perijove.web.app import create_app
from tests.e2e.scenes import POLICIES, PROFILES, cookie_of
from tests.fakes.spawners import MemoryPlatform
from tests.hubs import TestHub, answering_server, running_hub

pytestmark = pytest.mark.anyio

BROWSER = {"sec-fetch-mode": "navigate", "accept": "text/html"}


@dataclass(slots=True)
class Visit:
    """A browser at a hub, signed in or not."""

    hub: TestHub
    client: httpx2.AsyncClient
    prefix: str

    async def sign_in(self, name: str = "ann", *, admin: bool = False) -> None:
        """Become a user."""
        await self.hub.user(name, admin=admin)
        self.client.cookies.clear()
        cookie = await cookie_of(self.hub.hub, name)
        self.client.cookies.set("jupyterhub-hub-login", cookie)

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        """Go to a page below the hub's prefix."""
        return await self.client.get(self.prefix + path, headers={**BROWSER, **headers})

    async def post(self, path: str, fields: Mapping[str, str] | None = None) -> httpx2.Response:
        """Send a form of one of our pages."""
        page = await self.get("new")
        token = page.text.split('name="_xsrf" value="')[1].split('"')[0]
        form = {"_xsrf": token, **(fields or {})}
        return await self.client.post(self.prefix + path, data=form, headers=BROWSER)


@asynccontextmanager
async def visiting(directory: Path, **given_: Any) -> AsyncIterator[Visit]:
    """Open a hub whose servers become ready, and a browser at it."""
    async with (
        answering_server() as server,
        running_hub(
            f"sqlite:///{directory / 'hub.sqlite'}",
            directory,
            platform=MemoryPlatform(url=server.url),
            profile_sections=given_.pop("profiles", None),
            **given_,
        ) as hub,
    ):
        log = AccessLog(hub.hub.clock, as_json=True, stream=BytesIO())

        def build() -> Any:
            return create_app(hub.hub, access_log=log)

        transport = httpx2.ASGITransport(app=await anyio.to_thread.run_sync(build))
        async with httpx2.AsyncClient(transport=transport, base_url="http://hub.test") as client:
            yield Visit(hub=hub, client=client, prefix=hub.hub.hub_prefix)


@pytest.fixture
async def visit(tmp_path: Path) -> AsyncIterator[Visit]:
    """Give a browser at a hub with the built-in profile, signed in as ann."""
    async with visiting(tmp_path) as at:
        await at.sign_in()
        yield at


def location(response: httpx2.Response) -> str:
    """Return where a response leads."""
    assert response.status_code in (301, 302, 303), (response.status_code, response.text[:300])
    return response.headers["location"]


OPEN_TO_ALL = ["login", "error/503", "logo", "static/perijove.css", "static/perijove.js"]
FOR_PEOPLE = [
    "", "home", "new", "spawn", "spawn/ann", "spawn-pending/ann", "token", "password", "admin",
    "user/ann/lab", "user-redirect/lab", "server/stop/ann",
]  # fmt: skip


@pytest.mark.parametrize("path", FOR_PEOPLE)
async def test_a_stranger_is_sent_to_sign_in_and_back(tmp_path: Path, path: str) -> None:
    """Every page of one's own asks who one is first, and remembers where one wanted to go."""
    async with visiting(tmp_path) as at:
        target = location(await at.get(path))
        assert target.startswith("/hub/login?next=")
        assert parse_qs(urlsplit(target).query)["next"] == [f"/hub/{path}"]


@pytest.mark.parametrize("path", OPEN_TO_ALL)
async def test_a_stranger_sees_what_is_for_everyone(tmp_path: Path, path: str) -> None:
    """Signing in, errors and what pages are made of need no account."""
    async with visiting(tmp_path) as at:
        assert (await at.get(path)).status_code == 200


@pytest.mark.parametrize(
    "path", ["spawn/ann", "new", "token", "server/stop/ann", "password", "token/sessions"]
)
async def test_a_form_of_another_site_changes_nothing(visit: Visit, path: str) -> None:
    """Without the token of our own page a form is refused, whoever is signed in."""
    response = await visit.client.post(f"/hub/{path}", data={"profile": "default"}, headers=BROWSER)
    assert response.status_code == 403
    assert await visit.hub.live() == []


async def test_a_server_goes_from_the_form_to_its_address(visit: Visit) -> None:
    """Choose, wait, and be led to the server; the card shows it; stop it and it ends."""
    assert 'id="spawn_form"' in (await visit.get("spawn")).text
    waiting = location(await visit.post("spawn/ann", {"profile": "default"}))
    assert waiting == "/hub/spawn-pending/ann"
    launch = (await visit.hub.live())[0]
    await visit.hub.becomes(launch, Status.READY)
    assert location(await visit.get("spawn-pending/ann")) == "/user/ann/"
    assert location(await visit.get("spawn")) == "/user/ann/"
    assert "Running" in (await visit.get("home")).text
    assert location(await visit.post("server/stop/ann")) == "/hub/home"
    ended = await visit.hub.becomes(launch, Status.ENDED)
    assert ended.end is not None
    assert ended.end.cause is Cause.USER
    assert "You stopped it." in (await visit.get("spawn-pending/ann")).text


async def test_a_refusal_stands_beside_its_field_and_keeps_the_input(tmp_path: Path) -> None:
    """What was typed stays in the form, with the limit that it broke."""
    async with visiting(tmp_path, profiles=_on_memory(), policies=POLICIES) as at:
        await at.sign_in()
        form = {"profile": "interactive", "interactive.cpu": "99", "interactive.memory": "oops"}
        response = await at.post("spawn/ann", form)
        assert response.status_code == 400
        assert "this profile has at most 16 cores" in response.text
        assert 'value="99"' in response.text
        assert 'value="oops"' in response.text
        assert "This is not a number: oops" in response.text
        assert await at.hub.live() == []


async def test_a_policys_refusal_names_its_rule(tmp_path: Path) -> None:
    """A profile that one may not have is shown with the reason, and refused if asked for."""
    async with visiting(tmp_path, profiles=_on_memory(), policies=POLICIES) as at:
        await at.sign_in()
        page = (await at.get("spawn")).text
        assert "This profile needs 128 cores; you may have 64 cores here (rule: everyone)" in page
        response = await at.post("spawn/ann", {"profile": "huge"})
        assert response.status_code == 403


async def test_options_in_the_address_start_at_once(tmp_path: Path) -> None:
    """A link with options starts a server with them (wire §4.5)."""
    async with visiting(tmp_path, profiles=_on_memory()) as at:
        await at.sign_in()
        target = location(await at.get("spawn?opt-profile=interactive&opt-cpu=3&next=%2Flab"))
        assert target == "/hub/spawn-pending/ann?next=%2Flab"
        assert (await at.hub.live())[0].spec["resources"]["cpu"] == 3


async def test_the_link_of_the_form_shows_the_form(tmp_path: Path) -> None:
    """The link to a choice fills the form in and starts nothing."""
    async with visiting(tmp_path, profiles=_on_memory()) as at:
        await at.sign_in()
        page = (await at.get("spawn?form=1&opt-profile=interactive&opt-cpu=3")).text
        assert 'value="interactive" checked' in page
        assert 'value="3"' in page
        assert await at.hub.live() == []


async def test_an_empty_option_name_is_refused(visit: Visit) -> None:
    """A prefix without a name is a mistake, not an option (wire §4.5)."""
    assert (await visit.get("spawn?opt-=1")).status_code == 422


async def test_anothers_server_is_not_there(visit: Visit) -> None:
    """Whether a colleague exists is not told to who may not know."""
    await visit.hub.user("bob")
    for user in ("bob", "nobody"):
        for path in ("spawn/{}", "spawn-pending/{}", "server/stop/{}", "user/{}/lab"):
            assert (await visit.get(path.format(user))).status_code == 404


async def test_an_administrator_may_start_and_stop_for_others(visit: Visit) -> None:
    """What an administrator does is done in the administrator's name."""
    await visit.hub.user("bob")
    await visit.sign_in("root", admin=True)
    assert location(await visit.post("spawn/bob", {"profile": "default"}))
    launch = (await visit.hub.live())[0]
    assert (launch.user_name, (await visit.hub.events(launch.id))[0].actor) == ("bob", "root")
    assert location(await visit.post("server/stop/bob", {"next": "/hub/admin"})) == "/hub/admin"
    ended = await visit.hub.becomes(launch, Status.ENDED)
    assert ended.end is not None
    assert ended.end.cause is Cause.ADMIN
    assert "bob" in (await visit.get("admin")).text


async def test_the_admin_page_is_for_administrators(visit: Visit) -> None:
    """Others are told that they may not, not that it does not exist."""
    assert (await visit.get("admin")).status_code == 403


async def test_a_new_server_gets_its_name_and_its_display_name(visit: Visit) -> None:
    """People name servers as they like; the address is made from it."""
    target = location(await visit.post("new", {"display_name": "  My  Project "}))
    path, _, query = target.partition("?")
    assert path.startswith("/hub/spawn/ann/my-project-")
    assert query == "display_name=My%20Project"
    location(await visit.post(f"{path.removeprefix('/hub/')}?{query}", {"profile": "default"}))
    owner = await visit.hub.hub.database.read(bound(get_owner, "ann"))
    key = path.rpartition("/")[2]
    shown = await visit.hub.hub.database.read(bound(find_shown, owner, key))
    assert shown is not None
    assert shown.display_name == "My Project"


@pytest.mark.parametrize("name", ["", " ", "a\u200bb", "x" * 300])
async def test_a_name_that_cannot_be_is_refused_beside_its_field(visit: Visit, name: str) -> None:
    """The limit is named where the name was typed."""
    response = await visit.post("new", {"display_name": name})
    assert response.status_code == 400
    assert 'id="display-name-error"' in response.text


async def test_deleting_a_server_takes_its_row_and_tells_about_the_data(visit: Visit) -> None:
    """The question says what happens to the files; the answer removes the server."""
    location(await visit.post("spawn/ann/old", {"profile": "default"}))
    launch = (await visit.hub.live())[0]
    await visit.hub.becomes(launch, Status.READY)
    assert "Your files are kept" in (await visit.get("server/delete/ann/old")).text
    location(await visit.post("server/delete/ann/old"))
    await visit.hub.becomes(launch, Status.ENDED)
    assert (await visit.get("spawn-pending/ann/old")).status_code == 404


async def test_the_default_server_stays(visit: Visit) -> None:
    """What every account has cannot be deleted."""
    assert (await visit.post("server/delete/ann")).status_code == 400


async def test_nothing_is_started_by_visiting_a_stopped_server(visit: Visit) -> None:
    """A page says that it does not run and offers to start it; programs get JSON (wire §1.9)."""
    page = await visit.get("user/ann/lab/tree/x.ipynb?a=b")
    assert page.status_code == 424
    assert "/hub/spawn/ann?next=%2Fuser%2Fann%2Flab%2Ftree%2Fx.ipynb%3Fa%3Db" in page.text
    for answer in (
        await visit.get("user/ann/api/status"),
        await visit.get("user/ann/lab", accept="application/json"),
        await visit.post("user/ann/lab"),
    ):
        assert answer.status_code == 424
        assert answer.json()["message"].startswith("JupyterHub server no longer running at /user/")
        assert answer.json()["message"].endswith(
            "Restart the server at http://hub.test/hub/spawn/ann"
        )
    assert await visit.hub.live() == []


async def test_a_ready_server_is_led_to_and_a_loop_ends(visit: Visit) -> None:
    """Who comes too early is sent back a few times, then told (wire §1.9)."""
    launch = await visit.hub.start()
    await visit.hub.becomes(launch, Status.READY)
    assert location(await visit.get("user/ann/lab?x=1")) == "/user/ann/lab?x=1&redirects=1"
    assert location(await visit.get("user/ann/lab?redirects=0")) == "/user/ann/lab?redirects=1"
    assert (await visit.get("user/ann/lab?redirects=4")).status_code == 500


async def test_a_server_on_its_way_is_waited_for(tmp_path: Path) -> None:
    """A page of a server that starts leads to the waiting page and back."""
    async with visiting(tmp_path, loops=False) as at:
        await at.sign_in()
        await at.hub.start()
        target = location(await at.get("user/ann/lab"))
        assert target == "/hub/spawn-pending/ann?next=%2Fuser%2Fann%2Flab"
        page = await at.get("spawn-pending/ann")
        assert page.status_code == 200
        assert "data-stream=" in page.text
        assert 'http-equiv="refresh"' in page.text


async def test_user_redirect_leads_to_ones_own_server(visit: Visit) -> None:
    """A link in a course leads everybody to the same place of their own server."""
    target = location(await visit.get("user-redirect/lab/tree/a b.ipynb?x=1"))
    assert target == "/hub/spawn/ann?next=%2Fuser%2Fann%2Flab%2Ftree%2Fa%2520b.ipynb%3Fx%3D1"


@pytest.mark.parametrize(
    ("after_login", "target"),
    [("form", "/hub/spawn"), ("running-server", "/hub/spawn"), ("default-server", "pending")],
)
async def test_people_land_where_the_site_says(
    tmp_path: Path, after_login: str, target: str
) -> None:
    """The front door follows `after_login`; a default server is started for whoever comes."""
    async with visiting(tmp_path, settings={"after_login": after_login}) as at:
        await at.sign_in()
        found = location(await at.get(""))
        assert found == ("/hub/spawn-pending/ann" if target == "pending" else target)
        assert len(await at.hub.live()) == (target == "pending")


async def test_the_running_server_is_where_one_lands(visit: Visit) -> None:
    """Who has a server goes there, with what the address said besides."""
    await visit.hub.start()
    assert location(await visit.get("?a=b")) == "/user/ann/?a=b"


async def test_a_token_is_made_shown_once_and_revoked(visit: Visit) -> None:
    """The value stands on one page and on no other."""
    made = await visit.post(
        "token", {"note": "night job", "expires_in": "3600", "grant": "servers"}
    )
    value = made.text.split('id="token-result"')[1].split("</code>")[0].rpartition(">")[2]
    assert len(value) == 32
    page = (await visit.get("token")).text
    assert "night job" in page
    assert value not in page
    token_id = page.split('data-token-id="')[1].split('"')[0]
    assert location(await visit.post("token/revoke", {"token": token_id})) == "/hub/token"
    assert "night job" not in (await visit.get("token")).text


async def test_a_token_page_refuses_what_is_not_on_it(visit: Visit) -> None:
    """Values that the form does not offer are no server error."""
    for fields in ({"grant": "god"}, {"expires_in": "soon"}, {"note": "x" * 2000}):
        assert (await visit.post("token", fields)).status_code == 400


async def test_other_sign_ins_can_be_ended(visit: Visit) -> None:
    """All but this one end; this one stays."""
    other = await cookie_of(visit.hub.hub, "ann")
    assert (await visit.get("token")).text.count("Firefox, Linux") >= 2
    location(await visit.post("token/sessions", {"others": "1"}))
    assert (await visit.get("home")).status_code == 200
    visit.client.cookies.clear()
    visit.client.cookies.set("jupyterhub-hub-login", other)
    assert location(await visit.get("home")).startswith("/hub/login")


async def test_signing_out_lists_what_runs_where_the_site_wishes_it(tmp_path: Path) -> None:
    """Servers are stopped only by the form that names them."""
    async with visiting(tmp_path, settings={"logout_stops_servers": True}) as at:
        await at.sign_in()
        launch = await at.hub.start()
        page = await at.get("logout")
        assert page.status_code == 200
        assert "Stop them and sign out" in page.text
        assert len(await at.hub.live()) == 1
        assert location(await at.post("logout", {"do": "stop"})) == "/hub/login"
        await at.hub.becomes(launch, Status.ENDED)


async def test_signing_out_leaves_servers_alone(visit: Visit) -> None:
    """Without that wish signing out is signing out."""
    await visit.hub.start()
    assert location(await visit.get("logout")) == "/hub/login"
    assert len(await visit.hub.live()) == 1


async def test_language_and_theme_are_remembered(visit: Visit) -> None:
    """A link of the footer sets a cookie and leads back, here and nowhere else."""
    target = location(await visit.get("preferences?lang=fr&theme=dark&next=%2Fhub%2Fhome"))
    assert target == "/hub/home"
    page = (await visit.get("home")).text
    assert '<html lang="fr" data-theme="dark">' in page
    assert "Se déconnecter" in page
    assert location(await visit.get("preferences?theme=auto&next=https://evil.test/")) == "/hub/"
    assert "data-theme" not in (await visit.get("home")).text


async def test_every_page_works_below_a_base_path(tmp_path: Path) -> None:
    """No address is written without the base path."""
    async with visiting(tmp_path, settings={"base_path": "/lab/jupyter/"}) as at:
        await at.sign_in("root", admin=True)
        for path in ("home", "spawn", "token", "admin", "new", "user/root/lab"):
            text = (await at.get(path)).text
            for attribute in ('href="/', 'action="/', 'src="/'):
                links = text.split(attribute)[1:]
                assert all(link.startswith("lab/jupyter/") for link in links), path
        assert location(await at.get("user-redirect/x")).startswith("/lab/jupyter/hub/spawn/root")


async def test_what_people_write_is_never_markup(visit: Visit) -> None:
    """A name with tags in it is shown as a name with tags in it."""
    response = await visit.post("new", {"display_name": "<script>alert(1)</script>" + "x" * 300})
    assert "<script>alert" not in response.text
    assert "&lt;script&gt;alert" in response.text


async def test_an_asset_is_kept_for_ever_under_its_own_name(visit: Visit) -> None:
    """The address of an asset changes with it, so browsers need not ask again."""
    page = (await visit.get("home")).text
    address = page.split('rel="stylesheet" href="')[1].split('"')[0]
    asset = await visit.client.get(address)
    assert "immutable" in asset.headers["cache-control"]
    assert asset.headers["content-encoding"] == "gzip"
    again = await visit.client.get(address, headers={"if-none-match": asset.headers["etag"]})
    assert again.status_code == 304
    assert (await visit.get("static/../app.py")).status_code == 404


async def test_an_error_page_is_json_for_programs(visit: Visit) -> None:
    """The proxy asks for the page of an error; a program gets the same as JSON."""
    page = await visit.get("error/503")
    assert page.status_code == 200
    assert "The server does not answer." in page.text
    answer = await visit.get("error/503", accept="application/json")
    assert answer.json()["status"] == 503


async def test_pages_are_small(visit: Visit) -> None:
    """A page is at most 30 kB, style and script together at most 60 kB compressed."""
    for path in ("home", "spawn", "token", "login", "password"):
        assert len((await visit.get(path)).content) <= 30_000
    sizes = [
        int((await visit.get(f"static/{name}")).headers["content-length"])
        for name in ("perijove.css", "perijove.js")
    ]
    assert sum(sizes) <= 60_000


FORMS = {
    "new": ["display_name"],
    "spawn/ann": ["profile", "interactive.cpu", "interactive.memory", "cpu", "ui", "x.y"],
    "token": ["note", "expires_in", "grant"],
    "token/revoke": ["token"],
    "token/sessions": ["session"],
    "password": ["old", "password", "again"],
    "server/stop/ann": ["next"],
}


async def test_no_input_of_a_form_is_a_server_error(tmp_path: Path) -> None:
    """Whatever is typed, the answer is a page that says what is wrong, and nothing is started."""
    async with visiting(tmp_path, profiles=_on_memory(), loops=False) as at:
        await at.sign_in()
        for path, fields in FORMS.items():
            for text in WEIRD:
                response = await at.post(path, dict.fromkeys(fields, text))
                assert response.status_code < 500, (path, text)
        assert await at.hub.live() == []


WEIRD = [
    "0", "-1", "1e999", "nan", "9" * 400, "\u202e\u200b", "\U0001f600" * 40, "../../etc",
    "%00", "a\tb", "{{7*7}}", "'; drop table users; --", "\x00",
]  # fmt: skip


def _on_memory() -> list[Any]:
    return [each.model_copy(update={"spawner": "memory"}) for each in PROFILES]
