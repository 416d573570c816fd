"""What a person says to a wait: that it shall go on, or begin, and how to be told of its end."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from starlette.responses import RedirectResponse, Response

from perijove.db.core import bound
from perijove.domain.errors import Conflict, Invalid
from perijove.domain.launch import Launch, Status, Wanted
from perijove.services.hub import Hub
from perijove.services.notices import Channel, Outcome, Words, channels_for, follow
from perijove.services.overview import Owner, Shown, find_shown
from perijove.services.waits import keep_waiting, release
from perijove.web.forms import read_form
from perijove.web.pages.door import asking
from perijove.web.pages.look import Frame
from perijove.web.pages.views import Links, name_of, with_query
from perijove.web.texts import Texts

VERBS: Final = frozenset({"keep-waiting", "release", "notify"})
"""What this module does with a server, besides what cards do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to be told, as a choice of a form."""

    name: str
    text: str
    detail: str
    chosen: bool


def ways(frame: Frame, launch: Launch, chosen: Collection[Channel]) -> Sequence[Way]:
    """Return the ways in which the owner of a launch that is wanted can be told about it."""
    if not launch.is_live or launch.wanted is Wanted.END:
        return ()
    email = frame.hub.notify.email
    names = {
        Channel.EMAIL: frame.texts.gettext("By e-mail"),
        Channel.WEBHOOK: frame.texts.gettext("Through this site's messages"),
    }
    details = {Channel.EMAIL: (email.address_of(launch.user_name) if email else "") or ""}
    return [
        Way(
            name=channel,
            text=names[channel],
            detail=details.get(channel, ""),
            chosen=channel in chosen,
        )
        for channel in channels_for(frame.hub, launch.user_name)
    ]


async def answer(frame: Frame, owner: Owner, server: str, verb: str) -> Response:
    """Take what was said to a wait, and go back to it."""
    shown = await frame.hub.database.read(bound(find_shown, owner, server))
    launch = shown.launch if shown else None
    if shown is None or launch is None or not launch.is_live:
        raise Conflict("it is not running and not waiting", code="not-waiting")
    who = asking(frame, owner)
    if verb == "keep-waiting":
        await keep_waiting(frame.hub, launch.id, asking=who)
    elif verb == "release":
        await release(frame.hub, launch.id, asking=who)
    else:
        form = await read_form(frame.request)
        wished = [_channel(str(value)) for value in form.getlist("by")]
        base = frame.request.url
        url = wait_address(frame.hub, launch, f"{base.scheme}://{base.netloc}")
        words = words_of(frame.texts, shown, url)
        await follow(frame.hub, launch, wished, words, asking=who)
    links = Links(frame.hub.base_path, owner.name, server)
    is_ready = launch.status is Status.READY
    return RedirectResponse(with_query(links.wait, show="1" if is_ready else ""), 302)


def _channel(name: str) -> Channel:
    try:
        return Channel(name)
    except ValueError:
        raise Invalid(
            "this site cannot notify in this way", field="by", code="channel-unknown"
        ) from None


def wait_address(hub: Hub, launch: Launch, origin: str) -> str:
    """Return the address of the page of a launch: the site's own, else below `origin`."""
    base = hub.settings.url.removesuffix(hub.base_path) or origin
    return f"{base}{Links(hub.base_path, launch.user_name, launch.server_name).wait}"


def words_of(texts: Texts, shown: Shown, url: str) -> Words:
    """Return what a message says, in the language of who asks for it."""
    name = name_of(texts, shown)
    ready = texts.gettext("%(server)s is ready", server=name)
    ended = texts.gettext("%(server)s did not start", server=name)
    left = texts.gettext("%(server)s has little time left", server=name)
    return {
        Outcome.READY: (ready, f"{texts.gettext('Your server is ready.')}\n\n{url}\n"),
        Outcome.ENDED: (ended, f"{texts.gettext('This page says why:')}\n\n{url}\n"),
        Outcome.LEFT: (
            left,
            texts.gettext("Save your work: this page says how much time is left.")
            + f"\n\n{url}?show=1\n",
        ),
    }
