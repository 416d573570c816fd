"""
The program of a batch job: brings one person's server up on the node, and says how it went.

It runs in the job's directory, where `spec.json` says what is wanted. In this order it looks at
the home, picks the software, binds a port, registers that at the hub (which connects back and
asks for a proof) and gets the server's token; then it gives the port to the server, makes sure
that it is its own server that listens there, and says so. The hub may be away for as long as it
likes after that; before, the job ends with the reason in its log when the hub's own limit for a
start is near. At the end it writes `end.json` and tells the hub.

A port that somebody else took in the moment between is changed for another one, registered
under the same nonce: that is the same run of the same job, so its token stays. A job that the
scheduler has started again is a new run; it comes with a new nonce and gets a new token.
"""
# pathlib would add much to what a small program needs to start, and did less in Python 3.6:
# ruff: noqa: PTH100, PTH103, PTH118, PTH120, PTH123

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import time
import traceback

from perijove.agent.board import Board
from perijove.agent.cannot import EXITS, Cannot
from perijove.agent.doctor import examine
from perijove.agent.hub import HUB_PATIENCE, Line, register, start_deadline
from perijove.agent.kernels import keeper_in, show_environments, start_keeper
from perijove.agent.memory import GroupMemory, memory_folder
from perijove.agent.node import (
    Output,
    account,
    choose_host,
    granted_cpus,
    home_trouble,
    is_ours,
    job_id,
    listeners,
    make_temporary,
    node_name,
    open_port,
    prefer_to_kill,
    say,
)
from perijove.agent.outlet import Outlet
from perijove.agent.post import Answer
from perijove.agent.rescue import RESCUE_TEXT
from perijove.agent.software import (
    USUAL_UMASK,
    as_shell,
    base_environment,
    find_command,
    is_of_scheduler,
    load_software,
    own_variables,
    own_world,
    pip_places,
    set_threads,
    with_login,
    write_submitters,
)
from perijove.spawners.local.supervisor import (
    ATTEMPTS,
    HERE,
    Family,
    Signals,
    descendants,
    read,
    write,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSION = "1"
WAKE_SECONDS = 0.2  # Between two looks at a server that does not listen yet.
CALM_SECONDS = 15
FAREWELL_SECONDS = 10
DEFAULT_GRACE = 30
NO_PORT = "127.0.0.1:8888"  # Jupyter's default: with any other it refuses a unix socket.
DEFAULT_LOG_LIMIT = 4 << 20
NOTICES = ("SIGUSR1", "SIGUSR2", "SIGXCPU")
DELIVERED = {
    "jupyter_server_config.py": "config",
    "perijove_session.json": "config/jupyter_server_config.d",
    "perijove_session.py": "server",
    "package.json": "labextensions/@perijove/session",
    "session.js": "labextensions/@perijove/session/static",
    "texts.json": "labextensions/@perijove/session/static",
}
"""Where in the session's directory the files are used that came with the job."""

DELETED = 128 + signal.SIGUSR2
"""
The exit status of a job that Grid Engine said it would delete, whatever its server's was.

It is also that of a job which dies of the notice. Accounting tells nothing else of a deletion.
"""
RESCUE_FILE = "READ-ME-FIRST.txt"


class JobSignals(Signals):
    """Signals of a job: schedulers send some as a notice before they end it."""

    def __init__(self, outer: "dict[str, str]") -> None:
        self._notices: list[str] = []
        self.is_deleted = False
        super().__init__()
        for name in NOTICES:
            signal.signal(getattr(signal, name), self._on_notice)
        if outer.get("SGE_ROOT"):
            # With ``-notify`` it says so that it will kill the job soon.
            signal.signal(signal.SIGUSR2, self._on_deletion)

    def _on_deletion(self, *_: object) -> None:
        self.is_deleted = True
        self._on_stop()

    def _on_notice(self, number: int, *_: object) -> None:
        self._notices.append(signal.Signals(number).name)

    def take_notices(self) -> "list[str]":
        """Return the names of the notices since the last call."""
        taken, self._notices = self._notices, []
        return taken


class Session(Family):
    """The server of a job."""

    def __init__(
        self, spec: "dict[str, Any]", outer: "dict[str, str]", signals: JobSignals
    ) -> None:
        limit = spec.get("log_limit") or DEFAULT_LOG_LIMIT
        super().__init__(signals, Output(limit).write)
        self._spec = spec
        self._outer = outer
        self._notices = signals.take_notices
        self._job_id = job_id(outer)
        self._identity = {
            "launch_id": spec["launch_id"],
            "code": spec["code"],
            "nonce": os.urandom(16).hex(),
            "job_id": self._job_id,
        }
        self._line = Line(spec["register_url"], self._identity)
        self._memory = GroupMemory(memory_folder())
        self._temporary = ""
        self._home = ""
        self._umask = USUAL_UMASK
        self._environment: dict[str, str] = {}
        self._keeps_environments = False
        self._command: list[str] = []
        self._port = 0
        self._outlet: Outlet | None = None
        self._board = Board(
            (spec["register_url"] + "/outlook", self._identity),
            spec.get("resources") or {},
            job_id=self._job_id,
            node=node_name(outer),
        )
        self._began = time.monotonic()
        self._is_registered = False
        self._is_told = False
        self._next_look_at = 0.0

    # --- the run ------------------------------------------------------------------------------

    def run(self) -> int:
        """Bring the server up and stay with it; return the job's exit status."""
        started_at = time.time()
        try:
            self._prepare()
            failure = self._serve()
        except Cannot as error:
            failure = self._give_up(error)
        finally:
            if self._outlet is not None:
                self._outlet.close()
            if self._temporary:
                shutil.rmtree(self._temporary, ignore_errors=True)
        end = self.outcome(started_at, failure)
        end["memory_peak_bytes"] = self._memory.peak() or end["memory_peak_bytes"]
        end["out_of_memory"] = end["signal"] == signal.SIGKILL and self._memory.killed() > 0
        end["job_id"] = self._job_id
        with contextlib.suppress(OSError):  # A full home must not change how the job ended.
            write("end.json", end, durable=True)
        if not failure:
            self._line.add("/report", kind="end", usage=end)
        self._line.flush(FAREWELL_SECONDS)
        if failure:
            return EXITS.get(failure, EXITS["wrapper-failed"])
        if end["signal"] is not None:
            return 128 + int(end["signal"])
        # A server that ran must not pass for one that could not start, whatever its own status.
        return 1 if end["exit"] in EXITS.values() else int(end["exit"] or 0)

    def _give_up(self, error: Cannot) -> str:
        """Say why no server comes, here and at the hub."""
        say(f"cannot start the server: {error}")
        if error.code not in ("cancelled", "second-job"):
            self._line.add(
                "/report",
                kind="cannot",
                reason=error.code,
                words=error.words,
                params=error.params,
            )
        return error.code

    def _serve(self) -> str:
        """Run the server to its end; return a code if it never had a port of its own."""
        for _ in range(ATTEMPTS):
            self._register()
            self._is_told = False
            self.follow()
            if not self._lost_port():
                return ""
            say(f"another program took port {self._port}; trying another one")
            self._line.settle()
        raise Cannot("port-taken", f"port {self._port} and {ATTEMPTS - 1} others were taken")

    def _register(self) -> None:
        spec, name = self._spec, node_name(self._outer)
        host, authority, listener = self._open()
        with contextlib.closing(listener):
            body = dict(
                self._identity,
                host=host,
                port=self._port,
                wrapper=VERSION,
                versions={"python": "{}.{}.{}".format(*sys.version_info)},
            )
            place = f"{host}:{self._port}" if self._port else "its tunnel"
            say(f"job {self._job_id or '-'} on {name}: registering {place}")
            latest = self._register_until()
            given = register(spec["register_url"], body, listener, self.signals, latest)
        self._is_registered = True
        if self._outlet is not None:
            self._outlet.make_room()
        self._environment.update(given)
        self._environment["JUPYTERHUB_SERVICE_URL"] = f"http://{authority}{spec['prefix']}"

    def _register_until(self) -> float:
        """Return until when to try: a hub that has been there once is away, and comes back."""
        limit = self._spec.get("start_limit")
        if self._is_registered or not limit:
            return time.monotonic() + HUB_PATIENCE
        return start_deadline(self._began, limit)

    def _open(self) -> "tuple[str, str, socket.socket]":
        """
        Listen where the server will; return the host to register, the server's own address for
        it, and the socket.
        """
        if self._outlet is not None:
            self._outlet.wait_until_up(self.signals, self._register_until())
            self._environment["PERIJOVE_SOCKET"] = self._outlet.path
            return "", NO_PORT, self._outlet.open()
        host, address = choose_host(self._spec.get("networks") or [], node_name(self._outer))
        listener = open_port(address, self._spec.get("ports"))
        self._port = listener.getsockname()[1]
        shown = f"[{address}]" if ":" in address else address
        return host, f"{shown}:{self._port}", listener

    def _listeners(self) -> "set[str]":
        """Return the sockets that take what is meant for the server."""
        return listeners(self._port) if self._outlet is None else self._outlet.listeners()

    def _lost_port(self) -> bool:
        """Tell whether the server failed because somebody else has its port."""
        if self._is_told or self.signals.stop_asked or not self.status or not self._port:
            return False
        return bool(listeners(self._port))

    # --- what the server gets -----------------------------------------------------------------

    def _prepare(self) -> None:
        """Find home, software and command, and build both environments."""
        spec, outer = self._spec, self._outer
        person = account()
        self._temporary = make_temporary(outer, spec["name"])
        if spec.get("tunnel"):
            self._outlet = Outlet(dict(self._identity, **spec["tunnel"]), self._temporary)
            self._outlet.look()  # It dials while the software is prepared.
        self._home = spec.get("home") or person.pw_dir
        code, words = home_trouble(self._home)
        software = spec.get("software") or {}
        if software.get("modules") or software.get("setup"):
            self._line.add("/report", kind="stage", reason="software", params=software)
            self._line.turn()
        own = own_variables(person, self._home)
        if not code and not spec.get("safe_mode"):
            outer, self._umask = with_login(outer, own, self.signals)
            self._outer = outer
        environment = base_environment(outer, self._home)
        environment.update(own, TMPDIR=self._folder("tmp"))
        self._environment = load_software(software, environment, self.signals)
        self._set_places(spec.get("environment") or {})
        if code:
            self._rescue(code, words)
        self._command = find_command(
            spec["command"],
            software,
            self._environment,
            own_path=outer.get("PATH", ""),
            temporary=self._temporary,
        )
        # A container may have another Python than the node, where the keeper would build.
        contained = bool(software.get("container"))
        self._keeps_environments = not (code or spec.get("safe_mode") or contained)
        if self._keeps_environments:
            show_environments(self._environment)
        self._write_world(bool(code), contained=contained)
        self._board.put_up(self._temporary)
        self._line.settle()

    def _set_places(self, given: "dict[str, str]") -> None:
        """Set what the site and the launch say, and the places on the node's own disk."""
        environment, resources = self._environment, self._spec.get("resources") or {}
        environment.update(given)
        environment["PERIJOVE_LAUNCH"] = self._spec["name"]
        environment["PERIJOVE_SESSION"] = self._temporary
        environment["PERIJOVE_JOB_ID"] = self._job_id
        environment["JUPYTER_RUNTIME_DIR"] = self._folder("runtime")
        config = self._folder("config")
        paths = [config, environment.get("JUPYTER_CONFIG_PATH", "")]
        environment["JUPYTER_CONFIG_PATH"] = ":".join(filter(None, paths))
        for name, folder in DELIVERED.items():
            deliver(name, self._folder(folder))
        set_threads(environment, int(resources.get("cpu") or granted_cpus(self._outer)))
        if self._spec.get("safe_mode"):
            self._board.set_mode("safe")
            environment["JUPYTERHUB_DISABLE_USER_CONFIG"] = "1"
            environment["JUPYTER_CONFIG_DIR"] = self._folder("safe-config")
            environment["IPYTHONDIR"] = self._folder("ipython")

    def _rescue(self, code: str, words: str) -> None:
        """Let the server live in the temporary directory, and say so."""
        say(f"rescue mode: {code}: {words}")
        self._board.set_mode(code, words)
        home = self._folder("home")
        with open(os.path.join(home, RESCUE_FILE), "w", encoding="utf-8") as file:
            file.write(RESCUE_TEXT.format(words=words))
        for name in ("JUPYTERHUB_ROOT_DIR", "JUPYTERHUB_NOTEBOOK_DIR"):
            self._environment.pop(name, None)
        self._environment.update(
            HOME=home, PERIJOVE_RESCUE=code, JUPYTERHUB_DEFAULT_URL=f"/lab/tree/{RESCUE_FILE}"
        )
        self._home = home
        self._line.add("/report", kind="warning", reason=code, words=words)

    def _write_world(self, rescue: bool, *, contained: bool) -> None:
        """Write down what kernels and terminals have other than the server."""
        if self._spec.get("safe_mode") or rescue:
            return  # They are kept away from the home as the server is.
        extra = {} if contained else pip_places(self._environment, self._folder("pip"))
        world = own_world(self._environment, self._outer, self._home, extra)
        inside = {name: value for name, value in self._outer.items() if is_of_scheduler(name)}
        allocation = os.path.join(self._temporary, "inside-the-job.sh")
        with open(allocation, "w", encoding="utf-8") as file:
            file.write("# What a shell reads to work inside the allocation of this session.\n")
            file.write(as_shell(inside))
        world["PERIJOVE_JOB_ENVIRONMENT"] = allocation
        self._write_submitters(world)
        with open(os.path.join(self._temporary, "world.json"), "w", encoding="utf-8") as file:
            json.dump(world, file)

    def _write_submitters(self, world: "dict[str, str | None]") -> None:
        """Have jobs that are submitted from here begin without what is this session's."""
        bin_folder = self._folder("bin")
        environment = dict(self._environment, **world)
        if write_submitters(bin_folder, environment, self._outer.get("PATH", "")):
            for name in ("PATH", "PERIJOVE_PATH"):
                world[name] = f"{bin_folder}:{world[name]}".rstrip(":")

    def _folder(self, name: str) -> str:
        path = os.path.join(self._temporary, name)
        os.makedirs(path, mode=0o700, exist_ok=True)
        return path

    # --- beside the server --------------------------------------------------------------------

    def become(self) -> None:
        """Turn the child into the server."""
        if self._outer.get("SGE_ROOT"):
            # With ``-notify`` it tells all processes of a job that it will suspend or end it. It
            # is for us to act on that: servers, kernels and shells would die of the words.
            for number in (signal.SIGUSR1, signal.SIGUSR2):
                signal.signal(number, signal.SIG_IGN)
        os.umask(self._umask)
        os.chdir(self._home)
        if self._keeps_environments:
            start_keeper(self._environment, keeper_in(HERE))
        os.execve(self._command[0], self._command, self._environment)  # noqa: S606 - no shell

    def grace(self) -> float:
        """Return the time that the site gives a server to end."""
        return float(self._spec.get("grace") or DEFAULT_GRACE)

    def _end_leftovers(self) -> None:
        """End the way out as well: it would not end by itself."""
        super()._end_leftovers()
        if self._outlet is not None:
            self._outlet.close()

    def look_around(self) -> float:
        """Tell the hub what is new: that the server listens, notices, kills for memory."""
        for name in self._notices():
            say(f"notice of the scheduler: {name}")
            self._board.hear("ending-soon")
            self._line.add("/report", kind="warning", reason="notice", params={"signal": name})
        if self._outlet is not None:
            self._outlet.look()
        answer = self._line.turn()
        if answer is not None:
            self._heed(answer)
        if not self._is_told and self.status is None:
            sockets = self._listeners()
            if sockets and is_ours(sockets):
                self._is_told = True
                self._line.add("/listening")
                self._line.turn()
                say("the server listens")
        elif self._is_told:
            answer = self._board.turn()
            if answer is not None:
                self._heed(answer)
        now = time.monotonic()
        if now >= self._next_look_at:
            self._next_look_at = now + CALM_SECONDS
            self._look_at_memory()
            self._board.write()
        is_out = self._outlet is None or self._outlet.is_running
        return CALM_SECONDS if self._is_told and self._line.is_empty and is_out else WAKE_SECONDS

    def _heed(self, answer: Answer) -> None:
        """End when the hub says that nobody wants this server any more."""
        if answer.status in (409, 410) and not self.signals.stop_asked:
            say(f"the hub does not want this job's server any more: {answer.detail}")
            self.signals.stop_asked = True
            self.stop()

    def _look_at_memory(self) -> None:
        spared = (self.pid, self._outlet.pid if self._outlet is not None else 0)
        prefer_to_kill([pid for pid in descendants() if pid not in spared], self.pid)
        killed = self._memory.news()
        if killed:
            say(f"the kernel killed {killed} process(es): the job's memory was used up")
            self._board.note_kill()
            params = {"killed": killed}
            self._line.add("/report", kind="warning", reason="out-of-memory", params=params)


def deliver(name: str, folder: str) -> None:
    """Copy a file that came with the job to where it is used."""
    with contextlib.suppress(FileNotFoundError):
        shutil.copy(os.path.join(os.path.dirname(os.path.abspath(__file__)), name), folder)


def run_job() -> int:
    """Run the job whose directory this is; return its exit status."""
    os.umask(0o077)
    outer = dict(os.environ)
    signals = JobSignals(outer)
    try:
        spec = read("spec.json")
        if spec.get("examine"):
            return examine(spec, outer, signals)
        session = Session(spec, outer, signals)
    except (OSError, ValueError, KeyError) as error:
        say(f"cannot read spec.json on {socket.gethostname()}: {error!r}")
        return EXITS["spec-unreadable"]
    try:
        status = session.run()
    except Exception:  # noqa: BLE001 - the last words of the job are its log
        traceback.print_exc()
        status = EXITS["wrapper-failed"]
    return DELETED if signals.is_deleted else status


if __name__ == "__main__":
    sys.exit(run_job())
