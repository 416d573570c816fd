"""XSRF: the matrix of wire §4.7, and tokens that are worth something in one browser only."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from perijove.domain.errors import Forbidden
from perijove.kit.keyring import Keyring
from perijove.services.hub import Hub
from perijove.services.sections import HubSection, LifecycleSection
from perijove.services.sessions import Session
from perijove.web import xsrf
from perijove.web.xsrf import Kind, check_token, give_token, is_navigation, needs_token, token_for
from tests.doors import NOON, SetClock

pytestmark = pytest.mark.anyio

MODES = (None, "navigate", "cors", "same-origin", "no-cors", "websocket")
SITES = (None, "none", "same-origin", "same-site", "cross-site")
METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")


def headers(mode: str | None, site: str | None, *, origin: bool = False) -> Headers:
    """Return the headers that a browser sends by itself."""
    given = {"sec-fetch-mode": mode, "sec-fetch-site": site, "origin": "x" if origin else None}
    return Headers({name: value for name, value in given.items() if value is not None})


@pytest.mark.parametrize("is_identified", [True, False])
@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", METHODS)
def test_pages(method: str, mode: str | None, site: str | None, *, is_identified: bool) -> None:
    """Pages: reading is free, everything else is checked unless it opens a WebSocket."""
    found = needs_token(method, headers(mode, site), kind="page", is_identified=is_identified)
    assert found == (method not in ("GET", "HEAD", "OPTIONS") and mode != "websocket")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
def test_api_head_and_options_are_free(method: str, mode: str | None, site: str | None) -> None:
    """They return nothing and change nothing."""
    given = headers(mode, site, origin=True)
    assert not needs_token(method, given, kind="api", is_identified=True)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_api_changes_are_checked(method: str, mode: str | None, site: str | None) -> None:
    """Nothing a browser says of itself excuses a request that changes something."""
    assert needs_token(method, headers(mode, site), kind="api", is_identified=True)


@pytest.mark.parametrize(
    ("mode", "site", "checked"),
    [
        (None, None, False),
        (None, "cross-site", False),
        ("navigate", "none", False),
        ("navigate", "cross-site", False),
        ("no-cors", "same-origin", False),
        ("no-cors", "same-site", True),
        ("no-cors", "cross-site", True),
        ("no-cors", None, True),
        ("cors", "same-origin", True),
        ("cors", "cross-site", True),
        ("same-origin", "same-origin", True),
        ("websocket", "same-origin", True),
    ],
)
def test_api_reading(mode: str | None, site: str | None, *, checked: bool) -> None:
    """The address bar and an image of our own are free, a script has to show the token."""
    found = needs_token("GET", headers(mode, site), kind="api", is_identified=True)
    assert found == checked


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mode", MODES)
def test_api_anonymous_without_origin_is_not_checked(method: str, mode: str | None) -> None:
    """Who is nobody and comes from no page is told that credentials are missing."""
    given = headers(mode, "same-origin")
    assert not needs_token(method, given, kind="api", is_identified=False)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mode", MODES)
def test_api_anonymous_with_origin_is_checked_as_if_known(method: str, mode: str | None) -> None:
    """From a page of another site the answer does not tell whether somebody is signed in."""
    given = headers(mode, "cross-site", origin=True)
    known = needs_token(method, given, kind="api", is_identified=True)
    assert needs_token(method, given, kind="api", is_identified=False) == known


@pytest.mark.parametrize(
    ("given", "navigates"),
    [
        ({}, True),
        ({"sec-fetch-mode": "navigate"}, True),
        ({"sec-fetch-mode": "cors"}, False),
        ({"sec-fetch-mode": "no-cors"}, False),
        ({"sec-fetch-mode": "navigate", "sec-purpose": "prefetch"}, False),
        ({"sec-fetch-mode": "navigate", "sec-purpose": "prefetch;prerender"}, False),
        ({"purpose": "prefetch"}, False),
    ],
)
def test_navigation(given: dict[str, Any], *, navigates: bool) -> None:
    """A person goes there; a script, an image and a browser that looks ahead do not."""
    assert is_navigation(request(**given)) == navigates


# --- tokens -----------------------------------------------------------------------------------


def hub(keys: dict[str, bytes] | None = None) -> Hub:
    """Return a hub that has no more than a keyring: tokens are stored nowhere."""
    nothing: Any = None
    return Hub(
        database=nothing,
        clock=SetClock(),
        keyring=Keyring(keys or {"k": b"k" * 32}),
        installation="test",
        settings=HubSection(base_path="/jupyter/"),
        lifecycle=LifecycleSection(),
        api_url="",
    )


def request(
    method: str = "GET",
    *,
    query: str = "",
    body: bytes = b"",
    address: str = "192.0.2.7",
    cookies: tuple[str, ...] = (),
    **given: str,
) -> Request:
    """Return a request."""
    lines = {name.replace("_", "-"): value for name, value in given.items()}
    if cookies:
        lines["cookie"] = "; ".join(f"_xsrf={value}" for value in cookies)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return Request(
        {
            "type": "http",
            "method": method,
            "scheme": "http",
            "path": "/jupyter/hub/home",
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in lines.items()],
            "client": (address, 1),
            "server": ("hub.example.org", 80),
            "state": {},
        },
        receive,
    )


def session(session_id: str = "0" * 32) -> Session:
    """Return a session of ann's."""
    return Session(
        id=1,
        session_id=session_id,
        user_id=1,
        user_name="ann",
        created_at=NOON,
        last_seen_at=NOON,
        expires_at=NOON,
        authenticator="native",
        device="",
        address="",
    )


def token(of: Session | None = None, **given: Any) -> str:
    """Return the token that a browser is given."""
    return token_for(hub(), request(**given), of).value


async def passes(
    req: Request, of: Session | None = None, *, kind: Kind = "page", at: Hub | None = None
) -> bool:
    """Tell whether a request is let through."""
    try:
        await check_token(at or hub(), req, of, kind=kind)
    except Forbidden:
        return False
    return True


FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        ("page", {"query": "_xsrf={}"}),
        ("page", {"body": "a=1&_xsrf={}", "content_type": FORM}),
        ("page", {"x_xsrftoken": "{}"}),
        ("page", {"x_csrftoken": "{}"}),
        ("api", {"query": "_xsrf={}"}),
        ("api", {"x_xsrftoken": "{}"}),
        ("api", {"x_csrftoken": "{}"}),
    ],
)
async def test_token_may_be_shown_in_each_place(kind: Kind, sent: dict[str, str]) -> None:
    """Query, form (on pages), and two headers."""
    value = token(session())
    given: dict[str, Any] = {name: text.format(value) for name, text in sent.items()}
    if "body" in given:
        given["body"] = given["body"].encode()
    assert await passes(request("POST", cookies=(value,), **given), session(), kind=kind)


async def test_body_of_an_api_request_is_not_read_for_a_token() -> None:
    """It belongs to the endpoint, whatever its type claims."""
    value = token(session())
    sent = request("PUT", body=f"_xsrf={value}".encode(), cookies=(value,), content_type=FORM)
    assert not await passes(sent, session(), kind="api")
    assert await sent.body() == f"_xsrf={value}".encode()


async def test_missing_and_wrong_tokens_have_the_wires_texts() -> None:
    """Clients look for these sentences."""
    value, other = token(session()), token(session("1" * 32))
    with pytest.raises(Forbidden, match=r"^'_xsrf' argument missing from PUT$"):
        await check_token(hub(), request("PUT", cookies=(value,)), session(), kind="api")
    wrong = request("GET", query=f"_xsrf={other}", cookies=(value,))
    with pytest.raises(Forbidden, match=r"^XSRF cookie does not match GET argument$"):
        await check_token(hub(), wrong, session(), kind="api")


async def test_token_without_its_cookie_is_refused() -> None:
    """A page of another site may know a token; the cookie it cannot send."""
    value = token(session())
    assert not await passes(request("POST", query=f"_xsrf={value}"), session())


async def test_token_of_another_session_is_refused_although_cookie_and_field_agree() -> None:
    """Who plants a cookie of their own in somebody's browser gains nothing."""
    mine = token(session("1" * 32))
    planted = request("POST", query=f"_xsrf={mine}", cookies=(mine,))
    assert not await passes(planted, session("2" * 32))


@pytest.mark.parametrize(
    "elsewhere", [{"address": "198.51.100.9"}, {"user_agent": "Other"}, {"of": session()}]
)
async def test_anonymous_token_is_bound_to_address_and_browser(elsewhere: dict[str, Any]) -> None:
    """A token from one's own sign-in page does not work in another person's."""
    value = token(user_agent="Mine")
    given = {"user_agent": "Mine", **elsewhere}
    of = given.pop("of", None)
    sent = request("POST", query=f"_xsrf={value}", cookies=(value,), **given)
    assert not await passes(sent, of)
    same = request("POST", query=f"_xsrf={value}", cookies=(value,), user_agent="Mine")
    assert await passes(same)


async def test_first_cookie_that_verifies_counts() -> None:
    """Cookies of the same name from other paths do not get in the way, wherever they stand."""
    value, foreign = token(session()), "2|abc|def"
    for cookies in ((foreign, value), (value, foreign), (foreign, token(), value)):
        sent = request("POST", query=f"_xsrf={value}", cookies=cookies)
        assert await passes(sent, session())


async def test_every_key_checks_and_the_newest_signs() -> None:
    """After an exchange of keys open pages go on working."""
    old, both = hub({"old": b"o" * 32}), hub({"old": b"o" * 32, "new": b"n" * 32})
    before = token_for(old, request(), session()).value
    sent = request("POST", query=f"_xsrf={before}", cookies=(before,))
    assert await passes(sent, session(), at=both)
    fresh = token_for(both, request(), session()).value
    sent = request("POST", query=f"_xsrf={fresh}", cookies=(fresh,))
    assert not await passes(sent, session(), at=old)


@given(value=st.text(max_size=60))
def test_no_text_is_a_token_by_chance(value: str) -> None:
    """Whatever stands in the cookie, it is looked at without an error and refused."""
    keyring = Keyring({"k": b"k" * 32})
    assert not xsrf._is_good(keyring, value, "session:x")


def test_good_cookie_is_kept() -> None:
    """Pages open at the same time share one token."""
    value = token(session())
    again = token_for(hub(), request(cookies=(value,)), session())
    assert (again.value, again.is_new) == (value, False)


def test_token_is_new_on_a_navigation_only() -> None:
    """A script that fetches a page gets no token with it."""
    found = token_for(hub(), request(sec_fetch_mode="cors"), session())
    assert (found.value, found.is_new) == ("", False)
    assert token_for(hub(), request(sec_fetch_mode="navigate"), session()).is_new


def test_cookie_of_the_anonymous_lasts_an_hour_and_is_readable() -> None:
    """Scripts of our pages read it, so it is not HttpOnly; the path is the hub's."""
    response = Response()
    at, req = hub(), request()
    give_token(at, req, response, token_for(at, req, None))
    cookie = response.headers["set-cookie"]
    assert "Max-Age=3600" in cookie
    assert "Path=/jupyter/hub/" in cookie
    assert "HttpOnly" not in cookie


def test_cookie_of_a_session_ends_with_the_browser() -> None:
    """It is not sent again while the browser has it."""
    response, at, req = Response(), hub(), request()
    found = token_for(at, req, session())
    give_token(at, req, response, found)
    assert "Max-Age" not in response.headers["set-cookie"]
    response = Response()
    give_token(
        at,
        request(cookies=(found.value,)),
        response,
        token_for(at, request(cookies=(found.value,)), session()),
    )
    assert "set-cookie" not in response.headers
