"""
One connection that carries many: the same code at both ends of a tunnel.

The connection is a WebSocket, so that whatever reverse proxy stands on the way can carry it.
Each of its messages is a frame: the kind (one byte), the stream's number (four), and content.

- ``OPEN``: somebody connected at the hub's end; the node connects to its server.
- ``DATA``: bytes of the stream, never more than the other end has given credit for.
- ``CREDIT``: so many bytes of the stream were passed on, and as many more may come.
- ``END``: no more bytes in this direction. ``RESET``: the stream is over.

An end therefore holds at most `WINDOW` bytes of a stream for a slow reader, always reads the
link, and no stream waits for another. Who breaks a rule loses the link, never the process.

Standard library only, Python 3.6: the node runs this file as it is.
"""

import asyncio
import base64
import hashlib
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FRAME = 65536  # Bytes of content in a frame, at most.
WINDOW = 1 << 19  # Bytes of a stream on their way, or waiting for their reader, at most.
SOCKET_BUFFER = 65536  # Of them in our own memory before no more credit is given.
MOST_STREAMS = 1024
PING_SECONDS = 15.0
SILENCE_SECONDS = 45.0  # An end that said nothing for so long has gone.

SUBPROTOCOL = "perijove-tunnel.1"
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 wants it so.

CONTINUATION, BINARY, CLOSE, PING, PONG = 0, 2, 8, 9, 10
OPEN, DATA, END, RESET, CREDIT = 1, 2, 3, 4, 5
HEAD = struct.Struct("!BI")
AMOUNT = struct.Struct("!I")


class Broken(Exception):
    """The other end broke a rule; there is nothing more to be had from it."""


# --- messages --------------------------------------------------------------------------------


def accept_of(key: bytes) -> bytes:
    """Return what proves that a request to become a WebSocket was understood."""
    return base64.b64encode(hashlib.sha1(key + GUID).digest())  # noqa: S324 - as the RFC has it


def apply_mask(key: bytes, content: bytes) -> bytes:
    """Return `content` masked by `key`, or unmasked: one operation on two large numbers."""
    size = len(content)
    pad = (key * (size // 4 + 1))[:size]
    both = int.from_bytes(content, "little") ^ int.from_bytes(pad, "little")
    return both.to_bytes(size, "little")


def message(content: bytes, *, masked: bool, kind: int = BINARY) -> bytes:
    """Return `content` as one message; clients, and only they, mask theirs."""
    size = len(content)
    flag = 0x80 if masked else 0
    if size < 126:
        head = struct.pack("!BB", 0x80 | kind, flag | size)
    elif size < 65536:
        head = struct.pack("!BBH", 0x80 | kind, flag | 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | kind, flag | 127, size)
    if not masked:
        return head + content
    key = os.urandom(4)
    return head + key + apply_mask(key, content)


class Messages:
    """Takes messages out of bytes, however those were cut on their way."""

    def __init__(self, *, masked: bool) -> None:
        self._masked = masked
        self._held = bytearray()
        self._parts: bytearray | None = None

    def feed(self, content: bytes) -> "Iterator[tuple[int, bytes]]":
        """Yield kind and content of each message that is whole; raises `Broken`."""
        held = self._held
        held += content
        start = 0
        try:
            while True:
                found = self._frame(held, start)
                if found is None:
                    return
                first, body, start = found
                whole = self._whole(first, body)
                if whole is not None:
                    yield whole
        finally:
            del held[:start]

    def _frame(self, held: bytearray, start: int) -> "tuple[int, bytes, int] | None":
        """Return first byte, content and end of the frame at `start`; None until it is whole."""
        here = len(held) - start
        if here < 2:
            return None
        first, second = held[start], held[start + 1]
        if first & 0x70 or bool(second & 0x80) is not self._masked:
            raise Broken("not a frame of this protocol")
        size, begin = second & 0x7F, start + 2
        if size > 125:
            width = 2 if size == 126 else 8
            begin += width
            if len(held) < begin:
                return None
            size = int.from_bytes(held[begin - width : begin], "big")
        if size > FRAME + HEAD.size or (first & 0x08 and (size > 125 or not first & 0x80)):
            raise Broken("too large a frame")
        key_end = begin + 4 if self._masked else begin
        end = key_end + size
        if len(held) < end:
            return None
        body = bytes(held[key_end:end])
        if self._masked:
            body = apply_mask(bytes(held[begin:key_end]), body)
        return first, body, end

    def _whole(self, first: int, body: bytes) -> "tuple[int, bytes] | None":
        """Return a message when its last frame has come: what is on the way may cut them."""
        kind, is_last = first & 0x0F, bool(first & 0x80)
        if kind in (CLOSE, PING, PONG):
            return kind, body
        if kind not in (BINARY, CONTINUATION) or (kind == BINARY) is not (self._parts is None):
            raise Broken("not a message of this protocol")
        if self._parts is None:
            if is_last:
                return BINARY, body
            self._parts = bytearray()
        self._parts += body
        if len(self._parts) > FRAME + HEAD.size:
            raise Broken("too large a message")
        if not is_last:
            return None
        body, self._parts = bytes(self._parts), None
        return BINARY, body


# --- streams ---------------------------------------------------------------------------------


class Stream(asyncio.Protocol):
    """One connection that the link carries: its socket at this end."""

    def __init__(self, link: "Link", number: int) -> None:
        self.transport: asyncio.Transport | None = None
        self._link = link
        self._number = number
        self._early: list[bytes] = []  # What came before the socket was connected.
        self._held = b""  # What was read from the socket beyond our credit.
        self._may_send = self._may_come = WINDOW
        self._passed_on = 0  # Bytes for which no credit was given yet.
        self._is_slow = False  # The socket takes no more for now.
        self._is_reading = True
        self._is_over = False
        self._has_read_all = self._has_sent_end = self._has_got_end = False

    # From the socket.

    def connection_made(self, transport: "asyncio.BaseTransport") -> None:
        """Begin to pass on."""
        self.transport = transport  # type: ignore[assignment]  # a socket's has both directions
        if self._is_over:
            self.abort()
            return
        transport.set_write_buffer_limits(high=SOCKET_BUFFER)  # type: ignore[attr-defined]
        early, self._early = self._early, []
        for content in early:
            self._pass_on(content)
        if self._has_got_end:
            self._write_eof()
        self.steer()

    def data_received(self, data: bytes) -> None:
        """Send on as much as the other end takes, and hold the rest."""
        self._held = self._held + data if self._held else data
        self._flush()

    def eof_received(self) -> bool:
        """Pass the end on; what comes the other way still goes to the socket."""
        self._has_read_all = True
        self._flush()
        return True

    def pause_writing(self) -> None:
        """Give no more credit: the socket's reader is slow."""
        self._is_slow = True

    def resume_writing(self) -> None:
        """Give the credit that was kept back."""
        self._is_slow = False
        self._give_credit()

    def connection_lost(self, exc: "Exception | None") -> None:
        """Tell the other end, if it does not know."""
        self.transport = None
        if not (self._has_sent_end and self._has_got_end):
            self._link.send(RESET, self._number)
        self._link.forget(self._number)

    # From the link.

    def take(self, content: bytes) -> None:
        """Pass on what came over the link; raises `Broken` when it is more than may come."""
        self._may_come -= len(content)
        if self._may_come < 0 or self._has_got_end:
            raise Broken("more bytes than credit")
        if self.transport is None:
            self._early.append(content)
        else:
            self._pass_on(content)

    def take_credit(self, amount: int) -> None:
        """Go on sending."""
        self._may_send += amount
        if self._may_send > WINDOW:
            raise Broken("more credit than was used")
        self._flush()

    def take_end(self) -> None:
        """Pass on that no more will come."""
        self._has_got_end = True
        self._write_eof()
        self._close_if_over()

    def abort(self) -> None:
        """End the socket's connection now, or as soon as there is one."""
        self._is_over = True
        if self.transport is not None:
            self.transport.abort()

    def steer(self) -> None:
        """Read from the socket exactly as long as what is read can be sent."""
        wanted = not (self._held or self._link.is_congested)
        if wanted is self._is_reading or self._has_read_all:
            return
        if self.transport is None or self.transport.is_closing():
            return
        self._is_reading = wanted
        if wanted:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def _pass_on(self, content: bytes) -> None:
        assert self.transport is not None
        self.transport.write(content)
        self._passed_on += len(content)
        self._give_credit()

    def _write_eof(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write_eof()

    def _give_credit(self) -> None:
        if self._passed_on >= WINDOW // 2 and not self._is_slow:
            amount, self._passed_on = self._passed_on, 0
            self._may_come += amount
            self._link.send(CREDIT, self._number, AMOUNT.pack(amount))

    def _flush(self) -> None:
        view, sent = memoryview(self._held), 0
        while sent < len(view) and self._may_send:
            part = view[sent : sent + min(FRAME, self._may_send)]
            self._may_send -= len(part)
            sent += len(part)
            self._link.send(DATA, self._number, bytes(part))
        self._held = bytes(view[sent:])
        if self._has_read_all and not self._held and not self._has_sent_end:
            self._has_sent_end = True
            self._link.send(END, self._number)
            self._close_if_over()
        self.steer()

    def _close_if_over(self) -> None:
        if self._has_sent_end and self._has_got_end and self.transport is not None:
            self.transport.close()


class Link(asyncio.Protocol):
    """
    The connection between two ends, once both have agreed on it.

    The hub's end begins streams (`begin`); the node's end gets a function that connects them to
    its server (`answer`), and a stream that a node begins ends the link.
    """

    def __init__(
        self,
        lost: "Callable[[Link, str], None]",
        *,
        answer: "Callable[[Stream], None] | None" = None,
    ) -> None:
        self.is_congested = False
        self.transport: asyncio.Transport | None = None
        self._lost = lost
        self._answer = answer
        self._is_node = answer is not None
        self._messages = Messages(masked=not self._is_node)
        self._streams: dict[int, Stream] = {}
        self._last_number = 0
        self._words = "closed"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._heard_at = 0.0
        self._ping: asyncio.TimerHandle | None = None

    def start(
        self, transport: "asyncio.Transport", loop: "asyncio.AbstractEventLoop", rest: bytes
    ) -> None:
        """Take over a connection after its hand-shake; `rest` is what came behind that."""
        self.transport = transport
        self._loop = loop
        self._heard_at = loop.time()
        transport.set_protocol(self)
        self._tick()
        if rest:
            self.data_received(rest)

    @property
    def has_room(self) -> bool:
        """Tell whether another stream may begin."""
        return self.transport is not None and len(self._streams) < MOST_STREAMS

    def begin(self) -> Stream:
        """Return a new stream; give it a socket by making it the protocol of that."""
        while True:
            self._last_number = self._last_number % 0xFFFFFFFF + 1
            if self._last_number not in self._streams:
                break
        self.send(OPEN, self._last_number)
        return self._add(self._last_number)

    def send(self, kind: int, number: int, content: bytes = b"") -> None:
        """Send a frame; a link that is over takes it for nothing."""
        if self.transport is not None and not self.transport.is_closing():
            frame = HEAD.pack(kind, number) + content
            self.transport.write(message(frame, masked=self._is_node))

    def forget(self, number: int) -> None:
        """Take a stream that is over out of the link's care."""
        self._streams.pop(number, None)

    def end(self, words: str) -> None:
        """End the link and all that it carries."""
        if self.transport is not None:
            self._words = words
            self.transport.abort()

    # What the loop calls.

    def data_received(self, data: bytes) -> None:
        """Take what came, as far as it follows the rules."""
        assert self._loop is not None
        self._heard_at = self._loop.time()
        try:
            for kind, content in self._messages.feed(data):
                if kind == BINARY:
                    self._take(content)
                elif kind == PING and not self.is_congested:
                    self._say(PONG, content)
                elif kind == CLOSE:
                    self.end("closed by the other end")
                    return
        except Broken as error:
            self.end(str(error))

    def eof_received(self) -> bool:
        """Take the end of one direction for that of the link."""
        return False

    def pause_writing(self) -> None:
        """Read from no socket: the link has more to carry than it can."""
        self.is_congested = True
        self._steer_all()

    def resume_writing(self) -> None:
        """Go on reading."""
        self.is_congested = False
        self._steer_all()

    def connection_lost(self, exc: "Exception | None") -> None:
        """End every stream."""
        self.transport = None
        if self._ping is not None:
            self._ping.cancel()
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.abort()
        self._lost(self, str(exc) if exc is not None else self._words)

    # --- inside

    def _add(self, number: int) -> Stream:
        stream = self._streams[number] = Stream(self, number)
        return stream

    def _take(self, frame: bytes) -> None:
        if len(frame) < HEAD.size:
            raise Broken("a frame without a head")
        kind, number = HEAD.unpack_from(frame)
        content = frame[HEAD.size :]
        if kind == OPEN:
            self._take_open(number)
            return
        stream = self._streams.get(number)
        if stream is None:
            return  # It ended here while this was under way.
        if kind == DATA:
            stream.take(content)
        elif kind == CREDIT and len(content) == AMOUNT.size:
            stream.take_credit(AMOUNT.unpack(content)[0])
        elif kind == END:
            stream.take_end()
        elif kind == RESET:
            self.forget(number)
            stream.abort()
        else:
            raise Broken("a frame of no known kind")

    def _take_open(self, number: int) -> None:
        if self._answer is None or number in self._streams:
            raise Broken("a stream that may not begin")
        stream = self._add(number)
        if len(self._streams) > MOST_STREAMS:
            raise Broken("too many streams")
        self._answer(stream)

    def _steer_all(self) -> None:
        for stream in list(self._streams.values()):
            stream.steer()

    def _say(self, kind: int, content: bytes = b"") -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(message(content, masked=self._is_node, kind=kind))

    def _tick(self) -> None:
        assert self._loop is not None
        if self._loop.time() - self._heard_at > SILENCE_SECONDS:
            self.end("silent")
            return
        self._say(PING)
        self._ping = self._loop.call_later(PING_SECONDS, self._tick)
