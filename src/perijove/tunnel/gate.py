"""A connection of which is not known yet whose it is: its request is read, judged and answered."""

import asyncio
import re
from collections.abc import Coroutine
from typing import Any, Final, Protocol, cast

import msgspec
import structlog

from perijove.agent.link import SUBPROTOCOL, Link, accept_of
from perijove.proxy.fields import BadMessage
from perijove.proxy.head import (
    END,
    REQUEST_START,
    HeadLimits,
    PartialHead,
    RequestHead,
    parse_request,
)
from perijove.tunnel.ends import End, NotAdmitted
from perijove.wire.control import TunnelClaim

log = structlog.get_logger()

HEAD_SECONDS: Final = 15.0
"""Time a node has to send its whole request."""

MOST_GATES: Final = 1000
"""
Most connections at a time of which is not known yet whose they are.

Who comes then takes the place of the one that has kept its request to itself for longest: who
only opens connections keeps nobody out who has something to say.
"""

_LIMITS: Final = HeadLimits(max_bytes=16 * 1024, max_target_bytes=2048)
_KEY: Final = re.compile(rb"[0-9A-Za-z+/]{22}==")
_REASONS: Final = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    408: "Request Timeout",
    409: "Conflict",
    410: "Gone",
    426: "Upgrade Required",
    429: "Too Many Requests",
    503: "Service Unavailable",
}


class Doorkeeper(Protocol):
    """What a gate needs of the server it belongs to."""

    gates: "dict[Gate, None]"
    """In the order in which they came."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` to its end, or to that of the server."""

    async def admit(self, claim: TunnelClaim) -> End:
        """Return the end of the tunnel that a job may use; raises `NotAdmitted`."""
        ...


class Gate(asyncio.Protocol):
    """Serves one connection until it is a link, or is refused."""

    transport: asyncio.Transport

    def __init__(self, server: Doorkeeper, *, behind_proxy: bool) -> None:
        self._server = server
        self._behind_proxy = behind_proxy
        self._partial: PartialHead | None = PartialHead(REQUEST_START, _LIMITS)
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the request, not for ever."""
        self.transport = cast(asyncio.Transport, transport)
        if len(self._server.gates) >= MOST_GATES and not self._make_room():
            self.transport.abort()
            return
        self._server.gates[self] = None
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(HEAD_SECONDS, self._refuse, 408)

    def data_received(self, data: bytes) -> None:
        """Collect the request; nothing may follow it before it is answered."""
        if self._partial is None:
            self.transport.abort()
            return
        try:
            end = self._partial.feed(data, 0)
            if end < 0:
                return
            request = parse_request(self._partial.whole(), _LIMITS)
            self._partial = None
            claim = self._claim_of(request, is_all=end == len(data))
            key = _key_of(request)
        except (BadMessage, msgspec.ValidationError):
            self._refuse(400)
        except NotAdmitted as error:
            self._refuse(error.status)
        else:
            self._server.spawn(self._judge(claim, key))

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the server's care."""
        self._leave()

    def _make_room(self) -> bool:
        """Turn away who has waited longest without having asked; False when all have."""
        slowest = next((gate for gate in self._server.gates if gate.is_silent), None)
        if slowest is None:
            return False
        slowest.transport.abort()
        slowest._leave()
        return True

    @property
    def is_silent(self) -> bool:
        """Tell whether its request is not here yet."""
        return self._partial is not None

    def _claim_of(self, request: RequestHead, *, is_all: bool) -> TunnelClaim:
        """Return who says to be there; raises `NotAdmitted`, or what decoding raises."""
        if not is_all:
            raise BadMessage("more than a request")
        if not request.wants_websocket:
            raise NotAdmitted(426)
        words = b"".join(request.values(b"authorization")).decode("latin-1").split(" ")
        if len(words) != 5 or words[0] != "Perijove-Job":
            raise NotAdmitted(401)
        fields = dict(zip(("launch_id", "job_id", "nonce", "code"), words[1:], strict=True))
        return msgspec.convert({**fields, "address": self._address_of(request)}, TunnelClaim)

    def _address_of(self, request: RequestHead) -> str:
        """Return where it comes from: wrong codes from there are slowed down."""
        if self._behind_proxy:
            said = b",".join(request.values(b"x-forwarded-for")).decode("latin-1")
            return said.rpartition(",")[2].strip()[:64]
        return str(self.transport.get_extra_info("peername")[0])

    async def _judge(self, claim: TunnelClaim, key: bytes) -> None:
        try:
            end = await self._server.admit(claim)
        except NotAdmitted as error:
            log.info("tunnel_refused", launch=claim.launch_id, status=error.status)
            self._refuse(error.status)
            return
        if self.transport.is_closing():
            return
        self._leave()
        self.transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\nSec-WebSocket-Protocol: %b\r\n\r\n"
            % (accept_of(key), SUBPROTOCOL.encode())
        )
        link = Link(end.detach)
        end.attach(link, claim.nonce)
        link.start(self.transport, asyncio.get_running_loop(), b"")

    def _refuse(self, status: int) -> None:
        if not self.transport.is_closing():
            head = f"HTTP/1.1 {status} {_REASONS.get(status, 'Refused')}\r\n"
            self.transport.write(
                head.encode() + b"Connection: close\r\nContent-Length: 0\r\n" + END[2:]
            )
            self.transport.close()

    def _leave(self) -> None:
        self._server.gates.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()


def _key_of(request: RequestHead) -> bytes:
    keys = request.values(b"sec-websocket-key")
    offered = b",".join(request.values(b"sec-websocket-protocol"))
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]) or offered != SUBPROTOCOL.encode():
        raise BadMessage("not the request of a node")
    return keys[0]
