"""The options page and what it starts (wire §4.5)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from starlette.datastructures import FormData
from starlette.responses import RedirectResponse, Response

from perijove.db.core import Connection, bound
from perijove.db.servers import change_server, find_server
from perijove.domain.errors import HubError, Invalid
from perijove.domain.faults import Fault, InvalidOptions
from perijove.domain.forms import parse_form, write_form
from perijove.domain.launch import Launch, Status, Wanted
from perijove.domain.names import check_display_name, check_server_name
from perijove.domain.offer import Objection
from perijove.domain.profile import FEATURES
from perijove.domain.reasons import of_end
from perijove.services.discovery import FRESH, LEAST_PAUSE, kinds_of, platforms_of, refresh
from perijove.services.launches import request_restart, request_start, wait_for
from perijove.services.overview import Owner, Shown, find_shown
from perijove.services.profiles import Offer, OptionsForm, options_schema
from perijove.services.waits import Usual, usual_waits
from perijove.web import xsrf
from perijove.web.forms import read_form
from perijove.web.next_url import next_of
from perijove.web.pages.door import asking, me, owner_of
from perijove.web.pages.look import Frame
from perijove.web.pages.offer import (
    Asked,
    dropped_said,
    general_problems,
    link_to,
    profile_views,
)
from perijove.web.pages.platform import platform_views
from perijove.web.pages.views import Links, with_query
from perijove.web.pages.waiting import is_impossible
from perijove.web.problems import status_of

_PAGE_KEYS: Final = frozenset(
    {"next", "display_name", "form", "again", "problem", "lang", "redirects"}
)
"""Query parameters that are about the page; every other is an option (wire §4.5)."""
_FORM_KEYS: Final = frozenset({"profile", "_xsrf", "next", "refresh"})
"""Fields of the form that are no options."""
_PREFIX: Final = "opt-"
_AT_ONCE: Final = 1.0
"""Seconds a start may take before the waiting page is shown instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The server that the page is about."""

    owner: Owner
    server: str
    shown: Shown | None
    form: OptionsForm
    usual: Mapping[str, Usual]
    """How long starts of each profile wait."""
    display_name: str

    @property
    def live(self) -> Launch | None:
        """Its launch, as long as it is wanted and not over."""
        launch = self.shown.launch if self.shown else None
        return launch if launch and launch.is_live and launch.wanted is Wanted.RUN else None


async def show_options(frame: Frame) -> Response:
    """Show the form; go on to what runs already; start at once if the address says with what."""
    subject = await _subject(frame)
    query = frame.request.query_params
    links = Links(frame.hub.base_path, subject.owner.name, subject.server)
    asks = "again" in query or "form" in query
    if subject.live is not None and not asks:
        if subject.live.status is Status.READY:
            return RedirectResponse(next_of(frame.hub, frame.request) or links.open, 302)
        return RedirectResponse(
            with_query(links.wait, next=next_of(frame.hub, frame.request) or ""), 302
        )
    try:
        given = _options_of(query)
    except Invalid as error:
        return _page(frame, subject, Asked(profile=subject.form.profile, problem=error), status=422)
    asked = _again(subject, query.get("problem", "")) or _asked(subject.form, given)
    if not given or "form" in query or not xsrf.is_navigation(frame.request):
        return _page(frame, subject, asked)
    return await _start(frame, subject, asked)


def _again(subject: Subject, problem: str) -> Asked | None:
    """Return what the last launch asked for and why that could never start, if it is asked for."""
    launch = subject.shown.launch if subject.shown else None
    if launch is None or launch.end is None or launch.id != problem or not is_impossible(launch):
        return None
    end = launch.end
    objection = Objection(field=of_end(end).field, code=end.reason, words="")
    return Asked(
        profile=launch.spec.get("profile", {}).get("name", ""),
        options=launch.spec.get("options", {}),
        problem=InvalidOptions([Fault.of_objection(objection)]),
    )


async def take_options(frame: Frame) -> Response:
    """
    Start with what the form says; shows it again, as typed, when that is refused.

    The form's ``refresh`` button shows it again with what the platforms have now.
    """
    form = _texts_of(await read_form(frame.request))
    wants_news = "refresh" in form
    subject = await _subject(frame, max_age=LEAST_PAUSE if wants_news else FRESH)
    profile = form.get("profile", subject.form.profile)
    own = f"{profile}."
    plain = {name: text for name, text in form.items() if "." not in name}
    texts = {name: text for name, text in plain.items() if name not in _FORM_KEYS}
    texts |= {
        name.removeprefix(own): text
        for name, text in form.items()
        if name.startswith(own) and "." not in name.removeprefix(own)
    }
    asked = _asked(subject.form, {**texts, "profile": profile})
    return _page(frame, subject, asked) if wants_news else await _start(frame, subject, asked)


def _texts_of(form: FormData) -> dict[str, str]:
    """Return the fields of a form; what is given several times is one text with commas."""
    texts: dict[str, str] = {}
    for name, value in form.multi_items():
        several = name in texts and name.rpartition(".")[2] == FEATURES
        texts[name] = f"{texts[name]},{value}" if several else str(value)
    return texts


async def _subject(frame: Frame, *, max_age: timedelta = FRESH) -> Subject:
    owner, server = await owner_of(frame)
    if server:
        await _check_name(frame, owner, server)
    kinds = kinds_of(frame.hub)
    await refresh(frame.hub, owner.id, max_age=max_age)
    display_name = frame.request.query_params.get("display_name", "")

    def unit(connection: Connection) -> Subject:
        platforms = platforms_of(connection, kinds, owner.id, frame.hub.clock.now())
        form = options_schema(connection, owner.id, server, platforms)
        return Subject(
            owner=owner,
            server=server,
            shown=find_shown(connection, owner, server),
            form=form,
            usual=usual_waits(connection, frame.hub, _spawners_of(form)),
            display_name=check_display_name(display_name) if display_name else "",
        )

    return await frame.hub.database.read(unit)


async def _check_name(frame: Frame, owner: Owner, server: str) -> None:
    """Refuse a name that no server may have, unless one has it from earlier days."""
    if await frame.hub.database.read(bound(find_server, owner.id, server)) is None:
        check_server_name(server)


def _options_of(query: Mapping[str, str]) -> dict[str, str]:
    """Return the options of an address: those with the prefix, or without any prefix all."""
    prefixed = {
        name.removeprefix(_PREFIX): value
        for name, value in query.items()
        if name.startswith(_PREFIX)
    }
    if "" in prefixed:
        raise Invalid(f"{_PREFIX!r} must be followed by the name of an option", code="invalid")
    return prefixed or {name: text for name, text in query.items() if name not in _PAGE_KEYS}


def _asked(form: OptionsForm, given: Mapping[str, str]) -> Asked:
    texts = dict(given)
    return Asked(profile=texts.pop("profile", "") or form.profile, texts=texts)


async def _start(frame: Frame, subject: Subject, asked: Asked) -> Response:
    offer = _find(subject.form, asked.profile)
    properties = {"properties": {}} if offer is None else offer.schema
    options = parse_form(properties, asked.texts, frame.texts.language)
    verb = request_restart if subject.live is not None else request_start
    try:
        launch = await verb(
            frame.hub,
            user_id=subject.owner.id,
            server_name=subject.server,
            profile=asked.profile or None,
            options=options,
            asking=asking(frame, subject.owner),
        )
    except HubError as error:
        refused = Asked(profile=asked.profile, texts=asked.texts, problem=error)
        return _page(frame, subject, refused, status=status_of(error))
    if subject.display_name and subject.shown is None and launch.server_id is not None:
        named = bound(change_server, launch.server_id, display_name=subject.display_name)
        await frame.hub.database.write(named)
    await wait_for(frame.hub, launch.id, until=_is_settled, seconds=_AT_ONCE)
    links = Links(frame.hub.base_path, subject.owner.name, subject.server)
    return RedirectResponse(
        with_query(links.wait, next=next_of(frame.hub, frame.request) or ""), 302
    )


def _is_settled(launch: Launch) -> bool:
    return launch.status is Status.READY or not launch.is_live


def _spawners_of(form: OptionsForm) -> list[str]:
    """Return the platforms that profiles start on, each once."""
    return list(dict.fromkeys(offer.profile.spawner for offer in form.offers))


def _find(form: OptionsForm, profile: str) -> Offer | None:
    return next((offer for offer in form.offers if offer.profile.name == profile), None)


def _page(frame: Frame, subject: Subject, asked: Asked, *, status: int = 200) -> Response:
    texts = frame.texts
    links = Links(frame.hub.base_path, subject.owner.name, subject.server)
    profiles = profile_views(texts, subject.form, asked, subject.usual)
    shown = {each.name for profile in profiles if profile.chosen for each in profile.fields}
    is_running = subject.live is not None
    action = with_query(
        links.spawn,
        next=next_of(frame.hub, frame.request) or "",
        display_name=subject.display_name,
    )
    return frame.page(
        "spawn.html",
        status=status,
        nav="home",
        heading=texts.gettext("Restart a server")
        if is_running
        else texts.gettext("Start a server"),
        server=subject.display_name
        or (subject.shown.display_name if subject.shown else subject.server),
        for_user="" if subject.owner.name == me(frame).name else subject.owner.name,
        action=action,
        errors=general_problems(texts, asked, shown),
        dropped=dropped_said(texts, subject.form) if not asked.texts else "",
        platforms=platform_views(
            texts,
            subject.form.platforms,
            _spawners_of(subject.form),
        ),
        is_running=is_running,
        profiles=profiles,
        link=link_to(frame, links.spawn, _written(subject.form, asked)),
    )


def _written(form: OptionsForm, asked: Asked) -> Asked:
    """Return the choice with its texts, also where they are the remembered ones."""
    offer = _find(form, asked.profile)
    if asked.texts or offer is None:
        return asked
    options = form.options if asked.profile == form.profile else {}
    own = {name for name, each in offer.schema["properties"].items() if not each.get("readOnly")}
    texts = {name: text for name, text in write_form(offer.schema, options).items() if name in own}
    return Asked(profile=asked.profile, texts=texts)
