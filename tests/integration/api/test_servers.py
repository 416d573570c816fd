"""Servers over the REST API, with the real loops (wire §2.6.6 to §2.7, Appendix B)."""

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from perijove.domain.launch import Cause, End, Status
from perijove.kit.loops import until
from perijove.services.offers import PolicySection
from perijove.services.sections import RoleSection
from perijove.web.api.calls import Patience
from tests.apis import ANN, BOB, SERVICE, TestApi, running_api
from tests.hubs import PATIENCE

pytestmark = pytest.mark.anyio

EXITED = End(cause=Cause.EXITED, code=3)
AT_ONCE = Patience(start=0, stop=0)
NAMED = [PolicySection(name="named", groups=["*"], named_servers=2)]


def sqlite(tmp_path: Path) -> str:
    """Return the URL of a fresh file."""
    return f"sqlite:///{tmp_path}/hub.db"


async def test_start_waits_for_ready_and_stop_for_the_end(
    database_url: str, tmp_path: Path
) -> None:
    """A start that is ready in time is a 201, a stop that ends in time a 204, both repeatable."""
    async with running_api(database_url, tmp_path) as api:
        started = await api.call("POST", "/users/ann/server", token=ANN)
        running = await api.get("/users/ann/server", token=ANN)
        again = await api.call("POST", "/users/ann/server", token=ANN)
        stopped = await api.call("DELETE", "/users/ann/server", token=ANN)
        after = await api.get("/users/ann/servers/", token=ANN)
        once_more = await api.call("DELETE", "/users/ann/server", token=ANN)

    assert (started.status_code, started.content) == (201, b"")
    assert running["ready"] is True
    assert running["started"] is not None
    assert again.json() == {"status": 400, "message": "ann is already running"}
    assert stopped.status_code == 204
    assert (after["stopped"], after["started"], after["pending"]) == (True, None, None)
    assert once_more.status_code == 204


async def test_start_answers_202_while_it_is_on_its_way(database_url: str, tmp_path: Path) -> None:
    """Who asks again while a server starts is told that it starts; a stop cancels it."""
    async with running_api(database_url, tmp_path, answers=False, patience=AT_ONCE) as api:
        first = await api.call("POST", "/users/ann/server", token=ANN)
        again = await api.call("POST", "/users/ann/server", token=ANN)
        pending = await api.get("/users/ann", token=ANN)
        cancelled = await api.call("DELETE", "/users/ann/server", token=ANN)

        async def is_gone() -> bool:
            return not (await api.get("/users/ann", token=ANN))["servers"]

        assert await until(is_gone, seconds=PATIENCE)

    assert (first.status_code, again.status_code) == (202, 202)
    assert pending["pending"] == "spawn"
    assert pending["servers"][""]["ready"] is False
    assert cancelled.status_code in (202, 204)


async def test_options_reach_the_launch_and_a_clients_own_are_kept(
    database_url: str, tmp_path: Path
) -> None:
    """A whole body, or ``user_options``, holds our options beside what a client keeps there."""
    async with running_api(database_url, tmp_path, loops=False, patience=AT_ONCE) as api:
        legacy = {"image": "python:3", "token": "abc", "ui": "notebook"}
        await api.call("POST", "/users/ann/server", legacy, token=ANN)
        shown = await api.get("/users/ann/server", token=ANN)
        new = {"user_options": {"profile": "default", "options": {"ui": "terminal"}}}
        await api.call("POST", "/users/bob/server", new, token=BOB)
        launches = {launch.user_name: launch for launch in await api.hub.live()}

    assert shown["user_options"] == {
        "image": "python:3", "token": "abc", "profile": "default", "options": {"ui": "notebook"},
    }  # fmt: skip
    assert launches["ann"].spec["options"]["ui"] == "notebook"
    assert launches["bob"].spec["default_url"] == "/terminals/1"


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"profile": "none"}, "profile"),
        ({"profile": 3}, "profile"),
        ({"user_options": {"options": []}}, "options"),
        ({"user_options": "x"}, "user_options"),
        ({"display_name": 3}, "display_name"),
        ({"display_name": " x"}, "display_name"),
        ({"profile": "default", "options": {"cpu": 4}}, "cpu"),
        ([], "JSON object"),
        ("x", "JSON object"),
    ],
)
async def test_wrong_options_start_nothing(tmp_path: Path, body: Any, word: str) -> None:
    """What cannot be asked for is a 400 that names it, and no launch."""
    async with running_api(sqlite(tmp_path), tmp_path, loops=False, patience=AT_ONCE) as api:
        answer = await api.call("POST", "/users/ann/server", body, token=ANN)
        live = await api.hub.live()

    assert answer.status_code == 400
    assert word.lower() in answer.json()["message"].lower()
    assert live == []


async def test_refusal_names_rule_limit_and_what_was_asked(
    database_url: str, tmp_path: Path
) -> None:
    """A policy's no is a 400 on the wire's paths, with the facts in text and headers."""
    policies = [PolicySection(name="few", groups=["*"], named_servers=2, active_servers=1)]
    async with running_api(
        database_url, tmp_path, loops=False, patience=AT_ONCE, policies=policies
    ) as api:
        await api.call("POST", "/users/ann/server", token=ANN)
        refused = await api.call("POST", "/users/ann/servers/two", token=ANN)

    assert refused.status_code == 400
    assert "policy few allows 1" in refused.json()["message"]
    assert refused.json().keys() == {"status", "message"}
    assert refused.headers["x-perijove-code"] == "refused-active-servers"
    assert refused.headers["x-perijove-limit"] == "1"
    assert refused.headers["x-perijove-asked"] == "2"


async def test_named_servers_are_made_described_renamed_and_removed(
    database_url: str, tmp_path: Path
) -> None:
    """A named server exists from its making until it is removed, under the name it has then."""
    async with running_api(database_url, tmp_path, policies=NAMED) as api:

        async def call(method: str, path: str, body: Any = None) -> tuple[int, Any]:
            answer = await api.call(method, f"/users/ann/{path}", body, token=ANN)
            return answer.status_code, answer.json() if answer.content else None

        status, made = await call("PUT", "servers/lab", {"display_name": "My Lab"})
        assert (status, made["display_name"], made["stopped"]) == (201, "My Lab", True)
        assert made["full_name"] == "ann/lab"
        assert made["progress_url"] == "/hub/api/users/ann/servers/lab/progress"
        assert (await call("PUT", "servers/lab"))[0] == 409
        assert (await call("PUT", "server"))[0] == 409
        assert (await call("PUT", "servers/Bad Name"))[0] == 400
        assert (await call("PATCH", "servers/lab", {}))[0] == 400
        assert (await call("PATCH", "servers/lab", {"colour": "red"}))[0] == 400
        status, renamed = await call("PATCH", "servers/lab", {"name": "work"})
        assert (status, renamed["name"], renamed["url"]) == (200, "work", "/user/ann/work/")
        assert (await call("PUT", "servers/two"))[0] == 201
        status, full = await call("PUT", "servers/three")
        assert status == 400
        assert full["message"].startswith("User ann already has the maximum of 2 named servers.")
        assert (await call("POST", "servers/work"))[0] == 201
        status, active = await call("PATCH", "servers/work", {"display_name": "x"})
        assert active["message"] == ("ann:work is active. Please stop it before modifying it.")
        assert (await call("DELETE", "servers/work", {"remove": True}))[0] == 204
        assert (await call("GET", "servers/work"))[0] == 404
        assert (await call("DELETE", "servers/work"))[0] == 404
        assert (await call("DELETE", "server", {"remove": True}))[0] == 400
        assert (await call("DELETE", "servers/two", {"remove": "yes"}))[0] == 400


async def test_named_servers_may_be_switched_off(tmp_path: Path) -> None:
    """Where no policy allows a named server, asking for one says so in the wire's words."""
    policies = [PolicySection(name="none", groups=["*"], named_servers=0)]
    async with running_api(sqlite(tmp_path), tmp_path, loops=False, policies=policies) as api:
        answer = await api.call("PUT", "/users/ann/servers/x", token=ANN)

    assert answer.json() == {"status": 400, "message": "Named servers are not enabled."}


async def test_limits_to_one_server_show_one_server(tmp_path: Path) -> None:
    """A caller with one server's scope sees and stops that one, and not its owner."""
    roles = [
        RoleSection(
            name="one",
            scopes=["servers!server=ann/lab", "admin:server_state!server=ann/lab"],
            services=["culler"],
        )
    ]
    async with running_api(
        sqlite(tmp_path), tmp_path, roles=roles, policies=NAMED, loops=False
    ) as api:
        for name in ("lab", "other"):
            await api.call("PUT", f"/users/ann/servers/{name}")
        lab = await api.get("/users/ann/servers/lab", token=SERVICE)
        other = await api.call("GET", "/users/ann/servers/other", token=SERVICE)
        owner = await api.call("GET", "/users/ann", token=SERVICE)
        mine = await api.get("/users/ann/servers/lab", token=ANN)

    assert lab["state"] == {}
    assert "state" not in mine
    assert (other.status_code, owner.status_code) == (404, 404)


async def test_server_that_dies_early_is_a_clean_failure(database_url: str, tmp_path: Path) -> None:
    """A start that fails while the request waits is a 500 with the exit status; all is reset."""
    async with (
        running_api(database_url, tmp_path, answers=False) as api,
        anyio.create_task_group() as tasks,
    ):

        async def is_there() -> bool:
            return bool(api.hub.platform.present)

        async def kill() -> None:
            assert await until(is_there, seconds=PATIENCE)
            api.hub.platform.end(next(iter(api.hub.platform.present)), EXITED)
            api.hub.hub.look.ring()

        tasks.start_soon(kill)
        answer = await api.call("POST", "/users/ann/server", token=ANN)
        after = await api.get("/users/ann/server", token=ANN)
        events = await _stream(api, "/users/ann/server/progress")

    assert answer.status_code == 500
    assert answer.json()["message"] == (
        "Spawner failed to start [status=3]. The logs for ann may contain details."
    )
    assert after["stopped"] is True
    assert [event.get("failed") for event in events] == [True]
    assert events[0]["message"].startswith("Spawn failed: ")


async def _stream(api: TestApi, path: str, token: str = ANN) -> list[dict[str, Any]]:
    answer = await api.call("GET", path, token=token)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/event-stream"
    blocks = [block for block in answer.text.split("\n\n") if block.strip("\n")]
    assert all(block.strip("\n").startswith("data: {") for block in blocks)
    return [json.loads(block.strip("\n").removeprefix("data: ")) for block in blocks]


async def test_progress_tells_a_start_from_its_beginning(database_url: str, tmp_path: Path) -> None:
    """The stream begins with the request, goes through the stages, and ends when it is ready."""
    async with running_api(database_url, tmp_path, patience=AT_ONCE) as api:
        early = await api.call("GET", "/users/ann/server/progress", token=ANN)
        await api.call("POST", "/users/ann/server", token=ANN)
        whole = await _stream(api, "/users/ann/server/progress")
        ready = await _stream(api, "/users/ann/server/progress")
        await api.call("DELETE", "/users/ann/server", token=ANN)
        late = await api.call("GET", "/users/ann/server/progress", token=ANN)
        hidden = await api.call("GET", "/users/ann/server/progress", token=BOB)

    assert early.status_code == 404
    assert whole[0] == {"progress": 0, "message": "Server requested"}
    assert (
        whole[-1]
        == ready[0]
        == {
            "progress": 100,
            "ready": True,
            "message": "Server ready at /user/ann/",
            "html_message": 'Server ready at <a href="/user/ann/">/user/ann/</a>',
            "url": "/user/ann/",
        }
    )
    assert len(ready) == 1
    numbers = [event["progress"] for event in whole if "progress" in event]
    assert numbers == sorted(numbers)
    assert late.json() == {"status": 400, "message": "ann is not starting..."}
    assert hidden.status_code == 404


async def test_progress_of_a_cancelled_start_says_so(database_url: str, tmp_path: Path) -> None:
    """A stream that is open while the start is cancelled ends with that."""
    async with (
        running_api(database_url, tmp_path, answers=False, patience=AT_ONCE) as api,
        anyio.create_task_group() as tasks,
    ):
        await api.call("POST", "/users/ann/server", token=ANN)
        events: list[dict[str, Any]] = []

        async def follow() -> None:
            events.extend(await _stream(api, "/users/ann/server/progress"))

        tasks.start_soon(follow)
        await api.call("DELETE", "/users/ann/server", token=ANN)

    assert events[-1] == {"progress": 100, "failed": True, "message": "Spawn cancelled"}


async def test_launch_shows_the_whole_truth(database_url: str, tmp_path: Path) -> None:
    """Our own resource tells status, clock, place, profile and events; strangers see nothing."""
    async with running_api(database_url, tmp_path, loops=False, patience=AT_ONCE) as api:
        await api.call("POST", "/users/ann/server", token=ANN)
        (launch,) = await api.hub.live()
        shown = await api.get(f"/perijove/launches/{launch.id}", token=ANN)
        events = await api.get(f"/perijove/launches/{launch.id}/events", token=ANN)
        stranger = await api.call("GET", f"/perijove/launches/{launch.id}", token=BOB)
        wrong = await api.call("GET", f"/perijove/launches/{launch.id}/events?after=x", token=ANN)
        options = await api.get("/perijove/users/ann/options", token=ANN)

    assert (shown["status"], shown["wanted"], shown["end"]) == ("requested", "run", None)
    assert shown["line"] == {"place": 1, "of": 1}
    assert shown["profile"] == "default"
    assert [event["code"] for event in events["events"]] == ["requested"]
    assert events["events"][0]["actor"] == "ann"
    assert stranger.status_code == 404
    assert stranger.headers["content-type"] == "application/problem+json"
    assert stranger.json()["code"] == "not-found"
    assert wrong.json()["field"] == "after"
    assert options["chosen"]["profile"] == "default"


async def test_launch_is_its_owners_whatever_names_change(
    database_url: str, tmp_path: Path
) -> None:
    """Neither a new name nor a namesake changes whose launch it was."""
    async with running_api(database_url, tmp_path) as api:
        launch = await api.hub.becomes(await api.hub.start("ann"), Status.READY)
        path = f"/perijove/launches/{launch.id}"
        await api.call("DELETE", "/users/ann/server")
        await api.hub.becomes(launch, Status.ENDED)
        await api.call("PATCH", "/users/ann", {"name": "anna"})
        await api.call("PATCH", "/users/bob", {"name": "ann"})
        mine = await api.call("GET", path, token=ANN)
        namesakes = await api.call("GET", path, token=BOB)
        await api.call("DELETE", "/users/anna")
        left = await api.call("GET", path)
        orphaned = await api.call("GET", path, token=BOB)

    assert (mine.status_code, namesakes.status_code) == (200, 404)
    assert (left.status_code, orphaned.status_code) == (200, 404)
    assert left.json()["user"] == "ann"


async def test_event_stream_goes_on_where_it_broke_off(database_url: str, tmp_path: Path) -> None:
    """Our event stream numbers events, and ``Last-Event-ID`` continues after one."""
    async with running_api(database_url, tmp_path) as api:
        launch = await api.hub.becomes(await api.hub.start("ann"), Status.READY)
        await api.hub.stop("ann")
        await api.hub.becomes(launch, Status.ENDED)
        headers = {"accept": "text/event-stream", "last-event-id": "2"}
        path = f"/perijove/launches/{launch.id}/events"
        answer = await api.call("GET", path, token=ANN, headers=headers)
        known = [event.seq for event in await api.hub.events(launch.id)]

    ids = [int(line[4:]) for line in answer.text.splitlines() if line.startswith("id: ")]
    assert ids == [seq for seq in known if seq > 2]


@pytest.mark.parametrize("path", ["/users/ann/server/progress", "/perijove/launches/{}/events"])
async def test_a_stream_ends_when_its_token_counts_no_more(
    database_url: str, tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start may take days: who loses the right meanwhile hears no more of it."""
    monkeypatch.setattr("perijove.web.api.routing.CHECK_SECONDS", 0.05)
    async with running_api(database_url, tmp_path, loops=False, patience=AT_ONCE) as api:
        made = (await api.call("POST", "/users/ann/tokens", {}, token=ANN)).json()
        await api.call("POST", "/users/ann/server", token=ANN)
        (launch,) = await api.hub.live()
        ended = anyio.Event()

        async def follow() -> None:
            headers = {"accept": "text/event-stream"}
            asked = path.format(launch.id)
            answer = await api.call("GET", asked, token=made["token"], headers=headers)
            assert answer.status_code == 200
            ended.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            await anyio.wait_all_tasks_blocked()
            assert not ended.is_set()

            await api.call("DELETE", f"/users/ann/tokens/{made['id']}", token=ANN)

            with anyio.fail_after(PATIENCE):
                await ended.wait()
        assert (await api.hub.launch(launch.id)).is_live
