"""
What stands behind the hubs and proxies: nginx, and for what it cannot do a small echo and sink.

The same for both sides, and quick enough to be no part of the result.
"""

import os
import selectors
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.programs import Program, find, free_port, is_open, stopping

MESSAGE: Final = b"x" * 120
"""What a WebSocket message holds; as long as a short message of a kernel."""
REQUEST_FRAME: Final = bytes((0x82, 0x80 | len(MESSAGE), 0, 0, 0, 0)) + MESSAGE
"""A client's frame: masked, with a mask of zeros."""
REPLY_FRAME: Final = bytes((0x82, len(MESSAGE))) + MESSAGE

_SWITCH: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
_DONE: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_BUFFER: Final = bytearray(1 << 20)

_NGINX: Final = """
{user}worker_processes 1; daemon off;
pid {directory}/nginx.pid; error_log {directory}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log off; sendfile on; keepalive_requests 1000000000; keepalive_timeout 300s;
    client_body_temp_path {directory}/t1; proxy_temp_path {directory}/t2;
    fastcgi_temp_path {directory}/t3; uwsgi_temp_path {directory}/t4; scgi_temp_path {directory}/t5;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        listen unix:{socket};
        location / {{
            default_type application/json;
            add_header X-JupyterHub-Version 6.1.1;
            return 200 '{{"id": "0123456789", "name": "kernel", "last_activity": "2026-01-01"}}';
        }}
        location ~ /big$ {{ alias {big}; }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where the servers of both sides are said to be."""

    port: int
    """Answers every GET with a small JSON, and ``…/big`` with the big file."""
    sink_port: int
    """Echoes WebSocket messages, and swallows uploads."""
    socket: Path
    """Answers as `port` does."""
    big: Path
    """A file of `size` bytes without blocks on the disk."""
    size: int


@contextmanager
def running_upstream(directory: Path, *, size: int) -> Iterator[Upstream]:
    """Run nginx and the sink below `directory`."""
    directory.mkdir(parents=True)
    big = directory / "big"
    with big.open("wb") as file:
        file.truncate(size)
    port, sink_port = free_port(), free_port()
    configuration = directory / "nginx.conf"
    # As root, nginx would give its work to an account that cannot enter our directory.
    user = "user root; " if os.geteuid() == 0 else ""
    place = directory / "s"
    configuration.write_text(
        _NGINX.format(user=user, directory=directory, port=port, socket=place, big=big)
    )
    log = directory / "output.log"
    program = find("nginx")
    assert program is not None
    nginx = Program.start("nginx", [program, "-c", configuration, "-e", log], log)
    command = [sys.executable, "-m", "tests.bench.upstream", str(sink_port)]
    sink = Program.start("the sink", command, log)
    with stopping(nginx, sink):
        nginx.wait_until(lambda: is_open(port))
        sink.wait_until(lambda: is_open(sink_port))
        yield Upstream(port, sink_port, place, big, size)


class _Connection:
    """One connection of the sink: first a head, then messages or the rest of an upload."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._head = b""
        self._left = 0
        self._is_socket = False

    def on_readable(self) -> bool:
        """Take what has come; False when the peer has closed."""
        try:
            size = self.sock.recv_into(_BUFFER)
        except ConnectionError:
            return False
        if not size:
            return False
        if self._is_socket:
            self._echo(size)
        elif self._left:
            self._swallow(size)
        else:
            self._read_head(size)
        return True

    def _echo(self, size: int) -> None:
        whole, self._left = divmod(self._left + size, len(REQUEST_FRAME))
        if whole:
            self._send(REPLY_FRAME * whole)

    def _swallow(self, size: int) -> None:
        self._left -= size
        if not self._left:
            self._send(_DONE)

    def _read_head(self, size: int) -> None:
        self._head += bytes(_BUFFER[:size])
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end:
            return
        self._head = b""
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if b"upgrade" in fields:
            self._is_socket = True
            self._send(_SWITCH)
        elif length := int(fields.get(b"content-length", b"0")):
            self._left = length - len(rest)
        else:
            self._send(_DONE)

    def _send(self, content: bytes) -> None:
        self.sock.setblocking(True)
        self.sock.sendall(content)
        self.sock.setblocking(False)


def serve(port: int) -> None:
    """Be the sink, for ever."""
    selector = selectors.EpollSelector()
    with socket.create_server(("127.0.0.1", port), backlog=512) as listener:
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _events in selector.select():
                if key.data is None:
                    sock, _address = listener.accept()
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    sock.setblocking(False)
                    selector.register(sock, selectors.EVENT_READ, _Connection(sock))
                elif not key.data.on_readable():
                    selector.unregister(key.data.sock)
                    key.data.sock.close()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
