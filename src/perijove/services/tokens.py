"""API tokens as their owners see, make and revoke them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Select, bindparam, delete, func, insert, or_, select

from perijove.db.rendered import instant_text
from perijove.db.tables import oauth_clients, services, tokens, users
from perijove.db.types import Instant
from perijove.domain import scopes as engine
from perijove.domain.errors import HubError, Invalid, NotFound
from perijove.domain.scope_names import INHERIT
from perijove.domain.scopes import (
    Scopes,
)
from perijove.kit.ids import hash_secret, new_secret
from perijove.services.access import Caller, scopes_by_token
from perijove.services.roles import TOKEN, role_scopes

OWN_CLIENT: Final = "JupyterHub"
"""What the wire calls the issuer of tokens that no OAuth client was given."""
LONGEST_NOTE: Final = 1000
_LONGEST_LIFE: Final = 100 * 365 * 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token, without its secret. Instants as the wire sends them."""

    id: int
    user: str | None
    service: str | None
    scopes: list[str]
    """What it allows at this moment."""
    note: str | None
    created: str
    last_activity: str | None
    expires_at: str | None
    session_id: str | None
    oauth_client: str


_NOW = bindparam("now", type_=Instant)
_LIVE = or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > _NOW)
_COLUMNS: Final[Select[Any]] = (
    select(
        tokens.c.id,
        users.c.name,
        services.c.name,
        tokens.c.note,
        instant_text(tokens.c.created_at),
        instant_text(tokens.c.last_activity),
        instant_text(tokens.c.expires_at),
        tokens.c.session_id,
        func.coalesce(oauth_clients.c.description, OWN_CLIENT),
    )
    .select_from(
        tokens.outerjoin(users, users.c.id == tokens.c.user_id)
        .outerjoin(services, services.c.id == tokens.c.service_id)
        .outerjoin(oauth_clients, oauth_clients.c.id == tokens.c.client_id)
    )
    .where(_LIVE)
    .order_by(func.coalesce(tokens.c.last_activity, tokens.c.created_at), tokens.c.id)
)
_OF_USER = _COLUMNS.where(tokens.c.user_id == bindparam("user_id"))
_OF_USER_ONE = _OF_USER.where(tokens.c.id == bindparam("id"))


def list_tokens(connection: Connection, user_id: int, *, now: datetime) -> list[Token]:
    """Return a user's tokens that still count, the one that was idle longest first."""
    held = scopes_by_token(connection, user_id, now)
    rows = connection.execute(_OF_USER, {"user_id": user_id, "now": now})
    return [_token(row, held) for row in rows]


def get_token(connection: Connection, user_id: int, token_id: int, *, now: datetime) -> Token:
    """Return one token of a user; raises `NotFound`."""
    arguments = {"user_id": user_id, "id": token_id, "now": now}
    row = connection.execute(_OF_USER_ONE, arguments).first()
    if row is None:
        raise NotFound(f"Token not found a{token_id}", code="token-unknown")
    return _token(row, scopes_by_token(connection, user_id, now))


def _token(row: Sequence[Any], held: dict[int, Scopes]) -> Token:
    id_, user, service, note, created, last_activity, expires_at, session_id, client = row
    return Token(
        id=id_,
        user=user,
        service=service,
        scopes=held.get(id_, Scopes()).texts(),
        note=note,
        created=created,
        last_activity=last_activity,
        expires_at=expires_at,
        session_id=session_id,
        oauth_client=client,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NewToken:
    """What was asked of a new token."""

    note: str
    scopes: Sequence[str] | None = None
    roles: Sequence[str] | None = None
    expires_in: int | None = None
    """Seconds; None: it does not expire."""


def check_new_token(wanted: NewToken) -> None:
    """Raise `Invalid` for what no token can be."""
    if wanted.scopes is not None and wanted.roles is not None:
        raise Invalid("Specify only one of scopes and roles, not both", field="scopes")
    if len(wanted.note) > LONGEST_NOTE:
        raise Invalid(f"token note must not exceed {LONGEST_NOTE} characters", field="note")
    seconds = wanted.expires_in
    if seconds is not None and seconds <= 0:
        raise Invalid(
            f"expires_in must be a positive integer or null, not {seconds}", field="expires_in"
        )
    if seconds is not None and seconds > _LONGEST_LIFE:
        raise Invalid(
            f"token expires_in: {seconds} must not exceed {_LONGEST_LIFE}", field="expires_in"
        )


def create_token(
    connection: Connection, owner: Caller, wanted: NewToken, *, now: datetime
) -> tuple[int, str]:
    """
    Make a token for a user; returns its id and its value, which is shown once and never kept.

    Raises `Invalid` for a scope that is none, and for one that the owner does not hold.
    """
    check_new_token(wanted)
    asked = _asked_scopes(connection, wanted)
    _check_held(owner, asked)
    value = new_secret()
    lifetime = wanted.expires_in
    token_id: int = connection.execute(
        insert(tokens)
        .values(
            hash=hash_secret(value),
            scheme="random",
            user_id=owner.user_id,
            scopes=asked,
            note=wanted.note,
            created_at=now,
            expires_at=None if lifetime is None else now + timedelta(seconds=lifetime),
        )
        .returning(tokens.c.id)
    ).scalar_one()
    return token_id, value


def _asked_scopes(connection: Connection, wanted: NewToken) -> list[str]:
    if wanted.roles is not None:
        return sorted({scope for name in wanted.roles for scope in _of_role(connection, name)})
    if wanted.scopes is None:
        return role_scopes(connection, TOKEN) or [INHERIT]
    for text in wanted.scopes:
        try:
            engine.parse(text)
        except HubError as error:
            raise Invalid(
                f"Scope {text[:200]!r} for token does not exist: {error}",
                field="scopes",
                code="scope-unknown",
            ) from error
    return list(dict.fromkeys(wanted.scopes))


def _of_role(connection: Connection, name: str) -> Iterable[str]:
    found = role_scopes(connection, name)
    if not found:
        raise Invalid(
            f"Role {name[:200]!r} for token does not exist", field="roles", code="role-unknown"
        )
    return found


def _check_held(owner: Caller, asked: Sequence[str]) -> None:
    wanted = engine.expand(frozenset(asked), owner.owner)
    lacking = engine.missing(wanted, owner.scopes, owner.members)
    if lacking:
        raise Invalid(
            f"Not assigning requested scopes {', '.join(lacking[:20])}"
            f" not held by User {owner.name}",
            field="scopes",
            code="scope-not-held",
        )


def revoke_token(connection: Connection, user_id: int, token_id: int, *, now: datetime) -> None:
    """
    Revoke a user's token; raises `NotFound`.

    One that an OAuth client was given takes with it all that this client has for the user.
    """
    found = connection.execute(
        select(tokens.c.client_id).where(
            tokens.c.id == token_id, tokens.c.user_id == user_id, _LIVE
        ),
        {"now": now},
    ).first()
    if found is None:
        raise NotFound(f"Token not found a{token_id}", code="token-unknown")
    client_id = found.client_id
    which = tokens.c.id == token_id if client_id is None else tokens.c.client_id == client_id
    connection.execute(delete(tokens).where(tokens.c.user_id == user_id, which))


def delete_expired(connection: Connection, now: datetime) -> int:
    """Delete the tokens whose time is over; returns how many."""
    return connection.execute(delete(tokens).where(tokens.c.expires_at <= now)).rowcount
