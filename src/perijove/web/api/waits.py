"""What surrounds a wait, and what one can say to it."""

from collections.abc import Collection
from dataclasses import replace
from fractions import Fraction

from sqlalchemy import Connection

from perijove.db.core import bound
from perijove.db.launches import find_launch
from perijove.domain.asking import Asking
from perijove.domain.errors import Invalid, NotFound
from perijove.domain.launch import WAITING, Launch
from perijove.domain.offer import OwnJob, Reservation
from perijove.domain.reasons import find_reason
from perijove.kit.clock import isoformat
from perijove.services.hub import Hub
from perijove.services.notices import Channel, channels_for, follow, followed
from perijove.services.overview import Shown, find_shown, get_owner
from perijove.services.users import find_name
from perijove.services.waits import (
    WINDOW,
    Around,
    cancel_command,
    is_asked,
    keep_waiting,
    look_around,
    release,
    renew,
)
from perijove.web.api.calls import Call, Reply, check_keys, empty, json_reply, texts_of
from perijove.web.pages.following import wait_address, words_of
from perijove.web.problems import HIDDEN
from perijove.wire import waits as wire

_READ = "read:servers"
_START = "start:servers"


async def show(call: Call) -> Reply:
    """``GET launches/:id/wait``: how long it is usual, what is free, what stands in the way."""

    def unit(connection: Connection) -> tuple[Launch, Around | None, Collection[Channel]]:
        launch, shown = _find(connection, call, _READ)
        around = look_around(connection, call.hub, shown) if shown else None
        return launch, around, followed(connection, launch.id)

    launch, around, chosen = await call.hub.database.read(unit)
    if around is not None:
        await renew(call.hub, launch, around)
    return json_reply(_model(call.hub, launch, around or Around(), chosen))


async def keep(call: Call) -> Reply:
    """``POST launches/:id/keep-waiting``: let it wait as long again; 409 if it waits no more."""
    launch, _ = await call.hub.database.read(bound(_find, call, _START))
    await keep_waiting(call.hub, launch.id, asking=_asking(call, launch))
    return empty(204)


async def let_go(call: Call) -> Reply:
    """``POST launches/:id/release``: take its owner's hold off its job; 409 if there is none."""
    launch, _ = await call.hub.database.read(bound(_find, call, _START))
    await release(call.hub, launch.id, asking=_asking(call, launch))
    return empty(204)


async def notify(call: Call) -> Reply:
    """``POST launches/:id/notify``: tell its owner in these ways, ``{"by": ["email"]}``."""
    fields = await call.fields()
    check_keys(fields, {"by": list})
    launch, shown = await call.hub.database.read(bound(_find, call, _START))
    if shown is None:
        raise NotFound(HIDDEN)
    origin = f"{call.scope['scheme']}://{call.header(b'host')}"
    url = wait_address(call.hub, launch, origin)
    wished = [_channel(name) for name in texts_of(fields.get("by", []), "by")]
    words = words_of(call.texts(), shown, url)
    await follow(call.hub, launch, wished, words, asking=_asking(call, launch))
    return empty(204)


def _asking(call: Call, launch: Launch) -> Asking:
    own = call.caller.name == launch.user_name
    return replace(call.asking(), on_behalf=None if own else launch.user_name)


def _channel(name: str) -> Channel:
    if name not in set(Channel):
        raise Invalid("this site cannot notify in this way", field="by", code="channel-unknown")
    return Channel(name)


def _find(connection: Connection, call: Call, scope: str) -> tuple[Launch, Shown | None]:
    """Return a launch that the caller may see, and its server if it still is its newest."""
    launch = find_launch(connection, call.names[0])
    if launch is None:
        raise NotFound(HIDDEN)
    owner = None if launch.user_id is None else find_name(connection, launch.user_id)
    call.require(scope, owner, launch.server_name)
    if owner is None:
        return launch, None
    shown = find_shown(connection, get_owner(connection, owner), launch.server_name)
    is_newest = shown is not None and shown.launch is not None and shown.launch.id == launch.id
    return launch, shown if is_newest else None


def _model(hub: Hub, launch: Launch, around: Around, chosen: Collection[Channel]) -> wire.Wait:
    waits = launch.status in WAITING
    known = find_reason(launch.reason.code) if waits and launch.reason else None
    waited = (hub.clock.now() - launch.requested_at).total_seconds() if waits else 0.0
    return wire.Wait(
        origin=known.origin if known else None,
        actions=[str(action) for action in known.actions] if known else [],
        field=known.field if known else "",
        waited_seconds=max(0.0, waited),
        silent_since=isoformat(around.silent_since) if around.silent_since else None,
        asked_at=isoformat(launch.queue_asked_at)
        if launch.queue_asked_at and is_asked(launch)
        else None,
        usual=_usual(around),
        room=_room(around),
        as_of=isoformat(around.as_of) if around.as_of else None,
        reservation=_window(around.outlook.reservation),
        maintenance=_window(around.outlook.maintenance),
        fits_now={name: float(most) for name, most in around.outlook.fits_now.items()},
        fits_before=_whole(around.outlook.fits_before),
        own_jobs=[_job(job, _kind_of(hub, launch)) for job in around.own_jobs],
        own_servers=[
            wire.OwnServer(name=each.name, launch=each.launch.id, status=each.launch.status)
            for each in around.own_servers
            if each.launch is not None
        ],
        notify_by=[str(channel) for channel in channels_for(hub, launch.user_name)],
        notified_by=sorted(chosen),
    )


def _kind_of(hub: Hub, launch: Launch) -> str:
    placed = hub.spawners.get(launch.spawner)
    return placed.settings.kind if placed else ""


def _job(job: OwnJob, kind: str) -> wire.OwnJob:
    return wire.OwnJob(
        id=job.id,
        name=job.name,
        state=job.state,
        interactive=job.is_interactive,
        cancel=cancel_command(kind, job),
        cpus=job.cpus,
        gpus=job.gpus,
    )


def _window(reservation: Reservation | None) -> wire.Window | None:
    if reservation is None:
        return None
    return wire.Window(
        name=reservation.name,
        starts_at=isoformat(reservation.starts_at),
        ends_at=isoformat(reservation.ends_at),
    )


def _whole(seconds: Fraction | None) -> int | None:
    return None if seconds is None else int(seconds)


def _usual(around: Around) -> wire.Usual | None:
    if around.usual is None:
        return None
    return wire.Usual(
        wait_seconds=around.usual.seconds, starts=around.usual.count, days=WINDOW.days
    )


def _room(around: Around) -> wire.Room | None:
    room = around.room
    if room is None:
        return None
    return wire.Room(
        as_of=isoformat(room.as_of),
        cpus=room.cpus,
        of_cpus=room.of_cpus,
        gpus=room.gpus,
        of_gpus=room.of_gpus,
        most_cpus=room.most_cpus,
        most_memory_bytes=room.most_memory,
    )
