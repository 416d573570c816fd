"""
XSRF tokens: what shows that a request comes from one of our pages (wire §4.7).

The token is the value of the cookie: ``base64url(nonce ‖ MAC)`` over what it is bound to, so
nothing is stored. It is bound to the session, or for the anonymous to address and browser; a
token somebody obtained for themselves is worth nothing in another person's browser. Any key
of the keyring checks, the newest signs.
"""

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import Literal

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from perijove.domain.errors import Forbidden
from perijove.kit.keyring import Keyring
from perijove.services.hub import Hub
from perijove.services.sessions import Session
from perijove.web import cookies
from perijove.web.forms import read_form

Kind = Literal["api", "page"]

_NONCE = 12
_MAC = 24
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True, kw_only=True)
class XsrfToken:
    """The token for the forms of one page."""

    value: str = field(repr=False)
    """Empty where the page cannot be given one: it was fetched, not navigated to."""
    is_new: bool
    """The browser does not have it yet."""
    is_anonymous: bool


def is_navigation(request: HTTPConnection) -> bool:
    """
    Tell whether a person goes to this address, as far as the browser says.

    Absent headers (old browsers, plain http, scripts) count as a navigation; a browser that
    only looks ahead does not.
    """
    headers = request.headers
    if "prefetch" in headers.get("sec-purpose", headers.get("purpose", "")):
        return False
    return headers.get("sec-fetch-mode", "navigate") == "navigate"


def token_for(hub: Hub, request: HTTPConnection, session: Session | None) -> XsrfToken:
    """Return the token for the forms of a page: the browser's own if it is good, else a new one."""
    binding = _binding(request, session)
    good = _good_cookie(hub.keyring, request, binding)
    if good is None and is_navigation(request):
        return XsrfToken(
            value=_make(hub.keyring, binding), is_new=True, is_anonymous=session is None
        )
    return XsrfToken(value=good or "", is_new=False, is_anonymous=session is None)


def token_after_sign_in(hub: Hub, request: HTTPConnection, session_id: str) -> XsrfToken:
    """Return the token for a session that this very request has begun."""
    value = _make(hub.keyring, f"session:{session_id}")
    return XsrfToken(value=value, is_new=True, is_anonymous=False)


def give_token(
    hub: Hub, request: HTTPConnection, response: Response, token: XsrfToken, *, again: bool = False
) -> None:
    """Send a token with a response if the browser lacks it; `again`: also to make it last."""
    if token.value and (token.is_new or again):
        cookies.set_xsrf(hub, request, response, token.value, anonymous=token.is_anonymous)


def needs_token(method: str, headers: Headers, *, kind: Kind, is_identified: bool) -> bool:
    """Tell whether a request without an Authorization header has to show a token."""
    mode = headers.get("sec-fetch-mode")
    if kind == "page":
        return method not in _READING and mode != "websocket"
    if method in ("HEAD", "OPTIONS"):
        return False
    if not is_identified and "origin" not in headers:
        return False
    if method not in _READING:
        return True
    is_own = headers.get("sec-fetch-site") == "same-origin"
    return not (mode in (None, "navigate") or (mode == "no-cors" and is_own))


async def check_token(
    hub: Hub, request: HTTPConnection, session: Session | None, *, kind: Kind
) -> None:
    """Raise `Forbidden` unless the request shows the token of its own cookie."""
    method = request.scope.get("method", "GET")
    shown = await _shown(request, kind)
    if not shown:
        raise Forbidden(f"'_xsrf' argument missing from {method}", code="xsrf")
    good = _good_cookie(hub.keyring, request, _binding(request, session))
    if good is None or not hmac.compare_digest(shown.encode(errors="replace"), good.encode()):
        raise Forbidden(f"XSRF cookie does not match {method} argument", code="xsrf")


async def _shown(request: HTTPConnection, kind: Kind) -> str:
    # The body of an API request is JSON, whatever its type says: not ours to read.
    sent: object = None
    if kind == "page" and isinstance(request, Request):
        sent = (await read_form(request)).get(cookies.XSRF)
    found = (
        sent if isinstance(sent, str) else "",
        request.query_params.get(cookies.XSRF, ""),
        request.headers.get("x-xsrftoken", ""),
        request.headers.get("x-csrftoken", ""),
    )
    return next((each for each in found if each), "")


def _binding(request: HTTPConnection, session: Session | None) -> str:
    if session is not None:
        return f"session:{session.session_id}"
    address = request.client.host if request.client else ""
    agent = request.headers.get("user-agent", "")
    return "anonymous:" + hashlib.sha256(f"{len(address)}:{address}{agent}".encode()).hexdigest()


def _good_cookie(keyring: Keyring, request: HTTPConnection, binding: str) -> str | None:
    """Return the first of the cookies that we made for this binding."""
    for value in cookies.cookie_values(request, cookies.XSRF):
        if _is_good(keyring, value, binding):
            return value
    return None


def _make(keyring: Keyring, binding: str) -> str:
    nonce = secrets.token_bytes(_NONCE)
    mac = keyring.derive("xsrf", binding, nonce.hex(), size=_MAC)
    return base64.urlsafe_b64encode(nonce + mac).decode()


def _is_good(keyring: Keyring, value: str, binding: str) -> bool:
    if len(value) != (_NONCE + _MAC) * 4 // 3:
        return False
    try:
        raw = base64.urlsafe_b64decode(value)
    except ValueError:
        return False
    nonce, mac = raw[:_NONCE].hex(), raw[_NONCE:]
    return any(
        hmac.compare_digest(mac, keyring.derive("xsrf", binding, nonce, key_id=key_id, size=_MAC))
        for key_id in reversed([*keyring.keys])
    )
