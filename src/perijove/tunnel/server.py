"""The program: its listening sockets, its connections, its work in the background."""

import asyncio
import os
import resource
import signal
import ssl
from collections.abc import Coroutine
from typing import Any, Final

import structlog
import uvloop

from perijove.proxy.control import ControlClient
from perijove.proxy.sockets import listen
from perijove.tunnel.ends import End, Ends
from perijove.tunnel.gate import HEAD_SECONDS, Gate
from perijove.tunnel.settings import TunnelOptions
from perijove.wire.control import TunnelClaim

log = structlog.get_logger()

EXIT_ADDRESS: Final = 3
"""Exit status when an address cannot be opened."""


class TunnelServer:
    """Takes nodes in and offers their launches' sockets; start and stop it in a running loop."""

    def __init__(self, options: TunnelOptions) -> None:
        self.gates: dict[Gate, None] = {}
        self._options = options
        self._ends = Ends(ControlClient(options.control), options.directory)
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Offer the sockets of the launches that are known, then take nodes in."""
        loop = asyncio.get_running_loop()
        await self._ends.load()
        front = self._options.front
        self._servers.append(
            await loop.create_unix_server(
                lambda: self._gate(behind_proxy=True), os.fspath(front), backlog=1024
            )
        )
        front.chmod(0o600)
        if self._options.settings.bind:
            sock = listen(self._options.settings.bind)
            tls = tls_context(self._options)
            self._servers.append(
                await loop.create_server(
                    lambda: self._gate(behind_proxy=False),
                    sock=sock,
                    ssl=tls,
                    ssl_handshake_timeout=HEAD_SECONDS if tls else None,
                    backlog=1024,
                )
            )
        self.spawn(self._ends.sweep())
        log.info("tunnels_started", bind=self._options.settings.bind)

    async def stop(self) -> None:
        """Close everything; nodes dial again by themselves."""
        for server in self._servers:
            server.close()
        for gate in tuple(self.gates):
            gate.transport.abort()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._ends.close()

    async def admit(self, claim: TunnelClaim) -> End:
        """Return the end of the tunnel that a job may use; raises `NotAdmitted`."""
        return await self._ends.admit(claim)

    async def forget_over(self) -> None:
        """Forget at once what is over; raises `HubAway`."""
        await self._ends.forget_over()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` to its end, or to that of the server."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("tunnel_task_failed", exc_info=error)

    def _gate(self, *, behind_proxy: bool) -> asyncio.Protocol:
        return Gate(self, behind_proxy=behind_proxy)


def run(options: TunnelOptions) -> int:
    """
    Serve until SIGTERM or SIGINT; return the exit status. Call it from the main thread.

    0 after an orderly stop, `EXIT_ADDRESS` if an address cannot be opened. Raises `OSError` for a
    certificate that cannot be used.
    """
    os.umask(0o077)
    tls_context(options)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return uvloop.run(_serve(options))


async def _serve(options: TunnelOptions) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = TunnelServer(options)
    try:
        await server.start()
    except OSError as error:
        log.critical("tunnel_address_unusable", reason=str(error))
        return EXIT_ADDRESS
    await stop.wait()
    await server.stop()
    return 0


def tls_context(options: TunnelOptions) -> ssl.SSLContext | None:
    """Return what the address speaks TLS with, or None."""
    settings = options.settings
    if settings.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(settings.tls_cert, settings.tls_key)
    return context
