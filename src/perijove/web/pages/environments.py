"""Persistent environments: a list with a form for a new one, and a page for each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from starlette.responses import RedirectResponse, Response

from perijove.db.core import Connection, bound
from perijove.db.environments import Environment
from perijove.domain.environments import Maker, State
from perijove.domain.errors import HubError, NotFound
from perijove.services import environments as service
from perijove.services.limits import find_person
from perijove.web.forms import read_form
from perijove.web.pages.door import me, refusal_of
from perijove.web.pages.look import Frame
from perijove.web.pages.views import Fact, Sign
from perijove.web.pages.views import State as StateView
from perijove.web.texts import Texts, sentences
from perijove.web.texts.sentence import N_

_STATES: Final[Mapping[State, Sign]] = {
    State.WANTED: Sign(N_("Waits for a session"), "queue", "busy"),
    State.BUILDING: Sign(N_("Being built"), "rocket", "busy"),
    State.READY: Sign(N_("Ready"), "check", "good"),
    State.FAILED: Sign(N_("Could not be built"), "alert", "bad"),
    State.REMOVING: Sign(N_("Is removed in your next session"), "trash", "calm"),
}
_SILENT: Final = Sign(N_("Was not finished"), "hold", "bad")
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
    changed_at: datetime
    is_locked: bool
    is_by_hand: bool
    is_replaced: bool
    """What was built before goes on working although the last attempt failed."""
    may_lock: bool
    may_share: bool
    may_retry: bool
    may_change: bool
    has_lock: bool
    shared: Sequence[str]


async def show(frame: Frame) -> Response:
    """Show them all."""
    return await _list(frame)


async def show_one(frame: Frame) -> Response:
    """Show one, and what can be done with it."""
    return await _one(frame, _id_of(frame))


async def take(frame: Frame) -> Response:
    """Make a new one, or one's own of what is shared; come back with what is wrong."""
    form = await read_form(frame.request)
    wish = {name: str(form.get(name, "")) for name in ("name", "packages", "place", "copy_of")}
    asked: dict[str, Any] = {"place": wish["place"], "now": frame.now, "name": wish["name"].strip()}

    def unit(connection: Connection) -> None:
        hub, user_id = frame.hub, _user_id(frame)
        if wish["copy_of"]:
            service.copy(hub, connection, user_id, source=service.read_id(wish["copy_of"]), **asked)
        else:
            lines = wish["packages"].splitlines()
            service.create(hub, connection, user_id, packages=lines, **asked)

    if error := await refusal_of(frame, unit):
        return await _list(frame, wish=wish, error=error)
    return _go_to(frame, "environments")


async def act(frame: Frame) -> Response:
    """Lock, unlock, share, change, build again or remove one."""
    form = await read_form(frame.request)
    id_, do = _id_of(frame), str(form.get("do", ""))
    groups = [str(group) for group in form.getlist("groups")]
    packages = str(form.get("packages", "")).splitlines()

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
                raise NotFound("no such thing to do", code="environment-unknown")

    if error := await refusal_of(frame, unit):
        typed = str(form.get("packages", "")) if do == "change" else None
        return await _one(frame, id_, error=error, typed=typed)
    return _go_to(frame, "environments" if do == "remove" else f"environments/{id_}")


async def download(frame: Frame) -> Response:
    """Give the list of exactly what is in one, as a file for pip."""
    found = await frame.hub.database.read(bound(service.find_own, _user_id(frame), _id_of(frame)))
    if not found.lock:
        raise NotFound("it was not built yet", code="environment-not-built")
    headers = {"content-disposition": f'attachment; filename="{found.name}.txt"'}
    return Response(found.lock, media_type="text/plain", headers=headers)


def _user_id(frame: Frame) -> int:
    return me(frame).user_id or 0


def _id_of(frame: Frame) -> int:
    return service.read_id(str(frame.request.path_params["id"]))


def _go_to(frame: Frame, path: str) -> Response:
    return RedirectResponse(f"{frame.hub.hub_prefix}{path}", 303)


async def _list(
    frame: Frame, *, wish: Mapping[str, str] | None = None, error: HubError | None = None
) -> Response:
    user_id = _user_id(frame)

    def unit(connection: Connection) -> tuple[service.Mine, bool]:
        mine = service.find_mine(frame.hub, connection, user_id)
        return mine, service.may_have(connection, user_id)

    mine, allowed = await frame.hub.database.read(unit)
    return frame.page(
        "environments.html",
        status=400 if error else 200,
        nav="environments",
        allowed=allowed,
        environments=[_view(frame, each) for each in mine.own],
        shared=[_view(frame, each) for each in mine.shared],
        several_places=len({each.place for each in mine.own} | set(mine.places)) > 1,
        places=[(key, place_text(frame.texts, key)) for key in mine.places],
        wish={"name": "", "packages": "", "place": "", **(wish or {})},
        error=_said(frame, error),
        wrong_field=getattr(error, "field", ""),
    )


async def _one(
    frame: Frame, id_: int, *, error: HubError | None = None, typed: str | None = None
) -> Response:
    user_id = _user_id(frame)

    def unit(connection: Connection) -> tuple[Environment, bool, Sequence[str]]:
        return (
            service.find_own(connection, user_id, id_),
            service.may_have(connection, user_id),
            sorted(find_person(connection, user_id).groups),
        )

    found, allowed, groups = await frame.hub.database.read(unit)
    view = _view(frame, found)
    return frame.page(
        "environment.html",
        status=400 if error else 200,
        nav="environments",
        allowed=allowed,
        it=view,
        facts=_facts(frame.texts, view),
        groups=groups,
        packages=view.all_packages if typed is None else typed,
        error=_said(frame, error),
    )


def _said(frame: Frame, error: HubError | None) -> str:
    if error is None:
        return ""
    return sentences.error(frame.texts, error).whole


def _facts(texts: Texts, it: EnvironmentView) -> Sequence[Fact]:
    facts = []
    if it.all_packages:
        listed = it.all_packages.replace("\n", ", ")
        facts.append(Fact(label=texts.gettext("Packages"), text=listed, verbatim=True))
    facts.append(Fact(label=texts.gettext("Where"), text=it.place))
    if it.size:
        facts.append(Fact(label=texts.gettext("Size"), text=it.size))
    if it.shared:
        shared = ", ".join(it.shared)
        facts.append(Fact(label=texts.gettext("Shared with"), text=shared, verbatim=True))
    facts.append(Fact(label=texts.gettext("Changed"), at=it.changed_at))
    return facts


def place_text(texts: Texts, key: str) -> str:
    """Say on which storage something lies."""
    kind, _, name = key.partition(":")
    if kind == "homes":
        return texts.gettext("home directories, %(name)s", name=name)
    return texts.gettext("volume %(name)s", name=name)


def _view(frame: Frame, environment: Environment) -> EnvironmentView:
    texts = frame.texts
    silent = service.is_silent(environment, frame.now)
    sign = _SILENT if silent else _STATES[environment.state]
    listed = list(environment.packages)
    shown = ", ".join(listed[:_SHOWN_PACKAGES]) + (" …" if len(listed) > _SHOWN_PACKAGES else "")
    size = environment.size_bytes
    may_change = environment.is_wanted and environment.maker is Maker.HUB
    return EnvironmentView(
        id=environment.id,
        name=environment.name,
        owner=environment.user_name,
        place=place_text(texts, environment.place),
        state=sign.said(texts, environment.state),
        packages=shown,
        all_packages="\n".join(listed),
        size=texts.size(size) if size is not None else "",
        error=environment.error,
        changed_at=environment.changed_at,
        is_locked=environment.is_locked,
        is_by_hand=environment.maker is Maker.HAND,
        is_replaced=environment.state is State.FAILED and bool(environment.lock),
        may_lock=may_change and bool(environment.lock) and environment.state is State.READY,
        may_share=may_change and bool(environment.lock),
        may_retry=may_change and environment.state is State.FAILED,
        may_change=may_change,
        has_lock=bool(environment.lock),
        shared=environment.shared,
    )
