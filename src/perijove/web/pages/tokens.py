"""Tokens and sessions: what may act for a person, and where the person is signed in."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from starlette.responses import RedirectResponse, Response

from perijove.db.core import Connection, bound
from perijove.domain.errors import Invalid, NotFound
from perijove.services.access import Caller
from perijove.services.sessions import Session, close_session, close_sessions, list_sessions
from perijove.services.tokens import (
    OWN_CLIENT,
    NewToken,
    Token,
    create_token,
    list_tokens,
    revoke_token,
)
from perijove.web.forms import read_form
from perijove.web.pages.door import me
from perijove.web.pages.look import Frame
from perijove.web.pages.signin import may_change_password
from perijove.web.texts import Texts, sentences
from perijove.web.texts.scopes import scope_said
from perijove.web.texts.sentence import N_

_HOUR: Final = 3600
_LIFETIMES: Final[Mapping[int, str]] = {
    _HOUR: N_("1 hour"),
    24 * _HOUR: N_("1 day"),
    7 * 24 * _HOUR: N_("1 week"),
    30 * 24 * _HOUR: N_("30 days"),
    365 * 24 * _HOUR: N_("1 year"),
    0: N_("never"),
}
_SHOWN_SESSIONS: Final = 20
"""A page stays small, however often somebody signs in and never out."""
_DEFAULT_LIFETIME: Final = 30 * 24 * _HOUR
_GRANTS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "all": (N_("Everything that I may do"), ("inherit",)),
    "servers": (N_("See, start and stop my servers"), ("servers!user", "read:users!user")),
    "access": (N_("Open my servers"), ("access:servers!user",)),
    "self": (N_("Only see who I am"), ("read:users!user",)),
}
_ADMIN_GRANTS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "metrics": (N_("Read the metrics of this hub"), ("read:metrics",)),
}


@dataclass(frozen=True, slots=True)
class ScopeView:
    """A scope in plain words and by name."""

    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenView:
    """A token, without its secret."""

    id: int
    name: str
    note: str
    summary: str
    scopes: Sequence[ScopeView]
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionView:
    """A sign-in."""

    id: int
    device: str
    address: str
    created_at: datetime
    last_seen_at: datetime
    is_this: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceView:
    """An entry of a list to choose from."""

    value: str
    text: str
    chosen: bool
    scopes: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What stands in the form for a new token."""

    note: str = ""
    grant: str = "all"
    lifetime: str = str(_DEFAULT_LIFETIME)


async def show_tokens(frame: Frame) -> Response:
    """Show tokens, applications and sign-ins."""
    return await _page(frame)


async def take_token(frame: Frame) -> Response:
    """Make a token and show it, this once."""
    form = await read_form(frame.request)
    usual = Wish()
    wish = Wish(
        note=str(form.get("note", "")).strip(),
        grant=str(form.get("grant", usual.grant)),
        lifetime=str(form.get("expires_in", usual.lifetime)),
    )
    try:
        wanted = NewToken(
            note=wish.note or frame.texts.gettext("Made on this page"),
            scopes=list(_grants(me(frame))[wish.grant][1]),
            expires_in=int(wish.lifetime) or None,
        )
    except (KeyError, ValueError):
        return await _page(frame, wish=wish, error=frame.texts.gettext("Choose from the lists."))

    def unit(connection: Connection) -> str:
        return create_token(connection, me(frame), wanted, now=frame.now)[1]

    try:
        value = await frame.hub.database.write(unit)
    except Invalid as error:
        return await _page(frame, wish=wish, error=sentences.error(frame.texts, error).whole)
    return await _page(frame, fresh=value)


async def revoke(frame: Frame) -> Response:
    """Revoke a token; one that is gone already is as good as revoked."""
    form = await read_form(frame.request)
    token_id = _id_of(str(form.get("token", "")))
    user_id = me(frame).user_id

    def unit(connection: Connection) -> None:
        if user_id is not None:
            revoke_token(connection, user_id, token_id, now=frame.now)

    with suppress(NotFound):
        await frame.hub.database.write(unit)
    return RedirectResponse(f"{frame.hub.hub_prefix}token", 302)


async def end_sessions(frame: Frame) -> Response:
    """End one sign-in, or all but this one."""
    form = await read_form(frame.request)
    user_id = me(frame).user_id
    session = frame.session
    if user_id is None or session is None:
        raise NotFound("no such sign-in", code="session-unknown")
    if form.get("others"):
        ending = bound(close_sessions, user_id=user_id, but=session.session_id)
        await frame.hub.database.write(ending)
    else:
        id_ = _id_of(str(form.get("session", "")))
        await frame.hub.database.write(bound(close_session, user_id=user_id, id_=id_))
    return RedirectResponse(f"{frame.hub.hub_prefix}token", 302)


def _id_of(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise NotFound("no such entry")
    return int(text)


def _grants(caller: Caller) -> Mapping[str, tuple[str, tuple[str, ...]]]:
    return {**_GRANTS, **_ADMIN_GRANTS} if caller.admin else _GRANTS


async def _page(
    frame: Frame, *, wish: Wish | None = None, error: str = "", fresh: str = ""
) -> Response:
    caller, texts, wish = me(frame), frame.texts, wish or Wish()
    user_id = caller.user_id or 0

    def unit(connection: Connection) -> tuple[list[Token], list[Session]]:
        return (
            list_tokens(connection, user_id, now=frame.now),
            list_sessions(connection, user_id, frame.now),
        )

    found, sessions = await frame.hub.database.read(unit)
    views = [(token, _token_view(texts, token)) for token in reversed(found)]
    shown = [_session_view(texts, each, frame.session) for each in sessions]
    shown.sort(key=lambda view: (view.is_this, view.last_seen_at), reverse=True)
    return frame.page(
        "token.html",
        status=400 if error else 200,
        nav="token",
        tokens=[view for token, view in views if token.oauth_client == OWN_CLIENT],
        clients=[view for token, view in views if token.oauth_client != OWN_CLIENT],
        sessions=shown[:_SHOWN_SESSIONS],
        more_sessions=_more_said(texts, len(shown) - _SHOWN_SESSIONS),
        lifetimes=[
            ChoiceView(
                value=str(seconds),
                text=texts.gettext(text),
                chosen=str(seconds) == wish.lifetime,
            )
            for seconds, text in _LIFETIMES.items()
        ],
        grants=[
            ChoiceView(
                value=name,
                text=texts.gettext(text),
                chosen=name == wish.grant,
                scopes=" ".join(scopes),
            )
            for name, (text, scopes) in _grants(caller).items()
        ],
        note=wish.note,
        error=error,
        fresh=fresh,
        may_change_password=await may_change_password(frame),
    )


def _more_said(texts: Texts, count: int) -> str:
    """Say how many sign-ins there are besides those shown."""
    if count <= 0:
        return ""
    return texts.ngettext("and %(count)s older sign-in", "and %(count)s older sign-ins", count)


def _token_view(texts: Texts, token: Token) -> TokenView:
    return TokenView(
        id=token.id,
        name=token.oauth_client,
        note=token.note or "",
        summary=texts.ngettext("%(count)s right", "%(count)s rights", len(token.scopes)),
        scopes=[ScopeView(name, scope_said(texts, name)) for name in token.scopes],
        created_at=datetime.fromisoformat(token.created),
        last_used_at=datetime.fromisoformat(token.last_activity) if token.last_activity else None,
        expires_at=datetime.fromisoformat(token.expires_at) if token.expires_at else None,
    )


def _session_view(texts: Texts, session: Session, present: Session | None) -> SessionView:
    return SessionView(
        id=session.id,
        device=device_of(session.device) or texts.gettext("Unknown device"),
        address=session.address,
        created_at=session.created_at,
        last_seen_at=session.last_seen_at,
        is_this=present is not None and present.id == session.id,
    )


_BROWSERS: Final = (
    ("Edg/", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("Chrom", "Chrome"),
    ("Safari/", "Safari"),
)
_SYSTEMS: Final = (
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("CrOS", "ChromeOS"),
    ("Linux", "Linux"),
)


def device_of(agent: str) -> str:
    """Return what a browser calls itself, shortly: ``Firefox, Linux``; a program by its name."""
    browser = next((name for mark, name in _BROWSERS if mark in agent), "")
    system = next((name for mark, name in _SYSTEMS if mark in agent), "")
    if browser:
        return ", ".join(part for part in (browser, system) if part)
    return re.sub(r"/.*", "", agent)[:40]
