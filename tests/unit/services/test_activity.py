"""Uses of tokens, noted without a write for each."""

from datetime import UTC, datetime, timedelta

from perijove.domain.scopes import Scopes
from perijove.services.access import Caller
from perijove.services.activity import RESOLUTION_SECONDS, Seen

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def caller(**given: object) -> Caller:
    """Return somebody with a token."""
    return Caller(**{"name": "ann", "scopes": Scopes(), "user_id": 7, "token_id": 3, **given})  # type: ignore[arg-type]


def test_uses_close_together_count_once() -> None:
    """Half a minute of requests is one note, and the next half another."""
    seen = Seen()
    for seconds in range(int(RESOLUTION_SECONDS)):
        seen.note(caller(), NOW + timedelta(seconds=seconds))
    first = seen.take()
    seen.note(caller(), NOW + timedelta(seconds=RESOLUTION_SECONDS - 1))
    nothing = seen.take()
    later = NOW + timedelta(seconds=RESOLUTION_SECONDS)
    seen.note(caller(), later)

    assert first == ({3: NOW}, {7: NOW})
    assert nothing == ({}, {})
    assert seen.take() == ({3: later}, {7: later})


def test_servers_and_browsers_are_no_use_of_a_persons_token() -> None:
    """A server's own token is noted without its user; a session is no token at all."""
    seen = Seen()
    seen.note(caller(launch_id="lch_1"), NOW)
    seen.note(caller(token_id=None, session_id="s"), NOW)

    assert seen.take() == ({3: NOW}, {})
