"""Two transports that write to each other: what an upgraded connection becomes.

Each end's `data_received` *is* the other transport's `write`, so that no Python code runs for
a message. There is no idle limit here; TCP keep-alive finds a peer that has vanished.
"""

import asyncio
from collections.abc import Callable
from typing import Final

FLUSH_SECONDS: Final = 10.0
"""Time a side has to take what was sent to it before the other side ended."""


class TunnelEnd(asyncio.BaseProtocol):
    """One of the two ends; `join` makes a pair of them."""

    __slots__ = ("_half_closed", "_lost", "_transport", "data_received", "has_ended", "peer")

    peer: "TunnelEnd"

    def __init__(
        self,
        transport: asyncio.Transport,
        other: asyncio.Transport,
        half_closed: Callable[[], None],
        lost: Callable[[], None],
    ) -> None:
        self.data_received = other.write
        self.has_ended = False
        self._transport = transport
        self._half_closed = half_closed
        self._lost = lost

    def pause_writing(self) -> None:
        """Stop the other side: this one is full."""
        self.peer._transport.pause_reading()

    def resume_writing(self) -> None:
        """Let the other side go on."""
        self.peer._transport.resume_reading()

    def eof_received(self) -> bool:
        """Pass on that this side sends no more; keep the other direction, within a limit."""
        self.has_ended = True
        other = self.peer._transport
        both_can = self._transport.can_write_eof() and other.can_write_eof()
        if self.peer.has_ended or not both_can:
            other.close()
            return False
        other.write_eof()
        self._half_closed()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """End the other side, once it has taken what it has yet to get, or not taken it in time."""
        other = self.peer._transport
        if not other.is_closing():
            other.close()
            if other.get_write_buffer_size():
                asyncio.get_running_loop().call_later(FLUSH_SECONDS, other.abort)
        self._lost()


def join(
    client: asyncio.Transport,
    upstream: asyncio.Transport,
    *,
    half_closed: Callable[[], None],
    client_lost: Callable[[], None],
    upstream_lost: Callable[[], None],
) -> None:
    """Make both transports write to each other from now on."""
    near = TunnelEnd(client, upstream, half_closed, client_lost)
    far = TunnelEnd(upstream, client, half_closed, upstream_lost)
    near.peer, far.peer = far, near
    client.set_protocol(near)
    upstream.set_protocol(far)
