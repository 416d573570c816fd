"""
The node's end of a tunnel: a program of its own beside the job's wrapper.

It dials out to the hub's end, proves with the launch's code whose it is, and connects what comes
through to the unix socket of the job's server; nothing on the node listens at a port. It dials
again for as long as the wrapper lives, whatever restarts on the other side.

The wrapper holds the other end of its standard input: from there comes one line of JSON with
what to do, there it writes how it goes, and when that end closes the program ends. Signals, which
schedulers send to all processes of a job, do not end it: the server may still have to save.

Standard library only, Python 3.6.
"""

import asyncio
import base64
import contextlib
import json
import os
import random
import signal
import socket
import ssl
import sys
import urllib.parse

from perijove.agent.link import SUBPROTOCOL, Link, Stream, accept_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CONNECT_SECONDS = 15
SERVER_SECONDS = 10
HEAD_LIMIT = 16384
LONGEST_PAUSE = 30
STEADY_SECONDS = 60  # A link that lasted so long may be dialled again at once.
FINAL = (403, 410)
WORDS_LIMIT = 300


class Refused(Exception):
    """The other end is there and says no; `status` is that of HTTP."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class Handshake(asyncio.Protocol):
    """Asks to become a WebSocket; `done` gets what came behind the agreement, or the refusal."""

    def __init__(self, request: bytes, accept: bytes, done: "asyncio.Future[bytes]") -> None:
        self._request = request
        self._accept = accept
        self._done = done
        self._held = b""

    def connection_made(self, transport: "asyncio.BaseTransport") -> None:
        """Ask."""
        transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """Collect the head of the answer."""
        self._held += data
        head, end, rest = self._held.partition(b"\r\n\r\n")
        if self._done.done():
            return
        if end:
            self._judge(head, rest)
        elif len(head) > HEAD_LIMIT:
            self._done.set_exception(Refused(0, "not an answer of a tunnel"))

    def connection_lost(self, exc: "Exception | None") -> None:
        """Note that no answer came."""
        if not self._done.done():
            self._done.set_exception(Refused(0, str(exc or "the connection was closed")))

    def _judge(self, head: bytes, rest: bytes) -> None:
        first, *lines = head.split(b"\r\n")
        status = first.split(b" ")[1:2]
        fields = dict(line.lower().split(b":", 1) for line in lines if b":" in line)
        shown = fields.get(b"sec-websocket-accept", b"").strip()
        if status == [b"101"] and shown == self._accept.lower():
            self._done.set_result(rest)
            return
        number = int(status[0]) if status and status[0].isdigit() else 0
        self._done.set_exception(Refused(number, first.decode("latin-1")[:WORDS_LIMIT]))


class Dialler:
    """Keeps one link up; `order` is what the wrapper said."""

    def __init__(self, order: "dict[str, Any]", loop: asyncio.AbstractEventLoop) -> None:
        self._order = order
        self._loop = loop
        self._url = urllib.parse.urlsplit(order["url"])
        self._connecting: set[asyncio.Future[None]] = set()

    async def run(self) -> None:
        """Dial, and again when the link is lost, until the launch is over."""
        tries = 0
        while True:
            began = self._loop.time()
            try:
                lost = await self._dial()
                report(state="up")
                words = await lost
            except Refused as error:
                words = str(error)
                if error.status in FINAL:
                    report(state="refused", status=error.status, words=words)
                    return
            except (OSError, ValueError, asyncio.TimeoutError) as error:  # noqa: UP041 - in 3.6
                words = str(error) or "no answer in time"
            report(state="away", words=f"{self._order['url']}: {words}"[:WORDS_LIMIT])
            tries = 0 if self._loop.time() - began > STEADY_SECONDS else tries + 1
            pause = min(2.0 ** min(tries, 10) / 4, LONGEST_PAUSE)
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311

    async def _dial(self) -> "asyncio.Future[str]":
        """Return what will say why the link was lost."""
        key = base64.b64encode(os.urandom(16))
        answer: asyncio.Future[bytes] = self._loop.create_future()
        is_tls = self._url.scheme in ("https", "wss")
        connection = self._loop.create_connection(
            lambda: Handshake(self._request(key), accept_of(key), answer),
            self._url.hostname,
            self._url.port or (443 if is_tls else 80),
            ssl=self._tls() if is_tls else None,
        )
        transport, _ = await asyncio.wait_for(connection, CONNECT_SECONDS)  # noqa: TID251
        try:
            rest = await asyncio.wait_for(answer, CONNECT_SECONDS)  # noqa: TID251
        except BaseException:
            transport.abort()
            raise
        keep_alive(transport)
        lost: asyncio.Future[str] = self._loop.create_future()
        link = Link(lambda _, words: lost.set_result(words), answer=self._connect)
        link.start(transport, self._loop, rest)
        return lost

    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self._order.get("ca") or None)

    def _request(self, key: bytes) -> bytes:
        order = self._order
        proof = " ".join(order[name] for name in ("launch_id", "job_id", "nonce", "code"))
        lines = [
            f"GET {self._url.path or '/'} HTTP/1.1",
            f"Host: {self._url.netloc.rpartition('@')[2]}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key.decode()}",
            f"Sec-WebSocket-Protocol: {SUBPROTOCOL}",
            f"Authorization: Perijove-Job {proof}",
        ]
        return "\r\n".join([*lines, "", ""]).encode("ascii")

    def _connect(self, stream: Stream) -> None:
        """Connect a stream to the server, or end it if that does not listen."""
        work = asyncio.ensure_future(self._connect_to_server(stream), loop=self._loop)  # noqa: TID251
        self._connecting.add(work)
        work.add_done_callback(self._connecting.discard)

    async def _connect_to_server(self, stream: Stream) -> None:
        connection = self._loop.create_unix_connection(lambda: stream, self._order["socket"])
        try:
            await asyncio.wait_for(connection, SERVER_SECONDS)  # noqa: TID251
        except (OSError, asyncio.TimeoutError):  # noqa: UP041 - in 3.6
            stream.connection_lost(None)


def keep_alive(transport: "asyncio.BaseTransport") -> None:
    """Send what there is at once."""
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def report(**fields: "Any") -> None:
    """Tell the wrapper how it goes; one that does not listen now will ask the next time."""
    try:
        os.write(0, json.dumps(fields).encode("ascii") + b"\n")
    except OSError:
        sys.exit(0)


def read_order() -> "dict[str, Any]":
    """Return the wrapper's one line; ends the program when there is none."""
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(0, 1)
        if not part:
            sys.exit(0)
        line += part
    found: dict[str, Any] = json.loads(line.decode("utf-8"))
    return found


def main() -> None:
    """Dial until the wrapper is gone."""
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    order = read_order()
    loop = asyncio.new_event_loop()
    work = asyncio.ensure_future(Dialler(order, loop).run(), loop=loop)  # noqa: TID251
    loop.add_reader(0, work.cancel)  # The wrapper says nothing more: it can only have ended.
    with contextlib.suppress(asyncio.CancelledError):
        loop.run_until_complete(work)


if __name__ == "__main__":
    main()
