"""What can be wrong with options, one by one, and the errors that carry them all at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Final

from perijove.domain.errors import Invalid, Refused
from perijove.domain.menus import Menu
from perijove.domain.offer import Objection
from perijove.domain.policy import Limit
from perijove.domain.profile import QUANTITIES, Value, as_json, title

_LONGEST_SHOWN: Final = 60
_LONGEST_WORDS: Final = 500
_MOST_SHOWN: Final = 20
PLATFORM: Final = "platform"
"""The rule of what no policy forbids and the platform does not have."""

SENTENCES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "option-unknown": "profile {profile} has no option {asked}",
        "option-type": "{title}: {asked} is not {limit}",
        "option-too-small": "{title}: {asked} asked, profile {profile} has at least {limit}",
        "option-too-large": "{title}: {asked} asked, profile {profile} has at most {limit}",
        "option-step": "{title}: {asked} is not a multiple of {limit}",
        "option-choice": "{title}: {asked} is none of {limit}",
        "option-locked": "{title}: {asked} asked, profile {profile} has it fixed at {limit}",
        "refused-option": "{title}: {asked} asked, policy {policy} allows at most {limit}",
        "refused-profile": "{title}: profile {profile} needs {asked},"
        " policy {policy} allows {limit}",
        # Of choices and images, see `picks.py` and `bounds.py`.
        "option-text": "{title}: {asked} is not written as it must be",
        "option-image": "{title}: {asked} is no reference of an image,"
        " such as registry.example.org/name:tag",
        "refused-choice": "{choice}: {title} {asked} is needed, policy {policy} allows {limit}",
        "choice-lacks": "{choice}: {title} {asked} is needed, the platform has {limit}",
        "refused-image": "{title}: policy {policy} allows only {limit}",
        "image-not-yours": "{title}: {asked} is only for members of {limit}",
        # What a scheduler has, see `bounds.py`.
        "over-platform": "{title}: {asked} asked, the platform has at most {limit}",
        "platform-lacks": "{title}: profile {profile} needs {asked}, the platform has {limit}",
        # What does not go together, see `combination.py`.
        "over-partition": "{title}: {asked} asked, partition {name} allows at most {limit}",
        "over-queue": "{title}: {asked} asked, queue {name} allows at most {limit}",
        "over-account": "{title}: {asked} asked, account {name} may have at most {limit}",
        "over-project": "{title}: {asked} asked, project {name} may have at most {limit}",
        "over-qos": "{title}: {asked} asked, QOS {name} allows at most {limit}",
        "over-reservation": "{title}: {asked} asked, reservation {name} leaves at most {limit}",
        "over-maintenance": "{title}: maintenance begins at {starts}, before {asked} are over:"
        " choose at most {limit}",
        "over-node": "{title}: {asked} asked, no suitable node has more than {limit}",
        "over-node-in": "{title}: {asked} asked, no suitable node of {partition} has more than"
        " {limit}",
        "no-such-gpu": "no node has {asked} x {gpu_type}",
        "no-such-gpu-in": "no node of {partition} has {asked} x {gpu_type}",
        "no-such-features": "no node has all of {asked}",
        "no-such-features-in": "no node of {partition} has all of {asked}",
        "not-for-account": "account {account} may not use partition {partition}",
        "not-for-project": "project {account} may not use queue {partition}",
        "qos-not-for-account": "account {account} may not use QOS {qos}",
        "qos-not-for-project": "project {account} may not use QOS {qos}",
        "qos-not-for-partition": "partition {partition} does not allow QOS {qos}",
        "qos-not-for-queue": "queue {partition} does not allow QOS {qos}",
        "down-partition": "partition {partition} is down: nothing can start there",
        "down-queue": "queue {partition} is down: nothing can start there",
        "reservation-empty": "no node of the reservation is in {partition}, or none is up",
        "must-name-account": "an account must be chosen",
        "must-name-project": "a project must be chosen",
        # What the scheduler itself says of a request, in its own words.
        "objection": "the scheduler refuses it: {words}",
    }
)
"""In English, by code; the catalogues of the pages are keyed by the same codes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing wrong with what was asked; enough to write the sentence in any language."""

    field: str
    code: str
    """A key of `SENTENCES`."""
    limit: Any
    """JSON value: the bound, the step, the choices, or the fixed value."""
    asked: Any
    """JSON value, or what can be shown of something else."""
    params: Mapping[str, str]
    """Texts that fill the sentence: title, asked, limit, profile, policy."""
    rule: str = ""
    """The rule, when it is a policy that says no."""
    measure: str = ""
    """The field whose unit `limit` and `asked` have, where that is not `field` itself."""
    said: Mapping[str, str] | None = None
    """What the site itself says of it, by language, instead of the sentence."""

    @classmethod
    def of(
        cls,
        *,
        profile: str,
        field: str,
        code: str,
        limit: Value,
        asked: Value,
        kind: str = "",
        params: Mapping[str, str] = MappingProxyType({}),
    ) -> "Fault":
        """
        Return the fault about a field, with its numbers written as people read them.

        `kind` is the spawner's, whose words are used; `params` fill the sentence besides.
        """
        return cls(
            field=field,
            code=code,
            limit=_json(limit),
            asked=_json(asked),
            params={
                **params,
                "title": title(field, kind),
                "limit": _written(field, limit),
                "asked": _written(field, asked),
                "profile": profile,
            },
        )

    @classmethod
    def of_objection(cls, objection: Objection) -> "Fault":
        """Return what a scheduler has against a request, as a fault of the field it names."""
        words = shown(objection.words, longest=_LONGEST_WORDS)
        return cls(
            field=objection.field,
            code="objection",
            limit=None,
            asked=None,
            params={"reason": objection.code, "words": words or objection.code},
        )

    @classmethod
    def of_menu(
        cls,
        menu: Menu,
        *,
        profile: str,
        code: str,
        limit: str,
        asked: str,
        said: Mapping[str, str] | None = None,
    ) -> "Fault":
        """Return what is wrong with a choice of a profile's own."""
        title = menu.title.get("en", menu.name)
        params = {"title": title, "limit": limit, "asked": asked, "profile": profile}
        return cls(field=menu.name, code=code, limit=limit, asked=asked, params=params, said=said)

    def from_menu(self, menu: Menu, entry: str) -> "Fault":
        """Return what is wrong with a field as a fault of the choice that set the field."""
        codes = {"refused-profile": "refused-choice", "platform-lacks": "choice-lacks"}
        return replace(
            self,
            field=menu.name,
            code=codes.get(self.code, self.code),
            params={**self.params, "choice": entry},
            measure=self.field,
        )

    def by_platform(self) -> "Fault":
        """Return this fault as one that no choice and no policy can mend."""
        return replace(self, params={**self.params, "policy": ""}, rule=PLATFORM)

    def by_groups(self, rule: str) -> "Fault":
        """Return this fault as one of not being a member."""
        return replace(self, params={**self.params, "policy": ""}, rule=rule)

    def by(self, limit: Limit) -> "Fault":
        """Return this fault as one that a policy finds."""
        return replace(self, params={**self.params, "policy": limit.policy}, rule=str(limit.rule))

    def __str__(self) -> str:
        if self.said and (said := self.said.get("en")):
            return f"{self.params['title']}: {said}"
        return SENTENCES[self.code].format_map(self.params)


class InvalidOptions(Invalid):
    """Options that a profile does not have; `faults` names each of them."""

    code = "invalid-options"

    def __init__(self, faults: Sequence[Fault]) -> None:
        first = faults[0]
        super().__init__(
            "; ".join(map(str, faults)), field=first.field, limit=first.limit, asked=first.asked
        )
        self.faults = tuple(faults)


class RefusedOptions(Refused):
    """Options that a policy does not allow this person; `faults` names each of them."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        first = faults[0]
        super().__init__(
            "; ".join(map(str, faults)),
            rule=first.rule,
            limit=first.limit,
            asked=first.asked,
            field=first.field,
            policy=first.params["policy"],
            profile=first.params["profile"],
        )
        self.faults = tuple(faults)


def shown(raw: object, *, longest: int = _LONGEST_SHOWN) -> str:
    """Return what a message may show of anything at all: one short line."""
    if isinstance(raw, Mapping):
        return "an object"
    if isinstance(raw, (list, tuple)):
        return "a list"
    if isinstance(raw, int) and raw.bit_length() > 64:
        return "a number beyond all bounds"  # writing it out can take longer than the request
    text = raw[: longest + 1] if isinstance(raw, str) else str(raw)
    line = "".join(character if character.isprintable() else "\ufffd" for character in text)
    return line if len(line) <= longest else f"{line[:longest]}…"


def listed(names: Sequence[str]) -> str:
    """Return what a message shows of a list of names."""
    more = len(names) - _MOST_SHOWN
    return ", ".join([*names[:_MOST_SHOWN], *(["…"] if more > 0 else [])])


def _is_beyond(value: Fraction) -> bool:
    return abs(value) >= 2**63


def _json(value: Value) -> Any:
    if isinstance(value, Fraction) and _is_beyond(value):
        return shown(2**64)
    return as_json(value)


def _written(field: str, value: Value) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        return listed(value)
    return shown(2**64) if _is_beyond(value) else QUANTITIES[field].write(value)
