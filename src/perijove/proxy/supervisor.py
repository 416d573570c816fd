"""`run`: open the public address, keep worker processes alive, stop them in order.

The parent holds the listening sockets and does nothing else, so that it has no reason to fail.
Workers are forked before any loop exists and die with it.
"""

import asyncio
import ctypes
import os
import resource
import signal
import socket
import sys
import time
from dataclasses import dataclass
from typing import Final

import structlog
import uvloop

from perijove.proxy.server import ProxyServer, tls_context
from perijove.proxy.settings import ProxyOptions
from perijove.proxy.sockets import listen

log = structlog.get_logger()

FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 10.0
STEADY_SECONDS: Final = 10.0
"""A worker that lived as long starts again at once."""

EXIT_ADDRESS: Final = 3
"""Exit status when an address cannot be opened."""

_STOPPING: Final = (signal.SIGTERM, signal.SIGINT)
_WATCHED: Final = frozenset((*_STOPPING, signal.SIGCHLD))
_PR_SET_PDEATHSIG: Final = 1


@dataclass(slots=True)
class _Slot:
    """One place for a worker; slot 0 keeps the snapshot."""

    number: int
    pid: int = 0
    started_at: float = 0.0
    start_at: float = 0.0
    pause: float = 0.0


def run(options: ProxyOptions) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status. Call it from the main thread.

    0 after an orderly stop, `EXIT_ADDRESS` if an address cannot be opened. Raises
    `ValueError` or `OSError` for options that cannot be used (control address, certificate).
    """
    if options.die_with_parent:
        _die_with_parent(os.getppid())
    tls_context(options)
    try:
        sockets = open_sockets(options)
    except OSError as error:
        log.critical("proxy_address_unusable", bind=options.bind, reason=str(error))
        return EXIT_ADDRESS
    _raise_file_limit(options.settings.max_connections)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    try:
        return _supervise(options, sockets)
    finally:
        for sock in sockets:
            sock.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def open_sockets(options: ProxyOptions) -> list[socket.socket]:
    """Open every public address, or none."""
    sockets = [socket.socket(fileno=fd) for fd in options.listen_fds]
    try:
        sockets.extend(listen(address) for address in options.bind)
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _supervise(options: ProxyOptions, sockets: list[socket.socket]) -> int:
    """Keep every slot filled until told to stop, then wait for the workers."""
    slots = [_Slot(number) for number in range(options.settings.processes)]
    log.info(
        "proxy_started",
        addresses=[_name(sock) for sock in sockets],
        processes=len(slots),
    )
    while True:
        now = time.monotonic()
        for slot in slots:
            if not slot.pid and slot.start_at <= now:
                slot.pid = _fork_worker(options, sockets, slot.number)
                slot.started_at = now
        waits = [slot.start_at - now for slot in slots if not slot.pid]
        received = _next_signal(min(waits, default=60.0))
        if received in _STOPPING:
            break
        _reap(slots)
    for sock in sockets:
        sock.close()
    _stop_workers(slots, options.settings.grace.total_seconds() + 10)
    return 0


def _next_signal(seconds: float) -> int | None:
    found = signal.sigtimedwait(_WATCHED, max(seconds, 0.01))
    return found.si_signo if found is not None else None


def _reap(slots: list[_Slot]) -> None:
    """Note which workers have ended, and when each may start again."""
    for slot in slots:
        if slot.pid:
            pid, status = os.waitpid(slot.pid, os.WNOHANG)
            if pid:
                lived = time.monotonic() - slot.started_at
                if lived >= STEADY_SECONDS:
                    slot.pause = 0.0
                log.error(
                    "proxy_worker_ended",
                    worker_pid=pid,
                    exit=os.waitstatus_to_exitcode(status),
                    restart_seconds=slot.pause,
                )
                slot.pid = 0
                slot.start_at = time.monotonic() + slot.pause
                slot.pause = min(max(2 * slot.pause, FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)


def _stop_workers(slots: list[_Slot], seconds: float) -> None:
    """Ask every worker to stop; end those that have not after `seconds`, or at a second asking."""
    for slot in slots:
        if slot.pid:
            os.kill(slot.pid, signal.SIGTERM)
    until = time.monotonic() + seconds
    while any(slot.pid for slot in slots):
        left = until - time.monotonic()
        if left <= 0 or _next_signal(min(left, 1.0)) in _STOPPING:
            for slot in slots:
                if slot.pid:
                    os.kill(slot.pid, signal.SIGKILL)
            until = time.monotonic() + seconds
        for slot in slots:
            if slot.pid and os.waitpid(slot.pid, os.WNOHANG)[0]:
                slot.pid = 0
    log.info("proxy_ended")


def _fork_worker(options: ProxyOptions, sockets: list[socket.socket], number: int) -> int:
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        _die_with_parent(parent)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
        uvloop.run(_serve(options, sockets, number))
        status = 0
    except Exception:
        log.exception("proxy_worker_failed")
    finally:
        # Not sys.exit: what the parent has yet to do, such as its caller's clean-up, is not ours.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


async def _serve(options: ProxyOptions, sockets: list[socket.socket], number: int) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for signum in _STOPPING:
        loop.add_signal_handler(signum, stop.set)
    server = ProxyServer(options, saves_snapshot=number == 0)
    access_fd = sys.stdout.fileno() if options.settings.access_log else None
    await server.start(sockets, access_fd=access_fd)
    await stop.wait()
    await server.stop(options.settings.grace.total_seconds())


def _die_with_parent(parent: int) -> None:
    """Have the system send SIGTERM to this process when its parent has ended."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def _raise_file_limit(connections: int) -> None:
    """Allow as many open files as we may: each request needs two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < 2 * connections:
        log.warning("proxy_file_limit_low", files=hard, max_connections=connections)


def _name(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
