"""
Asking a user's server itself: is it up, and is it busy? Everything it says is untrusted.

One connection, one GET, no redirects (wire §1.4), an answer of limited size by a deadline: a
client library for all that HTTP can do takes ten times as long, and a class that starts asks
hundreds of servers in a moment.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from urllib.parse import urlsplit

import anyio
import anyio.abc
import httptools
import msgspec

_ANSWER_LIMIT = 1 << 20
_DEADLINE = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """That a server answered, and which version it says it is."""

    status: int
    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Busyness:
    """What a server says of its kernels and terminals."""

    busy: bool
    """Some kernel executes now."""
    last_activity: datetime | None
    """The latest activity of any kernel or terminal."""


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    version: str
    body: bytes


class Prober:
    """Talks to servers at the addresses their launches gave. An async context manager."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Nothing stays open between two questions."""

    async def answer(self, url: str, prefix: str) -> Answer | None:
        """
        Return the answer of ``GET <prefix>api`` when it means that the server is up.

        Any final status below 500 does (wire §1.4); None for everything else.
        """
        response = await self._get(url, f"{prefix}api", {})
        if response is None or not 200 <= response.status < 500:
            return None
        return Answer(status=response.status, version=response.version)

    async def busyness(self, url: str, prefix: str, token: str) -> Busyness | None:
        """Return what the server says of its kernels and terminals; None when it does not say."""
        headers = {"Authorization": f"token {token}"}
        kernels = await self._list(url, f"{prefix}api/kernels", headers)
        if kernels is None:
            return None
        terminals = await self._list(url, f"{prefix}api/terminals", headers) or []
        return Busyness(
            busy=any(kernel.get("execution_state") == "busy" for kernel in kernels),
            last_activity=max(
                (at for thing in (*kernels, *terminals) if (at := _instant(thing))), default=None
            ),
        )

    async def _list(
        self, url: str, path: str, headers: Mapping[str, str]
    ) -> list[dict[str, Any]] | None:
        response = await self._get(url, path, headers)
        if response is None or response.status != 200:
            return None
        try:
            return msgspec.json.decode(response.body, type=list[dict[str, Any]])
        except msgspec.DecodeError:
            return None

    async def _get(self, url: str, path: str, headers: Mapping[str, str]) -> _Response | None:
        try:
            head = _head(url, path, headers)
            with anyio.fail_after(_DEADLINE):
                async with await _connect(url) as stream:
                    await stream.send(head)
                    return await _read(stream)
        except (OSError, TimeoutError, ValueError, anyio.BrokenResourceError):
            return None
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return None


def _head(url: str, path: str, headers: Mapping[str, str]) -> bytes:
    host = "server" if url.startswith("unix:") else urlsplit(url).netloc
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Accept: application/json"]
    lines += ["Connection: close", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


async def _connect(url: str) -> anyio.abc.ByteStream:
    """Connect to ``http://host:port`` or ``unix:/path``; raise `ValueError` for anything else."""
    if url.startswith("unix:"):
        return await anyio.connect_unix(url.removeprefix("unix:"))
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError("not an address of a server")
    return await anyio.connect_tcp(parts.hostname, parts.port or 80)


class _Incoming:
    """What the parser has found in an answer."""

    def __init__(self) -> None:
        self.version = ""
        self.body = bytearray()
        self.has_head = False
        self.is_whole = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note the one field that is asked for."""
        if name.lower() == b"x-jupyterhub-version":
            self.version = value[:32].decode("latin-1")

    def on_headers_complete(self) -> None:
        """Note that status and fields are known."""
        self.has_head = True

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body."""
        self.body += body

    def on_message_complete(self) -> None:
        """Note that no more will come."""
        self.is_whole = True


async def _read(stream: anyio.abc.ByteStream) -> _Response | None:
    incoming = _Incoming()
    parser = httptools.HttpResponseParser(incoming)
    left = _ANSWER_LIMIT
    while not incoming.is_whole:
        try:
            piece = await stream.receive()
        except anyio.EndOfStream:  # it ends a body of no stated length, or cuts the answer short
            break
        left -= len(piece)
        if left < 0:
            return None
        parser.feed_data(piece)
    if not incoming.has_head:
        return None
    return _Response(parser.get_status_code(), incoming.version, bytes(incoming.body))


def _instant(thing: Mapping[str, Any]) -> datetime | None:
    try:
        at = datetime.fromisoformat(str(thing.get("last_activity")))
    except ValueError:
        return None
    return at if at.tzinfo else None
