"""
Marks on an engine that a launch is over, so that a late start of it starts nothing.

A start makes its container, looks for the mark, and only then lets it run; a stop sets the mark,
and looks for the container then. Whichever comes first, one sees the other, also from two hubs
that share nothing but the engine. A mark is an empty volume: engines have nothing smaller that
has a name and can be made only once.
"""

import time
from typing import Final

from perijove.spawners.docker.engine import Engine
from perijove.spawners.docker.labels import INSTALLATION, KIND, MARKED_AT, carries

_KEPT_SECONDS: Final = 86400
"""Longer than any start can be under way."""


class Marks:
    """The marks of one installation."""

    def __init__(self, engine: Engine, installation: str) -> None:
        self._engine = engine
        self._labels = {INSTALLATION: installation, KIND: "mark"}
        self._ending = f".over-{installation}"

    async def add(self, name: str) -> None:
        """Record that the launch called `name` is over."""
        labels = self._labels | {MARKED_AT: str(int(time.time()))}
        await self._engine.create_volume({"Name": f"{name}{self._ending}", "Labels": labels})

    async def has(self, name: str) -> bool:
        """Tell whether the launch called `name` is over."""
        found = await self._engine.find_volume(f"{name}{self._ending}")
        return found is not None and carries(found.get("Labels"), self._labels)

    async def prune(self) -> None:
        """Remove the marks that no start can still come up against."""
        oldest = time.time() - _KEPT_SECONDS
        for volume in await self._engine.list_volumes(self._labels):
            at = (volume.get("Labels") or {}).get(MARKED_AT, "")
            if at.isdecimal() and int(at) < oldest:
                await self._engine.remove_volume(volume["Name"])
