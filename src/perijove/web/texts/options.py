"""Words about options: what a field is called, how its value is written, what is wrong with it."""

from collections.abc import Mapping
from typing import Any, Final

from perijove.domain.faults import Fault
from perijove.web.texts.catalogue import Texts
from perijove.web.texts.sentence import N_

FAULTS: Final[Mapping[str, str]] = {
    "option-unknown": N_("This profile has no option called %(asked)s."),
    "option-type": N_("This is not a number: %(asked)s. Write one such as 4 or 1.5."),
    "option-too-small": N_("%(asked)s is too little: this profile has at least %(limit)s."),
    "option-too-large": N_("%(asked)s is too much: this profile has at most %(limit)s."),
    "option-step": N_("%(asked)s does not fit: only multiples of %(limit)s are possible."),
    "option-choice": N_("%(asked)s is not one of the choices: %(limit)s."),
    "option-locked": N_("This is fixed at %(limit)s in this profile."),
    "refused-option": N_(
        "%(asked)s is too much: you may have at most %(limit)s here (rule: %(policy)s)."
    ),
    "refused-profile": N_(
        "This profile needs %(asked)s; you may have %(limit)s here (rule: %(policy)s)."
    ),
}
"""By the code of the fault."""


def field_label(texts: Texts, name: str) -> str:
    """Return what a field is called."""
    labels = {
        "cpu": texts.gettext("Cores"),
        "memory": texts.gettext("Memory"),
        "time": texts.gettext("Time"),
        "gpu": texts.gettext("GPUs"),
        "ui": texts.gettext("User interface"),
    }
    return labels.get(name, name)


def option_text(texts: Texts, name: str, value: Any) -> str:
    """Write the value of an option: cores, bytes, seconds, GPUs, or a word."""
    if not isinstance(value, (int, float)):
        return str(value)
    match name:
        case "cpu":
            return texts.cores(value)
        case "memory":
            return texts.size(int(value))
        case "time":
            return texts.duration(value)
        case "gpu":
            return texts.gpus(int(value))
    return texts.number(value)


def counted(texts: Texts, name: str, unit: str) -> tuple[str, str]:
    """Return how one and several of what a form asks for are said, with ``#`` for the number."""
    match name:
        case "cpu":
            return texts.cores(1).replace("1", "#"), texts.cores(2).replace("2", "#")
        case "gpu":
            return texts.gpus(1).replace("1", "#"), texts.gpus(2).replace("2", "#")
    return (f"# {unit}", f"# {unit}") if unit else ("", "")


def unit_text(texts: Texts, name: str, unit: str) -> str:
    """Write the unit that a form asks in."""
    if name == "time":
        return texts.duration_unit(unit)
    return texts.size_unit(unit) if name == "memory" else ""


def fault_said(texts: Texts, fault: Fault) -> str:
    """Say what is wrong with an option."""
    params = {
        **fault.params,
        "limit": option_text(texts, fault.field, fault.limit),
        "asked": option_text(texts, fault.field, fault.asked),
    }
    return texts.gettext(FAULTS[fault.code], **params)
