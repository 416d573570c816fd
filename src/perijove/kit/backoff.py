"""How long to wait after failures."""

from datetime import timedelta


def backoff(failures: int, *, base: float = 1.0, cap: float = 300.0) -> timedelta:
    """Return how long to wait after the given number of failures; doubles up to `cap` seconds."""
    return timedelta(seconds=min(base * 2 ** min(max(failures - 1, 0), 16), cap))
