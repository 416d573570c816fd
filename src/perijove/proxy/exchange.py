"""One request and its response: what was asked, how far it has come, and its line in the log."""

from time import monotonic
from typing import TYPE_CHECKING, Final

from perijove.proxy.access import AccessLog
from perijove.proxy.body import ChunkedBody
from perijove.proxy.fields import CHUNKED, UNTIL_CLOSE, RequestFields
from perijove.proxy.head import RequestHead

if TYPE_CHECKING:
    from perijove.proxy.upstream import Backend

MIN_BODY_BYTES: Final = 1024
"""What a request body has to bring forward in each interval."""

_IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))
_NO_ACTIVITY = frozenset((b"GET", b"HEAD", b"OPTIONS"))
_NO_FIELDS = RequestFields(
    host=b"", length=UNTIL_CLOSE, close=True, wants_websocket=False, expects_continue=False,
    navigates=False, must_rewrite=True, nominated=frozenset(),
)  # fmt: skip
_NO_REQUEST = RequestHead(b"", b"-", b"-", b"", b"", _NO_FIELDS, is_http10=True)


class Exchange:
    """State that begins with a request and ends with its response."""

    __slots__ = (
        "_chunks", "_received_before", "_relayed_before", "asked_at", "awaits_continue",
        "backend", "closes", "has_retried", "head", "left", "received", "relayed", "request",
        "started_at", "status",
    )  # fmt: skip

    def __init__(self, request: RequestHead, started_at: float) -> None:
        fields = request.fields
        self.request = request
        self.started_at = started_at
        self.asked_at = started_at
        """When the request was complete."""
        self.left = fields.length
        """Bytes of the request's body still to come; `CHUNKED` while their number is open."""
        self.closes = fields.close
        """The connection ends with the response."""
        self.awaits_continue = fields.expects_continue
        self.has_retried = False
        self.head = b""
        """The head as it is forwarded."""
        self.status = 0
        """Of the response; 0 while none of it is sent."""
        self.relayed = 0
        self.received = 0
        self.backend: Backend | None = None
        self._chunks = ChunkedBody() if self.left == CHUNKED else None
        self._received_before = self._relayed_before = 0

    @property
    def may_retry(self) -> bool:
        """Tell whether the request may be sent a second time: idempotent, without a body."""
        return (
            not self.has_retried
            and self.request.fields.length == 0
            and self.request.method in _IDEMPOTENT
        )

    @property
    def is_activity(self) -> bool:
        """Tell whether a person did something: a change or a navigation, not a poll."""
        return self.request.method not in _NO_ACTIVITY or self.request.fields.navigates

    def take_body(self, data: bytes, start: int) -> int:
        """Return where the body ends in `data`, its length if it goes on; raise `BadMessage`."""
        if self._chunks is None:
            end = min(len(data), start + self.left)
            self.left -= end - start
        else:
            end = self._chunks.feed(data, start)
            if self._chunks.done:
                self._chunks = None
                self.left = 0
        self.received += end - start
        self.awaits_continue = False
        return end

    def body_has_progressed(self) -> bool:
        """Tell whether enough of the body came since this was asked last."""
        before, self._received_before = self._received_before, self.received
        return self.received - before >= MIN_BODY_BYTES

    def response_has_progressed(self) -> bool:
        """Tell whether anything of the response came since this was asked last."""
        before, self._relayed_before = self._relayed_before, self.relayed
        return self.relayed > before

    def log(self, access: AccessLog, peer: bytes, status: int) -> None:
        """Write the line of the access log."""
        access.write(
            peer,
            self.request.method,
            self.request.path,
            status,
            self.relayed,
            monotonic() - self.started_at,
            b"" if self.backend is None else self.backend.launch,
        )


def refused(started_at: float) -> Exchange:
    """Return the exchange of what is no request: everything until the end belongs to it."""
    return Exchange(_NO_REQUEST, started_at)
