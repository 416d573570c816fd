"""
The wrapper's side of a tunnel: the server's unix socket, and the program that leads out to it.

The socket is in a directory that only the person can enter; no port of the node is opened.
"""
# pathlib would add much to what a small program needs to start, and did less in Python 3.6:
# ruff: noqa: PTH100, PTH108, PTH118, PTH120, PTH123

import contextlib
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from perijove.agent.cannot import Cannot
from perijove.agent.hub import next_pause
from perijove.agent.node import say
from perijove.spawners.local.supervisor import Signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PATH_LIMIT = 100  # Bytes of a socket's path; the kernel takes a few more.
ACCEPTS = 0x10000  # Flag of a socket that listens, in the kernel's table.
STATE_LIMIT = 65536


class Outlet:
    """Keeps the program of the tunnel alive, and knows how it is with it."""

    def __init__(self, order: "dict[str, Any]", temporary: str) -> None:
        self._private = ""
        folder = temporary
        if len(os.fsencode(os.path.join(folder, "server.sock"))) > PATH_LIMIT:
            folder = self._private = tempfile.mkdtemp(prefix="pj-", dir="/tmp")
        self.path = os.path.join(folder, "server.sock")
        self._order = dict(order, socket=self.path)
        self._channel: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._held = b""
        self._state: dict[str, Any] = {"state": "away", "words": "not dialled yet"}
        self._starts = 0
        self._not_before = 0.0

    def look(self) -> None:
        """Take note of how it is, and start the program if it does not run."""
        if self._channel is None:
            self._start()
        self._read()

    def wait_until_up(self, signals: Signals, latest: float) -> None:
        """Return when the tunnel stands; raises `Cannot` when that is refused, and at `latest`."""
        while True:
            self.look()
            words = str(self._state.get("words", ""))
            if self._state["state"] == "up":
                return
            if self._state["state"] == "refused":
                code = "cancelled" if self._state.get("status") == 410 else "code-refused"
                raise Cannot(code, words)
            if time.monotonic() >= latest:
                raise Cannot("hub-unreachable", words, url=self._order["url"])
            watched = [signals.wake]
            if self._channel is not None:
                watched.append(self._channel.fileno())
            ready, _, _ = select.select(watched, [], [], 1)
            if signals.wake in ready:
                signals.clear()
            if signals.stop_asked:
                raise Cannot("cancelled", "the job was asked to end before its server was started")

    def open(self) -> socket.socket:
        """Return a socket that listens where the server will; `make_room` before that does."""
        self.make_room()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(self.path)
        listener.listen(16)
        return listener

    def make_room(self) -> None:
        """Leave the path to who listens there next."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    def listeners(self) -> "set[str]":
        """Return the sockets, as inode numbers, that take connections at the path."""
        found = set()
        with open("/proc/net/unix", "rb") as table:
            for line in table:
                fields = line.rstrip(b"\n").split(None, 7)
                is_here = len(fields) == 8 and os.fsdecode(fields[7]) == self.path
                if is_here and int(fields[3], 16) & ACCEPTS:
                    found.add(fields[6].decode())
        return found

    @property
    def is_running(self) -> bool:
        """Tell whether the program is there."""
        return self._channel is not None

    @property
    def pid(self) -> int:
        """The process id of the program; 0 before there is one."""
        return self._process.pid if self._process is not None else 0

    def close(self) -> None:
        """Let the program end: nothing is to go through any more."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self._not_before = float("inf")
        if self._private:
            shutil.rmtree(self._private, ignore_errors=True)

    def _start(self) -> None:
        if time.monotonic() < self._not_before:
            return
        self._starts += 1
        self._not_before = time.monotonic() + next_pause(self._starts)
        ours, theirs = socket.socketpair()
        program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tunnel.py")
        with contextlib.closing(theirs):
            self._process = subprocess.Popen(  # noqa: S603 - delivered with this file
                [sys.executable, "-I", program], stdin=theirs.fileno(), env={"PATH": os.defpath}
            )
        ours.sendall(json.dumps(self._order).encode("ascii") + b"\n")
        ours.setblocking(False)
        self._channel, self._held = ours, b""

    def _read(self) -> None:
        """Take what the program said; its silence for ever is its end."""
        while self._channel is not None:
            try:
                part = self._channel.recv(STATE_LIMIT)
            except BlockingIOError:
                break
            except OSError:
                part = b""
            if not part:
                self._channel.close()
                self._channel = None
                if self._state["state"] == "up":
                    self._note({"state": "away", "words": "its program ended"})
            self._held += part
        *lines, self._held = self._held.split(b"\n")
        for line in lines:
            self._note(json.loads(line.decode("utf-8")))

    def _note(self, state: "dict[str, Any]") -> None:
        if state != self._state:
            say("tunnel: {} {}".format(state["state"], state.get("words", "")).rstrip())
        self._state = state
        if state["state"] == "refused":
            self._not_before = float("inf")
