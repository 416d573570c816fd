"""After an end for lack of memory or of time: the same again, with more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from perijove.domain.forms import write_form
from perijove.domain.launch import Cause, Launch
from perijove.services.profiles import Offer
from perijove.web.pages.views import with_query
from perijove.web.texts import Texts

_KILLED: Final = 9
_MORE: Final = 2
"""How many times as much: a half more is often too little again, and queues are long."""
_RESOURCES: Final = {"memory": "memory_bytes", "time": "time_seconds"}
"""By option, the resource it becomes."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A way to start again that should end better."""

    url: str
    text: str


def suggest(
    texts: Texts, launch: Launch, offers: Sequence[Offer], spawn_url: str
) -> Suggestion | None:
    """Return the form with more of what was lacking, where more of it can be had."""
    lacking = _lacking(launch)
    name = launch.spec.get("profile", {}).get("name")
    offer = next((offer for offer in offers if offer.profile.name == name), None)
    if lacking is None or offer is None or offer.refusal is not None:
        return None
    had = launch.spec.get("resources", {}).get(_RESOURCES[lacking])
    more = _more(offer.schema["properties"].get(lacking, {}), had)
    options = {**launch.spec.get("options", {}), lacking: more}
    if more is None:
        name, entry, more = _bigger(offer, lacking, had)
        options = {**launch.spec.get("options", {}), name: entry}
    if more is None:
        return None
    own = _open_fields(offer.schema)
    asked = {name: text for name, text in write_form(own, options).items() if text}
    query = {f"opt-{name}": text for name, text in asked.items()}
    written = texts.size(more) if lacking == "memory" else texts.duration(more)
    return Suggestion(
        with_query(spawn_url, form="1", **{"opt-profile": offer.profile.name}, **query),
        texts.gettext("Start with %(memory)s", memory=written),
    )


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


def _open_fields(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    properties: Mapping[str, Any] = schema["properties"]
    own = {name: each for name, each in properties.items() if not each.get("readOnly")}
    return {**schema, "properties": own}
