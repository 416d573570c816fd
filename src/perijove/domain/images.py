"""Container images that a site offers by name, and texts that people may write instead."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final

from perijove.domain.policy import EVERYONE

NAME_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
LONGEST_TEXT: Final = 500
_NAME: Final = re.compile(NAME_PATTERN)
_PART: Final = r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*"
_REFERENCE: Final = re.compile(
    r"(?:[A-Za-z0-9][A-Za-z0-9.-]{0,252}(?::[0-9]{1,5})?/)?"
    rf"{_PART}(?:/{_PART})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?"
    r"(?:@[a-z0-9]+:[0-9a-f]{32,128})?"
)


def is_image_name(text: str) -> bool:
    """Tell whether a text can be the name of an image in the catalogue."""
    return _NAME.fullmatch(text) is not None


def is_reference(text: str) -> bool:
    """
    Tell whether a text can be given to a platform as the reference of an image.

    It has a registry, a path, a tag or a digest, so that a misspelt name is none.
    """
    return (
        len(text) <= LONGEST_TEXT
        and any(mark in text for mark in "/:@")
        and _REFERENCE.fullmatch(text) is not None
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image of the site's catalogue."""

    name: str
    reference: str
    """What the platform pulls."""
    title: Mapping[str, str] = field(default_factory=dict)
    """By language."""
    description: Mapping[str, str] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    """What is in it, in words for people."""
    groups: tuple[str, ...] = (EVERYONE,)
    """Who may use it."""

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> "Image":
        """Return the image of a stored profile."""
        return cls(
            name=body["name"],
            reference=body["image"],
            title=body.get("title") or {"en": body["name"]},
            description=body.get("description", {}),
            packages=tuple(body.get("packages", ())),
            groups=tuple(body.get("groups", (EVERYONE,))),
        )

    def is_for(self, groups: frozenset[str]) -> bool:
        """Tell whether a member of `groups` may use it."""
        return EVERYONE in self.groups or not groups.isdisjoint(self.groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeText:
    """What people may write themselves: the whole text must match."""

    pattern: str
    title: Mapping[str, str] = field(default_factory=dict)
    """What is asked for, by language."""
    message: Mapping[str, str] = field(default_factory=dict)
    """What is said of a text that does not match, by language."""

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> "FreeText":
        """Return the rule of a stored profile."""
        return cls(
            pattern=body["pattern"], title=body.get("title", {}), message=body.get("message", {})
        )

    def accepts(self, text: str) -> bool:
        """Tell whether a text may be used: one short line that matches from end to end."""
        return (
            0 < len(text) <= LONGEST_TEXT
            and text.isprintable()
            and re.fullmatch(self.pattern, text) is not None
        )


def permits(patterns: Sequence[str] | None, *names: str) -> bool:
    """Tell whether a policy's patterns allow an image under any of its names; None allows all."""
    return patterns is None or any(fnmatchcase(name, each) for name in names for each in patterns)
