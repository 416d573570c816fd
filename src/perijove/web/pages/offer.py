"""The options page's view: profiles to choose among, and the fields each leaves open."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Final
from urllib.parse import urlencode

from perijove.db.core import Connection
from perijove.db.offers import list_profiles
from perijove.domain.errors import HubError
from perijove.domain.faults import Fault, InvalidOptions, RefusedOptions
from perijove.domain.forms import write_form
from perijove.domain.market import Market, most_of, shapes_in, usable_reservations
from perijove.domain.names import SERVER_NAME_LENGTH
from perijove.domain.policy import Rule
from perijove.domain.profile import (
    FEATURES,
    GPU_TYPE,
    IMAGE,
    NAMES,
    PARTITION,
    RESERVATION,
    Profile,
    term,
)
from perijove.domain.storage import Storage
from perijove.services.limits import find_person, limits_of
from perijove.services.overview import Owner
from perijove.services.profiles import Offer, OptionsForm
from perijove.services.waits import Usual
from perijove.web.pages.choosing import FieldView, Option, image_title, image_view, menu_view
from perijove.web.pages.look import Frame
from perijove.web.pages.platform import free_gpus, free_said
from perijove.web.pages.views import Chip, Titles
from perijove.web.texts import Texts, sentences
from perijove.web.texts.options import (
    counted,
    fault_said,
    field_label,
    gpu_model,
    gpu_text,
    gpus_text,
    moment,
    option_text,
    unit_text,
)
from perijove.web.texts.sentence import Said

_ICONS: Final[Mapping[str, str]] = {"cpu": "cpu", "memory": "memory", "gpu": "gpu", "time": "clock"}
_UNBOUNDED: Final[Mapping[str, float]] = {
    "cpu": 100_000,
    "memory": 2**50,
    "time": 366 * 86400,
    "gpu": 10_000,
    "queue_limit": 366 * 86400,
}
"""Bounds that nobody wrote: the domain's own, not worth showing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What a person may have, as far as the home page needs to know."""

    named_servers: int | None
    name_length: int
    titles: Titles


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileView:
    """One card of the form."""

    name: str
    title: str
    description: str
    chips: Sequence[Chip]
    fields: Sequence[FieldView]
    chosen: bool
    refusal: str
    usually: str = ""
    """How long a start takes."""
    rules: str = ""
    """What follows from one choice for others, as JSON for the script."""

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


def profile_views(
    texts: Texts, form: OptionsForm, asked: Asked, usual: Mapping[str, Usual]
) -> list[ProfileView]:
    """Return the cards of the form: what was typed, what is wrong with it, what is usual."""
    return [
        replace(
            _profile_view(texts, offer, form, asked),
            usually=_usually(texts, usual.get(offer.profile.name)),
        )
        for offer in form.offers
    ]


def _usually(texts: Texts, usual: Usual | None) -> str:
    if usual is None:
        return ""
    if usual.seconds < 60:
        return texts.gettext("Usually starts within a minute.")
    time = texts.duration(60 * round(usual.seconds / 60))
    return texts.gettext("Usually starts in about %(time)s.", time=time)


def dropped_said(texts: Texts, form: OptionsForm) -> str:
    """Say what of the last choice is not possible any more; "" when all of it is."""
    if not form.dropped:
        return ""
    offer = next(each for each in form.offers if each.profile.name == form.profile)
    market = form.platforms.of(offer.profile.spawner)
    kind = market.kind if market else ""
    menus = {menu.name: texts.choose(menu.title) for menu in offer.profile.menus}
    names = [menus.get(name) or field_label(texts, term(name, kind)) for name in form.dropped]
    return texts.gettext(
        "What you chose last time is not possible any more for: %(fields)s.",
        fields=", ".join(names),
    )


def general_problems(texts: Texts, asked: Asked, shown: Collection[str]) -> list[Said]:
    """Return what is wrong that is said at none of the fields `shown`."""
    if asked.problem is None:
        return []
    faults = _faults(asked.problem)
    if not faults:
        return [sentences.error(texts, asked.problem)]
    elsewhere = [fault for fault in faults if _field_of(fault, shown) not in shown]
    return [Said(_titled(texts, fault)) for fault in elsewhere] or [
        sentences.say(texts, sentences.ERRORS["invalid-options"], {}, asked.problem.code)
    ]


def link_to(frame: Frame, path: str, asked: Asked) -> str:
    """Return the address that shows the form with this choice."""
    pairs = [("form", "1"), ("opt-profile", asked.profile)]
    pairs += [(f"opt-{name}", text) for name, text in sorted(asked.texts.items()) if text]
    base = frame.request.url
    return f"{base.scheme}://{base.netloc}{path}?{urlencode(pairs)}"


def _titled(texts: Texts, fault: Fault) -> str:
    """Say what is wrong with a field that is not on the page, with what it is called."""
    label = field_label(texts, fault.field)
    said = fault_said(texts, fault)
    return said if label == fault.field else f"{label}: {said}"


def _field_of(fault: Fault, shown: Collection[str]) -> str:
    """Return the field of the page a fault belongs to: number and type of GPUs are one there."""
    if fault.field == GPU_TYPE and (GPU_TYPE not in shown or "gpu" in shown):
        return "gpu"
    return fault.field


def _faults(problem: HubError | None) -> Sequence[Fault]:
    return problem.faults if isinstance(problem, (InvalidOptions, RefusedOptions)) else ()


def _profile_view(texts: Texts, offer: Offer, form: OptionsForm, asked: Asked) -> ProfileView:
    profile = offer.profile
    is_asked = profile.name == asked.profile
    remembered = form.options if profile.name == form.profile else {}
    options = asked.options if is_asked and asked.options else remembered
    written = write_form(offer.schema, options)
    typed = {**written, **(asked.texts if is_asked else {})}
    properties: Mapping[str, Mapping[str, Any]] = offer.schema["properties"]
    found = reversed(_faults(asked.problem)) if is_asked else ()
    faults = {_field_of(fault, properties): fault for fault in found}
    market = form.platforms.of(profile.spawner)
    fields = _Fields(texts, profile, properties, typed, faults, market)
    return ProfileView(
        name=profile.name,
        title=texts.choose(profile.title, fallback=profile.name),
        description=texts.choose(profile.description),
        chips=[
            *(
                Chip(_ICONS[name], _default_text(texts, name, properties), of=name)
                for name, each in properties.items()
                if name in _ICONS and each.get("default") and profile.menu(name) is None
            ),
            *([] if offer.storage is None else [Chip("home", _kept_text(texts, offer.storage))]),
        ],
        fields=fields.views() if offer.refusal is None else [],
        rules=_rules_of(offer.schema),
        chosen=is_asked,
        refusal=_refusal(texts, offer.refusal) if offer.refusal else "",
    )


def _kept_text(texts: Texts, storage: Storage) -> str:
    if storage.size_bytes is None:
        return texts.gettext("keeps your files")
    return texts.gettext("keeps %(size)s of files", size=texts.size(storage.size_bytes))


def _default_text(texts: Texts, name: str, properties: Mapping[str, Mapping[str, Any]]) -> str:
    default = properties[name]["default"]
    if name == "gpu":
        return gpus_text(texts, default, properties.get(GPU_TYPE, {}).get("default") or "")
    return option_text(texts, name, default)


def _rules_of(schema: Mapping[str, Any]) -> str:
    if "x-rules" not in schema:
        return ""
    told = {"rules": schema["x-rules"], "taken": schema.get("x-taken", {})}
    return json.dumps(told, separators=(",", ":"))


def _refusal(texts: Texts, refusal: HubError) -> str:
    """Say why a profile cannot be had: what it needs and what one may have, if that is it."""
    faults = _faults(refusal)
    if faults:
        return " ".join(fault_said(texts, fault) for fault in faults)
    return sentences.error(texts, refusal).text


@dataclass(frozen=True, slots=True)
class _Fields:
    """The fields of one profile: described by its schema, filled in with what was typed."""

    texts: Texts
    profile: Profile
    properties: Mapping[str, Mapping[str, Any]]
    typed: Mapping[str, str]
    faults: Mapping[str, Fault]
    market: Market | None

    def views(self) -> list[FieldView]:
        """Return those that a page shows; nothing but fixed names is not worth a form."""
        found = [self._named(name, each) for name, each in self.properties.items()]
        views = [each for each in found if each is not None]
        return views if any(each.kind != "fixed" for each in views) else []

    def _named(self, name: str, described: Mapping[str, Any]) -> FieldView | None:
        """Show what is chosen by a name of the site's own, and all else as what it is."""
        if (menu := self.profile.menu(name)) is not None:
            error = self._error(name)
            return menu_view(self.texts, self.profile, menu, described, self.typed, error)
        if name == IMAGE and not described.get("readOnly"):
            return image_view(self.texts, self.profile, described, self.typed, self._error(name))
        return self._view(name, described)

    def _view(self, name: str, described: Mapping[str, Any]) -> FieldView | None:
        if described.get("readOnly"):
            return self._fixed(name, described)
        if name == "gpu" and self.market is not None:
            return self._gpus(described)
        if name == GPU_TYPE and self._has_gpus:
            return None  # one field with their number
        if name == FEATURES:
            return self._several(described)
        if "enum" in described or described["type"] == "string":
            return self._choice(name, described)
        return self._number(name, described)

    @property
    def _has_gpus(self) -> bool:
        return "gpu" in self.properties and not self.properties["gpu"].get("readOnly")

    def _error(self, name: str) -> str:
        return fault_said(self.texts, self.faults[name]) if name in self.faults else ""

    def _label(self, name: str) -> str:
        return field_label(self.texts, term(name, self.market.kind if self.market else ""))

    def _fixed(self, name: str, described: Mapping[str, Any]) -> FieldView | None:
        """Show a name that cannot be changed; a number that cannot is on the card already."""
        value = described.get("default")
        if not value or name not in (*NAMES, FEATURES, IMAGE):
            return None
        if name == GPU_TYPE and self._has_gpus:
            return None
        if name == IMAGE:
            text = image_title(self.texts, self.profile, value)
        else:
            text = option_text(self.texts, name, value)
        return FieldView(
            name=name,
            label=self._label(name),
            kind="fixed",
            value=text,
            hint=self.texts.gettext("Set by this profile."),
        )

    # --- choices ------------------------------------------------------------------------------

    def _choice(self, name: str, described: Mapping[str, Any]) -> FieldView | None:
        values = described.get("enum") or described["examples"]
        if name in NAMES and not any(values):
            return None  # nothing to choose from
        written = {
            str(value): write_form({"properties": {name: described}}, {name: value})[name]
            for value in values
        }
        typed = self.typed.get(name, "")
        labels = described["x-labels"]
        return FieldView(
            name=name,
            label=self._label(name),
            kind="choice",
            choices=[
                Option(
                    value=written[str(value)],
                    text=self._text(name, value, label),
                    chosen=written[str(value)] == typed,
                    verbatim=name not in _ICONS and bool(value),
                )
                for value, label in zip(values, labels, strict=True)
            ],
            hint=self._ends() if name == RESERVATION else "",
            error=self._error(name),
        )

    def _text(self, name: str, value: Any, label: str) -> str:
        if name in _ICONS:
            return option_text(self.texts, name, value)
        if name == GPU_TYPE and value:
            return gpu_model(self.texts, value)
        return label or self._left_open(name)

    def _left_open(self, name: str) -> str:
        """Say what an empty choice means."""
        if name == RESERVATION:
            return self.texts.gettext("None")
        if name == GPU_TYPE:
            return self.texts.gettext("Any")
        taken = self.market.preferred(name) if self.market else ""
        if taken:
            return self.texts.gettext("Default (%(name)s)", name=taken)
        return self.texts.gettext("Chosen by the scheduler")

    def _ends(self) -> str:
        """Say until when the reservations last."""
        market = self.market
        if market is None or market.offer is None:
            return ""
        return self.texts.listing(
            self.texts.gettext(
                "%(name)s ends on %(time)s", name=each.name, time=moment(self.texts, each.ends_at)
            )
            for each in usable_reservations(market.offer, market.now)
        )

    def _several(self, described: Mapping[str, Any]) -> FieldView | None:
        names = described["items"].get("enum", ())
        if not names:
            return None
        typed = set(self.typed.get(FEATURES, "").split(","))
        return FieldView(
            name=FEATURES,
            label=self._label(FEATURES),
            kind="several",
            choices=[
                Option(value=name, text=name, chosen=name in typed, verbatim=True) for name in names
            ],
            hint=self.texts.gettext("Only nodes that have all of these."),
            error=self._error(FEATURES),
        )

    # --- GPUs ---------------------------------------------------------------------------------

    def _gpus(self, described: Mapping[str, Any]) -> FieldView | None:
        """Return number and type of GPUs as the one choice they are to people."""
        kinds = self._kinds()
        pairs = [
            (count, kind) for kind in kinds for count in self._counts(described, kind) if count
        ]
        if not pairs:
            return None
        zero = [(0, "")] if 0 in described.get("enum", [described["minimum"]]) else []
        typed = self._typed_gpus(kinds)
        return FieldView(
            name="gpu",
            label=field_label(self.texts, "gpu_configuration"),
            kind="choice",
            choices=[
                Option(
                    value=_pair(count, kind),
                    text=gpu_text(self.texts, count, kind),
                    verbatim=count > 0,
                    chosen=_pair(count, kind) == typed,
                )
                for count, kind in [*zero, *pairs]
            ],
            hint=self._free_gpus(kinds),
            error=self._error("gpu"),
        )

    def _kinds(self) -> list[str]:
        named = [kind for kind in self.properties.get(GPU_TYPE, {}).get("enum", ()) if kind]
        return named or [""]

    def _counts(self, described: Mapping[str, Any], kind: str) -> Sequence[int]:
        """Return how many of a type one can ask for."""
        high = described["maximum"]
        if self.market is not None and self.market.offer is not None:
            shapes = shapes_in(self.market.offer, self._places())
            high = min(high, most_of("gpu", shapes, gpu_type=kind) or Fraction(0))
        high = min(int(high), _MOST_GPUS)
        if "enum" in described:
            return [count for count in described["enum"] if count <= high]
        step = described.get("multipleOf", 1)
        return [n for n in range(int(described["minimum"]), high + 1) if n % step == 0]

    def _typed_gpus(self, kinds: Sequence[str]) -> str:
        """Return the entry that stands for what was typed, or is the default."""
        kind, colon, count = self.typed.get("gpu", "").rpartition(":")
        if not colon:
            kind = self.typed.get(GPU_TYPE, "") or kinds[0]
        return _pair(int(count), kind) if count.isascii() and count.isdigit() else count

    def _places(self) -> list[str] | None:
        """Return the partitions that can be chosen; None where that is not known."""
        named = [name for name in self.properties.get(PARTITION, {}).get("enum", ()) if name]
        if named or self.market is None:
            return named or None
        taken = self.market.preferred(PARTITION)
        return [taken] if taken else None

    def _free_gpus(self, kinds: Sequence[str]) -> str:
        if self.market is None:
            return ""
        free = free_gpus(self.market, self._places())
        if list(kinds) == [""] and free:
            kinds = sorted(free)
        return self.texts.listing(
            free_said(self.texts, kind, *free[kind]) for kind in kinds if kind in free
        )

    # --- numbers ------------------------------------------------------------------------------

    def _number(self, name: str, described: Mapping[str, Any]) -> FieldView:
        texts, typed = self.texts, self.typed.get(name, "")
        factor = described.get("x-form", {}).get("factor", 1)
        low, high = described["minimum"], described["maximum"]
        unit = unit_text(texts, name, described.get("x-form", {}).get("unit", ""))
        one, many = counted(texts, name, unit)
        return FieldView(
            name=name,
            label=self._label(name),
            kind="number" if _is_number(typed) else "text",
            value=typed,
            unit=unit,
            one=one,
            many=many,
            minimum=_plain(low / factor),
            maximum=_plain(high / factor),
            step=_plain(described["multipleOf"] / factor) if "multipleOf" in described else "any",
            hint=_bounds(texts, name, low, high, described.get("multipleOf")),
            error=self._error(name),
            factor=factor,
        )


_MOST_GPUS: Final = 64
"""Longest list of numbers of GPUs."""


def _pair(count: int, kind: str) -> str:
    return f"{kind}:{count}" if kind and count else str(count)


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
