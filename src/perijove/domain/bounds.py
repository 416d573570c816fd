"""
What one person may have of one profile: profile and policy taken together, field by field.

The description of the options and the check of what was asked both start from here, so a form
never offers what the check refuses. A fixed field, or one left to the platform, obeys the same
policy as one that a person fills in.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from perijove.domain.faults import Fault, RefusedOptions
from perijove.domain.policy import Limit, Limits
from perijove.domain.profile import (
    DEFAULT_URLS,
    GPU,
    QUANTITIES,
    UI,
    Field,
    Profile,
    Quantity,
    Value,
    exact,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What one person may have of one field."""

    name: str
    profile: str
    default: Value | None
    """None leaves it to the platform."""
    low: Fraction | None = None
    high: Fraction | None = None
    """Both are there for every number that can be chosen."""
    step: Fraction | None = None
    choices: tuple[Value, ...] = ()
    locked: bool = False
    is_offered: bool = True
    """False for what the profile does not mention."""
    capped_by: Limit | None = None
    """The policy that took something away."""
    fault: Fault | None = None
    """Why the profile cannot be had at all."""


def bounds_of(profile: Profile, limits: Limits) -> Mapping[str, Bounds]:
    """Return what a person may have of each field, mentioned by the profile or not."""
    numbers = {
        name: _number_bounds(profile, quantity, limits[quantity.rule])
        for name, quantity in QUANTITIES.items()
    }
    return {**numbers, UI: _ui_bounds(profile)}


def unavailable(profile: Profile, limits: Limits) -> RefusedOptions | None:
    """Return why a person cannot have a profile whatever they choose; None when they can."""
    faults = [bounds.fault for bounds in bounds_of(profile, limits).values() if bounds.fault]
    return RefusedOptions(faults) if faults else None


def _number_bounds(profile: Profile, quantity: Quantity, cap: Limit) -> Bounds:
    offered = profile.fields.get(quantity.name)
    if offered is None:
        return _left_open(profile, quantity, cap)
    if offered.locked:
        return _fixed(profile, quantity, offered, cap)
    if offered.choices:
        return _chosen(profile, quantity, offered, cap)
    return _ranged(profile, quantity, offered, cap)


def _left_open(profile: Profile, quantity: Quantity, cap: Limit) -> Bounds:
    """What a profile is silent about: nothing of GPUs, else the platform's choice up to `cap`."""
    # A limit must hold although nothing was asked, so the limit itself is asked for.
    value = Fraction(0) if quantity is GPU else _most(cap, quantity)
    return Bounds(
        name=quantity.name,
        profile=profile.name,
        default=value,
        low=value,
        high=value,
        locked=True,
        is_offered=False,
        capped_by=cap if value else None,
    )


def _fixed(profile: Profile, quantity: Quantity, offered: Field, cap: Limit) -> Bounds:
    value = _number(offered.default)
    if value is None:
        return _left_open(profile, quantity, cap)
    most = _most(cap, quantity)
    return Bounds(
        name=quantity.name,
        profile=profile.name,
        default=value,
        low=value,
        high=value,
        locked=True,
        fault=_needs(profile, quantity, value, cap) if most is not None and value > most else None,
    )


def _chosen(profile: Profile, quantity: Quantity, offered: Field, cap: Limit) -> Bounds:
    most = _most(cap, quantity)
    listed = [choice for choice in offered.choices if isinstance(choice, Fraction)]
    choices = tuple(choice for choice in listed if most is None or choice <= most)
    default = _number(offered.default)
    if default is None:
        default = listed[0]
    if choices and default not in choices:
        default = max(choices)
    return Bounds(
        name=quantity.name,
        profile=profile.name,
        default=default,
        low=min(listed),
        high=max(choices, default=min(listed)),
        choices=choices,
        capped_by=cap if len(choices) < len(listed) else None,
        fault=None if choices else _needs(profile, quantity, min(listed), cap),
    )


def _ranged(profile: Profile, quantity: Quantity, offered: Field, cap: Limit) -> Bounds:
    grid = offered.step or quantity.quantum
    low = -(-offered.low(quantity) // grid) * grid
    most = _most(cap, quantity)
    capped = most is not None and most < offered.high(quantity)
    high = min(offered.high(quantity), most) if most is not None else offered.high(quantity)
    high = high // grid * grid
    default = _number(offered.default)
    if default is None and (offered.minimum is not None or quantity is GPU):
        default = low
    if default is None and most is not None:
        default = high
    return Bounds(
        name=quantity.name,
        profile=profile.name,
        default=None if default is None else min(default, high),
        low=low,
        high=high,
        step=offered.step,
        capped_by=cap if capped else None,
        fault=_needs(profile, quantity, low, cap) if high < low else None,
    )


def _ui_bounds(profile: Profile) -> Bounds:
    offered = profile.fields.get(UI) or Field(name=UI, locked=True)
    choices = offered.choices or tuple(DEFAULT_URLS)
    default = offered.default or choices[0]
    return Bounds(
        name=UI,
        profile=profile.name,
        default=default,
        choices=(default,) if offered.locked else choices,
        locked=offered.locked,
        is_offered=UI in profile.fields,
    )


def _needs(profile: Profile, quantity: Quantity, value: Fraction, cap: Limit) -> Fault:
    return Fault.of(
        profile=profile.name,
        field=quantity.name,
        code="refused-profile",
        limit=exact(cap.value),
        asked=value,
    ).by(cap)


def _most(limit: Limit, quantity: Quantity) -> Fraction | None:
    if limit.value is None:
        return None
    return exact(limit.value) // quantity.quantum * quantity.quantum


def _number(value: Value | None) -> Fraction | None:
    return value if isinstance(value, Fraction) else None
