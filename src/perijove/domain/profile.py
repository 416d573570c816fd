"""
Profiles: what an administrator offers to start, and the quantities it is made of.

Numbers are exact `Fraction` inside and JSON numbers outside: cores, bytes, seconds, GPUs. The
words of schedulers are Slurm's; a Grid Engine queue is a partition, a project an account.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Final

from perijove.domain.images import FreeText, Image, is_image_name, is_reference
from perijove.domain.menus import Menu, Setting, merged
from perijove.domain.policy import EVERYONE, Rule
from perijove.kit.quantities import (
    DURATION_UNITS,
    SIZE_UNITS,
    write_duration,
    write_number,
    write_size,
)

Value = Fraction | str | tuple[str, ...]
"""Of a field: a number, a word, or several words."""

UI: Final = "ui"
DEFAULT_URLS: Final[Mapping[str, str]] = MappingProxyType(
    {"lab": "/lab", "notebook": "/tree", "terminal": "/terminals/1"}
)
"""Where each user interface begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """A kind of number that can be asked for."""

    name: str
    title: str
    unit: str
    quantum: Fraction
    """Values are whole multiples of it."""
    least: Fraction
    most: Fraction
    """What no profile goes beyond: more is a slip of the pen."""
    rule: Rule | None = None
    """What a policy may say of it; None: nothing, and no platform bounds it either."""
    units: Mapping[str, Fraction] | None = None
    """Units people may write; None for a bare number."""
    shown_in: tuple[str, ...] = ()
    """Units a form may ask in, the best first."""

    def write(self, value: Fraction) -> str:
        """Write a value with its unit, for people."""
        if self.units is SIZE_UNITS:
            return write_size(value)
        return write_number(value) if self.units is None else write_duration(value)


CPU: Final = Quantity(
    name="cpu",
    title="CPU cores",
    unit="cores",
    quantum=Fraction(1, 1000),
    least=Fraction(1, 1000),
    most=Fraction(100_000),
    rule=Rule.CPU,
)
MEMORY: Final = Quantity(
    name="memory",
    title="Memory",
    unit="bytes",
    quantum=Fraction(1),
    least=Fraction(2**20),
    most=Fraction(2**50),
    rule=Rule.MEMORY,
    units=SIZE_UNITS,
    shown_in=("GiB", "GB", "MiB", "MB", "B"),
)
TIME: Final = Quantity(
    name="time",
    title="Time",
    unit="seconds",
    quantum=Fraction(1),
    least=Fraction(60),
    most=Fraction(366 * 86400),
    rule=Rule.TIME,
    units=DURATION_UNITS,
    shown_in=("h", "min", "s"),
)
GPU: Final = Quantity(
    name="gpu",
    title="GPUs",
    unit="GPUs",
    quantum=Fraction(1),
    least=Fraction(0),
    most=Fraction(10_000),
    rule=Rule.GPU,
)
QUEUE_LIMIT: Final = Quantity(
    name="queue_limit",
    title="Ask me after waiting for",
    unit="seconds",
    quantum=Fraction(1),
    least=Fraction(60),
    most=Fraction(366 * 86400),
    units=DURATION_UNITS,
    shown_in=("h", "min", "s"),
)
"""The person's own; what policy and spawner say of the queue holds besides, see `queue_limit`."""
RESOURCES: Final = (CPU.name, MEMORY.name, TIME.name, GPU.name)
"""What a platform gives, or has not."""
QUANTITIES: Final[Mapping[str, Quantity]] = MappingProxyType(
    {quantity.name: quantity for quantity in (CPU, MEMORY, TIME, GPU, QUEUE_LIMIT)}
)

IMAGE: Final = "image"
ACCOUNT: Final = "account"
PARTITION: Final = "partition"
QOS: Final = "qos"
RESERVATION: Final = "reservation"
GPU_TYPE: Final = "gpu_type"
FEATURES: Final = "features"

NAMES: Final = (ACCOUNT, PARTITION, QOS, RESERVATION, GPU_TYPE)
"""Fields whose value is one name of a scheduler's; "" leaves the choice to the scheduler."""
FIELDS: Final = (
    IMAGE,
    *(ACCOUNT, PARTITION, QOS, RESERVATION),
    *RESOURCES,
    *(GPU_TYPE, FEATURES, UI, QUEUE_LIMIT.name),
)
"""All there are, in the order of a form."""
RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        ACCOUNT: Rule.ACCOUNT,
        PARTITION: Rule.PARTITION,
        QOS: Rule.QOS,
        GPU_TYPE: Rule.GPU_TYPE,
    }
)
"""The rule that says which names of a field a person may have, where there is one."""
TITLES: Final[Mapping[str, str]] = MappingProxyType(
    {quantity.name: quantity.title for quantity in QUANTITIES.values()}
    | {
        IMAGE: "Image",
        ACCOUNT: "Account",
        PARTITION: "Partition",
        QOS: "Quality of service",
        RESERVATION: "Reservation",
        GPU_TYPE: "GPU type",
        FEATURES: "Node features",
        UI: "User interface",
    }
)
"""What each field is called, in English."""
_TERMS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {"gridengine": MappingProxyType({ACCOUNT: "project", PARTITION: "queue"})}
)
_NOT_FOR_MENUS: Final = frozenset(
    {*NAMES, FEATURES, UI, "profile", "options", "safe_mode", "refresh", "next"}
)
"""Options that spawners, forms and clients read by these names."""
MOST_NAMES: Final = 500
"""Longest list of names to choose from."""
NAME_PATTERN: Final = r"[A-Za-z0-9_][A-Za-z0-9_.:@/+=-]{0,127}"
_NAME: Final = re.compile(NAME_PATTERN)


def term(field: str, kind: str) -> str:
    """Return the word for a field where a kind of spawner says it: a queue, not a partition."""
    return _TERMS.get(kind, {}).get(field, field)


def title(field: str, kind: str) -> str:
    """Return what a field is called with this kind of spawner, in English."""
    word = term(field, kind)
    return TITLES[field] if word == field else word.capitalize()


def is_name(text: str) -> bool:
    """
    Tell whether a text may be given to a scheduler as a name.

    It begins with no dash and holds no space, quote, comma or operator (failure 5.14).
    """
    return _NAME.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """
    One thing of a profile: fixed (`locked`), or the person's within bounds.

    Raises `ValueError` when the parts contradict each other.
    """

    name: str
    default: Value | None = None
    """None leaves it to the platform."""
    minimum: Fraction | None = None
    maximum: Fraction | None = None
    step: Fraction | None = None
    choices: tuple[Value, ...] = ()
    locked: bool = False
    free: FreeText | None = None
    """Of an image: what may be written instead of a choice."""

    def __post_init__(self) -> None:
        quantity = QUANTITIES.get(self.name)
        if quantity is None:
            self._check_words()
        else:
            self._check_numbers(quantity)
        if self.choices and not (self.free or set(self._default_words()) <= set(self.choices)):
            raise ValueError(f"{self.name}: the default is not one of the choices")

    @classmethod
    def from_body(cls, name: str, body: Mapping[str, Any]) -> "Field":
        """Return the field of a stored profile."""
        return cls(
            name=name,
            default=_stored(body.get("default")),
            minimum=_stored_number(body.get("min")),
            maximum=_stored_number(body.get("max")),
            step=_stored_number(body.get("step")),
            choices=tuple(
                choice if isinstance(choice, str) else exact(choice)
                for choice in body.get("choices", ())
            ),
            locked=body.get("locked", False),
            free=FreeText.from_body(body["free"]) if "free" in body else None,
        )

    @property
    def is_bounded(self) -> bool:
        """Tell whether not everything may be asked."""
        bounds = (self.minimum, self.maximum, self.step)
        return bool(self.choices) or any(bound is not None for bound in bounds)

    def low(self, quantity: Quantity) -> Fraction:
        """Return the least that may be asked."""
        return quantity.least if self.minimum is None else self.minimum

    def high(self, quantity: Quantity) -> Fraction:
        """Return the most that may be asked."""
        return quantity.most if self.maximum is None else self.maximum

    def _check_words(self) -> None:
        if self.minimum is not None or self.maximum is not None or self.step is not None:
            raise ValueError(f"{self.name}: min, max and step are for numbers")
        several = self.name == FEATURES
        if self.default is not None and isinstance(self.default, tuple) is not several:
            raise ValueError(f"{self.name}: the default is not {'a list' if several else 'a word'}")
        for word in (*self._default_words(), *self.choices):
            self._check_word(word)

    def _default_words(self) -> tuple[Value, ...]:
        if self.default is None or isinstance(self.default, tuple):
            return self.default or ()
        return (self.default,)

    def _check_word(self, word: Value) -> None:
        if self.name == UI:
            if word not in DEFAULT_URLS:
                raise ValueError(f"{self.name}: {word!r} is none of {', '.join(DEFAULT_URLS)}")
        elif self.name == IMAGE:
            if not is_image_name(str(word)) and not is_reference(str(word)):
                raise ValueError(f"{self.name}: {str(word)[:40]!r} is neither name nor reference")
        elif not isinstance(word, str) or not (is_name(word) or (not word and self.name in NAMES)):
            raise ValueError(f"{self.name}: {str(word)[:40]!r} cannot be a name")

    def _check_numbers(self, quantity: Quantity) -> None:
        if self.choices and not (self.minimum is self.maximum is self.step is None):
            raise ValueError(f"{self.name}: give either choices or min, max and step")
        numbers = (self.default, self.minimum, self.maximum, *self.choices)
        for number in numbers:
            self._check_number(quantity, number)
        if self.step is not None and (self.step <= 0 or self.step % quantity.quantum):
            raise ValueError(f"{self.name}: step is not a multiple of {quantity.quantum}")
        low, high = self.low(quantity), self.high(quantity)
        if low > high:
            raise ValueError(f"{self.name}: min is more than max")
        if isinstance(self.default, Fraction) and not low <= self.default <= high:
            raise ValueError(f"{self.name}: the default is not between min and max")
        if self.step is not None and -(-low // self.step) * self.step > high:
            raise ValueError(f"{self.name}: no step is between min and max")

    def _check_number(self, quantity: Quantity, number: Value | None) -> None:
        if number is None:
            return
        if not isinstance(number, Fraction):
            raise ValueError(f"{self.name}: {number!r} is not a number")
        if not quantity.least <= number <= quantity.most:
            raise ValueError(
                f"{self.name}: {quantity.write(number)} is not between"
                f" {quantity.write(quantity.least)} and {quantity.write(quantity.most)}"
            )
        if number % (self.step or quantity.quantum):
            raise ValueError(
                f"{self.name}: {quantity.write(number)} is not a multiple of"
                f" {quantity.write(self.step or quantity.quantum)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What an administrator offers to start, at one revision."""

    name: str
    revision: int = 1
    spawner: str
    title: Mapping[str, str] = field(default_factory=dict)
    """By language."""
    description: Mapping[str, str] = field(default_factory=dict)
    groups: tuple[str, ...] = (EVERYONE,)
    """Who may see it."""
    environment: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, Field] = field(default_factory=dict)
    images: Mapping[str, Image] = field(default_factory=dict)
    """Those of the catalogue that it speaks of, by name."""
    menus: tuple[Menu, ...] = ()
    """What is chosen by name, in the order in which the choices are laid over each other."""
    platform: Mapping[str, Any] = field(default_factory=dict)
    """What it says to its kind of spawner alone."""
    storage: Mapping[str, Any] | None = None
    """What is kept, see `perijove.domain.storage`."""

    def __post_init__(self) -> None:
        for menu in self.menus:
            self._check_menu(menu)

    def menu(self, name: str) -> Menu | None:
        """Return the menu of a name."""
        return next((menu for menu in self.menus if menu.name == name), None)

    def with_setting(self, setting: Setting) -> "Profile":
        """Return the profile as a choice makes it; raises `ValueError` where it cannot be."""
        fixed = {
            name: Field.from_body(name, {"default": value, "locked": True})
            for name, value in setting.fields.items()
        }
        return replace(
            self,
            fields={**self.fields, **fixed},
            environment={**self.environment, **setting.environment},
            platform=merged(self.platform, setting.platform),
            menus=(),
        )

    def reference_of(self, image: str) -> str:
        """Return what the platform is asked to pull for a name of the catalogue or a reference."""
        return self.images[image].reference if image in self.images else image

    def _check_menu(self, menu: Menu) -> None:
        where = f"choices.{menu.name}"
        if menu.name in _NOT_FOR_MENUS or [each.name for each in self.menus].count(menu.name) > 1:
            raise ValueError(f"{where}: this name means something else")
        for name in menu.fields | ({menu.name} & set(FIELDS)):
            if name in self.fields and not self.fields[name].locked:
                raise ValueError(f"{where}: {name} is also a field that a person may change")
        for entry in menu.entries:
            try:
                self.with_setting(entry.sets)
            except ValueError as error:
                raise ValueError(f"{where}.options.{entry.key}: {error}") from None

    def is_seen_by(self, groups: frozenset[str]) -> bool:
        """Tell whether a member of `groups` may know that it exists."""
        return EVERYONE in self.groups or not groups.isdisjoint(self.groups)

    @classmethod
    def from_body(cls, name: str, body: Mapping[str, Any], *, revision: int) -> "Profile":
        """Return the profile of a stored revision."""
        return cls(
            name=name,
            revision=revision,
            spawner=body["spawner"],
            title=body.get("title") or {"en": name},
            description=body.get("description", {}),
            groups=tuple(body.get("groups", (EVERYONE,))),
            environment=body.get("environment", {}),
            storage=body.get("storage"),
            fields={
                key: Field.from_body(key, each) for key, each in body.get("fields", {}).items()
            },
            images={each["name"]: Image.from_body(each) for each in body.get("images", ())},
            menus=tuple(map(Menu.from_body, body.get("menus", ()))),
            platform=body.get("platform", {}),
        )


def as_json(value: Value) -> Any:
    """Return a value as JSON has it: a whole number wherever it is one."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, tuple):
        return list(value)
    return value.numerator if value.denominator == 1 else float(value)


def exact(value: Any) -> Fraction:
    """Return a JSON number as what it says in decimals."""
    return value if isinstance(value, Fraction) else Fraction(repr(value))


def rounded(value: Fraction, grid: Fraction) -> Fraction:
    """Return the multiple of `grid` that is nearest."""
    return round(value / grid) * grid


def _stored(value: Any) -> Value | None:
    if isinstance(value, list):
        return tuple(value)
    return value if value is None or isinstance(value, str) else exact(value)


def _stored_number(value: Any) -> Fraction | None:
    return None if value is None else exact(value)
