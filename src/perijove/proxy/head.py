"""Heads of requests and responses: judged, split and rewritten, each in one pass.

A head is matched as a whole by one expression that accepts strict HTTP/1.1 and nothing else;
a second one finds only the fields that mean something to a proxy. Every quantifier is
possessive: there is nothing to backtrack into, so the time is linear whatever the bytes are.
Nothing here does input or output.
"""

import re
from dataclasses import dataclass
from typing import Final

from perijove.wire.control import SECRET_HEADER

CHUNKED: Final = -1
"""Length of a body that comes in chunks."""

UNTIL_CLOSE: Final = -2
"""Length of a response body that ends with its connection."""

END: Final = b"\r\n\r\n"
"""What ends a head."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_FIELDS = rb"((?:" + _TOKEN + rb":[^\x00-\x08\x0a-\x1f\x7f]*+\r\n)*+)\r\n"

# Path without "?", "#" and "\"; query without "#". Both are printable ASCII only.
_REQUEST = re.compile(
    rb"([A-Z]++) (/[!\"$->@-\[\]-~]*+)((?:\?[!\"$-~]*+)?+) HTTP/1\.([01])\r\n" + _FIELDS
)
_RESPONSE = re.compile(
    rb"HTTP/1\.([01]) ([1-5]\d\d)(?: [^\x00-\x08\x0a-\x1f\x7f]*+)?+\r\n" + _FIELDS
)
_VERSION = re.compile(rb"\S++ \S++ HTTP/(\d)\.(\d)\r\n")

BARE = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r[^\n]|[^\r]\n")
"""A byte that no head or chunk line may hold: found early, it ends a connection early."""

_DOT_SEGMENT = re.compile(rb"(?:/|%2f|%5c)(?:\.|%2e){1,2}+(?![^/;%]|%(?!2f|5c|3b))", re.I)
_HOST = re.compile(rb"(?:[A-Za-z0-9_.~\-]++|\[[0-9A-Fa-f:.]++\])(?::[0-9]{1,5}+)?+")
_LENGTH = re.compile(rb"[0-9]{1,18}+")

_secret = re.escape(SECRET_HEADER.lower().encode()).replace(rb"\-", rb"[-_]")
_SPECIAL_OF_REQUEST = re.compile(
    rb"\n(?=[cefhkpstuxCEFHKPSTUX])"
    rb"(host|connection|sec-fetch-mode|content[-_]length|transfer[-_]encoding|upgrade|expect"
    rb"|te|keep-alive|proxy-connection|forwarded|x[-_]forwarded[-_][a-z_\-]++"
    rb"|x[-_]real[-_]ip|x[-_]scheme|" + _secret + rb"):[ \t]*+([^\r]*+)",
    re.I,
)
_SPECIAL_OF_RESPONSE = re.compile(
    rb"\n(?=[cktupxCKTUPX])"
    rb"(content-length|transfer-encoding|connection|upgrade|keep-alive|proxy-connection|te|"
    + _secret
    + rb"):[ \t]*+([^\r]*+)",
    re.I,
)
# What is never passed on; the rest of the hop-by-hop fields is named by `Connection` in each
# message. What a peer says about where the request came from is believed of trusted proxies only.
_HOP = rb"connection|upgrade|te|keep-alive|proxy-connection|" + _secret
_DROPPED = re.compile(_HOP + rb"|forwarded|x[-_]forwarded[-_].*|x[-_]real[-_]ip|x[-_]scheme", re.I)
_DROPPED_OF_TRUSTED = re.compile(
    _HOP + rb"|forwarded|x[-_]forwarded[-_](?:for|proto|host|port)", re.I
)
_DROPPED_OF_RESPONSE = re.compile(_HOP, re.I)
_NEVER_NOMINATED = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"cookie", b"authorization")
)
_ONCE = frozenset((b"host", b"content-length", b"transfer-encoding", b"expect", b"upgrade"))
# Special fields that a message may keep as they are.
_UNTOUCHED = _ONCE - {b"upgrade"} | {b"connection", b"sec-fetch-mode"}
_FRAMING_IN_DISGUISE = frozenset((b"content_length", b"transfer_encoding"))

METHODS: Final = frozenset(
    b"GET HEAD POST PUT DELETE OPTIONS PATCH PROPFIND PROPPATCH MKCOL COPY MOVE LOCK UNLOCK "
    b"SEARCH REPORT MKACTIVITY CHECKOUT MERGE NOTIFY SUBSCRIBE UNSUBSCRIBE BIND UNBIND REBIND "
    b"ACL PURGE LINK UNLINK".split()
)
"""What is forwarded. CONNECT would make us an open proxy, TRACE would show our fields."""

_WITHOUT_BODY: Final = frozenset((204, 304))


class BadMessage(Exception):
    """A message that is refused; `status` is the answer a client gets for it."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


@dataclass(frozen=True, slots=True)
class HeadLimits:
    """How large a head may be."""

    max_bytes: int = 64 * 1024
    max_target_bytes: int = 32 * 1024
    max_fields: int = 200


class PartialHead:
    """A head that comes in pieces; the search for its end looks at each byte once."""

    __slots__ = ("_held", "_judged")

    def __init__(self) -> None:
        self._held = bytearray()
        self._judged = 0

    def __len__(self) -> int:
        return len(self._held)

    def feed(self, data: bytes, start: int) -> int:
        """Add `data` from `start`; return where the head ends in it, or -1 if it goes on."""
        held = self._held
        before = len(held)
        held += data[start:]
        end = held.find(END, max(0, before - len(END) + 1))
        if end < 0:
            return -1
        end += len(END)
        del held[end:]
        return start + end - before

    def starts_like(self, pattern: re.Pattern[bytes]) -> bool:
        """Tell whether the bytes so far can still become a head that begins with `pattern`."""
        judged, self._judged = self._judged, max(0, len(self._held) - 1)
        return bool(pattern.match(self._held)) and not BARE.search(self._held, judged)

    def whole(self) -> bytes:
        """Return the bytes so far: the head, once `feed` has found its end."""
        return bytes(self._held)


@dataclass(slots=True)
class RequestHead:
    """A request that may be forwarded."""

    head: bytes
    method: bytes
    path: bytes
    query: bytes
    fields: bytes
    host: bytes = b""
    length: int = 0
    is_http10: bool = False
    close: bool = False
    upgrade: bool = False
    expects_continue: bool = False
    navigates: bool = False
    must_rewrite: bool = False
    nominated: frozenset[bytes] = frozenset()

    def to_forward(self, forwarded: bytes, *, trusted: bool) -> bytes:
        """Return the head for the upstream.

        `forwarded` is our own X-Forwarded fields and the blank line; other fields of that kind
        stay only when they come from a trusted proxy.
        """
        if not self.must_rewrite:
            return self.head[:-2] + forwarded
        line_end = self.head.index(b"\n") + 1
        dropped = _DROPPED_OF_TRUSTED if trusted else _DROPPED
        kept = _without(self.fields, dropped, self.nominated)
        hop = b""
        if self.upgrade:
            hop = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
        elif self.is_http10:
            hop = b"Connection: close\r\n"
        return b"%b%b%b%b" % (self.head[:line_end], kept, hop, forwarded)

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of a field, in order; `name` in lower case."""
        return _values(self.fields, name)


@dataclass(slots=True)
class ResponseHead:
    """A response that may be relayed."""

    head: bytes
    status: int
    fields: bytes
    length: int = UNTIL_CLOSE
    close: bool = False
    upgrade: bool = False
    is_http10: bool = False
    must_rewrite: bool = False
    nominated: frozenset[bytes] = frozenset()

    def to_relay(self, *, close: bool) -> bytes:
        """Return the head for the client, telling it with `close` that the connection ends."""
        if not self.must_rewrite and not close:
            return self.head
        line_end = self.head.index(b"\n") + 1
        kept = _without(self.fields, _DROPPED_OF_RESPONSE, self.nominated)
        hop = b"Connection: close\r\n" if close else b""
        if self.status == 101:
            hop = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
        return b"HTTP/1.1%b%b%b\r\n" % (self.head[8:line_end], kept, hop)

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of a field, in order; `name` in lower case."""
        return _values(self.fields, name)


def parse_request(head: bytes, limits: HeadLimits) -> RequestHead:
    """Judge one whole request head, blank line included; raise `BadMessage` to refuse it."""
    match = _REQUEST.fullmatch(head)
    if match is None:
        raise _why_refused(head)
    method, path, query, minor, fields = match.groups()
    if method not in METHODS:
        raise BadMessage("method", 405 if method in (b"CONNECT", b"TRACE") else 501)
    if len(path) + len(query) > limits.max_target_bytes:
        raise BadMessage("target too long", 414)
    if fields.count(b"\n") > limits.max_fields:
        raise BadMessage("too many fields", 431)
    if (b"%" in path or b"/." in path) and _DOT_SEGMENT.search(path):
        raise BadMessage("dot segment in path")
    request = RequestHead(head, method, path, query, fields)
    if minor == b"0":
        request.is_http10 = request.close = request.must_rewrite = True
    _read_request_fields(request, _collect(_SPECIAL_OF_REQUEST.findall(head, match.start(5) - 1)))
    return request


def _read_request_fields(request: RequestHead, seen: dict[bytes, bytes]) -> None:
    if not seen.keys() <= _UNTOUCHED:
        request.must_rewrite = True
        if not _FRAMING_IN_DISGUISE.isdisjoint(seen):
            raise BadMessage("framing field with an underscore")
    _set_host(request, seen.get(b"host"))
    request.length = _length(seen, is_http10=request.is_http10, absent=0)
    request.navigates = seen.get(b"sec-fetch-mode") == b"navigate"
    expect = seen.get(b"expect")
    if expect is not None:
        _set_expect(request, expect.lower())
    tokens = _connection_tokens(seen)
    if tokens:
        if not _NEVER_NOMINATED.isdisjoint(tokens):
            raise BadMessage("Connection names an end-to-end field")
        request.must_rewrite = True
        request.nominated = tokens
        request.close = request.close or b"close" in tokens
        request.upgrade = (
            b"upgrade" in tokens
            and seen.get(b"upgrade", b"").lower() == b"websocket"
            and request.method == b"GET"
            and request.length == 0
            and not request.is_http10
        )


def _set_host(request: RequestHead, host: bytes | None) -> None:
    if host is None:
        if not request.is_http10:
            raise BadMessage("no Host")
    elif _HOST.fullmatch(host) is None:
        raise BadMessage("bad Host")
    else:
        request.host = host


def _set_expect(request: RequestHead, expect: bytes) -> None:
    if expect != b"100-continue":
        raise BadMessage("unknown expectation", 417)
    if not request.is_http10:
        request.expects_continue = True


def parse_response(head: bytes, limits: HeadLimits) -> ResponseHead:
    """Judge one whole response head, blank line included; raise `BadMessage` to refuse it."""
    match = _RESPONSE.fullmatch(head)
    if match is None:
        raise BadMessage("malformed response head")
    minor, status, fields = match.groups()
    if fields.count(b"\n") > limits.max_fields:
        raise BadMessage("too many fields in the response")
    response = ResponseHead(head, int(status), fields)
    if minor == b"0":
        response.is_http10 = response.close = response.must_rewrite = True
    seen = _collect(_SPECIAL_OF_RESPONSE.findall(head, match.start(3) - 1))
    response.length = _length(seen, is_http10=response.is_http10, absent=UNTIL_CLOSE)
    tokens = _connection_tokens(seen)
    if tokens:
        response.must_rewrite = True
        response.nominated = tokens - _NEVER_NOMINATED
        response.close = response.close or b"close" in tokens
        response.upgrade = (
            b"upgrade" in tokens and seen.get(b"upgrade", b"").lower() == b"websocket"
        )
    elif not seen.keys() <= _UNTOUCHED:
        response.must_rewrite = True
    return response


def body_length(response: ResponseHead, method: bytes) -> int:
    """Return how long the body is that follows `response` to a request with `method`."""
    status = response.status
    if status == 204 and response.length not in (UNTIL_CLOSE, 0):
        raise BadMessage("204 with a body")
    if method == b"HEAD" or status in _WITHOUT_BODY:
        return 0
    return response.length


def host_name(host: bytes) -> bytes:
    """Return the name in a Host field as routes have it: lower case, no port, no final dot."""
    if host.startswith(b"["):
        return host[: host.index(b"]") + 1].lower()
    return host.partition(b":")[0].rstrip(b".").lower()


def _collect(found: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return the fields by lower-case name; refuse a second one where only one has a meaning."""
    seen: dict[bytes, bytes] = {}
    for raw_name, raw_value in found:
        name = raw_name.lower()
        value = raw_value.rstrip(b" \t")
        if name in seen:
            if name in _ONCE:
                raise BadMessage(f"more than one {name.decode()}")
            value = b"%b,%b" % (seen[name], value)
        seen[name] = value
    return seen


def _length(seen: dict[bytes, bytes], *, is_http10: bool, absent: int) -> int:
    coding = seen.get(b"transfer-encoding")
    length = seen.get(b"content-length")
    if coding is not None:
        if length is not None:
            raise BadMessage("both Content-Length and Transfer-Encoding")
        if is_http10 or coding.lower() != b"chunked":
            raise BadMessage("transfer coding other than chunked")
        return CHUNKED
    if length is None:
        return absent
    if _LENGTH.fullmatch(length) is None:
        raise BadMessage("bad Content-Length")
    return int(length)


def _connection_tokens(seen: dict[bytes, bytes]) -> frozenset[bytes]:
    """Return what Connection names, in lower case; nothing where it only says keep-alive."""
    value = seen.get(b"connection")
    if value is None or (value := value.lower()) == b"keep-alive":
        return frozenset()
    return frozenset(token.strip(b" \t") for token in value.split(b","))


def _without(fields: bytes, dropped: re.Pattern[bytes], nominated: frozenset[bytes]) -> bytes:
    kept = []
    for line in fields.split(b"\r\n")[:-1]:
        name = line[: line.index(b":")]
        if dropped.fullmatch(name) is None and name.lower() not in nominated:
            kept.append(line + b"\r\n")
    return b"".join(kept)


def _values(fields: bytes, name: bytes) -> list[bytes]:
    found = []
    for line in fields.split(b"\r\n")[:-1]:
        key, _, value = line.partition(b":")
        if key.lower() == name:
            found.append(value.strip(b" \t"))
    return found


def _why_refused(head: bytes) -> BadMessage:
    version = _VERSION.match(head)
    if version is not None and version.groups() not in ((b"1", b"0"), (b"1", b"1")):
        return BadMessage("version other than 1.0 and 1.1", 505)
    return BadMessage("malformed head")
