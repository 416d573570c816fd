"""What can be wrong with options, one by one, and the errors that carry them all at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Final

from perijove.domain.errors import Invalid, Refused
from perijove.domain.policy import Limit
from perijove.domain.profile import QUANTITIES, TITLES, Value, as_json

_LONGEST_SHOWN: Final = 60

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

    @classmethod
    def of(
        cls,
        *,
        profile: str,
        field: str,
        code: str,
        limit: Value,
        asked: Value,
    ) -> "Fault":
        """Return the fault about a field, with its numbers written as people read them."""
        return cls(
            field=field,
            code=code,
            limit=_json(limit),
            asked=_json(asked),
            params={
                "title": TITLES[field],
                "limit": _written(field, limit),
                "asked": _written(field, asked),
                "profile": profile,
            },
        )

    def by(self, limit: Limit) -> "Fault":
        """Return this fault as one that a policy finds."""
        return replace(self, params={**self.params, "policy": limit.policy}, rule=str(limit.rule))

    def __str__(self) -> str:
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


def shown(raw: object) -> str:
    """Return what a message may show of anything at all: one short line."""
    if isinstance(raw, Mapping):
        return "an object"
    if isinstance(raw, (list, tuple)):
        return "a list"
    if isinstance(raw, int) and raw.bit_length() > 64:
        return "a number beyond all bounds"  # writing it out can take longer than the request
    text = raw[: _LONGEST_SHOWN + 1] if isinstance(raw, str) else str(raw)
    line = "".join(character if character.isprintable() else "\ufffd" for character in text)
    return line if len(line) <= _LONGEST_SHOWN else f"{line[:_LONGEST_SHOWN]}…"


def _is_beyond(value: Fraction) -> bool:
    return abs(value) >= 2**63


def _json(value: Value) -> Any:
    if isinstance(value, Fraction) and _is_beyond(value):
        return shown(2**64)
    return as_json(value)


def _written(field: str, value: Value) -> str:
    if isinstance(value, str):
        return value
    return shown(2**64) if _is_beyond(value) else QUANTITIES[field].write(value)
