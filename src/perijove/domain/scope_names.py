"""The names of scopes, what each implies, and the scopes that a configuration may add."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from perijove.domain.errors import Invalid

INHERIT: Final = "inherit"
"""In a token: everything its owner may do."""
SELF: Final = "self"
"""In a role: everything a person may do with what is theirs."""
NO_SCOPE: Final = "(no_scope)"
"""Nothing but to be told who one is."""
META: Final = frozenset({INHERIT, SELF, NO_SCOPE})

_IMPLIED: Final[Mapping[str, tuple[str, ...]]] = {
    "admin-ui": (),
    "admin:users": ("admin:auth_state", "users", "read:roles:users", "delete:users"),
    "admin:auth_state": (),
    "users": ("read:users", "list:users", "users:activity"),
    "read:users": ("read:users:name", "read:users:groups", "read:users:activity"),
    "read:users:name": (),
    "read:users:groups": (),
    "read:users:activity": (),
    "list:users": ("read:users:name",),
    "users:activity": ("read:users:activity",),
    "read:roles:users": (),
    "delete:users": (),
    "admin:servers": ("admin:server_state", "servers"),
    "admin:server_state": (),
    "servers": ("read:servers", "start:servers", "delete:servers"),
    "read:servers": ("read:users:name",),
    "start:servers": (),
    "delete:servers": (),
    "tokens": ("read:tokens",),
    "read:tokens": (),
    "admin:groups": ("groups", "read:roles:groups", "delete:groups"),
    "groups": ("read:groups", "list:groups"),
    "read:groups": ("read:groups:name",),
    "read:groups:name": (),
    "list:groups": ("read:groups:name",),
    "read:roles:groups": (),
    "delete:groups": (),
    "admin:services": ("list:services", "read:services", "read:roles:services"),
    "list:services": ("read:services:name",),
    "read:services": ("read:services:name",),
    "read:services:name": (),
    "read:roles:services": (),
    "read:roles": ("read:roles:users", "read:roles:services", "read:roles:groups"),
    "shares": ("access:servers", "read:shares", "users:shares", "groups:shares"),
    "read:shares": (),
    "users:shares": ("read:users:shares",),
    "read:users:shares": (),
    "groups:shares": ("read:groups:shares",),
    "read:groups:shares": (),
    "read:hub": (),
    "access:servers": (),
    "access:services": (),
    "proxy": (),
    "shutdown": (),
    "read:metrics": (),
}

SELF_SCOPES: Final = (
    "read:users",
    "users:shares",
    "read:shares",
    "users:activity",
    "servers",
    "tokens",
    "access:servers",
)

_CUSTOM_NAME = re.compile(r"custom:[a-z0-9][a-z0-9_\-*:]+[a-z0-9_*]")
_ROLE_NAME = re.compile(r"[a-z][a-z0-9\-_~.]{1,253}[a-z0-9]")


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomScope:
    """A scope that the configuration defines; the hub carries it and attaches no meaning."""

    description: str
    subscopes: tuple[str, ...] = ()


class Catalogue:
    """All scope names there are, and what each implies."""

    __slots__ = ("_closure",)

    def __init__(self, custom: Mapping[str, CustomScope] = MappingProxyType({})) -> None:
        """Add `custom` scopes to the built-in ones; raises `Invalid` naming the faulty one."""
        for name, definition in custom.items():
            _check_custom(name, definition, custom)
        implied = {**_IMPLIED, **{name: made.subscopes for name, made in custom.items()}}
        self._closure = {name: _close(name, implied) for name in implied}

    def __contains__(self, name: str) -> bool:
        return name in self._closure

    def implied(self, name: str) -> frozenset[str]:
        """Return `name` and all it implies; nothing for an unknown name."""
        return self._closure.get(name, frozenset())

    def names(self) -> Collection[str]:
        """Return every name, the metascopes aside."""
        return self._closure.keys()


def _check_custom(name: str, made: CustomScope, custom: Mapping[str, CustomScope]) -> None:
    if not _CUSTOM_NAME.fullmatch(name):
        raise Invalid(
            f"custom scope {name!r} must be 'custom:' and at least three of a-z 0-9 _ - * :",
            code="scope-name",
            scope=name,
        )
    if not made.description:
        raise Invalid(f"custom scope {name!r} has no description", code="scope-name", scope=name)
    for subscope in made.subscopes:
        if subscope not in custom:
            raise Invalid(
                f"custom scope {name!r} implies {subscope!r}, which is not a custom scope",
                code="scope-name",
                scope=name,
            )


def _close(name: str, implied: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    found: set[str] = set()
    waiting = [name]
    while waiting:
        if (each := waiting.pop()) not in found:
            found.add(each)
            waiting.extend(implied[each])
    return frozenset(found)


STANDARD: Final = Catalogue()
"""The scopes of the wire, without custom ones."""


def check_role_name(name: str) -> None:
    """Raise `Invalid` unless `name` may name a role."""
    if not _ROLE_NAME.fullmatch(name):
        raise Invalid(
            f"role name {name!r} must have 3 to 255 of a-z 0-9 - _ ~ . and begin with a letter",
            code="role-name",
            role=name,
        )
