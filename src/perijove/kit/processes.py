"""A program made of several processes: they die with their supervisor, and are started anew."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from perijove.kit.backoff import backoff

_PR_SET_PDEATHSIG = 1
_STEADY = 30.0
"""Seconds after which a process counts as having started well."""


def die_with_parent(parent: int) -> None:
    """Let the kernel end this process when `parent`, the one that started it, ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the kernel was told
        sys.exit(0)


@dataclass(slots=True)
class _Child:
    name: str
    command: Sequence[str]
    process: subprocess.Popen[bytes]
    started_at: float
    failures: int = 0
    due_at: float = field(default=0.0)


class Supervisor:
    """Runs some commands until told to stop; what dies is started again, ever more slowly."""

    def __init__(
        self,
        commands: Mapping[str, Sequence[str]],
        *,
        final: Collection[int],
        report: Callable[[str, int, float], None],
        grace: float = 20.0,
    ) -> None:
        """`final`: exit codes after which trying again is useless: they end the whole program."""
        self._commands = commands
        self._final = final
        self._report = report
        self._grace = grace
        self._stop_by: int | None = None

    def run(self) -> int:
        """Return when stopped by a signal (0) or by a child's final exit code (that code)."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._remember)
        children = [self._start(name, command) for name, command in self._commands.items()]
        try:
            while self._stop_by is None:
                for child in children:
                    ended = self._look_after(child)
                    if ended is not None:
                        return ended
                time.sleep(0.1)
        finally:
            self._end(children)
        return 0

    def _remember(self, number: int, _frame: object) -> None:
        self._stop_by = number

    def _start(self, name: str, command: Sequence[str]) -> _Child:
        return _Child(name, command, _spawn(command), time.monotonic())

    def _look_after(self, child: _Child) -> int | None:
        now = time.monotonic()
        code = child.process.poll()
        if code is None:
            if child.failures and now - child.started_at > _STEADY:
                child.failures = 0
            return None
        if code in self._final:
            return code
        if not child.due_at:
            child.failures += 1
            pause = backoff(child.failures, base=0.2, cap=30).total_seconds()
            child.due_at = now + pause
            self._report(child.name, code, pause)
        elif now >= child.due_at:
            child.process = _spawn(child.command)
            child.started_at, child.due_at = now, 0.0
        return None

    def _end(self, children: Sequence[_Child]) -> None:
        for child in children:
            if child.process.poll() is None:
                child.process.terminate()
        deadline = time.monotonic() + self._grace
        for child in children:
            try:
                child.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()


def _spawn(command: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command)  # noqa: S603 - our own programs, chosen by the caller
