"""What an import makes, and what of the original it could not make."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from unicodedata import combining, normalize

from perijove.domain.images import is_image_name, is_reference

_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9]+")


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting that did not go over as it was."""

    where: str
    """Path of the setting in the original."""
    why: str
    advice: str

    def __str__(self) -> str:
        return f"{self.where}: {self.why}. {self.advice}"


@dataclass(slots=True)
class Import:
    """What was made so far."""

    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Sections ``[images.NAME]``."""
    profiles: list[dict[str, Any]] = field(default_factory=list)
    """Sections ``[[profiles]]``."""
    differences: list[Difference] = field(default_factory=list)

    def differs(self, where: str, why: str, advice: str) -> None:
        """Note a setting that did not go over as it was."""
        self.differences.append(Difference(where, why, advice))

    def free_name(self, wanted: str) -> str:
        """Return a name that no profile has yet."""
        taken = {profile["name"] for profile in self.profiles}
        name, count = wanted, 1
        while name in taken:
            count += 1
            name = f"{wanted[:56]}-{count}"
        return name

    def add_image(self, reference: str, wanted: str, title: str = "") -> str | None:
        """Put an image into the catalogue; returns its name there, None for what is no image."""
        full = reference if any(mark in reference for mark in "/:@") else f"{reference}:latest"
        if not is_reference(full):
            return None
        for name, image in self.images.items():
            if image["image"] == full and (name == wanted or not title):
                return name
        name, count = slug(wanted), 1
        while name in self.images and self.images[name]["image"] != full:
            count += 1
            name = f"{slug(wanted)}-{count}"
        found = {"image": full, **({"title": title} if title and title != name else {})}
        self.images.setdefault(name, found)
        return name


def dashed(text: str) -> str:
    """
    Return a text in lower case, and a dash for all that is no letter or digit.

    Letters lose their accents, as in the names that KubeSpawner makes.
    """
    plain = "".join(each for each in normalize("NFKD", text) if not combining(each))
    return _NOT_IN_NAMES.sub("-", plain.lower()).strip("-")


def slug(text: str) -> str:
    """Return a name made of a text."""
    return dashed(text)[:60].rstrip("-") or "unnamed"


def name_of(reference: str) -> str:
    """Return what an image may be called: the last part of its path, without tag."""
    return slug(re.split(r"[:@]", reference.rpartition("/")[2])[0])


def key_of(text: str) -> str:
    """Return a key for one of several choices: as it is where it can be."""
    return text if is_image_name(text) else slug(text)


def texts_of(value: object) -> Mapping[str, Any]:
    """Return a table, or nothing of what is none."""
    return value if isinstance(value, Mapping) else {}
