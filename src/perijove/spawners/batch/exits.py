"""What the exit status of a job says, whatever scheduler tells it."""

from typing import Final

from perijove.agent.cannot import EXITS
from perijove.domain.launch import Cause, End

_REASONS: Final = {status: code for code, status in EXITS.items()}


def end_of_status(status: int, detail: str = "") -> End:
    """Return the end of a job that exited: why it could start no server, if it says so."""
    reason = _REASONS.get(status)
    if reason is None:
        return End(cause=Cause.EXITED, code=status, detail=detail)
    return End(cause=Cause.NEVER_STARTED, code=status, reason=reason, detail=detail)
