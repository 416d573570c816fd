"""
Scopes: what a credential may do. Pure functions over immutable values.

::

    "read:users!user" ──parse──► Scope ──expand(owner)──► Scopes ──decide(target)──► Verdict
                                                     └──intersect──► Scopes of a token

A scope has a name and perhaps a limit; holding several with different limits means their
union. `None` as a limit stands for "everywhere" and is what contains everything.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from perijove.domain.errors import Forbidden, Invalid
from perijove.domain.scope_names import INHERIT, META, SELF, SELF_SCOPES, STANDARD, Catalogue


class LimitKind(StrEnum):
    """What a scope can be limited to."""

    USER = "user"
    GROUP = "group"
    SERVER = "server"
    SERVICE = "service"


_KINDS: Final = {str(kind): kind for kind in LimitKind}


@dataclass(frozen=True, slots=True)
class Limit:
    """
    One thing a scope is limited to; also names the target of a request.

    An empty value (``!user``, ``!service``, ``!server``) stands for the owner's own and is
    resolved by `expand`.
    """

    kind: LimitKind
    value: str

    @property
    def is_bare(self) -> bool:
        """True while the owner has not been filled in."""
        return not self.value

    def __str__(self) -> str:
        return f"{self.kind}={self.value}" if self.value else str(self.kind)


@dataclass(frozen=True, slots=True)
class Scope:
    """One permission, perhaps limited: ``servers!user=ann``."""

    name: str
    limit: Limit | None = None

    def __str__(self) -> str:
        return self.name if self.limit is None else f"{self.name}!{self.limit}"


Members = Mapping[str, Collection[str]]
"""User names by group name, for the groups that somebody's limits name."""

NOBODY: Final[Members] = MappingProxyType({})


def parse(text: str, catalogue: Catalogue = STANDARD) -> Scope:
    """Read one scope as roles, tokens and requests write it; raises `Invalid` naming the fault."""
    name, bang, limit = text.partition("!")
    if name not in catalogue and name not in META:
        raise _unknown(text, f"there is no scope {name!r}")
    if not bang:
        return Scope(name)
    if name in META:
        raise _unknown(text, f"{name!r} takes no filter")
    return Scope(name, _parse_limit(text, limit))


def _parse_limit(text: str, limit: str) -> Limit:
    word, equals, value = limit.partition("=")
    kind = _KINDS.get(word)
    if kind is None:
        raise _unknown(text, f"filter {word!r} is not one of {', '.join(_KINDS)}")
    if equals and not value:
        raise _unknown(text, f"filter {word!r} has an empty value")
    if kind == LimitKind.SERVER and equals and "/" not in value:
        raise _unknown(text, "a server is written user/server, the default one user/")
    if kind == LimitKind.GROUP and not equals:
        raise _unknown(text, "filter 'group' needs a value")
    return Limit(kind, value)


def _unknown(text: str, fault: str) -> Invalid:
    return Invalid(f"scope {text!r}: {fault}", code="scope-unknown", scope=text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whom bare limits and metascopes mean. `server` is ``user/server``."""

    user: str | None = None
    service: str | None = None
    server: str | None = None

    def resolve(self, limit: Limit) -> Limit | None:
        """Fill in a bare limit; None when there is no such owner."""
        if not limit.is_bare:
            return limit
        value = {
            LimitKind.USER: self.user,
            LimitKind.SERVICE: self.service,
            LimitKind.SERVER: self.server,
        }.get(limit.kind)
        return None if value is None else Limit(limit.kind, value)


Limits = frozenset[Limit | None]

EVERYWHERE: Final[Limits] = frozenset({None})
NOWHERE: Final[Limits] = frozenset()


@dataclass(frozen=True, slots=True)
class Scopes:
    """
    Expanded scopes: for each name where it is held.

    In normal form: no name is held nowhere, and who holds a name everywhere holds it only so.
    """

    held: Mapping[str, Limits] = field(default_factory=lambda: MappingProxyType({}))

    def limits(self, name: str) -> Limits:
        """Return where `name` is held."""
        return self.held.get(name, NOWHERE)

    def texts(self) -> list[str]:
        """Return them as text, sorted."""
        return sorted(str(Scope(name, limit)) for name, all_ in self.held.items() for limit in all_)

    def groups(self) -> frozenset[str]:
        """Return the groups that limits name: whose members must be known to decide."""
        return frozenset(
            limit.value
            for limits in self.held.values()
            for limit in limits
            if limit is not None and limit.kind == LimitKind.GROUP
        )

    def __or__(self, other: "Scopes") -> "Scopes":
        return _normal(
            {
                name: self.limits(name) | other.limits(name)
                for name in self.held.keys() | other.held.keys()
            }
        )

    def __bool__(self) -> bool:
        return bool(self.held)


def _normal(held: Mapping[str, Iterable[Limit | None]]) -> Scopes:
    normal: dict[str, Limits] = {}
    for name, limits in held.items():
        found = frozenset(limits)
        if found:
            normal[name] = EVERYWHERE if None in found else found
    return Scopes(normal)


@lru_cache(maxsize=4096)
def expand(texts: frozenset[str], owner: Owner, catalogue: Catalogue = STANDARD) -> Scopes:
    """
    Return all that `texts` allow in the hands of `owner`.

    What is not (or no longer) a scope, and a bare limit that `owner` cannot fill, allow
    nothing: text is checked where it enters, by `parse`. `inherit` is for `of_token`.
    """
    held: dict[str, set[Limit | None]] = {}
    for text in texts:
        try:
            scope = parse(text, catalogue)
        except Invalid:
            continue
        for each in _resolve(scope, owner):
            for name in _implied_under(each, catalogue):
                held.setdefault(name, set()).add(each.limit)
    return _normal(held)


def _resolve(scope: Scope, owner: Owner) -> Iterable[Scope]:
    """Yield the scope with its owner filled in; several for ``self``, none if it cannot be."""
    if scope.name == SELF and owner.user is not None:
        mine = Limit(LimitKind.USER, owner.user)
        return [Scope(name, mine) for name in SELF_SCOPES]
    if scope.name in META:
        return []
    if scope.limit is None:
        return [scope]
    limit = owner.resolve(scope.limit)
    return [] if limit is None else [Scope(scope.name, limit)]


def _implied_under(scope: Scope, catalogue: Catalogue) -> Iterable[str]:
    """Return the names that a scope implies; one server does not reveal its user."""
    names = catalogue.implied(scope.name)
    if scope.limit is None or scope.limit.kind != LimitKind.SERVER:
        return names
    return [name for name in names if name == scope.name or not name.startswith("read:users")]


def contains(outer: Limit | None, inner: Limit | None, members: Members = NOBODY) -> bool:
    """Tell whether all that `inner` names is also named by `outer`."""
    if outer is None or outer == inner:
        return True
    if inner is None:
        return False
    if outer.kind == LimitKind.USER:
        return _user_of(inner) == outer.value
    if outer.kind == LimitKind.GROUP:
        return _user_of(inner) in members.get(outer.value, ())
    return False


def _user_of(limit: Limit) -> str | None:
    if limit.kind == LimitKind.USER:
        return limit.value
    if limit.kind == LimitKind.SERVER:
        return limit.value.partition("/")[0]
    return None


def covers(held: Scopes, wanted: Scope, members: Members = NOBODY) -> bool:
    """Tell whether `held` allows all that one scope allows."""
    return any(contains(limit, wanted.limit, members) for limit in held.limits(wanted.name))


def missing(wanted: Scopes, held: Scopes, members: Members = NOBODY) -> list[str]:
    """Return, sorted, what `wanted` allows and `held` does not."""
    return sorted(
        str(scope)
        for name, limits in wanted.held.items()
        for limit in limits
        if not covers(held, scope := Scope(name, limit), members)
    )


def intersect(left: Scopes, right: Scopes, members: Members = NOBODY) -> Scopes:
    """Return what both allow: of two limits that overlap, the narrower."""
    return _normal(
        {
            name: {
                narrow
                for one in limits
                for other in right.limits(name)
                for narrow in _narrower(one, other, members)
            }
            for name, limits in left.held.items()
        }
    )


def _narrower(one: Limit | None, other: Limit | None, members: Members) -> Iterable[Limit | None]:
    if contains(one, other, members):
        return (other,)
    if contains(other, one, members):
        return (one,)
    return ()


def identify(owner: Owner) -> Scopes:
    """Return what everybody may learn: who they are."""
    if owner.user is not None:
        mine = frozenset({Limit(LimitKind.USER, owner.user)})
        return Scopes({"read:users:name": mine, "read:users:groups": mine})
    if owner.service is not None:
        return Scopes({"read:services:name": frozenset({Limit(LimitKind.SERVICE, owner.service)})})
    return Scopes()


def of_token(
    texts: frozenset[str],
    owner: Owner,
    owned: Scopes,
    members: Members = NOBODY,
    catalogue: Catalogue = STANDARD,
) -> Scopes:
    """Return what a token allows now: its own scopes, as far as its owner has them now."""
    if INHERIT in texts:
        return owned
    return intersect(expand(texts, owner, catalogue), owned, members)


class Verdict(Enum):
    """The answer to "may this caller do that there?"."""

    ALLOWED = "allowed"
    NOT_FOUND = "not-found"  #: May do it elsewhere: whether the target exists is not told.
    FORBIDDEN = "forbidden"  #: May do it nowhere.


def decide(
    held: Scopes, any_of: Iterable[str], target: Limit | None, members: Members = NOBODY
) -> Verdict:
    """Judge a request that needs one of `any_of` on `target`; None: on everything."""
    elsewhere = False
    for name in any_of:
        for limit in held.limits(name):
            if contains(limit, target, members):
                return Verdict.ALLOWED
            elsewhere = True
    return Verdict.NOT_FOUND if elsewhere and target is not None else Verdict.FORBIDDEN


def restrict(held: Scopes, name: str, kinds: Collection[LimitKind]) -> Limits:
    """
    Return what a list that needs `name` is restricted to.

    Raises `Forbidden` when it is not held, or limited to a kind that the list cannot select
    by: never is such a limit taken for "everything".
    """
    limits = held.limits(name)
    if not limits or any(limit is not None and limit.kind not in kinds for limit in limits):
        raise Forbidden(
            f"Action is not authorized with current scopes; requires any of [{name}]",
            code="scope-missing",
            scopes=[name],
        )
    return limits
