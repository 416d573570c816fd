"""Language and theme: two cookies, set by plain links, so that strangers have them too."""

from typing import Final

from starlette.responses import RedirectResponse, Response

from perijove.web.cookies import is_secure
from perijove.web.next_url import next_of
from perijove.web.pages.look import LANGUAGE_COOKIE, THEME_COOKIE, THEMES, Frame
from perijove.web.texts import LANGUAGES, PSEUDO

_A_YEAR: Final = 365 * 86400


async def set_preferences(frame: Frame) -> Response:
    """Remember what the link says and go back to where it stood."""
    query = frame.request.query_params
    response = RedirectResponse(next_of(frame.hub, frame.request) or frame.hub.hub_prefix, 302)
    language, theme = query.get("lang", ""), query.get("theme", "")
    if language in LANGUAGES or language == PSEUDO:
        _remember(frame, response, LANGUAGE_COOKIE, language)
    if theme in THEMES:
        _remember(frame, response, THEME_COOKIE, theme)
    elif theme:
        response.delete_cookie(THEME_COOKIE, path=frame.hub.hub_prefix)
    return response


def _remember(frame: Frame, response: Response, name: str, value: str) -> None:
    response.set_cookie(
        name,
        value,
        max_age=_A_YEAR,
        path=frame.hub.hub_prefix,
        secure=is_secure(frame.hub, frame.request),
        samesite="lax",
    )
