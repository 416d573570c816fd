"""
Options of a profile as flags of a command: ``--cpu 2 --memory "4 GiB"``.

The flags are the properties of the JSON Schema that the hub gives, so a new field of a profile
is a flag at once. Values are checked here, so that a mistake is said before anything is asked
for; what only the hub can know (limits of a group, what fits together) it says itself.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from perijove.client.errors import BadValue
from perijove.client.models import Form, Profile
from perijove.kit.quantities import (
    DURATION_UNITS,
    SIZE_UNITS,
    read_quantity,
    write_duration,
    write_number,
    write_size,
)

_UNITS: Final = {"bytes": SIZE_UNITS, "seconds": DURATION_UNITS}
_CLOCK: Final = re.compile(r"(?:(\d{1,4})-)?(\d{1,4}):([0-5]\d):([0-5]\d)", re.ASCII)
"""Time as batch schedulers write it: ``[days-]hours:minutes:seconds``."""
_BOOLEANS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_SHOWN_CHOICES: Final = 12


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag, for a list of what there is."""

    name: str
    title: str
    allowed: str
    default: str


def split(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return plain words and flags with their values; raises `BadValue` for half a flag."""
    words: list[str] = []
    flags: dict[str, str] = {}
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("-") or argument == "-":
            words.append(argument)
            continue
        name, equals, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or not name:
            raise BadValue(f"there is no flag {argument}", hint="Flags begin with two hyphens.")
        if not equals:
            following = next(rest, None)
            if following is None or following.startswith("--"):
                raise BadValue(f"--{name} needs a value, such as --{name} …", field=name)
            value = following
        if name in flags:
            raise BadValue(f"--{name} is given twice", field=name)
        flags[name] = value
    return words, flags


def choose(form: Form, wanted: str | None) -> Profile:
    """Return the profile that is meant: the one named, else the last one chosen."""
    by_name = {profile.name: profile for profile in form.profiles}
    if not by_name:
        raise BadValue("no profile is offered to you", hint="Ask your administrator.")
    name = wanted or form.chosen.profile or next(iter(by_name))
    if name not in by_name:
        raise BadValue(
            f"there is no profile {name!r}",
            hint=f"There is {_listed(list(by_name))}.{_nearest(name, by_name)}",
            field="profile",
        )
    profile = by_name[name]
    if profile.refused:
        raise BadValue(
            str(profile.refused.get("message") or f"you may not start {name}"), field="profile"
        )
    return profile


def read(profile: Profile, flags: Mapping[str, str]) -> dict[str, Any]:
    """Return the options that flags say; raises `BadValue` naming the bound that is broken."""
    fields = properties(profile)
    options = {}
    for flag, text in flags.items():
        name = next((each for each in fields if _same(each, flag)), None)
        if name is None:
            raise BadValue(
                f"profile {profile.name} has no option --{flag}",
                hint=f"It has {_listed([flag_of(each) for each in fields])}."
                + _nearest(flag, [_dashed(each) for each in fields], "--"),
                field=flag,
            )
        options[name] = _value(profile, name, fields[name], text.strip())
    return options


def describe(profile: Profile) -> list[Flag]:
    """Return the flags of a profile that leave a choice, with bounds and defaults in words."""
    return [
        Flag(flag_of(name), str(field.get("title", "")), allowed, _default(field))
        for name, field in properties(profile).items()
        if (allowed := _allowed(field))
    ]


def properties(profile: Profile) -> Mapping[str, Mapping[str, Any]]:
    """Return the fields of a profile's schema."""
    found = profile.schema.get("properties", {})
    return found if isinstance(found, dict) else {}


def flag_of(name: str) -> str:
    """Return the flag for a property."""
    return f"--{_dashed(name)}"


def _value(profile: Profile, name: str, field: Mapping[str, Any], text: str) -> Any:
    hint = f"In profile {profile.name}: {_allowed(field) or 'nothing to choose'}."
    try:
        value = _parse(field, text)
    except ValueError as error:
        raise BadValue(f"{flag_of(name)}: {error}", hint=hint, field=name) from None
    if fault := _fault(field, value):
        raise BadValue(f"{flag_of(name)} {text}: {fault}", hint=hint, field=name)
    return value


def _parse(field: Mapping[str, Any], text: str) -> Any:
    kind = field.get("type")
    if kind == "array":
        parts = [part.strip() for part in text.split(",")]
        return [_parse(field["items"], part) for part in parts if part]
    if kind not in ("integer", "number") and "enum" in field:
        return next((each for each in field["enum"] if str(each) == text), text)
    if kind == "boolean":
        if text.lower() not in _BOOLEANS:
            raise ValueError(f"{text[:40]!r} is neither true nor false")
        return _BOOLEANS[text.lower()]
    if kind in ("integer", "number"):
        number = _number(field, text)
        return int(number) if number.denominator == 1 else float(number)
    return text


def _number(field: Mapping[str, Any], text: str) -> Fraction:
    units = _UNITS.get(field.get("unit", ""))
    if units is None:
        try:
            return read_quantity(text, {"": Fraction(1)}, bare="")
        except ValueError:
            raise ValueError(f"{text[:40]!r} is not a number") from None
    if units is DURATION_UNITS and (clock := _CLOCK.fullmatch(text)):
        days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        return Fraction(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
    # As in the form: a number without a unit is in the form's own.
    bare = field.get("x-form", {}).get("unit")
    return read_quantity(text, units, bare=bare if bare in units else None)


def _fault(field: Mapping[str, Any], value: Any) -> str:
    """Say what of the schema a value breaks; nothing where it breaks nothing."""
    if field.get("readOnly") and value != field.get("default"):
        return "this is fixed"
    if isinstance(value, list):
        return next((fault for each in value if (fault := _fault(field["items"], each))), "")
    if "anyOf" in field:
        fits = any(not _fault(each, value) for each in field["anyOf"])
        return "" if fits else _said(field.get("x-other", {}).get("message"), "not as it must be")
    if "enum" in field and value not in field["enum"]:
        return "this is not one of the choices"
    if isinstance(value, str):
        return _text_fault(field, value)
    return "" if isinstance(value, bool) else _number_fault(field, value)


def _number_fault(field: Mapping[str, Any], value: float) -> str:
    step = field.get("multipleOf")
    if value < field.get("minimum", value):
        return f"at least {_written(field, field['minimum'])}"
    if value > field.get("maximum", value):
        return f"at most {_written(field, field['maximum'])}"
    if step and Fraction(str(value)) % Fraction(str(step)):
        return f"only multiples of {_written(field, step)}"
    if field.get("type") == "integer" and not isinstance(value, int):
        return "whole numbers only"
    return ""


def _text_fault(field: Mapping[str, Any], value: str) -> str:
    if len(value) > field.get("maxLength", len(value)):
        return f"at most {field['maxLength']} characters"
    if "pattern" in field and not _matches(str(field["pattern"]), value):
        return "not written as it must be"
    return ""


def _matches(pattern: str, value: str) -> bool:
    try:
        return re.search(pattern, value) is not None
    except re.error:  # the hub's regular expressions are another language's: let the hub judge
        return True


def _allowed(field: Mapping[str, Any]) -> str:
    if field.get("readOnly"):
        return f"only {_default(field)}"
    if "items" in field:
        each = _allowed(field["items"])
        return f"any of {each}" if each else ""
    if "anyOf" in field:
        other = _said(field.get("x-other", {}).get("title"), "a text of your own")
        known = _choices(field, field.get("examples", ()))
        return f"{known}, or {other}" if known else other
    if "enum" in field:
        return _choices(field, field["enum"])
    low, high = field.get("minimum"), field.get("maximum")
    bounds = [
        "" if low is None else f"from {_written(field, low)}",
        "" if high is None else f"up to {_written(field, high)}",
    ]
    return " ".join(part for part in bounds if part) or "any"


def _choices(field: Mapping[str, Any], values: Sequence[Any]) -> str:
    """Return them in words; the empty one, which leaves it to the platform, has none."""
    choices = [words for each in values if (words := _written(field, each))]
    more = "…" if len(choices) > _SHOWN_CHOICES else ""
    return " | ".join(choices[:_SHOWN_CHOICES]) + more


def _said(by_language: object, otherwise: str) -> str:
    """Return what the site says in English, if it does."""
    said = by_language.get("en") if isinstance(by_language, Mapping) else None
    return str(said or otherwise)


def _default(field: Mapping[str, Any]) -> str:
    return "" if field.get("default") is None else _written(field, field["default"])


def _written(field: Mapping[str, Any], value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_written(field, each) for each in value)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return str(value)
    exact = Fraction(str(value))
    match field.get("unit"):
        case "bytes":
            return write_size(exact)
        case "seconds":
            return write_duration(exact)
    return write_number(exact)


def _same(name: str, flag: str) -> bool:
    return _dashed(name) == _dashed(flag)


def _dashed(name: str) -> str:
    return name.replace("_", "-").lower()


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _nearest(name: str, known: Mapping[str, Any] | Sequence[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {prefix}{close[0]}?" if close else ""
