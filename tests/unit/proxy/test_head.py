"""The parsers of heads: what they refuse, what they take and how they pass it on."""

import contextlib
import re
import time
from collections.abc import Callable

import h11
import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perijove.proxy.exchange import refused
from perijove.proxy.fields import CHUNKED, UNTIL_CLOSE, BadMessage
from perijove.proxy.head import (
    METHODS,
    REQUEST_START,
    RESPONSE_START,
    HeadLimits,
    PartialHead,
    RequestHead,
    body_length,
    host_name,
    parse_request,
    parse_response,
)
from tests.unit.proxy.corpus import HOST, HOSTILE_RESPONSES, REFUSED_HEADS, get

LIMITS = HeadLimits()
END = b"\r\n\r\n"
FORWARDED = b"X-Forwarded-For: 192.0.2.1\r\n\r\n"


@pytest.mark.parametrize("fault", REFUSED_HEADS)
def test_parse_request_refuses(fault: str) -> None:
    """A head with a fault is refused with the status that says so."""
    raw, status = REFUSED_HEADS[fault]
    end = raw.find(END) + 4 if END in raw else len(raw)
    with pytest.raises(BadMessage) as refused:
        parse_request(raw[:end], LIMITS)
    assert refused.value.status == status


def test_repeated_fields_say_what_they_said() -> None:
    """Fields that a client sends again are taken as they were, whatever the first line is."""
    fields = HOST + b"Connection: close\r\nSec-Fetch-Mode: navigate\r\nCookie: a=b\r\n"
    before = parse_request(get(fields), LIMITS)
    raw = get(fields, target=b"/user/bob/?x")
    again = parse_request(raw, LIMITS, before)
    assert again == parse_request(raw, LIMITS)
    assert again.fields is before.fields


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.1"])
def test_other_fields_are_judged_for_themselves(version: bytes) -> None:
    """The request before changes nothing where the version or one byte of the fields differs."""
    fields = HOST + b"Cookie: a=b\r\n"
    before = parse_request(get(fields), LIMITS)
    raw = get(fields, version=version)
    others = [raw[:at] + b"\n" + raw[at + 1 :] for at in range(len(raw))]
    others += [raw[:at] for at in range(len(raw))]
    for other in (raw, raw + b"\r\n", *others):
        assert _outcome(other, before) == _outcome(other, None)


@pytest.mark.parametrize("fault", REFUSED_HEADS)
def test_a_good_request_before_excuses_no_fault(fault: str) -> None:
    """A head is refused just the same after a good one of the same client."""
    raw, _ = REFUSED_HEADS[fault]
    before = parse_request(get(), LIMITS)
    assert _outcome(raw, before) == _outcome(raw, None)


def test_what_stands_for_a_refused_request_is_not_repeated() -> None:
    """A request without fields is judged for itself when it is the first of its connection."""
    raw = get(b"", version=b"HTTP/1.0")
    assert parse_request(raw, LIMITS, refused(0.0).request) == parse_request(raw, LIMITS)


def _outcome(raw: bytes, before: RequestHead | None) -> RequestHead | tuple[str, int]:
    """Return what `raw` is, or why it is refused."""
    try:
        return parse_request(raw, LIMITS, before)
    except BadMessage as error:
        return error.reason, error.status


@pytest.mark.parametrize("byte", [*range(0x09), *range(0x0A, 0x20), 0x7F])
def test_no_control_byte_is_taken_in_any_place(byte: int) -> None:
    """Wherever a control byte other than a tab stands in a good head, it is refused."""
    for raw, parse in (
        (get(HOST + b"A: b\r\n"), parse_request),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n", parse_response),
    ):
        for at in range(len(raw) + 1):
            with pytest.raises(BadMessage):
                parse(raw[:at] + bytes((byte,)) + raw[at:], LIMITS)


@pytest.mark.parametrize(
    "target",
    [
        b"/", b"/user/ann", b"/user/ann/api/contents/a%2Fb%20c.ipynb?content=1&a=%7B|{}\\^",
        b"/a/...", b"/.hidden/..b/c..", b"/@/space%20word/", b"/a//b", b"/x?y=../..", b"/%",
    ],
)  # fmt: skip
def test_parse_request_keeps_the_target(target: bytes) -> None:
    """A good target is forwarded byte by byte."""
    request = parse_request(get(target=target), LIMITS)
    assert request.path + request.query == target
    assert request.to_forward(FORWARDED, trusted=False).startswith(b"GET " + target + b" HTTP/1.1")


def test_to_forward_leaves_a_plain_head_as_it_is() -> None:
    """Without fields that concern a proxy, only our own are added."""
    raw = get(HOST + b"Connection: keep-alive\r\nAccept: */*\r\nCookie: a=b; c=d\r\n")
    assert parse_request(raw, LIMITS).to_forward(FORWARDED, trusted=False) == raw[:-2] + FORWARDED


def test_to_forward_drops_what_is_between_two_programs() -> None:
    """Hop-by-hop fields, those named by Connection, and the control secret are not passed on."""
    raw = get(
        HOST + b"Connection: close, X-Mine\r\nx-mine: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n"
        b"Proxy-Connection: close\r\nUpgrade: h2c\r\nX-Perijove-Control: s\r\n"
        b"x_perijove_control: s\r\nAccept: */*\r\n"
    )
    request = parse_request(raw, LIMITS)
    assert request.to_forward(FORWARDED, trusted=False) == (
        b"GET /user/ann/ HTTP/1.1\r\n" + HOST + b"Accept: */*\r\n" + FORWARDED
    )
    assert request.fields.close
    assert not request.wants_websocket


def test_to_forward_believes_no_stranger() -> None:
    """What a client says about where a request came from is dropped, however it is spelt."""
    said = (
        b"X-Forwarded-For: 1.1.1.1\r\nx_forwarded_for: 1.1.1.1\r\nForwarded: for=1.1.1.1\r\n"
        b"X-Real-IP: 1.1.1.1\r\nX-Scheme: https\r\nX-Forwarded-User: root\r\n"
    )
    forwarded = parse_request(get(HOST + said), LIMITS).to_forward(FORWARDED, trusted=False)
    assert forwarded == get()[:-2] + FORWARDED


def test_to_forward_keeps_what_a_trusted_proxy_adds() -> None:
    """Fields of a trusted proxy stay, but for those that are written anew."""
    raw = get(HOST + b"X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-User: ann\r\nX-Real-IP: 1.1.1.1\r\n")
    forwarded = parse_request(raw, LIMITS).to_forward(FORWARDED, trusted=True)
    assert forwarded == (
        get(HOST + b"X-Forwarded-User: ann\r\nX-Real-IP: 1.1.1.1\r\n")[:-2] + FORWARDED
    )


def test_upgrade_is_for_websockets_only() -> None:
    """A WebSocket's request is passed on as one; any other upgrade is left out."""
    raw = get(HOST + b"Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n")
    request = parse_request(raw, LIMITS)
    assert request.wants_websocket
    assert b"Connection: Upgrade\r\nUpgrade: websocket\r\n" in request.to_forward(
        FORWARDED, trusted=False
    )
    with_body = raw[:-2] + b"Content-Length: 3\r\n\r\n"
    assert not parse_request(with_body, LIMITS).wants_websocket


def test_http10_ends_with_its_response() -> None:
    """A request of HTTP/1.0 is forwarded as one, and closes; it may lack a Host."""
    request = parse_request(get(b"", version=b"HTTP/1.0"), LIMITS)
    assert request.fields.close
    assert request.to_forward(FORWARDED, trusted=False) == (
        b"GET /user/ann/ HTTP/1.0\r\nConnection: close\r\n" + FORWARDED
    )


def test_limits_of_a_head() -> None:
    """A target or a number of fields over its limit has a status of its own."""
    for raw, status in (
        (get(target=b"/" + b"a" * 40_000), 414),
        (get(target=b"/?" + b"a" * 40_000), 414),
        (get(HOST + b"A: b\r\n" * 250), 431),
    ):
        with pytest.raises(BadMessage) as refused:
            parse_request(raw, LIMITS)
        assert refused.value.status == status


@pytest.mark.parametrize(
    "fault",
    [
        fault
        for fault, raw in HOSTILE_RESPONSES.items()
        if END in raw and "interim" not in fault and "large" not in fault and "switch" not in fault
    ],
)
def test_parse_response_refuses(fault: str) -> None:
    """A head with a fault is refused, unless the fault is in what follows it."""
    raw = HOSTILE_RESPONSES[fault]
    head, rest = raw[: raw.find(END) + 4], raw[raw.find(END) + 4 :]
    try:
        response = parse_response(head, LIMITS)
        length = body_length(response, b"GET")
    except BadMessage:
        return
    assert length == CHUNKED or 0 <= length < len(rest)


def test_to_relay_rewrites_only_what_must_be() -> None:
    """A response without hop-by-hop fields is relayed as it is; others lose them."""
    plain = b"HTTP/1.1 200 OK\r\nServer: x\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n"
    assert parse_response(plain, LIMITS).to_relay(close=False) is plain
    hop = (
        b"HTTP/1.0 200 Fine enough\r\nConnection: keep-alive, X-Mine\r\nKeep-Alive: timeout=5\r\n"
        b"X-Mine: 1\r\nContent-Length: 2\r\n\r\n"
    )
    assert parse_response(hop, LIMITS).to_relay(close=True) == (
        b"HTTP/1.1 200 Fine enough\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("head", "method", "length"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"GET", 5),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"HEAD", 0),
        (b"HTTP/1.1 200\r\nTransfer-Encoding: Chunked\r\n\r\n", b"GET", CHUNKED),
        (b"HTTP/1.1 200 \r\n\r\n", b"GET", UNTIL_CLOSE),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"GET", 0),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"GET", 0),
    ],
)
def test_body_length(head: bytes, method: bytes, length: int) -> None:
    """The length of a body follows from status, method and fields."""
    assert body_length(parse_response(head, LIMITS), method) == length


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (b"Hub.Example.ORG:8000", b"hub.example.org"),
        (b"hub.example.org.", b"hub.example.org"),
        (b"[::1]:80", b"[::1]"),
    ],
)
def test_host_name(host: bytes, name: bytes) -> None:
    """A host is compared without case, port and final dot."""
    assert host_name(host) == name


# What we take, others take in the same sense

_token = st.text("abcXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=12).map(str.encode)
_value = st.binary(max_size=20)
_special = st.sampled_from(
    [
        (b"Content-Length", b"5"), (b"content-length", b"05"), (b"Content-Length", b"5, 5"),
        (b"Transfer-Encoding", b"chunked"), (b"Transfer-Encoding", b"chunked "),
        (b"Transfer-Encoding", b"identity"), (b"Host", b"other"), (b"Connection", b"close"),
        (b"Connection", b"keep-alive, x"), (b"Expect", b"100-continue"), (b"Cookie", b"a=b"),
    ]
)  # fmt: skip
_field = st.one_of(_special, st.tuples(_token, _value))
_separator = st.sampled_from([b": ", b":", b" : ", b":\t"])
_line_end = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"\r\r\n", b"\r\n "])
_target = st.text('abc/%2F.?&=;{}|[]"<>^`@:+~_-', max_size=20).map(lambda t: b"/" + t.encode())
_version = st.sampled_from([b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/1.2"])
_methods = st.sampled_from(sorted(METHODS))


@st.composite
def _heads(draw: st.DrawFn) -> bytes:
    """Draw heads around the border of what is well formed."""
    line = draw(_methods) + b" " + draw(_target) + b" " + draw(_version) + b"\r\n"
    fields = draw(st.lists(_field, max_size=5))
    separators = draw(st.lists(_separator, min_size=len(fields), max_size=len(fields)))
    ends = draw(st.lists(_line_end, min_size=len(fields), max_size=len(fields)))
    lines = zip(fields, separators, ends, strict=True)
    return line + HOST + b"".join(f[0] + s + f[1] + e for f, s, e in lines) + b"\r\n"


class _Seen:
    """What httptools makes of a head."""

    def __init__(self) -> None:
        self.url = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.is_whole = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.is_whole = True


@given(_heads())
@example(get(HOST + b"A: \xff\xfe\r\n"))
@example(get(HOST + b"Content-Length: 0\r\n"))
def test_what_is_taken_httptools_and_h11_take_alike(raw: bytes) -> None:
    """A head we accept has the same target, fields and body length for two other parsers."""
    head = raw[: raw.find(END) + 4]
    try:
        request = parse_request(head, LIMITS)
    except BadMessage:
        return
    fields = [
        (name.lower(), value.strip(b" \t"))
        for name, _, value in (line.partition(b":") for line in request.lines.split(b"\r\n")[:-1])
    ]
    seen = _Seen()
    parser = httptools.HttpRequestParser(seen)
    with contextlib.suppress(httptools.HttpParserUpgrade):
        parser.feed_data(head)
    assert seen.is_whole
    assert parser.get_method() == request.method
    assert seen.url == request.path + request.query
    assert seen.fields == fields
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(head)
    event = peer.next_event()
    assert isinstance(event, h11.Request)
    assert (event.method, event.target) == (request.method, request.path + request.query)
    assert list(event.headers) == fields
    lengths = [int(v) for n, v in event.headers if n == b"content-length"]
    chunked = any(n == b"transfer-encoding" for n, _ in event.headers)
    assert request.fields.length == (CHUNKED if chunked else lengths[0] if lengths else 0)


@given(_heads())
def test_what_is_forwarded_would_be_taken_again(raw: bytes) -> None:
    """A forwarded head is well formed and means the same to the next reader."""
    head = raw[: raw.find(END) + 4]
    try:
        request = parse_request(head, LIMITS)
    except BadMessage:
        return
    again = parse_request(request.to_forward(FORWARDED, trusted=False), LIMITS)
    assert (again.method, again.path, again.query) == (request.method, request.path, request.query)
    assert (again.fields.length, again.fields.host) == (request.fields.length, request.fields.host)
    assert [*again.values(b"cookie")] == [*request.values(b"cookie")]


# Time


def _seconds(work: Callable[[], object]) -> float:
    """Return the shortest of three times that `work` takes."""
    shortest = float("inf")
    for _ in range(3):
        start = time.thread_time()
        work()
        shortest = min(shortest, time.thread_time() - start)
    return shortest


def _parse(raw: bytes, parse: Callable[[bytes, HeadLimits], object]) -> None:
    try:
        parse(raw, HeadLimits(1 << 30, 1 << 30, 1 << 30))
    except BadMessage:
        return


FILLERS = (
    b"a",
    b" ",
    b"\t",
    b": ",
    b"A: b\r\n",
    b"a: \t \t",
    b"%2e",
    b"/.",
    b"\xff",
    b"\r\n ",
    b",",
)
PREFIXES = sorted(
    {raw[:size] for raw, _ in REFUSED_HEADS.values() for size in range(0, min(len(raw), 90), 3)}
)
RESPONSE_PREFIXES = sorted(
    {raw[:size] for raw in HOSTILE_RESPONSES.values() for size in range(0, min(len(raw), 90), 3)}
)


@pytest.mark.parametrize("filler", FILLERS)
@pytest.mark.parametrize(
    ("parse", "prefixes"),
    [(parse_request, PREFIXES), (parse_response, RESPONSE_PREFIXES)],
    ids=["request", "response"],
)
def test_time_is_linear_for_every_prefix(
    filler: bytes, parse: Callable[[bytes, HeadLimits], object], prefixes: list[bytes]
) -> None:
    """Sixteen times the bytes after any prefix take nowhere near 256 times as long."""

    def all_of(size: int) -> None:
        for prefix in prefixes:
            _parse(prefix + filler * size + b"\x00" + END, parse)

    small, large = _seconds(lambda: all_of(64)), _seconds(lambda: all_of(1024))
    assert large < 64 * small + 0.01


@pytest.mark.parametrize("fault", REFUSED_HEADS)
def test_a_head_in_pieces_is_the_same_head(fault: str) -> None:
    """Byte by byte, an entry of the corpus is refused early, or ends where it ends in one piece."""
    raw, _ = REFUSED_HEADS[fault]
    partial = PartialHead(REQUEST_START, LIMITS)
    ends = []
    try:
        for at in range(raw.find(END) + 4 if END in raw else len(raw)):
            ends.append(partial.feed(raw[at : at + 1], 0))  # noqa: PERF401 - kept when it raises
    except BadMessage:
        assert set(ends) <= {-1}
    else:
        assert ends == [-1] * (len(ends) - 1) + [1]
        assert partial.whole() == raw[: len(ends)]


@pytest.mark.parametrize("start", [REQUEST_START, RESPONSE_START])
def test_a_start_grows_byte_by_byte(start: re.Pattern[bytes]) -> None:
    """Every beginning of a good head may become one."""
    good = get() if start is REQUEST_START else b"HTTP/1.1 200 OK\r\n\r\n"
    partial = PartialHead(start, LIMITS)
    assert [partial.feed(good[at : at + 1], 0) for at in range(len(good))] == (
        [-1] * (len(good) - 1) + [1]
    )
