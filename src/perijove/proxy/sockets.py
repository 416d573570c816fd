"""What is asked of the sockets below transports."""

import asyncio
import select
import socket
import struct
from typing import Final

_RESET: Final = struct.pack("ii", 1, 0)


def has_left(transport: asyncio.Transport) -> bool:
    """Tell whether the peer has closed its sending side, though nothing is read from it."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))


def keep_alive(transport: asyncio.Transport) -> None:
    """Let the system find out when the peer of a long quiet connection has vanished."""
    sock = transport.get_extra_info("socket")
    if sock.family != socket.AF_UNIX:
        set_keep_alive(sock)


def set_keep_alive(sock: socket.socket) -> None:
    """Probe after a minute of silence and give up after two; accepted sockets inherit it."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)


def listen(address: str) -> socket.socket:
    """Return a socket that listens at ``host:port``; raises `OSError` or `ValueError`."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        set_keep_alive(sock)
        sock.bind((host, int(port)))
        sock.listen(1024)
    except (OSError, ValueError):
        sock.close()
        raise
    return sock


def reset(transport: asyncio.Transport) -> None:
    """End a connection so that its peer cannot take what came for the whole."""
    if not transport.is_closing():
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()
