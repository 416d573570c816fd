"""What stands before every page: who is there, whose things are meant, may they be touched."""

import re
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from perijove.db.core import Connection, bound
from perijove.domain.asking import Asking
from perijove.domain.errors import Forbidden, HubError, NotFound
from perijove.domain.names import normalise_user_name
from perijove.services.access import Caller
from perijove.services.hub import Hub
from perijove.services.overview import Owner, get_owner
from perijove.web.forms import read_form
from perijove.web.identity import identify
from perijove.web.next_url import login_url, next_of, safe_next
from perijove.web.pages.look import Frame, look_of

Handler = Callable[[Frame], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Response]]

_READING: Final = ("GET", "HEAD")
_JSON: Final = re.compile(r"application/(?:[a-z.+-]+\+)?json")


def for_everyone(hub: Hub, handle: Handler, *, checks_xsrf: bool = True) -> Endpoint:
    """Return an endpoint that strangers may use; `checks_xsrf` False: `handle` does it."""

    async def endpoint(request: Request) -> Response:
        caller = await identify(hub, request, kind="page", defer_xsrf=not checks_xsrf)
        return await handle(await look_of(hub).frame(hub, request, caller))

    return endpoint


def for_people(hub: Hub, handle: Handler, *, tokens: bool = False) -> Endpoint:
    """Return an endpoint for who is signed in; others are sent to sign in first."""

    async def endpoint(request: Request) -> Response:
        caller = await identify(hub, request, kind="page", tokens=tokens)
        if caller is None:
            if request.method not in _READING:
                raise Forbidden("sign in first", code="signin-needed")
            return RedirectResponse(login_url(hub, request), 302)
        if caller.user_id is None:
            raise Forbidden("a service has no pages of its own")
        return await handle(await look_of(hub).frame(hub, request, caller))

    return endpoint


def me(frame: Frame) -> Caller:
    """Return who is signed in, on a page made by `for_people`."""
    if frame.me is None:
        raise Forbidden("sign in first", code="signin-needed")
    return frame.me


async def owner_of(frame: Frame, *, scope: str = "servers") -> tuple[Owner, str]:
    """
    Return whose server the path names, and its name; one's own default server if none.

    Raises `NotFound` alike for a person who does not exist and for one whose servers are none
    of the caller's business.
    """
    caller = me(frame)
    user = normalise_user_name(frame.request.path_params.get("user", caller.name)[:255])
    server = str(frame.request.path_params.get("server", ""))
    if not caller.may(scope, user=user, server=server):
        raise NotFound(f"No such user {user}", code="user-unknown", name=user)
    return await frame.hub.database.read(bound(get_owner, user)), server


def asking(frame: Frame, owner: Owner) -> Asking:
    """Return who asks, as events remember it."""
    caller = me(frame)
    return Asking(
        actor=caller.name,
        token_id=caller.token_id,
        session_id=caller.session_id,
        on_behalf=None if caller.name == owner.name else owner.name,
        request_id=getattr(frame.request.state, "request_id", None),
    )


async def refusal_of(frame: Frame, unit: Callable[[Connection], object]) -> HubError | None:
    """
    Do what a form asks for; returns why not, for the form to be shown again with it.

    What the form is about may be gone: then there is no form, and `NotFound` is raised.
    """
    try:
        await frame.hub.database.write(unit)
    except NotFound:
        raise
    except HubError as error:
        return error
    return None


async def back_to(frame: Frame, fallback: str) -> str:
    """Return where a form leads: what it or the address says if that is ours, else `fallback`."""
    form = await read_form(frame.request)
    hosts = frozenset({frame.request.headers.get("host", "").lower()})
    wished = safe_next(str(form.get("next", "")), hosts=hosts)
    return wished or next_of(frame.hub, frame.request) or fallback


def prefers_json(request: Request) -> bool:
    """Tell whether JSON stands before HTML in what the client accepts."""
    for part in request.headers.get("accept", "")[:1000].lower().split(","):
        kind = part.partition(";")[0].strip()
        if kind == "text/html":
            return False
        if _JSON.fullmatch(kind):
            return True
    return False
