"""The live view, in a real terminal: what it shows, and what Ctrl-C does."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import Connection, update

from perijove.db.tables import launches
from perijove.domain.errors import SpawnerRejected
from perijove.domain.launch import Wanted
from perijove.kit.loops import until
from tests.apis import ANN
from tests.fakes.spawners import Held
from tests.integration.client.serving import PATIENCE, LoginNode, Queue, login_node

pytestmark = pytest.mark.anyio

_COMMANDS = re.compile(rb"\x1b\[[0-9;?]*[ -/]*[@-~]")


@dataclass(slots=True)
class Terminal:
    """A terminal with a program in it."""

    descriptor: int
    process: subprocess.Popen[bytes]
    raw: bytes = b""
    seen: str = field(default="")

    async def shows(self, *words: str) -> None:
        """Wait until all of some words have been shown since the last time."""

        async def check() -> bool:
            await anyio.to_thread.run_sync(self._read)
            flat = " ".join(_COMMANDS.sub(b"", self.raw).decode(errors="replace").split())
            self.seen = flat
            return all(word in flat for word in words)

        assert await until(check, seconds=PATIENCE), (words, self.seen[-2000:])
        self.raw = b""

    def _read(self) -> None:
        try:
            while chunk := os.read(self.descriptor, 65536):
                self.raw += chunk
        except (BlockingIOError, OSError):
            return

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.descriptor, text.encode())

    async def ends(self) -> int:
        """Wait for the program's end; returns its code."""
        return await anyio.to_thread.run_sync(lambda: self.process.wait(PATIENCE))


@contextmanager
def terminal(node: LoginNode, *arguments: str) -> Iterator[Terminal]:
    """Open a terminal of 100 columns, and run a command in it."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    os.set_blocking(ours, False)
    environ = node.environment(TERM="xterm-256color")
    for name in ("NO_COLOR", "COLUMNS"):
        environ.pop(name)
    # A session of its own whose terminal this is, so that Ctrl-C reaches it and nobody else.
    program = (
        "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
        " os.execv(sys.executable, [sys.executable, '-m', 'perijove', *sys.argv[1:]])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environ,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield Terminal(ours, process)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def with_queue(**given: Any) -> tuple[list[Queue], dict[str, Any]]:
    """Return a place for the queue, and what makes a hub have one."""
    made: list[Queue] = []

    def wrap(inner: Any) -> Queue:
        made.append(Queue(inner, **given))
        return made[-1]

    return made, {"wrap": wrap}


async def test_the_view_says_why_since_when_and_until_when(tmp_path: Path) -> None:
    """And ends with the address, once it is ready."""
    made, given = with_queue(words="(Resources) \x1b]0;not a command\x07")
    async with login_node(tmp_path, **given) as node:
        await node.sign_in()
        with terminal(node, "start", "--cpu", "2", "--memory", "4 GiB") as screen:
            await screen.shows(
                "In the queue interactive for",
                "Why You are next, but nothing large enough is free yet.",
                "Its words (Resources) \ufffd]0;not a command\ufffd",
                "Expected start",
                "(in 22 min",
                "Asked for 2 cores · 4 GiB · 1 h",
                "Handed to the computing system",
                "Ctrl-C: leave it waiting, or cancel it",
            )
            made[0].active = False
            await screen.shows("Ready", f"{node.url}user/ann/")
            assert await screen.ends() == 0


async def test_ctrl_c_asks_and_cancels_nothing_by_itself(tmp_path: Path) -> None:
    """Enter, and a second Ctrl-C, leave it waiting; `w` watches on; only `c` cancels."""
    _, given = with_queue()
    async with login_node(tmp_path, **given) as node:
        await node.sign_in()
        with terminal(node, "start") as screen:
            await screen.shows("Expected start")
            screen.type("\x03")
            await screen.shows("Leave it waiting, watch on, or cancel it?")
            screen.type("w\n")
            await screen.shows("Expected start")
            screen.type("\x03")
            await screen.shows("or cancel it?")
            screen.type("\n")
            await screen.shows("It goes on without this terminal.", "perijove stop.")
            assert await screen.ends() == 5
        with terminal(node, "start") as screen:
            await screen.shows("Expected start")
            screen.type("\x03")
            await screen.shows("or cancel it?")
            screen.type("\x03")
            assert await screen.ends() == 5
        (launch,) = await node.api.hub.live()
        assert launch.wanted is Wanted.RUN
        with terminal(node, "start") as screen:
            await screen.shows("Expected start")
            screen.type("\x03")
            await screen.shows("or cancel it?")
            screen.type("c\n")
            assert await screen.ends() == 1
        assert all(each.wanted is Wanted.END for each in await node.api.hub.live())


async def test_the_sites_question_is_answered_here(tmp_path: Path) -> None:
    """When the queue's limit is reached the view says so, and `k` says yes."""
    _, given = with_queue()
    async with login_node(tmp_path, **given) as node:
        await node.sign_in()
        with terminal(node, "start") as screen:
            await screen.shows("Expected start")
            (launch,) = await node.api.hub.live()
            asked_at = node.api.hub.hub.clock.now()

            def ask(connection: Connection) -> None:
                values = {"queue_asked_at": asked_at, "queued_at": asked_at - timedelta(hours=1)}
                connection.execute(
                    update(launches).where(launches.c.id == launch.id).values(**values)
                )

            await node.api.hub.hub.database.write(ask)
            await screen.shows("A question It has waited as long as your site allows")
            screen.type("\x03")
            await screen.shows("Leave it waiting, keep it waiting longer, watch on")
            screen.type("k\n")
            await screen.shows("Expected start")
            events = await node.api.hub.events(launch.id)
            assert ("kept-waiting", "ann") in [(event.code, event.actor) for event in events]


async def test_what_one_holds_is_released_here(tmp_path: Path) -> None:
    """The view says who holds it, `r` releases it; a refusal is told, and it waits on."""
    async with login_node(tmp_path, wrap=Held) as node:
        await node.sign_in()
        refusal = SpawnerRejected("Access \x1b[5m denied", code="not-released")
        node.api.hub.spawner.error = refusal
        with terminal(node, "start") as screen:
            await screen.shows("You hold it Ctrl-C, then r, to release it")
            screen.type("\x03")
            await screen.shows("Leave it waiting, release it, watch on, or cancel it? [L/r/w/c]")
            screen.type("r\n")
            await screen.shows("It was not released: Access", "denied", "You hold it")
            node.api.hub.spawner.error = None
            screen.type("\x03")
            await screen.shows("or cancel it?")
            screen.type("r\n")
            assert await screen.ends() == 0


async def test_a_token_is_not_shown_while_it_is_typed(tmp_path: Path) -> None:
    """And the page where one is made is named, for a browser anywhere."""
    async with login_node(tmp_path) as node:
        with terminal(node, "login", node.url) as screen:
            await screen.shows(f"{node.url}hub/token", "Token (it is not shown):")
            screen.type(f"{ANN}\n")
            await screen.shows("You are ann at")
            assert await screen.ends() == 0
            assert ANN not in screen.seen
