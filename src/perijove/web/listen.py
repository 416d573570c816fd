"""Serving ASGI applications on sockets that are already open, until cancelled."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import uvicorn

from perijove.domain.errors import ConfigError
from perijove.web.asgi import App

GRACE = 5
"""Seconds running requests have to finish when the hub stops."""


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # the composition root decides when to stop


async def serve(
    app: App, sockets: list[socket.socket], *, started: Callable[[], None] | None = None
) -> None:
    """Serve `app` on `sockets`; when cancelled, stop accepting and let requests finish."""
    config = uvicorn.Config(
        app,
        loop="none",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=GRACE,
        backlog=2048,
    )
    server = _Server(config)
    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            with anyio.CancelScope(shield=True):
                await server.serve(sockets)

        tasks.start_soon(run)
        try:
            while not server.started:  # noqa: ASYNC110 - uvicorn offers nothing to wait on
                await anyio.sleep(0.005)
            if started is not None:
                started()
            await anyio.sleep_forever()
        finally:
            server.should_exit = True


def open_unix(path: Path) -> socket.socket:
    """Return a listening unix socket of mode 0600 at `path`, replacing what was left there."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen(2048)
    return listener


def open_tcp(address: str) -> socket.socket:
    """Return a listening socket at ``host:port``; raises `ConfigError` naming the address."""
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen at {address}: {error.strerror}") from None
    return listener


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of ``host:port`` or ``[v6]:port``; raises `ConfigError`."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"{address!r} is not an address: write host:port")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - empty means every address
