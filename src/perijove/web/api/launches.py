"""Our own resources below ``perijove/``: launches with the whole truth, and options."""

from typing import Any, Final

import anyio
import msgspec
from sqlalchemy import Connection

from perijove.db.core import bound
from perijove.db.events import Event, list_events
from perijove.db.launches import find_launch, get_launch, list_handles, list_newest
from perijove.domain import launch as domain
from perijove.domain.errors import Invalid, NotFound, SpawnerTransient
from perijove.domain.launch import CLOCK_OF, Launch, Status
from perijove.kit.clock import isoformat, monotonic
from perijove.services.admission import explain
from perijove.services.hub import Hub, server_prefix
from perijove.services.launches import place_in_line
from perijove.services.users import find_name, get_user
from perijove.spawners.contract import HasLogs
from perijove.web.api.calls import Call, Reply, Stream, Write, json_reply
from perijove.web.api.progress import KEEP_ALIVE_SECONDS
from perijove.web.pages.waiting import in_words
from perijove.web.problems import HIDDEN
from perijove.web.texts import Texts, sentences
from perijove.wire import launches as wire

SCOPE: Final = "read:servers"
LOG_SCOPE: Final = "access:servers"
_STAMPS: Final = (
    "requested", "submitted", "queued", "starting", "connecting", "ready", "ending", "ended",
)  # fmt: skip
_COMMENT: Final = b":\n\n"
_POLL_SECONDS: Final = 1.0
_PAUSE_SECONDS: Final = 0.05
_LARGEST_SEQ: Final = 1 << 31
_LIMIT: Final = 20
_MOST: Final = 200
_LINES: Final = 100
_MOST_LINES: Final = 2000
_LOG_SECONDS: Final = 10.0


def show(connection: Connection, call: Call) -> Reply:
    """``GET launches/:id``: what is wanted, what was seen, since when, and why it waits."""
    launch = _visible(connection, call)
    line = place_in_line(connection, launch)
    return json_reply(_model(call, launch, line))


def listed(connection: Connection, call: Call) -> Reply:
    """``GET users/:n/launches``: what a user started, newest first; ``?server=&limit=``."""
    user = get_user(connection, call.user_name)
    limit = _number(call, "limit", default=_LIMIT, most=_MOST)
    found = list_newest(
        connection,
        user.id,
        server_name=call.query.get("server"),
        limit=limit,
    )
    models = [_model(call, launch, place_in_line(connection, launch)) for launch in found]
    return json_reply(wire.Launches(models))


def events(connection: Connection, call: Call) -> Reply:
    """``GET launches/:id/events``: what happened, after ``?after=<seq>``."""
    launch = _visible(connection, call)
    found = list_events(connection, launch.id, after=_after(call))
    texts = call.texts()
    return json_reply(wire.Events([_event(texts, each) for each in found]))


async def events_or_stream(call: Call) -> Reply | Stream:
    """Answer with a list, or as long as the launch is live a stream for who asks for one."""
    if "text/event-stream" not in call.header(b"accept"):
        return await call.hub.database.read(bound(events, call))
    launch = await call.hub.database.read(bound(_visible, call))
    after, hub, texts = _after(call), call.hub, call.texts()

    async def run(write: Write) -> None:
        await _follow(hub, launch.id, after, write, texts)

    return Stream(run)


async def log(call: Call) -> Reply:
    """
    ``GET launches/:id/log``: the last ``?lines=`` of its output; empty where there is none.

    Output may hold what its owner alone should see, so it takes the right to use the server.
    """
    lines = _number(call, "lines", default=_LINES, most=_MOST_LINES)
    launch = await call.hub.database.read(bound(_visible, call, LOG_SCOPE))
    placed = call.hub.spawners.get(launch.spawner)
    if placed is None or not isinstance(placed.spawner, HasLogs):
        return json_reply(wire.Log(""))
    handles = await call.hub.database.read(bound(list_handles, launch.id))
    try:
        with anyio.fail_after(_LOG_SECONDS):
            text = await placed.spawner.log_tail(
                launch.name, handles[0] if handles else None, lines=lines
            )
    except TimeoutError:
        raise SpawnerTransient(f"{launch.spawner} did not show the log in time") from None
    return json_reply(wire.Log(text))


def policy(connection: Connection, call: Call) -> Reply:
    """``GET users/:n/policy``: what a user may have, and which rule of which policy says so."""
    return json_reply(explain(connection, get_user(connection, call.user_name).id))


def _visible(connection: Connection, call: Call, scope: str = SCOPE) -> Launch:
    launch = find_launch(connection, call.names[0])
    if launch is None:
        raise NotFound(HIDDEN)
    # A launch keeps the name its owner had; whoever has that name now need not be its owner.
    owner = None if launch.user_id is None else find_name(connection, launch.user_id)
    call.require(scope, owner, launch.server_name)
    return launch


def _number(call: Call, name: str, *, default: int, most: int) -> int:
    text = call.query.get(name, str(default))
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:5]) <= most:
        raise Invalid(f"{name} must be from 1 to {most}", field=name, code=f"{name}-number")
    return int(text[:5])


def _after(call: Call) -> int:
    text = call.header(b"last-event-id") or call.query.get("after", "0")
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise Invalid("after must be the number of an event", field="after", code="event-number")
    return int(text)


async def _follow(hub: Hub, launch_id: str, after: int, write: Write, texts: Texts) -> None:
    await write(_COMMENT)
    written_at = monotonic()
    while True:
        strike = hub.events.listen(launch_id)
        launch = await hub.database.read(bound(get_launch, launch_id))
        found = await hub.database.read(bound(list_events, launch_id, after=after))
        if found:
            after = found[-1].seq
            await write(b"".join(_sse(texts, each) for each in found))
            written_at = monotonic()
        if not launch.is_live or hub.stopping.is_set():
            return
        if monotonic() - written_at >= KEEP_ALIVE_SECONDS:
            await write(_COMMENT)
            written_at = monotonic()
        await anyio.sleep(_PAUSE_SECONDS)
        with anyio.move_on_after(_POLL_SECONDS):
            await strike.wait()


def _sse(texts: Texts, event: Event) -> bytes:
    return b"id: %d\ndata: %s\n\n" % (event.seq, msgspec.json.encode(_event(texts, event)))


def _event(texts: Texts, event: Event) -> wire.Event:
    return wire.Event(
        seq=event.seq,
        at=isoformat(event.at),
        code=event.code,
        text=sentences.event(texts, event.code, event.params),
        params=dict(event.params),
        actor=event.actor,
    )


def _model(call: Call, launch: Launch, line: tuple[int, int] | None) -> wire.Launch:
    hub, spec = call.hub, launch.spec
    path = f"{hub.hub_prefix}api/perijove/launches/{launch.id}"
    stamps = {name: getattr(launch, f"{name}_at") for name in _STAMPS}
    return wire.Launch(
        id=launch.id,
        kind=launch.kind,
        user=launch.user_name,
        server=launch.server_name,
        spawner=launch.spawner,
        wanted=launch.wanted,
        status=launch.status,
        said=_said(call, launch, line),
        reason=_reason(launch),
        expected_start=_text(launch.expected_start),
        estimated_at=_text(launch.estimated_at),
        ends_at=_text(launch.ends_at),
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
        log_url=f"{path}/log",
        server_url=server_prefix(hub.base_path, launch.user_name, launch.server_name),
    )


def _said(call: Call, launch: Launch, line: tuple[int, int] | None) -> wire.Said:
    placed = call.hub.spawners.get(launch.spawner)
    state, why = in_words(call.texts(), launch, line, placed.settings if placed else None)
    return wire.Said(state=state, text=why.text, advice=why.advice)


def _reason(launch: Launch) -> wire.Waiting | None:
    reason = launch.reason
    if reason is None or launch.status is Status.ENDED:
        return None
    return wire.Waiting(
        code=reason.code,
        params=dict(reason.params),
        words=reason.words,
        since=_text(reason.since),
    )


def _end(end: domain.End | None) -> wire.Ended | None:
    if end is None:
        return None
    return wire.Ended(cause=end.cause, code=end.code, reason=end.reason, detail=end.detail)


def _text(at: Any) -> str | None:
    return None if at is None else isoformat(at)
