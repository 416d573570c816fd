"""Writing imported profiles as the TOML that people would write."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

_TABLES: Final = frozenset({"fields", "choices", "platform", "environment", "storage"})
"""Keys of a profile that get a section of their own."""
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_NAMED: Final = frozenset({"fields", "choices", "options"})
"""Sections that hold further ones by name."""


def write(images: Mapping[str, Mapping[str, Any]], profiles: list[dict[str, Any]]) -> str:
    """Return the sections of a configuration file."""
    lines: list[str] = []
    for name, image in images.items():
        lines += [f"[images.{_key(name)}]", *_pairs(image), ""]
    for profile in profiles:
        plain = {key: value for key, value in profile.items() if key not in _TABLES}
        lines += ["[[profiles]]", *_pairs(plain), ""]
        for key in profile:
            if key in _TABLES and profile[key]:
                lines += _table(f"profiles.{key}", profile[key], named=key in _NAMED)
    return "\n".join(lines).rstrip() + "\n" if lines else ""


def _table(path: str, table: Mapping[str, Any], *, named: bool) -> Iterator[str]:
    if named:
        for name, inner in table.items():
            yield from _table(f"{path}.{_key(name)}", inner, named=False)
        return
    inner = {key: value for key, value in table.items() if key in ("options", "other")}
    own = {key: value for key, value in table.items() if key not in inner}
    if own or not inner:
        yield from (f"[{path}]", *_pairs(own), "")
    if "options" in inner:
        yield from _table(f"{path}.options", inner["options"], named=True)
    if "other" in inner:
        yield from _table(f"{path}.other", inner["other"], named=False)


def _pairs(table: Mapping[str, Any]) -> list[str]:
    return [f"{_key(key)} = {_value(value)}" for key, value in table.items()]


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _text(key)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        pairs = ", ".join(_pairs(value))
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str):
        return _literal(value)
    return json.dumps(value)


def _literal(text: str) -> str:
    """Write a text; one with backslashes between single quotes, where they mean themselves."""
    if "\\" in text and "'" not in text and text.isprintable():
        return f"'{text}'"
    return _text(text)


def _text(text: str) -> str:
    # JSON's escapes are TOML's, but for DEL, which TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")
