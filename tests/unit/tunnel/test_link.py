"""What goes over one connection of a tunnel: messages, streams, and the rules for both."""

import asyncio
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.agent.link import (
    AMOUNT,
    BINARY,
    CREDIT,
    DATA,
    END,
    FRAME,
    HEAD,
    OPEN,
    PING,
    PONG,
    RESET,
    WINDOW,
    Broken,
    Link,
    Messages,
    Stream,
    accept_of,
    apply_mask,
    message,
)

pytestmark = pytest.mark.anyio

PATIENCE = 60.0
LARGEST = FRAME + HEAD.size


# --- messages ---------------------------------------------------------------------------------


def test_proof_is_that_of_the_standard() -> None:
    """The example of RFC 6455, section 1.3."""
    assert accept_of(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@given(key=st.binary(min_size=4, max_size=4), content=st.binary(max_size=300))
def test_mask_is_that_of_the_standard(key: bytes, content: bytes) -> None:
    """Each byte is changed by the key's byte at its place, and back by the same."""
    plain = bytes(byte ^ key[place % 4] for place, byte in enumerate(content))
    assert apply_mask(key, content) == plain
    assert apply_mask(key, plain) == content


@given(
    sizes=st.lists(st.integers(0, 300) | st.sampled_from([65535, 65536, LARGEST]), max_size=4),
    masked=st.booleans(),
    cut=st.integers(min_value=1, max_value=70_000),
)
def test_messages_arrive_whole_however_they_are_cut(
    sizes: list[int], masked: bool, cut: int
) -> None:
    """What is taken apart on the way is put together again, in order, nothing added."""
    contents = [os.urandom(size) for size in sizes]
    raw = b"".join(message(each, masked=masked) for each in contents)
    messages = Messages(masked=masked)
    cut = max(cut, len(raw) // 500)
    pieces = [raw[start : start + cut] for start in range(0, len(raw), cut)]
    found = [one for piece in pieces for one in messages.feed(piece)]
    assert found == [(BINARY, each) for each in contents]


def test_a_message_may_come_in_frames_with_others_between() -> None:
    """A proxy on the way may cut a message up, and control messages may stand in its middle."""
    raw = b"\x02\x03one" + message(b"p", masked=False, kind=PING) + b"\x00\x03two\x80\x05three"
    assert list(Messages(masked=False).feed(raw)) == [(PING, b"p"), (BINARY, b"onetwothree")]


@given(raw=st.binary(max_size=2000), masked=st.booleans())
def test_garbage_breaks_and_does_nothing_worse(raw: bytes, masked: bool) -> None:
    """Any bytes are either messages, or the beginning of one, or the end of the link."""
    try:
        found = list(Messages(masked=masked).feed(raw))
    except Broken:
        return
    assert sum(len(content) for _, content in found) <= len(raw)


@pytest.mark.parametrize(
    "raw",
    [
        message(b"x", masked=True),
        b"\x81\x01x",
        b"\xc2\x01x",
        b"\x80\x01x",
        b"\x02\x01x\x02\x01x",
        b"\x09\x01x",
        b"\x89\x7e\x00\x80" + b"x" * 128,
        message(b"x" * (FRAME + HEAD.size + 1), masked=False),
        b"\x02\x7f" + (FRAME).to_bytes(8, "big") + b"x" * FRAME + b"\x80\x06more!!",
        b"\x82\x7f" + b"\xff" * 8,
    ],
    ids=[
        "masked", "text", "reserved bit", "nothing to continue", "begun twice", "ping in parts",
        "large ping", "large frame", "large in parts", "endless",
    ],
)  # fmt: skip
def test_what_breaks_a_rule_is_refused(raw: bytes) -> None:
    """Nothing but well-formed messages of limited size gets through."""
    with pytest.raises(Broken):
        list(Messages(masked=False).feed(raw))


# --- streams ----------------------------------------------------------------------------------


@dataclass(slots=True)
class Pair:
    """Both ends of a link, and the server that the node's end leads to."""

    hub: Link
    node: Link
    path: Path
    words: list[str] = field(default_factory=list)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect through the link to the server."""
        loop = asyncio.get_running_loop()
        near, far = socket.socketpair()
        await loop.create_connection(self.hub.begin, sock=far)
        return await asyncio.open_connection(sock=near)


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def linked(directory: Path, serve: Serve) -> AsyncIterator[Pair]:
    """Link two ends by a socket pair; the node's leads to a server that does `serve`."""
    loop = asyncio.get_running_loop()
    path = directory / "s"
    server = await asyncio.start_unix_server(serve, path)
    tasks: set[asyncio.Task[None]] = set()

    async def connect(stream: Stream) -> None:
        try:
            await loop.create_unix_connection(lambda: stream, str(path))
        except OSError:
            stream.connection_lost(None)

    def answer(stream: Stream) -> None:
        tasks.add(loop.create_task(connect(stream)))

    words: list[str] = []
    over = asyncio.Event()

    def lost(_: Link, why: str) -> None:
        words.append(why)
        if len(words) == 2:
            over.set()

    near, far = socket.socketpair()
    hub, node = Link(lost), Link(lost, answer=answer)
    for link, sock in ((hub, near), (node, far)):
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=sock)
        link.start(transport, loop, b"")
    try:
        yield Pair(hub, node, path, words)
    finally:
        hub.end("over")
        server.close()
        await server.wait_closed()
        async with asyncio.timeout(PATIENCE):
            await over.wait()
        await asyncio.sleep(0)  # Sockets are closed in the turn after.


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say everything back, and end when the other side has ended."""
    while part := await reader.read(1 << 16):
        writer.write(part)
        await writer.drain()
    writer.close()


async def send_all(writer: asyncio.StreamWriter, content: bytes) -> None:
    """Send everything and end this direction."""
    writer.write(content)
    await writer.drain()
    writer.write_eof()


async def test_both_directions_arrive_whole(tmp_path: Path) -> None:
    """Far more than a window goes there and back at once on several streams, ends included."""
    async with linked(tmp_path, echo) as pair, asyncio.timeout(PATIENCE):

        async def once(size: int) -> None:
            reader, writer = await pair.connect()
            content = os.urandom(size)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(send_all(writer, content))
                back = tasks.create_task(reader.read(-1))
            assert hashlib.sha256(back.result()).digest() == hashlib.sha256(content).digest()
            writer.close()

        async with asyncio.TaskGroup() as all_of_them:
            for size in (0, 1, FRAME + 1, 4 * WINDOW + 17):
                all_of_them.create_task(once(size))
    assert set(pair.words) <= {"over", "closed", "closed by the other end"}


async def test_a_slow_reader_holds_up_nobody_else(tmp_path: Path) -> None:
    """Who reads nothing gets a window and what buffers hold; the others get all they want."""
    sent = 0

    async def pour(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while True:
            writer.write(b"x" * FRAME)
            await writer.drain()
            sent += FRAME

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_slow = await reader.readexactly(1) == b"s"
        try:
            await (pour if is_slow else echo)(reader, writer)
        except ConnectionError:
            writer.transport.abort()

    async with linked(tmp_path, serve) as pair, asyncio.timeout(PATIENCE):
        loop = asyncio.get_running_loop()
        near, far = socket.socketpair()
        await loop.create_connection(pair.hub.begin, sock=far)
        near.send(b"s")
        for _ in range(3):
            reader, writer = await pair.connect()
            writer.write(b"e")
            content = os.urandom(3 * WINDOW)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(send_all(writer, content))
                back = tasks.create_task(reader.read(-1))
            assert back.result() == content
            writer.close()
        assert WINDOW <= sent <= 4 * WINDOW
        near.close()


async def test_a_server_that_is_not_there_ends_the_stream(tmp_path: Path) -> None:
    """The connection is closed when the node's end says that nobody listens there."""
    async with linked(tmp_path, echo) as pair, asyncio.timeout(PATIENCE):
        pair.path.unlink()
        reader, writer = await pair.connect()
        assert await reader.read(-1) == b""
        writer.close()


@pytest.mark.parametrize(
    "frames",
    [
        [HEAD.pack(OPEN, 9)],
        [HEAD.pack(DATA, 1) + b"x" * FRAME] * (WINDOW // FRAME + 9),
        [HEAD.pack(CREDIT, 1) + AMOUNT.pack(1)],
        [HEAD.pack(77, 1)],
        [HEAD.pack(END, 1), HEAD.pack(DATA, 1) + b"x"],
        [b"?"],
    ],
    ids=["opens", "too much", "too much credit", "unknown kind", "after the end", "no head"],
)
async def test_a_node_that_breaks_the_rules_loses_the_link(
    tmp_path: Path, frames: list[bytes]
) -> None:
    """The hub's end gives up the link at once, with all its streams, and says why."""
    async with linked(tmp_path, echo) as pair, asyncio.timeout(PATIENCE):
        loop = asyncio.get_running_loop()
        near, far = socket.socketpair()
        await loop.create_connection(pair.hub.begin, sock=far)
        for frame in frames:
            pair.hub.data_received(message(frame, masked=True))
        reader, writer = await asyncio.open_connection(sock=near)
        await reader.read(-1)
        writer.close()
        assert pair.words
        assert not pair.hub.has_room


async def test_frames_of_a_stream_that_is_over_are_nothing(tmp_path: Path) -> None:
    """What was under way when a stream ended is dropped, and the link goes on."""
    async with linked(tmp_path, echo) as pair, asyncio.timeout(PATIENCE):
        for kind in (DATA, END, RESET, CREDIT):
            pair.hub.data_received(message(HEAD.pack(kind, 99) + b"1234", masked=True))
        pair.hub.data_received(message(b"", masked=True, kind=PONG))
        reader, writer = await pair.connect()
        writer.write(b"well")
        assert await reader.readexactly(4) == b"well"
        writer.close()
    assert pair.words.count("over") == 1
