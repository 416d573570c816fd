"""What people keep: a list, what can be done with each, and what other pages say of it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection
from starlette.responses import RedirectResponse, Response

from perijove.db import volumes as rows
from perijove.db.volumes import UnknownVolume, Volume
from perijove.domain.asking import Asking
from perijove.domain.errors import Forbidden, Invalid, NotFound
from perijove.domain.storage import Fullness, Kept
from perijove.services import volumes
from perijove.services.overview import Owner, Shown, get_owner, list_shown
from perijove.web.forms import read_form
from perijove.web.pages.door import asking, me, refusal_of
from perijove.web.pages.look import Frame
from perijove.web.pages.views import Choice, Fact, Sign, State, name_of, offset_of, with_query
from perijove.web.texts import Texts, sentences
from perijove.web.texts.sentence import N_

_PAGE: Final = 40
"""Volumes on one page; many more would make it heavier than 30 kB."""
_STATES: Final[Sequence[tuple[Callable[[Volume], object], Sign]]] = (
    (lambda volume: volume.removing_at, Sign(N_("Being removed"), "cross", "calm")),
    (lambda volume: volume.delete_after, Sign(N_("Deleted"), "cross", "calm")),
    (lambda volume: volume.missing_since, Sign(N_("Not found"), "alert", "bad")),
    (lambda volume: volume.user_id is None, Sign(N_("No owner"), "alert", "busy")),
    (lambda volume: volume.held_by, Sign(N_("In use"), "check", "good")),
    (lambda volume: not volume.attached, Sign(N_("Not attached"), "link", "busy")),
)
"""What is worth saying of a volume: the first that holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeView:
    """A volume in words."""

    name: str
    title: str
    verbatim: bool
    """Whether the title is a name that a person gave."""
    owner: str
    place: str
    path: str
    used: str
    limit: str
    share: float | None
    low: bool
    state: State | None
    note: str
    last_used_at: datetime | None
    delete_after: datetime | None
    may_delete: bool
    may_restore: bool
    may_attach: bool


# --- what other pages say ---------------------------------------------------------------------


def of_server(kept: Iterable[Volume], server: str) -> list[Volume]:
    """Return the volumes of a person that one of their servers starts with."""
    return [
        volume
        for volume in kept
        if volume.attached and (volume.kind is Kept.USER or volume.server_name == server)
    ]


def warning_of(texts: Texts, kept: Iterable[Volume]) -> str:
    """Return what a person must know of the volumes of a server; mostly nothing."""
    for volume in kept:
        if volume.missing_since is not None:
            return texts.gettext(
                "Your files are not where they were kept (%(path)s). If you start this server it"
                " begins with an empty folder: ask your administrator first.",
                path=volume.path,
            )
        if volume.used_bytes is None or volume.size_bytes is None:
            continue
        sizes = {"used": texts.size(volume.used_bytes), "size": texts.size(volume.size_bytes)}
        if volume.fullness is Fullness.FULL and volume.enforced:
            return texts.gettext(
                "Your files fill all of the %(size)s there are for them. Until you delete what you"
                " no longer need, this server starts in rescue mode.",
                **sizes,
            )
        if volume.fullness is Fullness.FULL:
            return texts.gettext(
                "Your files take %(used)s, and %(size)s are allowed. Please delete what you no"
                " longer need.",
                **sizes,
            )
        if volume.fullness is Fullness.NEARLY_FULL:
            return texts.gettext(
                "Your files take %(used)s of %(size)s. Please make room soon.", **sizes
            )
    return ""


def deletion_facts(texts: Texts, volume: Volume) -> list[Fact]:
    """Return what is lost with a volume: its size, its use, and when it was used last."""
    last = volume.last_used_at or volume.created_at
    return [
        Fact(label=texts.gettext("Files in"), text=volume.path, verbatim=True),
        Fact(label=texts.gettext("Kept on"), text=volume.spawner, verbatim=True),
        Fact(label=texts.gettext("Volume"), text=volume.name, verbatim=True),
        Fact(label=texts.gettext("Used"), text=used_text(texts, volume)),
        Fact(label=texts.gettext("Size"), text=limit_text(texts, volume)),
        Fact(label=texts.gettext("Last used"), at=last),
    ]


def deletion_sentence(texts: Texts, volume: Volume) -> str:
    """Return what becomes of a volume that is deleted."""
    if not volume.retention_seconds:
        return texts.gettext("Its files are deleted at once, and nobody can bring them back.")
    return texts.gettext(
        "Its files are deleted. You can have them back for %(time)s, on the page “My data”; after"
        " that nobody can.",
        time=texts.duration(volume.retention_seconds),
    )


def used_text(texts: Texts, volume: Volume) -> str:
    """Return how much a volume holds."""
    if volume.used_bytes is None:
        return texts.gettext("not measured")
    return texts.size(volume.used_bytes)


def limit_text(texts: Texts, volume: Volume) -> str:
    """Return what a volume may hold, and what is known to see to that."""
    if volume.size_bytes is None:
        return texts.gettext("no limit")
    size = texts.size(volume.size_bytes)
    if volume.enforced:
        return texts.gettext("at most %(size)s", size=size)
    if volume.seen_at is None:
        return size
    if volume.used_bytes is None:
        return texts.gettext("%(size)s, not enforced", size=size)
    return texts.gettext("%(size)s, measured but not enforced", size=size)


def typed_word(shown: Shown | None, owner: str) -> str:
    """Return what a person types to delete data: the server's name, or their own."""
    if shown is None or not shown.name:
        return owner
    return shown.display_name or shown.name


async def is_typed(frame: Frame, word: str) -> bool:
    """Tell whether the form says the word that was asked for."""
    typed = str((await read_form(frame.request)).get("typed", ""))
    return " ".join(typed.split()) == word


# --- the lists --------------------------------------------------------------------------------


async def show_mine(frame: Frame) -> Response:
    """Show what one keeps."""
    name = me(frame).name

    def unit(connection: Connection) -> tuple[Sequence[Volume], Sequence[Shown]]:
        owner = get_owner(connection, name)
        return rows.list_volumes(connection, user_id=owner.id), list_shown(connection, owner)

    kept, all_shown = await frame.hub.database.read(unit)
    named = {shown.name: shown for shown in all_shown}
    return frame.page(
        "data.html",
        nav="data",
        volumes=[
            _view(frame.texts, volume, named, warning_of(frame.texts, [volume])) for volume in kept
        ],
        is_everybodys=False,
        unknown=[],
        newer_url="",
        older_url="",
    )


async def show_all(frame: Frame) -> Response:
    """Show what everybody keeps, and what nobody knows, to administrators."""
    if not (me(frame).may("admin-ui") and me(frame).may("read:servers")):
        raise Forbidden("this page needs the scopes admin-ui and read:servers", code="forbidden")
    offset = offset_of(frame.request.query_params)

    def unit(connection: Connection) -> tuple[Sequence[Volume], Sequence[UnknownVolume]]:
        return rows.list_volumes(connection), rows.list_unknown(connection)

    kept, unknown = await frame.hub.database.read_long(unit)

    def page_at(start: int) -> str:
        return with_query(f"{frame.hub.hub_prefix}admin/data", **{"from": str(start)})

    return frame.page(
        "data.html",
        nav="admin",
        volumes=[_view(frame.texts, volume, {}) for volume in kept[offset : offset + _PAGE]],
        is_everybodys=True,
        unknown=[_unknown_view(frame.texts, each) for each in unknown[:_PAGE]],
        newer_url=page_at(max(0, offset - _PAGE)) if offset else "",
        older_url=page_at(offset + _PAGE) if offset + _PAGE < len(kept) else "",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownView:
    """A volume that no row knows, in words."""

    name: str
    spawner: str
    labels: str
    used: str
    first_seen_at: datetime


def _unknown_view(texts: Texts, unknown: UnknownVolume) -> UnknownView:
    return UnknownView(
        name=unknown.name,
        spawner=unknown.spawner,
        labels=", ".join(f"{name}={text}"[:80] for name, text in unknown.labels.items()),
        used="" if unknown.used_bytes is None else texts.size(unknown.used_bytes),
        first_seen_at=unknown.first_seen_at,
    )


def _view(texts: Texts, volume: Volume, named: Mapping[str, Shown], note: str = "") -> VolumeView:
    share = None
    if volume.used_bytes is not None and volume.size_bytes:
        share = min(1.0, volume.used_bytes / volume.size_bytes)
    title, verbatim = _title(texts, volume, named)
    is_deleted = volume.delete_after is not None
    is_removing = volume.removing_at is not None
    has_owner = volume.user_id is not None
    return VolumeView(
        name=volume.name,
        title=title,
        verbatim=verbatim,
        owner=volume.user_name,
        place=volume.spawner,
        path=volume.path,
        used=used_text(texts, volume),
        limit=limit_text(texts, volume),
        share=share,
        low=volume.fullness in (Fullness.FULL, Fullness.NEARLY_FULL),
        state=next((sign.said(texts) for holds, sign in _STATES if holds(volume)), None),
        note="" if is_deleted else note,
        last_used_at=volume.last_used_at,
        delete_after=volume.delete_after if not is_removing else None,
        may_delete=not is_deleted,
        may_restore=is_deleted and not is_removing,
        may_attach=not is_removing and has_owner,
    )


def _title(texts: Texts, volume: Volume, named: Mapping[str, Shown]) -> tuple[str, bool]:
    """Return which server a volume belongs to, and whether that is a name somebody gave."""
    if volume.kind is Kept.USER:
        return texts.gettext("All servers"), False
    if volume.server_id is None:
        if volume.server_name:
            return texts.gettext("Was: %(name)s", name=volume.server_name), False
        return texts.gettext("No server"), False
    if volume.server_name in named:
        shown = named[volume.server_name]
        return name_of(texts, shown), bool(shown.name)
    return volume.server_name or texts.gettext("Default server"), bool(volume.server_name)


# --- with one of them -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Found:
    """A volume of the path, with its owner's servers."""

    volume: Volume
    owner: Owner | None
    all_shown: Sequence[Shown]

    @property
    def server(self) -> Shown | None:
        """The server it belongs to."""
        if self.volume.kind is Kept.USER or self.volume.server_id is None:
            return None
        return next((s for s in self.all_shown if s.name == self.volume.server_name), None)


async def confirm(frame: Frame) -> Response:
    """Ask before a volume is deleted, or where it is to go."""
    found = await _find(frame)
    return _ask(frame, found, frame.request.path_params["verb"])


async def act(frame: Frame) -> Response:
    """Delete, restore or attach a volume; what cannot be is said on the page that asks."""
    found, verb = await _find(frame), frame.request.path_params["verb"]
    name, who, now = found.volume.name, _asking(frame, found), frame.now
    server = str((await read_form(frame.request)).get("server", ""))[:255]
    is_confirmed = await is_typed(frame, typed_word(found.server, found.volume.user_name))

    def unit(connection: Connection) -> None:
        match verb:
            case "delete":
                if not is_confirmed:
                    raise Invalid("the name is not what was asked for", code="name-not-typed")
                volumes.bury(connection, name, asking=who, now=now)
            case "restore":
                volumes.restore(connection, name, asking=who, now=now)
            case "attach":
                volumes.attach(connection, name, server, asking=who, now=now)
            case _:
                raise NotFound("no such page")

    error = await refusal_of(frame, unit)
    if error is None:
        return RedirectResponse(_list_url(frame, found), 302)
    if verb == "restore":
        raise error  # a button of the list, without a page of its own
    return _ask(frame, found, verb, error=sentences.error(frame.texts, error).whole)


def _ask(frame: Frame, found: _Found, verb: str, *, error: str = "") -> Response:
    texts, volume = frame.texts, found.volume
    servers: list[tuple[str, str]] = []
    match verb:
        case "delete":
            heading, button = texts.gettext("Delete these files?"), texts.gettext("Delete")
            told = deletion_sentence(texts, volume)
        case "attach":
            heading, button = texts.gettext("Use with another server"), texts.gettext("Attach")
            told = texts.gettext(
                "The server you choose starts with these files from now on. Files of its own that"
                " it has by then stay on this list."
            )
            servers = [(shown.name, name_of(texts, shown)) for shown in found.all_shown]
        case _:
            raise NotFound("no such page")
    return frame.page(
        "confirm.html",
        status=400 if error else 200,
        nav="data",
        heading=heading,
        what="",
        sentences=[told],
        items=[],
        facts=[deletion_facts(texts, volume)],
        word=typed_word(found.server, volume.user_name) if verb == "delete" else "",
        servers=servers,
        choices=[Choice(verb, button, "danger" if verb == "delete" else "primary")],
        action=f"{frame.hub.hub_prefix}data/{volume.name}/{verb}",
        back=_list_url(frame, found),
        error=error,
    )


async def _find(frame: Frame) -> _Found:
    caller, name = me(frame), str(frame.request.path_params["volume"])

    def unit(connection: Connection) -> _Found:
        volume = volumes.get_volume(connection, name)
        if volume.user_id is None:
            is_theirs = caller.may("servers")
        else:
            is_theirs = caller.may("servers", user=volume.user_name, server=volume.server_name)
        if not is_theirs:
            raise NotFound("there is no such volume", code="volume-unknown")
        if volume.user_id is None:
            return _Found(volume, None, ())
        owner = get_owner(connection, volume.user_name)
        return _Found(volume, owner, list_shown(connection, owner))

    return await frame.hub.database.read(unit)


def _asking(frame: Frame, found: _Found) -> Asking:
    if found.owner is not None:
        return asking(frame, found.owner)
    caller = me(frame)
    return Asking(actor=caller.name, token_id=caller.token_id, session_id=caller.session_id)


def _list_url(frame: Frame, found: _Found) -> str:
    is_mine = found.owner is not None and found.owner.id == me(frame).user_id
    return f"{frame.hub.hub_prefix}{'data' if is_mine else 'admin/data'}"
