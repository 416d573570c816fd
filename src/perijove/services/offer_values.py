"""Values of the sections of what is offered, as the configuration writes them."""

import json
import re
from datetime import timedelta
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field

from perijove.domain.images import is_image_name, is_reference
from perijove.domain.menus import VALUE
from perijove.domain.profile import MOST_NAMES, as_json, exact, is_name
from perijove.kit.config import Size

T = TypeVar("T")

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OURS = ("JUPYTERHUB_", "JPY_", "PERIJOVE_", "MEM_", "CPU_")
_MENU = re.compile(r"[A-Za-z0-9_]+(?:-[A-Za-z0-9_]+)*")
_MENU_LENGTH = 40
_LANGUAGES = ("en", "fr", "es", "pt")
_REPETITION = re.compile(r"[*+}?]\)*[*+{]")


def _texts(value: Any) -> Any:
    return {"en": value} if isinstance(value, str) else value


def _known_languages(value: dict[str, str]) -> dict[str, str]:
    if unknown := sorted(value.keys() - set(_LANGUAGES)):
        raise ValueError(f"no such language: {', '.join(unknown)}; there are en, fr, es, pt")
    return value


def _environment(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if not _VARIABLE.fullmatch(name) or "\0" in text:
            raise ValueError(f"{name[:40]!r} cannot be an environment variable")
        if name.startswith(_OURS):
            raise ValueError(f"{name} is the hub's own: it tells the server who and where it is")
    return value


def regular_expression(value: str) -> str:
    """Refuse what is no regular expression, or one that can take for ever."""
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from None
    if _REPETITION.search(value):
        raise ValueError("must not repeat a repetition: such patterns can take for ever")
    return value


def _scheduler_name(value: str) -> str:
    if not is_name(value):
        raise ValueError(f"{value[:40]!r} cannot be a name of a scheduler")
    return value


def _filled(value: str) -> str:
    if VALUE not in value:
        raise ValueError(f"must be a value, or hold {VALUE}")
    return value


def image_reference(value: str) -> str:
    """Refuse what cannot be pulled as an image."""
    if not is_reference(value):
        raise ValueError(
            f"{value[:60]!r} is no reference of an image with a registry, a path, a tag or a digest"
        )
    return value


def _image(value: str) -> str:
    if not is_image_name(value):
        return image_reference(value)
    return value


def _plain_tree(value: dict[str, Any]) -> dict[str, Any]:
    """Refuse what JSON cannot hold: dates, and numbers that are none."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError("must be made of texts, numbers, lists and tables only") from None
    return value


def menu_names(value: dict[str, T]) -> dict[str, T]:
    """Refuse what no choice can be called."""
    for name in value:
        if len(name) > _MENU_LENGTH or not _MENU.fullmatch(name):
            raise ValueError(
                f"{name[:40]!r} must be at most {_MENU_LENGTH} letters, digits, '_' and single '-'"
            )
    return value


def option_keys(value: dict[str, T]) -> dict[str, T]:
    """Refuse what no option of a choice, and no image, can be called."""
    for key in value:
        if not is_image_name(key):
            raise ValueError(f"{key[:40]!r} must be letters, digits, '.', '_' and '-'")
    return value


def _not_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


Number = Annotated[float, BeforeValidator(_not_bool), Field(allow_inf_nan=False)]
Count = Annotated[int, BeforeValidator(_not_bool), Field(ge=0)]
Bytes = Annotated[Size, BeforeValidator(_not_bool)]
Texts = Annotated[dict[str, str], BeforeValidator(_texts), AfterValidator(_known_languages)]
Unlimited = Literal["unlimited"]
Filled = Annotated[str, Field(max_length=60), AfterValidator(_filled)]
"""What a person wrote, as `{value}` or with a unit: `"{value} GiB"`."""
Environment = Annotated[dict[str, str], AfterValidator(_environment)]
Tree = Annotated[dict[str, Any], AfterValidator(_plain_tree)]
ImageChoice = Annotated[str, AfterValidator(_image)]
Pattern = Annotated[str, Field(max_length=500), AfterValidator(regular_expression)]
SchedulerName = Annotated[str, AfterValidator(_scheduler_name)]
Names = Annotated[list[SchedulerName], Field(max_length=MOST_NAMES)]
UserInterface = Literal["lab", "notebook", "terminal"]


def json_of(value: Any) -> Any:
    """Return a value of a section as a revision stores it."""
    if isinstance(value, timedelta):
        return as_json(exact(value.total_seconds()))
    if isinstance(value, float):
        return as_json(exact(value))
    return [json_of(each) for each in value] if isinstance(value, list) else value
