"""
Names of users and servers: one normal form, and what is allowed.

A name is what people type and what stands in URLs; nothing on a platform is ever derived from
it (design §2). Two spellings that look alike must be one name or one of them invalid.
"""

import hashlib
import re
import unicodedata
from typing import Final
from urllib.parse import unquote

from perijove.domain.errors import Invalid

USER_NAME_BYTES: Final = 255
SERVER_NAME_LENGTH: Final = 30
"""Longest server name; a policy may allow less."""
SHORTEST_SERVER_NAME_LENGTH: Final = 10
"""The least a policy may allow: a letter, a hyphen and eight digits of a hash (see `slug`)."""
DISPLAY_NAME_LENGTH: Final = 255

_SERVER_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_PLAIN = re.compile(r"[a-z][a-z0-9]*")
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories of which nothing is seen: they would make two names look alike."""
_IGNORABLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Letters and marks that Unicode calls ignorable: seen as nothing, whatever their category."""
_DOTS_ONLY = re.compile(r"\.+")
_SHOWN = 60
_ABSURD = 4 * DISPLAY_NAME_LENGTH
"""Longer than anything that could become a name by composition: not worth the work."""


def normalise_user_name(name: str) -> str:
    """
    Return the one form of a user name: compatibility-composed and case-folded.

    What is too long to be a name is returned as it is, for `check_user_name` to refuse.
    """
    if len(name) > _ABSURD:
        return name
    # Folding may undo composition and the reverse (U+0345, U+1E9E…), so go on until it rests.
    while (folded := unicodedata.normalize("NFKC", name.casefold())) != name:
        name = folded
    return name


def check_user_name(name: str) -> str:
    """Return a normalised user name as it is, or raise `Invalid` (wire §2.6.1)."""
    if not _is_user_name(name):
        raise Invalid(
            f"Invalid username: {_shown(name)}", field="name", code="user-name", name=_shown(name)
        )
    return name


def check_server_name(name: str, *, max_length: int = SERVER_NAME_LENGTH) -> str:
    """Return the name of a named server as it is, or raise `Invalid` (wire §2.6.6)."""
    if len(name) > max_length or not _SERVER_NAME.fullmatch(name):
        raise Invalid(
            f"Invalid server_name: {_shown(name)}: 1 to {max_length} lower-case letters and"
            " digits, also with single hyphens between them, beginning with a letter",
            field="server_name",
            code="server-name",
            name=_shown(name),
            limit=max_length,
        )
    return name


def check_display_name(name: str) -> str:
    """Return the composed form of a display name, or raise `Invalid` (wire §2.6.6)."""
    composed = unicodedata.normalize("NFC", name[:_ABSURD])
    if (
        not 1 <= len(composed) <= DISPLAY_NAME_LENGTH
        or not composed.isprintable()
        or " ".join(composed.split()) != composed
    ):
        raise Invalid(
            f"Invalid display_name: {_shown(name)}: 1 to {DISPLAY_NAME_LENGTH} printable"
            " characters with single spaces between words",
            field="display_name",
            code="display-name",
            name=_shown(name),
            limit=DISPLAY_NAME_LENGTH,
        )
    return composed


def slug(display_name: str, *, max_length: int = SERVER_NAME_LENGTH) -> str:
    """
    Return the server name for a display name (wire §4.8).

    A display name that is a plain server name stays; any other becomes what it looks like and
    eight digits of its hash. The first kind has no hyphen and the second always has one, so
    names of the two kinds never meet.
    """
    if len(display_name) <= max_length and _PLAIN.fullmatch(display_name):
        return display_name
    digest = hashlib.sha256(display_name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    ascii_only = unicodedata.normalize("NFKD", display_name).encode("ascii", "ignore").decode()
    stem = re.sub(r"[^a-z0-9]+", "-", ascii_only.lower()).strip("-")
    if not stem[:1].isalpha():
        stem = f"s{stem}"
    return f"{stem[: max_length - 9].rstrip('-')}-{digest}"


def _is_user_name(name: str) -> bool:
    if not name or len(name) > USER_NAME_BYTES or name != name.strip():
        return False
    if _IGNORABLE.search(name):
        return False
    if any(unicodedata.category(character) in _UNSEEN for character in name):
        return False
    return len(name.encode()) <= USER_NAME_BYTES and _is_one_segment(name)


def _is_one_segment(name: str) -> bool:
    """Tell whether a name stays one ordinary path segment, however often a URL is decoded."""
    while "/" not in name and name.isprintable() and not _DOTS_ONLY.fullmatch(name):
        decoded = unquote(name)
        if decoded == name:
            return True
        name = decoded
    return False


def _shown(name: str) -> str:
    """Return a name as a message may show it: one line, not endless."""
    line = "".join(character if character.isprintable() else "\ufffd" for character in name)
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"
