"""Who asks for a change, as events and the audit trail remember it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """The author of a request; policy acts as actor ``hub``."""

    actor: str
    token_id: int | None = None
    session_id: str | None = None
    on_behalf: str | None = None
    """The person for whom somebody else asked."""
    request_id: str | None = None


HUB = Asking(actor="hub")
"""The hub itself, acting for policy or on what it saw."""
