"""
The configuration tree, made of each component's own section, and `load()`.

One TOML file, strict: an unknown key is an error that names the nearest known one. The
environment lies over it (``PERIJOVE__SECTION__KEY``), the command line over that. Components
get values, never the tree.
"""

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, ValidationError

from perijove.domain.errors import ConfigError
from perijove.domain.images import is_image_name
from perijove.kit.config import Section
from perijove.proxy.settings import ProxySettings
from perijove.services.choices import ImageSection
from perijove.services.offer_values import option_keys
from perijove.services.offers import PolicySection, ProfileSection
from perijove.services.sections import HubSection, LifecycleSection
from perijove.services.senders import NotifySection
from perijove.spawners.contract import KeepsVolumes
from perijove.tunnel.settings import TunnelSettings

PREFIX = "PERIJOVE__"


class Settings(Section):
    """Everything that can be configured; made by `load`."""

    hub: HubSection = HubSection()
    """The hub: addresses, state, and who may do what."""
    proxy: ProxySettings = ProxySettings()
    """The proxy in front of hub and servers."""
    tunnel: TunnelSettings = TunnelSettings()
    """Tunnels, for clusters where only jobs can connect outward."""
    lifecycle: LifecycleSection = LifecycleSection()
    """Limits of the life cycle."""
    notify: NotifySection = NotifySection()
    """How people are told what happened while they looked elsewhere."""
    auth: dict[str, Any]
    """Ways to sign in, `[auth.NAME]`; the name is that of the authenticator. The first one is
    the site's main way in."""
    spawners: dict[str, Any]
    """Platforms on which servers are started, `[spawners.NAME]`, each with its `kind`."""
    images: Annotated[dict[str, ImageSection], AfterValidator(option_keys)] = {}
    """Container images that profiles offer, `[images.NAME]`, in the order shown."""
    profiles: list[ProfileSection] = []
    """What people can start, in the order shown. One is built in when none is given."""
    policies: list[PolicySection] = []
    """Who may have how much: top-down, the first match decides each limit."""


_DEFAULT_PLUGINS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "auth": {"native": {}},
    "spawners": {"local": {"kind": "local"}},
}


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

    Raises `ConfigError` that lists every fault, each with the nearest known key; its parameter
    ``faults`` has them one by one.
    """
    tree = _read(path) if path else {}
    sources = dict(origins(path, environ))
    for variable in _from_environment(environ):
        variable.put(tree)
    for section, values in (overrides or {}).items():
        for key, value in values.items():
            _put(tree, [section], key, value)
            sources[f"{section}.{key}"] = "the command line"
    faults: list[_Fault] = []
    for group in _DEFAULT_PLUGINS:
        tree[group] = _decode_all(group, tree.get(group, _DEFAULT_PLUGINS[group]), faults)
    settings = _validate(Settings, tree, (), faults)
    if settings is not None and not faults:
        for number, profile in enumerate(settings.profiles):
            _check_profile(settings, profile, ("profiles", str(number)), faults)
    if settings is None or faults:
        lines = _in_words(faults, sources)
        where = str(path) if path else "the configuration"
        raise ConfigError("\n  ".join([f"{where}:", *lines]), faults=lines)
    return settings


def origins(path: Path | None, environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return where each configured key came from: the file, or the name of a variable."""
    found = dict.fromkeys(_leaves(_read(path)), str(path)) if path else {}
    for variable in _from_environment(environ):
        found = {
            name: source
            for name, source in found.items()
            if not name.startswith(f"{variable.path}.")
        }
        found[variable.path] = variable.name
    return found


def origin_of(name: str, origins: Mapping[str, str]) -> str:
    """Return where a key came from: what set it, or set the whole that it is a part of."""
    while name:
        if name in origins:
            return origins[name]
        name = name.rpartition(".")[0]
    return "default"


# --- reading ----------------------------------------------------------------------------------


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


@dataclass(frozen=True, slots=True)
class _Variable:
    """A variable of the environment that sets a key."""

    name: str
    text: str

    @property
    def path(self) -> str:
        return ".".join(self.name.removeprefix(PREFIX).lower().split("__"))

    def put(self, tree: dict[str, Any]) -> None:
        *section, key = self.path.split(".")
        try:
            _put(tree, section, key, _value(self.text))
        except TypeError as error:
            raise ConfigError(f"{self.name}: {error}") from None


def _from_environment(environ: Mapping[str, str]) -> list[_Variable]:
    return [
        _Variable(name, text) for name, text in sorted(environ.items()) if name.startswith(PREFIX)
    ]


def _value(text: str) -> Any:
    """Read a variable's text as TOML, else as text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _put(tree: dict[str, Any], section: Sequence[str], key: str, value: Any) -> None:
    node = tree
    for part in section:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise TypeError(f"{part} is no section")
    node[key] = value


# --- checking ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Fault:
    """One thing that is wrong, and where."""

    where: tuple[str | int, ...]
    message: str


M = TypeVar("M", bound=Section)


def _validate(model: type[M], values: Any, base: tuple[str, ...], faults: list[_Fault]) -> M | None:
    """Return `values` as a section, or None after adding what is wrong with them to `faults`."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults += [_fault(each, base, model) for each in error.errors()]
        return None


def _decode_all(group: str, sections: Any, faults: list[_Fault]) -> dict[str, Section]:
    """Decode the sections of plug-ins with the classes they name."""
    if not isinstance(sections, Mapping):
        faults.append(_Fault((group,), f"must be sections: [{group}.NAME]"))
        return {}
    if not sections:
        faults.append(_Fault((group,), "there must be one at least"))
    found = {name: _decode(group, name, each, faults) for name, each in sections.items()}
    return {name: section for name, section in found.items() if section is not None}


def _decode(group: str, name: str, section: Any, faults: list[_Fault]) -> Section | None:
    if not isinstance(section, Mapping):
        faults.append(_Fault((group, name), f"must be a section: [{group}.{name}]"))
        return None
    # An authenticator's name is its kind; of one kind of spawner there may be several.
    kind = section.get("kind", name) if group == "spawners" else name
    try:
        model: type[Section] = plugin(group, str(kind)).Settings
    except ConfigError as error:
        faults.append(_Fault((group, name), str(error)))
        return None
    values = {"kind": kind, **section} if group == "spawners" else section
    return _validate(model, values, (group, name), faults)


def _check_profile(
    settings: Settings, profile: ProfileSection, base: tuple[str, ...], faults: list[_Fault]
) -> None:
    """Add what is wrong between a profile, the images there are, and its kind of spawner."""
    name = profile.spawner or next(iter(settings.spawners))
    if name not in settings.spawners or (profile.spawner is None and len(settings.spawners) > 1):
        return  # said by `services.profiles`
    spawner = plugin("spawners", settings.spawners[name].kind)
    if profile.storage is not None and not issubclass(spawner, KeepsVolumes):
        message = f"profile {profile.name!r}: spawner {name!r} keeps no volumes"
        faults.append(_Fault((*base, "storage"), message))
    spoken = profile.images()
    if profile.fields.image is not None and not spoken:
        spoken = {"fields.image": ""}
        if not settings.images and profile.fields.image.free is None:
            faults.append(_Fault((*base, "fields", "image"), "there is no image to choose from"))
    for where, image in spoken.items():
        if "image" not in spawner.Settings.model_fields:
            message = f"profile {profile.name!r}: spawner {name!r} starts no containers"
            faults.append(_Fault((*base, where), message))
        elif is_image_name(image) and image not in settings.images:
            near = _nearest(image, sorted(settings.images))
            message = f"profile {profile.name!r}: there is no section [images.{image}]{near}"
            faults.append(_Fault((*base, where), message))
    for where, values in profile.platforms().items():
        model: type[Section] | None = getattr(spawner, "Overrides", None)
        if model is None:
            message = f"profile {profile.name!r}: spawner {name!r} takes nothing of its own kind"
            faults.append(_Fault((*base, where), message))
        else:
            _validate(model, values, (*base, where), faults)


_MISSING = "is missing"
_UNION_TAG = re.compile(r".*\[.*|int|float|str|bool|timedelta", re.DOTALL)
"""What pydantic adds to a place where a value may be one of several kinds."""


def _fault(error: Any, base: tuple[str, ...], model: type[Section]) -> _Fault:
    """Return a fault in words; for an unknown key with the nearest known one."""
    where = [*error["loc"]]
    if error["type"] == "extra_forbidden":
        known = _keys_at(model, where[:-1])
        return _Fault((*base, *where), f"unknown key{_nearest(str(where[-1]), known)}")
    while len(where) > 1 and isinstance(where[-1], str) and _UNION_TAG.fullmatch(where[-1]):
        where.pop()
    message = _MISSING if error["type"] == "missing" else error["msg"]
    for said, shown in (("Value error, ", ""), ("Input should be", "must be"), ("Input is", "is")):
        message = shown + message.removeprefix(said) if message.startswith(said) else message
    return _Fault((*base, *where), message)


def _in_words(faults: Sequence[_Fault], origins: Mapping[str, str]) -> list[str]:
    """Return a line for each place: what is wrong, and which variable set it."""
    places: dict[str, list[str]] = {}
    for fault in faults:
        messages = places.setdefault(".".join(map(str, fault.where)), [])
        if fault.message not in messages:
            messages.append(fault.message)
    return [
        f"{where}: {', or '.join(messages)}"
        + ("" if messages == [_MISSING] else _set_by(where, origins))
        for where, messages in places.items()
    ]


def _set_by(where: str, origins: Mapping[str, str]) -> str:
    source = origin_of(where, origins)
    return f" (set by {source})" if source.startswith((PREFIX, "the command")) else ""


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
