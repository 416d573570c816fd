"""One request to the hub, over its control socket: a fresh connection, an answer, a deadline."""

import asyncio
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from perijove.proxy.body import ChunkedBody
from perijove.proxy.fields import CHUNKED, UNTIL_CLOSE, BadMessage
from perijove.proxy.head import END, HeadLimits, ResponseHead, parse_response
from perijove.proxy.settings import ControlAddress
from perijove.wire.control import SECRET_HEADER

MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024

_LIMITS = HeadLimits()


class HubAway(Exception):
    """The hub does not answer, or not in a way that can be used."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the hub said."""

    head: ResponseHead
    body: bytes

    @property
    def status(self) -> int:
        """Return the status of the answer."""
        return self.head.status


class ControlClient:
    """Talks to the hub at one control address."""

    def __init__(self, address: ControlAddress) -> None:
        self._secret = address.secret
        self._path = ""
        if address.url.startswith("unix:"):
            self._path = address.url.removeprefix("unix:")
            self._host, self._port = "hub", 0
        else:
            parts = urlsplit(address.url)
            if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/"):
                raise ValueError("a control address is unix:/path or http://host:port")
            self._host, self._port = parts.hostname, parts.port or 80

    async def request(
        self,
        method: str,
        target: str,
        *,
        seconds: float,
        fields: tuple[tuple[str, bytes], ...] = (),
        body: bytes = b"",
    ) -> Answer:
        """Return the hub's answer within `seconds`, or raise `HubAway`."""
        try:
            async with asyncio.timeout(seconds):
                reader, writer = await self._open()
                try:
                    writer.write(self._head(method, target, fields, len(body)) + body)
                    return await _read_answer(reader)
                finally:
                    writer.transport.abort()
        except TimeoutError as error:
            raise HubAway("no answer in time") from error
        except BadMessage as error:
            raise HubAway(error.reason) from error
        except (OSError, EOFError, asyncio.LimitOverrunError) as error:
            raise HubAway(str(error) or type(error).__name__) from error

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._path:
            return await asyncio.open_unix_connection(self._path)
        return await asyncio.open_connection(self._host, self._port)

    def _head(
        self, method: str, target: str, fields: tuple[tuple[str, bytes], ...], length: int
    ) -> bytes:
        lines = [
            f"{method} {target} HTTP/1.1".encode(),
            f"Host: {self._host}".encode(),
            b"Connection: close",
            *(name.encode() + b": " + value for name, value in fields),
        ]
        if length:
            lines += [b"Content-Type: application/json", b"Content-Length: %d" % length]
        if self._secret:
            lines.append(f"{SECRET_HEADER}: {self._secret}".encode())
        return b"\r\n".join(lines) + END


async def _read_answer(reader: asyncio.StreamReader) -> Answer:
    raw = await reader.readuntil(END)
    if len(raw) > _LIMITS.max_bytes:
        raise BadMessage("answer with too large a head")
    head = parse_response(raw, _LIMITS)
    if head.fields.length == CHUNKED:
        return Answer(head, await _read_chunks(reader))
    if head.fields.length == UNTIL_CLOSE and head.status != 204:
        body = await reader.read(MAX_ANSWER_BYTES + 1)
        if not reader.at_eof():
            body += await _read_rest(reader, len(body))
        return Answer(head, body)
    length = max(head.fields.length, 0)
    if length > MAX_ANSWER_BYTES:
        raise BadMessage("answer too long")
    return Answer(head, await reader.readexactly(length))


async def _read_rest(reader: asyncio.StreamReader, size: int) -> bytes:
    pieces = []
    while piece := await reader.read(1 << 16):
        pieces.append(piece)
        size += len(piece)
        if size > MAX_ANSWER_BYTES:
            raise BadMessage("answer too long")
    return b"".join(pieces)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    """Decode a chunked answer, with the same strictness as everywhere."""
    raw = b""
    framing = ChunkedBody()
    pieces = []
    size = 0
    while not framing.done:
        raw = await reader.read(1 << 16)
        if not raw:
            raise EOFError("answer cut short")
        if framing.feed(raw) != len(raw):
            raise BadMessage("more bytes than declared")
        pieces.append(raw)
        size += len(raw)
        if size > MAX_ANSWER_BYTES:
            raise BadMessage("answer too long")
    return _decode_chunks(b"".join(pieces))


def _decode_chunks(raw: bytes) -> bytes:
    """Return the content of a whole chunked body that was found well formed."""
    content: list[bytes] = []
    position = 0
    while True:
        line_end = raw.index(b"\r\n", position)
        size = int(raw[position:line_end].partition(b";")[0], 16)
        if size == 0:
            return b"".join(content)
        start = line_end + 2
        content.append(raw[start : start + size])
        position = start + size + 2
