"""Heads of requests and responses: judged, split and rewritten.

Two expressions, for the first line and for the fields, and a look at the control bytes accept
strict HTTP/1.1 and nothing else; a third one finds only the fields that mean something to a
proxy. Every quantifier is possessive: there is nothing to backtrack into, so the time is linear
whatever the bytes are. Nothing here does input or output.
"""

import re
from dataclasses import dataclass
from typing import Final

from perijove.proxy.fields import (
    UNTIL_CLOSE,
    BadMessage,
    RequestFields,
    ResponseFields,
    forwardable,
    of_request,
    of_response,
    relayable,
    values,
)

END: Final = b"\r\n\r\n"
"""What ends a head."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
# Control bytes in values are left to `_count_fields`: an expression takes much longer for them.
_FIELDS = re.compile(rb"(?:" + _TOKEN + rb":[^\r]*+\r\n)*+\r\n")
_PLAIN: Final = b"\t" + bytes(byte for byte in range(0x20, 0x100) if byte != 0x7F)
"""What may stand somewhere in a head, the ends of lines aside."""

# Path without "?", "#" and "\"; query without "#". Both are printable ASCII only.
_REQUEST_LINE = re.compile(
    rb"([A-Z]++) (/[!\"$->@-\[\]-~]*+)((?:\?[!\"$-~]*+)?+) HTTP/1\.([01])\r\n"
)
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5]\d\d)(?: [^\r]*+)?+\r\n")
REQUEST_START: Final = re.compile(rb"[A-Z]{1,32}(?: |\Z)")
"""What the bytes of a request's head begin with, as far as they have come."""

RESPONSE_START: Final = re.compile(rb"HTTP/1\.|HTTP/1?\Z|HTT?P?\Z|H\Z")
"""What the bytes of a response's head begin with, as far as they have come."""

_VERSION = re.compile(rb"\S++ \S++ HTTP/(\d)\.(\d)\r\n")

BARE = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r[^\n]|[^\r]\n")
"""A byte that no head or chunk line may hold: found early, it ends a connection early."""

_DOT_SEGMENT = re.compile(rb"(?:/|%2f|%5c)(?:\.|%2e){1,2}+(?![^/;%]|%(?!2f|5c|3b))", re.I)

METHODS: Final = frozenset(
    b"GET HEAD POST PUT DELETE OPTIONS PATCH PROPFIND PROPPATCH MKCOL COPY MOVE LOCK UNLOCK "
    b"SEARCH REPORT MKACTIVITY CHECKOUT MERGE NOTIFY SUBSCRIBE UNSUBSCRIBE BIND UNBIND REBIND "
    b"ACL PURGE LINK UNLINK".split()
)
"""What is forwarded. CONNECT would make us an open proxy, TRACE would show our fields."""

_SWITCH: Final = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
_WITHOUT_BODY: Final = frozenset((204, 304))


@dataclass(frozen=True, slots=True)
class HeadLimits:
    """How large a head may be."""

    max_bytes: int = 64 * 1024
    max_target_bytes: int = 32 * 1024
    max_fields: int = 200


class PartialHead:
    """A head that comes in pieces; each byte of it is looked at once."""

    __slots__ = ("_held", "_judged", "_limits", "_start")

    def __init__(self, start: re.Pattern[bytes], limits: HeadLimits) -> None:
        self._start = start
        self._limits = limits
        self._held = bytearray()
        self._judged = 0

    def feed(self, data: bytes, start: int) -> int:
        """Add `data` from `start`; return where the head ends in it, or -1 if it goes on.

        Raise `BadMessage` when no further byte can make it good.
        """
        held = self._held
        before = len(held)
        held += data[start:]
        end = held.find(END, max(0, before - len(END) + 1))
        if end >= 0:
            end += len(END)
            del held[end:]
            return start + end - before
        if len(held) > self._limits.max_bytes:
            raise too_large(held, self._limits)
        judged, self._judged = self._judged, max(0, len(held) - 1)
        if not self._start.match(held) or BARE.search(held, judged):
            raise BadMessage("malformed head")
        return -1

    def whole(self) -> bytes:
        """Return the head, once `feed` has found its end."""
        return bytes(self._held)


def too_large(head: bytes | bytearray, limits: HeadLimits) -> BadMessage:
    """Return why a head over the limit is refused: for its target, or for its fields."""
    if head.find(b"\r\n", 0, limits.max_target_bytes + 64) < 0:
        return BadMessage("target too long", 414)
    return BadMessage("head too large", 431)


@dataclass(slots=True)
class RequestHead:
    """A request that may be forwarded."""

    head: bytes
    method: bytes
    path: bytes
    query: bytes
    lines: bytes
    """The field lines as they came."""
    fields: RequestFields
    is_http10: bool

    @property
    def wants_websocket(self) -> bool:
        """Tell whether the request asks to become a WebSocket."""
        return self.fields.wants_websocket and self.method == b"GET"

    def to_forward(self, forwarded: bytes, *, trusted: bool) -> bytes:
        """Return the head for the upstream.

        `forwarded` is our own X-Forwarded fields and the blank line; other fields of that kind
        stay only when they come from a trusted proxy.
        """
        if not self.fields.must_rewrite:
            return self.head[:-2] + forwarded
        line_end = self.head.index(b"\n") + 1
        hop = b""
        if self.wants_websocket:
            hop = _SWITCH
        elif self.is_http10:
            hop = b"Connection: close\r\n"
        kept = forwardable(self.lines, self.fields, trusted=trusted)
        return b"%b%b%b%b" % (self.head[:line_end], kept, hop, forwarded)

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of a field, in order; `name` in lower case."""
        return values(self.lines, name)


@dataclass(slots=True)
class ResponseHead:
    """A response that may be relayed."""

    head: bytes
    status: int
    lines: bytes
    fields: ResponseFields
    is_http10: bool

    def to_relay(self, *, close: bool) -> bytes:
        """Return the head for the client, telling it with `close` that the connection ends."""
        if not self.fields.must_rewrite and not close:
            return self.head
        line_end = self.head.index(b"\n") + 1
        hop = b"Connection: close\r\n" if close else b""
        if self.status == 101:
            hop = _SWITCH
        kept = relayable(self.lines, self.fields)
        return b"HTTP/1.1%b%b%b\r\n" % (self.head[8:line_end], kept, hop)

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of a field, in order; `name` in lower case."""
        return values(self.lines, name)


def parse_request(
    head: bytes, limits: HeadLimits, before: RequestHead | None = None
) -> RequestHead:
    """Judge one whole request head, blank line included; raise `BadMessage` to refuse it.

    `before` is the last request of the same client: a browser often sends the same fields again,
    byte for byte, and what has been judged need not be judged twice.
    """
    if len(head) > limits.max_bytes:
        raise too_large(head, limits)
    match = _REQUEST_LINE.match(head)
    if match is None:
        raise _why_refused(head)
    method, path, query, minor = match.groups()
    start, is_http10 = match.end(), minor == b"0"
    fields = None if before is None else _repeated(before, head, start, is_http10=is_http10)
    count = _count_fields(head, start) if fields is None else 0
    if count < 0:
        raise _why_refused(head)
    if method not in METHODS:
        raise BadMessage("method", 405 if method in (b"CONNECT", b"TRACE") else 501)
    if len(path) + len(query) > limits.max_target_bytes:
        raise BadMessage("target too long", 414)
    if count > limits.max_fields:
        raise BadMessage("too many fields", 431)
    if (b"%" in path or b"/." in path) and _DOT_SEGMENT.search(path):
        raise BadMessage("dot segment in path")
    if fields is None:
        fields = of_request(head, start - 1, is_http10=is_http10)
    return RequestHead(head, method, path, query, head[start:-2], fields, is_http10)


def parse_response(head: bytes, limits: HeadLimits) -> ResponseHead:
    """Judge one whole response head, blank line included; raise `BadMessage` to refuse it."""
    if len(head) > limits.max_bytes:
        raise BadMessage("response head too large")
    match = _STATUS_LINE.match(head)
    count = -1 if match is None else _count_fields(head, match.end())
    if match is None or count < 0:
        raise BadMessage("malformed response head")
    if count > limits.max_fields:
        raise BadMessage("too many fields in the response")
    minor, status = match.groups()
    start, is_http10 = match.end(), minor == b"0"
    fields = of_response(head, start - 1, is_http10=is_http10)
    return ResponseHead(head, int(status), head[start:-2], fields, is_http10)


def body_length(response: ResponseHead, method: bytes) -> int:
    """Return how long the body is that follows `response` to a request with `method`."""
    status, length = response.status, response.fields.length
    if status == 204 and length not in (UNTIL_CLOSE, 0):
        raise BadMessage("204 with a body")
    if method == b"HEAD" or status in _WITHOUT_BODY:
        return 0
    return length


def host_name(host: bytes) -> bytes:
    """Return the name in a Host field as routes have it: lower case, no port, no final dot."""
    if host.startswith(b"["):
        return host[: host.index(b"]") + 1].lower()
    return host.partition(b":")[0].rstrip(b".").lower()


def _repeated(
    before: RequestHead, head: bytes, start: int, *, is_http10: bool
) -> RequestFields | None:
    """Return the fields of `before` if those of `head`, from `start`, are the same bytes.

    Without any there is nothing to save, and what stands for a refused request has none either.
    """
    lines = before.lines
    if lines and is_http10 == before.is_http10 and head[start:] == lines + b"\r\n":
        return before.fields
    return None


def _count_fields(head: bytes, start: int) -> int:
    """Return how many fields `head` has from `start` on; -1 if it is malformed.

    Where carriage return and line feed alternate, and each of the first is followed by one of
    the second, there is no other of either.
    """
    ends = head.translate(None, _PLAIN)
    lines = len(ends) // 2
    if ends != b"\r\n" * lines or _FIELDS.fullmatch(head, start) is None:
        return -1
    return lines - 2


def _why_refused(head: bytes) -> BadMessage:
    version = _VERSION.match(head)
    if version is not None and version.groups() not in ((b"1", b"0"), (b"1", b"1")):
        return BadMessage("version other than 1.0 and 1.1", 505)
    return BadMessage("malformed head")
