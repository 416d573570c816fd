"""The configuration sections of what is offered: profiles and policies (design decision 17)."""

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import AfterValidator, Field, model_validator

from perijove.domain.menus import merged
from perijove.domain.names import SERVER_NAME_LENGTH, SHORTEST_SERVER_NAME_LENGTH
from perijove.domain.policy import BUILT_IN, EVERYONE
from perijove.domain.profile import FEATURES, FIELDS, MOST_NAMES, Profile
from perijove.domain.storage import Kept
from perijove.kit.config import Duration, Section
from perijove.services.choices import ChoiceSection, ImageFieldSection, ImageSection
from perijove.services.offer_values import (
    Bytes,
    Count,
    Environment,
    ImageChoice,
    Names,
    Number,
    SchedulerName,
    Texts,
    Tree,
    Unlimited,
    UserInterface,
    json_of,
    menu_names,
    regular_expression,
)

T = TypeVar("T")

NAME_LENGTH = 64
NO_IMAGES: Mapping[str, ImageSection] = {}
"""Without a catalogue."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def _name(value: str) -> str:
    if len(value) > NAME_LENGTH or not _NAME.fullmatch(value):
        raise ValueError(f"must be at most {NAME_LENGTH} letters, digits, '.', '_' and '-'")
    return value


def _folder(value: str) -> str:
    parts = value.split("/")
    if parts[0] or not all(parts[1:]) or {".", ".."} & set(parts) or not value.isprintable():
        raise ValueError("must be an absolute path such as /home/jovyan")
    return value


def _storage_class(value: str) -> str:
    if value and not _NAME.fullmatch(value):
        raise ValueError("must be letters, digits, '.', '_' and '-'")
    return value


class FieldSection(Section, Generic[T]):
    """What a person may choose of one thing, and within which bounds."""

    default: T | None = None
    """What is asked for unless the person chooses; else the profile's own value, else `min`."""
    min: T | None = None
    """The least that may be chosen."""
    max: T | None = None
    """The most that may be chosen; a policy may allow less."""
    step: T | None = None
    """Only multiples of it may be chosen."""
    choices: list[T] = Field(default=[], max_length=100)
    """The only values to choose from, instead of `min`, `max` and `step`."""
    locked: bool = False
    """Show the value but do not let it be changed."""


class WordFieldSection(Section):
    """What a person may choose among."""

    default: UserInterface | None = None
    """What is asked for unless the person chooses; else the profile's own value."""
    choices: list[UserInterface] = Field(default=[])
    """What to choose from; all if not given."""
    locked: bool = False
    """Show the value but do not let it be changed."""


class NameFieldSection(Section):
    """What a person may choose among of what a scheduler has."""

    default: SchedulerName | None = None
    """What is asked for unless the person chooses; else the profile's own value, else what the
    scheduler takes by itself."""
    choices: list[SchedulerName | Literal[""]] = Field(default=[], max_length=MOST_NAMES)
    """What to choose from, as far as the scheduler has it; all it has if not given. `""` leaves
    it to the scheduler."""
    locked: bool = False
    """Show the value but do not let it be changed."""


class FeaturesFieldSection(Section):
    """Which features of nodes a person may ask for."""

    default: Names = Field(default=[])
    """What is asked for unless the person chooses; else the profile's own value."""
    choices: Names = Field(default=[])
    """What to choose from, as far as the scheduler has it; all it has if not given."""
    locked: bool = False
    """Show the value but do not let it be changed."""


class FieldsSection(Section):
    """What the person may change."""

    image: ImageFieldSection | None = None
    """The container image, of spawners that have one."""

    account: NameFieldSection | None = None
    """The account that use is charged to; Grid Engine's project."""
    partition: NameFieldSection | None = None
    """The scheduler's partition; Grid Engine's queue."""
    qos: NameFieldSection | None = None
    """The scheduler's quality of service."""
    reservation: NameFieldSection | None = None
    """A reservation to run in."""

    cpu: FieldSection[Number] | None = None
    """CPU cores; parts of one in thousandths."""
    memory: FieldSection[Bytes] | None = None
    """Memory of the whole session, such as `"4 GiB"`."""
    time: FieldSection[Duration] | None = None
    """How long it may run, such as `"8 h"`."""
    gpu: FieldSection[Count] | None = None
    """GPUs."""
    gpu_type: NameFieldSection | None = None
    """The type of GPU, as the scheduler calls it: a model, a MIG slice, a shard."""
    features: FeaturesFieldSection | None = None
    """Features a node must have, several at once."""
    ui: WordFieldSection | None = None
    """`lab`, `notebook` (the classic one) or `terminal`."""
    queue_limit: FieldSection[Duration] | None = None
    """After how long in the queue the person wants to be asked whether to go on waiting."""


class StorageSection(Section):
    """What servers of a profile keep, on volumes of the spawner's platform."""

    kept: Kept = Kept.SERVER
    """`server`: a volume for each server, deleted with it; `user`: one for all servers of a
    person; `none`."""
    path: Annotated[str, AfterValidator(_folder)] = "/home/jovyan"
    """Where the server sees it."""
    size: Annotated[Bytes, Field(ge=2**20)] | None = None
    """What it may hold, such as `"2 GiB"`; a policy may allow less. Where the platform cannot
    enforce it, it is measured and people are told."""
    storage_class: Annotated[str, AfterValidator(_storage_class)] = ""
    """The platform's kind of storage; its default if not given."""
    retention: Annotated[Duration, Field(le=timedelta(days=366))] = timedelta(days=7)
    """How long its owner can have a volume back that was deleted."""


class ProfileSection(Section):
    """Something a person can start: where, with what, and what of it they may change."""

    name: Annotated[str, AfterValidator(_name)]
    """Unique; what the API and links call it."""
    spawner: str | None = None
    """Name of a spawner instance; may be left out when there is only one."""
    title: Texts = Field(default={})
    """Text, or one per language: `{ en = "Small", fr = "Petit" }`; default: the name."""
    description: Texts = Field(default={})
    """Text, or one per language."""
    groups: list[str] = Field(default=[EVERYONE])
    """Whose members may see it; `*` is everybody."""
    cpu: Number | None = None
    """CPU cores; left to the platform unless given here or as a field."""
    memory: Bytes | None = None
    """Memory of the whole session."""
    time: Duration | None = None
    """How long it may run; then it ends."""
    gpu: Count | None = None
    """GPUs; none unless given here or as a field."""
    account: SchedulerName | None = None
    """The scheduler's account, or Grid Engine's project; left to the scheduler unless given here
    or as a field, like the following."""
    partition: SchedulerName | None = None
    """The scheduler's partition, or Grid Engine's queue."""
    qos: SchedulerName | None = None
    """The scheduler's quality of service."""
    reservation: SchedulerName | None = None
    """A reservation to run in."""
    gpu_type: SchedulerName | None = None
    """The type of GPU, as the scheduler calls it."""
    features: Names = Field(default=[])
    """Features a node must have."""
    ui: UserInterface | None = None
    """What opens: `lab` unless given here or as a field."""
    queue_limit: Duration | None = None
    """After so long in the queue the person is asked whether to go on waiting; sooner where a
    policy or the spawner says so."""
    image: ImageChoice | None = None
    """The container image: a name of the catalogue (`[images.NAME]`), or a reference; the
    spawner's own unless given here, as a field or by a choice."""
    environment: Environment = Field(default={})
    """Environment variables of the server."""
    fields: FieldsSection = FieldsSection()
    """What the person may change."""
    choices: Annotated[dict[str, ChoiceSection], AfterValidator(menu_names)] = Field(
        default={}, max_length=20
    )
    """What the person may choose by name, and what each choice sets; of two choices that set
    the same, the later one counts."""
    platform: Tree = Field(default={})
    """What is said to this kind of spawner alone, with the keys of its section."""
    storage: StorageSection | None = None
    """What is kept when a server stops; nothing of ours if not given."""

    @model_validator(mode="after")
    def _coherent(self) -> "ProfileSection":
        Profile.from_body(self.name, self.body("any"), revision=1)
        return self

    def body(
        self, only_spawner: str, catalogue: Mapping[str, ImageSection] = NO_IMAGES
    ) -> dict[str, Any]:
        """Return what a revision stores; `only_spawner` is where it goes if it does not say."""
        fields = {name: self._field(name) for name in FIELDS}
        return {
            "spawner": self.spawner or only_spawner,
            "title": self.title or {"en": self.name},
            "description": self.description,
            "groups": self.groups,
            "environment": self.environment,
            **({} if self.storage is None else {"storage": _storage(self.storage)}),
            "fields": {name: field for name, field in fields.items() if field is not None},
            **self._parts(catalogue),
        }

    def images(self) -> dict[str, str]:
        """Return the images it speaks of, names and references, by the key that says so."""
        found = {"image": self.image} if self.image else {}
        if field := self.fields.image:
            found |= {"fields.image.default": field.default} if field.default else {}
            found |= {f"fields.image.choices.{n}": each for n, each in enumerate(field.choices)}
        for name, choice in self.choices.items():
            sets = {f"options.{key}": option.set for key, option in choice.options.items()}
            sets |= {"other": choice.other.set} if choice.other else {}
            found |= {
                f"choices.{name}.{key}.set.image": each.image
                for key, each in sets.items()
                if each.image
            }
        return found

    def platforms(self) -> dict[str, dict[str, Any]]:
        """Return all that it may say to its spawner, by the key that says so."""
        found = {"platform": self.platform} if self.platform else {}
        for name, choice in self.choices.items():
            sets = {f"options.{key}": option.set for key, option in choice.options.items()}
            sets |= {"other": choice.other.set} if choice.other else {}
            found |= {
                f"choices.{name}.{key}.set.platform": merged(self.platform, each.platform)
                for key, each in sets.items()
                if each.platform
            }
        return found

    def _parts(self, catalogue: Mapping[str, ImageSection]) -> dict[str, Any]:
        """Return what is stored only where there is some of it."""
        spoken = set(self.images().values())
        field = self.fields.image
        if field is not None and not field.choices and not field.locked:
            spoken |= catalogue.keys()
        parts = {
            "images": [each.body(name) for name, each in catalogue.items() if name in spoken],
            "menus": [choice.body(name) for name, choice in self.choices.items()],
            "platform": self.platform,
        }
        return {name: part for name, part in parts.items() if part}

    def _field(self, name: str) -> dict[str, Any] | None:
        """Return a field as stored: what may be changed of it, or that it is fixed."""
        value = json_of(getattr(self, name))
        if name == FEATURES:
            value = value or None
        section: Section | None = getattr(self.fields, name)
        if section is None:
            return None if value is None else {"default": value, "locked": True}
        field = {key: json_of(each) for key, each in section if each not in (None, [])}
        if isinstance(section, ImageFieldSection) and section.free is not None:
            field["free"] = section.free.body()
        return {"default": value, **field} if value is not None else field


class PolicySection(Section):
    """What some people may have. Of several policies, the first that says something decides."""

    name: Annotated[str, AfterValidator(_name)] | None = None
    """Unique; what a refusal names. Default: made from the groups."""
    groups: list[str] = Field(default=[EVERYONE])
    """To whose members it applies; `*` is everybody."""
    users: list[str] = Field(default=[])
    """To whom it applies besides, by user name; give `groups = []` for only these."""
    profiles: list[str] | Unlimited | None = None
    """The only profiles they may start."""
    named_servers: Count | Unlimited | None = None
    """How many named servers one may have; 5 if no policy says, 0 turns them off."""
    default_server: bool | None = None
    """Whether one may start the server without a name; yes if no policy says."""
    server_name_length: (
        Annotated[int, Field(ge=SHORTEST_SERVER_NAME_LENGTH, le=SERVER_NAME_LENGTH)] | None
    ) = None
    """The longest name of a new server; 30 if no policy says."""
    server_name_pattern: (
        Annotated[str, Field(max_length=200), AfterValidator(regular_expression)] | None
    ) = None
    """A regular expression that the whole name of a new server must match."""
    cpu: Annotated[Number, Field(ge=0.001)] | Unlimited | None = None
    """CPU cores of one server, at most."""
    memory: Annotated[Bytes, Field(ge=2**20)] | Unlimited | None = None
    """Memory of one server, at most."""
    time: Annotated[Duration, Field(ge=timedelta(minutes=1))] | Unlimited | None = None
    """How long one server may be asked for, at most."""
    gpu: Count | Unlimited | None = None
    """GPUs of one server, at most."""
    gpu_types: Names | Unlimited | None = None
    """The only types of GPU they may ask a scheduler for."""
    accounts: Names | Unlimited | None = None
    """The only accounts of a scheduler, or Grid Engine projects, they may use here."""
    partitions: Names | Unlimited | None = None
    """The only partitions of a scheduler, or Grid Engine queues."""
    qos: Names | Unlimited | None = None
    """The only qualities of service of a scheduler."""
    images: Annotated[list[str], Field(max_length=200)] | Unlimited | None = None
    """The only container images that profiles give them: names of the catalogue, or patterns of
    references such as `"registry.example.org/teaching/*"`. Not the spawner's own."""
    storage: Annotated[Bytes, Field(ge=2**20)] | Unlimited | None = None
    """What each volume of theirs may hold, at most."""
    storage_kept: Kept | None = None
    """What is kept of them by profiles with `storage`: `server`, `user` or `none`."""
    environments: bool | None = None
    """Whether they may have persistent environments; yes if no policy says."""
    active_servers: Count | Unlimited | None = None
    """How many servers one person may have running or on their way."""
    group_active_servers: Count | Unlimited | None = None
    """How many servers all to whom this policy applies may have so, taken together."""
    total_active_servers: Count | Unlimited | None = None
    """How many servers everybody may have so, taken together, when one of these starts."""
    idle_timeout: Annotated[Duration, Field(ge=timedelta(minutes=1))] | Unlimited | None = None
    """A server without activity for so long ends."""
    max_age: Annotated[Duration, Field(ge=timedelta(minutes=1))] | Unlimited | None = None
    """A server that has run for so long ends, in use or not."""
    queue_limit: Annotated[Duration, Field(ge=timedelta(seconds=1))] | Unlimited | None = None
    """After so long in the platform's queue the person is asked whether to go on waiting."""
    queue_unanswered: Literal["keep", "cancel"] | None = None
    """What becomes of a server about which nobody answers that; it goes on waiting."""

    def body(self) -> dict[str, Any]:
        """Return what a revision stores."""
        return {key: json_of(value) for key, value in self if key != "name" and value is not None}


def _storage(section: StorageSection) -> dict[str, Any]:
    return {name: json_of(value) for name, value in section}


def policy_names(sections: Sequence[PolicySection]) -> list[str]:
    """Return a name for each: its own, or one made from whom it is about, unique among them."""
    taken = {section.name for section in sections if section.name} | {BUILT_IN}
    names = []
    for section in sections:
        name = section.name or _first_free(_about(section), taken)
        taken.add(name)
        names.append(name)
    return names


def _about(section: PolicySection) -> str:
    if EVERYONE in section.groups:
        return "everyone"
    joined = re.sub(r"[^A-Za-z0-9._+-]+", "-", "+".join([*section.groups, *section.users]))
    return joined.strip("-.+_")[: NAME_LENGTH - 4] or "nobody"


def _first_free(wanted: str, taken: set[str]) -> str:
    name, count = wanted, 1
    while name in taken:
        count += 1
        name = f"{wanted}-{count}"
    return name
