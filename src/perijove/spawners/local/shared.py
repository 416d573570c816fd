"""Servers of the hub's own account, each watched by a small supervisor of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Final, ParamSpec, Self, TypeVar
from urllib.parse import urlsplit

import anyio
import structlog

from perijove.agent import local_files
from perijove.domain.errors import ConfigError, SpawnerRejected, SpawnerTransient
from perijove.domain.launch import End, Resources
from perijove.kit.clock import monotonic
from perijove.kit.files import read_json, write_text
from perijove.spawners.archive import Archive
from perijove.spawners.contract import (
    Checkpoint,
    Handle,
    LaunchSpec,
    Phase,
    Sighting,
    Surroundings,
    Survey,
)
from perijove.spawners.local import process
from perijove.spawners.local.directory import (
    Condition,
    Label,
    LaunchDirectory,
    UnreadableLaunch,
    View,
)
from perijove.spawners.local.home import base_environment, find_command, make_home
from perijove.spawners.local.limits import Limits, find_limits
from perijove.spawners.local.scopes import manager_environment
from perijove.spawners.local.sections import LocalSettings
from perijove.spawners.local.sightings import sighting_of
from perijove.spawners.names import check_platform_name, is_platform_name

log = structlog.get_logger()

_THREADS: Final = 8
_LEAVE_SECONDS: Final = 20.0  # for the supervisor's first process, which only forks
_ADDRESS_SECONDS: Final = 3.0
_ADDRESS_POLL_SECONDS: Final = 0.005
_KILL_POLL_SECONDS: Final = 0.02
_LOG_BYTES: Final = 256 * 1024

P = ParamSpec("P")
T = TypeVar("T")


class SharedSpawner:
    """
    Starts servers as processes of the hub's own account on this machine.

    What is true of a launch is in its directory and in the process table, never in this object:
    a new one, or one in another process, sees the same.
    """

    def __init__(self, settings: LocalSettings, surroundings: Surroundings) -> None:
        self._settings = settings
        self._name = surroundings.name
        self._installation = surroundings.installation
        root = surroundings.data_dir.absolute()  # A supervisor lives in another directory.
        self._launches = root / "launches"
        self._homes = (settings.homes or root / "homes").absolute()
        self._programs = root / "programs"
        self._archive = Archive(root)
        self._labels: dict[str, Label] = {}
        self._being_started: set[str] = set()
        self._limits: Limits | None = None
        self._threads: anyio.CapacityLimiter

    async def __aenter__(self) -> Self:
        """Make the folders; raise `SpawnerTransient` when that fails."""
        self._threads = anyio.CapacityLimiter(_THREADS)
        await self._in_thread(self._prepare)
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Let go; the supervisors and their servers run on."""

    def warnings(self, *, public: bool) -> Sequence[str]:
        """
        Say that all people share one account, and once that servers have no limits.

        In public a shared account is refused unless it is allowed.
        """
        if public and not self._settings.shared_account:
            raise ConfigError(
                f"spawners.{self._name} runs everybody's servers under the hub's own account, so "
                "it is refused on an address that others can reach; use another spawner, or set "
                f"shared_account = true in [spawners.{self._name}] if all who sign in trust each "
                "other",
                code="local-shared-account-refused",
                key=f"spawners.{self._name}.shared_account",
            )
        return ["local-shared-account"] + ([] if self._limits else ["local-no-limits"])

    # Start

    async def start(self, spec: LaunchSpec, checkpoint: Checkpoint) -> Sighting:
        """Write the launch down, hand it to a supervisor, and wait a moment for its address."""
        check_platform_name(spec.name)
        directory = self._directory(spec.name)
        self._being_started.add(spec.name)
        try:
            end = await self._in_thread(self._ensure, spec, directory)
            if end is not None:
                return Sighting(name=spec.name, phase=Phase.GONE, end=end, owner=spec.user_name)
            await checkpoint(_handle(spec.name))
            await self._in_thread(self._hand_over, directory)
            return await self._await_address(directory)
        finally:
            self._being_started.discard(spec.name)

    def _ensure(self, spec: LaunchSpec, directory: LaunchDirectory) -> End | None:
        """Have the launch written down, or return how it ended."""
        if not directory.exists:
            end = self._archive.find_end(spec.name)
            if end is not None:
                return end
            self._write(spec, directory)
        if self._label(directory).installation != self._installation:
            raise SpawnerRejected(f"{spec.name} belongs to another installation")
        # `stop` records the end first and looks for the directory then; here it is the other way
        # round. Whichever comes first, one sees the other.
        return self._drop_late(directory)

    def _drop_late(self, directory: LaunchDirectory) -> End | None:
        """Take a launch back, and return its end, if it is over and no supervisor has had it."""
        end = self._archive.find_end(directory.path.name)
        if end is None:
            return None
        if _may_have_run(directory.look()):
            return None
        with suppress(FileNotFoundError):
            directory.cancel(self._settings.stop_grace)
        if _may_have_run(directory.look()):
            return None  # A supervisor was faster than the mark: `stop` sees to it.
        directory.remove()
        return end

    def _write(self, spec: LaunchSpec, directory: LaunchDirectory) -> None:
        command = find_command(spec.command)
        home = make_home(self._homes, spec.user_name)
        files: dict[str, object] = {}
        environment = {**base_environment(home, command[0]), **spec.environment}
        if os.geteuid() == 0:
            # Jupyter refuses to run as root unless told so, and not on the command line.
            files["jupyter/jupyter_server_config.json"] = {"ServerApp": {"allow_root": True}}
            found = environment.get("JUPYTER_CONFIG_PATH")
            own = str(directory.path / "jupyter")
            environment["JUPYTER_CONFIG_PATH"] = f"{found}{os.pathsep}{own}" if found else own
        environment |= self._settings.environment | {process.MARKER: spec.name}
        files["spec.json"] = {
            "command": command,
            "environment": environment,
            "prefix": spec.prefix,
            "home": str(home),
            "port_range": self._settings.port_range,
            "log_limit": self._settings.log_limit,
            "grace": self._settings.stop_grace,
        }
        files["resources.json"] = asdict(spec.resources)
        label = Label(
            name=spec.name,
            launch_id=spec.launch_id,
            installation=spec.installation,
            owner=spec.user_name,
        )
        LaunchDirectory.create(directory.path, label, files)

    def _hand_over(self, directory: LaunchDirectory) -> None:
        """Have a supervisor take the launch, unless one did or it is not wanted any more."""
        view = directory.look()
        if view is None or view.condition is not Condition.REQUESTED:
            return
        if self._drop_late(directory) is not None:
            return
        supervisor = self._programs / "supervisor.py"
        command = [sys.executable, "-I", "-S", str(supervisor), str(directory.path)]
        if self._limits is not None:
            name, resources = directory.path.name, read_json(directory.path / "resources.json")
            limit = self._settings.processes_limit
            command = [*self._limits.enclose(name, Resources(**resources), limit), *command]
        # The process we wait for forks and leaves: the supervisor is nobody's child, has its own
        # session and nothing of our environment, and so outlives this hub.
        result = subprocess.run(  # noqa: S603 - our own program, no shell
            command,
            env=manager_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            timeout=_LEAVE_SECONDS,
            check=False,
        )
        if result.returncode != 0:
            words = result.stderr[-500:].decode(errors="replace")
            raise SpawnerTransient(f"the supervisor of {directory.path.name} failed: {words}")

    async def _await_address(self, directory: LaunchDirectory) -> Sighting:
        """Return the first sighting that says more than that it is on its way."""
        latest = monotonic() + _ADDRESS_SECONDS
        while True:
            sighting = await self._in_thread(self._see, directory)
            if sighting.phase is not Phase.PENDING or monotonic() >= latest:
                return sighting
            await anyio.sleep(_ADDRESS_POLL_SECONDS)

    def _see(self, directory: LaunchDirectory) -> Sighting:
        name = directory.path.name
        label, view = self._label(directory), directory.look()
        if view is None:
            return _sighting(label, View(condition=Condition.ENDED, end=self._end_of_removed(name)))
        return _sighting(label, view)

    # Survey

    async def survey(self) -> Survey:
        """
        Look at every launch directory of this installation.

        A launch that is written down is kept: if its hub died before a supervisor had it, it is
        handed over now. What is left of a launch whose supervisor was killed is killed, and the
        launch is gone only when nothing is left.
        """
        return await self._in_thread(self._survey)

    def _survey(self) -> Survey:
        complete = True
        views: list[tuple[Label, LaunchDirectory, View]] = []
        for directory in self._list():
            try:
                label, view = self._label(directory), directory.look()
            except FileNotFoundError:
                continue  # Removed since the folder was listed.
            except UnreadableLaunch:
                log.warning("launch_unreadable", path=str(directory.path))
                complete = False
                continue
            if view is not None and label.installation == self._installation:
                views.append((label, directory, view))
        self._hand_over_forgotten(views)
        leftovers = self._leftovers({label.name for label, _, view in views if _is_lost(view)})
        self._forget_labels({label.name for label, _, _ in views})
        sightings = [_sighting(label, view, label.name in leftovers) for label, _, view in views]
        return Survey(complete=complete, sightings=sightings)

    def _list(self) -> Sequence[LaunchDirectory]:
        try:
            with os.scandir(self._launches) as entries:
                names = [entry.name for entry in entries if is_platform_name(entry.name)]
        except FileNotFoundError as error:
            # Nothing is said about launches by a folder that is not there.
            raise SpawnerTransient(f"the folder {self._launches} is gone") from error
        return [self._directory(name) for name in names]

    def _hand_over_forgotten(self, views: Sequence[tuple[Label, LaunchDirectory, View]]) -> None:
        for label, directory, view in views:
            requested = view.condition is Condition.REQUESTED
            if requested and label.name not in self._being_started:
                try:
                    self._hand_over(directory)
                except (OSError, SpawnerTransient, subprocess.TimeoutExpired):
                    # That one cannot be started must not hide the others; the next survey tries.
                    log.warning("launch_not_handed_over", launch=label.name, exc_info=True)

    def _leftovers(self, names: set[str]) -> set[str]:
        """Kill what lives of the lost launches `names`; return those of which something did."""
        if not names:
            return set()
        found = process.marked_processes(names)
        for name, pids in found.items():
            process.kill_marked(name, pids)
        return {name for name, pids in found.items() if pids}

    def _forget_labels(self, present: set[str]) -> None:
        for name in set(self._labels) - present:
            self._labels.pop(name, None)

    # Stop

    async def stop(self, name: str, handle: Handle | None, *, grace: float) -> Sighting | None:
        """End the launch and remove its directory; its last output stays for a while."""
        if not is_platform_name(name):
            return None
        directory = self._directory(name)
        label = await self._in_thread(self._cancel, directory, grace)
        if label is None:
            return None
        await self._end_supervisor(directory, grace)
        await self._end_leftovers(directory)
        end = await self._in_thread(self._remove, directory)
        return Sighting(name=name, phase=Phase.GONE, end=end, owner=label.owner)

    def _cancel(self, directory: LaunchDirectory, grace: float) -> Label | None:
        """Make a start of this name impossible; return whose it is if there is anything."""
        try:
            if directory.label().installation != self._installation:
                return None
        except FileNotFoundError:
            pass  # A `start` may be about to write it: the record stops that one.
        self._archive.close(directory.path.name)
        try:
            directory.cancel(grace)
            return directory.label()
        except FileNotFoundError:
            return None

    async def _end_supervisor(self, directory: LaunchDirectory, grace: float) -> None:
        """Return when no supervisor has the launch: it ends the server, then itself."""
        for number, patience in (
            (signal.SIGTERM, grace + self._settings.kill_limit),
            (signal.SIGKILL, self._settings.kill_limit),
        ):
            pidfd = await self._in_thread(_open_supervisor, directory)
            if pidfd is None:
                return
            try:
                signal.pidfd_send_signal(pidfd, number)
                with anyio.move_on_after(patience):
                    await anyio.wait_readable(pidfd)
                    return
            except ProcessLookupError:
                return
            finally:
                os.close(pidfd)
            log.warning("supervisor_does_not_end", launch=directory.path.name, signal=number)
        raise SpawnerTransient(f"{directory.path.name} does not end")

    async def _end_leftovers(self, directory: LaunchDirectory) -> None:
        """Return when nothing lives of a launch whose supervisor could not see to that."""
        name = directory.path.name
        latest = monotonic() + self._settings.kill_limit
        while await self._in_thread(self._lost_leftovers, directory):
            if monotonic() >= latest:
                raise SpawnerTransient(f"processes of {name} do not end")
            await anyio.sleep(_KILL_POLL_SECONDS)

    def _lost_leftovers(self, directory: LaunchDirectory) -> bool:
        view = directory.look()
        if view is None or not _is_lost(view):
            return False
        return bool(self._leftovers({directory.path.name}))

    def _remove(self, directory: LaunchDirectory) -> End:
        name = directory.path.name
        if self._limits is not None:
            self._limits.remove(name)
        view = directory.look()
        if view is None or view.end is None:
            return self._end_of_removed(name)
        self._archive.close(name, view.end, directory.output(_LOG_BYTES))
        directory.remove()
        self._archive.prune()
        return view.end

    def _end_of_removed(self, name: str) -> End:
        end = self._archive.find_end(name)
        if end is None:
            raise SpawnerTransient(f"{name} is neither there nor known to be over")
        return end

    # Abilities

    async def log_tail(self, name: str, handle: Handle | None, *, lines: int) -> str:
        """Return the last lines of output, also for a while after the launch was removed."""
        if not is_platform_name(name) or lines <= 0:
            return ""
        output = await self._in_thread(self._output, name)
        return "\n".join(output.decode(errors="replace").splitlines()[-lines:])

    def _output(self, name: str) -> bytes:
        directory = self._directory(name)
        try:
            if directory.label().installation != self._installation:
                return b""
        except FileNotFoundError:
            return self._archive.output(name)
        return directory.output(_LOG_BYTES) or self._archive.output(name)

    async def owns_listener(self, name: str, handle: Handle | None, url: str) -> bool | None:
        """Tell whether everyone who could answer at `url` belongs to the launch."""
        port = urlsplit(url).port
        if port is None or not is_platform_name(name):
            return False
        return await self._in_thread(self._owns_port, name, port)

    def _owns_port(self, name: str, port: int) -> bool | None:
        sockets = process.listening_sockets(port)
        if not sockets:
            return None
        supervisor = self._directory(name).holder()
        if not supervisor:
            return False
        missing = set(sockets)
        for pid in process.descendants(supervisor):
            missing -= process.held_sockets(pid)
            if not missing:
                return True
        return False

    # Common

    def _prepare(self) -> None:
        self._launches.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._programs.mkdir(mode=0o700, exist_ok=True)
        for name, text in local_files().items():
            write_text(self._programs / name, text)
        self._archive.prepare()
        self._archive.prune()
        LaunchDirectory.sweep(self._launches)
        self._limits = find_limits()

    def _directory(self, name: str) -> LaunchDirectory:
        return LaunchDirectory(self._launches / name)

    def _label(self, directory: LaunchDirectory) -> Label:
        """Return the label, read once: it never changes."""
        name = directory.path.name
        if name not in self._labels:
            self._labels[name] = directory.label()
        return self._labels[name]

    async def _in_thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what may block; what the file system refuses may succeed later."""
        try:
            return await anyio.to_thread.run_sync(
                partial(work, *args, **kwargs), limiter=self._threads
            )
        except UnreadableLaunch as error:
            raise SpawnerTransient(f"the launch in {error} cannot be read") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SpawnerTransient(f"this machine could not do it: {error}") from error


def _open_supervisor(directory: LaunchDirectory) -> int | None:
    pid = directory.holder()
    if pid is None:
        return None
    if pid == 0:
        raise SpawnerTransient(f"{directory.path.name} runs in another process namespace")
    return process.open_process(pid, lambda pid: directory.holder() == pid)


def _handle(name: str) -> Handle:
    return {"directory": name}


def _may_have_run(view: View | None) -> bool:
    return view is not None and view.condition not in (Condition.REQUESTED, Condition.CANCELLED)


def _is_lost(view: View) -> bool:
    return view.condition is Condition.LOST


def _sighting(label: Label, view: View, has_leftovers: bool = False) -> Sighting:
    return sighting_of(label, view, _handle(label.name), has_leftovers=has_leftovers)
