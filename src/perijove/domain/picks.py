"""
What was chosen of a profile's menus, and what that makes of the profile.

A choice is offered where policy and platform leave all that it sets, so the later of two that
set the same thing is possible whatever the earlier one was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from perijove.domain import bounds
from perijove.domain.faults import Fault, RefusedOptions, listed, shown
from perijove.domain.market import Market
from perijove.domain.menus import VALUE, Entry, Menu, Setting
from perijove.domain.policy import Limits
from perijove.domain.profile import FIELDS, QUANTITIES, Profile, as_json, rounded
from perijove.kit.quantities import read_quantity


@dataclass(frozen=True, slots=True, kw_only=True)
class Picks:
    """What was chosen, and the profile as that leaves it: without menus."""

    profile: Profile
    asked: Mapping[str, str]
    """By menu, what was given."""
    values: Mapping[str, str]
    """By menu, given or not."""
    faults: Sequence[Fault]
    _setters: Mapping[str, tuple[Menu, str]]
    """By field, the menu that set it and what the choice is called."""

    def blame(self, fault: Fault) -> Fault:
        """Return a fault as one of the choice that set the field, unless that was asked for too."""
        setter = self._setters.get(fault.field)
        asked = fault.code.startswith("option-")
        return fault if setter is None or asked else fault.from_menu(*setter)


def pick(
    profile: Profile,
    limits: Limits,
    given: Mapping[str, object],
    market: Market | None = None,
) -> Picks:
    """Return what the menus of a profile become when `given` is asked; finds every fault."""
    settled = replace(profile, menus=())
    asked: dict[str, str] = {}
    values: dict[str, str] = {}
    faults: list[Fault] = []
    setters: dict[str, tuple[Menu, str]] = {}
    for menu in profile.menus:
        raw = given.get(menu.name)
        if raw is None:
            raw = default_among(menu, possible(profile, menu, limits, market))
        else:
            asked[menu.name] = str(raw)
        setting, fault = _setting(profile, menu, raw)
        if setting is not None:
            try:
                settled = replace(settled.with_setting(setting), menus=())
            except ValueError:
                fault = _not_written(profile, menu, raw)
        if fault is not None:
            faults.append(fault)
            asked.pop(menu.name, None)
            continue
        values[menu.name] = str(raw)
        setters |= dict.fromkeys(setting.fields if setting else (), (menu, _title(menu, raw)))
    return Picks(profile=settled, asked=asked, values=values, faults=faults, _setters=setters)


def possible(
    profile: Profile, menu: Menu, limits: Limits, market: Market | None = None
) -> tuple[Entry, ...]:
    """Return the entries of a menu that a person may choose."""
    return tuple(each for each in menu.entries if not _faults(profile, menu, each, limits, market))


def default_among(menu: Menu, entries: Sequence[Entry]) -> str:
    """Return the entry that is meant when nothing is said; of those that are possible, if any."""
    keys = [entry.key for entry in entries]
    wanted = menu.default or menu.entries[0].key
    return wanted if wanted in keys else next(iter(keys), wanted)


def unavailable(
    profile: Profile, limits: Limits, market: Market | None = None
) -> RefusedOptions | None:
    """Return why a person cannot have a profile whatever they choose; None when they can."""
    for menu in profile.menus:
        if menu.other is None and not possible(profile, menu, limits, market):
            return RefusedOptions(_faults(profile, menu, menu.entries[0], limits, market))
    picks = pick(profile, limits, {}, market)
    refusal = bounds.unavailable(picks.profile, limits, market)
    if refusal is None:
        return None
    of_menus = {name for menu in profile.menus if menu.other is not None for name in menu.fields}
    faults = [fault for fault in refusal.faults if fault.field not in of_menus]
    return RefusedOptions(faults) if faults else None


def _setting(profile: Profile, menu: Menu, raw: object) -> tuple[Setting | None, Fault | None]:
    """Return what a choice sets, or what is wrong with it."""
    entry = menu.find(raw) if isinstance(raw, str) else None
    if entry is not None:
        return entry.sets, None
    if menu.other is None or not isinstance(raw, str):
        keys = listed([each.key for each in menu.entries])
        return None, Fault.of_menu(
            menu, profile=profile.name, code="option-choice", limit=keys, asked=shown(raw)
        )
    if not menu.other.rule.accepts(raw):
        return None, _not_written(profile, menu, raw)
    try:
        return _filled(menu.other.sets, raw), None
    except ValueError:
        return None, _not_written(profile, menu, raw)


def _not_written(profile: Profile, menu: Menu, raw: object) -> Fault:
    rule = menu.other.rule if menu.other else None
    return Fault.of_menu(
        menu,
        profile=profile.name,
        code="option-text",
        limit=rule.pattern if rule else "",
        asked=shown(raw),
        said=rule.message if rule else None,
    )


def _filled(setting: Setting, text: str) -> Setting:
    """Return what a free choice sets, with numbers read where a number is set."""
    numbers = {
        name: _number(name, value.replace(VALUE, text))
        for name, value in setting.fields.items()
        if name in QUANTITIES and isinstance(value, str)
    }
    filled = setting.filled(text)
    return replace(filled, fields={**filled.fields, **numbers})


def _number(name: str, text: str) -> Any:
    quantity = QUANTITIES[name]
    if quantity.units is None:
        value = read_quantity(text, {"": Fraction(1)}, bare="")
    else:
        value = read_quantity(text, quantity.units, bare=None)
    return as_json(rounded(value, quantity.quantum))


def _faults(
    profile: Profile, menu: Menu, entry: Entry, limits: Limits, market: Market | None
) -> list[Fault]:
    """Return why an entry cannot be had: what it sets, or leaves to the profile, is too much."""
    settled = profile.with_setting(entry.sets)
    fields = [name for name in FIELDS if name in menu.fields]
    return [
        each.fault.from_menu(menu, entry.title.get("en", entry.key))
        for each in bounds.bounds_of(settled, limits, market, fields=fields).values()
        if each.fault is not None
    ]


def _title(menu: Menu, raw: object) -> str:
    entry = menu.find(str(raw))
    return entry.title.get("en", entry.key) if entry else shown(raw)
