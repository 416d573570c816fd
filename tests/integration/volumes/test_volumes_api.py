"""Volumes over the API: who sees which, deletes, restores and attaches them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from perijove.domain.launch import Status
from perijove.services.offers import PolicySection, ProfileSection
from tests.apis import ADMIN, ANN, BOB, TestApi, running_api

pytestmark = pytest.mark.anyio

PROFILE = ProfileSection.model_validate({"name": "only", "storage": {"size": "2 GiB"}})


@asynccontextmanager
async def api_with_volumes(
    directory: Path, policies: Sequence[PolicySection] = ()
) -> AsyncIterator[TestApi]:
    """Run a hub where ann and bob each have a server, stopped, with a volume."""
    url = f"sqlite:///{directory / 'hub.sqlite'}"
    given: dict[str, Any] = {"profile_sections": [PROFILE], "policies": list(policies)}
    async with running_api(url, directory, **given) as api:
        for user in ("ann", "bob"):
            await api.hub.becomes(await api.hub.start(user, "lab"), Status.READY)
            launch = await api.hub.stop(user, "lab")
            assert launch is not None
            await api.hub.becomes(launch, Status.ENDED)
        yield api


async def test_everybody_sees_what_is_theirs(tmp_path: Path) -> None:
    """A person lists their own, an administrator all, and of one person when asked."""
    async with api_with_volumes(tmp_path) as api:
        (mine,) = (await api.get("/perijove/volumes", token=ANN))["volumes"]
        assert (mine["user"], mine["server"], mine["kind"]) == ("ann", "lab", "server")
        assert (mine["size_bytes"], mine["path"]) == (2 * 2**30, "/home/jovyan")
        everything = await api.get("/perijove/volumes", token=ADMIN)
        assert [each["user"] for each in everything["volumes"]] == ["ann", "bob"]
        assert everything["unknown"] == []
        (one,) = (await api.get("/perijove/volumes?user=bob", token=ADMIN))["volumes"]
        assert one["user"] == "bob"
        assert (await api.get("/perijove/volumes?user=bob", token=ANN))["volumes"] == []


@pytest.mark.parametrize(
    ("method", "end"), [("GET", ""), ("DELETE", ""), ("POST", "/restore"), ("POST", "/attach")]
)
async def test_what_is_anothers_does_not_exist(tmp_path: Path, method: str, end: str) -> None:
    """Every act on somebody else's volume finds nothing, as does one on no volume."""
    async with api_with_volumes(tmp_path) as api:
        (volume,) = (await api.get("/perijove/volumes", token=ANN))["volumes"]
        for name in (volume["name"], "pj-none-none"):
            answer = await api.call(method, f"/perijove/volumes/{name}{end}", {}, token=BOB)
            assert answer.status_code == 404, answer.text


async def test_a_token_for_one_server_has_no_more_than_its_volume(tmp_path: Path) -> None:
    """Not the one of all of a person's servers, nor one of a server that is no more."""
    kept = PolicySection.model_validate({"groups": [], "users": ["bob"], "storage_kept": "user"})
    async with api_with_volumes(tmp_path, policies=[kept]) as api:
        volumes = (await api.get("/perijove/volumes", token=ADMIN))["volumes"]
        paths = {each["user"]: f"/perijove/volumes/{each['name']}" for each in volumes}
        tokens = {target: await token_for(api, target) for target in ("ann/lab", "bob/", "bob/lab")}
        await api.call("PUT", "/users/ann/servers/other", token=ANN)
        for target in ("bob/", "bob/lab"):
            assert (await api.get("/perijove/volumes", token=tokens[target]))["volumes"] == []
            answer = await api.call("DELETE", paths["bob"], token=tokens[target])
            assert answer.status_code == 404
        mine = tokens["ann/lab"]
        assert len((await api.get("/perijove/volumes", token=mine))["volumes"]) == 1
        path = f"{paths['ann']}/attach"
        moved = await api.call("POST", path, {"server": "other"}, token=mine)
        assert moved.status_code == 404
        assert (await api.call("POST", path, {"server": "lab"}, token=mine)).status_code == 200
        await api.call("DELETE", "/users/ann/servers/lab", {"remove": True}, token=ANN)
        await api.call("PUT", "/users/ann/servers/lab", token=ANN)
        assert (await api.get("/perijove/volumes", token=mine))["volumes"] == []


async def token_for(api: TestApi, target: str) -> str:
    """Return a token of somebody's that is for one server of theirs."""
    user = target.partition("/")[0]
    scopes = [f"{name}!server={target}" for name in ("servers", "read:servers")]
    answer = await api.call("POST", f"/users/{user}/tokens", {"scopes": scopes}, token=ADMIN)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["token"])


async def test_a_volume_is_deleted_restored_and_attached(tmp_path: Path) -> None:
    """Deleted it says until when it can be had back; restored and attached it is used again."""
    async with api_with_volumes(tmp_path) as api:
        (volume,) = (await api.get("/perijove/volumes", token=ANN))["volumes"]
        path = f"/perijove/volumes/{volume['name']}"
        deleted = (await api.call("DELETE", path, token=ANN)).json()
        assert deleted["delete_after"] > deleted["created_at"]
        assert deleted["attached"] is False
        restored = (await api.call("POST", f"{path}/restore", token=ANN)).json()
        assert (restored["delete_after"], restored["attached"]) == (None, True)
        await api.call("PUT", "/users/ann/servers/other", token=ANN)
        moved = await api.call("POST", f"{path}/attach", {"server": "other"}, token=ANN)
        assert (moved.status_code, moved.json()["server"]) == (200, "other")
        started = await api.hub.becomes(await api.hub.start("ann", "other"), Status.READY)
        assert [each["name"] for each in started.spec["volumes"]] == [volume["name"]]
        in_use = await api.call("DELETE", path, token=ANN)
        assert (in_use.status_code, in_use.json()["code"]) == (409, "volume-in-use")


async def test_scripts_delete_a_server_with_its_volume(tmp_path: Path) -> None:
    """The wire's ``remove`` goes on working, and the volume can be had back for its days."""
    async with api_with_volumes(tmp_path) as api:
        answer = await api.call("DELETE", "/users/ann/servers/lab", {"remove": True}, token=ANN)
        assert answer.status_code == 204
        (volume,) = (await api.get("/perijove/volumes", token=ANN))["volumes"]
        assert (volume["server"], volume["attached"]) == (None, False)
        assert volume["delete_after"] is not None


async def test_a_volume_follows_a_renamed_person(tmp_path: Path) -> None:
    """It stays its owner's under a new name, and is not of who takes the old one."""
    async with api_with_volumes(tmp_path) as api:
        answer = await api.call("PATCH", "/users/ann", {"name": "anna"}, token=ADMIN)
        assert answer.status_code == 200
        assert (await api.call("POST", "/users/ann", token=ADMIN)).status_code == 201
        (hers,) = (await api.get("/perijove/volumes", token=ANN))["volumes"]
        assert hers["user"] == "anna"
        del api.hub.users["ann"]
        launch = await api.hub.becomes(await api.hub.start("ann", "lab"), Status.READY)
        assert launch.spec["volumes"][0]["name"] != hers["name"]
