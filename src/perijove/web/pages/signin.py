"""Signing in and out: the form, the one-time link, the password. What happens: `signin_flow`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from starlette.responses import RedirectResponse, Response

from perijove.db.core import bound
from perijove.domain.errors import Forbidden, Invalid, Throttled
from perijove.services.people import NATIVE, has_password
from perijove.services.signin import change_password
from perijove.web.forms import read_form
from perijove.web.identity import visitor_of
from perijove.web.pages.look import Frame
from perijove.web.problems import status_of
from perijove.web.signin_flow import (
    LoginForm,
    LoginOutcome,
    apply_login,
    begin_login,
    finish_login,
)
from perijove.web.texts import sentences
from perijove.web.texts.sentence import N_

_LABELS: Final = {
    "native": N_("With an account of this site"),
    "pam": N_("With your account on this system"),
    "demo": N_("To try it out"),
}
_HINTS: Final = {
    "demo": N_("This site is for trying out. Do not use a real password here."),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A way to sign in that has a form."""

    name: str
    label: str
    hint: str
    suffix: str
    """What makes the ids of a second form differ from the first one's."""


async def show_login(frame: Frame) -> Response:
    """Show the form, take a one-time link, or go on for who is signed in already."""
    return _answer(frame, await begin_login(frame.hub, frame.request))


async def take_login(frame: Frame) -> Response:
    """Sign in with what the form says; shows it again when that fails."""
    return _answer(frame, await finish_login(frame.hub, frame.request))


def _answer(frame: Frame, outcome: LoginOutcome) -> Response:
    response: Response
    if not isinstance(outcome, LoginForm):
        response = RedirectResponse(outcome.location, 302)
    elif outcome.link:
        response = frame.page(
            "link.html", status=outcome.status, token=outcome.token, action=outcome.action
        )
    else:
        response = _form(frame, outcome)
    apply_login(frame.hub, frame.request, response, outcome)
    return response


def _form(frame: Frame, outcome: LoginForm) -> Response:
    return frame.page(
        "login.html",
        status=outcome.status,
        token=outcome.token,
        error=sentences.error(frame.texts, outcome.error).whole if outcome.error else "",
        username=outcome.username,
        action=outcome.action,
        methods=_methods(frame),
    )


def _methods(frame: Frame) -> Sequence[Method]:
    """Return a form for each authenticator; the names are what the flow's `METHOD` takes."""
    return [
        Method(
            name=name,
            label=frame.texts.gettext(_LABELS[name]) if name in _LABELS else name,
            hint=frame.texts.gettext(_HINTS[name]) if name in _HINTS else "",
            suffix=f"-{number}" if number else "",
        )
        for number, name in enumerate(frame.hub.authenticators)
    ]


# --- the password -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordField:
    """One of the three fields."""

    name: str
    label: str
    autocomplete: str
    hint: str = ""
    error: str = ""


async def may_change_password(frame: Frame) -> bool:
    """Tell whether the person has a password that this hub keeps."""
    user_id = frame.me.user_id if frame.me else None
    if user_id is None or NATIVE not in frame.hub.authenticators:
        return False
    return await frame.hub.database.read(bound(has_password, user_id))


async def show_password(frame: Frame) -> Response:
    """Show the form for a new password."""
    return _password_form(frame)


async def take_password(frame: Frame) -> Response:
    """Change the password, or show beside the field what is wrong."""
    form = await read_form(frame.request)
    old, new, again = (str(form.get(name, "")) for name in ("old", "password", "again"))
    if frame.session is None:
        raise Forbidden("only who is signed in here can change a password")
    if new != again:
        text = frame.texts.gettext("The two new passwords are not the same.")
        return _password_form(frame, errors={"again": text}, status=400)
    try:
        await change_password(frame.hub, frame.session, old, new, visitor_of(frame.request))
    except (Invalid, Throttled) as error:
        field = error.field if isinstance(error, Invalid) else "old"
        text = sentences.error(frame.texts, error).text
        return _password_form(frame, errors={field or "password": text}, status=status_of(error))
    return _password_form(frame, done=True)


def _password_form(
    frame: Frame, *, errors: dict[str, str] | None = None, done: bool = False, status: int = 200
) -> Response:
    texts, errors = frame.texts, errors or {}
    fields = [
        PasswordField(
            name="old",
            label=texts.gettext("Your present password"),
            autocomplete="current-password",
            error=errors.get("old", ""),
        ),
        PasswordField(
            name="password",
            label=texts.gettext("New password"),
            autocomplete="new-password",
            hint=texts.gettext("A few words that only you would put together are a good choice."),
            error=errors.get("password", ""),
        ),
        PasswordField(
            name="again",
            label=texts.gettext("New password once more"),
            autocomplete="new-password",
            error=errors.get("again", ""),
        ),
    ]
    return frame.page("password.html", status=status, nav="token", fields=fields, done=done)
