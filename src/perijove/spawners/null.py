"""
A spawner that starts nothing: everything it is asked for is said to run at one address.

It measures the hub without its servers. Like every other it keeps what it was asked for, so that
a hub's restart changes nothing: one file for each launch in ``running``, and an empty one in
``over`` for each that was stopped.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar, Final, Self, TypeVar

import anyio

from perijove.domain.errors import SpawnerTransient
from perijove.domain.launch import Cause, End
from perijove.spawners.contract import (
    Checkpoint,
    Handle,
    LaunchSpec,
    Phase,
    Sighting,
    SpawnerSettings,
    Surroundings,
    Survey,
)
from perijove.spawners.names import check_platform_name, is_platform_name

_KEPT_SECONDS: Final = 86400
T = TypeVar("T")


class NullSettings(SpawnerSettings):
    """Servers that are only said to run."""

    kind: str = "null"
    """Which driver."""
    url: str
    """``http://host:port`` of something that listens: where every server is said to be."""


class NullSpawner:
    """Says of everything it is asked to start that it runs at one address, until it is stopped."""

    Settings: ClassVar[type[SpawnerSettings]] = NullSettings

    def __init__(self, settings: NullSettings, surroundings: Surroundings) -> None:
        self._url = settings.url
        # One folder for each installation: another one's launches are out of sight.
        root = surroundings.data_dir / surroundings.installation
        self._running = root / "running"
        self._over = root / "over"

    async def __aenter__(self) -> Self:
        """Make the folders; raise `SpawnerTransient` when that fails."""
        await self._in_thread(self._prepare)
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Let go; what is said to run is still said to run."""

    async def start(self, spec: LaunchSpec, checkpoint: Checkpoint) -> Sighting:
        """Write the name down."""
        check_platform_name(spec.name)
        if not self._at_once(lambda: self._add(spec.name)):
            return _gone(spec.name)
        await checkpoint({"file": spec.name})
        if not self._at_once((self._running / spec.name).exists):
            return _gone(spec.name)  # Stopped meanwhile.
        return self._sighting(spec.name)

    async def survey(self) -> Survey:
        """Read what was written down."""
        names = await self._in_thread(lambda: [path.name for path in self._running.iterdir()])
        return Survey(complete=True, sightings=[self._sighting(name) for name in names])

    async def stop(self, name: str, handle: Handle | None, *, grace: float) -> Sighting | None:
        """Cross the name out."""
        if not is_platform_name(name):
            return None
        return _gone(name) if self._at_once(lambda: self._remove(name)) else None

    def _prepare(self) -> None:
        self._running.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._over.mkdir(mode=0o700, exist_ok=True)
        oldest = time.time() - _KEPT_SECONDS
        for path in self._over.iterdir():
            if path.stat().st_mtime < oldest:
                path.unlink(missing_ok=True)

    def _add(self, name: str) -> bool:
        (self._running / name).touch(mode=0o600)
        # `_remove` writes in the other order: whichever comes first, one sees the other.
        if (self._over / name).exists():
            (self._running / name).unlink(missing_ok=True)
            return False
        return True

    def _remove(self, name: str) -> bool:
        (self._over / name).touch(mode=0o600)
        with suppress(FileNotFoundError):
            (self._running / name).unlink()
            return True
        return False

    def _sighting(self, name: str) -> Sighting:
        return Sighting(name=name, phase=Phase.RUNNING, handle={"file": name}, url=self._url)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(self._at_once, work)

    def _at_once(self, work: Callable[[], T]) -> T:
        """Do what takes a system call or three, less than the way to a thread."""
        try:
            return work()
        except OSError as error:
            raise SpawnerTransient(f"this machine could not do it: {error}") from error


def _gone(name: str) -> Sighting:
    """Return the one end there is: nothing was started, so nothing can say how it exited."""
    end = End(cause=Cause.NEVER_STARTED, reason="null")
    return Sighting(name=name, phase=Phase.GONE, end=end)
