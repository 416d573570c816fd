"""Requests and responses that must be refused, each with the fault it shows.

Used on the parsers alone and, through real sockets, on the whole proxy.
"""

from typing import Final

HOST: Final = b"Host: hub.example.org\r\n"
SECRET: Final = b"X-Perijove-Control"


def get(fields: bytes = HOST, target: bytes = b"/user/ann/", version: bytes = b"HTTP/1.1") -> bytes:
    """Return a GET request with these parts, well formed or not."""
    return b"GET " + target + b" " + version + b"\r\n" + fields + b"\r\n"


def post(fields: bytes, body: bytes) -> bytes:
    """Return a POST request with these fields and this body, well formed or not."""
    return b"POST /user/ann/ HTTP/1.1\r\n" + HOST + fields + b"\r\n" + body


REFUSED_HEADS: Final[dict[str, tuple[bytes, int]]] = {
    "no host": (get(b""), 400),
    "two hosts": (get(HOST + HOST), 400),
    "empty host": (get(b"Host:\r\n"), 400),
    "host with a path": (get(b"Host: a/b\r\n"), 400),
    "host with user information": (get(b"Host: a@b\r\n"), 400),
    "host with a space": (get(b"Host: a b\r\n"), 400),
    "host list": (get(b"Host: a, b\r\n"), 400),
    "host with a word as port": (get(b"Host: a:http\r\n"), 400),
    "space before colon": (get(HOST + b"Content-Length : 3\r\n"), 400),
    "tab before colon": (get(HOST + b"Content-Length\t: 3\r\n"), 400),
    "field without colon": (get(HOST + b"Oops\r\n"), 400),
    "empty field name": (get(HOST + b": x\r\n"), 400),
    "folded field": (get(HOST + b"A: b\r\n c\r\n"), 400),
    "folded first field": (get(b" x: y\r\n" + HOST), 400),
    "folded transfer coding": (post(b"Transfer-Encoding:\r\n chunked\r\n", b"0\r\n\r\n"), 400),
    "control byte in name": (get(HOST + b"A\x01: b\r\n"), 400),
    "nul in value": (get(HOST + b"A: b\x00c\r\n"), 400),
    "delete in value": (get(HOST + b"A: b\x7fc\r\n"), 400),
    "vertical tab in value": (get(HOST + b"A: b\x0bc\r\n"), 400),
    "bare CR in value": (get(HOST + b"A: b\rContent-Length: 3\r\n"), 400),
    "bare LF in value": (get(HOST + b"A: b\nContent-Length: 3\r\n"), 400),
    "bare LF after request line": (b"GET / HTTP/1.1\n" + HOST + b"\r\n", 400),
    "only bare LF": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "CR CR LF": (get(HOST + b"A: b\r\r\n"), 400),
    "non-ASCII name": (get(HOST + "É: b\r\n".encode()), 400),
    "two lengths": (post(b"Content-Length: 3\r\nContent-Length: 4\r\n", b"abcd"), 400),
    "same length twice": (post(b"Content-Length: 3\r\nContent-Length: 3\r\n", b"abc"), 400),
    "length list": (post(b"Content-Length: 3, 3\r\n", b"abc"), 400),
    "negative length": (post(b"Content-Length: -1\r\n", b""), 400),
    "length with sign": (post(b"Content-Length: +3\r\n", b"abc"), 400),
    "hexadecimal length": (post(b"Content-Length: 0x3\r\n", b"abc"), 400),
    "empty length": (post(b"Content-Length:\r\n", b""), 400),
    "length with a separator": (post(b"Content-Length: 1_0\r\n", b"0123456789"), 400),
    "length in other digits": (post("Content-Length: ٣\r\n".encode(), b"abc"), 400),
    "length too long to count": (post(b"Content-Length: " + b"9" * 40 + b"\r\n", b""), 400),
    "length and chunks": (
        post(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), 400,
    ),
    "chunks and length": (
        post(b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n"), 400,
    ),
    "length in disguise": (post(b"Content_Length: 5\r\n", b"abcde"), 400),
    "coding in disguise": (post(b"Transfer_Encoding: chunked\r\n", b"0\r\n\r\n"), 400),
    "unknown coding": (post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"), 400),
    "coding list": (post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"), 400),
    "coding not last": (post(b"Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n"), 400),
    "two codings": (
        post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", b"0\r\n\r\n"), 400,
    ),
    "quoted coding": (post(b'Transfer-Encoding: "chunked"\r\n', b"0\r\n\r\n"), 400),
    "coding with parameter": (post(b"Transfer-Encoding: chunked;q=1\r\n", b"0\r\n\r\n"), 400),
    "coding after a vertical tab": (
        post(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"), 400,
    ),
    "chunks in 1.0": (
        b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400,
    ),
    "absolute form": (get(target=b"http://hub.example.org/user/ann/"), 400),
    "authority form": (get(target=b"hub.example.org:80"), 400),
    "asterisk form": (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "tunnel": (b"CONNECT hub.example.org:22 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "tunnel to a path": (b"CONNECT /x HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    "trace": (b"TRACE /x HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    "unknown method": (b"BREW /pot HTTP/1.1\r\n" + HOST + b"\r\n", 501),
    "method in lower case": (b"get / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "fragment": (get(target=b"/a#b"), 400),
    "backslash in path": (get(target=b"/user/a\\..\\b"), 400),
    "space in target": (get(target=b"/a b"), 400),
    "tab in target": (get(target=b"/a\tb"), 400),
    "non-ASCII target": (get(target="/é".encode()), 400),
    "no target": (b"GET  HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "two spaces": (b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "space after version": (b"GET / HTTP/1.1 \r\n" + HOST + b"\r\n", 400),
    "no version": (b"GET /\r\n" + HOST + b"\r\n", 400),
    "version 0.9": (get(version=b"HTTP/0.9"), 505),
    "version 1.2": (get(version=b"HTTP/1.2"), 505),
    "version 2": (b"PRI * HTTP/2.0\r\n\r\n", 505),
    "version in lower case": (get(version=b"http/1.1"), 400),
    "version with zeros": (get(version=b"HTTP/01.1"), 400),
    "blank line first": (b"\r\n" + get(), 400),
    "TLS on a plain port": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "dot segments": (get(target=b"/user/ann/../bob/"), 400),
    "dot segments at the end": (get(target=b"/user/ann/.."), 400),
    "single dot": (get(target=b"/user/./bob/"), 400),
    "encoded dots": (get(target=b"/user/ann/%2e%2E/bob/"), 400),
    "half encoded dots": (get(target=b"/user/ann/.%2e/bob/"), 400),
    "dots with a parameter": (get(target=b"/user/ann/..;x/bob/"), 400),
    "dots behind encoded slash": (get(target=b"/user/ann/x%2f..%2f..%2fbob/"), 400),
    "dots behind encoded backslash": (get(target=b"/user/ann/x%5c..%5cbob/"), 400),
    "connection names length": (
        post(b"Connection: Content-Length\r\nContent-Length: 3\r\n", b"abc"), 400,
    ),
    "connection names host": (get(HOST + b"Connection: close, Host\r\n"), 400),
    "connection names cookie": (get(HOST + b"Connection: close, cookie\r\n"), 400),
    "unknown expectation": (post(b"Expect: a-miracle\r\nContent-Length: 1\r\n", b"a"), 417),
    "too many fields": (get(HOST + b"A: b\r\n" * 201), 431),
}  # fmt: skip
"""Whole heads by the fault they have: the bytes, and the status that answers them."""

BAD_CHUNKS: Final[dict[str, bytes]] = {
    "no size": b"\r\nabc\r\n0\r\n\r\n",
    "not hexadecimal": b"g\r\nabc\r\n0\r\n\r\n",
    "sign": b"+3\r\nabc\r\n0\r\n\r\n",
    "prefix": b"0x3\r\nabc\r\n0\r\n\r\n",
    "space before size": b" 3\r\nabc\r\n0\r\n\r\n",
    "space after size": b"3 \r\nabc\r\n0\r\n\r\n",
    "size too long": b"0000000000000003\r\nabc\r\n0\r\n\r\n",
    "size that overflows": b"FFFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n",
    "bare LF after size": b"3\nabc\r\n0\r\n\r\n",
    "bare CR after size": b"3\rabc\r\n0\r\n\r\n",
    "bare LF in extension": b"3;a\nb\r\nabc\r\n0\r\n\r\n",
    "bare CR in extension": b"3;a\rb\r\nabc\r\n0\r\n\r\n",
    "nul in extension": b"3;a\x00b\r\nabc\r\n0\r\n\r\n",
    "endless extension": b"3;" + b"a" * 300,
    "data longer than size": b"3\r\nabcd\r\n0\r\n\r\n",
    "data ends with LF": b"3\r\nabc\n0\r\n\r\n",
    "bare LF after last chunk": b"0\n\r\n",
    "bare LF ends trailer": b"0\r\n\n",
    "folded trailer": b"0\r\nA: b\r\n c\r\n\r\n",
    "trailer without colon": b"0\r\nA\r\n\r\n",
    "trailer with length": b"0\r\nContent-Length: 4\r\n\r\n",
    "trailer with coding": b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "trailer with host": b"0\r\nHost: other\r\n\r\n",
    "trailer with cookie": b"0\r\nCookie: a=b\r\n\r\n",
    "trailer with forwarded address": b"0\r\nX-Forwarded-For: ::1\r\n\r\n",
    "trailer with our secret": b"0\r\n" + SECRET + b": x\r\n\r\n",
    "endless trailer": b"0\r\n" + b"A: b\r\n" * 2000,
}
"""Chunked bodies by the fault they have."""

HOSTILE_RESPONSES: Final[dict[str, bytes]] = {
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "version 2": b"HTTP/2 200 OK\r\n\r\n",
    "lower case": b"http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "status 000": b"HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n",
    "status 600": b"HTTP/1.1 600 OK\r\nContent-Length: 0\r\n\r\n",
    "signed status": b"HTTP/1.1 +20 OK\r\nContent-Length: 0\r\n\r\n",
    "two spaces": b"HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n",
    "bare CR in reason": b"HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n",
    "bare LF in head": b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
    "bare CR in value": b"HTTP/1.1 200 OK\r\nA: b\rc\r\nContent-Length: 0\r\n\r\n",
    "nul in value": b"HTTP/1.1 200 OK\r\nA: b\x00c\r\nContent-Length: 0\r\n\r\n",
    "space before colon": b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
    "folded field": b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    "both lengths": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "length list": b"HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nabc",
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc",
    "unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
    "coding list": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "two codings": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\n\r\n"
    ),
    "chunks in 1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "more than declared": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd",
    "a second response": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" * 2,
    "bytes after the last chunk": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"
    ),
    "bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "body after 204": b"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc",
    "undeclared body after 204": b"HTTP/1.1 204 No Content\r\n\r\nabc",
    "chunks after 204": (b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "body after 304": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\nabc",
    "switch nobody asked for": (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    ),
    "interim with a length": (
        b"HTTP/1.1 103 Early Hints\r\nContent-Length: 3\r\n\r\nabc"
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    ),
    "interim for ever": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100,
    "head too large": b"HTTP/1.1 200 OK\r\n" + b"A: " + b"x" * 70_000 + b"\r\n\r\n",
    "head without end": b"HTTP/1.1 200 OK\r\n" + b"A: " + b"x" * 70_000,
    "too many fields": b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 300 + b"\r\n",
    "nothing": b"",
}
"""Answers to a GET, by the fault they have; the upstream closes after each."""
