"""Environments over the API: whose token may do what, and the words of a session."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from perijove.domain.launch import Launch, Status
from perijove.services.sections import FileToken, RoleSection
from perijove.services.specs import server_token
from tests.apis import ADMIN, ANN, BOB, TestApi, running_api

pytestmark = pytest.mark.anyio

READER = "token-of-a-reader"
MINE = "/perijove/users/ann/environments"
SYNC = "/perijove/environments/sync"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[TestApi]:
    """Give the API of a hub where ann and bob have worked where homes are kept."""
    given: dict[str, Any] = {
        "spawner": {"home_storage": "nfs"},
        "groups": {"lab": ["ann", "bob"]},
        "tokens": [FileToken(name="reader", service="reader", token=READER)],
        "roles": [RoleSection(name="readers", scopes=["read:servers"], services=["reader"])],
    }
    async with running_api(f"sqlite:///{tmp_path}/hub.sqlite", tmp_path, **given) as found:
        for name in ("ann", "bob"):
            await found.hub.becomes(await found.hub.start(name), Status.READY)
        yield found


async def launch_of(api: TestApi, name: str) -> Launch:
    """Return what somebody runs."""
    (found,) = [each for each in await api.hub.live() if each.user_name == name]
    return found


async def make(api: TestApi, **wish: Any) -> dict[str, Any]:
    """Ask for one as ann."""
    answer = await api.call("POST", MINE, {"name": "mine", **wish}, token=ANN)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def build(api: TestApi, made: dict[str, Any], lock: str = "numpy==2.0\n") -> None:
    """Let ann's session say that it was built."""
    token = server_token(api.hub.hub, await launch_of(api, "ann"))
    report = {"id": made["id"], "revision": 1, "state": "ready", "lock": lock, "size_bytes": 5}
    answer = await api.call("POST", SYNC, {"reports": [report]}, token=token)
    assert answer.status_code == 200, answer.text


async def test_one_is_made_changed_locked_and_removed(api: TestApi) -> None:
    """The whole life of one by its person's own token."""
    made = await make(api, packages=["numpy", "# and no more"])
    assert (made["state"], made["packages"], made["place"]) == ("wanted", ["numpy"], "homes:nfs")
    path = f"{MINE}/{made['id']}"
    assert (await api.call("GET", f"{path}/lock", token=ANN)).status_code == 404
    await build(api, made)
    assert (await api.get(path, token=ANN))["size_bytes"] == 5
    lock = await api.call("GET", f"{path}/lock", token=ANN)
    assert lock.text == "numpy==2.0\n"
    assert lock.headers["content-type"].startswith("text/plain")
    locked = await api.call("PATCH", path, {"locked": True}, token=ANN)
    assert locked.json()["locked"] is True
    refused = await api.call("DELETE", path, token=ANN)
    assert (refused.status_code, refused.json()["code"]) == (409, "environment-locked")
    await api.call("PATCH", path, {"locked": False, "shared_with": ["lab"]}, token=ANN)
    gone = await api.call("DELETE", path, token=ANN)
    assert (gone.status_code, gone.json()["state"]) == (202, "removing")


async def test_another_hears_of_none(api: TestApi) -> None:
    """Without the right over a person, the person's environments do not exist."""
    made = await make(api)
    for method, end, body in (
        ("GET", "", None),
        ("POST", "", {"name": "evil"}),
        ("GET", f"/{made['id']}", None),
        ("PATCH", f"/{made['id']}", {"packages": ["evil"]}),
        ("DELETE", f"/{made['id']}", None),
        ("GET", f"/{made['id']}/lock", None),
    ):
        answer = await api.call(method, MINE + end, body, token=BOB)
        assert answer.status_code == 404, (method, end, answer.text)
        assert (await api.call(method, MINE + end, body, token=None)).status_code == 403
    through_own = f"/perijove/users/bob/environments/{made['id']}"
    for method in ("GET", "PATCH", "DELETE"):
        answer = await api.call(method, through_own, {}, token=BOB)
        assert answer.status_code == 404
    assert (await api.get(f"{MINE}/{made['id']}"))["packages"] == []


async def test_who_may_read_may_not_change(api: TestApi) -> None:
    """An administrator lists and changes; a service that reads servers reads these, no more."""
    made = await make(api)
    for token in (ADMIN, READER):
        (found,) = (await api.get(MINE, token=token))["environments"]
        assert (found["name"], found["owner"]) == ("mine", "ann")
    refused = await api.call("DELETE", f"{MINE}/{made['id']}", token=READER)
    assert refused.status_code == 403
    assert (await api.call("DELETE", f"{MINE}/{made['id']}", token=ADMIN)).status_code == 204


async def test_a_session_speaks_with_its_own_token_only(api: TestApi) -> None:
    """No person's token says what lies there; a session's says it of its own person alone."""
    made = await make(api)
    for token in (ANN, ADMIN, READER):
        answer = await api.call("POST", SYNC, {}, token=token)
        assert (answer.status_code, answer.json()["code"]) == (403, "not-a-server")
    bobs = server_token(api.hub.hub, await launch_of(api, "bob"))
    report = {"id": made["id"], "revision": 1, "state": "ready"}
    answer = await api.call("POST", SYNC, {"reports": [report], "found": ["x"]}, token=bobs)
    assert answer.json()["environments"] == []
    (mine,) = (await api.get(MINE))["environments"]
    assert (mine["name"], mine["state"]) == ("mine", "wanted")
    for method, path in (("GET", MINE), ("POST", MINE), ("DELETE", f"{MINE}/{made['id']}")):
        body = {"name": "evil"} if method == "POST" else None
        assert (await api.call(method, path, body, token=bobs)).status_code in (403, 404)


async def test_a_session_that_ended_is_not_heard(api: TestApi) -> None:
    """Its token is good for nothing any more."""
    await make(api)
    launch = await launch_of(api, "ann")
    token = server_token(api.hub.hub, launch)
    assert (await api.call("POST", SYNC, {}, token=token)).status_code == 200
    await api.hub.stop("ann")
    await api.hub.becomes(launch, Status.ENDED)
    assert (await api.call("POST", SYNC, {"found": ["x"]}, token=token)).status_code == 403
    assert len((await api.get(MINE))["environments"]) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{",
        b'{"found": [7]}',
        b'{"found": "x"}',
        b'{"reports": [{"id": "x"}]}',
        b'{"reports": [{"id": 1, "revision": 1, "state": "ready", "size_bytes": 1e300}]}',
        b"\xff",
    ],
)
async def test_nonsense_of_a_session_is_refused(api: TestApi, body: bytes) -> None:
    """What is no report changes nothing."""
    token = server_token(api.hub.hub, await launch_of(api, "ann"))
    answer = await api.call("POST", SYNC, token=token, content=body)
    assert answer.status_code == 400, answer.text


async def test_a_hostile_session_changes_only_its_own_words(api: TestApi) -> None:
    """Numbers, names and words that fit nowhere are dropped, and the hub goes on."""
    made = await make(api)
    token = server_token(api.hub.hub, await launch_of(api, "ann"))
    odd = {"id": made["id"], "revision": 1, "state": "ready", "lock": "-e evil\n\x00"}
    reports = [odd, odd | {"size_bytes": -1}, odd | {"size_bytes": 1 << 60}, odd | {"id": 1 << 62}]
    found = ["../../etc", "\x00", "A", "x" * 10_000, "ok", "ok"]
    answer = await api.call("POST", SYNC, {"reports": reports, "found": found}, token=token)
    assert answer.status_code == 200, answer.text
    mine = {each["name"]: each for each in (await api.get(MINE))["environments"]}
    assert sorted(mine) == ["mine", "ok"]
    assert (mine["mine"]["state"], mine["mine"]["has_lock"]) == ("ready", False)
    assert mine["ok"]["maker"] == "hand"
    flood = {"found": ["x" * 50] * 30_000}
    assert (await api.call("POST", SYNC, flood, token=token)).status_code == 413


async def test_what_cannot_be_asked_for(api: TestApi) -> None:
    """Options, other people's groups, unknown fields and strange ids get a reason."""
    made = await make(api)
    path = f"{MINE}/{made['id']}"
    for method, where, body, status, code in (
        ("POST", MINE, {"name": "../x"}, 400, "environment-name"),
        ("POST", MINE, {"name": "mine"}, 409, "environment-exists"),
        ("POST", MINE, {"name": "x", "packages": ["-r /etc/passwd"]}, 400, "environment-package"),
        ("POST", MINE, {"name": "x", "lock": "numpy"}, 400, "environment-not-exact"),
        ("POST", MINE, {"name": "x", "place": "volume:evil"}, 400, "environment-place"),
        ("POST", MINE, {"name": "x", "copy_of": 999}, 404, "environment-unknown"),
        ("PATCH", path, {"locked": True}, 409, "environment-not-built"),
        ("PATCH", path, {"shared_with": ["admins"]}, 400, "environment-group"),
        ("GET", f"{MINE}/x", None, 404, "environment-unknown"),
        ("GET", f"{MINE}/{10**15}", None, 404, "environment-unknown"),
    ):
        answer = await api.call(method, where, body, token=ANN)
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
