"""
Options as the texts of a form: the one place that reads and writes them.

A form asks in the unit its schema names (hours, GiB); everything else is JSON.
"""

import re
import unicodedata
from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Final

from perijove.domain.options import Unreadable
from perijove.domain.profile import (
    FEATURES,
    GPU,
    GPU_TYPE,
    MEMORY,
    QUANTITIES,
    Quantity,
    as_json,
    exact,
    rounded,
)
from perijove.kit.quantities import read_quantity, write_number

OTHER: Final = "--other"
"""Chosen of a list: what the field beside it says, called like the list with this behind it."""
_COMMA_LANGUAGES: Final = frozenset({"fr", "es", "pt"})
_LONGEST: Final = 60
_UNIT: Final = re.compile("[A-Za-z]*$")
_FRENCH: Final[Mapping[str, str]] = MappingProxyType(
    {"o": "B", "ko": "KB", "mo": "MB", "go": "GB", "to": "TB", "j": "d"}
    | {"kio": "KiB", "mio": "MiB", "gio": "GiB", "tio": "TiB"}
)
"""Octets and days."""


def parse_form(
    described: Mapping[str, Any], form: Mapping[str, str], language: str = "en"
) -> dict[str, object]:
    """
    Return the options of a form's texts, ready for `apply`, which also finds what is wrong.

    `described` is the `schema` the form was made from. A number without a unit is in the
    form's unit. A comma is a decimal point in French, Spanish and Portuguese; thousands are
    never grouped. An empty text is as if not given, but for names that may be left to a
    scheduler. Several features are one text with commas; ``a100:2`` is a type of GPU and how
    many.
    """
    options: dict[str, object] = {}
    for name, raw in _split_gpus(_with_others(form)).items():
        text, each = raw.strip(), described["properties"].get(name, {})
        if name == FEATURES and (text or each):
            options[name] = [word.strip() for word in text.split(",") if word.strip()]
        elif text or "" in each.get("enum", ()):
            options[name] = _parse_text(each, name, text, language)
    return options


def write_form(
    described: Mapping[str, Any], options: Mapping[str, Any], language: str = "en"
) -> dict[str, str]:
    """Return the text of every field: the option's value, or the default where none is given."""
    texts = {}
    for name, each in described["properties"].items():
        text = _write_text(each, name, options.get(name, each.get("default", "")))
        is_comma = language in _COMMA_LANGUAGES and name in QUANTITIES
        texts[name] = text.replace(".", ",") if is_comma else text
    return texts


def _with_others(form: Mapping[str, str]) -> Mapping[str, str]:
    """Return the texts with what was written in place of the choice to write something."""
    others = {name.removesuffix(OTHER): text for name, text in form.items() if name.endswith(OTHER)}
    plain = {name: text for name, text in form.items() if not name.endswith(OTHER)}
    chosen = {name: others.get(name, "") for name, text in plain.items() if text == OTHER}
    return {**{name: others[name] for name in others if name not in plain}, **plain, **chosen}


def _split_gpus(form: Mapping[str, str]) -> Mapping[str, str]:
    kind, colon, count = form.get(GPU.name, "").rpartition(":")
    return {**form, GPU_TYPE: kind, GPU.name: count} if colon else form


def _parse_text(described: Mapping[str, Any], name: str, text: str, language: str) -> object:
    quantity = QUANTITIES.get(name)
    if quantity is None or described.get("type") == "string":
        return text
    if len(text) > _LONGEST:
        return Unreadable(text)
    plain = unicodedata.normalize("NFKC", text)
    if language in _COMMA_LANGUAGES and "." not in plain:
        plain = plain.replace(",", ".")
    try:
        value = _read(quantity, plain, described.get("x-form", {}).get("unit"))
    except ValueError:
        return Unreadable(text)
    return as_json(rounded(value, quantity.quantum))


def _read(quantity: Quantity, text: str, form_unit: str | None) -> Fraction:
    if quantity.units is None:
        return read_quantity(text, {quantity.unit: Fraction(1)}, bare=quantity.unit)
    text = _UNIT.sub(lambda unit: _FRENCH.get(unit[0].lower(), unit[0]), text)
    return read_quantity(text, quantity.units, bare=form_unit)


def _write_text(described: Mapping[str, Any], name: str, value: Any) -> str:
    quantity = QUANTITIES.get(name)
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    if quantity is None or not isinstance(value, (int, float)):
        return str(value)
    if quantity.units is None:
        return write_number(exact(value))
    count = exact(value) / exact(described["x-form"]["factor"])
    if (count * 1000).denominator == 1:
        return write_number(count)
    return f"{write_number(exact(value))} {'B' if quantity is MEMORY else 's'}"
