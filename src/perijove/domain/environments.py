"""
Persistent environments: what a person installed once and finds again in every later session.

An environment is a virtual one of Python's, or a conda prefix that somebody made by hand. It
lies on storage that outlives the session; the hub knows its name, what was asked to be in it
and, once it is built, exactly what is (its lock).
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from perijove.domain.errors import Invalid

NAME_LENGTH: Final = 40
MOST_PACKAGES: Final = 200
LONGEST_REQUIREMENT: Final = 300
LONGEST_LOCK: Final = 200_000
FOLDER: Final = ".perijove/environments"
"""Where they lie below a home or on a volume."""
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?")
_RESERVED: Final = frozenset({"python3", "base", "con", "nul"})
"""`python3` is the name of the kernel that every session has."""


class State(StrEnum):
    """How far an environment is."""

    WANTED = "wanted"  #: Waits for a session that can build it.
    BUILDING = "building"
    READY = "ready"
    FAILED = "failed"
    REMOVING = "removing"  #: Waits for a session that can remove it.


class Maker(StrEnum):
    """Who made it, and so who may change it."""

    HUB = "hub"  #: It was asked for here, and a session built it.
    HAND = "hand"  #: It was found where environments lie; only its owner touches it.


def check_name(name: str) -> str:
    """Return a name that can be a folder and a kernel everywhere; raises `Invalid`."""
    if len(name) > NAME_LENGTH or not _NAME.fullmatch(name) or name in _RESERVED:
        raise Invalid(
            f"{name[:60]!r} cannot be an environment's name: 1 to {NAME_LENGTH} lower-case"
            " letters, digits, '-' and '_'",
            field="name",
            code="environment-name",
            name=_shown(name),
            limit=NAME_LENGTH,
        )
    return name


def check_packages(lines: Iterable[str]) -> Sequence[str]:
    """
    Return requirements as they are to be asked for, one each (PEP 508); raises `Invalid`.

    Blank lines and comments are left out; options of pip are none.
    """
    kept: dict[tuple[str, str], str] = {}
    for raw in lines:
        line = re.sub(r"(?:^|\s)#.*$", "", raw).strip()
        if not line:
            continue
        if len(line) > LONGEST_REQUIREMENT:
            raise _bad_package(line)
        found = _requirement(line, "packages")
        kept[canonicalize_name(found.name), str(found.marker or "")] = str(found)
        if len(kept) > MOST_PACKAGES:
            raise Invalid(
                f"at most {MOST_PACKAGES} packages",
                field="packages",
                code="environment-packages",
                limit=MOST_PACKAGES,
            )
    return list(kept.values())


def check_lock(text: str) -> str:
    """
    Return a list of exact versions, one in each line and nothing else; raises `Invalid`.

    Remarks are left out: to pip they can name the file's encoding, and by it mean anything.
    """
    if len(text) > LONGEST_LOCK:
        raise Invalid(
            f"a lock has at most {LONGEST_LOCK} characters", field="lock", code="environment-lock"
        )
    lines = _lines_of(text)
    for found in _locked(lines):
        is_exact = [each.operator for each in found.specifier] in (["=="], ["==="])
        if not is_exact and found.url is None:
            raise Invalid(
                f"{_shown(str(found))!r} is no exact version",
                field="lock",
                code="environment-not-exact",
                line=_shown(str(found)),
            )
    return "".join(f"{line}\n" for line in lines)


def check_from_index(lock: str, packages: Iterable[str]) -> None:
    """
    Refuse what does not come from the package index, by name and version; raises `Invalid`.

    For a list that somebody else made: a file or an address of theirs would be run as one's own.
    """
    for found in [*_locked(_lines_of(lock)), *map(Requirement, packages)]:
        if found.url is not None:
            raise Invalid(
                f"{found.name} does not come from the package index",
                code="environment-elsewhere",
                package=found.name[:80],
            )


def printable(text: str) -> str:
    """Return what a program said without what is not for the eye, such as colours."""
    plain = re.sub(r"\x1b\[[0-9;?]*[ -/]*[@-~]", "", text)
    return "".join(each for each in plain if each.isprintable() or each in "\n\t")


def _lines_of(lock: str) -> Sequence[str]:
    """Return what pip would take for lines, also behind its rarer ends, and for no remark."""
    lines = map(str.strip, lock.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _locked(lines: Iterable[str]) -> Iterator[Requirement]:
    return (_requirement(line, "lock") for line in lines)


def _requirement(line: str, field: str) -> Requirement:
    try:
        found = Requirement(line)
    except InvalidRequirement:
        raise _bad_package(line, field) from None
    if not line.replace("\t", " ").isprintable():  # Nothing that a database cannot keep.
        raise _bad_package(line, field)
    return found


def _bad_package(line: str, field: str = "packages") -> Invalid:
    shown = _shown(line)
    return Invalid(
        f"{shown!r} is not a package, such as numpy or numpy>=2",
        field=field,
        code="environment-package",
        line=shown,
    )


def _shown(text: str) -> str:
    return " ".join(printable(text).split())[:80]
