"""Home, the front door behind it, and what is done with a server from a card."""

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.responses import RedirectResponse, Response

from perijove.db.core import Connection, bound
from perijove.db.volumes import Volume, list_volumes
from perijove.domain.errors import HubError, Invalid, NotFound
from perijove.domain.launch import Cause
from perijove.domain.names import check_display_name, slug
from perijove.domain.storage import Kept
from perijove.services.admission import SAFE_MODE
from perijove.services.launches import request_restart, request_start, request_stop
from perijove.services.overview import Owner, Shown, find_shown, get_owner, list_shown
from perijove.services.volumes import any_keeps_volumes
from perijove.web import xsrf
from perijove.web.forms import read_form
from perijove.web.pages import following, volumes
from perijove.web.pages.cards import card, summary
from perijove.web.pages.door import asking, back_to, me, owner_of
from perijove.web.pages.look import Frame
from perijove.web.pages.offer import allowance_of
from perijove.web.pages.views import (
    Chip,
    Choice,
    Links,
    State,
    launch_chips,
    name_of,
    state_of,
    with_query,
)
from perijove.web.signin_flow import apply_logout, logout
from perijove.web.texts import sentences


async def show_home(frame: Frame) -> Response:
    """Show one's servers."""
    owner, all_shown = await _mine(frame)
    allowed = await allowance_of(frame, owner)
    kept = await _kept(frame, owner)
    cards = [
        card(frame.texts, shown, frame.hub, frame.now, allowed.titles, kept) for shown in all_shown
    ]
    named = sum(1 for shown in all_shown if shown.name)
    named_limit = allowed.named_servers
    return frame.page(
        "home.html",
        nav="home",
        cards=cards,
        level=max((each.left.level for each in cards if each.left), default=0),
        busy=any(each.is_live and not each.is_ready for each in cards),
        sum=summary(frame.texts, all_shown, named_limit) if all_shown else [],
        may_add=named_limit is None or named < named_limit,
    )


async def front_door(frame: Frame) -> Response:
    """Go where this site wants people to land after signing in (wire §4.3)."""
    owner, all_shown = await _mine(frame)
    query = dict(frame.request.query_params)
    default = next((shown for shown in all_shown if not shown.name), None)
    live = [shown for shown in all_shown if shown.is_live]
    spawn = with_query(f"{frame.hub.hub_prefix}spawn", **query)
    match frame.hub.settings.after_login:
        case "form":
            target = f"{frame.hub.hub_prefix}home" if live else spawn
        case "default-server":
            if default is not None and default.is_live:
                target = _address(frame, default, query)
            else:
                target = await _started(frame, owner, spawn)
        case _:
            running = default if default is not None and default.is_live else None
            if running is None and len(live) == 1:
                running = live[0]
            target = _address(frame, running, query) if running else spawn
    return RedirectResponse(target, 302)


async def _started(frame: Frame, owner: Owner, form: str) -> str:
    """Start the default server as last time; where that is refused, the form says why."""
    if not xsrf.is_navigation(frame.request):
        return form
    try:
        await request_start(
            frame.hub, user_id=owner.id, server_name="", asking=asking(frame, owner)
        )
    except HubError:
        return form
    return Links(frame.hub.base_path, owner.name, "").wait


def _address(frame: Frame, shown: Shown, query: dict[str, str]) -> str:
    return with_query(Links(frame.hub.base_path, shown.owner.name, shown.name).open, **query)


async def _mine(frame: Frame) -> tuple[Owner, Sequence[Shown]]:
    name = me(frame).name

    def unit(connection: Connection) -> tuple[Owner, Sequence[Shown]]:
        owner = get_owner(connection, name)
        return owner, list_shown(connection, owner)

    return await frame.hub.database.read(unit)


async def _kept(frame: Frame, owner: Owner) -> Sequence[Volume]:
    """Return what a person keeps, where anything can be kept."""
    if not any_keeps_volumes(frame.hub):
        return ()
    return await frame.hub.database.read(bound(list_volumes, user_id=owner.id))


# --- a new one --------------------------------------------------------------------------------


async def show_new(frame: Frame) -> Response:
    """Ask what a new server is to be called."""
    return _new_form(frame)


async def take_new(frame: Frame) -> Response:
    """Go on to the options of a server with the name that was given."""
    form = await read_form(frame.request)
    typed = " ".join(str(form.get("display_name", "")).split())
    owner, all_shown = await _mine(frame)
    allowed = await allowance_of(frame, owner)
    try:
        name = check_display_name(typed)
    except Invalid as error:
        return _new_form(
            frame, display_name=typed[:255], error=sentences.error(frame.texts, error).text
        )
    key = slug(name, max_length=allowed.name_length)
    if any(shown.name == key for shown in all_shown):
        taken = frame.texts.gettext("You already have a server with this name.")
        return _new_form(frame, display_name=name, error=taken)
    links = Links(frame.hub.base_path, owner.name, key)
    return RedirectResponse(with_query(links.spawn, display_name=name), 302)


def _new_form(frame: Frame, *, display_name: str = "", error: str = "") -> Response:
    return frame.page(
        "new.html",
        status=400 if error else 200,
        nav="home",
        display_name=display_name,
        error=error,
        limit_text="",
    )


# --- with one of them -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Item:
    """A server that a question is about."""

    name: str
    state: State
    chips: Sequence[Chip]


async def confirm(frame: Frame) -> Response:
    """Ask before a server is stopped, restarted or deleted; says what happens to the data."""
    owner, server = await owner_of(frame)
    return await _ask(frame, owner, server)


async def _ask(frame: Frame, owner: Owner, server: str, *, error: str = "") -> Response:
    shown = await _known(frame, owner, server)
    lost: Sequence[Volume] = ()
    texts, verb = frame.texts, frame.request.path_params["verb"]
    unsaved = texts.gettext("What runs in it ends, and what is not saved is lost.")
    kept = texts.gettext("Your files are kept: they belong to you, not to this server.")
    match verb:
        case "stop":
            heading, button = texts.gettext("Stop this server?"), texts.gettext("Stop")
            told = [unsaved, kept]
        case "restart":
            heading, button = texts.gettext("Restart this server?"), texts.gettext("Restart")
            told = [texts.gettext("It starts again with the same options."), unsaved, kept]
        case "delete":
            heading, button = texts.gettext("Delete this server?"), texts.gettext("Delete")
            gone = texts.gettext("The server, its name and its remembered options are deleted.")
            lost = _own(await _kept(frame, owner), server)
            files = [volumes.deletion_sentence(texts, volume) for volume in lost] or [kept]
            told = [*([unsaved] if shown.is_live else []), gone, *files]
        case _:
            raise NotFound("no such page")
    links = Links(frame.hub.base_path, owner.name, server)
    return frame.page(
        "confirm.html",
        status=400 if error else 200,
        nav="home",
        heading=heading,
        what=name_of(texts, shown),
        sentences=told,
        facts=[volumes.deletion_facts(texts, volume) for volume in lost],
        word=volumes.typed_word(shown, owner.name) if lost else "",
        error=error,
        items=[],
        action=links.act(verb),
        choices=[Choice(verb, button, "primary" if verb == "restart" else "danger")],
        back=f"{frame.hub.hub_prefix}home",
    )


async def act(frame: Frame) -> Response:
    """Start, stop, restart or delete a server; each may be asked twice and in every state."""
    owner, server = await owner_of(frame)
    links = Links(frame.hub.base_path, owner.name, server)
    hub, who = frame.hub, asking(frame, owner)
    match frame.request.path_params["verb"]:
        case verb if verb in following.VERBS:
            return await following.answer(frame, owner, server, verb)
        case "start" | "start-safely" as verb:
            options = {SAFE_MODE: True} if verb == "start-safely" else None
            await request_start(
                hub, user_id=owner.id, server_name=server, options=options, asking=who
            )
            return RedirectResponse(links.wait, 302)
        case "restart":
            await request_restart(hub, user_id=owner.id, server_name=server, asking=who)
            return RedirectResponse(links.wait, 302)
        case "stop" | "delete" as verb:
            cause = Cause.USER if me(frame).name == owner.name else Cause.ADMIN
            if verb == "delete" and not server:
                raise Invalid("the default server cannot be deleted", code="default-server-stays")
            if verb == "delete" and not await _may_delete(frame, owner, server):
                wrong = frame.texts.gettext("This is not the name that was asked for.")
                return await _ask(frame, owner, server, error=wrong)
            await request_stop(
                hub,
                user_id=owner.id,
                server_name=server,
                asking=who,
                cause=cause,
                remove=verb == "delete",
            )
            return RedirectResponse(await back_to(frame, f"{hub.hub_prefix}home"), 302)
    raise NotFound("no such page")


def _own(kept: Sequence[Volume], server: str) -> Sequence[Volume]:
    """Return the volumes that are deleted with a server."""
    return [volume for volume in volumes.of_server(kept, server) if volume.kind is Kept.SERVER]


async def _may_delete(frame: Frame, owner: Owner, server: str) -> bool:
    """Tell whether the name was typed of a server with which data is deleted."""
    if not _own(await _kept(frame, owner), server):
        return True
    shown = await frame.hub.database.read(bound(find_shown, owner, server))
    return shown is None or await volumes.is_typed(frame, volumes.typed_word(shown, owner.name))


async def _known(frame: Frame, owner: Owner, server: str) -> Shown:
    shown = await frame.hub.database.read(bound(find_shown, owner, server))
    if shown is None:
        raise NotFound(f"{owner.name} has no server named {server!r}", code="server-unknown")
    return shown


# --- leaving ----------------------------------------------------------------------------------


async def leave(frame: Frame) -> Response:
    """Sign out; where the site wishes it and something runs, ask first what shall become of it."""
    hub = frame.hub
    if frame.me is not None and hub.settings.logout_stops_servers:
        _, all_shown = await _mine(frame)
        live = [shown for shown in all_shown if shown.is_live]
        if live and frame.request.method == "GET" and xsrf.is_navigation(frame.request):
            return _ask_what_stays(frame, live)
    return await _out(frame)


async def leave_and_stop(frame: Frame) -> Response:
    """Stop the servers that the page has listed, if the person said so, and sign out."""
    form = await read_form(frame.request)
    if frame.me is not None and form.get("do") == "stop":
        owner, all_shown = await _mine(frame)
        for shown in all_shown:
            if shown.is_live:
                await request_stop(
                    frame.hub,
                    user_id=owner.id,
                    server_name=shown.name,
                    asking=asking(frame, owner),
                )
    return await _out(frame)


async def _out(frame: Frame) -> Response:
    response = RedirectResponse(await logout(frame.hub, frame.request), 302)
    apply_logout(frame.hub, response)
    return response


def _ask_what_stays(frame: Frame, live: Sequence[Shown]) -> Response:
    texts = frame.texts
    items = [
        Item(
            name_of(texts, shown),
            state_of(texts, shown.launch),
            launch_chips(texts, shown.launch),
        )
        for shown in live
    ]
    return frame.page(
        "confirm.html",
        heading=texts.gettext("Sign out"),
        what="",
        sentences=[texts.gettext("These servers of yours are running or on their way:")],
        items=items,
        action=f"{frame.hub.hub_prefix}logout",
        choices=[
            Choice("stop", texts.gettext("Stop them and sign out"), "primary"),
            Choice("keep", texts.gettext("Let them run and sign out"), ""),
        ],
        back=f"{frame.hub.hub_prefix}home",
    )
