"""
Who a credential is, and what it may do: one query per request, decided by `domain/scopes.py`.

Nothing is remembered between requests but pure computations on texts (which scopes a set of
role texts expands to), so a revoked token is refused by the next request in every process.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from itertools import chain
from typing import Any, Final, Literal

from sqlalchemy import (
    Connection,
    Select,
    String,
    and_,
    bindparam,
    false,
    func,
    null,
    or_,
    select,
)
from sqlalchemy.sql.elements import ColumnElement

from perijove.db.prepared import Prepared
from perijove.db.rendered import json_list, json_text
from perijove.db.tables import (
    group_members,
    groups,
    launches,
    oauth_clients,
    role_grants,
    roles,
    services,
    sessions,
    tokens,
    users,
)
from perijove.db.types import Instant
from perijove.domain import scopes as engine
from perijove.domain.launch import Status
from perijove.domain.scopes import NOBODY, Limit, LimitKind, Members, Owner, Scopes, Verdict
from perijove.kit.ids import hash_secret
from perijove.services.roles import ADMIN, USER

_LONGEST_SECRET: Final = 256
"""Nothing longer is a token or a session of ours; it is not even hashed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who makes a request, and what they may do at this moment."""

    name: str
    scopes: Scopes
    """Expanded, with the owner filled in."""
    user_id: int | None = None
    service_id: int | None = None
    admin: bool = False
    token_id: int | None = None
    session_id: str | None = None
    client_id: str | None = None
    """The OAuth client that the token was issued to."""
    launch_id: str | None = None
    """The launch whose own token this is."""
    members: Members = field(default_factory=lambda: NOBODY, repr=False)
    """Members of the groups that limits name."""

    @property
    def kind(self) -> Literal["user", "service"]:
        """Whether this is a person's account or a program's."""
        return "service" if self.user_id is None else "user"

    @property
    def owner(self) -> Owner:
        """Whom ``!user`` and ``!service`` mean."""
        return Owner(service=self.name) if self.user_id is None else Owner(user=self.name)

    def may(
        self,
        scope: str,
        *,
        user: str | None = None,
        server: str | None = None,
        group: str | None = None,
        service: str | None = None,
    ) -> bool:
        """
        Tell whether the caller holds `scope` for a target, or without one everywhere.

        A server is named by `user` and `server` together; the default one is ``""``.
        """
        if server is not None:
            target: Limit | None = Limit(LimitKind.SERVER, f"{user}/{server}")
        elif user is not None:
            target = Limit(LimitKind.USER, user)
        elif group is not None:
            target = Limit(LimitKind.GROUP, group)
        elif service is not None:
            target = Limit(LimitKind.SERVICE, service)
        else:
            target = None
        return self.decide((scope,), target) is Verdict.ALLOWED

    def decide(self, any_of: Iterable[str], target: Limit | None) -> Verdict:
        """Judge a request that needs one of `any_of` on `target`."""
        return engine.decide(self.scopes, any_of, target, self.members)


def caller_by_token(connection: Connection, value: str, now: datetime) -> Caller | None:
    """Return who holds a token; None for one that is unknown, expired or of a blocked user."""
    if not value or len(value) > _LONGEST_SECRET:
        return None
    row = _BY_TOKEN.first(connection, {"hash": hash_secret(value), "now": now})
    return None if row is None else _caller(connection, row)


def caller_by_session(connection: Connection, cookie_value: str, now: datetime) -> Caller | None:
    """Return who is signed in with a cookie; None for an unknown or expired one."""
    if not cookie_value or len(cookie_value) > _LONGEST_SECRET:
        return None
    parameters = {"hash": hash_secret(cookie_value), "now": now}
    row = _BY_SESSION.first(connection, parameters)
    return None if row is None else _caller(connection, row)


def caller_of_user(connection: Connection, user_id: int) -> Caller | None:
    """Return a user as if signed in: what they may do, without any credential."""
    row = _BY_USER.first(connection, {"user_id": user_id})
    return None if row is None else _caller(connection, row)


def is_good(connection: Connection, caller: Caller, now: datetime) -> bool:
    """Tell whether the credential that a caller came with still counts."""
    if caller.token_id is not None:
        return _BY_TOKEN_ID.first(connection, {"id": caller.token_id, "now": now}) is not None
    parameters = {"user_id": caller.user_id, "session_id": caller.session_id, "now": now}
    return _BY_SESSION_ID.first(connection, parameters) is not None


def scopes_by_token(connection: Connection, user_id: int, now: datetime) -> dict[int, Scopes]:
    """Return what each of a user's tokens allows, by token id."""
    rows = _TOKENS_OF_USER.rows(connection, {"user_id": user_id, "now": now})
    callers = [_caller(connection, row) for row in rows]
    return {caller.token_id: caller.scopes for caller in callers if caller.token_id is not None}


def _caller(connection: Connection, row: Sequence[Any]) -> Caller:
    (
        name, user_id, service_id, admin, role_texts,
        token_id, token_texts, session_id, client_id, launch_id,
        client_service, server_user, server_name,
    ) = row  # fmt: skip
    owner = Owner(
        user=None if user_id is None else name,
        service=client_service if service_id is None else name,
        server=None if server_user is None else f"{server_user}/{server_name}",
    )
    key = (role_texts, token_texts, owner, client_id is not None)
    named = _groups_named(*key)
    members = _members(connection, named) if named else NOBODY
    return Caller(
        name=name,
        scopes=_scopes(*key, members) if named else _scopes_without_groups(*key),
        user_id=user_id,
        service_id=service_id,
        admin=bool(admin),
        token_id=token_id,
        session_id=session_id,
        client_id=client_id,
        launch_id=launch_id,
        members=members,
    )


_ISSUED = (
    "access:servers!server",
    "access:services!service",
    "read:users:name!user",
    "read:users:groups!user",
)
"""What a token issued through OAuth has beyond its own scopes (wire §3.5)."""


@lru_cache(maxsize=8192)
def _texts(role_texts: str, token_texts: str | None, issued: bool) -> tuple[frozenset[str], ...]:
    """Return the scopes of the owner's roles, and a token's own; none for a session."""
    roles_ = frozenset(chain.from_iterable(json.loads(role_texts)))
    if token_texts is None:
        return (roles_,)
    own = frozenset(json.loads(token_texts))
    return roles_, own.union(_ISSUED) if issued else own


def _scopes(
    role_texts: str, token_texts: str | None, owner: Owner, issued: bool, members: Members
) -> Scopes:
    held, *own = _texts(role_texts, token_texts, issued)
    # Roles know nothing of the server or service through which a token was issued.
    holder = Owner(user=owner.user, service=None if owner.user else owner.service)
    owned = engine.expand(held, holder)
    return engine.of_token(own[0], owner, owned, members) if own else owned


@lru_cache(maxsize=8192)
def _scopes_without_groups(
    role_texts: str, token_texts: str | None, owner: Owner, issued: bool
) -> Scopes:
    return _scopes(role_texts, token_texts, owner, issued, NOBODY)


@lru_cache(maxsize=8192)
def _groups_named(
    role_texts: str, token_texts: str | None, owner: Owner, issued: bool
) -> frozenset[str]:
    return frozenset().union(
        *(engine.expand(texts, owner).groups() for texts in _texts(role_texts, token_texts, issued))
    )


def _members(connection: Connection, names: frozenset[str]) -> Members:
    found: dict[str, set[str]] = {}
    for group, user in connection.execute(_MEMBERS, {"names": sorted(names)}):
        found.setdefault(group, set()).add(user)
    return found


# --- the queries ------------------------------------------------------------------------------

_NOW = bindparam("now", type_=Instant)
_OF_GROUPS = select(group_members.c.group_id).where(group_members.c.user_id == users.c.id)
_HELD_BY_USER = or_(
    role_grants.c.user_id == users.c.id, role_grants.c.group_id.in_(_OF_GROUPS.correlate(users))
)


def _role_texts(*, is_user: ColumnElement[bool], is_admin: Any, held: Any) -> Any:
    """Select the scopes of all roles of a holder, as one JSON array of arrays."""
    granted = select(role_grants.c.role_id).where(held).correlate(users, services)
    return (
        select(json_list(roles.c.scopes))
        .where(
            or_(
                and_(roles.c.name == USER, is_user),
                and_(roles.c.name == ADMIN, is_admin),
                roles.c.id.in_(granted),
            )
        )
        .correlate(users, services)
        .scalar_subquery()
    )


def _by_token(which: ColumnElement[bool]) -> Select[Any]:
    either = or_(users.c.admin, services.c.admin)
    role_texts = _role_texts(
        is_user=users.c.id.is_not(None),
        is_admin=either,
        held=or_(_HELD_BY_USER, role_grants.c.service_id == services.c.id),
    )
    client_service = services.alias("client_service")
    joined = (
        tokens.outerjoin(users, users.c.id == tokens.c.user_id)
        .outerjoin(services, services.c.id == tokens.c.service_id)
        .outerjoin(oauth_clients, oauth_clients.c.id == tokens.c.client_id)
        .outerjoin(client_service, client_service.c.id == oauth_clients.c.service_id)
        .outerjoin(
            launches,
            launches.c.id == func.coalesce(tokens.c.launch_id, oauth_clients.c.launch_id),
        )
    )
    return (
        select(
            func.coalesce(users.c.name, services.c.name),
            tokens.c.user_id,
            tokens.c.service_id,
            func.coalesce(users.c.admin, services.c.admin),
            role_texts,
            tokens.c.id,
            json_text(tokens.c.scopes),
            tokens.c.session_id,
            tokens.c.client_id,
            tokens.c.launch_id,
            client_service.c.name,
            launches.c.user_name,
            launches.c.server_name,
        )
        .select_from(joined)
        .where(
            which,
            or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > _NOW),
            or_(users.c.blocked.is_(None), users.c.blocked == false()),
            # The token of a launch ends with it, whoever is late in taking it back.
            or_(tokens.c.launch_id.is_(None), launches.c.status != Status.ENDED),
        )
    )


def _of_user(session_id: Any) -> Select[Any]:
    return select(
        users.c.name,
        users.c.id,
        null(),
        users.c.admin,
        _role_texts(is_user=users.c.id.is_not(None), is_admin=users.c.admin, held=_HELD_BY_USER),
        *(null() for _ in range(2)),
        session_id,
        *(null() for _ in range(5)),
    ).where(users.c.blocked == false())


_BY_TOKEN = Prepared(_by_token(tokens.c.hash == bindparam("hash", type_=String)))
_TOKENS_OF_USER = Prepared(_by_token(tokens.c.user_id == bindparam("user_id")))
_BY_TOKEN_ID = Prepared(_by_token(tokens.c.id == bindparam("id")))
_SESSIONS = (
    _of_user(sessions.c.session_id)
    .join(sessions, sessions.c.user_id == users.c.id)
    .where(sessions.c.expires_at > _NOW)
)
_BY_SESSION = Prepared(_SESSIONS.where(sessions.c.hash == bindparam("hash", type_=String)))
_BY_SESSION_ID = Prepared(
    _SESSIONS.where(
        sessions.c.user_id == bindparam("user_id"),
        sessions.c.session_id == bindparam("session_id", type_=String),
    )
)
_BY_USER = Prepared(_of_user(null()).where(users.c.id == bindparam("user_id")))
_MEMBERS = (
    select(groups.c.name, users.c.name)
    .select_from(groups.join(group_members).join(users))
    .where(groups.c.name.in_(bindparam("names", expanding=True)))
)
