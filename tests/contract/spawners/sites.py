"""The platforms that the contract suite runs on, and what a test needs to look at them."""

import socket
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.request import urlopen

import anyio
import psutil

from perijove.domain.launch import Cause, End
from perijove.kit.ids import platform_name
from perijove.spawners.contract import (
    Checkpoint,
    Handle,
    LaunchSpec,
    Phase,
    Sighting,
    Spawner,
    SpawnerSettings,
    Surroundings,
)
from perijove.spawners.local import LocalSettings, LocalSpawner
from perijove.spawners.local.process import MARKER
from perijove.spawners.null import NullSettings, NullSpawner
from tests.fakes.spawners import MemoryPlatform, MemorySettings, MemorySpawner

PROGRAM: Final = Path(__file__).with_name("program.py")
SECRET: Final = "7f1d9a3c5b2e4608a1c3e5f708192a3b"
DEADLINE: Final = 60.0
NAME: Final = platform_name("inst")  # Another run of this suite may be under way beside this one.


class Site(Protocol):
    """One platform, on which any number of spawner objects may look."""

    def spawner(self, installation: str = "inst") -> Spawner:
        """Return a new spawner, as a hub has after a restart; not entered yet."""
        ...


@dataclass(frozen=True, slots=True)
class LocalSite:
    """This machine."""

    data_dir: Path

    def spawner(self, installation: str = "inst", **settings: Any) -> LocalSpawner:
        """Return a spawner on this machine's file system."""
        around = Surroundings(name="local", installation=installation, data_dir=self.data_dir)
        return LocalSpawner(LocalSettings(**settings), around)

    async def kill(self, sighting: Sighting) -> End:
        """Kill the server behind the spawner's back."""
        server_of(sighting.name).kill()
        return End(cause=Cause.SIGNAL, code=9)


class AliceSpawner(LocalSpawner):
    """Starts for alice, by the system's Python, what a test orders for anybody by its own."""

    program = PROGRAM

    async def start(self, spec: LaunchSpec, checkpoint: Checkpoint) -> Sighting:
        """Start what a system account can run: it may have no way to this clone."""
        command = ["/usr/bin/python3", "-I", "-S", str(self.program), *spec.command[4:]]
        return await super().start(replace(spec, user_name="alice", command=command), checkpoint)


@dataclass(frozen=True, slots=True)
class SystemSite:
    """This machine, with servers under a system account."""

    data_dir: Path
    launches: Path

    def spawner(self, installation: str = "inst", **settings: Any) -> AliceSpawner:
        """Return a spawner that acts as alice."""
        around = Surroundings(
            name="local", installation=installation, data_dir=self.data_dir, system_accounts=True
        )
        chosen = {"accounts": "system", "launches": self.launches} | settings
        spawner = AliceSpawner(LocalSettings(**chosen), around)
        spawner.program = self.launches.with_name("program.py")
        return spawner

    async def kill(self, sighting: Sighting) -> End:
        """Kill the server behind the spawner's back."""
        server_of(sighting.name).kill()
        return End(cause=Cause.SIGNAL, code=9)


@dataclass(frozen=True, slots=True)
class NullSite:
    """Nothing."""

    data_dir: Path
    url: str

    def spawner(self, installation: str = "inst") -> NullSpawner:
        """Return a spawner that starts nothing."""
        around = Surroundings(name="null", installation=installation, data_dir=self.data_dir)
        return NullSpawner(NullSettings(url=self.url), around)


@dataclass(frozen=True, slots=True)
class MemorySite:
    """The fake platform."""

    platform: MemoryPlatform

    def spawner(self, installation: str = "inst") -> MemorySpawner:
        """Return a spawner of the fake platform."""
        around = Surroundings(name="memory", installation=installation, data_dir=Path("/nowhere"))
        return MemorySpawner(MemorySettings(), around, self.platform)

    async def kill(self, sighting: Sighting) -> End:
        """Let it be killed."""
        end = End(cause=Cause.SIGNAL, code=9)
        self.platform.end(sighting.name, end)
        return end

    def has_volume(self, name: str) -> bool:
        """Look at the platform itself."""
        return name in self.platform.volumes


def make_spec(name: str = NAME, mode: str = "plain", **changes: Any) -> LaunchSpec:
    """Return a launch whose server runs `program.py` in `mode`."""
    fields: dict[str, Any] = {
        "launch_id": f"lch_{name}",
        "name": name,
        "installation": "inst",
        "user_name": "ann",
        "server_name": "",
        "command": program(mode),
        "environment": {"JUPYTERHUB_API_TOKEN": SECRET},
        "prefix": "/base/user/ann/",
    }
    return LaunchSpec(**fields | changes)


def program(mode: str) -> list[str]:
    """Return the command that runs `program.py` in `mode`."""
    return [sys.executable, "-I", "-S", str(PROGRAM), mode]


async def recorded(handle: Handle) -> None:
    """Be a checkpoint that has nothing to say."""


async def find(spawner: Spawner, name: str) -> Sighting | None:
    """Return what one complete survey says of `name`."""
    survey = await spawner.survey()
    assert survey.complete
    found = [one for one in survey.sightings if one.name == name]
    assert len(found) <= 1
    return found[0] if found else None


async def phase(spawner: Spawner, name: str, wanted: Phase) -> Sighting:
    """Survey until `name` is in the phase `wanted`, and return that sighting."""
    found: list[Sighting] = []

    async def look() -> bool:
        sighting = await find(spawner, name)
        found[:] = [sighting] if sighting else []
        return sighting is not None and sighting.phase is wanted

    assert await eventually(look), f"{name} is {found}, not {wanted}"
    return found[0]


async def eventually(check: Callable[[], Awaitable[bool]]) -> bool:
    """Ask `check` again and again until it is true or the deadline has passed."""
    latest = time.monotonic() + DEADLINE
    while not await check():
        if time.monotonic() > latest:
            return False
        await anyio.sleep(0.01)
    return True


async def answers(sighting: Sighting) -> bytes:
    """Return what the server answers, once it does."""
    bodies: list[bytes] = []

    def ask() -> None:
        with urlopen(f"{sighting.url}/base/user/ann/", timeout=DEADLINE) as response:
            bodies.append(response.read())

    async def does() -> bool:
        try:
            await anyio.to_thread.run_sync(ask)
        except OSError:
            return False
        return True

    assert await eventually(does), f"nobody answers at {sighting.url}"
    return bodies[0]


def processes_of(name: str) -> Sequence[psutil.Process]:
    """Return every process that carries the marker of a launch; not its supervisor."""
    found = []
    for one in psutil.process_iter():
        try:
            if one.environ().get(MARKER) == name:
                found.append(one)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def supervisors_of(name: str) -> Sequence[psutil.Process]:
    """Return every process that supervises a launch of this name."""
    found = {}
    for one in psutil.process_iter():
        try:
            line = one.cmdline()
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        if "-S" in line and line[-1].endswith(f"/{name}"):
            found[one.pid] = one
    # A server looks like its supervisor between fork and exec.
    return [one for one in found.values() if one.ppid() not in found]


def server_of(name: str) -> psutil.Process:
    """Return the server's own process: the one right below its supervisor."""
    (supervisor,) = supervisors_of(name)
    below = supervisor.children()
    return min(below, key=lambda one: one.pid)


def free_port() -> int:
    """Return a port that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings_of(spawner: type[Spawner]) -> type[SpawnerSettings]:
    """Return the section that a spawner class is configured by."""
    settings: type[SpawnerSettings] = spawner.Settings  # type: ignore[attr-defined]
    return settings
