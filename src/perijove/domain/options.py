"""
Options: what may be asked of a profile, and what was (design decision 8).

`schema` says what may be asked, as JSON Schema; `apply` decides what was asked, and finds every
fault at once. Forms are read in `forms.py`, and end here like everything else.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Final

from perijove.domain.bounds import Bounds, bounds_of
from perijove.domain.faults import Fault, InvalidOptions, RefusedOptions, shown
from perijove.domain.launch import Resources
from perijove.domain.policy import Limits
from perijove.domain.profile import (
    DEFAULT_URLS,
    QUANTITIES,
    TITLES,
    UI,
    Profile,
    Quantity,
    Value,
    as_json,
    exact,
    rounded,
)
from perijove.kit.quantities import read_quantity

UI_LABELS: Final[Mapping[str, str]] = MappingProxyType(
    {"lab": "JupyterLab", "notebook": "Jupyter Notebook", "terminal": "Terminal"}
)
_MOST_UNKNOWN: Final = 20
_SNAP: Final = Fraction(1, 10**6)
"""How far, in quanta, a binary fraction may miss the number that people write in decimals."""


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


def apply(profile: Profile, limits: Limits, given: Mapping[str, object]) -> Choice:
    """
    Return what a launch gets when `given` is asked of a profile.

    Sizes and durations may be texts with a unit, ``"4 GiB"``; None is as if not given. Raises
    `InvalidOptions` where the profile has no such thing, and `RefusedOptions` where nothing but
    a policy stands in the way; either names every fault.
    """
    choice, faults = _check(profile, limits, given)
    if not faults:
        return choice
    if all(fault.rule for fault in faults):
        raise RefusedOptions(faults)
    raise InvalidOptions(sorted(faults, key=lambda fault: bool(fault.rule)))


def still_valid(
    profile: Profile, limits: Limits, remembered: Mapping[str, object]
) -> Mapping[str, object]:
    """
    Return what of an earlier choice can still be asked.

    Bounds change between two starts; what nobody asked for anew must not make the next fail.
    """
    known = {name: remembered[name] for name in (*QUANTITIES, UI) if name in remembered}
    _, faults = _check(profile, limits, known)
    wrong = {fault.field for fault in faults}
    return {name: value for name, value in known.items() if name not in wrong}


def _check(
    profile: Profile, limits: Limits, given: Mapping[str, object]
) -> tuple[Choice, list[Fault]]:
    bounds = bounds_of(profile, limits)
    faults: list[Fault] = []
    asked: dict[str, Any] = {}
    values: dict[str, Value] = {}
    for name, each in bounds.items():
        value, fault = each.default, each.fault
        if fault is None and given.get(name) is not None:
            value, fault = _read(each, given[name])
            if fault is None and value is not None:
                asked[name] = as_json(value)
        if fault is not None:
            faults.append(fault)
        elif value is not None:
            values[name] = value
    unknown = [name for name in given if name not in bounds]
    faults += [_unknown(profile.name, name) for name in unknown[:_MOST_UNKNOWN]]
    return _choice(asked, values), faults


def _choice(asked: Mapping[str, Any], values: Mapping[str, Value]) -> Choice:
    numbers = {name: each for name, each in values.items() if isinstance(each, Fraction)}
    wholes = {name: int(each) for name, each in numbers.items()}
    return Choice(
        asked=asked,
        options={name: as_json(value) for name, value in values.items()},
        resources=Resources(
            cpu=float(numbers["cpu"]) if "cpu" in numbers else None,
            memory_bytes=wholes.get("memory"),
            gpu=wholes.get("gpu"),
            time_seconds=wholes.get("time"),
        ),
        default_url=DEFAULT_URLS[str(values.get(UI, "lab"))],
    )


# --- reading one value ------------------------------------------------------------------------


def _read(bounds: Bounds, raw: object) -> tuple[Value | None, Fault | None]:
    """Return the value, or what is wrong with it."""
    quantity = QUANTITIES.get(bounds.name)
    if quantity is None:
        return _read_word(bounds, raw)
    value = _read_number(quantity, raw)
    if value is None:
        wanted = "a number with a unit" if quantity.units else "a number"
        return None, _fault(bounds, "option-type", wanted, shown(raw))
    value = _snap(value, quantity.quantum)
    return value, _judge(quantity, bounds, value)


def _read_word(bounds: Bounds, raw: object) -> tuple[Value | None, Fault | None]:
    if isinstance(raw, str) and raw in bounds.choices:
        return str(raw), None
    if bounds.locked:
        return None, _fault(bounds, "option-locked", str(bounds.default), shown(raw))
    return None, _fault(bounds, "option-choice", ", ".join(map(str, bounds.choices)), shown(raw))


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
        if bounds.capped_by:
            return _fault(bounds, "refused-option", bounds.high, value).by(bounds.capped_by)
        return _fault(bounds, "option-too-large", bounds.high, value)
    if bounds.choices and value not in bounds.choices:
        listed = ", ".join(quantity.write(exact(choice)) for choice in bounds.choices)
        return _fault(bounds, "option-choice", listed, quantity.write(value))
    return _fault(bounds, "option-step", grid, value) if value % grid else None


def _judge_locked(bounds: Bounds, value: Fraction) -> Fault | None:
    if bounds.default is None:
        return _unknown(bounds.profile, bounds.name)
    return (
        None if value == bounds.default else _fault(bounds, "option-locked", bounds.default, value)
    )


def _fault(bounds: Bounds, code: str, limit: Value, asked: Value) -> Fault:
    return Fault.of(profile=bounds.profile, field=bounds.name, code=code, limit=limit, asked=asked)


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


def schema(profile: Profile, limits: Limits) -> dict[str, Any]:
    """
    Return the JSON Schema (draft 2020-12) of what a person may ask of a profile.

    Titles are English; the pages translate them by field name. Besides the standard's words:
    ``unit``; ``x-labels``, a text for each of ``enum``; ``x-form``, the unit a form asks in and
    what one of it is; ``x-policy``, who made a bound tighter than the profile has it. A field
    that the profile leaves to the platform and no policy limits is not there.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            name: _property(bounds)
            for name, bounds in bounds_of(profile, limits).items()
            if bounds.is_offered or bounds.capped_by is not None
        },
        "additionalProperties": False,
    }


def _property(bounds: Bounds) -> dict[str, Any]:
    quantity = QUANTITIES.get(bounds.name)
    found = _word_property(bounds) if quantity is None else _number_property(bounds, quantity)
    if bounds.default is not None:
        found["default"] = as_json(bounds.default)
    if bounds.locked:
        found["readOnly"] = True
    if bounds.capped_by is not None:
        found["x-policy"] = bounds.capped_by.policy
    return found


def _word_property(bounds: Bounds) -> dict[str, Any]:
    return {
        "type": "string",
        "title": TITLES[bounds.name],
        "enum": list(bounds.choices),
        "x-labels": [UI_LABELS[str(choice)] for choice in bounds.choices],
    }


def _number_property(bounds: Bounds, quantity: Quantity) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "number" if quantity.quantum.denominator > 1 else "integer",
        "title": TITLES[bounds.name],
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
