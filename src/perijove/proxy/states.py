"""The states of a client's connection, and how long each may last without progress."""

from typing import TYPE_CHECKING, Final

from perijove.proxy.errors import FETCH_SECONDS
from perijove.proxy.settings import Limits
from perijove.proxy.sockets import has_left

if TYPE_CHECKING:
    from perijove.proxy.client import ClientConnection

IDLE, READING, QUEUED, SENDING, ANSWERING, FAILING, TUNNEL, LINGERING, CLOSED = range(9)

NEVER: Final = float("inf")
LINGER_SECONDS: Final = 2.0
PAGE_SECONDS: Final = 2 * FETCH_SECONDS
"""Time that an error page may take, whatever happens."""


def seconds_allowed(client: "ClientConnection", limits: Limits, now: float) -> float:
    """Return for how long the client may stay as it is before `has_progressed` is asked."""
    if client.is_congested or client.state == CLOSED:
        return limits.send_seconds
    seconds = _seconds_of_state(client, limits, now)
    # A client that leaves is not seen while nothing is read from it: look now and then.
    return min(seconds, limits.half_closed_seconds) if client.inbox.is_paused else seconds


def _seconds_of_state(client: "ClientConnection", limits: Limits, now: float) -> float:
    state, exchange = client.state, client.exchange
    if state == ANSWERING and not client.has_ended:
        return NEVER if exchange.status else exchange.asked_at + limits.response_seconds - now
    if state == SENDING:
        return limits.send_seconds if exchange.awaits_continue else limits.body_seconds
    if state == READING:
        return limits.head_seconds
    if state == LINGERING:
        return LINGER_SECONDS
    if state == FAILING:
        return PAGE_SECONDS
    return limits.half_closed_seconds if client.has_ended else NEVER


def has_progressed(client: "ClientConnection", limits: Limits, now: float) -> bool:
    """Tell whether what the deadline is for has moved since it was set."""
    state, exchange = client.state, client.exchange
    if client.is_congested or state == CLOSED:
        before, client.unsent = client.unsent, client.transport.get_write_buffer_size()
        return client.unsent < before
    if state == SENDING:
        if client.inbox.is_paused:
            return not has_left(client.transport)
        return exchange.body_has_progressed()
    if client.has_ended:
        return state == ANSWERING and exchange.response_has_progressed()
    if client.inbox.is_paused and state in (QUEUED, ANSWERING):
        client.has_ended = has_left(client.transport)
        return bool(exchange.status) or now < exchange.asked_at + limits.response_seconds
    return False
