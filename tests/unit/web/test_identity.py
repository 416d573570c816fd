"""Who makes a request: tokens, cookies, and what each counts for (wire §2.1, §4.7)."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert
from starlette.requests import Request

from perijove.db.core import bound
from perijove.db.tables import tokens
from perijove.domain.errors import Forbidden
from perijove.kit.ids import hash_secret
from perijove.services.hub import Hub
from perijove.services.sessions import Opened, find_session
from perijove.web import xsrf
from perijove.web.identity import bearer, find_signed_in, identify, require_xsrf, visitor_of
from perijove.web.xsrf import Kind
from tests.doors import NOON, SetClock, make_user, open_for, signin_hub

pytestmark = pytest.mark.anyio

TOKEN = "0123456789abcdef0123456789abcdef"
OTHER_SITE = {"sec-fetch-mode": "cors", "sec-fetch-site": "cross-site"}


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Give the URL of an empty database."""
    return f"sqlite:///{tmp_path / 'hub.sqlite'}"


def request(method: str = "GET", *, cookie: str = "", query: str = "", **headers: str) -> Request:
    """Return a request."""
    lines = {name.replace("_", "-"): value for name, value in headers.items()}
    if cookie:
        lines["cookie"] = cookie

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    return Request(
        {
            "type": "http",
            "method": method,
            "scheme": "http",
            "path": "/hub/x",
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in lines.items()],
            "client": ("192.0.2.7", 1),
            "server": ("hub.example.org", 80),
            "state": {},
        },
        receive,
    )


async def give_token(hub: Hub, name: str, value: str = TOKEN) -> None:
    """Give a user an API token."""
    user_id = await make_user(hub, name)
    row = insert(tokens).values(
        hash=hash_secret(value),
        scheme="random",
        user_id=user_id,
        scopes=["inherit"],
        created_at=hub.clock.now(),
    )
    await hub.database.write(lambda connection: connection.execute(row).rowcount)


async def who(hub: Hub, req: Request, *, kind: Kind = "api", **given: Any) -> str | None:
    """Return the name of who makes a request."""
    caller = await identify(hub, req, kind=kind, **given)
    return caller.name if caller else None


def login(opened: Opened) -> str:
    """Return the Cookie header of a browser that is signed in."""
    return f"jupyterhub-hub-login={opened.cookie}"


async def xsrf_of(hub: Hub, opened: Opened) -> str:
    """Return the XSRF token of a session."""
    session = await hub.database.read(bound(find_session, opened.cookie, hub.clock.now()))
    return xsrf.token_for(hub, request(), session).value


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("token X", "X"),
        ("Bearer X", "X"),
        ("TOKEN  X ", "X"),
        ("bearer X", "X"),
        ("Basic X", None),
        ("token", None),
        ("token ", None),
        ("token a b", None),
        ("X", None),
        ("", None),
    ],
)
def test_header(header: str, value: str | None) -> None:
    """Two schemes, whatever their case, and one word."""
    assert bearer(request(authorization=header).scope) == value


async def test_token_counts_on_the_api_without_any_check(url: str) -> None:
    """No other site can make a browser send it."""
    async with signin_hub(url) as hub:
        await give_token(hub, "ann")
        for method in ("GET", "POST", "DELETE"):
            sent = request(method, authorization=f"token {TOKEN}", origin="x", **OTHER_SITE)
            assert await who(hub, sent) == "ann"


async def test_token_counts_on_pages_only_where_they_say_so(url: str) -> None:
    """On a page a token is nothing, but for the few that serve programs."""
    async with signin_hub(url) as hub:
        await give_token(hub, "ann")
        assert await who(hub, request(authorization=f"token {TOKEN}"), kind="page") is None
        sent = request(authorization=f"token {TOKEN}")
        assert await who(hub, sent, kind="page", tokens=True) == "ann"


async def test_token_goes_before_a_cookie_and_an_unknown_one_falls_back_to_it(url: str) -> None:
    """A stale token in a script does not hide who is signed in."""
    async with signin_hub(url) as hub:
        await give_token(hub, "ann")
        cookie = login(await open_for(hub, "bob"))
        sent = request(cookie=cookie, authorization=f"token {TOKEN}")
        assert await who(hub, sent) == "ann"
        assert await who(hub, request(cookie=cookie, authorization="token unknown")) == "bob"


async def test_cookie_counts_everywhere_and_first_of_several_that_is_good(url: str) -> None:
    """A cookie of that name from another path does not sign anybody out."""
    async with signin_hub(url) as hub:
        good = login(await open_for(hub, "ann"))
        for cookie in (good, f"jupyterhub-hub-login=x; {good}", f"{good}; jupyterhub-hub-login=x"):
            assert await who(hub, request(cookie=cookie)) == "ann"
            assert await who(hub, request(cookie=cookie), kind="page") == "ann"


async def test_cookies_that_a_server_has_planted_sign_nobody_out(url: str) -> None:
    """A browser sends those for narrower paths first: as many as there are paths and domains."""
    async with signin_hub(url) as hub:
        planted = "; ".join(f"jupyterhub-hub-login={'x' * 42}{number:x}" for number in range(16))
        good = login(await open_for(hub, "ann"))
        assert await who(hub, request(cookie=f"{planted}; {good}")) == "ann"


@pytest.mark.parametrize(
    "cookie", ["", "jupyterhub-hub-login=", "jupyterhub-hub-login=\xff", ";;="]
)
async def test_no_or_a_bad_cookie_is_nobody(url: str, cookie: str) -> None:
    """Whatever stands there, it is looked at without an error."""
    async with signin_hub(url) as hub:
        assert await who(hub, request(cookie=cookie)) is None


@pytest.mark.parametrize(
    ("content_type", "counts"),
    [
        (None, True),
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("text/plain", False),
        ("application/x-www-form-urlencoded", False),
        ("multipart/form-data; boundary=x", False),
    ],
)
async def test_cookie_does_not_count_for_a_form_posted_to_the_api(
    url: str, content_type: str | None, *, counts: bool
) -> None:
    """A form on another site can POST, but not as JSON."""
    async with signin_hub(url) as hub:
        opened = await open_for(hub, "ann")
        token = await xsrf_of(hub, opened)
        cookie = f"{login(opened)}; _xsrf={token}"
        headers = {"content_type": content_type} if content_type else {}
        sent = request("POST", cookie=cookie, query=f"_xsrf={token}", **headers)
        assert await who(hub, sent) == ("ann" if counts else None)
        put = request("PUT", cookie=cookie, query=f"_xsrf={token}", **headers)
        assert await who(hub, put) == "ann"


async def test_cookie_needs_the_token_of_its_session(url: str) -> None:
    """Without it a change is refused in the wire's words, with it it goes through."""
    async with signin_hub(url) as hub:
        opened = await open_for(hub, "ann")
        token = await xsrf_of(hub, opened)
        cookie = f"{login(opened)}; _xsrf={token}"
        with pytest.raises(Forbidden, match="argument missing from DELETE"):
            await who(hub, request("DELETE", cookie=cookie))
        with pytest.raises(Forbidden, match="does not match DELETE argument"):
            await who(hub, request("DELETE", cookie=cookie, query="_xsrf=x"))
        assert await who(hub, request("DELETE", cookie=cookie, query=f"_xsrf={token}")) == "ann"


async def test_check_can_be_made_later(url: str) -> None:
    """Making a token may turn out to need no cookie; then nothing is checked."""
    async with signin_hub(url) as hub:
        cookie = login(await open_for(hub, "ann"))
        sent = request("POST", cookie=cookie)
        assert await who(hub, sent, defer_xsrf=True) == "ann"
        with pytest.raises(Forbidden, match="argument missing"):
            await require_xsrf(hub, sent, kind="api")


async def test_nobody_from_another_site_is_not_told_that_nobody_is_signed_in(url: str) -> None:
    """With an Origin the anonymous get the same refusal as who is signed in."""
    async with signin_hub(url) as hub:
        assert await who(hub, request(**OTHER_SITE)) is None
        with pytest.raises(Forbidden, match="'_xsrf' argument missing from GET"):
            await who(hub, request(origin="https://x", **OTHER_SITE))


async def test_blocked_user_is_nobody_at_once(url: str) -> None:
    """Neither the cookie nor a token works at the next request."""
    async with signin_hub(url) as hub:
        cookie = login(await open_for(hub, "ann"))
        await give_token(hub, "ann")
        await make_user(hub, "ann", blocked=True)
        assert await who(hub, request(cookie=cookie)) is None
        assert await who(hub, request(authorization=f"token {TOKEN}")) is None


async def test_being_seen_is_written_now_and_then(url: str) -> None:
    """Requests within five minutes leave the row alone, a later one moves it."""
    clock = SetClock()
    async with signin_hub(url, clock=clock) as hub:
        opened = await open_for(hub, "ann")
        for minutes, seen_at in ((4, 0), (2, 6)):
            clock.move(minutes=minutes)
            assert await who(hub, request(cookie=login(opened))) == "ann"
            session = await hub.database.read(bound(find_session, opened.cookie, clock.now()))
            assert session is not None
            assert session.last_seen_at == NOON + timedelta(minutes=seen_at)


async def test_one_request_looks_once(url: str) -> None:
    """Page, frame and check share what was found."""
    async with signin_hub(url) as hub:
        sent = request(cookie=login(await open_for(hub, "ann")))
        assert await find_signed_in(hub, sent) is await find_signed_in(hub, sent)


def test_visitor_has_no_control_characters() -> None:
    """What is kept of a browser's name can be shown."""
    visitor = visitor_of(request(user_agent="Mozilla\x00\x1b[31m" + "x" * 999))
    assert visitor.device.isprintable()
    assert len(visitor.device) == 255
