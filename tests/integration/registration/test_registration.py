"""The hub's side of a registration, asked by hand: who is believed, and what is given out."""

import hashlib
import hmac
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest
from sqlalchemy import Connection, update

from perijove.db.core import bound
from perijove.db.launches import list_handles
from perijove.db.tables import launches
from perijove.domain.launch import Cause, End, Launch, Status
from perijove.services.specs import registration_code, server_token
from perijove.spawners.contract import Phase, Survey
from tests.apis import TestApi, running_api
from tests.fakes.spawners import MemoryPlatform, Registering
from tests.hubs import PATIENCE

pytestmark = pytest.mark.anyio

PATH = "/perijove/registrations"


class Node:
    """Where a job listens: it proves that it knows a code, or that it does not."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.code = ""
        self.asked = 0

    async def handle(self, stream: anyio.abc.SocketStream) -> None:
        """Answer one challenge, or be left by who asks no more."""
        async with stream:
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                await self._answer(stream)

    async def _answer(self, stream: anyio.abc.SocketStream) -> None:
        head = await stream.receive()
        self.asked += 1
        challenge = head.split(b" ")[1].lstrip(b"/")
        made = hmac.new(self.code.encode(), b"perijove challenge " + challenge, hashlib.sha256)
        await stream.send(b"HTTP/1.1 200 OK\r\n\r\n" + made.hexdigest().encode())


@asynccontextmanager
async def running_node() -> AsyncIterator[Node]:
    """Listen on a free port."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    node = Node(listener.extra(anyio.abc.SocketAttribute.local_port))
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, node.handle)
        yield node
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def registering(
    database_url: str, directory: Path
) -> AsyncIterator[tuple[TestApi, Node, Launch]]:
    """Run a hub with a launch that runs as job 17, and a node where that job listens."""
    async with (
        running_node() as node,
        running_api(database_url, directory, wrap=Registering) as api,
    ):
        platform: MemoryPlatform = api.hub.platform
        platform.url = ""
        launch = await api.hub.start()
        launch = await api.hub.becomes(launch, Status.STARTING)
        api.hub.spawner.jobs["17"] = launch.name
        node.code = registration_code(api.hub.hub, launch)
        yield api, node, launch


def claim(node: Node, launch: Launch, **changes: Any) -> dict[str, Any]:
    """Return what the job of a launch says."""
    return {
        "launch_id": launch.id,
        "code": node.code,
        "nonce": "ab" * 16,
        "job_id": "17",
        "host": "127.0.0.1",
        "port": node.port,
    } | changes


def identity(body: dict[str, Any]) -> dict[str, Any]:
    """Return who speaks, without the claim."""
    return {name: body[name] for name in ("launch_id", "code", "nonce", "job_id")}


async def test_the_same_run_gets_the_same_answer(database_url: str, tmp_path: Path) -> None:
    """A repeated registration costs no second challenge; the job's handle is recorded once."""
    async with registering(database_url, tmp_path) as (api, node, launch):
        body = claim(node, launch)
        first = await api.call("POST", PATH, body, token=None)
        again = await api.call("POST", PATH, body, token=None)

        token = server_token(api.hub.hub, launch)
        assert first.json() == again.json() == {"environment": {"JUPYTERHUB_API_TOKEN": token}}
        assert first.headers["cache-control"] == "no-store"
        assert node.asked == 1
        handles = await api.hub.hub.database.read(bound(list_handles, launch.id))
        assert handles[0] == {"user": "ann", "job_id": "17"}
        assert (await api.hub.launch(launch.id)).url == ""

        listening = await api.call("POST", f"{PATH}/listening", identity(body), token=None)

        assert listening.status_code == 204
        await api.hub.becomes(launch, Status.CONNECTING, Status.READY)
        assert (await api.hub.launch(launch.id)).url == f"http://127.0.0.1:{node.port}"


async def test_another_run_takes_the_token_over(database_url: str, tmp_path: Path) -> None:
    """With a new nonce the same job gets a new token; the old token and the old run are over."""
    async with registering(database_url, tmp_path) as (api, node, launch):
        body = claim(node, launch)
        first = await api.call("POST", PATH, body, token=None)
        old = first.json()["environment"]["JUPYTERHUB_API_TOKEN"]
        assert (await api.call("GET", "/user", token=old)).status_code == 200

        second = await api.call("POST", PATH, body | {"nonce": "cd" * 16}, token=None)
        new = second.json()["environment"]["JUPYTERHUB_API_TOKEN"]

        assert new != old
        assert (await api.call("GET", "/user", token=old)).status_code == 403
        assert (await api.call("GET", "/user", token=new)).status_code == 200
        late = await api.call("POST", f"{PATH}/listening", identity(body), token=None)
        assert (late.status_code, late.json()["code"]) == (409, "not-registered")


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"code": "0" * 64}, 403, "code-refused"),
        ({"launch_id": "lch_of_nobody"}, 403, "code-refused"),
        ({"job_id": "18"}, 422, "job-mismatch"),
        ({"host": "elsewhere"}, 422, "host-refused"),
        ({"port": 70_000}, 400, "body-schema"),
        ({"code": "short"}, 400, "body-schema"),
        ({"job_id": "17; id"}, 400, "body-schema"),
        ({"url": "http://169.254.169.254"}, 400, "body-schema"),
        ({"versions": {"python": "3" * 20_000}}, 413, "body-too-large"),
    ],
)
async def test_who_is_not_believed_gets_nothing(
    url: str, tmp_path: Path, changes: dict[str, Any], status: int, code: str
) -> None:
    """A wrong code, job, host or form is refused before the hub connects anywhere."""
    async with registering(url, tmp_path) as (api, node, launch):
        body = claim(node, launch, **changes)
        answer = await api.call("POST", PATH, body, token=None)

        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert node.code not in answer.text
        assert node.asked == 0


async def test_somebody_else_at_the_port_gets_nothing(url: str, tmp_path: Path) -> None:
    """Who listens where a job says it does must know its code, and must be there."""
    async with registering(url, tmp_path) as (api, node, launch):
        body = claim(node, launch)
        node.code = "another one"
        stranger = await api.call("POST", PATH, body, token=None)
        nobody = await api.call("POST", PATH, body | {"port": 1}, token=None)

        for answer in (stranger, nobody):
            assert (answer.status_code, answer.json()["code"]) == (422, "cannot-reach")
        assert nobody.json()["params"] == {"host": "127.0.0.1", "port": 1}


async def test_the_second_job_is_refused(url: str, tmp_path: Path) -> None:
    """The first job of a launch that registers is the one, whatever a second one knows."""
    async with registering(url, tmp_path) as (api, node, launch):
        api.hub.spawner.jobs["18"] = launch.name
        body = claim(node, launch)
        await api.call("POST", PATH, body, token=None)

        second = await api.call("POST", PATH, body | {"job_id": "18"}, token=None)

        assert (second.status_code, second.json()["code"]) == (409, "second-job")


async def test_after_the_end_there_is_nothing_to_register(url: str, tmp_path: Path) -> None:
    """A launch that is to end, or has, takes no registration and no report."""
    async with registering(url, tmp_path) as (api, node, launch):
        await api.hub.stop()
        body = claim(node, launch)

        for path, sent in ((PATH, body), (f"{PATH}/listening", identity(body))):
            answer = await api.call("POST", path, sent, token=None)
            assert (answer.status_code, answer.json()["code"]) == (410, "launch-over")


async def test_guessing_is_slowed_down_and_the_right_one_is_not(
    database_url: str, tmp_path: Path
) -> None:
    """Many wrong codes from one place are refused for a while; the launch's own job never is."""
    async with registering(database_url, tmp_path) as (api, node, launch):
        statuses = set()
        for _ in range(12):
            body = claim(node, launch, code=secrets.token_hex(32))
            statuses.add((await api.call("POST", PATH, body, token=None)).status_code)
        right = await api.call("POST", PATH, claim(node, launch), token=None)

        assert statuses == {403, 429}
        assert right.status_code == 200


async def test_a_silent_scheduler_means_to_try_again(url: str, tmp_path: Path) -> None:
    """While nobody can say whose a job is, it is neither believed nor refused."""
    async with registering(url, tmp_path) as (api, node, launch):
        api.hub.spawner.active = False
        answer = await api.call("POST", PATH, claim(node, launch), token=None)

        assert (answer.status_code, answer.json()["code"]) == (503, "spawner-away")


@pytest.mark.parametrize(
    ("report", "end"),
    [
        (
            {"kind": "cannot", "reason": "module-failed", "words": "no such module"},
            End(cause=Cause.NEVER_STARTED, reason="module-failed", detail="no such module"),
        ),
        (
            {"kind": "cannot", "reason": "invented"},
            End(cause=Cause.NEVER_STARTED, reason="wrapper-failed"),
        ),
        ({"kind": "end", "usage": {"exit": 3}}, End(cause=Cause.EXITED, code=3)),
        (
            {"kind": "end", "usage": {"signal": 9, "out_of_memory": True}},
            End(cause=Cause.OUT_OF_MEMORY),
        ),
        ({"kind": "end", "usage": {"exit": 0, "stop_asked": True}}, None),
        ({"kind": "warning", "reason": "notice", "params": {"signal": "SIGUSR1"}}, None),
    ],
)
async def test_a_report_is_evidence(
    url: str, tmp_path: Path, report: dict[str, Any], end: End | None
) -> None:
    """What a job says of its end is its launch's end; why it was stopped is not its to say."""
    async with registering(url, tmp_path) as (api, node, launch):
        body = claim(node, launch)
        await api.call("POST", PATH, body, token=None)

        answer = await api.call("POST", f"{PATH}/report", identity(body) | report, token=None)

        assert answer.status_code == 204
        now = await api.hub.launch(launch.id)
        assert now.end == end
        told = [event.code for event in await api.hub.events(launch.id)]
        expected = {"cannot": "end-wanted", "end": "usage", "warning": "warning"}
        assert expected[report["kind"]] in told


@pytest.mark.parametrize("usage", [{"exit": 2**40}, {"exit": -1}, {"signal": "9"}])
async def test_an_end_that_no_process_has_is_refused(
    url: str, tmp_path: Path, usage: dict[str, Any]
) -> None:
    """What goes into the launch's row is what the kernel could have said."""
    async with registering(url, tmp_path) as (api, node, launch):
        body = claim(node, launch)
        await api.call("POST", PATH, body, token=None)

        report = {"kind": "end", "usage": usage}
        answer = await api.call("POST", f"{PATH}/report", identity(body) | report, token=None)

        assert (answer.status_code, answer.json()["code"]) == (400, "body-schema")
        assert (await api.hub.launch(launch.id)).end is None


async def on_this_machine(api: TestApi, launch: Launch) -> None:
    """Have the scheduler say that a job's node is this machine, and the hub know it."""
    present = api.hub.platform.present
    present[launch.name] = replace(present[launch.name], node="127.0.0.1")
    await api.hub.until(launch, lambda now: now.node == "127.0.0.1")


async def test_batchspawners_call_sets_the_port_and_nothing_else(
    database_url: str, tmp_path: Path
) -> None:
    """With a server's own token its port is taken; its host is the scheduler's to say."""
    async with registering(database_url, tmp_path) as (api, node, launch):
        await on_this_machine(api, launch)
        await api.call("POST", PATH, claim(node, launch), token=None)  # records the job
        sent = {"port": node.port, "ip": "169.254.169.254", "cmd": ["id"], "job_id": "1"}

        token = server_token(api.hub.hub, launch)
        answer = await api.call("POST", "/batchspawner", sent, token=token)
        stranger = await api.call("POST", "/batchspawner", sent)

        assert (answer.status_code, stranger.status_code) == (201, 403)
        await api.hub.becomes(launch, Status.CONNECTING, Status.READY)
        assert (await api.hub.launch(launch.id)).url == f"http://127.0.0.1:{node.port}"


async def test_the_wrapper_around_batchspawners_program_still_tells_the_end(
    database_url: str, tmp_path: Path
) -> None:
    """Its server has said another port meanwhile; the run is the same, and so is its token."""
    async with registering(database_url, tmp_path) as (api, node, launch):
        await on_this_machine(api, launch)
        body = claim(node, launch)
        given = (await api.call("POST", PATH, body, token=None)).json()
        token = server_token(api.hub.hub, launch)
        await api.call("POST", "/batchspawner", {"port": node.port + 1}, token=token)

        again = await api.call("POST", PATH, body, token=None)
        report = {"kind": "end", "usage": {"exit": 4}}
        told = await api.call("POST", f"{PATH}/report", identity(body) | report, token=None)

        assert again.json() == given
        assert told.status_code == 204, told.json()
        ended = await api.hub.becomes(launch, Status.ENDED)
        assert (ended.end, ended.generation) == (End(cause=Cause.EXITED, code=4), launch.generation)


async def test_an_older_answer_of_the_platform_does_not_undo_it(url: str, tmp_path: Path) -> None:
    """A survey that was asked before the server listened, and shows it waiting, says nothing."""
    async with registering(url, tmp_path) as (api, node, launch):
        body = claim(node, launch)
        await api.call("POST", PATH, body, token=None)
        survey, asked, go_on = api.hub.spawner.inner.survey, anyio.Event(), anyio.Event()

        async def slow_survey() -> Survey:
            api.hub.platform.show(launch.name, Phase.PENDING)
            answer: Survey = await survey()
            api.hub.platform.show(launch.name, Phase.RUNNING)
            api.hub.spawner.inner.survey = survey
            asked.set()
            await go_on.wait()
            return answer

        api.hub.spawner.inner.survey = slow_survey
        with anyio.fail_after(PATIENCE):
            await asked.wait()
        await api.call("POST", f"{PATH}/listening", identity(body), token=None)
        go_on.set()

        await api.hub.becomes(launch, Status.READY)
        events = [event.code for event in await api.hub.events(launch.id)]
        assert events.count("queued") <= 1
        assert (await api.hub.launch(launch.id)).url == f"http://127.0.0.1:{node.port}"


async def test_what_registers_is_on_the_node_that_the_queue_names(url: str, tmp_path: Path) -> None:
    """It runs from then on, before the next look at the queue; the job's word is not used."""
    async with registering(url, tmp_path) as (api, node, launch):
        api.hub.platform.show(launch.name, Phase.PENDING)
        await api.hub.becomes(launch, Status.QUEUED)
        api.hub.spawner.inner.survey = anyio.sleep_forever  # it would show it waiting again

        await api.call("POST", PATH, claim(node, launch), token=None)

        assert (await api.hub.launch(launch.id)).node == api.hub.spawner.node
        assert "starting" in [event.code for event in await api.hub.events(launch.id)][-2:]


@pytest.mark.parametrize(("began", "found"), [(-60, True), (20, True), (60, False)])
async def test_an_address_is_found_again_for_the_same_run_only(
    url: str, tmp_path: Path, began: float, *, found: bool
) -> None:
    """
    A scheduler that restarts shows what runs as waiting for a moment; a new run has moved.

    Its clock may be somewhat ahead of ours.
    """
    async with registering(url, tmp_path) as (api, node, launch):
        body = claim(node, launch)
        await api.call("POST", PATH, body, token=None)
        await api.call("POST", f"{PATH}/listening", identity(body), token=None)
        await api.hub.becomes(launch, Status.READY)
        platform = api.hub.platform
        platform.show(launch.name, Phase.PENDING)
        await api.hub.becomes(launch, Status.QUEUED)
        assert await api.hub.prefixes() == set()

        since = api.hub.hub.clock.now() + timedelta(seconds=began)
        platform.show(launch.name, Phase.RUNNING)
        platform.present[launch.name] = replace(
            platform.present[launch.name], since=since, handle={"job_id": "17"}
        )

        now = await api.hub.becomes(launch, Status.READY if found else Status.STARTING)
        assert now.url == (f"http://127.0.0.1:{node.port}" if found else "")


async def test_a_job_hears_how_much_time_is_left(url: str, tmp_path: Path) -> None:
    """What the platform said last counts, also after it was moved; a wrong code hears nothing."""
    async with registering(url, tmp_path) as (api, node, launch):
        body = identity(claim(node, launch))
        for minutes in (10, 60):
            ends_at = api.hub.hub.clock.now() + timedelta(minutes=minutes)
            await api.hub.hub.database.write(bound(_move_end, launch.id, ends_at))
            answer = await api.call("POST", f"{PATH}/outlook", body, token=None)
            assert answer.status_code == 200, answer.text
            assert minutes * 60 - 30 < answer.json()["seconds_left"] <= minutes * 60
        wrong = await api.call("POST", f"{PATH}/outlook", {**body, "code": "0" * 64}, token=None)
        assert wrong.status_code == 403


def _move_end(connection: Connection, launch_id: str, ends_at: datetime) -> None:
    connection.execute(update(launches).where(launches.c.id == launch_id).values(ends_at=ends_at))
