"""A container that starts without its volume tells the hub, as a job does of its home."""

import json
import os
import subprocess
from pathlib import Path

import anyio
import pytest

from perijove.agent.entry import wrapped
from perijove.domain.launch import Status
from perijove.services.specs import server_token
from perijove.web.texts import Catalogues, sentences
from tests.apis import running_api
from tests.integration.registration.jobs import serving_hub

pytestmark = pytest.mark.anyio

PATH = "/perijove/registrations/warning"


async def test_the_hub_shows_what_a_container_lacks(url: str, tmp_path: Path) -> None:
    """The program before the server tells it; people read it among what happened to the launch."""
    async with serving_hub(url, tmp_path) as served:
        launch = await served.running_launch()
        environment = {
            "PATH": os.environ["PATH"],
            "TMPDIR": str(tmp_path),
            "PERIJOVE_VOLUMES": json.dumps([str(tmp_path / "gone")]),
            "JUPYTERHUB_API_URL": served.api,
            "JUPYTERHUB_API_TOKEN": served.token(launch),
        }
        done = await anyio.run_process(
            wrapped(["true"]), env=environment, stderr=subprocess.STDOUT, check=True
        )
        assert b"rescue mode: volume-missing" in done.stdout
        assert b"not told" not in done.stdout

        (event,) = [each for each in await served.hub.events(launch.id) if each.code == "warning"]
        assert event.params["reason"] == "volume-missing"
        assert str(tmp_path / "gone") in event.params["words"]
        said = sentences.event(Catalogues().get("en"), event.code, event.params)
        assert "rescue mode" in said


async def test_only_a_server_warns_of_itself(url: str, tmp_path: Path) -> None:
    """Neither a person's token, nor none, nor a reason that nobody knows leaves a trace."""
    async with running_api(url, tmp_path) as api:
        launch = await api.hub.becomes(await api.hub.start(), Status.READY)
        token = server_token(api.hub.hub, launch)
        body = {"reason": "volume-full", "words": "no room"}

        assert (await api.call("POST", PATH, body)).status_code == 403
        assert (await api.call("POST", PATH, body, token=None)).status_code == 403
        other = await api.call("POST", PATH, body | {"reason": "boredom"}, token=token)
        assert other.status_code == 400
        assert (await api.call("POST", PATH, body, token=token)).status_code == 204

        told = [each.code for each in await api.hub.events(launch.id)]
        assert told.count("warning") == 1
