"""Signing in and out as a browser sees it (wire §4.2 to §4.4, §4.6)."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from perijove.db.tables import sessions, signin_links
from perijove.domain.errors import HubError
from perijove.services.hub import Hub
from perijove.services.signin import make_signin_link, set_password
from perijove.web.problems import status_of
from perijove.web.signin_flow import (
    LoginDone,
    LoginOutcome,
    apply_login,
    apply_logout,
    begin_login,
    finish_login,
    logout,
)
from tests.doors import SetClock, count, make_user, signin_hub

pytestmark = pytest.mark.anyio

RIGHT = "correct horse battery"
NAVIGATES = {"sec-fetch-mode": "navigate", "sec-fetch-site": "none"}


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Give the URL of an empty database."""
    return f"sqlite:///{tmp_path / 'hub.sqlite'}"


def plain_pages(hub: Hub) -> Starlette:
    """Return the flow with pages that only say what they would show."""

    async def login(request: Request) -> Response:
        outcome = await (begin_login if request.method == "GET" else finish_login)(hub, request)
        response = _shown(outcome)
        apply_login(hub, request, response, outcome)
        return response

    async def leave(request: Request) -> Response:
        response = RedirectResponse(await logout(hub, request), 302)
        apply_logout(hub, response)
        return response

    def _shown(outcome: LoginOutcome) -> Response:
        if isinstance(outcome, LoginDone):
            return RedirectResponse(outcome.location, 302)
        shown = {
            "action": outcome.action,
            "xsrf": outcome.token.value,
            "error": outcome.error.code if outcome.error else None,
            "username": outcome.username,
            "link": outcome.link,
        }
        return JSONResponse(shown, outcome.status)

    async def refuse(_: Request, error: Exception) -> Response:
        return JSONResponse({"message": str(error)}, status_of(error))

    prefix = hub.hub_prefix
    return Starlette(
        routes=[
            Route(f"{prefix}login", login, methods=["GET", "POST"]),
            Route(f"{prefix}logout", leave, methods=["GET", "POST"]),
        ],
        exception_handlers={HubError: refuse},
    )


@asynccontextmanager
async def browser(
    hub: Hub, *, scheme: str = "http", address: str = "192.0.2.7"
) -> AsyncIterator[httpx2.AsyncClient]:
    """Open a browser at the hub."""
    transport = httpx2.ASGITransport(app=plain_pages(hub), client=(address, 1))
    async with httpx2.AsyncClient(
        transport=transport, base_url=f"{scheme}://hub.example.org", headers=NAVIGATES
    ) as client:
        yield client


@asynccontextmanager
async def at_ann(url: str, **given: Any) -> AsyncIterator[tuple[Hub, httpx2.AsyncClient]]:
    """Open a hub that knows ann, and a browser."""
    async with signin_hub(url, **given) as hub:
        await make_user(hub, "ann")
        await set_password(hub, "ann", RIGHT, actor="admin")
        async with browser(hub) as client:
            yield hub, client


async def submit(client: httpx2.AsyncClient, query: str = "", **fields: str) -> httpx2.Response:
    """Get the form and send it."""
    form = (await client.get(f"/hub/login{query}")).json()
    sent = {"_xsrf": form["xsrf"], "username": "ann", "password": RIGHT, **fields}
    return await client.post(form["action"], data=sent)


def cookies_of(response: httpx2.Response) -> Mapping[str, Any]:
    """Return the cookies that a response sets."""
    found: SimpleCookie = SimpleCookie()
    for line in response.headers.get_list("set-cookie"):
        found.load(line)
    return found


async def test_form_gives_an_anonymous_token(url: str) -> None:
    """The token of the form is the cookie, good for an hour."""
    async with at_ann(url) as (_, client):
        response = await client.get("/hub/login")
        cookies = cookies_of(response)
        assert set(cookies) == {"_xsrf"}
        assert cookies["_xsrf"].value == response.json()["xsrf"]
        assert cookies["_xsrf"]["max-age"] == "3600"
        assert response.headers["cache-control"] == "no-store"


async def test_success_sets_exactly_three_cookies(url: str) -> None:
    """Their names, paths and attributes are the wire's."""
    async with at_ann(url, settings={"base_path": "/"}) as (_, client):
        response = await submit(client)
        assert (response.status_code, response.headers["location"]) == (302, "/hub/")
        cookies = cookies_of(response)
        assert set(cookies) == {"jupyterhub-hub-login", "jupyterhub-session-id", "_xsrf"}
        assert set(client.cookies) == set(cookies)
        login, session_id, xsrf = (
            cookies[name] for name in ("jupyterhub-hub-login", "jupyterhub-session-id", "_xsrf")
        )
        assert [each["path"] for each in (login, session_id, xsrf)] == ["/hub/", "/", "/hub/"]
        assert [bool(each["httponly"]) for each in (login, session_id, xsrf)] == [True, True, False]
        assert [each["max-age"] for each in (login, session_id, xsrf)] == ["1209600", "", ""]
        assert {each["samesite"] for each in (login, session_id, xsrf)} == {"lax"}
        assert not any(each["secure"] for each in (login, session_id, xsrf))
        assert len(session_id.value) == 32


async def test_cookies_are_secure_on_https(url: str) -> None:
    """All three, and so is the anonymous token."""
    async with at_ann(url) as (hub, _), browser(hub, scheme="https") as client:
        form = cookies_of(await client.get("/hub/login"))
        done = cookies_of(await submit(client))
        assert all(each["secure"] for each in (*form.values(), *done.values()))


async def test_cookies_are_secure_where_the_public_url_is_https(url: str) -> None:
    """Also when the last proxy on the way speaks plain http."""
    settings = {"url": "https://hub.example.org/"}
    async with at_ann(url, settings=settings) as (_, client):
        cookies = cookies_of(await client.get("/hub/login"))
        assert all(each["secure"] for each in cookies.values())


@pytest.mark.parametrize("where", ["query", "form", "header"])
async def test_script_signs_in_with_the_token_in_any_place(url: str, where: str) -> None:
    """As scripts do: get the page, take the cookie, post."""
    async with at_ann(url) as (_, client):
        await client.get("/hub/login")
        token = client.cookies["_xsrf"]
        fields = {"username": "ann", "password": RIGHT}
        response = await client.post(
            f"/hub/login?_xsrf={token}" if where == "query" else "/hub/login",
            data={**fields, "_xsrf": token} if where == "form" else fields,
            headers={"X-XSRFToken": token} if where == "header" else {},
        )
        assert response.status_code == 302


@pytest.mark.parametrize("token", ["", "wrong"])
async def test_form_without_a_good_token_is_shown_again(url: str, token: str) -> None:
    """It says so, keeps the name, and looks at no password."""
    async with at_ann(url) as (hub, client):
        response = await submit(client, _xsrf=token)
        assert response.status_code == 403
        assert response.json()["error"] == "signin-expired"
        assert response.json()["username"] == "ann"
        assert await count(hub, sessions) == 0


async def test_wrong_password_shows_the_form_again(url: str) -> None:
    """403, the name kept, the same token good for the next try."""
    async with at_ann(url) as (_, client):
        response = await submit(client, password="wrong")
        assert response.status_code == 403
        assert response.json()["error"] == "signin"
        sent = {"_xsrf": response.json()["xsrf"], "username": "ann", "password": RIGHT}
        assert (await client.post("/hub/login", data=sent)).status_code == 302


async def test_endless_name_is_shown_shortened(url: str) -> None:
    """Sixteen characters and how many there were."""
    async with at_ann(url) as (_, client):
        response = await submit(client, username="x" * 33, password="wrong")
        assert response.json()["username"] == "x" * 16 + "… (33)"
        response = await submit(client, username="x" * 32, password="wrong")
        assert response.json()["username"] == "x" * 32


async def test_too_many_failures_answer_429_with_the_seconds(url: str) -> None:
    """Scripts and people learn when to come back."""
    async with at_ann(url, clock=SetClock()) as (_, client):
        for _ in range(6):
            await submit(client, password="wrong")
        response = await submit(client)
        assert response.status_code == 429
        assert response.json()["error"] == "signin-throttled"
        assert response.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("query", "location"),
    [
        ("", "/hub/"),
        ("?next=%2Fuser%2Fann%2Flab%3Fa%3D1", "/user/ann/lab?a=1"),
        ("?next=https%3A%2F%2Fhub.example.org%2Fx", "/x"),
        ("?next=https%3A%2F%2Fevil.org%2Fx", "/hub/"),
        ("?next=%2F%2Fevil.org", "/hub/"),
        ("?next=%2Fx&profile=small", "/x"),
        ("?profile=small&cpu=2", "/hub/?profile=small&cpu=2"),
        ("?next=//evil.org&profile=small&_xsrf=x", "/hub/?profile=small"),
    ],
)
async def test_where_signing_in_leads(url: str, query: str, location: str) -> None:
    """To `next` if it may, else to the front door with the rest of the query."""
    async with at_ann(url) as (_, client):
        assert (await submit(client, query)).headers["location"] == location
        again = await client.get(f"/hub/login{query}")
        assert (again.status_code, again.headers["location"]) == (302, location)


async def test_signing_in_as_somebody_else_ends_the_session_before(url: str) -> None:
    """One browser is one person: the cookie is replaced and the old one worth nothing."""
    async with at_ann(url) as (hub, client):
        await make_user(hub, "bob")
        await set_password(hub, "bob", RIGHT, actor="admin")
        await submit(client)
        before = client.cookies["jupyterhub-hub-login"]
        token = client.cookies["_xsrf"]
        sent = {"_xsrf": token, "username": "bob", "password": RIGHT}
        assert (await client.post("/hub/login", data=sent)).status_code == 302
        assert client.cookies["jupyterhub-hub-login"] != before
        assert await count(hub, sessions) == 1


async def test_session_id_of_before_is_not_kept(url: str) -> None:
    """A session id that somebody planted does not become a session's."""
    async with at_ann(url) as (_, client):
        client.cookies.set("jupyterhub-session-id", "f" * 32, domain="hub.example.org", path="/")
        response = await submit(client)
        assert cookies_of(response)["jupyterhub-session-id"].value != "f" * 32


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"x" * 300_000, "application/x-www-form-urlencoded", 413),
        (b"&a=1" * 600, "application/x-www-form-urlencoded", 400),
        (b"username=%ff%00&password=\xff\xfe", "application/x-www-form-urlencoded", 403),
        (b"garbage", "multipart/form-data; boundary=x", 400),
        (b"", "multipart/form-data", 400),
        (
            b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--",
            "multipart/form-data; boundary=x",
            400,
        ),
        (b"{}", "application/json", 403),
        (b"", "", 403),
    ],
)
async def test_bad_form_is_a_clear_refusal(
    url: str, body: bytes, content_type: str, status: int
) -> None:
    """Whatever is sent, it is never the server's error."""
    async with at_ann(url) as (hub, client):
        headers = {"content-type": content_type} if content_type else {}
        response = await client.post("/hub/login", content=body, headers=headers)
        assert response.status_code == status
        assert await count(hub, sessions) == 0


# --- links ------------------------------------------------------------------------------------


async def test_link_signs_in_by_being_opened(url: str) -> None:
    """As an address that a terminal prints: typed, pasted, or given to curl."""
    async with at_ann(url) as (hub, client):
        response = await client.get(await make_signin_link(hub, "ann"))
        assert (response.status_code, response.headers["location"]) == (302, "/hub/")
        assert "jupyterhub-hub-login" in cookies_of(response)
        assert response.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-origin"},
        {"sec-purpose": "prefetch"},
        {"sec-fetch-mode": "no-cors"},
    ],
)
async def test_link_that_another_page_opened_asks_first(url: str, headers: dict[str, str]) -> None:
    """Nothing is used up and nobody signed in until the person says so."""
    async with at_ann(url) as (hub, client):
        path = await make_signin_link(hub, "ann")
        asked = await client.get(path, headers=headers)
        assert asked.status_code == 200
        assert asked.json()["link"]
        assert await count(hub, sessions) == 0
        assert await count(hub, signin_links) == 1
        page = (await client.get(path, headers={"sec-fetch-site": "cross-site"})).json()
        done = await client.post(page["action"], data={"_xsrf": page["xsrf"]})
        assert (done.status_code, done.headers["location"]) == (302, "/hub/")


async def test_button_of_a_link_needs_the_token(url: str) -> None:
    """Another site cannot press it."""
    async with at_ann(url) as (hub, client):
        path = await make_signin_link(hub, "ann")
        refused = await client.post(path)
        assert refused.json()["error"] == "signin-expired"
        assert await count(hub, signin_links) == 1


async def test_used_link_says_so_or_goes_on(url: str) -> None:
    """Who is signed in goes on, as after a reload; anybody else sees the form and why."""
    async with at_ann(url) as (hub, client):
        path = await make_signin_link(hub, "ann")
        await client.get(path)
        assert (await client.get(path)).headers["location"] == "/hub/"
        async with browser(hub) as stranger:
            response = await stranger.get(path)
            assert (response.status_code, response.json()["error"]) == (403, "link-used")
            assert "link=" not in response.json()["action"]


# --- out --------------------------------------------------------------------------------------


async def test_logout_clears_the_cookies_and_ends_the_session(url: str) -> None:
    """All of them go, with the paths they were set for."""
    async with at_ann(url) as (hub, client):
        await submit(client)
        response = await client.get("/hub/logout")
        assert (response.status_code, response.headers["location"]) == (302, "/hub/login")
        cookies = cookies_of(response)
        assert set(cookies) == {
            "jupyterhub-hub-login",
            "jupyterhub-session-id",
            "_xsrf",
            "jupyterhub-services",
        }
        assert {each["max-age"] for each in cookies.values()} == {"0"}
        assert not client.cookies
        assert await count(hub, sessions) == 0


@pytest.mark.parametrize("mode", ["no-cors", "cors", "same-origin", "websocket"])
async def test_logout_by_an_image_or_a_script_has_no_effect(url: str, mode: str) -> None:
    """Only a person who goes there signs out."""
    async with at_ann(url) as (hub, client):
        await submit(client)
        response = await client.get("/hub/logout", headers={"sec-fetch-mode": mode})
        assert response.status_code == 403
        assert "set-cookie" not in response.headers
        assert await count(hub, sessions) == 1


async def test_logout_by_post_needs_the_token(url: str) -> None:
    """A form of ours has it."""
    async with at_ann(url) as (hub, client):
        await submit(client)
        assert (await client.post("/hub/logout")).status_code == 403
        assert await count(hub, sessions) == 1
        sent = {"_xsrf": client.cookies["_xsrf"]}
        assert (await client.post("/hub/logout", data=sent)).status_code == 302
        assert await count(hub, sessions) == 0


async def test_logout_of_nobody_goes_to_the_form(url: str) -> None:
    """There is nothing to end, and that is no error."""
    async with at_ann(url) as (_, client):
        response = await client.get("/hub/logout")
        assert (response.status_code, response.headers["location"]) == (302, "/hub/login")


async def test_form_keeps_next_through_a_failure(url: str) -> None:
    """The action of the form leads where the person wanted to go."""
    async with at_ann(url) as (_, client):
        failed = (await submit(client, "?next=/user/ann/lab%3Fa%3D1", password="no")).json()
        query = parse_qs(urlsplit(failed["action"]).query)
        assert query == {"next": ["/user/ann/lab?a=1"]}
