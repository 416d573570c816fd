"""
Asking for launches to start and to end: the only place that writes what is *wanted*.

Start, stop, restart and cancel are idempotent and possible in every state. None of them waits
for a platform: they write, ring the reconciler's doorbell, and return what is known.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import anyio
from sqlalchemy import Connection, bindparam, select, update

from perijove.db import launches as rows
from perijove.db.core import bound
from perijove.db.events import record
from perijove.db.launches import (
    find_launch,
    get_launch,
    last_launch_of,
    live_launch_of,
)
from perijove.db.locks import hold_user
from perijove.db.notify import notify
from perijove.db.prepared import Statement
from perijove.db.servers import Server, change_server, delete_server, ensure_server, find_server
from perijove.db.tables import users
from perijove.domain.asking import HUB, Asking
from perijove.domain.errors import NotFound
from perijove.domain.launch import Cause, End, Kind, Launch, Status, Wanted
from perijove.kit.clock import monotonic
from perijove.kit.ids import new_id, platform_name
from perijove.services import volumes
from perijove.services.admission import admit
from perijove.services.discovery import kinds_of
from perijove.services.hub import Hub
from perijove.services.rehearsal import Rehearsal, rehearse

L = TypeVar("L", Launch, Launch | None)

__all__ = [
    "Asking",
    "find_launch",
    "get_launch",
    "last_launch_of",
    "live_launch_of",
    "mark_end",
    "place_in_line",
    "request_restart",
    "request_start",
    "request_stop",
    "wait_for",
]


async def request_start(
    hub: Hub,
    *,
    user_id: int,
    server_name: str,
    profile: str | None = None,
    options: Mapping[str, Any] | None = None,
    asking: Asking,
    extra: Mapping[str, Any] | None = None,
) -> Launch:
    """
    Ask for a server to run; returns its live launch if it has one that is wanted.

    `profile` and `options` None mean the server's remembered ones. `extra` is what a client
    sent besides our own options; it is remembered with them (wire §2.6.6). Raises `Refused`,
    `Invalid`, `NotFound` and nothing is changed.
    """

    request = _Start(user_id, server_name, profile, options, extra, asking)
    await rehearse(hub, request.rehearsal())

    def unit(connection: Connection) -> Launch:
        user_name = _lock_user(connection, user_id)
        live = _live_launch(connection, user_id, server_name)
        if live is not None and live.wanted is Wanted.RUN:
            return live
        return _admit_and_insert(hub, connection, request, user_name, after=live)

    return await _written(hub, unit)


async def request_restart(
    hub: Hub,
    *,
    user_id: int,
    server_name: str,
    profile: str | None = None,
    options: Mapping[str, Any] | None = None,
    asking: Asking,
) -> Launch:
    """
    Ask for a server to end and to start anew, in one step.

    The new launch waits until the old one is seen gone. When it is refused, the old one goes
    on as if nothing had been asked.
    """

    request = _Start(user_id, server_name, profile, options, None, asking)
    await rehearse(hub, request.rehearsal(is_restart=True))

    def unit(connection: Connection) -> Launch:
        user_name = _lock_user(connection, user_id)
        live = _live_launch(connection, user_id, server_name)
        if live is not None and live.wanted is Wanted.RUN:
            now = hub.clock.now()
            live = mark_end(connection, live, End(cause=Cause.USER), asking=asking, now=now)
        return _admit_and_insert(hub, connection, request, user_name, after=live)

    return await _written(hub, unit)


async def request_stop(
    hub: Hub,
    *,
    user_id: int,
    server_name: str,
    asking: Asking,
    cause: Cause = Cause.USER,
    remove: bool = False,
) -> Launch | None:
    """
    Ask for a server to end, in whatever state it is; None when nothing of it was live.

    With `remove` the server itself goes as soon as nothing of it is live. Raises `NotFound`
    for a named server that does not exist.
    """

    def unit(connection: Connection) -> Launch | None:
        _lock_user(connection, user_id)
        server = find_server(connection, user_id, server_name)
        if server is None:
            if server_name:
                raise NotFound(f"no server named {server_name!r}")
            return None
        live = live_launch_of(connection, server.id)
        if live is not None:
            live = mark_end(connection, live, End(cause=cause), asking=asking, now=hub.clock.now())
            live = live if live.is_live else None  # it was over at this very moment
        if remove:
            volumes.bury_with_server(connection, server, now=hub.clock.now())
            _remove(connection, server, live)
        return live

    return await _written(hub, unit)


async def wait_for(
    hub: Hub, launch_id: str, *, until: Callable[[Launch], bool], seconds: float
) -> Launch:
    """Return the launch as soon as `until` holds of it, or as it is after `seconds`."""
    end = monotonic() + seconds
    while True:
        strike = hub.events.listen(launch_id)
        launch = await hub.database.read(bound(get_launch, launch_id))
        left = end - monotonic()
        if left <= 0 or until(launch):
            return launch
        with anyio.move_on_after(min(left, 1.0)):  # another replica's events are polled for
            await strike.wait()


def mark_end(
    connection: Connection, launch: Launch, end: End, *, asking: Asking, now: datetime
) -> Launch:
    """
    Write that a launch is to end, and why. The first cause stands: later ones change nothing.

    Used by requests, by policy (idle, age, wall time) and for ends that were seen.
    """
    launch = rows.hold_launch(connection, launch.id)  # it may have moved since it was read
    if launch.wanted is Wanted.END or launch.status is Status.ENDED:
        return launch
    launch = rows.change(connection, launch, now=now, wanted=Wanted.END, end=end, due_at=now)
    record(connection, launch.id, "end-wanted", {"cause": str(end.cause)}, asking=asking, now=now)
    notify(connection, "due")
    return launch


def place_in_line(connection: Connection, launch: Launch) -> tuple[int, int] | None:
    """Return (place, length) in its spawner's line, counted from 1; None when not in it."""
    if launch.status is not Status.REQUESTED:
        return None
    line = rows.line_of(connection, launch.spawner)
    for place, other in enumerate(line, 1):
        if other.id == launch.id:
            return place, len(line)
    return None


# --- inside the units -------------------------------------------------------------------------


_USER = Statement(select(users.c.name).where(users.c.id == bindparam("the_id")))
_TOUCH_USER = Statement(update(users).where(users.c.id == bindparam("the_id")))


async def _written(hub: Hub, unit: Callable[[Connection], L]) -> L:
    launch = await hub.database.write(unit)
    hub.due.ring()
    if launch is not None:
        hub.events.strike(launch.id)
    return launch


def _lock_user(connection: Connection, user_id: int) -> str:
    """Let no other start or stop of this user's servers come in between; returns the name."""
    hold_user(connection, user_id)
    user = _USER.first(connection, {"the_id": user_id})
    if user is None:
        raise NotFound("no such user")
    return str(user["name"])


@dataclass(frozen=True, slots=True)
class _Start:
    """What was asked for."""

    user_id: int
    server_name: str
    profile: str | None
    options: Mapping[str, Any] | None
    extra: Mapping[str, Any] | None
    asking: Asking

    def rehearsal(self, *, is_restart: bool = False) -> Rehearsal:
        """Return what is asked of the platform first."""
        return Rehearsal(
            user_id=self.user_id,
            server_name=self.server_name,
            profile=self.profile,
            options=self.options,
            extra=self.extra,
            is_restart=is_restart,
        )


def _live_launch(connection: Connection, user_id: int, server_name: str) -> Launch | None:
    server = find_server(connection, user_id, server_name)
    return live_launch_of(connection, server.id) if server else None


def _admit_and_insert(
    hub: Hub, connection: Connection, request: _Start, user_name: str, *, after: Launch | None
) -> Launch:
    user_id, server_name = request.user_id, request.server_name
    now = hub.clock.now()
    admission = admit(
        connection,
        user_id=user_id,
        server_name=server_name,
        profile=request.profile,
        options=request.options,
        extra=request.extra,
        now=now,
        kinds=kinds_of(hub),
    )
    server = ensure_server(connection, user_id, server_name, now=now)
    kept = volumes.keep(
        hub,
        connection,
        admission.storage,
        spawner=admission.spawner,
        server=server,
        user_name=user_name,
        now=now,
    )
    previous = last_launch_of(connection, server.id)
    launch = Launch(
        id=new_id("lch"),
        kind=Kind.SERVER,
        wanted=Wanted.RUN,
        status=Status.REQUESTED,
        name=platform_name(hub.installation),
        spawner=admission.spawner,
        user_id=user_id,
        user_name=user_name,
        server_id=server.id,
        server_name=server_name,
        generation=previous.generation + 1 if previous else 1,
        spec={**admission.spec(), **volumes.spec_of(kept)},
        after=after.id if after else None,
        requested_at=now,
    )
    rows.insert_launch(connection, launch)
    change_server(
        connection,
        server.id,
        launch_id=launch.id,
        remove=False,
        last_activity=now,
        user_options={**(request.extra or {}), **admission.remembered()},
    )
    _TOUCH_USER.run(connection, {"the_id": user_id, "last_activity": now})
    params = {"profile": launch.spec["profile"]["name"]}
    record(connection, launch.id, "requested", params, asking=request.asking, now=now)
    for volume in kept:
        if volume.missing_since is not None:
            lost = {"path": volume.path, "volume": volume.name}
            record(connection, launch.id, "volume-lost", lost, asking=HUB, now=now)
    notify(connection, "due")
    return launch


def _remove(connection: Connection, server: Server, live: Launch | None) -> None:
    if live is None:
        delete_server(connection, server.id)
    else:
        change_server(connection, server.id, remove=True)
