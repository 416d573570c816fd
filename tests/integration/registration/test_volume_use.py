"""Where a platform cannot say what is on a volume, the server that has it counts and tells."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from perijove.agent.entry import wrapped
from perijove.db.volumes import Volume, list_volumes
from perijove.domain.launch import Launch, Status
from perijove.kit.loops import until
from perijove.services.offers import ProfileSection
from perijove.services.specs import spec_of
from perijove.web.app import create_app
from perijove.web.listen import open_tcp, serve
from tests.apis import TestApi, running_api
from tests.hubs import PATIENCE

pytestmark = pytest.mark.anyio

PATH = "/perijove/registrations/volumes"
HOME = "/home/jovyan"


@asynccontextmanager
async def _api(
    url: str, directory: Path, *, path: str = HOME, measures_use: bool = False
) -> AsyncIterator[TestApi]:
    """Run a hub whose only profile keeps 2 GiB, on a platform that measures or does not."""
    section = {"name": "only", "storage": {"size": "2 GiB", "path": path}}
    profile = ProfileSection.model_validate(section)
    async with running_api(url, directory, profile_sections=[profile]) as api:
        api.hub.platform.measures_use = measures_use
        yield api


async def _ready(api: TestApi) -> Launch:
    return await api.hub.becomes(await api.hub.start(), Status.READY)


def _environment(api: TestApi, launch: Launch, api_url: str = "") -> dict[str, str]:
    return dict(spec_of(replace(api.hub.hub, api_url=api_url), launch).environment)


async def _only(api: TestApi) -> Volume:
    (volume,) = await api.hub.hub.database.read(list_volumes)
    return volume


async def test_a_server_counts_what_is_on_its_volume(url: str, tmp_path: Path) -> None:
    """The program before it does so beside it, and what it told is the volume's use."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "big").write_bytes(b"x" * 3_000_000)
    async with _api(url, tmp_path, path=str(home)) as api:
        listener = open_tcp("127.0.0.1:0")
        api.hub.tasks.start_soon(serve, create_app(api.hub.hub), [listener])
        near = f"http://127.0.0.1:{listener.getsockname()[1]}/hub/api"
        given = _environment(api, await _ready(api), near)
        given |= {"PATH": os.environ["PATH"], "PERIJOVE_VOLUMES": f'["{home}"]'}
        command = wrapped([sys.executable, "-c", "input()"])
        async with await anyio.open_process(command, env=given, stderr=None) as server:

            async def is_told() -> bool:
                return (await _only(api)).measured_at is not None

            assert await until(is_told, seconds=PATIENCE)
            volume = await _only(api)
            assert server.stdin is not None
            await server.stdin.send(b"\n")
        api.hub.tasks.cancel_scope.cancel()
    assert volume.used_bytes is not None
    assert 3_000_000 <= volume.used_bytes < 4_000_000


async def test_only_a_server_tells_of_its_own_volumes(url: str, tmp_path: Path) -> None:
    """Neither a person nor what is no number of bytes is heard, and no path that is not its own."""
    async with _api(url, tmp_path) as api:
        token = _environment(api, await _ready(api))["JUPYTERHUB_API_TOKEN"]

        async def said(body: Any, **given: Any) -> int:
            answer = await api.call("POST", PATH, body, **given)
            return int(answer.status_code)

        assert await said({"used": {HOME: 1}}) == 403
        assert await said({"used": {HOME: 1}}, token=None) == 403
        wrongs: list[Any] = [{HOME: -1}, {HOME: 2**63}, {HOME: "much"}, {"x" * 5000: 1}, []]
        for wrong in wrongs:
            assert await said({"used": wrong}, token=token) == 400
        assert await said({"used": {"/elsewhere": 1}}, token=token) == 204
        assert (await _only(api)).used_bytes is None
        assert await said({"used": {HOME: 2**20}}, token=token) == 204
        assert (await _only(api)).used_bytes == 2**20


async def test_what_the_platform_measures_no_server_changes(url: str, tmp_path: Path) -> None:
    """Servers there are not asked to count, and refused if they tell."""
    async with _api(url, tmp_path, measures_use=True) as api:
        given = _environment(api, await _ready(api))
        assert "PERIJOVE_MEASURE" not in given
        token = given["JUPYTERHUB_API_TOKEN"]
        answer = await api.call("POST", PATH, {"used": {HOME: 1}}, token=token)
        assert (answer.status_code, answer.json()["code"]) == (409, "volume-measured")
