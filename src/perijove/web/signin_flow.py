"""
What the pages of signing in and out do, without how they look (wire §4.2 to §4.4).

``GET login`` and ``POST login`` end in a `LoginOutcome`: a form to show, a link to confirm, or
a browser that is signed in and goes on. `apply_login` puts the outcome's cookies on the
response that a page has made of it.

A one-time link works by opening it, as the address that a terminal prints should. It is
redeemed by a navigation that no other page has caused; where another page has (a webmail, a
chat), the person is asked first, so that nobody is signed in as somebody else by a click.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import urlencode

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from perijove.auth.contract import Credentials
from perijove.domain.errors import Forbidden, HubError, Throttled
from perijove.services.hub import Hub
from perijove.services.sessions import Opened
from perijove.services.signin import redeem_link, sign_in, sign_out
from perijove.web import cookies, xsrf
from perijove.web.forms import read_form
from perijove.web.identity import SignedIn, find_signed_in, identify, visitor_of
from perijove.web.next_url import next_of
from perijove.web.xsrf import XsrfToken

METHOD: Final = "method"
"""The form field that names an authenticator, where there are several."""
_DROPPED: Final = frozenset({"next", cookies.XSRF, "link"})
_SHOWN: Final = 32
_KEPT: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginForm:
    """Show the form, or with `link` the button that redeems a one-time link."""

    action: str
    """Where the form is sent."""
    token: XsrfToken
    status: int = 200
    error: HubError | None = None
    username: str = ""
    """What was typed before, not endless."""
    link: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginDone:
    """Go on to `location`; `opened` is what the browser gets, if it is not signed in already."""

    location: str
    opened: Opened | None = None
    signed_in: SignedIn | None = field(default=None, repr=False)


LoginOutcome = LoginForm | LoginDone


async def begin_login(hub: Hub, request: Request) -> LoginOutcome:
    """Answer ``GET login``."""
    signed_in = await find_signed_in(hub, request)
    if link := request.query_params.get("link"):
        if request.method == "HEAD" or not _is_from_nowhere(request):
            return _form(hub, request, signed_in, link=True)
        return await _redeem(hub, request, link, signed_in)
    if signed_in is not None:
        return LoginDone(location=_destination(hub, request), signed_in=signed_in)
    return _form(hub, request, None)


async def finish_login(hub: Hub, request: Request) -> LoginOutcome:
    """Answer ``POST login``: credentials, or the button of a one-time link."""
    signed_in = await find_signed_in(hub, request)
    link = request.query_params.get("link")
    form = await read_form(request)
    fields = {name: value for name, value in form.items() if isinstance(value, str)}
    username = fields.get("username", "").strip()
    try:
        await identify(hub, request, kind="page")
    except Forbidden:
        expired = Forbidden("Login form invalid or expired. Try again.", code="signin-expired")
        return _failed(_form(hub, request, signed_in, link=bool(link)), expired, username)
    if link:
        return await _redeem(hub, request, link, signed_in)
    credentials = Credentials(
        username=username,
        password=fields.get("password", ""),
        fields={name: value for name, value in fields.items() if name != cookies.XSRF},
    )
    try:
        opened = await sign_in(
            hub, credentials, visitor_of(request), authenticator=fields.get(METHOD)
        )
    except HubError as error:
        return _failed(_form(hub, request, signed_in), error, username)
    await _replace(hub, request, signed_in)
    return LoginDone(location=_destination(hub, request), opened=opened)


def apply_login(hub: Hub, request: Request, response: Response, outcome: LoginOutcome) -> None:
    """Put the cookies of an outcome on its response, which nobody may keep."""
    response.headers["Cache-Control"] = "no-store"
    if isinstance(outcome, LoginForm):
        xsrf.give_token(hub, request, response, outcome.token, again=True)
        if isinstance(outcome.error, Throttled):
            response.headers["Retry-After"] = str(math.ceil(outcome.error.retry_after))
        return
    if outcome.opened is not None:
        cookies.set_session(hub, request, response, outcome.opened)
        token = xsrf.token_after_sign_in(hub, request, outcome.opened.session_id)
        xsrf.give_token(hub, request, response, token)
    elif outcome.signed_in is not None:
        session = outcome.signed_in.session
        cookies.set_session_id(hub, request, response, session.session_id)
        xsrf.give_token(hub, request, response, xsrf.token_for(hub, request, session), again=True)
    # The address that led here may hold a link's secret.
    response.headers["Referrer-Policy"] = "no-referrer"


async def logout(hub: Hub, request: Request) -> str:
    """
    End the browser's session and return where to go; give the response to `apply_logout`.

    A GET signs out only as a navigation: raises `Forbidden` for an image or a script that
    names the address. Any other method has to show its XSRF token.
    """
    if request.method in ("GET", "HEAD"):
        if request.method == "HEAD" or not xsrf.is_navigation(request):
            raise Forbidden("signing out is done by going to this page", code="xsrf")
    else:
        await identify(hub, request, kind="page")
    signed_in = await find_signed_in(hub, request)
    if signed_in is not None:
        await sign_out(hub, signed_in.session, visitor_of(request))
    return f"{hub.hub_prefix}login"


def apply_logout(hub: Hub, response: Response) -> None:
    """Take the cookies away."""
    cookies.clear(hub, response)
    response.headers["Cache-Control"] = "no-store"


async def _redeem(
    hub: Hub, request: Request, link: str, signed_in: SignedIn | None
) -> LoginOutcome:
    try:
        opened = await redeem_link(hub, link, visitor_of(request))
    except HubError as error:
        if signed_in is not None:  # reloaded, or opened again from the history
            return LoginDone(location=_destination(hub, request), signed_in=signed_in)
        return _failed(_form(hub, request, None), error)
    await _replace(hub, request, signed_in)
    return LoginDone(location=_destination(hub, request), opened=opened)


async def _replace(hub: Hub, request: Request, signed_in: SignedIn | None) -> None:
    """End the session that a new one takes the place of, with the tokens issued in it."""
    if signed_in is not None:
        await sign_out(hub, signed_in.session, visitor_of(request))


def _form(
    hub: Hub, request: Request, signed_in: SignedIn | None, *, link: bool = False
) -> LoginForm:
    kept = [(name, value) for name, value in _rest(request) if name != "username"]
    if next_ := next_of(hub, request):
        kept = [("next", next_)]
    if link:
        kept.append(("link", request.query_params["link"]))
    return LoginForm(
        action=_with_query(f"{hub.hub_prefix}login", kept),
        token=xsrf.token_for(hub, request, signed_in.session if signed_in else None),
        link=link,
    )


def _failed(form: LoginForm, error: HubError, username: str = "") -> LoginForm:
    status = 429 if isinstance(error, Throttled) else 403
    return replace(form, status=status, error=error, username=_shortened(username))


def _destination(hub: Hub, request: HTTPConnection) -> str:
    """Return where signing in leads: the hub's front door decides when nothing was asked for."""
    return next_of(hub, request) or _with_query(hub.hub_prefix, _rest(request))


def _rest(request: HTTPConnection) -> list[tuple[str, str]]:
    return [(k, v) for k, v in request.query_params.multi_items() if k not in _DROPPED]


def _with_query(path: str, fields: Iterable[tuple[str, str]]) -> str:
    query = urlencode(list(fields))
    return f"{path}?{query}" if query else path


def _is_from_nowhere(request: Request) -> bool:
    """Tell whether no other page has caused this navigation."""
    site = request.headers.get("sec-fetch-site", "none")
    return xsrf.is_navigation(request) and site == "none"


def _shortened(username: str) -> str:
    if len(username) <= _SHOWN:
        return username
    return f"{username[:_KEPT]}… ({len(username)})"
