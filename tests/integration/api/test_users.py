"""Users over the REST API, on both databases (wire §2.3 to §2.6)."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from perijove.domain.launch import Status
from perijove.services.sections import RoleSection
from tests.apis import ADMIN, ANN, BOB, PAGED, SERVICE, TestApi, running_api

pytestmark = pytest.mark.anyio

HIDDEN = {"status": 404, "message": "No access to resources or resources not found"}


async def test_new_user_has_the_wire_shape(database_url: str, tmp_path: Path) -> None:
    """A user made by an administrator is answered with exactly the keys of the wire."""
    async with running_api(database_url, tmp_path, loops=False) as api:
        made = await api.call("POST", "/users", {"usernames": ["zed@x.y"]})
        shown = await api.get("/users/zed@x.y")

    assert made.status_code == 201
    assert made.json() == [shown]
    assert shown.pop("created").endswith("Z")
    assert shown == {
        "kind": "user", "name": "zed@x.y", "admin": False, "roles": ["user"], "groups": [],
        "server": None, "pending": None, "last_activity": None, "servers": {},
        "auth_state": None, "user_info": None,
    }  # fmt: skip


_EVERYTHING = {
    "kind", "name", "user_info", "admin", "roles", "groups", "server", "pending", "created",
    "last_activity",
}  # fmt: skip


@pytest.mark.parametrize(
    ("scope", "keys"),
    [
        ("read:users", _EVERYTHING),
        ("read:users:name", {"kind", "name", "user_info", "admin"}),
        ("read:users:groups", {"kind", "name", "groups"}),
        ("read:users:activity", {"kind", "name", "last_activity"}),
        ("read:servers", {"kind", "name", "servers", "user_info", "admin"}),
        ("read:roles:users", {"kind", "name", "roles", "admin"}),
        ("admin:users!user=ann", _EVERYTHING | {"auth_state"}),
        ("read:users!group=class", _EVERYTHING),
    ],
)
async def test_scopes_decide_which_keys_show(tmp_path: Path, scope: str, keys: set[str]) -> None:
    """A model has the keys of the scopes that the caller holds for that user, and no other."""
    role = RoleSection(name="reader", scopes=[scope], services=["culler"])
    async with running_api(
        f"sqlite:///{tmp_path}/hub.db",
        tmp_path,
        roles=[role],
        groups={"class": ["ann"]},
        loops=False,
    ) as api:
        shown = await api.get("/users/ann", token=SERVICE)

    assert set(shown) == keys


@pytest.mark.parametrize(
    ("method", "path", "token", "status", "message"),
    [
        ("GET", "/users/ann", None, 403, "Missing or invalid credentials."),
        ("GET", "/users/ann", "unknown", 403, "Missing or invalid credentials."),
        ("GET", "/user", None, 403, "Forbidden"),
        ("GET", "/users/ann", BOB, 404, HIDDEN["message"]),
        ("GET", "/users/none", ADMIN, 404, HIDDEN["message"]),
        ("GET", "/users", ANN, 403,
         "Action is not authorized with current scopes; requires any of [list:users]"),
        ("DELETE", "/users/ann", ANN, 403,
         "Action is not authorized with current scopes; requires any of [delete:users]"),
        ("GET", "/info", ANN, 403,
         "Action is not authorized with current scopes; requires any of [read:hub]"),
        ("GET", "/users/", ADMIN, 404, "Not Found"),
        ("GET", "/nothing", ADMIN, 404, "Not Found"),
        ("HEAD", "/", ADMIN, 405, None),
        ("PUT", "/users/ann", ADMIN, 405, "Method Not Allowed"),
        ("GET", "/users?offset=x", ADMIN, 400,
         "Invalid argument type, offset and limit must be integers"),
        ("GET", "/users?state=foo", ADMIN, 400, "Unrecognized state filter: 'foo'"),
        ("GET", "/users?sort=size", ADMIN, 400,
         "sort must be 'id', 'name', or 'last_activity', not 'size'"),
    ],
)  # fmt: skip
async def test_refusals_have_the_wire_texts(
    tmp_path: Path, method: str, path: str, token: str | None, status: int, message: str | None
) -> None:
    """Status and message of a refusal are those that clients of JupyterHub know."""
    async with running_api(f"sqlite:///{tmp_path}/hub.db", tmp_path, loops=False) as api:
        answer = await api.call(method, path, token=token)

    assert answer.status_code == status
    if message is not None:
        assert answer.json() == {"status": status, "message": message}


async def test_me_shows_scopes_and_token(database_url: str, tmp_path: Path) -> None:
    """``GET /user`` names the credential, and what it allows, sorted."""
    async with running_api(database_url, tmp_path, loops=False) as api:
        me = await api.get("/user", token=ANN)
        service = await api.get("/user", token=SERVICE)

    assert me["name"] == "ann"
    assert me["session_id"] is None
    assert me["token_id"].startswith("a")
    assert me["scopes"] == sorted(me["scopes"])
    assert "servers!user=ann" in me["scopes"]
    assert service == {
        "kind": "service", "name": "culler", "admin": False, "scopes": [],
        "token_id": service["token_id"], "session_id": None,
    }  # fmt: skip


async def _names(api: TestApi, query: str, token: str = ADMIN) -> list[str]:
    return [user["name"] for user in await api.get(f"/users?{query}", token=token)]


async def test_list_is_paged_for_who_asks_so(database_url: str, tmp_path: Path) -> None:
    """Following ``next.url`` verbatim visits everybody once; without the type it is a list."""
    async with running_api(database_url, tmp_path, loops=False) as api:
        names = [f"user{number:02}" for number in range(9)]
        await api.call("POST", "/users", {"usernames": names})
        seen: list[str] = []
        url: str | None = "/hub/api/users?limit=4&name_filter=USER"
        while url is not None:
            headers = {"authorization": f"token {ADMIN}", **PAGED}
            page: dict[str, Any] = (await api.client.get(url, headers=headers)).json()
            seen += [user["name"] for user in page["items"]]
            assert page["_pagination"]["total"] == 9
            following = page["_pagination"]["next"]
            url = following and following["url"]
            assert url is None or url.startswith("http://hub.test/hub/api/users?")
        bare = await api.call("GET", "/users?limit=0&sort=-name")
        whole = await api.call("GET", "/users")

    assert seen == names
    assert [user["name"] for user in bare.json()] == ["user08"]
    assert bare.headers["link"] == (
        '<http://hub.test/hub/api/users?limit=1&sort=-name&offset=1>; rel="next"'
    )
    assert "link" not in whole.headers


async def test_a_filter_longer_than_any_name_finds_nobody(
    database_url: str, tmp_path: Path
) -> None:
    """However long: what no database could compare is not asked of it."""
    async with running_api(database_url, tmp_path, loops=False) as api:
        assert await _names(api, "name_filter=" + "a" * 60_000) == []
        assert await _names(api, "name_filter=ann") == ["ann"]


async def test_list_is_restricted_to_whom_the_caller_may_list(
    database_url: str, tmp_path: Path
) -> None:
    """Limits to users and groups select; any other limit refuses and never means everybody."""
    roles = [
        RoleSection(
            name="lister", scopes=["list:users!group=class", "list:users!user=bob"],
            services=["culler"],
        ),
        RoleSection(name="one-server", scopes=["list:users!server=ann/"], users=["ann"]),
    ]  # fmt: skip
    async with running_api(
        database_url, tmp_path, roles=roles, groups={"class": ["ann"]}, loops=False
    ) as api:
        assert sorted(await _names(api, "", SERVICE)) == ["ann", "bob"]
        refused = await api.call("GET", "/users", token=ANN)

    assert refused.status_code == 403


async def test_list_knows_states_and_orders(database_url: str, tmp_path: Path) -> None:
    """The state filters count servers as they are, and never-active users sort first."""
    async with running_api(database_url, tmp_path) as api:
        await api.hub.becomes(await api.hub.start("ann"), Status.READY)
        assert await _names(api, "state=ready") == ["ann"]
        assert await _names(api, "state=active") == ["ann"]
        assert "ann" not in await _names(api, "state=inactive")
        at = (datetime.now(UTC) + timedelta(minutes=10)).isoformat()  # after ann's start
        await api.call("POST", "/users/bob/activity", {"last_activity": at})
        latest_first = await _names(api, "sort=-last_activity")
        never_first = await _names(api, "sort=last_activity")
        ann = await api.get("/users/ann")

    assert latest_first[0] == never_first[-1] == "bob"
    assert ann["server"] == "/user/ann/"
    assert ann["servers"][""]["ready"] is True


async def test_users_are_made_renamed_and_deleted(database_url: str, tmp_path: Path) -> None:
    """Making, renaming and deleting answer as the wire says, and an unchanged name is no change."""
    async with running_api(database_url, tmp_path) as api:
        again = await api.call("POST", "/users", {"usernames": ["ann", "bob"]})
        some = await api.call("POST", "/users", {"usernames": ["ann", "cy"]})
        wrong = await api.call("POST", "/users", {"usernames": ["dot", "a/b"]})
        exists = await api.call("POST", "/users/cy")
        same = await api.call("PATCH", "/users/cy", {"name": "cy", "admin": True})
        taken = await api.call("PATCH", "/users/cy", {"name": "ann"})
        renamed = await api.call("PATCH", "/users/cy", {"name": "cyril"})
        gone = await api.call("DELETE", "/users/cyril")
        oneself = await api.call("DELETE", "/users/admin")
        dot = await api.call("GET", "/users/dot")

    assert (again.status_code, again.json()["message"]) == (409, "All 2 users already exist")
    assert [user["name"] for user in some.json()] == ["cy"]
    assert (wrong.status_code, wrong.json()["message"]) == (400, "Invalid username: a/b")
    assert dot.status_code == 404
    assert (exists.status_code, exists.json()["message"]) == (409, "User cy already exists")
    assert (same.status_code, same.json()["name"], same.json()["admin"]) == (200, "cy", True)
    assert taken.status_code == 400
    assert renamed.json()["name"] == "cyril"
    assert (gone.status_code, gone.content) == (204, b"")
    assert oneself.json() == {"status": 400, "message": "Cannot delete yourself!"}


async def test_deleting_a_user_stops_their_servers_first(database_url: str, tmp_path: Path) -> None:
    """Nothing of a deleted user goes on running, and their tokens are refused."""
    async with running_api(database_url, tmp_path) as api:
        launch = await api.hub.becomes(await api.hub.start("ann"), Status.READY)
        gone = await api.call("DELETE", "/users/ann")
        ended = await api.hub.launch(launch.id)
        refused = await api.call("GET", "/user", token=ANN)

    assert gone.status_code == 204
    assert ended.status is Status.ENDED
    assert ended.user_name == "ann"
    assert refused.status_code == 403


async def test_only_administrators_touch_administrators(database_url: str, tmp_path: Path) -> None:
    """Whoever manages users without being an administrator neither makes nor changes one."""
    roles = [RoleSection(name="manager", scopes=["admin:users"], users=["ann"])]
    async with running_api(database_url, tmp_path, roles=roles, loops=False) as api:
        make = await api.call("PATCH", "/users/bob", {"admin": True}, token=ANN)
        many = await api.call("POST", "/users", {"usernames": ["x"], "admin": True}, token=ANN)
        change = await api.call("PATCH", "/users/admin", {"admin": False}, token=ANN)
        delete = await api.call("DELETE", "/users/admin", token=ANN)

    assert make.json()["message"] == "Only admins can grant admin permissions"
    assert many.json()["message"] == "Only admins can grant admin permissions"
    assert change.json()["message"] == "Only admins can modify other admins"
    assert {answer.status_code for answer in (make, many, change, delete)} == {403}


async def test_activity_only_ever_increases(database_url: str, tmp_path: Path) -> None:
    """A report is applied whole or not at all, never backwards, never from the future."""
    async with running_api(database_url, tmp_path) as api:
        await api.hub.becomes(await api.hub.start("ann"), Status.READY)

        async def report(body: object) -> tuple[int, str]:
            answer = await api.call("POST", "/users/ann/activity", body, token=ANN)
            return answer.status_code, answer.text

        now = api.hub.hub.clock.now().isoformat()
        assert await report({"last_activity": now, "servers": {"": {"last_activity": now}}}) == (
            200,
            "",
        )
        before = await api.get("/users/ann")
        assert (await report({"last_activity": "2001-01-01"}))[0] == 200
        assert (await report({"last_activity": "Mon, 01 Jan 2001 00:00:00 GMT"}))[0] == 200
        later = "2100-01-01T00:00:00"
        wrong: list[object] = [
            {"last_activity": later},
            {"last_activity": "soon"},
            {"last_activity": now, "servers": {"zz": {"last_activity": now}}},
            {"servers": {"": {"last_activity": later}}},
            {"servers": {"": {}}},
            {"servers": []},
            {},
            [],
        ]
        for body in wrong:
            assert (await report(body))[0] == 400, body
        after = await api.get("/users/ann")

    assert after["last_activity"] >= before["last_activity"]
    assert after["servers"] == before["servers"]
