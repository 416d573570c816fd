"""``perijove environments``, run by a shell against a hub that answers at an address."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from perijove.db import environments as rows
from perijove.db.core import bound
from perijove.db.environments import Environment, list_of
from perijove.domain.launch import Status
from perijove.services.specs import server_token
from tests.apis import BOB, TestApi
from tests.integration.client.serving import LoginNode, login_node

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def a_node(directory: Path, **given: Any) -> AsyncIterator[LoginNode]:
    """Give a login node where ann is signed in, and ann and bob have worked where homes last."""
    given = {"spawner": {"home_storage": "nfs"}, "groups": {"lab": ["ann", "bob"]}, **given}
    async with login_node(directory, **given) as node:
        for name in ("ann", "bob"):
            await node.api.hub.becomes(await node.api.hub.start(name), Status.READY)
        await node.sign_in()
        yield node


async def known(api: TestApi, name: str) -> Environment:
    """Return an environment of ann's as the hub has it."""
    user_id = await api.hub.user("ann")
    found = {each.name: each for each in await api.hub.hub.database.read(bound(list_of, user_id))}
    return found[name]


async def told(api: TestApi, name: str, **report: Any) -> None:
    """Let ann's session say what became of one."""
    (launch,) = [each for each in await api.hub.live() if each.user_name == "ann"]
    it = await known(api, name)
    said = {"id": it.id, "revision": it.revision, "state": "ready", **report}
    token = server_token(api.hub.hub, launch)
    answer = await api.call("POST", "/perijove/environments/sync", {"reports": [said]}, token=token)
    assert answer.status_code == 200, answer.text


async def test_one_from_wish_to_removal(tmp_path: Path) -> None:
    """Asked for, built, locked, shared, changed and removed, each with one command."""
    async with a_node(tmp_path) as node:
        empty = await node.run("environments", "list", "--json")
        assert empty.answer == {"environments": [], "shared": [], "places": ["homes:nfs"]}
        asked = await node.run("environments", "create", "stats", "numpy>=2", "pandas")
        assert (asked.code, asked.stdout) == (0, "stats: waits for a session\n"), asked.stderr
        assert (await known(node.api, "stats")).packages == ["numpy>=2", "pandas"]

        await told(node.api, "stats", lock="numpy==2.0\n", size_bytes=3 << 20)
        versions = await node.run("environments", "versions", "stats")
        assert versions.stdout == "numpy==2.0\n"
        locked = (await node.run("environments", "lock", "stats", "--json")).answer
        assert (locked["locked"], locked["state"], locked["place"]) == (True, "ready", "homes:nfs")
        refused = await node.run("environments", "remove", "stats", "--json")
        assert (refused.code, refused.error["code"]) == (1, "environment-locked")
        unlocked = await node.run("environments", "unlock", "stats")
        assert unlocked.stdout == "stats: ready\n"
        shared = await node.run("environments", "share", "stats", "lab")
        assert shared.stdout == "stats: ready, shared with lab\n"
        assert (await node.run("environments", "share", "stats")).stdout == "stats: ready\n"

        changed = await node.run("environments", "change", "stats", "-r", "-", given="scipy\n#x\n")
        assert changed.stdout == "stats: waits for a session\n"
        assert (await known(node.api, "stats")).packages == ["scipy"]
        await told(node.api, "stats", state="failed", error="a\nno [bold]scipy[/]\x1b[2J")
        listed = await node.run("environments", "list")
        assert "could not be built" in listed.stdout
        assert "3 MiB" in listed.stdout
        assert listed.stderr == "\nstats: no [bold]scipy[/]\n"
        again = await node.run("environments", "retry", "stats")
        assert again.stdout == "stats: waits for a session\n"
        removed = await node.run("environments", "remove", "stats", "--json")
        assert removed.answer == {"name": "stats", "removed": False}
        await told(node.api, "stats", state="removed")
        assert (await node.run("environments", "list")).stdout == "none\n"


async def test_exactly_these_versions(tmp_path: Path) -> None:
    """From a file of one's own, or of what somebody shares; what was never built goes at once."""
    async with a_node(tmp_path) as node:
        await node.run("environments", "create", "mine")
        await told(node.api, "mine", lock="numpy==2.0\n")
        await node.run("environments", "share", "mine", "lab")
        file = tmp_path / "exact.txt"
        file.write_text((await node.run("environments", "versions", "mine")).stdout)
        made = await node.run("environments", "create", "other", "--lock", str(file), "--json")
        assert (made.answer["locked"], made.answer["has_lock"]) == (True, True)
        await node.run("environments", "unlock", "other")
        gone = await node.run("environments", "remove", "other", "--json")
        assert gone.answer["removed"] is False, "it has a lock: somebody may have built it"
        await node.run("environments", "create", "idea")
        assert (await node.run("environments", "remove", "idea")).stdout == "Removed.\n"

        node.environ = {"PERIJOVE_URL": node.url, "PERIJOVE_TOKEN": BOB}
        assert "ann/mine" in (await node.run("environments", "list")).stdout
        copied = await node.run("environments", "copy", "ann/mine", "--name", "bobs", "--json")
        assert (copied.answer["owner"], copied.answer["name"]) == ("bob", "bobs")
        assert (await node.run("environments", "copy", "bobs", "--name", "twice")).code == 0


async def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    """Wrong words end with 2, and what a rule of the site forbids with 1."""
    policies = [{"groups": [], "users": ["bob"], "environments": False}]
    async with a_node(tmp_path, policies=policies) as node:
        await node.run("environments", "create", "mine")
        for arguments, words in (
            (["lock", "nothing"], "There is: mine."),
            (["copy", "bob/mine"], "There is: none."),
            (["create", "../x"], "cannot be an environment's name"),
            (["create", "x", "-r", str(tmp_path / "no")], "No such file"),
            (["create", "x", "--", "--index-url=http://evil.test"], "is not a package"),
            (["create", "x", "--place", "volume:evil"], "no such place"),
            (["share", "mine", "admins"], "you are not in admins"),
        ):
            done = await node.run("environments", *arguments)
            assert (done.code, words in done.stderr) == (2, True), (arguments, done)
        unbuilt = await node.run("environments", "versions", "mine", "--json")
        assert (unbuilt.code, unbuilt.error["code"]) == (1, "environment-not-built")
        node.environ = {"PERIJOVE_URL": node.url, "PERIJOVE_TOKEN": BOB}
        assert (await node.run("environments", "create", "mine")).code == 1


async def test_the_same_name_at_two_places_is_asked_back(tmp_path: Path) -> None:
    """Each storage has environments of its own, and `--place` says which is meant."""
    async with a_node(tmp_path) as node:
        await node.run("environments", "create", "mine")
        row = await known(node.api, "mine")
        moved = {"place": "homes:old"}
        await node.api.hub.hub.database.write(bound(rows.change, row.id, **moved))
        await node.run("environments", "create", "mine")
        unclear = await node.run("environments", "remove", "mine")
        assert (unclear.code, "homes:nfs, homes:old" in unclear.stderr) == (2, True)
        assert "homes:old" in (await node.run("environments", "list")).stdout
        clear = await node.run("environments", "remove", "mine", "--place", "homes:nfs")
        assert clear.stdout == "Removed.\n"
        assert (await known(node.api, "mine")).place == "homes:old"
