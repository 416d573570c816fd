"""
``/oauth2/authorize``: a browser asks for a code, for a server it was sent here by.

It lies below the API but is a page: people see it, only the login cookie counts, errors are
pages. The redirect URI is the client's registered one, a path without a host, byte for byte.
"""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from perijove.db.core import bound
from perijove.domain.errors import Forbidden, Invalid
from perijove.services.hub import Hub
from perijove.services.oauth import Approved, Ask, Consent, Denied, consider, issue_code
from perijove.web.asgi import Receive, Scope, Send
from perijove.web.exchange import exchange_of
from perijove.web.forms import read_form
from perijove.web.identity import SignedIn, find_signed_in, identify
from perijove.web.next_url import login_url
from perijove.web.pages.look import look_of
from perijove.web.problems import MethodNotAllowed

_ONCE: Final = (
    "client_id",
    "redirect_uri",
    "response_type",
    "state",
    "scope",
    "code_challenge",
    "code_challenge_method",
)
_LONGEST: Final = 4096
"""Longest value of a parameter."""


class Authorize:
    """The endpoint, an ASGI application."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        exchange_of(scope).is_api = False  # headers and errors are those of a page
        response = await self._answer(Request(scope, receive, send))
        response.headers["Cache-Control"] = "no-store"
        response.headers["Referrer-Policy"] = "no-referrer"
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if request.method not in ("GET", "POST"):
            raise MethodNotAllowed("this address takes GET and POST")
        await identify(self._hub, request, kind="page")
        signed_in = await find_signed_in(self._hub, request)
        if signed_in is None:
            if request.method == "POST":
                raise Forbidden("sign in first", code="signin-needed")
            return RedirectResponse(login_url(self._hub, request), 302)
        agreed = await _agreed(request) if request.method == "POST" else None
        return await self._decide(request, signed_in, agreed)

    async def _decide(
        self, request: Request, signed_in: SignedIn, agreed: Collection[str] | None
    ) -> Response:
        hub, given = self._hub, _parameters(request)
        work = partial(
            consider,
            caller=signed_in.caller,
            ask=_ask(given),
            now=hub.clock.now(),
            agreed=agreed,
        )
        decided = await hub.database.read(work)
        state = {"state": given["state"]} if "state" in given else {}
        match decided:
            case Denied():
                return _back(decided.redirect_uri, {"error": decided.error, **state})
            case Consent():
                return await self._ask_person(request, signed_in, decided)
            case Approved():
                code = await hub.database.write(
                    bound(issue_code, signed_in.session, decided, hub.clock.now())
                )
                return _back(decided.client.redirect_uri, {"code": code, **state})

    async def _ask_person(
        self, request: Request, signed_in: SignedIn, consent: Consent
    ) -> Response:
        frame = await look_of(self._hub).frame(self._hub, request, signed_in.caller)
        return frame.page(
            "oauth.html",
            client=consent.client.description,
            action=f"{_path(request)}?{request.url.query}",
            scopes=[
                {"name": name, "text": name, "required": name in consent.required}
                for name in consent.scopes
            ],
        )


async def _agreed(request: Request) -> Collection[str]:
    """Return what the person has ticked; nothing means: only to be told who I am."""
    form = await read_form(request)
    return {value for value in form.getlist("scopes") if isinstance(value, str)}


def _parameters(request: Request) -> Mapping[str, str]:
    """Return the parameters of the protocol; raises `Invalid` for what cannot be right."""
    given: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in _ONCE:
            continue
        if name in given:
            raise Invalid(f"Repeated parameter {name}.", field=name, code="oauth-request")
        if len(value) > _LONGEST or "\x00" in value:
            raise Invalid(f"Invalid {name} parameter value.", field=name, code="oauth-request")
        given[name] = value
    return given


def _ask(given: Mapping[str, str]) -> Ask:
    return Ask(
        client_id=given.get("client_id", ""),
        redirect_uri=given.get("redirect_uri"),
        response_type=given.get("response_type", ""),
        scopes=given.get("scope", "").split(),
        challenge=given.get("code_challenge"),
        method=given.get("code_challenge_method"),
    )


def _path(request: Request) -> str:
    raw: bytes = request.scope["raw_path"]
    return raw.decode("latin-1")


def _back(redirect_uri: str, fields: Mapping[str, str]) -> Response:
    """Send the browser back; the registered address is not touched, not even re-encoded."""
    joint = "&" if "?" in redirect_uri else "?"
    response = Response(status_code=302)
    response.headers["Location"] = f"{redirect_uri}{joint}{urlencode(fields)}"
    return response
