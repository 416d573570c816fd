"""Blocking an account ends all it has at once (failure 5.26): sessions, tokens, servers."""

from datetime import datetime

from sqlalchemy import Connection, update

from perijove.db.launches import list_live
from perijove.db.tables import users
from perijove.domain.asking import Asking
from perijove.domain.launch import Cause, End, Wanted
from perijove.services.audit import Audited, record_audit
from perijove.services.launches import mark_end
from perijove.services.people import Person
from perijove.services.sessions import close_sessions


def block(connection: Connection, person: Person, *, actor: str, now: datetime) -> int:
    """
    Keep a user out from now on, and return how many of their servers were asked to end.

    Sessions end here; tokens stay as rows but open nothing while the account is blocked
    (`services/access.py`); servers are ended by the reconciler of whichever hub runs.
    """
    connection.execute(update(users).where(users.c.id == person.id).values(blocked=True))
    close_sessions(connection, user_id=person.id)
    live = [
        launch for launch in list_live(connection, user_id=person.id) if launch.wanted is Wanted.RUN
    ]
    for launch in live:
        end = End(cause=Cause.POLICY, reason="blocked")
        mark_end(connection, launch, end, asking=Asking(actor=actor), now=now)
    audited = Audited(
        action="user-blocked", actor=actor, target=person.name, params={"servers": len(live)}
    )
    record_audit(connection, audited, now)
    return len(live)


def unblock(connection: Connection, person: Person, *, actor: str, now: datetime) -> None:
    """Let a user in again; what was ended stays ended."""
    connection.execute(update(users).where(users.c.id == person.id).values(blocked=False))
    record_audit(connection, Audited(action="user-unblocked", actor=actor, target=person.name), now)
