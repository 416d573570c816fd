"""Error pages: what happened, whose turn it is, what to do next, and an id to quote."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.client import responses
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from perijove.domain.errors import HubError
from perijove.services.access import Caller
from perijove.services.hub import Hub
from perijove.web.identity import find_signed_in
from perijove.web.pages.door import prefers_json
from perijove.web.pages.look import Frame, look_of
from perijove.web.texts import Texts, sentences
from perijove.web.texts.sentence import N_, Said

_HEADINGS: Final[Mapping[int, str]] = {
    400: N_("That did not work"),
    401: N_("Please sign in"),
    403: N_("Not allowed"),
    404: N_("Not found"),
    405: N_("That did not work"),
    409: N_("Not now"),
    413: N_("Too large"),
    422: N_("That did not work"),
    424: N_("Not running"),
    429: N_("Too many at once"),
    500: N_("Our mistake"),
    502: N_("No answer"),
    503: N_("No answer"),
    504: N_("No answer in time"),
}
_CODES: Final[Mapping[int, str]] = {
    400: "invalid",
    401: "signin-needed",
    403: "forbidden",
    404: "not-found",
    405: "invalid",
    409: "conflict",
    413: "form-too-long",
    422: "invalid",
    424: "upstream-away",
    429: "throttled",
    502: "upstream-away",
    503: "upstream-away",
    504: "upstream-slow",
}
"""For the proxy's errors, of which only the number is known."""
_YOURS: Final = frozenset({400, 401, 404, 405, 413, 422})
_SITES: Final = frozenset({403, 409, 424, 429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Action:
    """A way on."""

    url: str
    text: str


async def render_error(hub: Hub, request: Request, status: int, error: Exception) -> Response:
    """Return the page for an error, expected or not; the API has its own answer."""
    signed_in = await find_signed_in(hub, request)
    frame = await look_of(hub).frame(hub, request, signed_in.caller if signed_in else None)
    known = error if isinstance(error, HubError) else HubError("")
    said = sentences.error(frame.texts, known)
    is_ours = status == HTTPStatus.INTERNAL_SERVER_ERROR
    is_said = str(known) in (said.text, responses.get(status))
    detail = "" if is_ours or is_said else _words(known)
    return _page(frame, status, said, detail=detail)


async def show_error(frame: Frame) -> Response:
    """Show ``/hub/error/:code``: always 200, the proxy sets the real status (wire §4.1)."""
    code = frame.request.path_params["code"]
    status = code if code in _HEADINGS else 500
    sentence = sentences.ERRORS[_CODES.get(status, "internal")]
    said = sentences.say(frame.texts, sentence, {}, _CODES.get(status, "internal"))
    if prefers_json(frame.request):
        return JSONResponse({"status": status, "message": said.whole, "code": said.code})
    return _page(frame, status, said, sent=200)


def _page(
    frame: Frame, status: int, said: Said, *, detail: str = "", sent: int | None = None
) -> Response:
    texts = frame.texts
    return frame.page(
        "error.html",
        status=sent or status,
        is_grave=status >= 500,
        heading=texts.gettext(_HEADINGS.get(status, _HEADINGS[500])),
        turn=_turn(texts, status),
        text=said.text,
        advice=said.advice,
        detail=detail,
        actions=_actions(texts, frame.hub.hub_prefix, frame.me),
        diagnostic=getattr(frame.request.state, "request_id", None) or str(status),
    )


def _turn(texts: Texts, status: int) -> str:
    if status in _YOURS:
        return texts.gettext("It is your turn: something in the request has to change.")
    if status in _SITES:
        return texts.gettext("It is this site's turn, or a matter of waiting a moment.")
    return texts.gettext("It is our turn: this should not have happened.")


def _words(error: HubError) -> str:
    """Return the error's own English where it says more than our sentence, on one line."""
    return " ".join(str(error).split())[:500]


def _actions(texts: Texts, hub_prefix: str, me: Caller | None) -> list[Action]:
    if me is None:
        return [Action(f"{hub_prefix}login", texts.gettext("Sign in"))]
    return [Action(f"{hub_prefix}home", texts.gettext("Your servers"))]
