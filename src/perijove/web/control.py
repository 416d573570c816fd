"""
The control application: what the proxies ask of the hub (`wire/control.py`).

It listens on a socket of its own, which no request of a browser reaches.
"""

import hmac
import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

import anyio
import msgspec
from sqlalchemy import Connection, update

from perijove.db import routes as rows
from perijove.db.core import bound
from perijove.db.tables import launches, servers, users
from perijove.domain.errors import HubError
from perijove.domain.launch import Status
from perijove.kit.clock import monotonic
from perijove.services.hub import Hub
from perijove.services.registration import Run, admit_tunnel, list_over
from perijove.web.asgi import App, Receive, Scope, Send, read_body, respond
from perijove.web.problems import status_of
from perijove.wire.control import (
    MAX_WAIT_SECONDS,
    PROXY_HEADER,
    SECRET_HEADER,
    ActivityReport,
    Launches,
    TunnelClaim,
    TunnelGrant,
)

_POLL = 1.0
"""Seconds after which a poll looks again although nothing struck: another hub may have written."""
_REPORT_LIMIT = 4 << 20
_FUTURE = timedelta(minutes=1)
_LONGEST_ID = 64
_CLAIM_LIMIT = 4096
_MOST_LAUNCHES = 10_000


def create_control_app(hub: Hub, pages: App, *, secret: str = "") -> App:
    """
    Return the control application; error pages are asked of `pages`, the public application.

    `secret` empty: the socket's mode is the protection.
    """
    control = _Control(hub, pages)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if secret and not _knows(scope, secret, SECRET_HEADER):
            await respond(send, 403)
            return
        match (scope["method"], scope["path"]):
            case ("GET", "/routes"):
                await control.routes(scope, send)
            case ("POST", "/activity"):
                await control.activity(receive, send)
            case ("POST", "/tunnels"):
                await control.admit_tunnel(receive, send)
            case ("POST", "/tunnels/over"):
                await control.tunnels_over(receive, send)
            case ("GET", path) if path.startswith("/error/"):
                await control.error_page(scope, receive, send)
            case _:
                await respond(send, 404)

    return app


def behind_secret(control: App, pages: App, *, secret: str) -> App:
    """
    Return what answers proxies on other machines: `control` and `pages` at one address.

    A person's request that carries the secret is believed to come from where it says, like one
    over the unix socket; any other is refused.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _knows(scope, secret, PROXY_HEADER):
            await pages({**scope, "client": None}, receive, send)
        else:
            await control(scope, receive, send)

    return app


class _Control:
    def __init__(self, hub: Hub, pages: App) -> None:
        self._hub = hub
        self._pages = pages

    async def routes(self, scope: Scope, send: Send) -> None:
        """Answer with what changed since the revision the worker has, as soon as there is any."""
        try:
            poll = _read_poll(scope["query_string"])
        except (KeyError, ValueError):
            await respond(send, 400)
            return
        known = poll.revision if poll.installation in ("", self._hub.installation) else 0
        await self._note(poll.worker, known)
        end = monotonic() + poll.wait
        while True:
            strike = self._hub.routes.listen()
            revision = await self._hub.database.read(rows.revision)
            left = end - monotonic()
            if revision != known or left <= 0 or self._hub.stopping.is_set():
                break
            with anyio.move_on_after(min(left, _POLL)):
                await strike.wait()
        asked = monotonic()
        table = await self._hub.database.read(
            bound(rows.table_since, known, installation=self._hub.installation)
        )
        self._hub.metrics.route_poll(monotonic() - asked)
        await respond(send, 200, msgspec.json.encode(table), b"application/json")

    async def _note(self, worker: str, revision: int) -> None:
        now = self._hub.clock.now()
        await self._hub.database.write(bound(rows.note_worker, worker, revision=revision, now=now))
        self._hub.workers.strike()

    async def activity(self, receive: Receive, send: Send) -> None:
        """Write when people last used their servers through the proxy."""
        body = await read_body(receive, limit=_REPORT_LIMIT)
        try:
            report = msgspec.json.decode(body or b"", type=ActivityReport)
            now = self._hub.clock.now()
            seen = {
                launch: min(datetime.fromtimestamp(at, UTC), now + _FUTURE)
                for launch, at in report.launches.items()
                if len(launch) <= _LONGEST_ID and launch.isprintable()
            }
        except (msgspec.DecodeError, OverflowError, ValueError, OSError):
            await respond(send, 400)
            return
        await self._hub.database.write(bound(_note_activity, seen))
        await respond(send, 204)

    async def admit_tunnel(self, receive: Receive, send: Send) -> None:
        """Answer whose tunnel a job's is, or why it is none."""
        body = await read_body(receive, limit=_CLAIM_LIMIT)
        try:
            claim = msgspec.json.decode(body or b"", type=TunnelClaim)
        except msgspec.DecodeError:
            await respond(send, 400)
            return
        run = Run(
            launch_id=claim.launch_id,
            code=claim.code,
            nonce=claim.nonce,
            job_id=claim.job_id,
            address=claim.address,
        )
        try:
            grant = TunnelGrant(await admit_tunnel(self._hub, run))
        except HubError as error:
            await respond(send, status_of(error))
        else:
            await respond(send, 200, msgspec.json.encode(grant), b"application/json")

    async def tunnels_over(self, receive: Receive, send: Send) -> None:
        """Answer which launches need no tunnel any more."""
        body = await read_body(receive, limit=_REPORT_LIMIT)
        try:
            asked = msgspec.json.decode(body or b"", type=Launches)
        except msgspec.DecodeError:
            await respond(send, 400)
            return
        over = await self._hub.database.read(bound(list_over, asked.launches[:_MOST_LAUNCHES]))
        await respond(send, 200, msgspec.json.encode(Launches(list(over))), b"application/json")

    async def error_page(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Relay the public application's error page."""
        path = f"{self._hub.hub_prefix}error/{scope['path'].removeprefix('/error/')}"
        await self._pages({**scope, "path": path, "raw_path": path.encode()}, receive, send)


@dataclass(frozen=True, slots=True)
class _Poll:
    worker: str
    installation: str
    revision: int
    wait: float


def _read_poll(query_string: bytes) -> _Poll:
    """Read what a worker asks; raises `KeyError` or `ValueError`."""
    query = {
        name: values[0] for name, values in parse_qs(query_string.decode(), errors="strict").items()
    }
    poll = _Poll(
        worker=query["worker"],
        installation=query.get("installation", ""),
        revision=int(query.get("revision", "0")),
        wait=float(query.get("wait", "0")),
    )
    if len(poll.worker) > _LONGEST_ID or not poll.worker.isprintable():
        raise ValueError("not the name of a worker")
    if not (0 <= poll.revision < 2**63 and 0 <= poll.wait < math.inf):
        raise ValueError("not a revision and a time to wait")
    return replace(poll, wait=min(poll.wait, MAX_WAIT_SECONDS))


def _note_activity(connection: Connection, seen: dict[str, datetime]) -> None:
    """Raise the last activity of launches, their servers and users; it never goes back."""
    for launch_id, at in seen.items():
        row = connection.execute(
            update(launches)
            .where(
                launches.c.id == launch_id,
                launches.c.status == Status.READY,
                launches.c.last_activity.is_(None) | (launches.c.last_activity < at),
            )
            .values(last_activity=at, activity_source="proxy")
            .returning(launches.c.server_id, launches.c.user_id)
        ).first()
        if row is None:
            continue
        for table, key in ((servers, row.server_id), (users, row.user_id)):
            connection.execute(
                update(table)
                .where(
                    table.c.id == key,
                    table.c.last_activity.is_(None) | (table.c.last_activity < at),
                )
                .values(last_activity=at)
            )


def _knows(scope: Scope, secret: str, header: str) -> bool:
    given = dict(scope["headers"]).get(header.lower().encode(), b"")  # the last one
    return hmac.compare_digest(given, secret.encode())
