"""Volumes of people: named by the hub, kept by the engine until the hub removes them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog

from perijove.domain.errors import SpawnerRejected, SpawnerTransient
from perijove.kit.clock import monotonic
from perijove.spawners.contract import VolumeSighting, VolumeSpec, VolumeSurvey
from perijove.spawners.docker.engine import Answer, Engine
from perijove.spawners.docker.labels import (
    INSTALLATION,
    KIND,
    SPAWNER,
    carries,
    read_labels,
    readable_labels,
)
from perijove.spawners.docker.sections import DockerSettings
from perijove.spawners.docker.states import name_of
from perijove.spawners.names import is_platform_name

log = structlog.get_logger()

SIZE: Final = "perijove.org/size-bytes"
_OWN: Final = frozenset({INSTALLATION, SPAWNER, KIND, SIZE})
_MEASURED_SECONDS: Final = 600.0
"""How old a measure may be: the engine reads every directory to make one."""
_OWNER: Final = re.compile(r"([0-9]{1,10})(?::([0-9]{1,10}))?")


class Volumes:
    """The volumes of one installation on an engine; other sections may use the same engine."""

    def __init__(
        self, engine: Engine, settings: DockerSettings, *, installation: str, spawner: str
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._spawner = spawner
        self._containers = {INSTALLATION: installation}
        self._labels = {INSTALLATION: installation, KIND: "volume"}
        self._used: Mapping[str, int] = {}
        self._measured: float | None = None

    def enforces_size(self) -> bool:
        """Tell whether the driver keeps volumes to their size."""
        return bool(self._settings.volume_size_option)

    async def ensure(self, volumes: Sequence[VolumeSpec]) -> None:
        """Make those that are not there; raise `SpawnerRejected` for one that is not ours."""
        for volume in volumes:
            if not is_platform_name(volume.name):
                raise SpawnerRejected(f"{volume.name[:80]!r} names no volume", code="volume-failed")
            found = await self._engine.find_volume(volume.name)
            if found is None:
                await self._engine.create_volume(self._config(volume))
                found = await self._engine.find_volume(volume.name)
            if found is None or not self._is_ours(found):
                raise SpawnerRejected(
                    f"the volume {volume.name} is not of this hub", code="volume-failed"
                )

    def _config(self, volume: VolumeSpec) -> Mapping[str, Any]:
        options = dict(self._settings.volume_options)
        labels = self._labels | {SPAWNER: self._spawner}
        if volume.size_bytes is not None and self.enforces_size():
            options[self._settings.volume_size_option] = str(volume.size_bytes)
            labels[SIZE] = str(volume.size_bytes)
        return {
            "Name": volume.name,
            "Driver": volume.storage_class or self._settings.volume_driver,
            "DriverOpts": options,
            "Labels": {**readable_labels(volume.labels), **labels},
        }

    async def give(self, container: Answer) -> None:
        """
        Let the volumes of a container that was not started yet belong to whom it runs as.

        A new volume at a path that the image does not have would be root's, and useless. Engines
        refuse that where the container's own file system can only be read.
        """
        owner = _OWNER.fullmatch(container["Config"].get("User") or "")
        if owner is None or container["HostConfig"].get("ReadonlyRootfs"):
            return  # Root needs nothing, and what a name stands for is known in the image only.
        uid, gid = int(owner[1]), int(owner[2] or 0)
        for mount in container["Mounts"]:
            if mount["Type"] == "volume" and await self._is_our_volume(mount.get("Name", "")):
                await self._engine.give_directory(container["Id"], mount["Destination"], uid, gid)

    async def survey(self) -> VolumeSurvey:
        """Return all of ours, with what was on them when it was last measured."""
        volumes = await self._engine.list_volumes(self._labels)
        holders: dict[str, list[str]] = {}
        for container in await self._engine.list_containers(self._containers):
            for mount in container.get("Mounts") or ():
                if mount["Type"] == "volume":
                    holders.setdefault(mount["Name"], []).append(name_of(container))
        await self._measure()
        return VolumeSurvey(
            complete=True,
            volumes=[self._sighting(each, holders.get(each["Name"], ())) for each in volumes],
        )

    def _sighting(self, volume: Answer, holders: Sequence[str]) -> VolumeSighting:
        size = volume["Labels"].get(SIZE, "")
        return VolumeSighting(
            name=volume["Name"],
            size_bytes=int(size) if size.isdecimal() else None,
            used_bytes=self._used.get(volume["Name"]),
            held_by=holders,
            labels=read_labels(volume["Labels"], _OWN),
        )

    async def _measure(self) -> None:
        now = monotonic()
        if self._measured is not None and now - self._measured < _MEASURED_SECONDS:
            return
        self._measured = now
        try:
            self._used = await self._engine.measure_volumes()
        except SpawnerTransient as error:
            # What there is counts for more than how full it is: the answer does without that.
            log.warning("volumes_not_measured", error=str(error)[:200])

    async def remove(self, name: str) -> bool:
        """Remove a volume of ours; False while somebody has it, or it is not ours."""
        if not is_platform_name(name):
            return False
        found = await self._engine.find_volume(name)
        if found is None:
            return True
        return self._is_ours(found) and await self._engine.remove_volume(name)

    async def _is_our_volume(self, name: str) -> bool:
        found = await self._engine.find_volume(name) if is_platform_name(name) else None
        return found is not None and self._is_ours(found)

    def _is_ours(self, found: Answer) -> bool:
        return carries(found.get("Labels"), self._labels)
