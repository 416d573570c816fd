"""The API of a hub for tests: a client that speaks to the whole application, in this process."""

import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from perijove.services.sections import FileToken, RoleSection
from perijove.web.access_log import AccessLog
from perijove.web.api.calls import Patience
from perijove.web.app import create_app
from perijove.web.asgi import App
from tests.fakes.spawners import MemoryPlatform
from tests.hubs import PATIENCE, TestHub, answering_server, running_hub

ADMIN = "token-of-admin"
ANN = "token-of-ann"
BOB = "token-of-bob"
SERVICE = "token-of-the-culler"
PATIENT = Patience(start=PATIENCE, stop=PATIENCE)
PAGED = {"accept": "application/jupyterhub-pagination+json"}

_TOKENS = [
    FileToken(name="admin", user="admin", token=ADMIN),
    FileToken(name="ann", user="ann", token=ANN),
    FileToken(name="bob", user="bob", token=BOB),
    FileToken(name="culler", service="culler", token=SERVICE),
]


@dataclass(slots=True)
class TestApi:
    """A hub's application, and a client for it."""

    __test__ = False

    hub: TestHub
    app: App
    client: httpx2.AsyncClient
    log: io.BytesIO = field(default_factory=io.BytesIO)

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = ADMIN,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> httpx2.Response:
        """Ask ``/hub/api`` + `path`; a body is sent as JSON."""
        sent = dict(headers or {})
        if token is not None:
            sent["authorization"] = f"token {token}"
        if body is not None:
            content = json.dumps(body).encode()
        return await self.client.request(method, f"/hub/api{path}", content=content, headers=sent)

    async def get(self, path: str, *, token: str | None = ADMIN) -> Any:
        """Return the JSON of a path that must be there."""
        answer = await self.call("GET", path, token=token)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines of the access log."""
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


@asynccontextmanager
async def running_api(
    database_url: str,
    directory: Path,
    *,
    roles: list[RoleSection] | None = None,
    groups: Mapping[str, list[str]] | None = None,
    tokens: list[FileToken] | None = None,
    patience: Patience = PATIENT,
    settings: Mapping[str, Any] | None = None,
    answers: bool = True,
    **given: Any,
) -> AsyncIterator[TestApi]:
    """
    Run a hub with people and a service who have tokens, and give its API.

    Servers become ready, or with `answers` false never answer.
    """
    section = {
        "tokens": [*_TOKENS, *(tokens or [])],
        "roles": roles or [],
        "groups": dict(groups or {}),
        **(settings or {}),
    }
    async with (
        answering_server() as server,
        running_hub(
            database_url,
            directory,
            settings=section,
            platform=MemoryPlatform(url=server.url),
            **given,
        ) as hub,
    ):
        server.silent = not answers
        log = io.BytesIO()
        app = create_app(
            hub.hub,
            access_log=AccessLog(hub.hub.clock, as_json=True, stream=log),
            patience=patience,
        )
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://hub.test") as client:
            yield TestApi(hub=hub, app=app, client=client, log=log)
