"""
Who makes a request (wire §2.1): a token in the header, else the login cookie and XSRF.

A token counts on the API and on the few pages that say so; a request that shows one which is
unknown is tried with its cookie. What a cookie may do from another site's page is decided by
`web/xsrf.py`.
"""

from dataclasses import dataclass

from starlette.requests import HTTPConnection

from perijove.db.core import Connection, bound
from perijove.services.access import Caller, caller_by_session, caller_by_token
from perijove.services.hub import Hub
from perijove.services.sessions import Session, Visitor, find_session, touch_session
from perijove.web import cookies, xsrf
from perijove.web.asgi import Scope
from perijove.web.xsrf import Kind

_SCHEMES = (b"token", b"bearer")
_COOKIES_TRIED = 32
"""
A browser sends one of ours, and first those that a person's server has planted for narrower
paths; there are fewer of these for any address. Whoever sends more makes us look no longer.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """Who is signed in with this browser."""

    caller: Caller
    session: Session


async def identify(
    hub: Hub,
    request: HTTPConnection,
    *,
    kind: Kind,
    tokens: bool | None = None,
    defer_xsrf: bool = False,
) -> Caller | None:
    """
    Return who makes the request; None for the anonymous.

    `tokens` says whether the Authorization header counts: by default on the API only. With
    `defer_xsrf` the caller of this function calls `require_xsrf` itself, if it must. Raises
    `Forbidden` with the wire's own texts when XSRF protection says no.
    """
    if kind == "api" if tokens is None else tokens:
        caller = await _by_token(hub, request)
        if caller is not None:
            return caller
    signed_in = await find_signed_in(hub, request)
    if kind == "api" and not _may_use_cookie(request):
        signed_in = None
    if not defer_xsrf:
        await _check(hub, request, signed_in, kind)
    return signed_in.caller if signed_in else None


async def require_xsrf(hub: Hub, request: HTTPConnection, *, kind: Kind) -> None:
    """Make the check that `identify` was asked to defer; only for who is known by cookie."""
    await _check(hub, request, await find_signed_in(hub, request), kind)


async def find_signed_in(hub: Hub, request: HTTPConnection) -> SignedIn | None:
    """Return who is signed in with this browser; checks nothing else. Looks once per request."""
    if hasattr(request.state, "signed_in"):
        found: SignedIn | None = request.state.signed_in
        return found
    found = await _by_cookie(hub, request)
    request.state.signed_in = found
    return found


def visitor_of(request: HTTPConnection) -> Visitor:
    """Return where a request comes from, as it is remembered with a sign-in."""
    agent = request.headers.get("user-agent", "")
    return Visitor(
        address=request.client.host if request.client else "",
        device="".join(character for character in agent if character.isprintable())[:255],
        request_id=getattr(request.state, "request_id", None),
    )


def bearer(scope: Scope) -> str | None:
    """Return the token of the Authorization header: one word after ``token`` or ``Bearer``."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            words = value.split()
            if len(words) == 2 and words[0].lower() in _SCHEMES:
                return str(words[1], "latin-1")
            return None
    return None


async def _by_token(hub: Hub, request: HTTPConnection) -> Caller | None:
    value = bearer(request.scope)
    if value is None:
        return None
    return await hub.database.read(bound(caller_by_token, value, hub.clock.now()))


async def _by_cookie(hub: Hub, request: HTTPConnection) -> SignedIn | None:
    now = hub.clock.now()
    values = cookies.cookie_values(request, cookies.LOGIN)[:_COOKIES_TRIED]

    def unit(connection: Connection) -> SignedIn | None:
        for value in values:
            caller = caller_by_session(connection, value, now)
            session = find_session(connection, value, now) if caller else None
            if caller is not None and session is not None:
                return SignedIn(caller=caller, session=session)
        return None

    found = await hub.database.read(unit) if values else None
    if found is not None and not found.session.is_seen(now):
        await hub.database.write(bound(touch_session, found.session, now))
    return found


async def _check(hub: Hub, request: HTTPConnection, signed_in: SignedIn | None, kind: Kind) -> None:
    method = request.scope.get("method", "GET")
    if xsrf.needs_token(method, request.headers, kind=kind, is_identified=signed_in is not None):
        session = signed_in.session if signed_in else None
        await xsrf.check_token(hub, request, session, kind=kind)


def _may_use_cookie(request: HTTPConnection) -> bool:
    """A form on another site can POST, but never as JSON (wire §4.7)."""
    if request.scope.get("method") != "POST":
        return True
    sent = request.headers.get("content-type", "")
    return not sent or sent.lower().startswith("application/json")
