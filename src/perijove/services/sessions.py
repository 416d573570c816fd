"""
Sign-ins: one row per browser that is signed in.

The login cookie is a random value of which only the hash is stored. The session id beside it
is no secret: servers and services read it to notice a new sign-in (wire §1.7), tokens issued
through OAuth remember it, and signing out takes those tokens back.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, insert, select, update

from perijove.db.tables import oauth_codes, sessions, tokens, users
from perijove.domain.errors import NotFound
from perijove.kit.ids import hash_secret

SEEN_RESOLUTION = timedelta(minutes=5)
"""`last_seen_at` is this exact: a request must not cost a write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """The browser that asks: where it is and what it calls itself."""

    address: str = ""
    device: str = ""
    request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningIn:
    """Who begins a session, proved by what, and where."""

    user_id: int
    user_name: str
    authenticator: str
    visitor: Visitor


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A session that has just begun: what the browser gets."""

    cookie: str = field(repr=False)
    session_id: str
    user_id: int
    user_name: str
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A sign-in of a person, as the person may see it."""

    id: int
    session_id: str
    user_id: int
    user_name: str
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    authenticator: str
    device: str
    address: str

    def is_seen(self, now: datetime) -> bool:
        """Tell whether `last_seen_at` is as exact as it needs to be."""
        return now - self.last_seen_at < SEEN_RESOLUTION


_SESSION = (
    sessions.c.id,
    sessions.c.session_id,
    sessions.c.user_id,
    users.c.name.label("user_name"),
    sessions.c.created_at,
    sessions.c.last_seen_at,
    sessions.c.expires_at,
    sessions.c.authenticator,
    sessions.c.device,
    sessions.c.address,
)


def open_session(
    connection: Connection,
    signing_in: SigningIn,
    *,
    now: datetime,
    lifetime: timedelta,
) -> Opened:
    """Begin a session; its cookie and its id are new, whatever the browser sent before."""
    opened = Opened(
        cookie=secrets.token_urlsafe(32),
        session_id=secrets.token_hex(16),
        user_id=signing_in.user_id,
        user_name=signing_in.user_name,
        expires_at=now + lifetime,
    )
    connection.execute(
        insert(sessions).values(
            hash=hash_secret(opened.cookie),
            user_id=signing_in.user_id,
            session_id=opened.session_id,
            created_at=now,
            last_seen_at=now,
            expires_at=opened.expires_at,
            authenticator=signing_in.authenticator,
            device=signing_in.visitor.device[:255],
            address=signing_in.visitor.address[:64],
        )
    )
    return opened


def find_session(connection: Connection, cookie: str, now: datetime) -> Session | None:
    """Return the live session of a login cookie; None for a blocked user's."""
    row = connection.execute(
        select(*_SESSION)
        .join(users, users.c.id == sessions.c.user_id)
        .where(
            sessions.c.hash == hash_secret(cookie),
            sessions.c.expires_at > now,
            users.c.blocked.is_(False),
        )
    ).one_or_none()
    return Session(**row._mapping) if row else None


def touch_session(connection: Connection, session: Session, now: datetime) -> None:
    """Note that a session was used; call it when `Session.is_seen` is false."""
    connection.execute(
        update(sessions)
        .where(sessions.c.id == session.id, sessions.c.last_seen_at < now)
        .values(last_seen_at=now)
    )


def list_sessions(connection: Connection, user_id: int, now: datetime) -> list[Session]:
    """Return a user's live sessions, the last used first."""
    rows = connection.execute(
        select(*_SESSION)
        .join(users, users.c.id == sessions.c.user_id)
        .where(sessions.c.user_id == user_id, sessions.c.expires_at > now)
        .order_by(sessions.c.last_seen_at.desc(), sessions.c.id.desc())
    ).all()
    return [Session(**row._mapping) for row in rows]


def close_session(connection: Connection, *, user_id: int, id_: int) -> None:
    """End one session of a user, as `end_session` does; raises `NotFound`, also for others'."""
    session_id = connection.scalar(
        select(sessions.c.session_id).where(sessions.c.user_id == user_id, sessions.c.id == id_)
    )
    if session_id is None:
        raise NotFound("no such sign-in", code="session-unknown")
    _close(connection, user_id, [session_id])


def end_session(connection: Connection, session: Session) -> None:
    """End a session with all that was issued in it; nothing if it has ended already."""
    _close(connection, session.user_id, [session.session_id])


def close_sessions(connection: Connection, *, user_id: int, but: str | None = None) -> int:
    """End all sessions of a user, except the one with the session id `but`; returns how many."""
    found = connection.scalars(
        select(sessions.c.session_id).where(
            sessions.c.user_id == user_id, sessions.c.session_id != (but or "")
        )
    ).all()
    _close(connection, user_id, found)
    return len(found)


def _close(connection: Connection, user_id: int, session_ids: Iterable[str]) -> None:
    for session_id in session_ids:
        # The session first: a code that is redeemed at this moment holds it, and its token is
        # seen afterwards.
        for table in (sessions, oauth_codes, tokens):
            connection.execute(
                delete(table).where(table.c.user_id == user_id, table.c.session_id == session_id)
            )
