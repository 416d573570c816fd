"""
The configuration tree, made of each component's own section, and `load()`.

One TOML file, strict: an unknown key is an error that names the nearest known one. The
environment lies over it (``PERIJOVE__SECTION__KEY``), the command line over that. Components
get values, never the tree.
"""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from perijove.domain.errors import ConfigError
from perijove.kit.config import Section
from perijove.proxy.settings import ProxySettings
from perijove.services.offers import PolicySection, ProfileSection
from perijove.services.sections import HubSection, LifecycleSection
from perijove.spawners.contract import SpawnerSettings

PREFIX = "PERIJOVE__"


class Settings(Section):
    """Everything that can be configured."""

    hub: HubSection = HubSection()
    """The hub: addresses, state, and who may do what."""
    proxy: ProxySettings = ProxySettings()
    """The proxy in front of hub and servers."""
    lifecycle: LifecycleSection = LifecycleSection()
    """Limits of the life cycle."""
    auth: dict[str, Any] = Field(default={"native": {}}, validate_default=True)
    """Ways to sign in, `[auth.NAME]`; the name is that of the authenticator. The first one is
    the site's main way in."""
    spawners: dict[str, Any] = Field(default={"local": {"kind": "local"}}, validate_default=True)
    """Platforms on which servers are started, `[spawners.NAME]`, each with its `kind`."""
    profiles: list[ProfileSection] = []
    """What people can start, in the order shown. One is built in when none is given."""
    policies: list[PolicySection] = []
    """Who may have how much: top-down, the first match decides each limit."""

    @model_validator(mode="after")
    def _decode_plugins(self) -> Self:
        """Decode the sections of plug-ins with the classes they name."""
        for name, section in self.auth.items():
            if not isinstance(section, Section):
                kind = section.get("kind", name) if isinstance(section, dict) else name
                self.auth[name] = _decode("auth", name, kind, section)
        for name, section in self.spawners.items():
            if not isinstance(section, Section):
                kind = section.get("kind", name) if isinstance(section, dict) else name
                values = {"kind": kind, **section} if isinstance(section, dict) else section
                decoded = _decode("spawners", name, kind, values)
                assert isinstance(decoded, SpawnerSettings)
                self.spawners[name] = decoded
        return self


def plugin(group: str, kind: str) -> Any:
    """Return the class behind an entry point of ``perijove.<group>``; raises `ConfigError`."""
    known = entry_points(group=f"perijove.{group}")
    if kind not in known.names:
        raise ConfigError(
            f"{kind!r} is not a known kind of {group}{_nearest(kind, sorted(known.names))}"
        )
    return known[kind].load()


def load(
    path: Path | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> Settings:
    """
    Read `path`, lay the environment and then `overrides` over it, and check it all.

    Raises `ConfigError` that lists every fault, each with the nearest known key.
    """
    tree = _read(path) if path else {}
    for section, key, value in _from_environment(environ):
        _put(tree, section, key, value)
    for section, values in (overrides or {}).items():
        for key, value in values.items():
            _put(tree, [section], key, value)
    where = str(path) if path else "the configuration"
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        faults = [_fault(fault) for fault in error.errors()]
        raise ConfigError(f"{where}:\n  " + "\n  ".join(faults)) from None


def origins(path: Path | None, environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return where each configured key came from: the file, or the name of a variable."""
    found = {
        f"{section}.{key}": str(path)
        for section, values in (_read(path) if path else {}).items()
        if isinstance(values, dict)
        for key in values
    }
    for path_, key, _value in _from_environment(environ):
        found[".".join([*path_, key])] = PREFIX + "__".join([*path_, key]).upper()
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None


def _from_environment(environ: Mapping[str, str]) -> list[tuple[list[str], str, Any]]:
    found = []
    for name, text in sorted(environ.items()):
        if name.startswith(PREFIX):
            *section, key = name.removeprefix(PREFIX).lower().split("__")
            found.append((section, key, _value(text)))
    return found


def _value(text: str) -> Any:
    """Read a variable's text as TOML, else as text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _put(tree: dict[str, Any], section: Sequence[str], key: str, value: Any) -> None:
    node = tree
    for part in section:
        below = node.setdefault(part, {})
        if not isinstance(below, dict):
            raise ConfigError(f"{PREFIX}{'__'.join([*section, key]).upper()}: {part} is no section")
        node = below
    node[key] = value


def _decode(group: str, name: str, kind: str, section: Any) -> Section:
    cls = plugin(group, kind)
    settings: type[Section] = cls.Settings
    values = {k: v for k, v in section.items() if k != "kind"} if group == "auth" else section
    try:
        return settings.model_validate(values)
    except ValidationError as error:
        # Pydantic shows a plug-in's faults as one: say each in full.
        faults = [_fault(fault, (group, name), settings) for fault in error.errors()]
        raise ValueError("; ".join(faults)) from None


def _fault(fault: Any, base: tuple[str, ...] = (), model: type[Section] | None = None) -> str:
    """Return one fault in words: where, what, and for an unknown key the nearest known one."""
    location = tuple(fault["loc"])
    where = ".".join(str(part) for part in (*base, *location))
    if fault["type"] == "extra_forbidden":
        known = _keys_at(model or Settings, location[:-1])
        return f"{where}: unknown key{_nearest(str(location[-1]), known)}"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


def _keys_at(model: type[Section], location: Sequence[Any]) -> list[str]:
    """Return the keys that are known at a place in the tree."""
    for part in location:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(str(part))
        inner = _model_in(field.annotation) if field else None
        if inner is None:
            return []
        model = inner
    return sorted(model.model_fields)


def _model_in(annotation: Any) -> type[Section] | None:
    """Return the section class inside an annotation such as ``list[ProfileSection]``."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if (found := _model_in(argument)) is not None:
            return found
    return None


def _nearest(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known are {', '.join(known)}" if known else ""
