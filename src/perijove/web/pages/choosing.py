"""What is chosen by name on the options page: images, and choices of a profile's own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from perijove.domain.forms import OTHER
from perijove.domain.images import FreeText
from perijove.domain.menus import Menu
from perijove.domain.profile import IMAGE, Profile
from perijove.web.texts import Texts
from perijove.web.texts.options import field_label, gpus_text, option_text

_MOST_CARDS: Final = 8
"""More than so many choices are a list that opens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One entry of a list to choose from."""

    value: str
    text: str
    chosen: bool
    verbatim: bool = False
    about: str = ""
    """What is said under it."""
    words: Sequence[str] = ()
    """What is in it, one by one."""
    says: str = ""
    """What choosing it asks for, where that is more than `text`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldView:
    """One thing that may be changed."""

    name: str
    label: str
    kind: str
    """``number``, ``text``, ``choice``, ``cards``, ``several`` or ``fixed``."""
    value: str = ""
    unit: str = ""
    one: str = ""
    many: str = ""
    """How one and several are said, with ``#`` for the number."""
    minimum: str = ""
    maximum: str = ""
    step: str = "any"
    choices: Sequence[Option] = ()
    hint: str = ""
    error: str = ""
    factor: float = 1
    """What one of it is in the schema's unit."""
    verbatim: bool = False
    """The label is the site's own, not ours."""
    other: "Written | None" = None
    """What may be written instead of a choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A text that may be written instead of a choice."""

    label: str
    value: str
    chosen: bool
    verbatim: bool = False
    """The label is the site's own, not ours."""


def menu_view(
    texts: Texts,
    profile: Profile,
    menu: Menu,
    described: Mapping[str, Any],
    typed: Mapping[str, str],
    error: str,
) -> FieldView:
    """Return a choice of the profile's own: each entry with what it sets."""
    keys = described.get("enum", described.get("examples", ()))
    value = typed.get(menu.name, "")
    options = []
    for key, sets in zip(keys, described["x-sets"], strict=True):
        entry = menu.find(key)
        assert entry is not None
        title = texts.choose(entry.title, fallback=key)
        parts = [_set_text(texts, profile, name, sets) for name in sets if name != "gpu_type"]
        about = texts.choose(entry.description)
        options.append(
            Option(
                value=key,
                text=title,
                chosen=key == value,
                verbatim=True,
                about=about,
                words=parts,
                says=" \N{MIDDLE DOT} ".join([title, *parts]),
            )
        )
    free = menu.other.rule if menu.other else None
    label = texts.choose(menu.title, fallback=menu.name)
    view = _view(texts, menu.name, label, options, free, typed, error)
    return replace(view, verbatim=True)


def image_view(
    texts: Texts,
    profile: Profile,
    described: Mapping[str, Any],
    typed: Mapping[str, str],
    error: str,
) -> FieldView | None:
    """Return the images to choose from, with what the catalogue says of them."""
    names = described.get("enum", described.get("examples", ()))
    value = typed.get(IMAGE, "")
    options = []
    for name in names:
        image = profile.images.get(name)
        options.append(
            Option(
                value=name,
                text=image_title(texts, profile, name),
                chosen=name == value,
                verbatim=True,
                about=texts.choose(image.description) if image else "",
                words=image.packages if image else (),
            )
        )
    free = profile.fields[IMAGE].free
    if not options and free is None:
        return None
    return _view(texts, IMAGE, field_label(texts, IMAGE), options, free, typed, error)


def image_title(texts: Texts, profile: Profile, name: str) -> str:
    """Return what an image is called, by its name in the catalogue or its reference."""
    image = profile.images.get(name)
    return texts.choose(image.title, fallback=name) if image else name


def _set_text(texts: Texts, profile: Profile, name: str, sets: Mapping[str, Any]) -> str:
    if name == IMAGE:
        return image_title(texts, profile, sets[name])
    if name == "gpu":
        return gpus_text(texts, sets[name], sets.get("gpu_type", ""))
    return option_text(texts, name, sets[name])


def _view(
    texts: Texts,
    name: str,
    label: str,
    options: Sequence[Option],
    free: FreeText | None,
    typed: Mapping[str, str],
    error: str,
) -> FieldView:
    other = None if free is None else _written(texts, name, options, free, typed)
    if other is not None and not options:
        return FieldView(
            name=name,
            label=label,
            kind="text",
            value=other.value,
            hint=texts.choose(free.title) if free else "",
            error=error,
        )
    return FieldView(
        name=name,
        label=label,
        kind="cards" if len(options) <= _MOST_CARDS else "choice",
        choices=options,
        error=error,
        other=other,
    )


def _written(
    texts: Texts, name: str, options: Sequence[Option], free: FreeText, typed: Mapping[str, str]
) -> Written:
    value = typed.get(name, "")
    beside = typed.get(name + OTHER, "")
    is_listed = any(option.value == value for option in options)
    written = beside if value == OTHER or is_listed else value
    return Written(
        label=texts.choose(free.title) or texts.gettext("Something else"),
        value=written,
        chosen=value == OTHER or bool(value and not is_listed),
        verbatim=bool(texts.choose(free.title)),
    )
