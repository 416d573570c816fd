"""KubeSpawner's ``profile_list`` as profiles of ours."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from perijove.cli.importing.overrides import Reader
from perijove.cli.importing.report import Import, key_of, slug, texts_of
from perijove.cli.importing.sources import Code
from perijove.kit.config import Section
from perijove.services.choices import ChoiceSection
from perijove.services.offer_values import menu_names, regular_expression
from perijove.services.offers import ProfileSection

_KNOWN: Final = frozenset(
    {"display_name", "slug", "description", "default", "kubespawner_override", "profile_options"}
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
        self._names = {profile["name"] for profile in result.profiles}

    def add(self, found: object, where: str) -> None:
        """Add what `profile_list` holds."""
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
        profiles = [self._profile(each, f"{where}[{n}]") for n, each in enumerate(entries)]
        made = [(entries[n], each) for n, each in enumerate(profiles) if each is not None]
        made.sort(key=lambda pair: not texts_of(pair[0]).get("default"))  # ours: the first
        self._result.profiles += [profile for _entry, profile in made]

    def _profile(self, given: Any, where: str) -> dict[str, Any] | None:
        if not isinstance(given, Mapping):
            why = f"it is made by code ({given})" if isinstance(given, Code) else "it is no table"
            self._result.differs(where, why, _CODE)
            return None
        title = str(given.get("display_name", ""))
        name = self._free_name(slug(str(given.get("slug") or title)))
        where = f"{where} ({title or name})"
        self._unknown(given, _KNOWN, where)
        reader = self._reader(f"{where}.kubespawner_override", image=title)
        setting = reader.read(given.get("kubespawner_override", {}))
        profile: dict[str, Any] = {"name": name}
        if self._spawner is not None:
            profile["spawner"] = self._spawner
        if title and title != name:
            profile["title"] = title
        if given.get("description"):
            profile["description"] = str(given["description"])
        profile |= setting.keys()
        if storage := profile.get("storage"):
            profile["storage"] = {"kept": "user", **storage}
        self._options(profile, given.get("profile_options", {}), f"{where}.profile_options")
        return self._checked(profile, where)

    def _checked(self, profile: dict[str, Any], where: str) -> dict[str, Any] | None:
        try:
            ProfileSection.model_validate(profile)
        except ValidationError as error:
            for each in error.errors():
                place = ".".join(map(str, each["loc"]))
                self._result.differs(f"{where}: {place}", each["msg"], _ADVICE)
            return None
        return profile

    def _free_name(self, wanted: str) -> str:
        name, count = wanted, 1
        while name in self._names:
            count += 1
            name = f"{wanted}-{count}"
        self._names.add(name)
        return name

    def _reader(self, where: str, *, image: str = "") -> Reader:
        return Reader(self._result, where, overrides=self._overrides, image=image)

    def _unknown(self, given: Mapping[str, Any], known: frozenset[str], where: str) -> None:
        for key in given:
            if key not in known:
                self._result.differs(f"{where}.{key}", "KubeSpawner has no such key", _ADVICE)

    # --- options -------------------------------------------------------------------------------

    def _options(self, profile: dict[str, Any], given: object, where: str) -> None:
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
            choice = self._choice(each, place)
            if choice is None:
                continue
            field = _image_field(choice) if name == "image" else None
            if field is not None and all(self._is_named(key, field) for key in choice["options"]):
                profile.setdefault("fields", {})["image"] = field
            elif self._is_choice(choice, place):
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

    def _choice(self, given: Mapping[str, Any], where: str) -> dict[str, Any] | None:
        found: dict[str, Any] = {}
        if given.get("display_name"):
            found["title"] = str(given["display_name"])
        found["options"] = self._entries(given.get("choices", {}), f"{where}.choices")
        other = given.get("unlisted_choice")
        if isinstance(other, Mapping) and other.get("enabled"):
            written = self._other(other, f"{where}.unlisted_choice")
            if written is not None:
                found["other"] = written
        if not found["options"] and set(texts_of(found.get("other")).get("set", ())) != {"image"}:
            self._result.differs(where, "there is no choice to begin with", _ADVICE)
            return None
        return found

    def _entries(self, given: object, where: str) -> dict[str, Any]:
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
            entries[name] = self._entry(name, each, place)
        return entries

    def _entry(self, key: str, given: Mapping[str, Any], where: str) -> dict[str, Any]:
        title = str(given.get("display_name") or key)
        override = given.get("kubespawner_override", {})
        reader = self._reader(f"{where}.kubespawner_override", image=title)
        found: dict[str, Any] = {} if title == key else {"title": title}
        if given.get("description"):
            found["description"] = str(given["description"])
        if given.get("default"):
            found["default"] = True
        if only := _only_image(override):
            name = self._result.add_image(only, key, title)
            setting = {"image": name} if name else {}
            if name is None:
                self._result.differs(where, f"{only[:80]!r} is no reference of an image", _CODE)
        else:
            setting = reader.read(override).keys()
        if setting.pop("storage", None):
            advice = "Make a profile of its own for other storage."
            self._result.differs(where, "a choice cannot set storage here", advice)
        return {**found, "set": setting} if setting else found

    def _other(self, given: Mapping[str, Any], where: str) -> dict[str, Any] | None:
        pattern = str(given.get("validation_regex") or ".+")
        if not pattern.endswith(("$", "\\Z", ".*", ".+")):
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
        if title := given.get("display_name_in_choices") or given.get("display_name"):
            found["title"] = str(title)
        if given.get("validation_message"):
            found["message"] = str(given["validation_message"])
        reader = self._reader(f"{where}.kubespawner_override")
        setting = reader.read(given.get("kubespawner_override", {})).keys()
        setting.pop("storage", None)
        return {**found, "set": setting} if setting else found

    def _is_choice(self, choice: dict[str, Any], where: str) -> bool:
        try:
            ChoiceSection.model_validate(choice)
        except ValidationError as error:
            for each in error.errors():
                place = ".".join(map(str, each["loc"]))
                self._result.differs(f"{where}: {place}", each["msg"], _ADVICE)
            return False
        return True

    def _is_named(self, key: str, field: Mapping[str, Any]) -> bool:
        """Tell whether clients may go on calling an image by the key it had."""
        return key in field.get("choices", ()) and key in self._result.images


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
