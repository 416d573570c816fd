"""
How pages are made: templates, language, theme, and the frame around every page.

`Look` is built once per hub and holds what never changes; `Frame` is one request's: who looks,
in which language, when. Endpoints ask the look for a frame and the frame for a page.
"""

import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote
from weakref import WeakKeyDictionary
from zoneinfo import ZoneInfo

import anyio.to_thread
from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.ext import Extension
from jinja2.runtime import Context
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse

from perijove.db.core import Database
from perijove.services.access import Caller
from perijove.services.hub import Hub
from perijove.services.sections import HubSection
from perijove.services.sessions import Session
from perijove.services.volumes import any_keeps_volumes
from perijove.web import xsrf
from perijove.web.identity import find_signed_in
from perijove.web.pages.assets import Assets
from perijove.web.texts import LANGUAGES, Catalogues, Texts
from perijove.web.texts.scopes import scope_said
from perijove.web.xsrf import XsrfToken

LANGUAGE_COOKIE: Final = "perijove-language"
THEME_COOKIE: Final = "perijove-theme"
ZONE_COOKIE: Final = "perijove-zone"
"""Written by the page's script: the browser's time zone, so that the next page is right at once."""
THEMES: Final = ("light", "dark")

_TEMPLATES: Final = Path(__file__).parents[1] / "templates"
_LONGEST_ZONE: Final = 40
_ZONE: Final = re.compile(r"[A-Za-z]+(?:[/_+-][A-Za-z0-9]+){0,4}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What a site made its own."""

    title: str
    footer: str
    links: Mapping[str, str]
    logo_url: str
    has_colours: bool

    @classmethod
    def of(cls, settings: HubSection, logo_url: str) -> "Site":
        """Pick it from the configuration."""
        return cls(
            title=settings.title,
            footer=settings.footer,
            links=settings.links,
            logo_url=logo_url,
            has_colours=bool(settings.colours),
        )


class Look:
    """Templates, catalogues and assets of one hub; `warm` makes all of them ready."""

    def __init__(self, settings: HubSection, hub_prefix: str) -> None:
        self.catalogues = Catalogues()
        self.assets = Assets(settings, hub_prefix)
        self._zones: dict[str, tzinfo] = {"": UTC}
        self._templates = _environment()
        self._templates.globals.update(
            site=Site.of(settings, self.assets.logo_url),
            hub=hub_prefix,
            languages=LANGUAGES,
            static=self.assets.url,
        )

    def warm(self) -> None:
        """Compile every template and read every language; in a thread, while the hub serves."""
        self.catalogues.warm()
        for name in self._templates.list_templates():
            self._templates.get_template(name)

    async def frame(self, hub: Hub, request: Request, me: Caller | None) -> "Frame":
        """Return the frame for who looks: language, zone, theme."""
        cookies = request.cookies
        signed_in = await find_signed_in(hub, request)
        texts = self.catalogues.choose(
            request.query_params.get("lang", ""),
            cookies.get(LANGUAGE_COOKIE, ""),
            accept_language=request.headers.get("accept-language", ""),
        )
        theme = cookies.get(THEME_COOKIE, "")
        return Frame(
            hub=hub,
            look=self,
            request=request,
            me=me,
            session=signed_in.session if signed_in else None,
            texts=texts.at(await self._zone(cookies.get(ZONE_COOKIE, ""))),
            theme=theme if theme in THEMES else "",
            now=hub.clock.now(),
        )

    async def _zone(self, name: str) -> tzinfo:
        """Return a browser's time zone, UTC for one that is not known."""
        if name in self._zones:
            return self._zones[name]
        if len(name) > _LONGEST_ZONE or not _ZONE.fullmatch(name):
            return UTC
        zone = await anyio.to_thread.run_sync(_load_zone, name)
        if zone is not UTC:
            self._zones[name] = zone
        return zone

    def render(self, template: str, view: Mapping[str, Any]) -> str:
        """Return a template filled in."""
        return self._templates.get_template(template).render(view)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One request's way of looking at things."""

    hub: Hub
    look: Look
    request: Request
    me: Caller | None
    session: Session | None
    texts: Texts
    theme: str
    now: datetime

    def page(
        self,
        template: str,
        *,
        status: int = 200,
        nav: str = "",
        headers: Mapping[str, str] | None = None,
        token: XsrfToken | None = None,
        **view: Any,
    ) -> HTMLResponse:
        """
        Return a page; `view` is what its template shows.

        `token` is the XSRF token of its forms, where the caller has it already and gives it.
        """
        own = token or xsrf.token_for(self.hub, self.request, self.session)
        body = self.look.render(
            template,
            {
                **view,
                "lang": self.texts.language,
                "texts": self.texts,
                "theme": self.theme,
                "now": self.now,
                "me": self.me,
                "nav": nav,
                "keeps_data": any_keeps_volumes(self.hub),
                "here": own_address(self.request),
                "xsrf_token": own.value,
                "jhdata": self._page_data(own.value),
            },
        )
        response = HTMLResponse(body, status, headers={**_HEADERS, **(headers or {})})
        if token is None:
            xsrf.give_token(self.hub, self.request, response, own)
        return response

    def _page_data(self, token: str) -> Mapping[str, Any]:
        """Return ``window.jhdata`` (wire §4.8)."""
        return {
            "base_url": self.hub.hub_prefix,
            "prefix": self.hub.base_path,
            "user": self.me.name if self.me else None,
            "admin_access": bool(self.me and self.me.admin),
            "options_form": True,
            "xsrf_token": token,
        }


_LOOKS: Final[MutableMapping[Database, Look]] = WeakKeyDictionary()


def look_of(hub: Hub) -> Look:
    """Return the one look of a hub, built when it is first asked for: by `routes`, at start."""
    look = _LOOKS.get(hub.database)
    if look is None:
        look = _LOOKS[hub.database] = Look(hub.settings, hub.hub_prefix)
    return look


_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Vary": "Accept-Language, Cookie",
}


def own_path(request: Request) -> str:
    """Return the path of a request as it was sent, percent-encoded, without its query."""
    raw: bytes = request.scope.get("raw_path") or quote(request.scope["path"]).encode()
    return raw.decode("latin-1")


def own_address(request: Request) -> str:
    """Return path and query of a request as they were sent."""
    query: bytes = request.scope.get("query_string", b"")
    path = own_path(request)
    return f"{path}?{query.decode('latin-1')}" if query else path


def _load_zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        return UTC


# --- templates --------------------------------------------------------------------------------


class _Flat(Extension):
    """Drops the indentation of templates, never of what is filled in: pages stay small."""

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        return re.sub(r"^[ \t]+", "", source, flags=re.MULTILINE)


def _environment() -> Environment:
    environment = Environment(
        extensions=[_Flat],
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
        cache_size=-1,
    )
    environment.globals.update(
        _=_gettext,
        scope_said=_scope_said,
        pgettext=_pgettext,
        iso=_iso,
        when=_when,
    )
    return environment


@pass_context
def _gettext(context: Context, message: str, /, **params: Any) -> Markup:
    """Translate; the catalogues are ours and hold no markup, what is filled in is escaped."""
    return Markup(_texts(context).translations.gettext(message)) % params  # noqa: S704


@pass_context
def _pgettext(context: Context, meaning: str, message: str, /, **params: Any) -> Markup:
    return Markup(_texts(context).translations.pgettext(meaning, message)) % params  # noqa: S704


@pass_context
def _scope_said(context: Context, scope: str) -> str:
    return scope_said(_texts(context), scope)


def _iso(at: datetime) -> str:
    """Write an instant for scripts; nobody reads parts of a second."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


@pass_context
def _when(context: Context, at: datetime) -> str:
    return _texts(context).when(at, context["now"])


def _texts(context: Context) -> Texts:
    texts: Texts = context["texts"]
    return texts
