"""The program: workers that share an address, their restart, and an orderly stop."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import msgspec
import psutil
import pytest

from perijove.wire.control import Route, RouteTable
from tests.contract.proxy.support import DEADLINE, HOST, OK, get, listening

PROGRAM = """
import pathlib, sys
from perijove.proxy import ProxyOptions, ProxySettings, run
bind, snapshot, processes, grace = sys.argv[1:]
sys.exit(run(ProxyOptions(
    bind=(bind,), snapshot=pathlib.Path(snapshot), die_with_parent=True,
    settings=ProxySettings(processes=int(processes), grace=float(grace)),
)))
"""
ORPHANED = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", *sys.argv[1:]])
print(child.pid, flush=True)
sys.stdin.read()
"""


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until `holds`, within the deadline."""
    until = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


def free_address() -> str:
    """Return an address that nothing listens on."""
    with listening() as sock:
        host, port = sock.getsockname()
        return f"{host}:{port}"


def write_snapshot(path: Path, target: str) -> None:
    """Write a table that sends everything to `target`."""
    path.write_bytes(msgspec.json.encode(RouteTable("one", 1, [Route("/", target)])))


class Program:
    """A running proxy program."""

    def __init__(self, address: str, snapshot: Path, log: IO[bytes], *, processes: int) -> None:
        host, _, port = address.rpartition(":")
        self.address = (host, int(port))
        arguments = [address, str(snapshot), str(processes), "2"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments], stdout=log, stderr=log
        )

    def workers(self) -> list[int]:
        """Return the ids of the workers."""
        return [child.pid for child in psutil.Process(self.process.pid).children()]

    def ask(self, raw: bytes = get("/_chp_healthz", b"Connection: close\r\n")) -> bytes:
        """Return the answer to a request on a connection of its own; nothing if there is none."""
        with contextlib.suppress(OSError), self.connect() as sock:
            sock.sendall(raw)
            return read_all(sock)
        return b""

    def connect(self) -> socket.socket:
        """Return a new connection."""
        return socket.create_connection(self.address, timeout=DEADLINE)

    def kill(self) -> None:
        """Kill the program and wait until its workers have left the address."""
        self.process.kill()
        self.process.wait(DEADLINE)
        eventually(lambda: not self.is_listening())

    def is_listening(self) -> bool:
        """Tell whether connections are accepted."""
        with contextlib.suppress(OSError), self.connect():
            return True
        return False

    def is_serving(self) -> bool:
        """Tell whether the health path is answered."""
        return self.ask().endswith(b'"OK"}')


def read_all(sock: socket.socket) -> bytes:
    """Read until the end of the connection."""
    pieces = []
    while piece := sock.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


@contextlib.contextmanager
def running(tmp_path: Path, *, processes: int = 1) -> Iterator[Program]:
    """Run the program until the end of the block."""
    with (tmp_path / "log").open("ab") as log:
        program = Program(free_address(), tmp_path / "routes.json", log, processes=processes)
        try:
            eventually(program.is_serving)
            yield program
        finally:
            program.process.terminate()
            program.process.wait(DEADLINE)


def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    """Every worker killed, the address is served again by new ones; stopping ends them all."""
    with running(tmp_path, processes=2) as program:
        eventually(lambda: len(program.workers()) == 2)
        before = program.workers()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(set(program.workers()) - set(before)) == 2)
        eventually(program.is_serving)
        after = program.workers()
    assert program.process.returncode == 0
    assert not any(psutil.pid_exists(pid) for pid in after)


def test_a_running_request_finishes_before_the_stop(tmp_path: Path) -> None:
    """A stop closes the address at once and idle clients too, but lets a request finish."""
    with listening() as upstream:
        write_snapshot(tmp_path / "routes.json", "http://{}:{}".format(*upstream.getsockname()))
        with running(tmp_path) as program, program.connect() as idle, program.connect() as busy:
            busy.sendall(b"GET /long HTTP/1.1\r\n" + HOST + b"\r\n")
            server, _ = upstream.accept()
            with server:
                assert server.recv(65536)
                program.process.terminate()
                assert read_all(idle) == b""
                with pytest.raises(ConnectionRefusedError):
                    program.connect()
                server.sendall(OK)
                assert read_all(busy).endswith(b"\r\nConnection: close\r\n\r\nok")
            assert program.process.wait(DEADLINE) == 0


def test_a_request_that_does_not_end_is_cut(tmp_path: Path) -> None:
    """The grace is a limit."""
    with listening() as upstream:
        write_snapshot(tmp_path / "routes.json", "http://{}:{}".format(*upstream.getsockname()))
        with running(tmp_path) as program, program.connect() as busy:
            busy.sendall(b"GET /endless HTTP/1.1\r\n" + HOST + b"\r\n")
            upstream.accept()[0].close()
            program.process.terminate()
            assert program.process.wait(DEADLINE) == 0


def test_an_address_in_use_is_an_error(tmp_path: Path) -> None:
    """The program ends with the status that says so, and names the address."""
    with listening() as sock, (tmp_path / "log").open("wb") as log:
        address = "{}:{}".format(*sock.getsockname())
        program = Program(address, tmp_path / "routes.json", log, processes=1)
        assert program.process.wait(DEADLINE) == 3
    assert address in (tmp_path / "log").read_text()


def test_workers_die_with_the_program(tmp_path: Path) -> None:
    """The program killed, its workers end and the address is free at once."""
    with running(tmp_path, processes=2) as program:
        eventually(lambda: len(program.workers()) == 2)
        workers = program.workers()
        program.process.kill()
        program.process.wait(DEADLINE)
        eventually(lambda: not any(psutil.pid_exists(pid) for pid in workers))
        with socket.create_server(program.address):
            pass


def test_the_program_dies_with_its_parent(tmp_path: Path) -> None:
    """Killed with its parent, the program leaves nothing behind."""
    arguments = [PROGRAM, free_address(), str(tmp_path / "routes.json"), "1", "2"]
    parent = subprocess.Popen(
        [sys.executable, "-c", ORPHANED, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    with parent.stdin, parent.stdout:
        child = int(parent.stdout.readline())
        eventually(lambda: len(psutil.Process(child).children()) == 1)
        parent.kill()
        parent.wait(DEADLINE)
        eventually(lambda: not psutil.pid_exists(child))


def test_a_restart_never_answers_without_routes(tmp_path: Path) -> None:
    """Killed and started again without a hub, the first answer comes from the right place."""
    with listening() as upstream, (tmp_path / "log").open("wb") as log:
        write_snapshot(tmp_path / "routes.json", "http://{}:{}".format(*upstream.getsockname()))
        address = free_address()
        for _ in range(2):
            program = Program(address, tmp_path / "routes.json", log, processes=1)
            eventually(program.is_listening)
            with program.connect() as client:
                client.sendall(get("/first", b"Connection: close\r\n"))
                server, _ = upstream.accept()
                with server:
                    assert server.recv(65536).startswith(b"GET /first ")
                    server.sendall(OK)
                    assert read_all(client).endswith(b"ok")
            program.kill()
    lines = (tmp_path / "log").read_text().splitlines()
    assert [json.loads(line)["path"] for line in lines if line[:1] == "{"] == ["/first"] * 2
