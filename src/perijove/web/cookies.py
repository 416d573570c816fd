"""The hub's cookies: their names, attributes, and how they are read (wire §4.6)."""

from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import Response

from perijove.services.hub import Hub
from perijove.services.sessions import Opened

LOGIN = "jupyterhub-hub-login"
SESSION_ID = "jupyterhub-session-id"
XSRF = "_xsrf"
_LEGACY_SERVICES = "jupyterhub-services"
_ANONYMOUS_XSRF_SECONDS = 3600


def cookie_values(request: HTTPConnection, name: str) -> list[str]:
    """
    Return all values of a cookie, in the order sent.

    Cookies of one name may come from several paths, some of them set by people's own servers
    on this host, so the reader has to look which one is right.
    """
    found: list[str] = []
    for header in request.headers.getlist("cookie"):
        for part in header.split(";"):
            key, equals, value = part.partition("=")
            if equals and key.strip() == name:
                found.append(value.strip().strip('"'))
    return found


def is_secure(hub: Hub, request: HTTPConnection) -> bool:
    """Tell whether the browser speaks https to us."""
    return request.url.scheme in ("https", "wss") or urlsplit(hub.settings.url).scheme == "https"


def set_session(hub: Hub, request: HTTPConnection, response: Response, opened: Opened) -> None:
    """Give the browser a session."""
    seconds = int((opened.expires_at - hub.clock.now()).total_seconds())
    secure = is_secure(hub, request)
    response.set_cookie(
        LOGIN,
        opened.cookie,
        max_age=seconds,
        path=hub.hub_prefix,
        secure=secure,
        httponly=True,
        samesite="lax",
    )
    set_session_id(hub, request, response, opened.session_id)


def set_session_id(hub: Hub, request: HTTPConnection, response: Response, session_id: str) -> None:
    """Give the browser the id of its session, which servers and services read."""
    response.set_cookie(
        SESSION_ID,
        session_id,
        path=hub.base_path,
        secure=is_secure(hub, request),
        httponly=True,
        samesite="lax",
    )


def set_xsrf(
    hub: Hub, request: HTTPConnection, response: Response, token: str, *, anonymous: bool
) -> None:
    """Give the browser an XSRF token, which scripts of our pages read."""
    response.set_cookie(
        XSRF,
        token,
        max_age=_ANONYMOUS_XSRF_SECONDS if anonymous else None,
        path=hub.hub_prefix,
        secure=is_secure(hub, request),
        samesite="lax",
    )


def clear(hub: Hub, response: Response) -> None:
    """Take all of them away."""
    response.delete_cookie(LOGIN, path=hub.hub_prefix, httponly=True, samesite="lax")
    response.delete_cookie(SESSION_ID, path=hub.base_path, httponly=True, samesite="lax")
    response.delete_cookie(XSRF, path=hub.hub_prefix, samesite="lax")
    response.delete_cookie(_LEGACY_SERVICES, path=f"{hub.base_path}services/")
