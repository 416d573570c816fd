"""Persistent environments: what a person has, what colleagues share, and a form for a new one."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import RedirectResponse, Response

from perijove.db.core import Connection
from perijove.db.environments import Environment
from perijove.domain.environments import Maker, State
from perijove.domain.errors import HubError, NotFound
from perijove.services import environments as service
from perijove.services.limits import find_person
from perijove.web.forms import read_form
from perijove.web.pages.door import me
from perijove.web.pages.look import Frame
from perijove.web.pages.views import State as StateView
from perijove.web.texts import Texts, sentences
from perijove.web.texts.sentence import N_

_STATES: Final[Mapping[State, tuple[str, str, str]]] = {
    State.WANTED: (N_("Waits for a session"), "queue", "busy"),
    State.BUILDING: (N_("Being built"), "rocket", "busy"),
    State.READY: (N_("Ready"), "check", "good"),
    State.FAILED: (N_("Could not be built"), "alert", "bad"),
    State.REMOVING: (N_("Is removed in your next session"), "trash", "calm"),
}
_SILENT: Final = (N_("Was not finished"), "hold", "bad")
_SHOWN_PACKAGES: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentView:
    """One environment, in words."""

    id: int
    name: str
    owner: str
    place: str
    state: StateView
    packages: str
    """The first of them, shortly."""
    all_packages: str
    """One in each line."""
    size: str
    error: str
    is_locked: bool
    is_by_hand: bool
    has_lock: bool
    may_retry: bool
    shared: Sequence[str]


async def show(frame: Frame) -> Response:
    """Show them all."""
    return await _page(frame)


async def take(frame: Frame) -> Response:
    """Make a new one, or one's own of what is shared; come back with what is wrong."""
    form = await read_form(frame.request)
    wish = {name: str(form.get(name, "")) for name in ("name", "packages", "place", "copy_of")}
    asked: dict[str, Any] = {"place": wish["place"], "now": frame.now, "name": wish["name"].strip()}

    def unit(connection: Connection) -> None:
        hub, user_id = frame.hub, _user_id(frame)
        if wish["copy_of"]:
            service.copy(hub, connection, user_id, source=_id_of(wish["copy_of"]), **asked)
        else:
            packages = re.split(r"[\n,]", wish["packages"].replace("\r", ""))
            service.create(hub, connection, user_id, packages=packages, **asked)

    return await _done(frame, unit, wish)


async def act(frame: Frame) -> Response:
    """Lock, unlock, share, change, build again or remove one."""
    form = await read_form(frame.request)
    id_ = _id_of(str(frame.request.path_params["id"]))
    groups = [str(group) for group in form.getlist("groups")]
    packages = re.split(r"[\n,]", str(form.get("packages", "")).replace("\r", ""))
    do = str(form.get("do", ""))

    def unit(connection: Connection) -> None:
        user_id, now = _user_id(frame), frame.now
        match do:
            case "lock" | "unlock":
                service.change(connection, user_id, id_, locked=do == "lock", now=now)
            case "share":
                service.change(connection, user_id, id_, shared=groups, now=now)
            case "change":
                service.change(connection, user_id, id_, packages=packages, now=now)
            case "retry":
                service.retry(connection, user_id, id_, now=now)
            case "remove":
                service.remove(frame.hub, connection, user_id, id_, now=now)
            case _:
                raise NotFound("no such thing to do")

    return await _done(frame, unit, {})


async def download(frame: Frame) -> Response:
    """Give the list of exactly what is in one, as a file for pip."""
    id_ = _id_of(str(frame.request.path_params["id"]))
    user_id = _user_id(frame)
    found = await frame.hub.database.read(
        lambda connection: service.find_own(connection, user_id, id_)
    )
    if not found.lock:
        raise NotFound("it was not built yet", code="environment-not-built")
    headers = {"content-disposition": f'attachment; filename="{found.name}.txt"'}
    return Response(found.lock, media_type="text/plain", headers=headers)


def _user_id(frame: Frame) -> int:
    return me(frame).user_id or 0


def _id_of(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise NotFound("no such environment", code="environment-unknown")
    return int(text)


async def _done(frame: Frame, unit: Any, wish: Mapping[str, str]) -> Response:
    try:
        await frame.hub.database.write(unit)
    except NotFound:
        raise
    except HubError as error:
        return await _page(frame, wish=wish, error=error)
    return RedirectResponse(f"{frame.hub.hub_prefix}environments", 303)


async def _page(
    frame: Frame, *, wish: Mapping[str, str] | None = None, error: HubError | None = None
) -> Response:
    texts, user_id = frame.texts, _user_id(frame)

    def unit(connection: Connection) -> tuple[service.Mine, bool, Sequence[str]]:
        return (
            service.find_mine(frame.hub, connection, user_id),
            service.may_have(connection, user_id),
            sorted(find_person(connection, user_id).groups),
        )

    mine, allowed, groups = await frame.hub.database.read(unit)
    said = sentences.error(texts, error) if error else None
    return frame.page(
        "environments.html",
        status=400 if error else 200,
        nav="environments",
        allowed=allowed,
        environments=[_view(frame, each) for each in mine.own],
        shared=[_view(frame, each) for each in mine.shared],
        places=[(key, place_text(texts, key)) for key in mine.places],
        groups=groups,
        wish=wish or {},
        error=f"{said.text} {said.advice}".strip() if said else "",
        wrong_field=getattr(error, "field", ""),
    )


def place_text(texts: Texts, key: str) -> str:
    """Say on which storage something lies."""
    kind, _, name = key.partition(":")
    if kind == "homes":
        return texts.gettext("home directories, %(name)s", name=name)
    return texts.gettext("volume %(name)s", name=name)


def _view(frame: Frame, environment: Environment) -> EnvironmentView:
    texts = frame.texts
    silent = service.is_silent(environment, frame.now)
    word, icon, tone = _SILENT if silent else _STATES[environment.state]
    listed = list(environment.packages)
    shown = ", ".join(listed[:_SHOWN_PACKAGES]) + (" …" if len(listed) > _SHOWN_PACKAGES else "")
    size = environment.size_bytes
    return EnvironmentView(
        id=environment.id,
        name=environment.name,
        owner=environment.user_name,
        place=place_text(texts, environment.place),
        state=StateView(word=texts.gettext(word), icon=icon, tone=tone, code=environment.state),
        packages=shown,
        all_packages="\n".join(listed),
        size=texts.size(size) if size is not None else "",
        error=environment.error,
        is_locked=environment.is_locked,
        is_by_hand=environment.maker is Maker.HAND,
        has_lock=bool(environment.lock),
        may_retry=environment.state is State.FAILED,
        shared=environment.shared,
    )
