"""
Menus: things of a profile that are chosen by name, and what each choice sets.

A profile's own values come first, then the choices in the order of their menus; where two set
the same thing, the later one counts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from perijove.domain.images import FreeText

VALUE: Final = "{value}"
"""Stands for what a person wrote, in what a free choice sets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a choice sets."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    """Values by field name, as stored; of a free choice `VALUE` may stand for one."""
    environment: Mapping[str, str] = field(default_factory=dict)
    platform: Mapping[str, Any] = field(default_factory=dict)
    """Laid over what the profile says to its platform."""

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> "Setting":
        """Return the setting of a stored profile."""
        return cls(
            fields=body.get("fields", {}),
            environment=body.get("environment", {}),
            platform=body.get("platform", {}),
        )

    def filled(self, text: str) -> "Setting":
        """Return the setting with what a person wrote in it."""
        return Setting(
            fields=_filled(self.fields, text),
            environment=_filled(self.environment, text),
            platform=_filled(self.platform, text),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One choice of a menu."""

    key: str
    title: Mapping[str, str]
    """By language."""
    description: Mapping[str, str] = field(default_factory=dict)
    sets: Setting = Setting()


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """The choice of a menu that a person writes."""

    rule: FreeText
    sets: Setting = Setting()


@dataclass(frozen=True, slots=True, kw_only=True)
class Menu:
    """One thing to choose by name; the first entry is meant unless another is the default."""

    name: str
    title: Mapping[str, str]
    """By language."""
    entries: tuple[Entry, ...]
    default: str = ""
    """The key of an entry; empty: the first."""
    other: Other | None = None

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> "Menu":
        """Return the menu of a stored profile; raises `ValueError` for one with nothing on it."""
        name = body["name"]
        entries = tuple(
            Entry(
                key=each["key"],
                title=each.get("title") or {"en": each["key"]},
                description=each.get("description", {}),
                sets=Setting.from_body(each.get("set", {})),
            )
            for each in body["entries"]
        )
        if not entries:
            raise ValueError(f"choices.{name}: there must be one option at least")
        other = body.get("other")
        return cls(
            name=name,
            title=body.get("title") or {"en": name},
            entries=entries,
            default=body.get("default", ""),
            other=Other(
                rule=FreeText.from_body(other), sets=Setting.from_body(other.get("set", {}))
            )
            if other
            else None,
        )

    def find(self, key: str) -> Entry | None:
        """Return the entry of a key."""
        return next((entry for entry in self.entries if entry.key == key), None)

    def settings(self) -> Iterator[Setting]:
        """Yield what each of its choices sets."""
        yield from (entry.sets for entry in self.entries)
        if self.other is not None:
            yield self.other.sets

    @property
    def fields(self) -> frozenset[str]:
        """The fields that some choice of it sets."""
        return frozenset(name for setting in self.settings() for name in setting.fields)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return `above` laid over `below`: tables are merged, of all else the upper one counts."""
    found = dict(below)
    for key, value in above.items():
        under = found.get(key)
        if isinstance(value, Mapping) and isinstance(under, Mapping):
            found[key] = merged(under, value)
        else:
            found[key] = value
    return found


def _filled(value: Any, text: str) -> Any:
    if isinstance(value, str):
        return value.replace(VALUE, text)
    if isinstance(value, Mapping):
        return {key: _filled(each, text) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_filled(each, text) for each in value]
    return value
