"""KubeSpawner's ``profile_list`` as profiles of ours."""

import re
from collections.abc import Mapping
from html import unescape
from types import MappingProxyType
from typing import Any, Final

from pydantic import ValidationError

from perijove.cli.importing.overrides import Reader
from perijove.cli.importing.report import Import, dashed, key_of, slug, texts_of
from perijove.cli.importing.sources import GUARANTEES, Code
from perijove.kit.config import Section
from perijove.services.choices import ChoiceSection
from perijove.services.offer_values import menu_names, regular_expression
from perijove.services.offers import ProfileSection

_KNOWN: Final = frozenset(
    {"display_name", "slug", "description", "default", "kubespawner_override", "profile_options"}
    | {"allowed_groups"}
)
_KNOWN_OF_OPTION: Final = frozenset({"display_name", "choices", "unlisted_choice"})
_KNOWN_OF_CHOICE: Final = frozenset(
    {"display_name", "description", "default", "kubespawner_override"}
)
_TAKEN: Final = frozenset(
    {"account", "partition", "qos", "reservation", "gpu_type", "features", "ui"}
    | {"profile", "options", "safe_mode", "refresh", "next"}
)
"""What a choice cannot be called here."""
_LIMITS: Final = frozenset(GUARANTEES) | frozenset(GUARANTEES.values())
_GROUPS: Final = "allowed_groups"
_TITLES_OF_OTHER: Final = ("display_name_in_choices", "display_name")
_TAGS: Final = re.compile(r"</?[A-Za-z][^<>]*>")
_BREAKS: Final = re.compile(r"<(?:br|/?(?:p|div|li|ul|ol))\b[^<>]*>", re.IGNORECASE)
_CLOSED: Final = re.compile(r"(?:(?<!\\)(?:\$|\.[*+])|\\Z)\Z")
"""A pattern after which nothing can follow, or anything may."""
_WORDS: Final = "Say it in plain words."
_CODE: Final = "Write what it gives as a value, or make the profile by hand."
_ADVICE: Final = "Make it by hand."


class Importer:
    """Adds the profiles of a list to an import."""

    def __init__(
        self, result: Import, *, spawner: str | None, overrides: type[Section] | None
    ) -> None:
        """`overrides` is the model of what profiles may say to the platform, if it is known."""
        self._result = result
        self._spawner = spawner
        self._overrides = overrides
        self._defaults: Mapping[str, Any] = {}

    def add(
        self, found: object, where: str, *, defaults: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        """Add what `profile_list` holds; `defaults` are guarantees where a profile says none."""
        self._defaults = defaults
        if isinstance(found, Code):
            self._result.differs(where, f"it is made by code ({found})", _CODE)
            return
        if isinstance(found, Mapping):  # by slug
            entries = [
                {"slug": key, **each} if isinstance(each, Mapping) else each
                for key, each in found.items()
            ]
        else:
            entries = list(found) if isinstance(found, list) else []
        begin = len(self._result.profiles)
        first = None
        for number, each in enumerate(entries):
            profile = self._profile(each, f"{where}[{number}]")
            if profile is None:
                continue
            self._result.profiles.append(profile)
            is_default = texts_of(each).get("default")
            if first is None and is_default and not isinstance(is_default, Code):
                first = profile
        if first is not None:  # ours: the first
            self._result.profiles.remove(first)
            self._result.profiles.insert(begin, first)

    def _profile(self, given: Any, where: str) -> dict[str, Any] | None:
        if not isinstance(given, Mapping):
            why = f"it is made by code ({given})" if isinstance(given, Code) else "it is no table"
            self._result.differs(where, why, _CODE)
            return None
        title = self._text(given, "display_name", where)
        theirs = self._text(given, "slug", where) or dashed(title)
        name = self._result.free_name(slug(theirs))
        where = f"{where} ({title or name})"
        if name != theirs:
            advice = "Scripts that name it must be changed."
            self._result.differs(where, f"it is called {name} here", advice)
        self._unknown(given, _KNOWN, where)
        self._flag(given, "default", where)
        override, options = given.get("kubespawner_override", {}), given.get("profile_options", {})
        reader = self._reader(f"{where}.kubespawner_override", has_choices=_sets_limits(options))
        profile: dict[str, Any] = {"name": name}
        if self._spawner is not None:
            profile["spawner"] = self._spawner
        if title and title != name:
            profile["title"] = title
        if description := self._words(given, "description", where):
            profile["description"] = description
        profile |= self._groups(given, where)
        profile |= reader.read(self._guaranteed(override)).keys()
        if storage := profile.get("storage"):
            profile["storage"] = {"kept": "user", **storage}
        self._options(profile, options, texts_of(override), f"{where}.profile_options")
        return profile if self._is_valid(ProfileSection, profile, where) else None

    # --- single values -------------------------------------------------------------------------

    def _text(self, given: Mapping[str, Any], key: str, where: str) -> str:
        """Return a text; what only code could tell is said and empty."""
        value = given.get(key)
        if isinstance(value, Code):
            self._result.differs(f"{where}.{key}", f"this is code ({value})", _CODE)
            return ""
        return "" if value is None else str(value).strip()

    def _words(self, given: Mapping[str, Any], key: str, where: str) -> str:
        """Return a text for people, without the marks of HTML, which are no marks here."""
        text = self._text(given, key, where)
        words = unescape(_TAGS.sub("", _BREAKS.sub(" ", text))).strip()
        if words != text:
            self._result.differs(f"{where}.{key}", "there is HTML in it, which is left out", _WORDS)
        return words

    def _flag(self, given: Mapping[str, Any], key: str, where: str) -> bool:
        value = given.get(key)
        if isinstance(value, Code):
            self._result.differs(f"{where}.{key}", f"this is code ({value})", _CODE)
            return False
        return bool(value)

    def _groups(self, given: Mapping[str, Any], where: str) -> dict[str, list[str]]:
        """Return for which groups a profile is, as many sites have added it to KubeSpawner."""
        if _GROUPS not in given:
            return {}
        listed = given[_GROUPS] if isinstance(given[_GROUPS], list) else []
        groups = [each for each in listed if isinstance(each, str)]
        why = f"KubeSpawner has no such key: taken as `groups`, {', '.join(groups) or 'none'}"
        self._result.differs(f"{where}.{_GROUPS}", why, "See that they are called so here.")
        return {"groups": groups}

    def _is_valid(self, section: type[Section], found: dict[str, Any], where: str) -> bool:
        try:
            section.model_validate(found)
        except ValidationError as error:
            for each in error.errors():
                place = ".".join(map(str, each["loc"]))
                self._result.differs(f"{where}: {place}", each["msg"], _ADVICE)
            return False
        return True

    def _reader(self, where: str, **given: Any) -> Reader:
        return Reader(self._result, where, overrides=self._overrides, **given)

    def _unknown(self, given: Mapping[str, Any], known: frozenset[str], where: str) -> None:
        for key in given:
            if key not in known:
                self._result.differs(f"{where}.{key}", "KubeSpawner has no such key", _ADVICE)

    def _guaranteed(self, override: object, base: Mapping[str, Any] = MappingProxyType({})) -> Any:
        """Return overrides with what is guaranteed to all, where they say a limit and no more."""
        if not isinstance(override, Mapping):
            return override
        given = {
            guarantee: self._defaults.get(guarantee)
            for guarantee, limit in GUARANTEES.items()
            if override.get(limit) is not None and guarantee not in base
        }
        return {**given, **override}

    # --- options -------------------------------------------------------------------------------

    def _options(
        self, profile: dict[str, Any], given: object, base: Mapping[str, Any], where: str
    ) -> None:
        """Add what is chosen in a profile; `base` is what the profile itself overrides."""
        if isinstance(given, Code):
            self._result.differs(where, f"it is made by code ({given})", _CODE)
        choices = {}
        for option, each in texts_of(given).items():
            place = f"{where}.{option}"
            if not isinstance(each, Mapping):
                self._result.differs(place, f"it is made by code ({each})", _CODE)
                continue
            self._unknown(each, _KNOWN_OF_OPTION, place)
            name = self._option_name(option, place)
            choice = self._choice(each, base, place)
            if choice is None:
                continue
            field = _image_field(choice) if name == "image" else None
            if field is not None and all(self._is_named(key, field) for key in choice["options"]):
                profile.setdefault("fields", {})["image"] = field
            elif self._is_valid(ChoiceSection, choice, place):
                choices[name] = choice
        if choices:
            profile["choices"] = choices

    def _option_name(self, option: str, where: str) -> str:
        try:
            menu_names({option: None})
        except ValueError:
            name = slug(option)
        else:
            name = f"{option}_choice" if option in _TAKEN else option
        if name != option:
            advice = "Scripts that name it must be changed."
            self._result.differs(where, f"it is called {name} here", advice)
        return name

    def _choice(
        self, given: Mapping[str, Any], base: Mapping[str, Any], where: str
    ) -> dict[str, Any] | None:
        found: dict[str, Any] = {}
        if title := self._text(given, "display_name", where):
            found["title"] = title
        found["options"] = self._entries(given.get("choices", {}), base, f"{where}.choices")
        other, place = given.get("unlisted_choice"), f"{where}.unlisted_choice"
        if isinstance(other, Code):
            self._result.differs(place, f"it is made by code ({other})", _CODE)
        elif isinstance(other, Mapping) and self._flag(other, "enabled", place):
            written = self._other(other, base, place)
            if written is not None:
                found["other"] = written
        if not found["options"] and set(texts_of(found.get("other")).get("set", ())) != {"image"}:
            self._result.differs(where, "there is no choice to begin with", _ADVICE)
            return None
        return found

    def _entries(self, given: object, base: Mapping[str, Any], where: str) -> dict[str, Any]:
        if isinstance(given, Code):
            self._result.differs(where, f"it is made by code ({given})", _CODE)
        entries: dict[str, Any] = {}
        for key, each in texts_of(given).items():
            place, name = f"{where}.{key}", key_of(str(key))
            if not isinstance(each, Mapping):
                self._result.differs(place, f"it is made by code ({each})", _CODE)
                continue
            if name != key:
                advice = "Scripts that name it must be changed."
                self._result.differs(place, f"it is called {name} here", advice)
            self._unknown(each, _KNOWN_OF_CHOICE, place)
            entries[name] = self._entry(name, each, base, place)
        return entries

    def _entry(
        self, key: str, given: Mapping[str, Any], base: Mapping[str, Any], where: str
    ) -> dict[str, Any]:
        title = self._text(given, "display_name", where) or key
        override = given.get("kubespawner_override", {})
        reader = self._reader(f"{where}.kubespawner_override", image=title, base=base)
        found: dict[str, Any] = {} if title == key else {"title": title}
        if description := self._words(given, "description", where):
            found["description"] = description
        if self._flag(given, "default", where):
            found["default"] = True
        if only := _only_image(override):
            name = self._result.add_image(only, key, title)
            setting = {"image": name} if name else {}
            if name is None:
                self._result.differs(where, f"{only[:80]!r} is no reference of an image", _CODE)
        else:
            setting = reader.read(self._guaranteed(override, base)).keys()
        if setting.pop("storage", None):
            advice = "Make a profile of its own for other storage."
            self._result.differs(where, "a choice cannot set storage here", advice)
        return {**found, "set": setting} if setting else found

    def _other(
        self, given: Mapping[str, Any], base: Mapping[str, Any], where: str
    ) -> dict[str, Any] | None:
        if isinstance(given.get("validation_regex"), Code):  # Or everything would be allowed.
            self._text(given, "validation_regex", where)
            return None
        pattern = str(given.get("validation_regex") or ".+")
        if _CLOSED.search(pattern) is None or _has_alternatives(pattern):
            pattern = f"(?:{pattern}).*"
            why = "KubeSpawner matches the beginning of the text only"
            advice = f"{pattern!r} allows the same; say what may follow, if not everything may."
            self._result.differs(f"{where}.validation_regex", why, advice)
        try:
            regular_expression(pattern)
        except ValueError as error:
            self._result.differs(f"{where}.validation_regex", f"it {error}", "Write it otherwise.")
            return None
        found: dict[str, Any] = {"pattern": pattern}
        titles = (self._text(given, key, where) for key in _TITLES_OF_OTHER)
        if title := next(filter(None, titles), ""):
            found["title"] = title
        if message := self._text(given, "validation_message", where):
            found["message"] = message
        reader = self._reader(f"{where}.kubespawner_override", base=base)
        override = self._guaranteed(given.get("kubespawner_override", {}), base)
        setting = reader.read(override).keys()
        setting.pop("storage", None)
        return {**found, "set": setting} if setting else found

    def _is_named(self, key: str, field: Mapping[str, Any]) -> bool:
        """Tell whether clients may go on calling an image by the key it had."""
        return key in field.get("choices", ()) and key in self._result.images


def _sets_limits(given: object) -> bool:
    """Tell whether some choice says how much a server may use."""
    if isinstance(given, Mapping):
        return any(key in _LIMITS or _sets_limits(each) for key, each in given.items())
    return isinstance(given, list) and any(map(_sets_limits, given))


def _has_alternatives(pattern: str) -> bool:
    """Tell whether a pattern is one of several outside all its parentheses: each ends by itself."""
    depth, is_class = 0, False
    for mark in re.findall(r"\\.|[][()|]", pattern, re.DOTALL):
        if is_class or mark == "[":
            is_class = mark != "]"
        elif mark in "()":
            depth += 1 if mark == "(" else -1
        elif mark == "|" and depth == 0:
            return True
    return False


def _only_image(override: object) -> str:
    """Return the image where nothing else is set."""
    settings = texts_of(override)
    image = settings.get("image")
    return image if set(settings) == {"image"} and isinstance(image, str) else ""


def _image_field(choice: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a choice of images as the field it is with us; None of one that sets more."""
    options, other = choice["options"], choice.get("other")
    sets = [each.get("set", {}) for each in options.values()]
    if any(set(each) != {"image"} for each in sets):
        return None
    if other is not None and other.get("set") != {"image": "{value}"}:
        return None
    field: dict[str, Any] = {}
    if names := [each["image"] for each in sets]:
        first = next((key for key, each in options.items() if each.get("default")), None)
        field = {"default": options[first]["set"]["image"] if first else names[0]}
        field["choices"] = names
    if other is not None:
        field["free"] = {key: other[key] for key in ("pattern", "title", "message") if key in other}
    return field
