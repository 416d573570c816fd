"""
Options: what may be asked of a profile, and what was (design decision 8).

`schema` says what may be asked, as JSON Schema; `apply` decides what was asked, and finds every
fault at once. Forms are read in `forms.py`, and end here like everything else.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Final

from perijove.domain.bounds import Bounds, bounds_of
from perijove.domain.combination import ceilings, impossible, rules
from perijove.domain.faults import Fault, InvalidOptions, RefusedOptions, listed, shown
from perijove.domain.images import LONGEST_TEXT, FreeText, is_reference, permits
from perijove.domain.launch import Resources
from perijove.domain.market import Market
from perijove.domain.menus import Entry, Menu
from perijove.domain.picks import Picks, default_among, pick, possible
from perijove.domain.policy import Limits, Rule
from perijove.domain.profile import (
    ACCOUNT,
    DEFAULT_URLS,
    FEATURES,
    FIELDS,
    GPU_TYPE,
    IMAGE,
    NAME_PATTERN,
    NAMES,
    PARTITION,
    QUANTITIES,
    QUEUE_LIMIT,
    UI,
    Profile,
    Quantity,
    Value,
    as_json,
    exact,
    is_name,
    rounded,
    term,
    title,
)
from perijove.kit.clock import isoformat
from perijove.kit.quantities import read_quantity

UI_LABELS: Final[Mapping[str, str]] = MappingProxyType(
    {"lab": "JupyterLab", "notebook": "Jupyter Notebook", "terminal": "Terminal"}
)
_MOST_UNKNOWN: Final = 20
_OURS: Final = frozenset({UI, QUEUE_LIMIT.name})
"""Of these a platform knows nothing."""
_SNAP: Final = Fraction(1, 10**6)
"""How far, in quanta, a binary fraction may miss the number that people write in decimals."""


_ANY_NAME: Final = f"^(?:{NAME_PATTERN})?$(?![\\s\\S])"
"""What the schema says of a name while the platform has not said which there are."""


class Unreadable(str):
    """A form's text that is no number in its language: refused as it stands, never reread."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a launch gets: every option with its value, asked for or not."""

    asked: Mapping[str, Any]
    """The options that were given, in their JSON form: what is remembered."""
    options: Mapping[str, Any]
    """All of them, in their JSON form; without those left to the platform."""
    resources: Resources
    default_url: str
    image: str = ""
    """The reference of the image; empty: the spawner's own."""
    environment: Mapping[str, str] = field(default_factory=dict)
    queue_seconds: int | None = None
    """After so long in the queue the person wants to be asked; None: no wish."""
    platform: Mapping[str, Any] = field(default_factory=dict)
    """What profile and choices say to the spawner's kind alone."""


def apply(
    profile: Profile,
    limits: Limits,
    given: Mapping[str, object],
    market: Market | None = None,
) -> Choice:
    """
    Return what a launch gets when `given` is asked of a profile.

    Sizes and durations may be texts with a unit, ``"4 GiB"``; None is as if not given, "" leaves
    a name to the scheduler. `market` is what is known of the platform, if it can tell. Raises
    `InvalidOptions` where the profile or the platform has no such thing or not together, and
    `RefusedOptions` where nothing but a policy stands in the way; either names every fault.
    """
    choice, faults = _check(profile, limits, given, market)
    if not faults:
        return choice
    if all(fault.rule for fault in faults):
        raise RefusedOptions(faults)
    raise InvalidOptions(sorted(faults, key=lambda fault: bool(fault.rule)))


def still_valid(
    profile: Profile,
    limits: Limits,
    remembered: Mapping[str, object],
    market: Market | None = None,
) -> Mapping[str, object]:
    """
    Return what of an earlier choice can still be asked.

    Bounds change between two starts; what nobody asked for anew must not make the next fail.
    """
    menus = tuple(menu.name for menu in profile.menus)
    known = {name: remembered[name] for name in (*menus, *FIELDS) if name in remembered}
    while True:
        _, faults = _check(profile, limits, known, market)
        wrong = {fault.field for fault in faults} & known.keys()
        if not wrong and faults:  # a default is to blame, and goes with nothing that was chosen
            wrong = {name for name in known if name in (*_PLACE, *menus)}
        if not wrong:
            return known
        known = {name: value for name, value in known.items() if name not in wrong}


_PLACE: Final = (*NAMES, FEATURES)
"""Choices of where to run: they bound all others."""


def _check(
    profile: Profile, limits: Limits, given: Mapping[str, object], market: Market | None
) -> tuple[Choice, list[Fault]]:
    picks = pick(profile, limits, given, market)
    bounds = bounds_of(picks.profile, limits, market)
    menus = {menu.name for menu in profile.menus}
    given = {name: value for name, value in given.items() if name not in menus}
    faults: list[Fault] = []
    asked: dict[str, Any] = {}
    values: dict[str, Value] = {}
    for name, each in bounds.items():
        value, fault = each.default, each.fault
        if fault is None and given.get(name) is not None:
            value, fault = _read(each, given[name], picks.profile)
            if fault is None and value is not None:
                asked[name] = as_json(value)
        if fault is not None:
            faults.append(fault)
        elif value is not None:
            values[name] = value
    unknown = [name for name in given if name not in bounds]
    faults += [_unknown(profile.name, name) for name in unknown[:_MOST_UNKNOWN]]
    values = {name: value for name, value in values.items() if value not in ("", ())}
    faults = [*picks.faults, *faults] or _type_of_gpu(limits, bounds, values)
    if market is not None and not faults:
        values |= _lowered(bounds, asked, values, market)
        faults = impossible(market, profile.name, values)
    return _choice(picks, asked, values), [picks.blame(fault) for fault in faults]


def _type_of_gpu(
    limits: Limits, bounds: Mapping[str, Bounds], values: dict[str, Value]
) -> list[Fault]:
    """Forget the type where no GPU is asked for; refuse to leave it open against a policy."""
    if not values.get("gpu"):
        values.pop(GPU_TYPE, None)
        return []
    rule, each = limits[Rule.GPU_TYPE], bounds[GPU_TYPE]
    if rule.value is None or values.get(GPU_TYPE) in rule.value:
        return []
    if not each.kind:  # a platform that knows no types
        return []
    return [_fault(each, "refused-option", tuple(rule.value), "").by(rule)]


def _lowered(
    bounds: Mapping[str, Bounds],
    asked: Mapping[str, Any],
    values: Mapping[str, Value],
    market: Market,
) -> dict[str, Value]:
    """Return the defaults that are only a limit's own, where the rest of the choice allows less."""
    loose = {name for name in QUANTITIES if bounds[name].is_ceiling and name not in asked}
    most = ceilings(market, {name: each for name, each in values.items() if name not in loose})
    lowered: dict[str, Value] = {}
    for name in loose & values.keys() & most.keys():
        value, quantum = values[name], bounds[name].step or QUANTITIES[name].quantum
        low = bounds[name].low or Fraction(0)
        fitting = most[name].value // quantum * quantum
        if isinstance(value, Fraction) and fitting < value and (fitting >= low or value == low):
            lowered[name] = fitting
    return lowered


def _choice(picks: Picks, asked: Mapping[str, Any], values: Mapping[str, Value]) -> Choice:
    numbers = {name: each for name, each in values.items() if isinstance(each, Fraction)}
    wholes = {name: int(each) for name, each in numbers.items()}
    return Choice(
        asked={**asked, **picks.asked},
        options={name: as_json(value) for name, value in values.items()} | dict(picks.values),
        resources=Resources(
            cpu=float(numbers["cpu"]) if "cpu" in numbers else None,
            memory_bytes=wholes.get("memory"),
            gpu=wholes.get("gpu"),
            time_seconds=wholes.get("time"),
        ),
        default_url=DEFAULT_URLS[str(values.get(UI, "lab"))],
        image=picks.profile.reference_of(str(values.get(IMAGE, ""))),
        queue_seconds=wholes.get(QUEUE_LIMIT.name),
        environment=picks.profile.environment,
        platform=picks.profile.platform,
    )


# --- reading one value ------------------------------------------------------------------------


def _read(bounds: Bounds, raw: object, profile: Profile) -> tuple[Value | None, Fault | None]:
    """Return the value, or what is wrong with it."""
    quantity = QUANTITIES.get(bounds.name)
    if bounds.name == FEATURES:
        return _read_several(bounds, raw)
    if bounds.name == IMAGE and isinstance(raw, str):
        return _read_image(bounds, raw, profile)
    if quantity is None:
        return _read_word(bounds, raw)
    value = _read_number(quantity, raw)
    if value is None:
        wanted = "a number with a unit" if quantity.units else "a number"
        return None, _fault(bounds, "option-type", wanted, shown(raw))
    value = _snap(value, quantity.quantum)
    return value, _judge(quantity, bounds, value)


def _read_word(bounds: Bounds, raw: object) -> tuple[Value | None, Fault | None]:
    if isinstance(raw, str) and (raw in bounds.choices or (bounds.is_open and is_name(raw))):
        return str(raw), None
    if bounds.locked and bounds.name != UI and not bounds.default:
        if raw == "":
            return None, None
        return None, _unknown(bounds.profile, bounds.name)
    if bounds.locked:
        return None, _fault(bounds, "option-locked", str(bounds.default), shown(raw))
    return None, _fault(bounds, "option-choice", listed(_words(bounds)), shown(raw))


def _read_image(bounds: Bounds, raw: str, profile: Profile) -> tuple[Value | None, Fault | None]:
    """Return a name of the catalogue, also where its reference was given, or what was written."""
    names = {profile.reference_of(str(name)): str(name) for name in bounds.choices}
    raw = raw if raw in bounds.choices else names.get(raw, raw)
    if raw in bounds.choices or bounds.free is None:
        return _read_word(bounds, raw)
    if not raw:
        return None, None
    if not bounds.free.accepts(raw):
        fault = _fault(bounds, "option-text", bounds.free.pattern, shown(raw))
        return None, replace(fault, said=bounds.free.message)
    if not is_reference(raw):
        return None, _fault(bounds, "option-image", "", shown(raw))
    rule = bounds.ruled_by
    if rule is not None and not permits(rule.value, raw):
        return None, _fault(bounds, "refused-image", tuple(rule.value), raw).by(rule)
    return raw, None


def _read_several(bounds: Bounds, raw: object) -> tuple[Value | None, Fault | None]:
    wanted = _words(bounds)
    if not isinstance(raw, (list, tuple)):
        return None, _fault(bounds, "option-choice", listed(wanted), shown(raw))
    if bounds.is_open:
        wanted = list(dict.fromkeys([*wanted, *(str(each) for each in raw if is_name(str(each)))]))
    strange = next((each for each in raw if each not in wanted), None)
    if bounds.locked:
        if strange is None and set(raw) == set(wanted):
            return tuple(wanted), None
        if not bounds.default:
            return (None, _unknown(bounds.profile, bounds.name)) if raw else (None, None)
        return None, _fault(bounds, "option-locked", tuple(wanted), listed(_shown(raw)))
    if strange is not None:
        return None, _fault(bounds, "option-choice", listed(wanted), shown(strange))
    return tuple(each for each in wanted if each in raw), None


def _words(bounds: Bounds) -> list[str]:
    return [str(choice) for choice in bounds.choices if choice]


def _shown(raw: Sequence[object]) -> list[str]:
    return [shown(each) for each in raw[:_MOST_UNKNOWN]]


def _read_number(quantity: Quantity, raw: object) -> Fraction | None:
    """Read a JSON number, or a text with a unit; None when it is neither."""
    if isinstance(raw, (bool, Unreadable)):
        return None
    if isinstance(raw, int) or (isinstance(raw, float) and math.isfinite(raw)):
        return Fraction(raw) if isinstance(raw, int) else exact(raw)
    if not isinstance(raw, str) or quantity.units is None:
        return None
    try:
        return rounded(read_quantity(raw, quantity.units, bare=None), quantity.quantum)
    except ValueError:
        return None


def _judge(quantity: Quantity, bounds: Bounds, value: Fraction) -> Fault | None:
    """Return what is wrong with a number, if anything is."""
    if bounds.locked:
        return _judge_locked(bounds, value)
    assert bounds.low is not None
    assert bounds.high is not None
    grid = bounds.step or quantity.quantum
    if value < bounds.low:
        return _fault(bounds, "option-too-small", bounds.low, value)
    if value > bounds.high:
        return _too_large(bounds, bounds.high, value)
    if bounds.choices and value not in bounds.choices:
        listed = ", ".join(quantity.write(exact(choice)) for choice in bounds.choices)
        return _fault(bounds, "option-choice", listed, quantity.write(value))
    return _fault(bounds, "option-step", grid, value) if value % grid else None


def _too_large(bounds: Bounds, most: Fraction, value: Fraction) -> Fault:
    if bounds.capped_by:
        return _fault(bounds, "refused-option", most, value).by(bounds.capped_by)
    return _fault(bounds, "over-platform" if bounds.is_short else "option-too-large", most, value)


def _judge_locked(bounds: Bounds, value: Fraction) -> Fault | None:
    if bounds.default is None:
        return _unknown(bounds.profile, bounds.name)
    return (
        None if value == bounds.default else _fault(bounds, "option-locked", bounds.default, value)
    )


def _fault(bounds: Bounds, code: str, limit: Value, asked: Value) -> Fault:
    return Fault.of(
        profile=bounds.profile,
        field=bounds.name,
        code=code,
        limit=limit,
        asked=asked,
        kind=bounds.kind,
    )


def _unknown(profile: str, name: object) -> Fault:
    return Fault(
        field=shown(name),
        code="option-unknown",
        limit=None,
        asked=shown(name),
        params={"asked": shown(name), "profile": profile},
    )


def _snap(value: Fraction, grid: Fraction) -> Fraction:
    nearest = rounded(value, grid)
    return nearest if abs(value - nearest) <= grid * _SNAP else value


# --- the description --------------------------------------------------------------------------


def schema(profile: Profile, limits: Limits, market: Market | None = None) -> dict[str, Any]:
    """
    Return the JSON Schema (draft 2020-12) of what a person may ask of a profile.

    Titles are English; the pages translate them by field name. Besides the standard's words:
    ``unit``; ``x-labels``, a text for each of ``enum``; ``x-form``, the unit a form asks in and
    what one of it is; ``x-policy``, who made a bound tighter than the profile has it. A field
    that the profile leaves to the platform and no policy limits is not there.

    Where the platform tells what it has, ``x-source`` says what of it a field is
    (``slurm.partition``) and ``x-as-of`` how old that is; ``x-rules`` beside the properties are
    what follows from one choice for others, see `combination.rules`, and ``x-taken`` what the
    scheduler takes for a name that is left to it.

    A choice of the profile's own has ``x-sets``, what each of its entries sets, and stands for
    the fields that these set. Where something else may be written, ``anyOf`` has the entries
    and the pattern, ``examples`` the entries, and ``x-other`` title and message.
    """
    entries = {menu.name: possible(profile, menu, limits, market) for menu in profile.menus}
    defaults = {menu.name: default_among(menu, entries[menu.name]) for menu in profile.menus}
    picks = pick(profile, limits, defaults, market)
    by_menu = {name for menu in profile.menus for name in menu.fields}
    menus = {menu.name: _menu_property(menu, entries[menu.name]) for menu in profile.menus}
    fields = {
        name: _property(bounds, market)
        for name, bounds in bounds_of(picks.profile, limits, market).items()
        if (bounds.is_offered or bounds.capped_by is not None) and name not in by_menu
    }
    if IMAGE in fields:
        fields[IMAGE] |= _image_details(profile, fields[IMAGE])
    found: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {**menus, **{name: fields[name] for name in fields if name not in menus}},
        "additionalProperties": False,
    }
    if market is not None:
        found |= _told(market, found["properties"])
    return found


def _told(market: Market, properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a platform says of the choices taken together, as far as they are offered."""
    silent = market.silent_since
    told: dict[str, Any] = {"x-silent-since": isoformat(silent)} if silent else {}
    taken = {name: market.preferred(name) for name in (ACCOUNT, PARTITION)}
    if any(taken.values()):
        told["x-taken"] = {name: each for name, each in taken.items() if each}
    found = []
    for rule in rules(market):
        [(field, value)] = rule["when"].items()
        then = {name: each for name, each in rule["then"].items() if name in properties}
        if then and value in properties.get(field, {}).get("enum", ()):
            found.append({"when": rule["when"], "then": then})
    if found:
        told["x-rules"] = found
    return told


def _property(bounds: Bounds, market: Market | None) -> dict[str, Any]:
    quantity = QUANTITIES.get(bounds.name)
    found = _word_property(bounds) if quantity is None else _number_property(bounds, quantity)
    if bounds.default is not None:
        found["default"] = as_json(bounds.default)
    if bounds.locked:
        found["readOnly"] = True
    if bounds.capped_by is not None:
        found["x-policy"] = bounds.capped_by.policy
    if market is not None and market.offer is not None and bounds.name not in _OURS:
        found["x-source"] = f"{market.kind}.{term(bounds.name, market.kind)}"
        found["x-as-of"] = isoformat(market.offer.as_of)
    return found


def _menu_property(menu: Menu, entries: Sequence[Entry]) -> dict[str, Any]:
    free = menu.other.rule if menu.other else None
    found = {
        "type": "string",
        "title": menu.title.get("en", menu.name),
        **_listed([entry.key for entry in entries], free),
        "x-labels": [entry.title.get("en", entry.key) for entry in entries],
        "x-sets": [_shown_setting(entry.sets.fields) for entry in entries],
    }
    if entries:
        found["default"] = default_among(menu, entries)
    return found


def _shown_setting(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name in QUANTITIES or name == IMAGE}


def _listed(choices: Sequence[str], free: FreeText | None) -> dict[str, Any]:
    """Return how a schema says which texts there are to choose from, and what else may be."""
    if free is None:
        return {"enum": list(choices)}
    written = {"pattern": f"^(?:{free.pattern})$(?![\\s\\S])", "maxLength": LONGEST_TEXT}
    return {
        "anyOf": [{"enum": list(choices)}, written] if choices else [written],
        "examples": list(choices),
        "x-other": {"title": dict(free.title), "message": dict(free.message)},
    }


def _image_details(profile: Profile, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the catalogue says of the images to choose from."""
    names = found.get("enum", found.get("examples", ()))
    images = [profile.images.get(name) for name in names]
    return {
        "x-labels": [
            image.title.get("en", name) if image else name
            for name, image in zip(names, images, strict=True)
        ],
        "x-images": [
            {
                "image": profile.reference_of(name),
                "description": image.description.get("en", "") if image else "",
                "packages": list(image.packages) if image else [],
            }
            for name, image in zip(names, images, strict=True)
        ],
    }


def _word_property(bounds: Bounds) -> dict[str, Any]:
    named = {"title": title(bounds.name, bounds.kind)}
    choices = [str(choice) for choice in bounds.choices]
    if bounds.name == IMAGE:
        return {"type": "string", **named, **_listed(choices, bounds.free), "x-labels": choices}
    listed = {"pattern": _ANY_NAME} if bounds.is_open else {"enum": choices}
    if bounds.name == FEATURES:
        items = {"type": "string", **listed}
        return {"type": "array", **named, "items": items, "uniqueItems": True}
    if bounds.is_open:
        return {"type": "string", **named, **listed, "examples": choices}
    return {
        "type": "string",
        **named,
        "enum": choices,
        "x-labels": [UI_LABELS.get(choice, choice) for choice in choices]
        if bounds.name == UI
        else choices,
    }


def _number_property(bounds: Bounds, quantity: Quantity) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "number" if quantity.quantum.denominator > 1 else "integer",
        "title": title(bounds.name, bounds.kind),
        "unit": quantity.unit,
    }
    if bounds.low is not None and bounds.high is not None:
        found |= {"minimum": as_json(bounds.low), "maximum": as_json(bounds.high)}
    if bounds.choices:
        numbers = [exact(choice) for choice in bounds.choices]
        found["enum"] = [as_json(number) for number in numbers]
        found["x-labels"] = [quantity.write(number) for number in numbers]
    if bounds.step is not None:
        found["multipleOf"] = as_json(bounds.step)
    if quantity.units is not None:
        found["x-form"] = _form_unit(bounds, quantity, quantity.units)
    return found


def _form_unit(bounds: Bounds, quantity: Quantity, units: Mapping[str, Fraction]) -> dict[str, Any]:
    """Choose the first unit in which all that a form shows is a short number."""
    shown_values = (bounds.default, bounds.low, bounds.high, bounds.step, *bounds.choices)
    ours = (quantity.least, quantity.most)  # bounds that no administrator wrote
    numbers = [each for each in shown_values if isinstance(each, Fraction) and each not in ours]
    for unit in quantity.shown_in:
        if all((number / units[unit] * 4).denominator == 1 for number in numbers):
            break
    return {"unit": unit, "factor": as_json(units[unit])}
