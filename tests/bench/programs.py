"""Programs under measurement: started, watched through /proc, and stopped by their ids."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_TICK = os.sysconf("SC_CLK_TCK")
_PATIENCE = 120.0


class BenchError(Exception):
    """A program did not do what a measurement needs; the message says which and where to look."""


@dataclass(slots=True)
class Program:
    """A server in the foreground of a session of its own, with its output in a file."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(
        cls,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> Self:
        """Start `command`, appending all it writes to `log`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                cwd=directory,
                start_new_session=True,
            )
        return cls(name, process, log)

    def wait_until(self, check: Callable[[], bool], *, pause: float = 0.02) -> None:
        """Ask `check` until it holds; raise `BenchError` when the program ends or time is up."""
        end = time.monotonic() + _PATIENCE
        while not check():
            if self.process.poll() is not None:
                raise BenchError(f"{self.name} ended with {self.process.returncode}: {self.log}")
            if time.monotonic() > end:
                raise BenchError(f"waited {_PATIENCE:g} s for {self.name}: {self.log}")
            time.sleep(pause)

    def stop(self) -> None:
        """End it in order, and after a while by force."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    def pids(self) -> list[int]:
        """Return the ids of the program and of all it has started that live."""
        found = [self.process.pid]
        for pid in found:
            try:
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
            except OSError:
                continue
            found += map(int, children.split())
        return found

    def cpu_seconds(self) -> float:
        """Return the time its processes have spent on a processor, in user and system mode."""
        return sum(map(_cpu_seconds, self.pids()))

    def resident_bytes(self) -> int:
        """Return the resident memory of its processes."""
        return sum(map(_resident_bytes, self.pids()))


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICK


def _resident_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


@contextmanager
def stopping(*programs: Program) -> Iterator[None]:
    """Stop `programs` at the end of the block, whatever happens in it."""
    try:
        yield
    finally:
        for program in programs:
            program.stop()


def find(program: str) -> str | None:
    """Return the path of a program; what only root has on its search path is found as well."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def free_port() -> int:
    """Return a loopback port that nobody uses now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def is_open(port: int) -> bool:
    """Tell whether something accepts connections at a loopback port."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
