"""The section ``[spawners.NAME]`` of kind ``slurm``, and the spawner it makes."""

from dataclasses import replace
from typing import ClassVar

from perijove.spawners.batch.scheduler import Site
from perijove.spawners.batch.sections import BatchSettings
from perijove.spawners.batch.spawner import BatchSpawner
from perijove.spawners.contract import SpawnerSettings, Surroundings
from perijove.spawners.slurm.scheduler import SlurmScheduler


class SlurmSettings(BatchSettings):
    """Sessions as jobs of Slurm, 22.05 or newer."""

    kind: str = "slurm"
    """Which driver."""

    def site(self) -> Site:
        """Return where the commands are; they write instants without a time zone to guess."""
        site = super().site()
        return replace(site, environment={"SLURM_TIME_FORMAT": "%s", **site.environment})


class SlurmSpawner(BatchSpawner):
    """Starts servers as jobs of one Slurm cluster."""

    Settings: ClassVar[type[SpawnerSettings]] = SlurmSettings

    def __init__(self, settings: SlurmSettings, surroundings: Surroundings) -> None:
        super().__init__(settings, surroundings, SlurmScheduler())
