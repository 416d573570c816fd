"""The load: wrk for many small requests, curl for big ones, and raw clients for the rest."""

import json
import selectors
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio

from tests.bench.programs import BenchError
from tests.bench.upstream import REPLY_FRAME, REQUEST_FRAME, Upstream

_SCRIPT: Final = Path(__file__).with_name("load.lua")
_CLIENT_DEADLINE: Final = 300.0


def many(
    url: str, kind: str, *, token: str = "-", users: int, connections: int, seconds: float
) -> tuple[int, float]:
    """Ask `url` for requests of a kind of `load.lua`; return how many were answered, and when."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "30s"]
    command += ["-s", str(_SCRIPT), url, "--", kind, token, str(users)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    requests, microseconds, errors = text.rpartition("RESULT ")[2].split()
    if int(errors) > int(requests) / 1000 or not int(requests):
        raise BenchError(f"{kind} at {url}: {errors} of {requests} requests failed\n{text}")
    return int(requests), int(microseconds) / 1e6


@dataclass(frozen=True, slots=True)
class Answer:
    """What a hub said."""

    status: int
    body: bytes

    def json(self) -> Any:
        """Return the decoded body."""
        return json.loads(self.body)


async def ask(port: int, method: str, path: str, *, token: str = "", body: Any = None) -> Answer:
    """Make one request on a connection of its own."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Connection: close"]
    if token:
        lines.append(f"Authorization: token {token}")
    if content or method != "GET":
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    answer = bytearray()
    with anyio.fail_after(_CLIENT_DEADLINE):
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send("\r\n".join(lines).encode() + b"\r\n\r\n" + content)
            try:
                while True:
                    answer += await stream.receive()
            except anyio.EndOfStream:
                pass
    head, _end, rest = bytes(answer).partition(b"\r\n\r\n")
    return Answer(int(head.split(b" ", 2)[1]), _content(head, rest))


def _content(head: bytes, rest: bytes) -> bytes:
    if b"transfer-encoding: chunked" not in head.lower():
        return rest
    content = b""
    while rest:
        line, _end, rest = rest.partition(b"\r\n")
        size = int(line, 16)
        content, rest = content + rest[:size], rest[size + 2 :]
    return content


async def at_once(
    port: int, method: str, paths: Sequence[str], *, token: str, body: Any = None
) -> list[Answer]:
    """Make one request for each of `paths`, all at the same time."""
    answers: dict[str, Answer] = {}

    async def one(path: str) -> None:
        answers[path] = await ask(port, method, path, token=token, body=body)

    async with anyio.create_task_group() as tasks:
        for path in paths:
            tasks.start_soon(one, path)
    return [answers[path] for path in paths]


def download(port: int, path: str = "/user/u7/big", *how: str) -> float:
    """Fetch the big file through a proxy at `port`; return the seconds it took."""
    return _curl([*how, "--output", "/dev/null", f"http://127.0.0.1:{port}{path}"])


def upload(port: int, upstream: Upstream) -> float:
    """Send the big file to the sink through a proxy at `port`; return the seconds it took."""
    url = f"http://127.0.0.1:{port}/sink/upload"
    return _curl(["--upload-file", str(upstream.big), "--header", "Expect:", url])


def _curl(arguments: Sequence[str]) -> float:
    report = ["--write-out", "%{http_code} %{time_total}", "--silent", "--show-error"]
    command = ["curl", "--noproxy", "*", *report, *arguments]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    status, seconds = text.split()
    if status != "200":
        raise BenchError(f"status {status} for {arguments[-1]}")
    return float(seconds)


def echo(port: int, *, connections: int, seconds: float) -> tuple[int, float]:
    """Send messages there and back on many WebSockets; return how many came, and in how long."""
    selector = selectors.EpollSelector()
    sockets = [_open_websocket(port) for _ in range(connections)]
    for sock in sockets:
        selector.register(sock, selectors.EVENT_READ, [0])
        sock.send(REQUEST_FRAME)
    began = time.monotonic()
    count, now = 0, began
    while now < began + seconds:
        for key, _events in selector.select(1):
            count += _return(key.fileobj, key.data)
        now = time.monotonic()
    for sock in sockets:
        sock.close()
    return count, now - began


def _return(sock: Any, left: list[int]) -> int:
    """Send one message for each that has come."""
    size = len(sock.recv(65536))
    if not size:
        raise BenchError("a WebSocket was closed")
    whole, left[0] = divmod(left[0] + size, len(REPLY_FRAME))
    if whole:
        sock.send(REQUEST_FRAME * whole)
    return whole


def _open_websocket(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(
        b"GET /sink/api/kernels/k/channels HTTP/1.1\r\nHost: hub.example.org\r\n"
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += (piece := sock.recv(1))
        if not piece:
            break
    if b" 101 " not in head:
        raise BenchError(f"no WebSocket at port {port}: {head[:200]!r}")
    return sock
