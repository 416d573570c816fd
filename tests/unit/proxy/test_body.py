"""Chunked framing: where a body ends, and what is refused."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.proxy.body import ChunkedBody
from perijove.proxy.fields import BadMessage
from tests.unit.proxy.corpus import BAD_CHUNKS

GOOD = {
    "empty": b"0\r\n\r\n",
    "one": b"3\r\nabc\r\n0\r\n\r\n",
    "upper and lower case": b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n",
    "extensions": b'3;a=b;c="d e"\r\nabc\r\n0;last\r\n\r\n',
    "zeros": b"003\r\nabc\r\n000\r\n\r\n",
    "trailer": b"3\r\nabc\r\n0\r\nDigest: x\r\nServer-Timing: y\r\n\r\n",
    "data like framing": b"7\r\n0\r\n\r\n\r\n\r\n0\r\n\r\n",
}


def feed_all(pieces: list[bytes]) -> int:
    """Return how many bytes of `pieces` belong to the body."""
    body = ChunkedBody()
    used = 0
    for piece in pieces:
        used += body.feed(piece)
        if body.done:
            return used
    raise EOFError


@pytest.mark.parametrize("case", GOOD)
@pytest.mark.parametrize("rest", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x00\r\n\r\n"])
def test_feed_finds_the_end_however_the_bytes_come(case: str, rest: bytes) -> None:
    """A body ends where it ends, in one piece, in two at any place, and byte by byte."""
    raw = GOOD[case]
    whole = raw + rest
    assert feed_all([whole]) == len(raw)
    for cut in range(1, len(whole)):
        assert feed_all([whole[:cut], whole[cut:]]) == len(raw)
    assert feed_all([whole[i : i + 1] for i in range(len(whole))]) == len(raw)


@pytest.mark.parametrize("fault", BAD_CHUNKS)
def test_feed_refuses(fault: str) -> None:
    """A fault in the framing is found in one piece and byte by byte."""
    raw = BAD_CHUNKS[fault]
    with pytest.raises(BadMessage):
        feed_all([raw])
    with pytest.raises(BadMessage):
        feed_all([raw[i : i + 1] for i in range(len(raw))])


@given(
    st.lists(st.binary(min_size=1, max_size=50), max_size=8),
    st.lists(st.integers(1, 40), min_size=1, max_size=20),
)
def test_feed_follows_any_content(contents: list[bytes], cuts: list[int]) -> None:
    """Whatever the content, and however it is cut, the end is found."""
    raw = b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in contents) + b"0\r\n\r\n"
    pieces, position = [], 0
    for cut in cuts:
        pieces.append(raw[position : position + cut])
        position += cut
    pieces.append(raw[position:])
    assert feed_all([piece for piece in pieces if piece] or [raw]) == len(raw)


@pytest.mark.parametrize(
    "filler", [b"1\r\na\r\n", b"0", b";", b"A: b\r\n", b"\r\n", b"\r", b"ffff\r\n"]
)
@pytest.mark.parametrize("size", [1, 7, 4096])
def test_time_is_linear(filler: bytes, size: int) -> None:
    """Sixteen times the bytes, in pieces of any size, take nowhere near 256 times as long."""

    def seconds(times: int) -> float:
        shortest = float("inf")
        for _ in range(3):
            start = time.thread_time()
            for raw in GOOD.values():
                for cut in range(len(raw)):
                    _feed_until_refused(raw[:cut] + filler * times, size)
            shortest = min(shortest, time.thread_time() - start)
        return shortest

    assert seconds(256) < 64 * seconds(16) + 0.01


def _feed_until_refused(raw: bytes, size: int) -> None:
    body = ChunkedBody()
    try:
        for at in range(0, len(raw), size):
            body.feed(raw[at : at + size])
    except BadMessage:
        return
