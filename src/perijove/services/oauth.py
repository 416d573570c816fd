"""
The OAuth 2 provider: how a browser that is signed in here gets into a server (wire §2.9).

::

    browser ──authorize──► consider() ──► Approved ──► issue_code() ──code──► server
                              │  ▲                                              │
                              ▼  └── the person's consent ◄── Consent           ▼
                           Denied, or an error page            redeem_code() ◄─ token endpoint

A client is a running server: its id is derived from the server's name, its secret is the
launch's token. Codes and tokens are stored as hashes. What a token may do is decided again at
each use (`services/access.py`); here it is only decided what goes into it.
"""

import base64
import hashlib
import hmac
import re
import secrets
import string
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, insert, or_, select

from perijove.db.core import upsert
from perijove.db.prepared import Statement
from perijove.db.tables import (
    launches,
    oauth_clients,
    oauth_codes,
    roles,
    services,
    sessions,
    tokens,
    users,
)
from perijove.domain import scopes as engine
from perijove.domain.errors import Forbidden, HubError, Invalid
from perijove.domain.scope_names import INHERIT
from perijove.domain.scopes import (
    Owner,
    Scopes,
)
from perijove.kit.ids import hash_secret
from perijove.services.access import Caller
from perijove.services.hub import client_id_of, server_prefix
from perijove.services.sessions import Session

CODE_LIFETIME: Final = timedelta(minutes=5)
IDENTIFY: Final = ("read:users:groups!user", "read:users:name!user")
"""What every token lets its holder learn: who the person is."""
_ALPHABET: Final = string.ascii_letters + string.digits
_LENGTH: Final = 30
"""Characters of a code and of an access token: 178 random bits."""
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_METHODS: Final = ("S256", "plain")


class TokenRefused(HubError):
    """The token endpoint says no, in OAuth's own words (RFC 6749 §5.2)."""

    code = "oauth-token"

    def __init__(self, error: str, description: str = "") -> None:
        super().__init__(description or error)
        self.error = error
        self.description = description

    @property
    def status(self) -> int:
        """The status the protocol asks for."""
        return 401 if self.error == "invalid_client" else 400


# --- clients ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Who may ask for codes: a server, or a service."""

    id: str
    redirect_uri: str
    description: str
    allowed_scopes: Sequence[str]
    user_id: int | None = None
    """The owner of the server."""
    user_name: str | None = None
    server_name: str | None = None
    service_name: str | None = None

    @property
    def access(self) -> str:
        """The scope that lets a person in."""
        if self.service_name is not None:
            return f"access:services!service={self.service_name}"
        return f"access:servers!server={self.user_name}/{self.server_name}"


_CLIENT_OF = Statement(
    select(oauth_clients.c.launch_id)
    .where(oauth_clients.c.id == bindparam("the_id"))
    .with_for_update()
)
_DROP_CLIENT = Statement(
    delete(oauth_clients).where(oauth_clients.c.launch_id == bindparam("the_launch"))
)


def register_server_client(
    connection: Connection,
    *,
    launch_id: str,
    user_name: str,
    server_name: str,
    secret_hash: str,
    base_path: str,
) -> None:
    """
    Make a launch's server known as a client; the same launch may be registered again.

    All launches of a server share the client's id. A new launch takes it over with a secret of
    its own, and what was issued to the launch before is void.
    """
    prefix = server_prefix(base_path, user_name, server_name)
    id_ = client_id_of(user_name, server_name)
    before = _CLIENT_OF.first(connection, {"the_id": id_})
    if before is not None and before["launch_id"] != launch_id:
        connection.execute(delete(oauth_codes).where(oauth_codes.c.client_id == id_))
        connection.execute(delete(tokens).where(tokens.c.client_id == id_))
    upsert(
        connection,
        oauth_clients,
        key={"id": id_},
        values={
            "secret_hash": secret_hash,
            "redirect_uri": f"{prefix}oauth_callback",
            "description": f"Server at {prefix}",
            "allowed_scopes": [f"access:servers!server={user_name}/{server_name}"],
            "launch_id": launch_id,
        },
    )


def drop_client(connection: Connection, launch_id: str) -> None:
    """Forget a launch's client with its codes and tokens, unless a newer launch has it now."""
    _DROP_CLIENT.run(connection, {"the_launch": launch_id})


def find_client(connection: Connection, client_id: str) -> Client | None:
    """Return a client by id."""
    row = connection.execute(
        select(
            oauth_clients.c.id,
            oauth_clients.c.redirect_uri,
            oauth_clients.c.description,
            oauth_clients.c.allowed_scopes,
            launches.c.user_id,
            launches.c.user_name,
            launches.c.server_name,
            services.c.name.label("service_name"),
        )
        .outerjoin(launches, launches.c.id == oauth_clients.c.launch_id)
        .outerjoin(services, services.c.id == oauth_clients.c.service_id)
        .where(
            oauth_clients.c.id == client_id,
            or_(launches.c.user_id.is_not(None), services.c.id.is_not(None)),
        )
    ).one_or_none()
    return Client(**row._mapping) if row else None


# --- the authorize endpoint -------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a browser was sent to the authorize endpoint with."""

    client_id: str
    redirect_uri: str | None = None
    response_type: str = ""
    scopes: Sequence[str] = ()
    """Scopes or names of roles; none: what the client may have."""
    challenge: str | None = None
    method: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Approved:
    """A code may be issued."""

    client: Client
    scopes: Sequence[str]
    challenge: str | None
    method: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """The person has to be asked."""

    client: Client
    scopes: Sequence[str]
    required: Collection[str]
    """Those of `scopes` without which there is nothing to agree to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """The client learns that it asked wrongly."""

    redirect_uri: str
    error: str


def consider(
    connection: Connection,
    caller: Caller,
    ask: Ask,
    now: datetime,
    *,
    agreed: Collection[str] | None = None,
) -> Approved | Consent | Denied:
    """
    Decide what becomes of a request for a code.

    `agreed` are the scopes a person has ticked; None: nobody was asked yet. Raises `Invalid`
    when it is not safe to answer the client at all, `Forbidden` when the person may not go
    there.
    """
    client = find_client(connection, ask.client_id)
    if client is None:
        raise Invalid("Invalid client_id parameter value.", code="oauth-client")
    if ask.redirect_uri is not None and ask.redirect_uri != client.redirect_uri:
        raise Invalid("Mismatching redirect URI.", code="oauth-redirect")
    fault = _fault(ask)
    wanted = None if fault else _wanted(connection, caller, client, ask.scopes)
    if wanted is None:
        return Denied(redirect_uri=client.redirect_uri, error=fault or "invalid_scope")
    if not _may_enter(caller, client):
        raise Forbidden(
            f"You do not have permission to access {client.description}",
            code="oauth-access",
            client=client.description,
        )
    required = {*IDENTIFY, client.access}
    granted = _granted(caller, client, wanted) | required
    if agreed is not None:
        granted = required | (granted & set(agreed))
    elif not _needs_no_consent(connection, caller, client, granted, now):
        return Consent(client=client, scopes=sorted(granted), required=required)
    return Approved(
        client=client, scopes=sorted(granted), challenge=ask.challenge, method=ask.method
    )


def issue_code(connection: Connection, session: Session, approved: Approved, now: datetime) -> str:
    """Return a fresh code, bound to client, person, session and challenge."""
    code = _random()
    connection.execute(
        insert(oauth_codes).values(
            hash=hash_secret(code),
            client_id=approved.client.id,
            user_id=session.user_id,
            session_id=session.session_id,
            redirect_uri=approved.client.redirect_uri,
            scopes=list(approved.scopes),
            challenge=approved.challenge,
            challenge_method=(approved.method or "plain") if approved.challenge else None,
            expires_at=now + CODE_LIFETIME,
        )
    )
    return code


def _fault(ask: Ask) -> str | None:
    if ask.response_type != "code":
        return "unsupported_response_type"
    if ask.method is not None and (ask.method not in _METHODS or ask.challenge is None):
        return "invalid_request"
    if ask.challenge is not None and not _CHALLENGE.fullmatch(ask.challenge):
        return "invalid_request"
    return None


def _owner(caller: Caller, client: Client) -> Owner:
    server = None if client.user_name is None else f"{client.user_name}/{client.server_name}"
    return Owner(user=caller.name, server=server, service=client.service_name)


def _wanted(
    connection: Connection, caller: Caller, client: Client, asked: Iterable[str]
) -> set[str] | None:
    """Return the scopes asked for, roles resolved; None if the client may not have one of them."""
    names = [name for name in asked if name != "identify"]
    if not names:
        return set(client.allowed_scopes)
    owner = _owner(caller, client)
    allowed = {*client.allowed_scopes, client.access, *IDENTIFY}
    limit = engine.expand(frozenset(allowed), owner)
    if INHERIT in allowed:
        limit = limit | caller.scopes
    of_roles = {
        row.name: row.scopes
        for row in connection.execute(
            select(roles.c.name, roles.c.scopes).where(roles.c.name.in_(names))
        )
    }
    wanted = {text for name in names for text in of_roles.get(name, [name])}
    for text in wanted - allowed:
        meant = engine.expand(frozenset({text}), owner)
        # What means nothing (a typing error, `inherit`) is no scope that one may have.
        if not meant or engine.missing(meant, limit, caller.members):
            return None
    return wanted


def _granted(caller: Caller, client: Client, wanted: Iterable[str]) -> set[str]:
    """Return what of it the person has: as it was written, else as much as there is of it."""
    owner = _owner(caller, client)
    granted: set[str] = set()
    for text in wanted:
        meant = engine.expand(frozenset({text}), owner)
        if text == INHERIT or (meant and not engine.missing(meant, caller.scopes, caller.members)):
            granted.add(text)
        else:
            granted.update(engine.intersect(meant, caller.scopes, caller.members).texts())
    return granted


def _may_enter(caller: Caller, client: Client) -> bool:
    if client.service_name is not None:
        return caller.may("access:services", service=client.service_name)
    return caller.may("access:servers", user=client.user_name, server=client.server_name)


def _needs_no_consent(
    connection: Connection,
    caller: Caller,
    client: Client,
    granted: Collection[str],
    now: datetime,
) -> bool:
    if client.user_id is not None and client.user_id == caller.user_id:
        return True
    owner = _owner(caller, client)
    rows = connection.scalars(
        select(tokens.c.scopes).where(
            tokens.c.client_id == client.id,
            tokens.c.user_id == caller.user_id,
            tokens.c.expires_at > now,
        )
    ).all()
    had = {text for scopes in rows for text in scopes}
    if INHERIT in granted and INHERIT not in had:
        return False
    before: Scopes = engine.expand(frozenset(had), owner)
    after = engine.expand(frozenset(granted), owner)
    return bool(rows) and not engine.missing(after, before, caller.members)


# --- the token endpoint -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """What a client sends to turn a code into a token."""

    client_id: str
    client_secret: str = field(repr=False)
    grant_type: str
    code: str = field(repr=False)
    redirect_uri: str | None = None
    verifier: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """An access token, shown this once."""

    token: str = field(repr=False)
    scopes: Sequence[str]
    lifetime: timedelta


def redeem_code(
    connection: Connection, exchange: Exchange, now: datetime, *, lifetime: timedelta
) -> Issued:
    """
    Turn a code into an access token; raises `TokenRefused`.

    Of several redemptions of one code at most one succeeds. What was refused for another
    reason than the code itself leaves the code as it was.
    """
    if exchange.grant_type != "authorization_code":
        raise TokenRefused("unsupported_grant_type")
    if not _is_client(connection, exchange):
        raise TokenRefused("invalid_client")
    if not exchange.code:
        raise TokenRefused("invalid_request", "Missing code parameter.")
    hash_ = hash_secret(exchange.code)
    # The session must still be there, and stay: it may end at any moment, with all its tokens.
    row = connection.execute(
        select(oauth_codes)
        .join(users, users.c.id == oauth_codes.c.user_id)
        .join(
            sessions,
            (sessions.c.user_id == oauth_codes.c.user_id)
            & (sessions.c.session_id == oauth_codes.c.session_id),
        )
        .where(
            oauth_codes.c.hash == hash_,
            oauth_codes.c.client_id == exchange.client_id,
            oauth_codes.c.expires_at > now,
            users.c.blocked.is_(False),
        )
        .with_for_update(read=True, key_share=True, of=sessions)
    ).one_or_none()
    if row is None:
        raise TokenRefused("invalid_grant")
    _check_verifier(row.challenge, row.challenge_method, exchange.verifier)
    if exchange.redirect_uri is not None and exchange.redirect_uri != row.redirect_uri:
        raise TokenRefused("invalid_request", "Mismatching redirect URI.")
    if connection.execute(delete(oauth_codes).where(oauth_codes.c.hash == hash_)).rowcount != 1:
        raise TokenRefused("invalid_grant")  # another redemption was quicker
    return _issue(connection, row, now, lifetime)


def _issue(connection: Connection, row: Any, now: datetime, lifetime: timedelta) -> Issued:
    issued = Issued(token=_random(), scopes=row.scopes, lifetime=lifetime)
    connection.execute(
        insert(tokens).values(
            hash=hash_secret(issued.token),
            scheme="random",
            user_id=row.user_id,
            scopes=row.scopes,
            created_at=now,
            expires_at=now + lifetime,
            session_id=row.session_id,
            client_id=row.client_id,
        )
    )
    return issued


def _is_client(connection: Connection, exchange: Exchange) -> bool:
    stored = connection.scalar(
        select(oauth_clients.c.secret_hash).where(oauth_clients.c.id == exchange.client_id)
    )
    return hmac.compare_digest(stored or "", hash_secret(exchange.client_secret))


def _check_verifier(challenge: str | None, method: str | None, verifier: str | None) -> None:
    if challenge is None:
        if verifier is not None:  # a challenge was taken out on the way (RFC 9700 §4.8)
            raise TokenRefused("invalid_grant")
        return
    if verifier is None:
        raise TokenRefused("invalid_request", "Code verifier required.")
    shown = verifier.encode(errors="replace")
    if method == "S256":
        shown = base64.urlsafe_b64encode(hashlib.sha256(shown).digest()).rstrip(b"=")
    if not hmac.compare_digest(shown, challenge.encode()):
        raise TokenRefused("invalid_grant")


def _random() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))
