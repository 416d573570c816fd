"""The configuration sections of images and of choices inside a profile."""

import json
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from perijove.domain.menus import VALUE
from perijove.domain.policy import EVERYONE
from perijove.domain.profile import FIELDS
from perijove.kit.config import Duration, Section
from perijove.services.offer_values import (
    Bytes,
    Count,
    Environment,
    Filled,
    ImageChoice,
    Names,
    Number,
    Pattern,
    SchedulerName,
    Texts,
    Tree,
    UserInterface,
    image_reference,
    json_of,
    option_keys,
)


class ImageSection(Section):
    """A container image that profiles offer by name."""

    image: Annotated[str, AfterValidator(image_reference)]
    """What the platform pulls: `registry/path:tag`, or with a digest."""
    title: Texts = Field(default={})
    """Text, or one per language; default: the name."""
    description: Texts = Field(default={})
    """Text, or one per language: what it is for, which languages it has."""
    packages: Annotated[list[Annotated[str, Field(max_length=80)]], Field(max_length=100)] = Field(
        default=[]
    )
    """What is in it, shown as it stands: `["Python 3.13", "Astropy", "R 4.5"]`."""
    groups: list[str] = Field(default=[EVERYONE])
    """Whose members may use it; `*` is everybody."""

    def body(self, name: str) -> dict[str, Any]:
        """Return what a revision of a profile stores."""
        return {
            "name": name,
            "image": self.image,
            "title": self.title or {"en": name},
            "description": self.description,
            "packages": self.packages,
            "groups": self.groups,
        }


class FreeTextSection(Section):
    """What a person may write instead of choosing."""

    pattern: Pattern
    """A regular expression that the whole text must match."""
    title: Texts = Field(default={})
    """What is asked for: text, or one per language."""
    message: Texts = Field(default={})
    """What is said of a text that does not match: text, or one per language."""

    def body(self) -> dict[str, Any]:
        """Return what a revision stores."""
        return {"pattern": self.pattern, "title": self.title, "message": self.message}


class ImageFieldSection(Section):
    """Which image a person may choose."""

    default: ImageChoice | None = None
    """What is taken unless the person chooses; else the profile's own `image`, else the first
    that this person may have. With `free` alone: the spawner's own image."""
    choices: Annotated[list[ImageChoice], Field(max_length=200)] = Field(default=[])
    """Names of the catalogue to choose from, or references; the whole catalogue if not given."""
    free: FreeTextSection | None = None
    """Let the person write a reference, too."""
    locked: bool = False
    """Show the image but do not let it be changed."""


class SettingSection(Section):
    """What a choice sets; a field that it sets cannot be one that the person may change."""

    cpu: Number | Filled | None = None
    """CPU cores."""
    memory: Bytes | Filled | None = None
    """Memory of the whole session."""
    time: Duration | Filled | None = None
    """How long it may run."""
    gpu: Count | Filled | None = None
    """GPUs."""
    image: str | None = None
    """The container image: a name of the catalogue, or a reference."""
    account: SchedulerName | None = None
    """The scheduler's account, or Grid Engine's project."""
    partition: SchedulerName | None = None
    """The scheduler's partition, or Grid Engine's queue."""
    qos: SchedulerName | None = None
    """The scheduler's quality of service."""
    reservation: SchedulerName | None = None
    """A reservation to run in."""
    gpu_type: SchedulerName | None = None
    """The type of GPU, as the scheduler calls it."""
    features: Names | None = None
    """Features a node must have."""
    ui: UserInterface | None = None
    """What opens."""
    queue_limit: Duration | Filled | None = None
    """After so long in the queue the person is asked whether to go on waiting."""
    environment: Environment = Field(default={})
    """Environment variables, added to those of the profile."""
    platform: Tree = Field(default={})
    """Laid over `[profiles.platform]`: tables are merged, lists are replaced."""

    def body(self) -> dict[str, Any]:
        """Return what a revision stores."""
        given = {name: json_of(getattr(self, name)) for name in FIELDS}
        return {
            "fields": {name: value for name, value in given.items() if value is not None},
            "environment": self.environment,
            "platform": self.platform,
        }


class OptionSection(Section):
    """One of the choices."""

    title: Texts = Field(default={})
    """Text, or one per language; default: the key."""
    description: Texts = Field(default={})
    """Text, or one per language."""
    default: bool = False
    """Taken unless the person chooses; the first one if none says so."""
    set: SettingSection = SettingSection()
    """What it sets, over what the profile says."""


class OtherSection(FreeTextSection):
    """A choice that the person writes."""

    set: SettingSection = SettingSection()
    """What it sets; `{value}` stands for what was written."""

    def body(self) -> dict[str, Any]:
        """Return what a revision stores."""
        return {**FreeTextSection.body(self), "set": self.set.body()}


class ChoiceSection(Section):
    """Something to choose by name, each choice with what it sets."""

    title: Texts = Field(default={})
    """Text, or one per language; default: the name."""
    options: Annotated[dict[str, OptionSection], AfterValidator(option_keys)] = Field(
        default={}, max_length=100
    )
    """What to choose from, by key, in the order shown."""
    other: OtherSection | None = None
    """Let the person write something else."""

    @model_validator(mode="after")
    def _one_default(self) -> "ChoiceSection":
        if sum(option.default for option in self.options.values()) > 1:
            raise ValueError("only one option can be the default")
        for option in self.options.values():
            if VALUE in json.dumps(option.set.body()):
                raise ValueError("{value} can stand only in what `other` sets")
        return self

    def body(self, name: str) -> dict[str, Any]:
        """Return what a revision stores."""
        entries = [
            {
                "key": key,
                "title": option.title or {"en": key},
                "description": option.description,
                "set": option.set.body(),
            }
            for key, option in self.options.items()
        ]
        default = next((key for key, option in self.options.items() if option.default), "")
        found = {
            "name": name,
            "title": self.title or {"en": name},
            "entries": entries,
            "default": default,
        }
        return {**found, "other": self.other.body()} if self.other else found
