"""How a start goes, how a server ended, and what stands where no server runs (wire §1.9, §4.5)."""

from collections.abc import Collection, Sequence
from typing import Final
from urllib.parse import urlencode

import anyio
from starlette.responses import JSONResponse, RedirectResponse, Response

from perijove.db.core import Connection, bound
from perijove.db.events import Event, list_events
from perijove.db.launches import list_handles
from perijove.db.volumes import Volume, list_volumes
from perijove.domain.errors import HubError, NotFound, SpawnerError
from perijove.domain.launch import Cause, Clock, End, Launch, Status, Wanted
from perijove.domain.names import normalise_user_name
from perijove.domain.reasons import Origin, of_end
from perijove.services.admission import SAFE_MODE
from perijove.services.discovery import kinds_of
from perijove.services.hub import WIRE_VERSION
from perijove.services.launches import place_in_line
from perijove.services.notices import Channel, followed
from perijove.services.overview import Owner, Shown, find_shown, get_owner
from perijove.services.profiles import Offer, offered
from perijove.services.volumes import any_keeps_volumes
from perijove.services.waits import look_around, renew
from perijove.spawners.contract import HasLogs
from perijove.web.next_url import next_of
from perijove.web.pages.cards import last_end
from perijove.web.pages.door import me, owner_of, prefers_json
from perijove.web.pages.following import ways
from perijove.web.pages.look import Frame, own_address
from perijove.web.pages.offer import titles_of
from perijove.web.pages.suggest import may_help, suggest
from perijove.web.pages.views import Links, name_of, with_query
from perijove.web.pages.volumes import of_server, warning_of
from perijove.web.pages.waiting import Seen, tell

_LOG_LINES: Final = 50
_LOG_SECONDS: Final = 2
"""A log that takes longer is left out: the page must not wait for a platform."""
_LONGEST_PAUSE: Final = 10
_LOOP_AFTER: Final = 4
_LOOP_AFTER_OTHER_VERSION: Final = 2


async def show_pending(frame: Frame) -> Response:
    """Show how it goes or how it ended; go on to a server that is ready. Starts nothing."""
    owner, server = await owner_of(frame)
    shown = await frame.hub.database.read(bound(find_shown, owner, server))
    links = Links(frame.hub.base_path, owner.name, server)
    if shown is None and server:
        raise NotFound(f"{owner.name} has no server named {server!r}", code="server-unknown")
    if shown is None or shown.launch is None:
        return _not_running(frame, owner, server, shown, status=200)
    launch = shown.launch
    is_ready = launch.status is Status.READY and launch.wanted is Wanted.RUN
    if is_ready and "show" not in frame.request.query_params:
        return RedirectResponse(next_of(frame.hub, frame.request) or links.open, 302)
    return await _told(frame, shown, launch, links)


async def _told(frame: Frame, shown: Shown, launch: Launch, links: Links) -> Response:
    placed = frame.hub.spawners.get(launch.spawner)
    log = await _log_of(frame, launch)
    keeps = any_keeps_volumes(frame.hub)

    def unit(
        connection: Connection,
    ) -> tuple[Seen, Sequence[Offer], Collection[Channel], Sequence[Volume]]:
        seen = Seen(
            launch=launch,
            now=frame.now,
            base_path=frame.hub.base_path,
            events=list_events(connection, launch.id),
            line=place_in_line(connection, launch) if launch.status is Status.REQUESTED else None,
            titles=titles_of(connection),
            around=look_around(connection, frame.hub, shown),
            settings=placed.settings if placed else None,
            log=log,
            is_one_of_several=len(kinds_of(frame.hub)) > 1,
        )
        offers = offered(connection, shown.owner.id) if may_help(launch) else ()
        kept = list_volumes(connection, user_id=shown.owner.id) if keeps else ()
        return seen, offers, followed(connection, launch.id), kept

    seen, offers, channels, kept = await frame.hub.database.read(unit)
    await renew(frame.hub, launch, seen.around)
    told = tell(frame.texts, shown, seen)
    return frame.page(
        "spawn_pending.html",
        status=_status_of(launch),
        nav="home",
        told=told,
        data_warning=warning_of(frame.texts, of_server(kept, shown.name)),
        suggestion=suggest(frame.texts, launch, offers, links.spawn, seen.around.outlook),
        stream_url=_stream_url(frame, launch, seen.events),
        open_url=links.open,
        stop_url=links.act("stop"),
        wait_url=links.wait,
        again_url=links.act("start"),
        safe_url=links.act("start-safely") if _is_safer(frame, launch) else "",
        restart_url=links.act("restart"),
        keep_url=links.act("keep-waiting"),
        release_url=links.act("release"),
        follow_url=links.act("notify"),
        ways=ways(frame, launch, channels),
        spawn_url=with_query(
            links.spawn,
            again="1" if launch.is_live else "",
            problem=launch.id if told.is_impossible else "",
        ),
    )


def _stream_url(frame: Frame, launch: Launch, events: Sequence[Event]) -> str:
    """Return where the events come from that this page does not show yet."""
    last = str(events[-1].seq) if events else ""
    stream = f"{frame.hub.hub_prefix}api/perijove/launches/{launch.id}/events"
    return with_query(stream, after=last)


async def _log_of(frame: Frame, launch: Launch) -> str:
    """Return the last lines of a launch's output, where its platform can show them soon."""
    placed = frame.hub.spawners.get(launch.spawner)
    if placed is None or not isinstance(placed.spawner, HasLogs):
        return ""
    if launch.status in (Status.REQUESTED, Status.READY):
        return ""
    handles = await frame.hub.database.read(bound(list_handles, launch.id))
    handle = handles[0] if handles else None
    tail = ""
    with anyio.move_on_after(_LOG_SECONDS):
        try:
            tail = await placed.spawner.log_tail(launch.name, handle, lines=_LOG_LINES)
        except SpawnerError:
            return ""
    return tail


def has_failed(launch: Launch) -> bool:
    """Tell whether a launch is over without ever having been ready, and not by choice."""
    end = launch.end
    return (
        not launch.is_live
        and end is not None
        and end.cause is Cause.NEVER_STARTED
        and end.reason != "cancelled"
    )


def _is_safer(frame: Frame, launch: Launch) -> bool:
    """Tell whether a start without the person's own settings may go better (failure 5.35)."""
    end = launch.end
    if launch.is_live or launch.ready_at is not None or end is None:
        return False
    if launch.spawner not in kinds_of(frame.hub) or launch.spec.get("options", {}).get(SAFE_MODE):
        return False
    ended_itself = end.cause in (Cause.EXITED, Cause.SIGNAL)
    return ended_itself or of_end(end).origin is Origin.APPLICATION or _is_connect_clock(end)


def _is_connect_clock(end: End) -> bool:
    return end.cause is Cause.NEVER_STARTED and end.reason == f"{Clock.CONNECT}-clock"


def _status_of(launch: Launch) -> int:
    """
    Return the page's status (wire §4.5): that of the error which kept it from starting.

    Ours, or the platform's, unless the request itself was what could not be.
    """
    if not has_failed(launch):
        return 200
    assert launch.end is not None
    return 400 if of_end(launch.end).origin in (Origin.REQUEST, Origin.POLICY) else 500


# --- where a server should be -----------------------------------------------------------------


async def show_in_its_place(frame: Frame) -> Response:
    """Answer for a server that does not answer itself (wire §1.9)."""
    owner, server = await _owner_in_path(frame)
    shown = await frame.hub.database.read(bound(find_shown, owner, server))
    launch = shown.launch if shown else None
    links = Links(frame.hub.base_path, owner.name, server)
    request = frame.request
    is_ready = launch is not None and launch.status is Status.READY
    if request.method in ("GET", "HEAD") and launch is not None and is_ready:
        return await _back(frame, launch)
    if request.method not in ("GET", "HEAD") or prefers_json(request) or _is_api(frame):
        return _gone_json(frame, links)
    here = _servers_address(frame)
    if launch is not None and (launch.is_live or has_failed(launch)):
        return RedirectResponse(with_query(links.wait, next=here), 303)
    return _not_running(frame, owner, server, shown, status=424)


async def _owner_in_path(frame: Frame) -> tuple[Owner, str]:
    """Return whose server an address means; the first part is a server's name if one has it."""
    caller = me(frame)
    user = normalise_user_name(frame.request.path_params["user"][:255])
    first = frame.request.path_params.get("path", "").partition("/")[0]
    may = caller.may("access:servers", user=user, server="") or (
        first != "" and caller.may("access:servers", user=user, server=first)
    )
    if not may:
        raise NotFound("No access to resources or resources not found")
    owner = await frame.hub.database.read(bound(get_owner, user))
    if not first:
        return owner, ""
    named = await frame.hub.database.read(bound(find_shown, owner, first))
    return owner, first if named is not None else ""


async def _back(frame: Frame, launch: Launch) -> Response:
    """Send the browser to the server, which is ready; more slowly each time it comes back."""
    times = frame.request.query_params.get("redirects", "0")
    count = int(times) if times.isascii() and times.isdigit() and len(times) < 3 else 0
    is_other = launch.server_version not in ("", WIRE_VERSION)
    if count >= (_LOOP_AFTER_OTHER_VERSION if is_other else _LOOP_AFTER):
        raise HubError("Redirect loop detected", code="redirect-loop")  # 500, says the wire
    if count:
        await anyio.sleep(min(2**count, _LONGEST_PAUSE))
    query = [(k, v) for k, v in frame.request.query_params.multi_items() if k != "redirects"]
    path = _servers_address(frame).partition("?")[0]
    target = f"{path}?{urlencode([*query, ('redirects', str(count + 1))])}"
    return RedirectResponse(target, 302)


def _gone_json(frame: Frame, links: Links) -> Response:
    base = frame.request.url
    own = _servers_address(frame).partition("?")[0]
    message = (
        f"JupyterHub server no longer running at {own}."
        f" Restart the server at {base.scheme}://{base.netloc}{links.spawn}"
    )
    return JSONResponse({"message": message}, 424)


def _is_api(frame: Frame) -> bool:
    return "api" in frame.request.path_params.get("path", "").split("/")


def _servers_address(frame: Frame) -> str:
    """Return the address of the server's page that was asked for."""
    return frame.hub.base_path + own_address(frame.request).removeprefix(frame.hub.hub_prefix)


def _not_running(
    frame: Frame, owner: Owner, server: str, shown: Shown | None, *, status: int
) -> Response:
    texts = frame.texts
    here = next_of(frame.hub, frame.request) or (_servers_address(frame) if status == 424 else "")
    links = Links(frame.hub.base_path, owner.name, server)
    return frame.page(
        "not_running.html",
        status=status,
        server=name_of(texts, shown) if shown else server or texts.gettext("Default server"),
        last_end=last_end(texts, shown.launch if shown else None, frame.hub),
        spawn_url=with_query(links.spawn, next=here),
    )


async def redirect_to_mine(frame: Frame) -> Response:
    """Lead an address without a person in it to the same place of one's own server (wire §4.1)."""
    caller = me(frame)
    links = Links(frame.hub.base_path, caller.name, "")
    rest = own_address(frame.request).removeprefix(f"{frame.hub.hub_prefix}user-redirect/")
    return RedirectResponse(with_query(links.spawn, next=f"{links.open}{rest}"), 302)
