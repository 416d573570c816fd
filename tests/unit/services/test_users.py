"""What a server's launch means in the wire's words (its Appendix B)."""

import pytest

from perijove.domain.launch import Status, Wanted
from perijove.services.users import ServerRow


def row(status: Status | None, wanted: Wanted | None) -> ServerRow:
    """Return a server whose newest launch is in a state."""
    return ServerRow("", "", None, None, None, status, wanted, None, None, None)


@pytest.mark.parametrize("status", list(Status))
@pytest.mark.parametrize("wanted", list(Wanted))
def test_every_state_has_its_words(status: Status, wanted: Wanted) -> None:
    """A server is stopped, ready, or has exactly one thing pending."""
    server = row(status, wanted)

    assert [server.is_stopped, server.is_ready, server.pending is not None].count(True) == 1
    assert server.is_stopped is (status is Status.ENDED)


@pytest.mark.parametrize(
    ("status", "wanted", "pending", "ready"),
    [
        (None, None, None, False),
        (Status.REQUESTED, Wanted.RUN, "spawn", False),
        (Status.QUEUED, Wanted.RUN, "spawn", False),
        (Status.CONNECTING, Wanted.RUN, "spawn", False),
        (Status.READY, Wanted.RUN, None, True),
        (Status.READY, Wanted.END, "stop", False),
        (Status.QUEUED, Wanted.END, "stop", False),
        (Status.ENDING, Wanted.RUN, "stop", False),
        (Status.SUSPENDED, Wanted.RUN, "check", False),
        (Status.ENDED, Wanted.END, None, False),
    ],
)
def test_words_are_those_of_the_wire(
    status: Status | None, wanted: Wanted | None, pending: str | None, ready: bool
) -> None:
    """Pending and ready follow the table that clients were written against."""
    server = row(status, wanted)

    assert (server.pending, server.is_ready) == (pending, ready)
