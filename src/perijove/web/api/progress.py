"""The wire's progress stream: what a launch does, as server-sent events (wire §2.7)."""

import gettext
from collections.abc import Iterable
from html import escape
from typing import Any, Final

import anyio
import msgspec
from babel import Locale
from sqlalchemy import Connection

from perijove.db.core import bound
from perijove.db.events import Event, list_events
from perijove.db.launches import find_launch, get_launch
from perijove.domain.errors import Invalid, NotFound
from perijove.domain.launch import Cause, Launch, Status, Wanted
from perijove.kit.clock import monotonic
from perijove.services.hub import Hub, server_prefix
from perijove.services.users import get_user
from perijove.web.api.calls import Call, Stream, Write
from perijove.web.pages.views import clock_limit
from perijove.web.problems import HIDDEN
from perijove.web.texts import Texts, sentences

LABEL: Final = "jupyterhub.apihandlers.users.SpawnProgressAPIHandler"
"""Dashboards leave this handler out of their latencies, because it takes as long as a start."""
KEEP_ALIVE: Final = b"\n\n"
KEEP_ALIVE_SECONDS: Final = 8.0
_POLL_SECONDS: Final = 1.0
_PAUSE_SECONDS: Final = 0.05
"""Between two looks, so that a busy hub does not read once per event of everybody."""

_FIRST: Final = {"progress": 0, "message": "Server requested"}
_PROGRESS: Final = {"submitted": 10, "starting": 40, "connecting": 60, "routed": 80}
"""Only stages that every start passes have a number: nobody knows how long a queue is."""
_NOT_SAID: Final = frozenset({"requested", "end-wanted", "ready", "ending", "ended"})
"""Said by the first and the last event of the stream."""
_ENGLISH: Final = Texts("en", gettext.NullTranslations(), Locale.parse("en"))


async def progress(call: Call) -> Stream:
    """``GET …/progress``: the events of a start, from its beginning until it is decided."""

    def unit(connection: Connection) -> Launch | None:
        row = get_user(connection, call.user_name).find_server(call.server_name)
        if row is None:
            raise NotFound(HIDDEN)
        return None if row.launch_id is None else find_launch(connection, row.launch_id)

    launch = await call.hub.database.read(unit)
    if launch is None or _is_over(launch):
        shown = f"{call.user_name}:{call.server_name}" if call.server_name else call.user_name
        raise Invalid(f"{shown} is not starting...", code="server-not-starting")
    hub, launch_id = call.hub, launch.id

    async def run(write: Write) -> None:
        await _follow(hub, launch_id, write)

    return Stream(run)


def _is_over(launch: Launch) -> bool:
    """Tell whether a launch is ending, or ended, after it had been ready: no start any more."""
    return launch.ready_at is not None and launch.wanted is Wanted.END


async def _follow(hub: Hub, launch_id: str, write: Write) -> None:
    await write(KEEP_ALIVE)
    written_at, seen, is_first = monotonic(), 0, True
    while True:
        strike = hub.events.listen(launch_id)
        launch = await hub.database.read(bound(get_launch, launch_id))
        last = last_event(hub, launch)
        chunk = b"" if not is_first or last else _sse(_FIRST)
        if last is None or not is_first:
            events = await hub.database.read(bound(list_events, launch_id, after=seen))
            seen = events[-1].seq if events else seen
            chunk += b"".join(map(_sse, _said(events)))
        is_first = False
        if last is not None:
            await write(chunk + _sse(last))
            return
        if hub.stopping.is_set():
            return  # the client comes back, to another process
        if not chunk and monotonic() - written_at >= KEEP_ALIVE_SECONDS:
            chunk = KEEP_ALIVE
        if chunk:
            await write(chunk)
            written_at = monotonic()
        if hub.stopping.is_set():
            return
        await anyio.sleep(_PAUSE_SECONDS)
        with anyio.move_on_after(_POLL_SECONDS):
            await strike.wait()


def _said(events: Iterable[Event]) -> Iterable[dict[str, Any]]:
    for event in events:
        if event.code in _NOT_SAID:
            continue
        said: dict[str, Any] = {"message": sentences.event(_ENGLISH, event.code, event.params)}
        if event.code in _PROGRESS:
            said = {"progress": _PROGRESS[event.code], **said}
        yield said


def last_event(hub: Hub, launch: Launch) -> dict[str, Any] | None:
    """Return the event that ends the stream, once the start is decided."""
    if launch.wanted is Wanted.END or not launch.is_live:
        return {"progress": 100, "failed": True, "message": _failure(hub, launch)}
    if launch.status is not Status.READY:
        return None
    url = server_prefix(hub.base_path, launch.user_name, launch.server_name)
    shown = escape(url)
    return {
        "progress": 100,
        "ready": True,
        "message": f"Server ready at {url}",
        "html_message": f'Server ready at <a href="{shown}">{shown}</a>',
        "url": url,
    }


def _failure(hub: Hub, launch: Launch) -> str:
    if launch.end is None or launch.end.cause in (Cause.USER, Cause.ADMIN):
        return "Spawn cancelled"
    placed = hub.spawners.get(launch.spawner)
    limit = clock_limit(launch, placed.settings if placed else None)
    return f"Spawn failed: {sentences.end(_ENGLISH, launch.end, limit_seconds=limit).text}"


def _sse(event: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(event) + b"\n\n"
