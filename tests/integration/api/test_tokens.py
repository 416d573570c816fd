"""Tokens over the REST API, and what they are worth (wire §2.6.5, §3.5, §3.7)."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from perijove.db.core import Connection, bound, open_database
from perijove.db.tables import oauth_clients, role_grants, tokens, users
from perijove.domain.launch import Status
from perijove.kit.ids import hash_secret
from perijove.services import roles
from perijove.services.access import caller_by_token
from perijove.services.activity import flush
from perijove.services.sections import FileToken, HubSection, RoleSection
from perijove.services.specs import server_token
from perijove.services.tokens import delete_expired
from tests.apis import ADMIN, ANN, BOB, SERVICE, TestApi, running_api
from tests.hubs import ShiftedClock

pytestmark = pytest.mark.anyio


async def make(api: TestApi, body: Any = None, *, user: str = "ann", token: str = ANN) -> Any:
    """Make a token and return the answer's JSON."""
    return (await api.call("POST", f"/users/{user}/tokens", body, token=token)).json()


async def test_token_is_shown_once_and_listed_without_its_value(
    database_url: str, tmp_path: Path
) -> None:
    """A new token works, carries its note, and never shows its value again."""
    async with running_api(database_url, tmp_path, loops=False) as api:
        made = await make(api, {"note": "for scripts", "expires_in": 600})
        me = await api.get("/user", token=made["token"])
        listed = (await api.get("/users/ann/tokens", token=ANN))["api_tokens"]
        one = await api.get(f"/users/ann/tokens/{made['id']}", token=ANN)
        revoked = await api.call("DELETE", f"/users/ann/tokens/{made['id']}", token=ANN)
        after = await api.call("GET", "/user", token=made["token"])
        missing = await api.call("GET", f"/users/ann/tokens/{made['id']}", token=ANN)

    assert len(made["token"]) == 32
    assert made["expires_at"] is not None
    assert me["token_id"] == made["id"]
    assert [token["note"] for token in listed] == ["ann", "for scripts"]
    assert all("token" not in token for token in listed)
    assert one == {key: value for key, value in made.items() if key != "token"}
    assert one["oauth_client"] == "JupyterHub"
    assert (revoked.status_code, after.status_code, missing.status_code) == (204, 403, 404)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"scopes": ["zzz"]}, "Scope 'zzz' for token does not exist"),
        ({"scopes": ["admin:users"]}, "Not assigning requested scopes"),
        ({"scopes": ["servers!user=bob"]}, "not held by User ann"),
        ({"roles": ["zzz"]}, "Role 'zzz' for token does not exist"),
        ({"scopes": [], "roles": []}, "not both"),
        ({"expires_in": 0}, "expires_in must be a positive integer or null, not 0"),
        ({"expires_in": -5}, "expires_in must be a positive integer or null, not -5"),
        ({"expires_in": "1"}, "token expires_in must be null or integer, not"),
        ({"expires_in": True}, "token expires_in must be null or integer, not"),
        ({"expires_in": 10**12}, "must not exceed"),
        ({"note": 3}, "note must be a string"),
        ({"scopes": "self"}, "list of strings"),
        ({"colour": 1}, "Invalid JSON keys: colour"),
    ],
)
async def test_what_no_token_can_be_is_said(
    tmp_path: Path, body: Mapping[str, Any], message: str
) -> None:
    """A wrong request for a token is a 400 that says why, and makes none."""
    async with running_api(f"sqlite:///{tmp_path}/hub.db", tmp_path, loops=False) as api:
        answer = await api.call("POST", "/users/ann/tokens", body, token=ANN)
        listed = await api.get("/users/ann/tokens", token=ANN)

    assert answer.status_code == 400
    assert message in answer.json()["message"]
    assert len(listed["api_tokens"]) == 1


async def test_tokens_for_others_need_the_scope(database_url: str, tmp_path: Path) -> None:
    """An administrator makes tokens for anybody, under their name; others are refused."""
    async with running_api(database_url, tmp_path, loops=False) as api:
        made = await make(api, token=ADMIN)
        me = await api.get("/user", token=made["token"])
        other = await api.call("POST", "/users/ann/tokens", token=BOB)
        nobody = await api.call("POST", "/users/none/tokens", token=ADMIN)
        anonymous = await api.call("POST", "/users/ann/tokens", token=None)

    assert made["note"] == "Requested via api by user admin"
    assert me["name"] == "ann"
    assert other.status_code == nobody.status_code == anonymous.status_code == 403
    assert other.json()["message"] == ("User ann not found or no permissions to generate tokens")


async def test_token_follows_what_its_owner_may_now(database_url: str, tmp_path: Path) -> None:
    """A role that is taken away weakens the owner's tokens at once; a block ends them."""
    given = [RoleSection(name="auditor", scopes=["read:hub"], users=["ann"])]
    async with running_api(database_url, tmp_path, roles=given, loops=False) as api:
        narrow = await make(api, {"scopes": ["read:hub"]})
        before = await api.call("GET", "/info", token=narrow["token"])
        outside = await api.call("GET", "/users/ann", token=narrow["token"])

        def take_away(connection: Connection) -> None:
            connection.execute(role_grants.delete())

        await api.hub.hub.database.write(take_away)
        after = await api.call("GET", "/info", token=narrow["token"])

        def block(connection: Connection) -> None:
            connection.execute(update(users).where(users.c.name == "ann").values(blocked=True))

        await api.hub.hub.database.write(block)
        blocked = await api.call("GET", "/user", token=ANN)

    assert [before.status_code, outside.status_code] == [200, 403]
    assert [after.status_code, blocked.status_code] == [403, 403]


async def test_revoked_token_is_refused_by_another_process(
    database_url: str, tmp_path: Path
) -> None:
    """Nothing about a token is remembered: a second hub on the database refuses it at once."""
    async with (
        running_api(database_url, tmp_path, loops=False) as api,
        open_database(database_url) as other,
    ):
        made = await make(api)
        now = api.hub.hub.clock.now()
        look = bound(caller_by_token, made["token"], now)
        known = await other.read(look)
        await api.call("DELETE", f"/users/ann/tokens/{made['id']}", token=ANN)
        revoked = await other.read(look)

    assert known is not None
    assert known.name == "ann"
    assert revoked is None


async def test_expired_token_counts_no_more(database_url: str, tmp_path: Path) -> None:
    """A token past its time is refused, unlisted, and in the end deleted."""
    clock = ShiftedClock()
    async with running_api(database_url, tmp_path, clock=clock, loops=False) as api:
        made = await make(api, {"expires_in": 60})
        clock.shift(timedelta(seconds=61))
        refused = await api.call("GET", "/user", token=made["token"])
        listed = await api.get("/users/ann/tokens", token=ANN)
        deleted = await api.hub.hub.database.write(bound(delete_expired, clock.now()))

    assert refused.status_code == 403
    assert [token["note"] for token in listed["api_tokens"]] == ["ann"]
    assert deleted == 1


async def test_server_token_reports_activity_and_nothing_else(
    database_url: str, tmp_path: Path
) -> None:
    """A server's own token reaches its server and reports; it dies with its launch."""
    async with running_api(database_url, tmp_path) as api:
        launch = await api.hub.becomes(await api.hub.start("ann"), Status.READY)
        token = server_token(api.hub.hub, launch)
        me = await api.get("/user", token=token)
        report = {"servers": {"": {"last_activity": api.hub.hub.clock.now().isoformat()}}}
        reported = await api.call("POST", "/users/ann/activity", report, token=token)
        start = await api.call("POST", "/users/ann/server", token=token)
        other = await api.call("POST", "/users/bob/activity", report, token=token)
        heard = await api.hub.launch(launch.id)
        await api.hub.stop("ann")
        await api.hub.becomes(launch, Status.ENDED)
        late = await api.call("GET", "/user", token=token)

    assert me["scopes"] == [
        "access:servers!server=ann/",
        "read:users:activity!user=ann",
        "users:activity!user=ann",
    ]
    assert reported.status_code == 200
    assert (start.status_code, other.status_code) == (403, 404)
    assert heard.heard_at is not None
    assert heard.activity_source == "server"
    assert late.status_code == 403


async def test_token_of_an_oauth_client_reaches_its_server(
    database_url: str, tmp_path: Path
) -> None:
    """A token issued through OAuth has its client's access scope and says who its owner is."""
    async with running_api(database_url, tmp_path) as api:
        await api.hub.becomes(await api.hub.start("ann"), Status.READY)
        client = "jupyterhub-user-ann"
        values = {"a": "issued-for-ann", "b": "another-of-it"}

        def issue(connection: Connection) -> None:
            owner = connection.scalar(select(users.c.id).where(users.c.name == "ann"))
            assert connection.scalar(select(oauth_clients.c.id)) == client
            for value in values.values():
                connection.execute(
                    insert(tokens).values(
                        hash=hash_secret(value), scheme="random", user_id=owner, scopes=[],
                        created_at=api.hub.hub.clock.now(), client_id=client, session_id="s1",
                    )
                )  # fmt: skip

        await api.hub.hub.database.write(issue)
        me = await api.get("/user", token=values["a"])
        await api.call("DELETE", f"/users/ann/tokens/{me['token_id']}", token=ANN)
        sibling = await api.call("GET", "/user", token=values["b"])

    assert me["scopes"] == [
        "access:servers!server=ann/",
        "read:users:groups!user=ann",
        "read:users:name!user=ann",
    ]
    assert me["session_id"] == "s1"
    assert sibling.status_code == 403


async def test_use_of_a_token_is_remembered(database_url: str, tmp_path: Path) -> None:
    """When a token was used is written by the next flush, for it and its user."""
    async with running_api(database_url, tmp_path, loops=False) as api:
        await api.get("/user", token=ANN)
        before = await api.get("/users/ann")
        await flush(api.hub.hub)
        after = await api.get("/users/ann")
        (token,) = (await api.get("/users/ann/tokens"))["api_tokens"]

    assert before["last_activity"] is None
    assert after["last_activity"] == token["last_activity"] is not None


async def test_configuration_is_authoritative_at_every_start(
    database_url: str, tmp_path: Path
) -> None:
    """Tokens, roles and members that the file no longer names go; groups and people stay."""
    given = [RoleSection(name="auditor", scopes=["read:hub"], groups=["class"])]
    groups = {"class": ["ann"]}
    async with running_api(database_url, tmp_path, roles=given, groups=groups, loops=False) as api:
        first = await api.call("GET", "/info", token=ANN)
        shown = await api.get("/users/ann")
        fewer = HubSection(tokens=[FileToken(name="a", user="ann", token=ANN)])
        reload = bound(roles.load, fewer, now=api.hub.hub.clock.now())
        await api.hub.hub.database.write(reload)
        second = await api.call("GET", "/info", token=ANN)
        dropped = await api.call("GET", "/user", token=SERVICE)
        still = await api.get("/users/ann", token=ANN)

    assert shown["groups"] == ["class"]
    assert shown["roles"] == ["user"]
    assert (first.status_code, second.status_code) == (200, 403)
    assert dropped.status_code == 403
    assert still["groups"] == []
