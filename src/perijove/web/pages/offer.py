"""The options page's view: profiles to choose among, and the fields each leaves open."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

from perijove.db.core import Connection
from perijove.db.offers import list_profiles
from perijove.domain.errors import HubError
from perijove.domain.faults import Fault, InvalidOptions, RefusedOptions
from perijove.domain.forms import write_form
from perijove.domain.names import SERVER_NAME_LENGTH
from perijove.domain.policy import Rule
from perijove.services.limits import find_person, limits_of
from perijove.services.overview import Owner
from perijove.services.profiles import Offer, OptionsForm
from perijove.web.pages.look import Frame
from perijove.web.pages.views import Chip, Titles
from perijove.web.texts import Texts, sentences
from perijove.web.texts.options import counted, fault_said, field_label, option_text, unit_text

_ICONS: Final[Mapping[str, str]] = {"cpu": "cpu", "memory": "memory", "gpu": "gpu", "time": "clock"}
_UNBOUNDED: Final[Mapping[str, float]] = {
    "cpu": 100_000,
    "memory": 2**50,
    "time": 366 * 86400,
    "gpu": 10_000,
}
"""Bounds that nobody wrote: the domain's own, not worth showing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What a person may have, as far as the home page needs to know."""

    named_servers: int | None
    name_length: int
    titles: Titles


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One entry of a list to choose from."""

    value: str
    text: str
    chosen: bool
    verbatim: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldView:
    """One thing that may be changed."""

    name: str
    label: str
    kind: str
    """``number``, ``text`` or ``choice``."""
    value: str = ""
    unit: str = ""
    one: str = ""
    many: str = ""
    """How one and several are said, with ``#`` for the number."""
    minimum: str = ""
    maximum: str = ""
    step: str = "any"
    choices: Sequence[Option] = ()
    hint: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileView:
    """One card of the form."""

    name: str
    title: str
    description: str
    chips: Sequence[Chip]
    usually: str
    fields: Sequence[FieldView]
    chosen: bool
    refusal: str

    @property
    def says(self) -> str:
        """What choosing it asks for, on one line."""
        return " · ".join((self.title, *(chip.text for chip in self.chips)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What stands in the form: the texts typed for one profile, or what to show at first."""

    profile: str
    texts: Mapping[str, str] = field(default_factory=dict)
    """By field name, as typed."""
    options: Mapping[str, object] = field(default_factory=dict)
    """By field name, as values; where nothing was typed."""
    problem: HubError | None = None


async def allowance_of(frame: Frame, owner: Owner) -> Allowance:
    """Return what the policies allow a person of servers, and what profiles are called."""

    def unit(connection: Connection) -> Allowance:
        limits = limits_of(connection, find_person(connection, owner.id))
        return Allowance(
            named_servers=limits.value(Rule.NAMED_SERVERS),
            name_length=limits.value(Rule.SERVER_NAME_LENGTH) or SERVER_NAME_LENGTH,
            titles=titles_of(connection),
        )

    return await frame.hub.database.read(unit)


def titles_of(connection: Connection) -> Titles:
    """Return what profiles are called, by name."""
    return {profile.name: profile.title for profile in list_profiles(connection)}


def profile_views(texts: Texts, form: OptionsForm, asked: Asked) -> list[ProfileView]:
    """Return the cards of the form, with what was typed and what is wrong with it."""
    return [_profile_view(texts, offer, form, asked) for offer in form.offers]


def general_problems(texts: Texts, asked: Asked) -> list[sentences.Said]:
    """Return what is wrong that no field of the form is about."""
    if asked.problem is None:
        return []
    faults = _faults(asked.problem)
    if not faults:
        return [sentences.error(texts, asked.problem)]
    known = _ICONS.keys() | {"ui"}
    return [
        sentences.Said(fault_said(texts, fault)) for fault in faults if fault.field not in known
    ] or [sentences.say(texts, sentences.ERRORS["invalid-options"], {}, asked.problem.code)]


def link_to(frame: Frame, path: str, asked: Asked) -> str:
    """Return the address that shows the form with this choice."""
    pairs = [("form", "1"), ("opt-profile", asked.profile)]
    pairs += [(f"opt-{name}", text) for name, text in sorted(asked.texts.items()) if text]
    base = frame.request.url
    return f"{base.scheme}://{base.netloc}{path}?{urlencode(pairs)}"


def _faults(problem: HubError | None) -> Sequence[Fault]:
    return problem.faults if isinstance(problem, (InvalidOptions, RefusedOptions)) else ()


def _profile_view(texts: Texts, offer: Offer, form: OptionsForm, asked: Asked) -> ProfileView:
    profile = offer.profile
    is_asked = profile.name == asked.profile
    remembered = form.options if profile.name == form.profile else {}
    options = asked.options if is_asked and asked.options else remembered
    written = write_form(offer.schema, options)
    typed = {**written, **(asked.texts if is_asked else {})}
    faults = {fault.field: fault for fault in _faults(asked.problem)} if is_asked else {}
    properties: Mapping[str, Mapping[str, Any]] = offer.schema["properties"]
    return ProfileView(
        name=profile.name,
        title=texts.choose(profile.title, fallback=profile.name),
        description=texts.choose(profile.description),
        chips=[
            Chip(_ICONS[name], option_text(texts, name, each["default"]), of=name)
            for name, each in properties.items()
            if name in _ICONS and each.get("default")
        ],
        usually="",
        fields=[
            _field_view(texts, name, each, typed.get(name, ""), faults.get(name))
            for name, each in properties.items()
            if not each.get("readOnly") and offer.refusal is None
        ],
        chosen=is_asked,
        refusal=_refusal(texts, offer.refusal) if offer.refusal else "",
    )


def _refusal(texts: Texts, refusal: HubError) -> str:
    """Say why a profile cannot be had: what it needs and what one may have, if that is it."""
    faults = _faults(refusal)
    if faults:
        return " ".join(fault_said(texts, fault) for fault in faults)
    return sentences.error(texts, refusal).text


def _field_view(
    texts: Texts, name: str, described: Mapping[str, Any], typed: str, fault: Fault | None
) -> FieldView:
    error = fault_said(texts, fault) if fault else ""
    label = field_label(texts, name)
    if "enum" in described:
        written = {
            str(value): write_form({"properties": {name: described}}, {name: value})[name]
            for value in described["enum"]
        }
        labels = described["x-labels"]
        return FieldView(
            name=name,
            label=label,
            kind="choice",
            choices=[
                Option(
                    value=written[str(value)],
                    text=option_text(texts, name, value) if name in _ICONS else label_,
                    chosen=written[str(value)] == typed,
                    verbatim=name not in _ICONS,
                )
                for value, label_ in zip(described["enum"], labels, strict=True)
            ],
            error=error,
        )
    factor = described.get("x-form", {}).get("factor", 1)
    low, high = described["minimum"], described["maximum"]
    unit = unit_text(texts, name, described.get("x-form", {}).get("unit", ""))
    one, many = counted(texts, name, unit)
    return FieldView(
        name=name,
        label=label,
        kind="number" if _is_number(typed) else "text",
        value=typed,
        unit=unit,
        one=one,
        many=many,
        minimum=_plain(low / factor),
        maximum=_plain(high / factor),
        step=_plain(described["multipleOf"] / factor) if "multipleOf" in described else "any",
        hint=_bounds(texts, name, low, high, described.get("multipleOf")),
        error=error,
    )


def _bounds(texts: Texts, name: str, low: float, high: float, step: float | None) -> str:
    if high >= _UNBOUNDED[name]:
        return texts.gettext("At least %(low)s.", low=option_text(texts, name, low))
    is_count = name in ("cpu", "gpu")
    parts = [
        texts.gettext(
            "%(low)s to %(high)s",
            low=texts.number(low) if is_count else option_text(texts, name, low),
            high=option_text(texts, name, high),
        )
    ]
    if step is not None and not (is_count and step == 1):
        parts.append(texts.gettext("in steps of %(step)s", step=option_text(texts, name, step)))
    return ", ".join(parts)


def _is_number(text: str) -> bool:
    try:
        float(text or "0")
    except ValueError:
        return False
    return True


def _plain(number: float) -> str:
    return f"{number:.6f}".rstrip("0").rstrip(".")
