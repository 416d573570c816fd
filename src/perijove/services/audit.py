"""The audit trail: who did what to whom, written in the transaction that did it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert

from perijove.db.tables import audit_events


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """One thing that somebody did."""

    action: str
    """Stable; pages make a sentence of it."""
    actor: str
    target: str
    params: Mapping[str, Any] = field(default_factory=dict)
    """What the sentence is filled in with; never a secret."""
    address: str = ""
    token_id: int | None = None
    request_id: str | None = None


def record_audit(connection: Connection, audited: Audited, now: datetime) -> None:
    """Add one row to the trail."""
    connection.execute(
        insert(audit_events).values(
            at=now,
            action=audited.action,
            actor=audited.actor[:255],
            target=audited.target[:255],
            params=dict(audited.params),
            address=audited.address[:64],
            token_id=audited.token_id,
            request_id=audited.request_id,
        )
    )
