"""The fields of a head that mean something to a proxy, and what they mean together.

The same few combinations come again and again, from every client and every server, so what
they mean is worked out once and kept. Nothing here does input or output.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from perijove.wire.control import SECRET_HEADER

CHUNKED: Final = -1
"""Length of a body that comes in chunks."""

UNTIL_CLOSE: Final = -2
"""Length of a response body that ends with its connection."""

Found = tuple[tuple[bytes, bytes], ...]
"""Names and values of special fields, as they stand in a head."""

_KEPT: Final = 1024
"""Combinations that are kept, of requests and of responses."""

_KEPT_HEAD_BYTES: Final = 4096
"""Combinations from larger heads are not kept: they could fill the memory."""

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

_HOST = re.compile(rb"(?:[A-Za-z0-9_.~\-]++|\[[0-9A-Fa-f:.]++\])(?::[0-9]{1,5}+)?+")
_LENGTH = re.compile(rb"[0-9]{1,18}+")


class BadMessage(Exception):
    """A message that is refused; `status` is the answer a client gets for it."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


@dataclass(frozen=True, slots=True)
class RequestFields:
    """What the special fields of a request say."""

    host: bytes
    length: int
    close: bool
    wants_websocket: bool
    expects_continue: bool
    navigates: bool
    must_rewrite: bool
    nominated: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class ResponseFields:
    """What the special fields of a response say."""

    length: int
    close: bool
    is_websocket: bool
    must_rewrite: bool
    nominated: frozenset[bytes]


def of_request(head: bytes, start: int, *, is_http10: bool) -> RequestFields:
    """Return what the fields of `head` say; `start` is just before the first one."""
    found = tuple(_SPECIAL_OF_REQUEST.findall(head, start))
    if len(head) > _KEPT_HEAD_BYTES:
        return _request_fields(found, is_http10)
    return _kept_request_fields(found, is_http10)


def of_response(head: bytes, start: int, *, is_http10: bool) -> ResponseFields:
    """Return what the fields of `head` say; `start` is just before the first one."""
    found = tuple(_SPECIAL_OF_RESPONSE.findall(head, start))
    if len(head) > _KEPT_HEAD_BYTES:
        return _response_fields(found, is_http10)
    return _kept_response_fields(found, is_http10)


def _request_fields(found: Found, is_http10: bool) -> RequestFields:
    seen = _collect(found)
    if not _FRAMING_IN_DISGUISE.isdisjoint(seen):
        raise BadMessage("framing field with an underscore")
    tokens = _connection_tokens(seen)
    if not _NEVER_NOMINATED.isdisjoint(tokens):
        raise BadMessage("Connection names an end-to-end field")
    length = _length(seen, is_http10=is_http10, absent=0)
    expect = seen.get(b"expect", b"100-continue").lower()
    if expect != b"100-continue":
        raise BadMessage("unknown expectation", 417)
    return RequestFields(
        host=_host(seen, is_http10=is_http10),
        length=length,
        close=is_http10 or b"close" in tokens,
        wants_websocket=_is_websocket(seen, tokens) and length == 0 and not is_http10,
        expects_continue=b"expect" in seen and not is_http10,
        navigates=seen.get(b"sec-fetch-mode") == b"navigate",
        must_rewrite=is_http10 or bool(tokens) or not seen.keys() <= _UNTOUCHED,
        nominated=tokens,
    )


def _response_fields(found: Found, is_http10: bool) -> ResponseFields:
    seen = _collect(found)
    tokens = _connection_tokens(seen)
    return ResponseFields(
        length=_length(seen, is_http10=is_http10, absent=UNTIL_CLOSE),
        close=is_http10 or b"close" in tokens,
        is_websocket=_is_websocket(seen, tokens),
        must_rewrite=is_http10 or bool(tokens) or not seen.keys() <= _UNTOUCHED,
        nominated=tokens - _NEVER_NOMINATED,
    )


_kept_request_fields: Callable[[Found, bool], RequestFields] = lru_cache(_KEPT)(_request_fields)
_kept_response_fields: Callable[[Found, bool], ResponseFields] = lru_cache(_KEPT)(_response_fields)


def _collect(found: Found) -> dict[bytes, bytes]:
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


def _is_websocket(seen: dict[bytes, bytes], tokens: frozenset[bytes]) -> bool:
    return b"upgrade" in tokens and seen.get(b"upgrade", b"").lower() == b"websocket"


def _host(seen: dict[bytes, bytes], *, is_http10: bool) -> bytes:
    host = seen.get(b"host")
    if host is None:
        if is_http10:
            return b""
        raise BadMessage("no Host")
    if _HOST.fullmatch(host) is None:
        raise BadMessage("bad Host")
    return host


def forwardable(lines: bytes, fields: RequestFields, *, trusted: bool) -> bytes:
    """Return the field lines of a request without those that are not passed on."""
    dropped = _DROPPED_OF_TRUSTED if trusted else _DROPPED
    return _without(lines, dropped, fields.nominated)


def relayable(lines: bytes, fields: ResponseFields) -> bytes:
    """Return the field lines of a response without those that are not passed on."""
    return _without(lines, _DROPPED_OF_RESPONSE, fields.nominated)


def _without(lines: bytes, dropped: re.Pattern[bytes], nominated: frozenset[bytes]) -> bytes:
    kept = []
    for line in lines.split(b"\r\n")[:-1]:
        name = line[: line.index(b":")]
        if dropped.fullmatch(name) is None and name.lower() not in nominated:
            kept.append(line + b"\r\n")
    return b"".join(kept)


def values(lines: bytes, name: bytes) -> list[bytes]:
    """Return the values of the field `name`, given in lower case, in order."""
    found = []
    for line in lines.split(b"\r\n")[:-1]:
        key, _, value = line.partition(b":")
        if key.lower() == name:
            found.append(value.strip(b" \t"))
    return found
