"""The OAuth provider against the tables of wire §2.9; what races or joins, on both databases."""

import base64
import hashlib
import io
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import anyio
import httpx2
import pytest
from sqlalchemy import Connection, insert, select

from perijove.db.core import bound
from perijove.db.tables import oauth_clients, oauth_codes, role_grants, roles, tokens
from perijove.kit.ids import hash_secret
from perijove.services.access import Caller, caller_by_token
from perijove.services.hub import Hub
from perijove.services.oauth import (
    Approved,
    Exchange,
    drop_client,
    find_client,
    issue_code,
    redeem_code,
    register_server_client,
)
from perijove.services.sessions import Opened, find_session
from perijove.services.signin import sign_out
from perijove.web.access_log import AccessLog
from perijove.web.app import create_app
from perijove.web.asgi import App
from tests.crossing import during
from tests.doors import HERE, SetClock, count, make_launch, make_user, open_for, signin_hub

pytestmark = pytest.mark.anyio

SECRET = "s" * 32
CLIENT = "jupyterhub-user-ann"
BACK = "/user/ann/oauth_callback"
VERIFIER = "v" * 50
CHALLENGE = (
    base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
)
GRANTED = [
    "access:servers!server=ann/",
    "read:users:groups!user",
    "read:users:name!user",
]


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Give an SQLite database to a table of the protocol, which does not depend on the kind."""
    return f"sqlite:///{tmp_path / 'hub.sqlite'}"


@asynccontextmanager
async def provider(url: str, **given: Any) -> AsyncIterator[Hub]:
    """Open a hub where ann's default server runs."""
    async with signin_hub(url, **given) as hub:
        await make_launch(hub, "lch_ann", "ann")
        await register(hub, "lch_ann", "ann")
        yield hub


async def register(
    hub: Hub, launch_id: str, user: str, server: str = "", *, secret: str = SECRET
) -> None:
    """Make a launch's client known."""
    await hub.database.write(
        bound(
            register_server_client,
            launch_id=launch_id,
            user_name=user,
            server_name=server,
            secret_hash=hash_secret(secret),
            base_path=hub.base_path,
        )
    )


def quiet_app(hub: Hub) -> App:
    """Return the hub's whole application, without its access log."""
    return create_app(hub, access_log=AccessLog(hub.clock, as_json=True, stream=io.BytesIO()))


@asynccontextmanager
async def browser(hub: Hub, opened: Opened | None = None) -> AsyncIterator[httpx2.AsyncClient]:
    """Open a browser at the hub, signed in or not."""
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=quiet_app(hub)), base_url="http://hub.example.org"
    ) as client:
        if opened is not None:
            client.cookies.set("jupyterhub-hub-login", opened.cookie)
        yield client


def ask(**changes: str | None) -> str:
    """Return the address that the stock server sends a browser to."""
    query = {
        "client_id": CLIENT,
        "redirect_uri": BACK,
        "response_type": "code",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        "state": "a b&c=",
        **changes,
    }
    given = {name: value for name, value in query.items() if value is not None}
    return "/hub/api/oauth2/authorize?" + urlencode(given)


def answer(response: httpx2.Response, to: str = BACK) -> dict[str, str]:
    """Return what a redirect to the client tells it."""
    assert response.status_code == 302, response.text
    location = response.headers["location"]
    assert location.startswith(f"{to}?")
    return {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}


async def code_for(hub: Hub, opened: Opened, **changes: str | None) -> str:
    """Let a browser fetch a code."""
    async with browser(hub, opened) as client:
        return answer(await client.get(ask(**changes)))["code"]


async def exchange(hub: Hub, code: str, /, **changes: str | None) -> httpx2.Response:
    """Exchange a code as the stock server does."""
    form = {
        "client_id": CLIENT,
        "client_secret": SECRET,
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": BACK,
        "code_verifier": VERIFIER,
        **changes,
    }
    given = {name: value for name, value in form.items() if value is not None}
    async with browser(hub) as client:
        return await client.post(
            "/hub/api/oauth2/token", data=given, headers={"Authorization": f"token {SECRET}"}
        )


async def holder(hub: Hub, token: str) -> Caller | None:
    """Return what a token is worth."""
    return await hub.database.read(bound(caller_by_token, token, hub.clock.now()))


async def grant(hub: Hub, name: str, scopes: Sequence[str]) -> None:
    """Give a user scopes, through a role of their own."""
    user_id = await make_user(hub, name)

    def unit(connection: Connection) -> None:
        role_id = connection.execute(
            insert(roles)
            .values(name=f"for-{name}", description="", scopes=list(scopes), source="browser")
            .returning(roles.c.id)
        ).scalar_one()
        connection.execute(insert(role_grants).values(role_id=role_id, user_id=user_id))

    await hub.database.write(unit)


# --- the whole way ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ({}, {}),
        (
            {"code_challenge": None, "code_challenge_method": None},
            {"code_verifier": None},
        ),
        (
            {"code_challenge": VERIFIER, "code_challenge_method": "plain"},
            {},
        ),
        ({"code_challenge": VERIFIER, "code_challenge_method": None}, {}),
        ({"redirect_uri": None}, {"redirect_uri": None}),
        ({"state": None}, {}),
    ],
)
async def test_own_server_gets_a_token_without_a_question(
    url: str, asked: dict[str, str | None], shown: dict[str, str | None]
) -> None:
    """With S256, plain or no challenge: a redirect, a code, a token that may enter and identify."""
    async with provider(url) as hub:
        opened = await open_for(hub, "ann")
        async with browser(hub, opened) as client:
            told = answer(await client.get(ask(**asked)))
        assert told.get("state") == (None if "state" in asked else "a b&c=")
        assert len(told["code"]) == 30
        response = await exchange(hub, told["code"], **shown)
        assert response.status_code == 200
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["pragma"] == "no-cache"
        assert response.headers["content-type"] == "application/json"
        body = response.json()
        assert set(body) == {"access_token", "expires_in", "token_type", "scope"}
        assert (body["expires_in"], body["token_type"]) == (1209600, "Bearer")
        assert len(body["access_token"]) == 30
        assert sorted(body["scope"].split()) == GRANTED
        caller = await holder(hub, body["access_token"])
        assert caller is not None
        assert (caller.name, caller.session_id) == ("ann", opened.session_id)
        assert caller.scopes.texts() == [
            "access:servers!server=ann/",
            "read:users:groups!user=ann",
            "read:users:name!user=ann",
        ]


async def test_named_server_of_an_escaped_user(database_url: str) -> None:
    """Client id, redirect URI and scope are escaped each in its own way."""
    async with provider(database_url) as hub:
        await make_launch(hub, "lch_2", "a@b.c", "my-server")
        await register(hub, "lch_2", "a@b.c", "my-server")
        opened = await open_for(hub, "a@b.c")
        back = "/user/a@b.c/my-server/oauth_callback"
        client_id = "jupyterhub-user-a%40b.c-my-server"
        async with browser(hub, opened) as client:
            response = await client.get(ask(client_id=client_id, redirect_uri=back))
        code = answer(response, back)["code"]
        got = await exchange(hub, code, client_id=client_id, redirect_uri=back)
        assert "access:servers!server=a@b.c/my-server" in got.json()["scope"].split()


async def test_code_and_token_are_stored_hashed(database_url: str) -> None:
    """Who reads the database can use neither."""
    async with provider(database_url) as hub:
        code = await code_for(hub, await open_for(hub, "ann"))
        row = await hub.database.read(
            lambda connection: str(connection.execute(select(oauth_codes)).one())
        )
        assert code not in row
        token = (await exchange(hub, code)).json()["access_token"]
        row = await hub.database.read(
            lambda connection: str(connection.execute(select(tokens)).one())
        )
        assert token not in row


# --- authorize: errors ------------------------------------------------------------------------


async def test_anonymous_is_sent_to_sign_in_and_back(database_url: str) -> None:
    """The whole address is `next`, quoted."""
    async with provider(database_url) as hub, browser(hub) as client:
        response = await client.get(ask())
        assert response.status_code == 302
        assert response.headers["location"] == "/hub/login?next=" + quote(ask(), safe="")


async def test_token_does_not_count_here(database_url: str) -> None:
    """Only who is signed in with a browser gets a code."""
    async with provider(database_url) as hub:
        first = (await exchange(hub, await code_for(hub, await open_for(hub, "ann")))).json()
        async with browser(hub) as client:
            header = {"Authorization": f"token {first['access_token']}"}
            response = await client.get(ask(), headers=header)
            assert response.headers["location"].startswith("/hub/login?next=")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"client_id": "nobody"}, "Invalid client_id parameter value."),
        ({"client_id": None}, "Invalid client_id parameter value."),
        ({"client_id": "a\x00b"}, "Invalid client_id parameter value."),
        ({"redirect_uri": "https://evil.org/"}, "Mismatching redirect URI."),
        ({"redirect_uri": "/user/ann/oauth_callback/"}, "Mismatching redirect URI."),
        ({"redirect_uri": "/user/ann/oauth%5Fcallback"}, "Mismatching redirect URI."),
        ({"redirect_uri": "http://hub.example.org/user/ann/oauth_callback"}, "Mismatching"),
        ({"redirect_uri": ""}, "Mismatching redirect URI."),
        ({"state": "x" * 5000}, "Invalid state parameter value."),
    ],
)
async def test_unsafe_request_is_an_error_page(
    url: str, changes: dict[str, str | None], text: str
) -> None:
    """The browser is not sent anywhere that the client has not registered, byte for byte."""
    async with provider(url) as hub:
        async with browser(hub, await open_for(hub, "ann")) as client:
            response = await client.get(ask(**changes))
        assert response.status_code == 400
        assert text in response.text
        assert response.headers["content-type"].startswith("text/html")
        assert await count(hub, oauth_codes) == 0


async def test_repeated_parameter_is_an_error_page(url: str) -> None:
    """Which of two would count must not be a matter of taste."""
    async with provider(url) as hub:
        async with browser(hub, await open_for(hub, "ann")) as client:
            response = await client.get(ask() + "&redirect_uri=https://evil.org/")
        assert response.status_code == 400


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": None}, "unsupported_response_type"),
        ({"scope": "admin:users"}, "invalid_scope"),
        ({"scope": "servers"}, "invalid_scope"),
        ({"scope": "access:servers!user=ann"}, "invalid_scope"),
        ({"scope": "access:servers"}, "invalid_scope"),
        ({"scope": "inherit"}, "invalid_scope"),
        ({"scope": "self"}, "invalid_scope"),
        ({"scope": "no-such-scope"}, "invalid_scope"),
        ({"scope": "user"}, "invalid_scope"),
        ({"scope": "admin identify"}, "invalid_scope"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge": "x" * 129}, "invalid_request"),
        ({"code_challenge": "é" * 50}, "invalid_request"),
        ({"code_challenge_method": "S512"}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
    ],
)
async def test_wrong_request_is_told_to_the_client(
    url: str, changes: dict[str, str | None], error: str
) -> None:
    """By a redirect with OAuth's word for it and the client's state."""
    async with provider(url) as hub:
        async with browser(hub, await open_for(hub, "ann")) as client:
            told = answer(await client.get(ask(**changes)))
        assert told == {"error": error, "state": "a b&c="}


@pytest.mark.parametrize(
    "scope",
    [
        "identify",
        "",
        "  ",
        "access:servers!server=ann/",
        "access:servers!server",
        "identify read:users:name!user",
        "read:users:name!user=ann",
    ],
)
async def test_what_the_client_may_have_can_be_asked_for(url: str, scope: str) -> None:
    """Access and identity are always granted, however they are asked for."""
    async with provider(url) as hub:
        code = await code_for(hub, await open_for(hub, "ann"), scope=scope)
        granted = (await exchange(hub, code)).json()["scope"].split()
        assert set(GRANTED) <= set(granted)
        caller = await holder(hub, (await exchange(hub, code)).json().get("access_token", ""))
        assert caller is None


async def test_role_stands_for_its_scopes(database_url: str) -> None:
    """A client may ask for a role by name, if it may have all that is in it."""
    async with provider(database_url) as hub:
        await grant(hub, "visitors", ["access:servers!server=ann/"])
        code = await code_for(hub, await open_for(hub, "ann"), scope="for-visitors")
        assert sorted((await exchange(hub, code)).json()["scope"].split()) == GRANTED


async def test_stranger_may_not_enter(database_url: str) -> None:
    """Who lacks access gets a page that says to what, and no code."""
    async with provider(database_url) as hub:
        async with browser(hub, await open_for(hub, "bob")) as client:
            response = await client.get(ask())
        assert response.status_code == 403
        assert "You do not have permission to access Server at /user/ann/" in response.text
        assert await count(hub, oauth_codes) == 0


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE"])
async def test_other_methods_are_not_allowed(url: str, method: str) -> None:
    """Nothing but GET and POST gets a code."""
    async with provider(url) as hub:
        async with browser(hub, await open_for(hub, "ann")) as client:
            assert (await client.request(method, ask())).status_code == 405
        assert await count(hub, oauth_codes) == 0


# --- authorize: consent -----------------------------------------------------------------------


async def press(client: httpx2.AsyncClient, page: httpx2.Response, **form: Any) -> httpx2.Response:
    """Send the form of a consent page."""
    return await client.post(ask(), data={"_xsrf": client.cookies["_xsrf"], **form})


async def test_visitor_is_asked_once(database_url: str) -> None:
    """Who visits somebody else's server agrees the first time, and is not asked again."""
    async with provider(database_url) as hub:
        await grant(hub, "bob", ["access:servers!user=ann"])
        async with browser(hub, await open_for(hub, "bob")) as client:
            page = await client.get(ask())
            assert page.status_code == 200
            assert "style-src 'self'" in page.headers["content-security-policy"]
            assert "Server at /user/ann/" in page.text
            assert 'name="scopes" value="access:servers!server=ann/"' in page.text
            assert await count(hub, oauth_codes) == 0
            code = answer(await press(client, page, scopes=GRANTED))["code"]
            got = (await exchange(hub, code)).json()
            assert sorted(got["scope"].split()) == GRANTED
            caller = await holder(hub, got["access_token"])
            assert caller is not None
            assert caller.name == "bob"
            assert caller.may("access:servers", user="ann", server="")
            assert answer(await client.get(ask()))["code"]


async def test_agreement_without_scopes_is_the_least(database_url: str) -> None:
    """No tick at all still means: let me in and say who I am."""
    async with provider(database_url) as hub:
        await grant(hub, "bob", ["access:servers!user=ann"])
        async with browser(hub, await open_for(hub, "bob")) as client:
            code = answer(await press(client, await client.get(ask())))["code"]
        assert sorted((await exchange(hub, code)).json()["scope"].split()) == GRANTED


async def test_agreement_gives_no_more_than_was_asked(database_url: str) -> None:
    """A scope that somebody wrote into the form is not granted."""
    async with provider(database_url) as hub:
        await grant(hub, "bob", ["access:servers!user=ann", "admin:users"])
        async with browser(hub, await open_for(hub, "bob")) as client:
            form = {"scopes": [*GRANTED, "admin:users", "inherit"]}
            code = answer(await press(client, await client.get(ask()), **form))["code"]
        assert sorted((await exchange(hub, code)).json()["scope"].split()) == GRANTED


async def test_optional_scope_may_be_left_out(database_url: str) -> None:
    """Of what a client may have beyond entering, the person gives what they tick."""
    async with provider(database_url) as hub:
        await grant(hub, "bob", ["access:servers!user=ann"])
        wider = [GRANTED[0], "read:users:activity!user", "list:users"]

        def widen(connection: Connection) -> None:
            connection.execute(oauth_clients.update().values(allowed_scopes=wider))

        await hub.database.write(widen)
        async with browser(hub, await open_for(hub, "bob")) as client:
            page = await client.get(ask())
            assert 'value="read:users:activity!user"' in page.text
            assert "list:users" not in page.text  # bob does not have it
            assert answer(await press(client, page, scopes=GRANTED))["code"]
            page = await client.get(ask())
            assert page.status_code == 200  # what was agreed to does not cover all
            code = answer(await press(client, page, scopes=["read:users:activity!user"]))["code"]
            granted = (await exchange(hub, code)).json()["scope"].split()
            assert sorted(granted) == sorted([*GRANTED, "read:users:activity!user"])
            assert answer(await client.get(ask()))["code"]


async def test_agreement_needs_the_token_and_a_person(database_url: str) -> None:
    """Neither another site nor nobody agrees for a person."""
    async with provider(database_url) as hub:
        await grant(hub, "bob", ["access:servers!user=ann"])
        async with browser(hub, await open_for(hub, "bob")) as client:
            await client.get(ask())
            for form in ({}, {"_xsrf": "wrong"}):
                assert (await client.post(ask(), data=form)).status_code == 403
        async with browser(hub) as client:
            assert (await client.post(ask())).status_code == 403
        assert await count(hub, oauth_codes) == 0


# --- the token endpoint -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "status", "body"),
    [
        ({"client_secret": "wrong"}, 401, {"error": "invalid_client"}),
        ({"client_secret": None}, 401, {"error": "invalid_client"}),
        ({"client_id": "nobody"}, 401, {"error": "invalid_client"}),
        ({"client_id": None}, 401, {"error": "invalid_client"}),
        ({"client_id": "a\x00"}, 401, {"error": "invalid_client"}),
        ({"grant_type": "client_credentials"}, 400, {"error": "unsupported_grant_type"}),
        ({"grant_type": "refresh_token"}, 400, {"error": "unsupported_grant_type"}),
        ({"grant_type": None}, 400, {"error": "unsupported_grant_type"}),
        ({"code": "x" * 30}, 400, {"error": "invalid_grant"}),
        ({"code_verifier": "w" * 50}, 400, {"error": "invalid_grant"}),
        ({"code_verifier": ""}, 400, {"error": "invalid_grant"}),
        (
            {"code": None},
            400,
            {"error": "invalid_request", "error_description": "Missing code parameter."},
        ),
        (
            {"code_verifier": None},
            400,
            {"error": "invalid_request", "error_description": "Code verifier required."},
        ),
        (
            {"redirect_uri": "/elsewhere"},
            400,
            {"error": "invalid_request", "error_description": "Mismatching redirect URI."},
        ),
    ],
)
async def test_refused_exchange_leaves_the_code_as_it_was(
    database_url: str, changes: dict[str, str | None], status: int, body: dict[str, str]
) -> None:
    """The body is OAuth's own, and the rightful client still gets its token."""
    async with provider(database_url) as hub:
        code = await code_for(hub, await open_for(hub, "ann"))
        response = await exchange(hub, str(code), **changes)
        assert (response.status_code, response.json()) == (status, body)
        assert response.headers["cache-control"] == "no-store"
        challenge = 'Bearer error="invalid_client"' if status == 401 else None
        assert response.headers.get("www-authenticate") == challenge
        assert await count(hub, tokens) == 0
        assert (await exchange(hub, code)).status_code == 200


async def test_verifier_without_a_challenge_is_refused(database_url: str) -> None:
    """A challenge that somebody took out on the way does not weaken the exchange."""
    async with provider(database_url) as hub:
        opened = await open_for(hub, "ann")
        code = await code_for(hub, opened, code_challenge=None, code_challenge_method=None)
        assert (await exchange(hub, code)).json() == {"error": "invalid_grant"}


async def test_code_works_once(database_url: str) -> None:
    """The second time it is as unknown as any other text."""
    async with provider(database_url) as hub:
        code = await code_for(hub, await open_for(hub, "ann"))
        assert (await exchange(hub, code)).status_code == 200
        assert (await exchange(hub, code)).json() == {"error": "invalid_grant"}


async def test_of_many_exchanges_at_once_one_gets_a_token(database_url: str) -> None:
    """A race for a code has one winner, on either database."""
    async with provider(database_url) as hub:
        code = await code_for(hub, await open_for(hub, "ann"))
        statuses: list[int] = []

        async def redeem() -> None:
            statuses.append((await exchange(hub, code)).status_code)

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(redeem)
        assert sorted(statuses) == [200] + [400] * 9
        assert await count(hub, tokens) == 1


async def test_code_dies_after_five_minutes(database_url: str) -> None:
    """A second before it works, at its end no more."""
    clock = SetClock()
    async with provider(database_url, clock=clock) as hub:
        opened = await open_for(hub, "ann")
        early, late = await code_for(hub, opened), await code_for(hub, opened)
        clock.move(minutes=5, seconds=-1)
        assert (await exchange(hub, early)).status_code == 200
        clock.move(seconds=1)
        assert (await exchange(hub, late)).json() == {"error": "invalid_grant"}


async def test_code_belongs_to_its_client(database_url: str) -> None:
    """Another server that got hold of a code cannot use it."""
    async with provider(database_url) as hub:
        await make_launch(hub, "lch_bob", "bob")
        await register(hub, "lch_bob", "bob", secret="b" * 32)
        code = await code_for(hub, await open_for(hub, "ann"))
        stolen = await exchange(
            hub, code, client_id="jupyterhub-user-bob", client_secret="b" * 32, redirect_uri=None
        )
        assert stolen.json() == {"error": "invalid_grant"}
        assert (await exchange(hub, code)).status_code == 200


async def test_code_of_who_has_signed_out_or_was_blocked_is_dead(database_url: str) -> None:
    """What happens in between counts."""
    async with provider(database_url) as hub:
        opened = await open_for(hub, "ann")
        code = await code_for(hub, opened)
        session = await hub.database.read(bound(find_session, opened.cookie, hub.clock.now()))
        assert session is not None
        await sign_out(hub, session, HERE)
        assert (await exchange(hub, code)).json() == {"error": "invalid_grant"}
        code = await code_for(hub, await open_for(hub, "ann"))
        await make_user(hub, "ann", blocked=True)
        assert (await exchange(hub, code)).json() == {"error": "invalid_grant"}


async def test_code_issued_while_signing_out_is_dead(database_url: str) -> None:
    """A request that was decided just before the session ended gets nothing out of it."""
    async with provider(database_url) as hub:
        opened = await open_for(hub, "ann")
        session = await hub.database.read(bound(find_session, opened.cookie, hub.clock.now()))
        client = await hub.database.read(bound(find_client, CLIENT))
        assert session is not None
        assert client is not None
        await sign_out(hub, session, HERE)
        approved = Approved(client=client, scopes=GRANTED, challenge=None, method=None)
        code = await hub.database.write(bound(issue_code, session, approved, hub.clock.now()))
        late = await exchange(hub, code, code_verifier=None)
        assert late.json() == {"error": "invalid_grant"}


async def test_signing_out_takes_the_tokens_of_the_session(database_url: str) -> None:
    """Those that the session was given, and no others."""
    async with provider(database_url) as hub:
        here, there = await open_for(hub, "ann"), await open_for(hub, "ann")
        mine, other = [
            (await exchange(hub, await code_for(hub, opened))).json()["access_token"]
            for opened in (here, there)
        ]
        session = await hub.database.read(bound(find_session, here.cookie, hub.clock.now()))
        assert session is not None
        await sign_out(hub, session, HERE)
        assert await holder(hub, mine) is None
        assert await holder(hub, other) is not None


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "unsupported_grant_type"),
        (b"\xff\xfe=%ff&grant_type=authorization_code", "invalid_client"),
        (b'{"grant_type": "authorization_code"}', "unsupported_grant_type"),
        (b"grant_type=authorization_code&grant_type=x", "invalid_request"),
        (b"a=1&" * 60, "invalid_request"),
        (b"x" * 20_000, "invalid_request"),
    ],
)
async def test_bad_body_is_a_clear_refusal(url: str, body: bytes, error: str) -> None:
    """Whatever is sent, the answer is OAuth's and never the server's error."""
    async with provider(url) as hub, browser(hub) as client:
        response = await client.post("/hub/api/oauth2/token", content=body)
        assert response.json()["error"] == error


async def test_token_endpoint_takes_post_only(url: str) -> None:
    """A code in an address would be in logs."""
    async with provider(url) as hub, browser(hub) as client:
        assert (await client.get("/hub/api/oauth2/token")).status_code == 405


# --- clients ----------------------------------------------------------------------------------


async def test_new_launch_takes_the_client_over(database_url: str) -> None:
    """The secret is the new one; what the launch before was given is void, other things stay."""
    async with provider(database_url) as hub:
        await make_launch(hub, "lch_bob", "bob")
        await register(hub, "lch_bob", "bob")
        opened = await open_for(hub, "ann")
        token = (await exchange(hub, await code_for(hub, opened))).json()["access_token"]
        pending = await code_for(hub, opened)
        bobs = await open_for(hub, "bob")
        async with browser(hub, bobs) as client:
            back = "/user/bob/oauth_callback"
            url = ask(client_id="jupyterhub-user-bob", redirect_uri=back)
            code = answer(await client.get(url), back)["code"]
        other = await exchange(hub, code, client_id="jupyterhub-user-bob", redirect_uri=back)
        await make_launch(hub, "lch_new", "ann", generation=2)
        await register(hub, "lch_new", "ann", secret="n" * 32)
        assert await holder(hub, token) is None
        assert await holder(hub, other.json()["access_token"]) is not None
        assert (await exchange(hub, pending)).status_code == 401
        late = await exchange(hub, pending, client_secret="n" * 32)
        assert late.json() == {"error": "invalid_grant"}
        fresh = await exchange(hub, await code_for(hub, opened), client_secret="n" * 32)
        assert fresh.status_code == 200


async def test_repeated_start_of_one_launch_keeps_what_was_issued(database_url: str) -> None:
    """Registering the same launch again changes nothing."""
    async with provider(database_url) as hub:
        opened = await open_for(hub, "ann")
        token = (await exchange(hub, await code_for(hub, opened))).json()["access_token"]
        pending = await code_for(hub, opened)
        await register(hub, "lch_ann", "ann")
        assert await holder(hub, token) is not None
        assert (await exchange(hub, pending)).status_code == 200


async def test_dropping_a_client_drops_what_was_issued(database_url: str) -> None:
    """Tokens and codes of an ended launch are worth nothing."""
    async with provider(database_url) as hub:
        opened = await open_for(hub, "ann")
        token = (await exchange(hub, await code_for(hub, opened))).json()["access_token"]
        await code_for(hub, opened)
        await hub.database.write(bound(drop_client, "lch_ann"))
        assert await holder(hub, token) is None
        assert await count(hub, oauth_codes) == 0


async def test_late_drop_does_not_hit_the_next_launch(database_url: str) -> None:
    """Who cleans up after an old launch leaves the client of the new one alone."""
    async with provider(database_url) as hub:
        await make_launch(hub, "lch_new", "ann", generation=2)
        await register(hub, "lch_new", "ann")
        token = (await exchange(hub, await code_for(hub, await open_for(hub, "ann")))).json()
        await hub.database.write(bound(drop_client, "lch_ann"))
        assert await holder(hub, token["access_token"]) is not None


async def test_below_another_base_path(url: str) -> None:
    """Redirect URI and sign-in address have the base path in front."""
    settings = {"base_path": "/@/space%20word/"}
    async with signin_hub(url, settings=settings) as hub:
        await make_launch(hub, "lch_ann", "ann")
        await register(hub, "lch_ann", "ann")
        back = "/@/space%20word/user/ann/oauth_callback"
        path = (
            "/@/space%20word/hub/api/oauth2/authorize?" + ask(redirect_uri=back).partition("?")[2]
        )
        async with browser(hub) as client:
            response = await client.get(path)
            login = "/@/space%20word/hub/login?next=" + quote(path, safe="")
            assert response.headers["location"] == login
            opened = await open_for(hub, "ann")
            client.cookies.set("jupyterhub-hub-login", opened.cookie)
            assert answer(await client.get(path), back)["code"]


@pytest.mark.needs("postgresql")
async def test_signing_out_takes_also_the_token_that_is_being_issued(postgresql_url: str) -> None:
    """A code that another hub redeems at this very moment leaves nothing behind."""
    async with provider(postgresql_url) as hub:
        opened = await open_for(hub, "ann")
        code = await code_for(hub, opened)
        session = await hub.database.read(bound(find_session, opened.cookie, hub.clock.now()))
        assert session is not None
        shown = Exchange(
            client_id=CLIENT,
            client_secret=SECRET,
            grant_type="authorization_code",
            code=code,
            redirect_uri=BACK,
            verifier=VERIFIER,
        )
        lifetime = hub.settings.session_lifetime
        redeem = bound(redeem_code, shown, hub.clock.now(), lifetime=lifetime)

        await during(postgresql_url, redeem, lambda: sign_out(hub, session, HERE))

        assert await count(hub, tokens) == 0
