"""
What one person may have of one profile: profile, policy and platform taken together.

The description of the options and the check of what was asked both start from here, so a form
never offers what the check refuses. A fixed field, or one left to the platform, obeys the same
policy as one that a person fills in. What a scheduler does not have is not offered; while it has
never answered, the profile's own bounds are all there is.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from perijove.domain.faults import Fault, RefusedOptions
from perijove.domain.images import FreeText, permits
from perijove.domain.market import Market
from perijove.domain.policy import Limit, Limits, Rule
from perijove.domain.profile import (
    ACCOUNT,
    DEFAULT_URLS,
    FEATURES,
    FIELDS,
    GPU,
    GPU_TYPE,
    IMAGE,
    PARTITION,
    QUANTITIES,
    RULES,
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
    """Of names, "" among them where the choice may be left to the platform."""
    is_open: bool = False
    """Any name will do besides the choices: the platform has not said yet which it has."""
    locked: bool = False
    is_offered: bool = True
    """False for what the profile does not mention."""
    is_ceiling: bool = False
    """The default is nobody's wish but a limit's own: less will do where less is possible."""
    capped_by: Limit | None = None
    """The policy that took something away."""
    is_short: bool = False
    """The platform took something away: it has no more."""
    fault: Fault | None = None
    """Why the profile cannot be had at all."""
    kind: str = ""
    """Of the spawner: whose words are used."""
    free: FreeText | None = None
    """What may be written besides the choices."""
    ruled_by: Limit | None = None
    """The policy that what is written must obey."""


def bounds_of(
    profile: Profile,
    limits: Limits,
    market: Market | None = None,
    *,
    fields: Iterable[str] = FIELDS,
) -> Mapping[str, Bounds]:
    """
    Return what a person may have of each field, mentioned by the profile or not.

    `market` is None for a spawner that cannot tell what it has.
    """
    places = _name_bounds(profile, PARTITION, limits, market)
    within = _within(places, market)

    def find(name: str) -> Bounds:
        if name in QUANTITIES:
            quantity = QUANTITIES[name]
            return _number_bounds(profile, quantity, _cap(limits, quantity, market, within))
        if name == FEATURES:
            return _several_bounds(profile, market, within)
        if name == UI:
            return _ui_bounds(profile)
        if name == IMAGE:
            return _image_bounds(profile, limits)
        return places if name == PARTITION else _name_bounds(profile, name, limits, market, within)

    kind = market.kind if market else ""
    return {name: replace(find(name), kind=kind) for name in fields}


def unavailable(
    profile: Profile, limits: Limits, market: Market | None = None
) -> RefusedOptions | None:
    """Return why a person cannot have a profile whatever they choose; None when they can."""
    bounds = bounds_of(profile, limits, market).values()
    faults = [each.fault for each in bounds if each.fault]
    return RefusedOptions(faults) if faults else None


def _within(places: Bounds, market: Market | None) -> Collection[str] | None:
    """Return the partitions that a request can go to; None when they are not known."""
    if market is None:
        return None
    found = {str(choice) for choice in (*places.choices, places.default) if choice}
    if not places.default and (taken := market.preferred(PARTITION)):
        found.add(taken)
    return found or None


# --- numbers ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Cap:
    """The most that policy and platform leave of a quantity."""

    most: Fraction | None
    policy: Limit | None
    """The policy, where it is the tighter one."""
    ruled: bool
    """Some policy sets a limit, whether or not it is the tighter one."""
    kind: str = ""

    @property
    def is_platform(self) -> bool:
        return self.most is not None and self.policy is None


def _cap(
    limits: Limits, quantity: Quantity, market: Market | None, within: Collection[str] | None
) -> _Cap:
    kind = market.kind if market else ""
    if quantity.rule is None:
        return _Cap(None, None, False, kind)
    limit = limits[quantity.rule]
    allowed = _whole(limit.value, quantity)
    there = _whole(market.most(quantity.name, within) if market else None, quantity)
    if there is not None and (allowed is None or there < allowed):
        return _Cap(there, None, allowed is not None, kind)
    return _Cap(allowed, None if allowed is None else limit, allowed is not None, kind)


def _number_bounds(profile: Profile, quantity: Quantity, cap: _Cap) -> Bounds:
    offered = profile.fields.get(quantity.name)
    if offered is None:
        return _left_open(profile, quantity, cap)
    if offered.locked:
        return _fixed(profile, quantity, offered, cap)
    return _open(profile, quantity, offered, cap)


def _left_open(profile: Profile, quantity: Quantity, cap: _Cap) -> Bounds:
    """What a profile is silent about: nothing of GPUs, else the platform's choice up to `cap`."""
    # A limit must hold although nothing was asked, so the limit itself is asked for.
    value = Fraction(0) if quantity is GPU else cap.most if cap.ruled else None
    return Bounds(
        name=quantity.name,
        profile=profile.name,
        default=value,
        low=value,
        high=value,
        locked=True,
        is_offered=False,
        is_ceiling=True,
        capped_by=cap.policy if value else None,
    )


def _fixed(profile: Profile, quantity: Quantity, offered: Field, cap: _Cap) -> Bounds:
    value, fault = _number(offered.default), None
    if value is None and offered.is_bounded:  # then it is what a form would begin with
        shown = _open(profile, quantity, offered, cap)
        value, fault = _number(shown.default), shown.fault
    if value is None:
        return _left_open(profile, quantity, cap)
    return Bounds(
        name=quantity.name,
        profile=profile.name,
        default=value,
        low=value,
        high=value,
        locked=True,
        fault=fault or _needs(profile, quantity, value, cap),
    )


def _open(profile: Profile, quantity: Quantity, offered: Field, cap: _Cap) -> Bounds:
    if offered.choices:
        return _chosen(profile, quantity, offered, cap)
    return _ranged(profile, quantity, offered, cap)


def _chosen(profile: Profile, quantity: Quantity, offered: Field, cap: _Cap) -> Bounds:
    listed = [choice for choice in offered.choices if isinstance(choice, Fraction)]
    choices = tuple(choice for choice in listed if cap.most is None or choice <= cap.most)
    default = _number(offered.default)
    if default is None:
        default = listed[0]
    if choices and default not in choices:
        default = max(choices)
    capped = len(choices) < len(listed)
    return Bounds(
        name=quantity.name,
        profile=profile.name,
        default=default,
        low=min(listed),
        high=max(choices, default=min(listed)),
        choices=choices,
        capped_by=cap.policy if capped else None,
        is_short=capped and cap.is_platform,
        fault=_needs(profile, quantity, min(listed), cap),
    )


def _ranged(profile: Profile, quantity: Quantity, offered: Field, cap: _Cap) -> Bounds:
    grid = offered.step or quantity.quantum
    low = -(-offered.low(quantity) // grid) * grid
    capped = cap.most is not None and cap.most < offered.high(quantity)
    high = offered.high(quantity) if cap.most is None else min(offered.high(quantity), cap.most)
    high = high // grid * grid
    default = _number(offered.default)
    if default is None and (offered.minimum is not None or quantity is GPU):
        default = low
    if default is None and cap.ruled:
        default = high
    return Bounds(
        name=quantity.name,
        profile=profile.name,
        default=None if default is None else min(default, high),
        low=low,
        high=high,
        step=offered.step,
        is_ceiling=offered.default is None and offered.minimum is None,
        capped_by=cap.policy if capped else None,
        is_short=capped and cap.is_platform,
        fault=_needs(profile, quantity, low, cap) if high < low else None,
    )


def _needs(profile: Profile, quantity: Quantity, value: Fraction, cap: _Cap) -> Fault | None:
    """Return why not even `value` can be had; None where it can."""
    if cap.most is None or value <= cap.most:
        return None
    of = Fault.of(
        profile=profile.name,
        field=quantity.name,
        code="platform-lacks" if cap.policy is None else "refused-profile",
        limit=cap.most if cap.policy is None else exact(cap.policy.value),
        asked=value,
        kind=cap.kind,
    )
    return of.by_platform() if cap.policy is None else of.by(cap.policy)


def _whole(value: object, quantity: Quantity) -> Fraction | None:
    return None if value is None else exact(value) // quantity.quantum * quantity.quantum


def _number(value: Value | None) -> Fraction | None:
    return value if isinstance(value, Fraction) else None


# --- names ------------------------------------------------------------------------------------


def _name_bounds(
    profile: Profile,
    name: str,
    limits: Limits,
    market: Market | None,
    within: Collection[str] | None = None,
) -> Bounds:
    offered = profile.fields.get(name)
    cap = limits[RULES[name]] if name in RULES and market is not None else None
    allowed = None if cap is None or cap.value is None else cap
    has = market.names(name, within=within) if market else None
    if offered is None or (offered.locked and not offered.default):
        found = _unsaid(profile, name, has, allowed, market)
        return found if offered is None else replace(found, is_offered=True)
    if offered.locked:
        return _settled(profile, name, str(offered.default), has, allowed, market)
    return _open_names(profile, offered, has, allowed, market)


def _unsaid(
    profile: Profile,
    name: str,
    has: Sequence[str] | None,
    allowed: Limit | None,
    market: Market | None,
) -> Bounds:
    """What nobody chooses: the scheduler's choice, unless a limit or its own rule forbids that."""
    taken = market.preferred(name) if market else ""
    needed = name == ACCOUNT and market is not None and market.must_name_account
    default, fault = "", None
    if allowed is not None:
        pool = _permitted(list(allowed.value) if has is None else has, allowed)
        default = taken if taken in pool else next(iter(pool), "")
        if not pool and name != GPU_TYPE:  # who asks for no GPU needs no type
            fault = _lacks(profile, name, taken, has, allowed, market)
    elif needed:
        default = taken or next(iter(has or ()), "")
    return Bounds(
        name=name,
        profile=profile.name,
        default=default or None,
        choices=(default,) if default else (),
        locked=True,
        is_offered=False,
        capped_by=allowed if default else None,
        fault=fault,
    )


def _settled(
    profile: Profile,
    name: str,
    value: str,
    has: Sequence[str] | None,
    allowed: Limit | None,
    market: Market | None,
) -> Bounds:
    """What the profile fixes: it can be had, or the profile cannot."""
    missing = has is not None and value not in has
    refused = allowed is not None and value not in allowed.value
    return Bounds(
        name=name,
        profile=profile.name,
        default=value,
        choices=(value,),
        locked=True,
        fault=_lacks(profile, name, value, has, allowed if refused else None, market)
        if missing or refused
        else None,
    )


def _open_names(
    profile: Profile,
    offered: Field,
    has: Sequence[str] | None,
    allowed: Limit | None,
    market: Market | None,
) -> Bounds:
    """What a person chooses: the profile's names, or all there are, as far as they are allowed."""
    name, default = offered.name, str(offered.default or "")
    taken = market.preferred(name) if market else ""
    listed = [str(choice) for choice in offered.choices]
    pool = [each for each in listed if each] or (_guessed(default, allowed) if has is None else has)
    there = [each for each in pool if has is None or each in has]
    names = _permitted(there, allowed)
    needed = name == ACCOUNT and market is not None and market.must_name_account and bool(names)
    free = ("" in listed or not listed) and not needed and allowed is None
    free = free or (name == GPU_TYPE and not names)  # who asks for no GPU needs no type
    if default not in names:
        default = "" if free else taken if taken in names else next(iter(names), "")
    asked = str(offered.default or "") or next(iter(pool), taken)
    return Bounds(
        name=name,
        profile=profile.name,
        default=default or None,
        choices=("", *names) if free else tuple(names),
        is_open=_is_open(offered, has, market) and allowed is None,
        capped_by=allowed if len(names) < len(there) else None,
        is_short=len(there) < len(pool),
        fault=None
        if names or free
        else _lacks(profile, name, asked, has, allowed if there else None, market),
    )


def _guessed(default: str, allowed: Limit | None) -> Sequence[str]:
    """Return the names to choose from while the platform has not said which it has."""
    if allowed is not None:
        return list(dict.fromkeys([*([default] if default else []), *allowed.value]))
    return [default] if default else []


def _is_open(offered: Field, has: Sequence[str] | None, market: Market | None) -> bool:
    """Tell whether nobody knows the names: what the platform has, it will say itself."""
    return has is None and market is not None and not offered.choices


def _permitted(names: Sequence[str], allowed: Limit | None) -> list[str]:
    return [each for each in names if allowed is None or each in allowed.value]


def _lacks(
    profile: Profile,
    name: str,
    asked: str,
    has: Sequence[str] | None,
    refused_by: Limit | None,
    market: Market | None,
) -> Fault:
    limit = tuple(has or ()) if refused_by is None else tuple(refused_by.value)
    fault = Fault.of(
        profile=profile.name,
        field=name,
        code="platform-lacks" if refused_by is None else "refused-profile",
        limit=limit,
        asked=asked,
        kind=market.kind if market else "",
    )
    return fault.by_platform() if refused_by is None else fault.by(refused_by)


def _several_bounds(
    profile: Profile, market: Market | None, within: Collection[str] | None
) -> Bounds:
    offered = profile.fields.get(FEATURES)
    if offered is None:
        return Bounds(
            name=FEATURES, profile=profile.name, default=None, locked=True, is_offered=False
        )
    default = offered.default if isinstance(offered.default, tuple) else ()
    has = market.names(FEATURES, within=within) if market else None
    if offered.locked:
        missing = has is not None and not set(default) <= set(has)
        return Bounds(
            name=FEATURES,
            profile=profile.name,
            default=default or None,
            choices=default,
            locked=True,
            fault=Fault.of(
                profile=profile.name,
                field=FEATURES,
                code="platform-lacks",
                limit=tuple(has or ()),
                asked=default,
            ).by_platform()
            if missing
            else None,
        )
    pool = [str(each) for each in offered.choices] or (default if has is None else has)
    there = tuple(each for each in pool if has is None or each in has)
    return Bounds(
        name=FEATURES,
        profile=profile.name,
        default=tuple(each for each in default if each in there) or None,
        choices=there,
        is_open=_is_open(offered, has, market),
        is_short=len(there) < len(pool),
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


# --- images -----------------------------------------------------------------------------------


def _image_bounds(profile: Profile, limits: Limits) -> Bounds:
    """Return which images a person may have; without any the spawner's own is taken."""
    offered = profile.fields.get(IMAGE)
    if offered is None:
        return Bounds(name=IMAGE, profile=profile.name, default=None, locked=True, is_offered=False)
    rule = limits[Rule.IMAGE]
    if offered.locked:
        return _fixed_image(profile, str(offered.default or ""), limits)
    listed = [str(each) for each in offered.choices] or list(profile.images)
    seen = [each for each in listed if _is_for(profile, each, limits)]
    names = tuple(each for each in seen if _permits(rule, profile, each))
    default = str(offered.default or "")
    is_free = offered.free is not None and default and default not in listed
    if default not in names and not (is_free and _permits(rule, profile, default)):
        default = next(iter(names), "")
    return Bounds(
        name=IMAGE,
        profile=profile.name,
        default=default or None,
        choices=names,
        free=offered.free,
        ruled_by=None if rule.value is None else rule,
        capped_by=rule if len(names) < len(seen) else None,
        fault=None if names or offered.free else _no_image(profile, listed, seen, limits),
    )


def _fixed_image(profile: Profile, name: str, limits: Limits) -> Bounds:
    fits = _is_for(profile, name, limits) and _permits(limits[Rule.IMAGE], profile, name)
    return Bounds(
        name=IMAGE,
        profile=profile.name,
        default=name or None,
        choices=(name,) if name else (),
        locked=True,
        fault=None if fits else _no_image(profile, [name], [name], limits),
    )


def _no_image(
    profile: Profile, listed: Sequence[str], seen: Sequence[str], limits: Limits
) -> Fault:
    """Return why a person may have none of the images of a profile."""
    name, rule = next(iter(seen or listed), ""), limits[Rule.IMAGE]
    theirs = seen and _is_for(profile, name, limits)
    fault = Fault.of(
        profile=profile.name,
        field=IMAGE,
        code="refused-profile" if theirs else "image-not-yours",
        limit=tuple(rule.value or ()) if theirs else _groups_of(profile, name),
        asked=name,
    )
    return fault.by(rule) if theirs else fault.by_groups(str(Rule.IMAGE))


def _groups_of(profile: Profile, name: str) -> tuple[str, ...]:
    return profile.images[name].groups if name in profile.images else ()


def _is_for(profile: Profile, name: str, limits: Limits) -> bool:
    image = profile.images.get(name)
    return image is None or image.is_for(limits.groups)


def _permits(rule: Limit, profile: Profile, name: str) -> bool:
    return not name or permits(rule.value, name, profile.reference_of(name))
