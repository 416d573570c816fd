"""Words about options: what a field is called, how its value is written, what is wrong with it."""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from perijove.domain.faults import Fault
from perijove.domain.market import is_shard
from perijove.web.texts.catalogue import Texts
from perijove.web.texts.reasons import CANNOT, WAITING
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
    "refused-choice": N_(
        "This choice needs %(asked)s; you may have %(limit)s here (rule: %(policy)s)."
    ),
    "choice-lacks": N_("This choice needs %(asked)s; the computing system has %(limit)s for you."),
    "option-text": N_("This cannot be used as it is written: %(asked)s."),
    "option-image": N_(
        "This is no address of an image: %(asked)s."
        " Write one such as registry.example.org/name:tag."
    ),
    "refused-image": N_("You may use only these images here: %(limit)s (rule: %(policy)s)."),
    "image-not-yours": N_("The image %(asked)s is only for members of: %(limit)s."),
    "over-platform": N_(
        "%(asked)s is too much: the computing system has at most %(limit)s for you."
    ),
    "platform-lacks": N_(
        "This profile needs %(asked)s; the computing system has %(limit)s for you."
    ),
    "over-partition": N_("%(asked)s is too much: partition %(name)s allows at most %(limit)s."),
    "over-queue": N_("%(asked)s is too much: queue %(name)s allows at most %(limit)s."),
    "over-account": N_("%(asked)s is too much: account %(name)s may have at most %(limit)s."),
    "over-project": N_("%(asked)s is too much: project %(name)s may have at most %(limit)s."),
    "over-qos": N_("%(asked)s is too much: QOS %(name)s allows at most %(limit)s."),
    "over-reservation": N_("%(asked)s is too much: reservation %(name)s leaves at most %(limit)s."),
    "over-maintenance": N_(
        "Maintenance begins on %(starts)s, before it would end. Choose at most %(limit)s."
    ),
    "over-node": N_("%(asked)s is too much: no suitable node has more than %(limit)s."),
    "over-node-in": N_(
        "%(asked)s is too much: no suitable node of %(partition)s has more than %(limit)s."
    ),
    "no-such-gpu": N_("No suitable node has %(asked)s."),
    "no-such-gpu-in": N_("No suitable node of %(partition)s has %(asked)s."),
    "no-such-features": N_("No node has all of these together: %(asked)s."),
    "no-such-features-in": N_("No node of %(partition)s has all of these together: %(asked)s."),
    "not-for-account": N_("Account %(account)s may not use partition %(partition)s."),
    "not-for-project": N_("Project %(account)s may not use queue %(partition)s."),
    "qos-not-for-account": N_("Account %(account)s may not use QOS %(qos)s."),
    "qos-not-for-project": N_("Project %(account)s may not use QOS %(qos)s."),
    "qos-not-for-partition": N_("Partition %(partition)s does not allow QOS %(qos)s."),
    "qos-not-for-queue": N_("Queue %(partition)s does not allow QOS %(qos)s."),
    "down-partition": N_("Partition %(partition)s is closed at the moment; choose another."),
    "down-queue": N_("Queue %(partition)s is closed at the moment; choose another."),
    "reservation-empty": N_("The reservation has no node there that works; choose another."),
    "must-name-account": N_("Choose an account."),
    "must-name-project": N_("Choose a project."),
    "objection": N_("The scheduler refuses it: %(words)s"),
}
"""By the code of the fault."""


_TYPE_PART: Final = re.compile(r"\d+g\.\d+gb(?:\+\w+)?", re.IGNORECASE)
"""A MIG slice, which its maker writes in small letters."""


def field_label(texts: Texts, name: str) -> str:
    """Return what a field, or a scheduler's word for one, is called."""
    labels = {
        "image": texts.gettext("Image"),
        "account": texts.gettext("Account"),
        "project": texts.gettext("Project"),
        "partition": texts.gettext("Partition"),
        "queue": texts.gettext("Queue"),
        "qos": texts.gettext("Quality of service"),
        "reservation": texts.gettext("Reservation"),
        "gpu_type": texts.gettext("GPU type"),
        "gpu_configuration": texts.gettext("GPU configuration"),
        "features": texts.gettext("Node features"),
        "cpu": texts.gettext("Cores"),
        "memory": texts.gettext("Memory"),
        "time": texts.gettext("Time"),
        "gpu": texts.gettext("GPUs"),
        "ui": texts.gettext("User interface"),
        "queue_limit": texts.gettext("Ask me after waiting for"),
    }
    return labels.get(name, name)


def option_text(texts: Texts, name: str, value: Any) -> str:
    """Write the value of an option: cores, bytes, seconds, GPUs, or a word."""
    if not isinstance(value, (int, float)):
        return _words(texts, value)
    match name:
        case "cpu":
            return texts.cores(value)
        case "memory":
            return texts.size(int(value))
        case "time" | "queue_limit":
            return texts.duration(value)
        case "gpu":
            return texts.gpus(int(value))
    return texts.number(value)


def _words(texts: Texts, value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or texts.gettext("none of it")
    return str(value)


def gpu_model(texts: Texts, kind: str) -> str:
    """Write a scheduler's word for a type of GPU as people know it: A100, A100 1g.5gb, T4."""
    if is_shard(kind):
        whole = kind.partition(":")[2]
        return texts.gettext("%(model)s share", model=gpu_model(texts, whole))
    parts = [
        part if _TYPE_PART.fullmatch(part) else part.upper() for part in kind.split("_") if part
    ]
    return " ".join(parts) or "GPU"


def gpu_text(texts: Texts, count: int, kind: str) -> str:
    """Write so many GPUs of a type, as in a shop's list."""
    if not count:
        return texts.pgettext("GPU", "None")
    return f"{texts.number(count)} \N{MULTIPLICATION SIGN} {gpu_model(texts, kind)}"


def gpus_text(texts: Texts, count: int, kind: str) -> str:
    """Write ``2 GPUs``, or of which type they are."""
    return gpu_text(texts, count, kind) if kind else texts.gpus(count)


def moment(texts: Texts, at: datetime) -> str:
    """Write an instant with its day, whatever today is."""
    return texts.when(at, at - timedelta(days=1))


def counted(texts: Texts, name: str, unit: str) -> tuple[str, str]:
    """Return how one and several of what a form asks for are said, with ``#`` for the number."""
    match name:
        case "cpu":
            return texts.cores(1).replace("1", "#"), texts.cores(2).replace("2", "#")
        case "gpu":
            return texts.gpus(1).replace("1", "#"), texts.gpus(2).replace("2", "#")
        case "queue_limit":
            asks = texts.gettext("asks after %(time)s", time=f"# {unit}")
            return asks, asks
    return (f"# {unit}", f"# {unit}") if unit else ("", "")


def unit_text(texts: Texts, name: str, unit: str) -> str:
    """Write the unit that a form asks in."""
    if name in ("time", "queue_limit"):
        return texts.duration_unit(unit)
    return texts.size_unit(unit) if name == "memory" else ""


def fault_said(texts: Texts, fault: Fault) -> str:
    """Say what is wrong with an option; what the site itself says of it comes first."""
    if fault.said and (said := texts.choose(fault.said)):
        return said
    measure = fault.measure or fault.field
    params = {
        **fault.params,
        "limit": option_text(texts, measure, fault.limit),
        "asked": option_text(texts, measure, fault.asked),
    }
    if "gpu_type" in params:
        kind = "" if params["gpu_type"] == "GPU" else params["gpu_type"]
        params["asked"] = gpu_text(texts, fault.asked, kind)
    if "starts" in params:
        params["starts"] = moment(texts, datetime.fromisoformat(params["starts"]))
    reason = params.get("reason", "")
    sentence = WAITING.get(reason) or CANNOT.get(reason)
    if sentence is not None and "%(" not in sentence.text:
        said, words = texts.gettext(sentence.text), params["words"]
        return said if words == reason else f"{said} ({words})"
    return texts.gettext(FAULTS[fault.code], **params)
