"""
Run one launch on this machine: start its server once, watch it, write down how it ended.

A program, not a module of the hub: delivered as one file (`agent/__init__.py`), standard library
only, Python 3.6 or later, run as ``python3 -I -S supervisor.py DIRECTORY``. It outlives the hub
that called it. What the files in DIRECTORY mean is told in docs/design/spawners.md; in short:

- ``lock`` is held by this process (POSIX record lock) as long as anything of the launch lives;
- ``started`` is written before the first process is started, and never removed: a launch starts
  at most once, whoever calls this program again;
- ``end.json`` is written when nothing of the launch lives any more, before the lock is released.
"""
# pathlib would add much to what this small program needs to start:
# ruff: noqa: PTH100, PTH104, PTH108, PTH109, PTH119, PTH120, PTH123, PTH208

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import random
import resource
import select
import signal
import socket
import sys
import time
import traceback

from perijove.agent.kernels import keeper_in, offer_environments
from perijove.agent.memory import memory_of

TYPE_CHECKING = False  # As in `typing`, whose import would cost more than all the rest.
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))  # Before anybody changes the directory.
HOST = "127.0.0.1"
ATTEMPTS = 4  # The first, and three more for a port that somebody else took meanwhile.
LOST_PORT_SECONDS = 60  # A server that ran longer than this had its port.
LINGER_SECONDS = 2  # What the server left behind has this long to follow it.
KILL_PERIOD = 0.05
IDLE_PERIOD = 30
CHUNK = 65536
DRAIN_CHUNKS = 32  # More than a pipe can hold.
COMMAND_NOT_RUN = 127
MARKS = ("started", "cancelled", "end.json")

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def main(directory: str) -> None:
    """Leave the caller behind and run the launch in `directory`; quietly nothing if it is not."""
    try:
        os.chdir(directory)
    except FileNotFoundError:
        return
    if os.fork():
        return  # The caller waits for this process only; the child belongs to nobody.
    os.setsid()
    os.umask(0o077)
    redirect()
    try:
        supervise()
    except BaseException:
        traceback.print_exc()
        raise


def redirect() -> None:
    """Hold on to nothing of the caller: no terminal, no pipe, no file."""
    null = os.open(os.devnull, os.O_RDWR)
    own_log = os.open("supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(null, 0)
    os.dup2(own_log, 1)
    os.dup2(own_log, 2)
    os.closerange(3, 1024)


def supervise() -> None:
    """Run the launch unless it was started, cancelled or ended before, or is being run now."""
    signals = Signals()
    # Locks of this kind are lost when *any* descriptor of the file is closed by the process that
    # holds them: the file is opened here once and never again. A child of fork has no part in it.
    lock = os.open("lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return
    if any(os.path.lexists(mark) for mark in MARKS):
        return
    try:
        spec = read("spec.json")
    except FileNotFoundError:
        return
    write("started", {"at": time.time()}, durable=True)
    os.unlink("spec.json")  # It holds the server's token.
    write("end.json", Launch(spec, signals).run(), durable=True)


def read(name: str) -> "dict[str, Any]":
    """Return the JSON object in the file `name`."""
    with open(name, encoding="utf-8") as file:
        found: dict[str, Any] = json.load(file)
    return found


def write(name: str, value: object, *, durable: bool = False) -> None:
    """Replace the file `name` by `value` as JSON, as a whole; on disk at return if `durable`."""
    with open(name + ".new", "w", encoding="utf-8") as file:
        json.dump(value, file)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.rename(name + ".new", name)
    if durable:
        folder = os.open(".", os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


class Signals:
    """Turns signals into something `poll` wakes up for; remembers whether to stop."""

    def __init__(self) -> None:
        self.stop_asked = False
        self._news = False
        self.wake, wake_end = os.pipe()
        for end in (self.wake, wake_end):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake_end)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def _on_stop(self, *_: object) -> None:
        self.stop_asked = self._news = True

    def take_stop(self) -> bool:
        """Tell whether to stop was asked since the last call."""
        news, self._news = self._news, False
        return news

    def clear(self) -> None:
        """Forget what woke us."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.wake, CHUNK)

    @staticmethod
    def restore() -> None:
        """Give a child the signals of a fresh process."""
        signal.set_wakeup_fd(-1)
        for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGCHLD", "SIGPIPE", "SIGXFSZ"):
            signal.signal(getattr(signal, name), signal.SIG_DFL)


class Log:
    """
    A file of limited size that keeps the beginning and the end of what is written.

    Half of the limit is for the beginning (``log``); the end is in two files (``log.tail.1``,
    ``log.tail``) of which the older is dropped when the newer is full.
    """

    def __init__(self, limit: int) -> None:
        self._name = "log"
        self._room = limit // 2
        self._tail_size = max(limit // 4, 1)
        self._file = self._open()

    def _open(self) -> int:
        return os.open(self._name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)

    def write(self, output: bytes) -> None:
        """Write, or lose it when the disk is full: the server must not notice."""
        while output:
            part, output = output[: self._room], output[self._room :]
            with contextlib.suppress(OSError):
                os.write(self._file, part)
            self._room -= len(part)
            if not self._room:
                self._turn()

    def _turn(self) -> None:
        os.close(self._file)
        if self._name != "log":
            os.rename("log.tail", "log.tail.1")
        self._name, self._room = "log.tail", self._tail_size
        self._file = self._open()


class Family:
    """
    One program and all that it starts, from its first process to its last.

    A subclass says what the program is (`become`) and how long it has when it is asked to end
    (`grace`); it may do more when it has begun (`begun`) and while it runs (`look_around`).
    """

    def __init__(self, signals: Signals, keep: "Callable[[bytes], None]") -> None:
        self.signals = signals
        self._keep = keep  # takes what the program writes
        # Whoever loses its parent becomes our child: nothing of the launch can get away from us,
        # and when we have no child left there is nothing left.
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        self.pid = 0
        self.status: int | None = None
        self.out_of_memory = OutOfMemory()
        self._kill_at: float | None = None
        self._is_over = False

    def become(self) -> None:
        """Turn a new child of ours into the program; an error it raises is written to the log."""
        raise NotImplementedError

    def grace(self) -> float:
        """Return how many seconds the program has from being asked to end to being killed."""
        raise NotImplementedError

    def begun(self) -> None:
        """Note that the program's process is there."""

    def look_around(self) -> float:
        """Do what is to be done beside waiting; return after how many seconds to do so again."""
        return IDLE_PERIOD

    def follow(self) -> None:
        """Start the program, and return when it and all that it started are gone."""
        self.status = self._kill_at = None
        self._is_over = False
        output, output_end = os.pipe()
        os.set_blocking(output, False)
        self.pid = self._start(output_end)
        os.close(output_end)
        self.begun()
        self._watch(output)
        with contextlib.suppress(BlockingIOError):
            for _ in range(DRAIN_CHUNKS):
                self._copy(output)
        os.close(output)

    def outcome(self, started_at: float, failure: str = "") -> "dict[str, Any]":
        """Return how it ended, as ``end.json`` says it."""
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        exited = killed = None
        if self.status is not None and not failure:
            if os.WIFSIGNALED(self.status):
                killed = os.WTERMSIG(self.status)
            else:
                exited = os.WEXITSTATUS(self.status)
        return {
            "exit": exited,
            "signal": killed,
            "failure": failure,
            "stop_asked": self.signals.stop_asked,
            "out_of_memory": killed == signal.SIGKILL and self.out_of_memory.happened(),
            "started_at": started_at,
            "ended_at": time.time(),
            "cpu_seconds": used.ru_utime + used.ru_stime,
            "memory_peak_bytes": used.ru_maxrss * 1024,
        }

    def stop(self) -> None:
        """Ask the program to end, and kill what is left when its grace is over."""
        self._kill_within(self.grace())
        if self.status is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGTERM)

    def _start(self, output: int) -> int:
        parent = os.getpid()
        pid = os.fork()
        if pid:
            return pid
        try:
            os.setsid()
            # If this process is killed, nobody watches: the program must not run on unseen.
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == parent:
                Signals.restore()
                os.dup2(output, 1)
                os.dup2(output, 2)
                self.become()
        except (OSError, ValueError) as error:
            os.write(2, f"{error}\n".encode("utf-8", "replace"))
        finally:
            os._exit(COMMAND_NOT_RUN)

    def _watch(self, output: int) -> None:
        poll = select.poll()
        poll.register(self.signals.wake, select.POLLIN)
        poll.register(output, select.POLLIN)
        while self._reap():
            if self.signals.take_stop():
                self.stop()
            if self.status is not None and not self._is_over:
                self._end_leftovers()
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                kill_all(signal.SIGKILL)
            pause = min(self.look_around(), self._until_kill())
            for ready, _ in poll.poll(pause * 1000):
                if ready == self.signals.wake:
                    self.signals.clear()
                elif not self._copy(output):
                    poll.unregister(output)
            self.out_of_memory.look()

    def _reap(self) -> bool:
        """Take note of who ended; False when no child is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.pid:
                self.status = status

    def _end_leftovers(self) -> None:
        """Ask whatever outlived the program to follow it."""
        self._is_over = True
        self._kill_within(LINGER_SECONDS)
        kill_all(signal.SIGTERM)

    def _kill_within(self, seconds: float) -> None:
        latest = time.monotonic() + seconds
        self._kill_at = latest if self._kill_at is None else min(self._kill_at, latest)

    def _until_kill(self) -> float:
        if self._kill_at is None:
            return IDLE_PERIOD
        return max(self._kill_at - time.monotonic(), KILL_PERIOD)

    def _copy(self, output: int) -> bool:
        """Move some of what the program wrote into the log; False when no more can come."""
        part = os.read(output, CHUNK)
        self._keep(part)
        return bool(part)


class Launch(Family):
    """The one server of a launch on this machine."""

    def __init__(self, spec: "dict[str, Any]", signals: Signals) -> None:
        super().__init__(signals, Log(spec["log_limit"]).write)
        self._spec = spec
        self._port = 0
        self._attempt = 0
        self._memory = memory_of(os.path.basename(os.getcwd()))

    def run(self) -> "dict[str, Any]":
        """Run the server to its end, again on another port if it lost its own; say how it ended."""
        started_at = time.time()
        for self._attempt in range(1, ATTEMPTS + 1):
            if self.signals.stop_asked:
                return self.outcome(started_at, failure="cancelled")
            port = free_port(self._spec.get("port_range"))
            if port is None:
                break
            self._port = port
            began = time.monotonic()
            self.follow()
            if time.monotonic() - began > LOST_PORT_SECONDS or not self._lost():
                return self.outcome(started_at)
        return self.outcome(started_at, failure="port-taken")

    def become(self) -> None:
        """Turn the child into the server."""
        environment = dict(self._spec["environment"])
        environment["JUPYTERHUB_SERVICE_URL"] = f"http://{HOST}:{self._port}{self._spec['prefix']}"
        os.umask(self._spec.get("umask", 0o022))
        os.chdir(self._spec["home"])
        command = self._spec["command"]
        offer_environments(environment, keeper_in(HERE))
        os.execve(command[0], command, environment)  # noqa: S606 - no shell is wanted

    def begun(self) -> None:
        """Say where the server was told to listen."""
        address = {"host": HOST, "port": self._port, "pid": self.pid, "attempt": self._attempt}
        write("address.json", address)

    def grace(self) -> float:
        """Return the time that the mark of who wants it stopped gives it."""
        try:
            return float(read("cancelled")["grace"])
        except (OSError, ValueError, KeyError, TypeError):
            return float(self._spec["grace"])

    def outcome(self, started_at: float, failure: str = "") -> "dict[str, Any]":
        """Return how it ended, and whether that was by the limit of the launch's own memory."""
        end = super().outcome(started_at, failure)
        is_killed = end["signal"] == signal.SIGKILL or end["exit"] == 128 + signal.SIGKILL
        is_full = self._memory is not None and self._memory.killed() > 0
        return dict(end, over_limit=is_killed and is_full and not self.signals.stop_asked)

    def _lost(self) -> bool:
        """Tell whether the server failed because somebody else has the port."""
        failed = self.status is not None and self.status != 0
        return failed and not self.signals.stop_asked and not is_free(self._port)


class OutOfMemory:
    """Guesses whether a kill came from the kernel: it counts those, on the whole machine."""

    def __init__(self) -> None:
        self._seen = [self._count()]
        self._looked_at = time.monotonic()

    @staticmethod
    def _count() -> int:
        try:
            with open("/proc/vmstat", encoding="ascii") as file:
                for line in file:
                    if line.startswith("oom_kill "):
                        return int(line.split()[1])
        except OSError:
            pass  # A machine that hides it gives no hint.
        return 0

    def look(self) -> None:
        """Remember the present count and the one of at least half a period ago."""
        now = time.monotonic()
        if now - self._looked_at >= IDLE_PERIOD / 2:
            self._looked_at = now
            self._seen = [self._seen[-1], self._count()]

    def happened(self) -> bool:
        """Tell whether the kernel killed somebody within the last period or two."""
        return self._count() > self._seen[0]


def prctl(option: int, value: int) -> None:
    """Set a trait of this process, see prctl(2)."""
    zero = ctypes.c_ulong(0)
    ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), zero, zero, zero)


def descendants() -> "list[int]":
    """Return the ids of all processes below this one."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                with open(f"/proc/{name}/stat", "rb") as file:
                    # The second field is the program's name, in brackets, and may hold any byte.
                    parent = int(file.read().rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(name))
    found: list[int] = []
    line = [os.getpid()]
    while line:
        below = children.get(line.pop(), ())
        found.extend(below)
        line.extend(below)
    return found


def kill_all(number: int) -> None:
    """Send a signal to every process below this one."""
    for pid in descendants():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def is_free(port: int) -> bool:
    """Tell whether a server could listen at `port`; reads as free what merely lingers there."""
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def free_port(port_range: "list[int] | None") -> "int | None":
    """Return a port that nobody has at this moment, from the range if there is one."""
    if port_range is None:
        with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
            probe.bind((HOST, 0))
            return int(probe.getsockname()[1])
    ports = list(range(port_range[0], port_range[1] + 1))
    random.shuffle(ports)
    for port in ports:
        if is_free(port):
            return port
    return None


if __name__ == "__main__":
    main(sys.argv[1])
