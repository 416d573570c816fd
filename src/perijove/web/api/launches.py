"""Our own resources below ``perijove/``: launches with the whole truth, and options."""

from typing import Any, Final

import anyio
import msgspec
from sqlalchemy import Connection

from perijove.db.core import bound
from perijove.db.events import Event, list_events
from perijove.db.launches import find_launch, get_launch, list_newest
from perijove.domain import launch as domain
from perijove.domain.errors import Invalid, NotFound
from perijove.domain.launch import CLOCK_OF, Launch, Status
from perijove.kit.clock import isoformat, monotonic
from perijove.services.admission import explain
from perijove.services.hub import Hub
from perijove.services.launches import place_in_line
from perijove.services.profiles import options_schema
from perijove.services.users import find_name, get_user
from perijove.web.api.calls import Call, Reply, Stream, Write, json_reply
from perijove.web.api.progress import KEEP_ALIVE_SECONDS
from perijove.web.problems import HIDDEN
from perijove.wire import launches as wire

SCOPE: Final = "read:servers"
_STAMPS: Final = (
    "requested", "submitted", "queued", "starting", "connecting", "ready", "ending", "ended",
)  # fmt: skip
_COMMENT: Final = b":\n\n"
_POLL_SECONDS: Final = 1.0
_PAUSE_SECONDS: Final = 0.05
_LARGEST_SEQ: Final = 1 << 31
_LIMIT: Final = 20
_MOST: Final = 200


def show(connection: Connection, call: Call) -> Reply:
    """``GET launches/:id``: what is wanted, what was seen, since when, and why it waits."""
    launch = _visible(connection, call)
    line = place_in_line(connection, launch)
    return json_reply(launch_model(call.hub, launch, line))


def listed(connection: Connection, call: Call) -> Reply:
    """``GET users/:n/launches``: what a user started, newest first; ``?server=&limit=``."""
    user = get_user(connection, call.user_name)
    found = list_newest(
        connection, user.id, server_name=call.query.get("server"), limit=_limit(call)
    )
    models = [launch_model(call.hub, launch, place_in_line(connection, launch)) for launch in found]
    return json_reply(wire.Launches(models))


def events(connection: Connection, call: Call) -> Reply:
    """``GET launches/:id/events``: what happened, after ``?after=<seq>``."""
    launch = _visible(connection, call)
    found = list_events(connection, launch.id, after=_after(call))
    return json_reply(wire.Events([_event(each) for each in found]))


async def events_or_stream(call: Call) -> Reply | Stream:
    """Answer with a list, or as long as the launch is live a stream for who asks for one."""
    if "text/event-stream" not in call.header(b"accept"):
        return await call.hub.database.read(bound(events, call))
    launch = await call.hub.database.read(bound(_visible, call))
    after, hub = _after(call), call.hub

    async def run(write: Write) -> None:
        await _follow(hub, launch.id, after, write)

    return Stream(run)


def options(connection: Connection, call: Call) -> Reply:
    """``GET users/:n/options``: a JSON Schema per profile, and what was chosen last."""
    user = get_user(connection, call.user_name)
    form = options_schema(connection, user.id, call.query.get("server", ""))
    return json_reply(form.as_json())


def policy(connection: Connection, call: Call) -> Reply:
    """``GET users/:n/policy``: what a user may have, and which rule of which policy says so."""
    return json_reply(explain(connection, get_user(connection, call.user_name).id))


def _visible(connection: Connection, call: Call) -> Launch:
    launch = find_launch(connection, call.names[0])
    if launch is None:
        raise NotFound(HIDDEN)
    # A launch keeps the name its owner had; whoever has that name now need not be its owner.
    owner = None if launch.user_id is None else find_name(connection, launch.user_id)
    call.require(SCOPE, owner, launch.server_name)
    return launch


def _limit(call: Call) -> int:
    text = call.query.get("limit", str(_LIMIT))
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:4]) <= _MOST:
        raise Invalid(f"limit must be from 1 to {_MOST}", field="limit", code="limit-number")
    return int(text[:4])


def _after(call: Call) -> int:
    text = call.header(b"last-event-id") or call.query.get("after", "0")
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise Invalid("after must be the number of an event", field="after", code="event-number")
    return int(text)


async def _follow(hub: Hub, launch_id: str, after: int, write: Write) -> None:
    await write(_COMMENT)
    written_at = monotonic()
    while True:
        strike = hub.events.listen(launch_id)
        launch = await hub.database.read(bound(get_launch, launch_id))
        found = await hub.database.read(bound(list_events, launch_id, after=after))
        if found:
            after = found[-1].seq
            await write(b"".join(map(_sse, found)))
            written_at = monotonic()
        if not launch.is_live or hub.stopping.is_set():
            return
        if monotonic() - written_at >= KEEP_ALIVE_SECONDS:
            await write(_COMMENT)
            written_at = monotonic()
        await anyio.sleep(_PAUSE_SECONDS)
        with anyio.move_on_after(_POLL_SECONDS):
            await strike.wait()


def _sse(event: Event) -> bytes:
    return b"id: %d\ndata: %s\n\n" % (event.seq, msgspec.json.encode(_event(event)))


def _event(event: Event) -> wire.Event:
    return wire.Event(
        seq=event.seq,
        at=isoformat(event.at),
        code=event.code,
        params=dict(event.params),
        actor=event.actor,
    )


def launch_model(hub: Hub, launch: Launch, line: tuple[int, int] | None) -> wire.Launch:
    """Return a launch as our API shows it."""
    spec, path = launch.spec, f"{hub.hub_prefix}api/perijove/launches/{launch.id}"
    stamps = {name: getattr(launch, f"{name}_at") for name in _STAMPS}
    return wire.Launch(
        id=launch.id,
        kind=launch.kind,
        user=launch.user_name,
        server=launch.server_name,
        spawner=launch.spawner,
        wanted=launch.wanted,
        status=launch.status,
        reason=_reason(launch),
        line=None if line is None else wire.Place(*line),
        clock=CLOCK_OF.get(launch.status),
        entered_at=isoformat(launch.entered_at()),
        unknown_since=_text(launch.unknown_since),
        timeline={name: isoformat(at) for name, at in stamps.items() if at is not None},
        end=_end(launch.end),
        node=launch.node,
        profile=spec.get("profile", {}).get("name", ""),
        profile_revision=spec.get("profile", {}).get("revision", 0),
        options=spec.get("options", {}),
        resources=spec.get("resources", {}),
        decision=spec.get("decision", []),
        after=launch.after,
        last_activity=_text(launch.last_activity),
        heard_at=_text(launch.heard_at),
        url=path,
        events_url=f"{path}/events",
    )


def _reason(launch: Launch) -> wire.Waiting | None:
    reason = launch.reason
    if reason is None or launch.status is Status.ENDED:
        return None
    return wire.Waiting(code=reason.code, params=dict(reason.params), words=reason.words)


def _end(end: domain.End | None) -> wire.Ended | None:
    if end is None:
        return None
    return wire.Ended(cause=end.cause, code=end.code, reason=end.reason, detail=end.detail)


def _text(at: Any) -> str | None:
    return None if at is None else isoformat(at)
