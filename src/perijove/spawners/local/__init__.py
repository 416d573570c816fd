"""Servers on the hub's own machine, under the hub's own account."""

from perijove.spawners.local.sections import LocalSettings
from perijove.spawners.local.spawner import LocalSpawner

__all__ = ["LocalSettings", "LocalSpawner"]
