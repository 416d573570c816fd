"""What our own resources say of a launch: in words, in the caller's language, and its log."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from perijove.domain.errors import SpawnerTransient
from perijove.domain.launch import Status
from perijove.services.sections import FileToken
from perijove.spawners.contract import Handle
from tests.apis import ANN, BOB, running_api
from tests.fakes.spawners import SlowToStart, Wrapper

pytestmark = pytest.mark.anyio


class Writes(Wrapper):
    """A platform that keeps what its servers write."""

    async def log_tail(self, name: str, handle: Handle | None, *, lines: int) -> str:
        """Return as many lines as are asked for."""
        if not self.active:
            raise SpawnerTransient("the platform is away")
        assert isinstance(handle, Mapping)
        return "".join(f"{number} of {name}\n" for number in range(lines))


@pytest.mark.parametrize(
    ("language", "state", "text"),
    [
        ("en", "Running", "Your server is ready."),
        ("fr-FR,en;q=0.5", "En marche", "Votre serveur est prêt."),
        ("xx,de", "Running", "Your server is ready."),
    ],
)
async def test_a_launch_is_said_in_the_callers_language(
    database_url: str, tmp_path: Path, language: str, state: str, text: str
) -> None:
    """State, reason and events: a client needs no catalogue of its own."""
    async with running_api(database_url, tmp_path) as api:
        launch = await api.hub.start("ann")
        await api.hub.becomes(launch, Status.READY)

        async def ask(path: str) -> Any:
            headers = {"accept-language": language}
            return (await api.call("GET", path, token=ANN, headers=headers)).json()

        shown = await ask(f"/perijove/launches/{launch.id}")
        assert (shown["said"]["state"], shown["said"]["text"]) == (state, text)
        assert shown["server_url"] == "/user/ann/"
        found = await ask(f"/perijove/launches/{launch.id}/events")
        assert all(event["text"] for event in found["events"])


async def test_the_log_is_for_who_may_use_the_server(database_url: str, tmp_path: Path) -> None:
    """Its owner, the last lines of it; to others it is not there."""
    reader = FileToken(name="reader", user="ann", token="token-that-reads", scopes=["read:servers"])
    async with running_api(database_url, tmp_path, wrap=Writes, tokens=[reader]) as api:
        launch = await api.hub.start("ann")
        await api.hub.becomes(launch, Status.READY)
        path = f"/perijove/launches/{launch.id}/log"
        text = (await api.get(f"{path}?lines=2", token=ANN))["text"]
        assert text == f"0 of {launch.name}\n1 of {launch.name}\n"
        assert (await api.get(path, token=ANN))["text"].count("\n") == 100
        assert (await api.get(path))["text"], "an administrator sees it too"
        for token in (BOB, "token-that-reads"):
            assert (await api.call("GET", path, token=token)).status_code == 404
        for lines in ("0", "2001", "x", "-1"):
            assert (await api.call("GET", f"{path}?lines={lines}", token=ANN)).status_code == 400


async def test_a_log_that_cannot_be_had_is_no_empty_one(database_url: str, tmp_path: Path) -> None:
    """A platform that is away is said to be; one that keeps no logs has none."""
    async with running_api(database_url, tmp_path, wrap=Writes) as api:
        launch = await api.hub.start("ann")
        await api.hub.becomes(launch, Status.READY)
        api.hub.spawner.active = False
        answer = await api.call("GET", f"/perijove/launches/{launch.id}/log", token=ANN)
        assert (answer.status_code, answer.json()["code"]) == (503, "spawner-away")


async def test_a_start_can_be_asked_for_without_waiting(database_url: str, tmp_path: Path) -> None:
    """``Prefer: respond-async`` is answered at once, however long the queue is."""

    def wrap(inner: Any) -> SlowToStart:
        return SlowToStart(inner, surveys=10**6)

    async with running_api(database_url, tmp_path, wrap=wrap) as api:
        headers = {"prefer": "respond-async"}
        path = "/users/ann/server"
        await api.hub.user("ann")
        answer = await api.call("POST", path, {}, token=ANN, headers=headers)
        assert answer.status_code == 202
        (launch,) = await api.hub.live()
        assert launch.status in (Status.REQUESTED, Status.SUBMITTED, Status.QUEUED)
