"""
The same again, changed in what was in its way.

After an end for lack of memory or of time: with more of it. While it waits: what would start
sooner. Nothing that the person may not change themselves is suggested.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from perijove.domain.forms import write_form
from perijove.domain.launch import WAITING, Cause, Launch
from perijove.domain.profile import RESERVATION, as_json, exact
from perijove.domain.sooner import FULL, NO_OUTLOOK, Outlook
from perijove.services.profiles import Offer
from perijove.web.pages.views import chips_of, with_all
from perijove.web.texts import Texts

_KILLED: Final = 9
_MORE: Final = 2
"""How many times as much: a half more is often too little again, and queues are long."""
_RESOURCES: Final = {"memory": "memory_bytes", "time": "time_seconds"}
"""By option, the resource it becomes."""
_MAINTAINED: Final = frozenset({"maintenance", "node-unavailable"})
_RESERVED: Final = frozenset({"reservation", "reservation-gone"})
"""Reasons for which a shorter request helps, and those for which one without its reservation."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A way to start again that should end better, or begin sooner."""

    url: str
    text: str


@dataclass(frozen=True, slots=True)
class _Changed:
    """Options in place of those that were asked for, and what to call that."""

    options: Mapping[str, Any]
    text: str


def may_help(launch: Launch) -> bool:
    """Tell whether there may be something to suggest, before anything is looked up for it."""
    return _lacking(launch) is not None or _reason_of(launch) in FULL | _MAINTAINED | _RESERVED


def suggest(
    texts: Texts,
    launch: Launch,
    offers: Sequence[Offer],
    spawn_url: str,
    outlook: Outlook = NO_OUTLOOK,
) -> Suggestion | None:
    """Return the form with what should help, where the person may choose it."""
    name = launch.spec.get("profile", {}).get("name")
    offer = next((offer for offer in offers if offer.profile.name == name), None)
    if offer is None or offer.refusal is not None:
        return None
    changed = _with_more(texts, launch, offer) or _for_reason(texts, launch, offer, outlook)
    if changed is None:
        return None
    options = {**launch.spec.get("options", {}), **changed.options}
    written = write_form(_open_fields(offer.schema), options)
    query = {
        f"opt-{name}": text for name, text in written.items() if text or name in changed.options
    }
    url = with_all(spawn_url, {"form": "1", "opt-profile": offer.profile.name, **query})
    return Suggestion(url, changed.text)


# --- more -------------------------------------------------------------------------------------


def _with_more(texts: Texts, launch: Launch, offer: Offer) -> _Changed | None:
    """Return more of what was lacking, where more of it can be had."""
    lacking = _lacking(launch)
    if lacking is None:
        return None
    had = launch.spec.get("resources", {}).get(_RESOURCES[lacking])
    more = _more(offer.schema["properties"].get(lacking, {}), had)
    changes: dict[str, Any] = {lacking: more}
    if more is None:
        name, entry, more = _bigger(offer, lacking, had)
        changes = {name: entry}
    if more is None:
        return None
    written = texts.size(more) if lacking == "memory" else texts.duration(more)
    return _Changed(changes, texts.gettext("Start with %(memory)s", memory=written))


def _lacking(launch: Launch) -> str | None:
    """Return the option of which there was too little; None where that was not the trouble."""
    end = launch.end
    if launch.is_live or end is None:
        return None
    if end.cause is Cause.OUT_OF_MEMORY or (end.cause is Cause.SIGNAL and end.code == _KILLED):
        return "memory"
    return "time" if end.cause is Cause.WALLTIME else None


def _more(described: Mapping[str, Any], had: int | None) -> int | None:
    """Return how much to ask for: more than before, and not more than is allowed."""
    if had is None or not described or described.get("readOnly") or "maximum" not in described:
        return None
    wanted = min(had * _MORE, described["maximum"])
    if "enum" in described:
        wanted = min((each for each in described["enum"] if each >= wanted), default=had)
    return int(wanted) if wanted > had else None


def _bigger(offer: Offer, lacking: str, had: int | None) -> tuple[str, str, int | None]:
    """Return the next bigger entry of the choice that sets what was lacking, if there is one."""
    menus = [menu.name for menu in offer.profile.menus if lacking in menu.fields]
    if not menus or had is None:
        return "", "", None
    described = offer.schema["properties"][menus[-1]]  # the later counts
    keys = described.get("enum", described.get("examples", ()))
    bigger = [
        (sets[lacking], key)
        for key, sets in zip(keys, described["x-sets"], strict=True)
        if isinstance(sets.get(lacking), (int, float)) and sets[lacking] > had
    ]
    more, key = min(bigger, default=(None, ""))
    return menus[-1], key, more


# --- sooner -----------------------------------------------------------------------------------


def _reason_of(launch: Launch) -> str:
    """Return the code of why a launch waits, or of why it never started."""
    if launch.end is not None and not launch.is_live:
        return launch.end.reason if launch.end.cause is Cause.NEVER_STARTED else ""
    return launch.reason.code if launch.reason is not None and launch.status in WAITING else ""


def _for_reason(texts: Texts, launch: Launch, offer: Offer, outlook: Outlook) -> _Changed | None:
    """Return what takes the reason away, where the platform tells what that is."""
    code, properties = _reason_of(launch), offer.schema["properties"]
    if code in _RESERVED:
        return _without_reservation(texts, launch, properties)
    if code in FULL:
        return _smaller(texts, launch, properties, outlook)
    if code in _MAINTAINED and outlook.fits_before is not None:
        seconds = _at_most(properties.get("time", {}), outlook.fits_before)
        if seconds is not None:
            said = texts.gettext(
                "Ask for %(time)s: over before the maintenance", time=texts.duration(seconds)
            )
            return _Changed({"time": seconds}, said)
    return None


def _without_reservation(
    texts: Texts, launch: Launch, properties: Mapping[str, Any]
) -> _Changed | None:
    described = properties.get(RESERVATION, {"readOnly": True})
    has_one = launch.spec.get("options", {}).get(RESERVATION)
    if not has_one or described.get("readOnly") or "" not in described.get("enum", ("",)):
        return None
    return _Changed({RESERVATION: ""}, texts.gettext("Start without the reservation"))


def _smaller(
    texts: Texts, launch: Launch, properties: Mapping[str, Any], outlook: Outlook
) -> _Changed | None:
    changes = {
        name: _at_most(properties.get(name, {}), most) for name, most in outlook.fits_now.items()
    }
    if not changes or None in changes.values():
        return None
    options = {**launch.spec.get("options", {}), **changes}
    sizes = {"cpu": options.get("cpu"), "memory_bytes": options.get("memory")}
    what = texts.listing(chip.text for chip in chips_of(texts, sizes))
    said = texts.gettext("Ask for what is free now: %(what)s", what=what)
    return _Changed(changes, said)


def _at_most(described: Mapping[str, Any], most: Fraction) -> Any:
    """Return the most that may be chosen of a field up to `most`; None where nothing may."""
    if "minimum" not in described or described.get("readOnly"):
        return None
    if "enum" in described:
        return max((each for each in described["enum"] if each <= most), default=None)
    step = exact(described.get("multipleOf", 1))
    value = min(most, exact(described["maximum"])) // step * step
    return as_json(value) if value >= max(exact(described["minimum"]), step) else None


def _open_fields(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    properties: Mapping[str, Any] = schema["properties"]
    own = {name: each for name, each in properties.items() if not each.get("readOnly")}
    return {**schema, "properties": own}
