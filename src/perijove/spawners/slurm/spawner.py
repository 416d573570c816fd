"""The section ``[spawners.NAME]`` of kind ``slurm``, and the spawner it makes."""

from typing import ClassVar

from perijove.spawners.batch.sections import BatchSettings
from perijove.spawners.batch.spawner import BatchSpawner
from perijove.spawners.contract import SpawnerSettings, Surroundings
from perijove.spawners.slurm.scheduler import SlurmScheduler


class SlurmSettings(BatchSettings):
    """Sessions as jobs of Slurm, 22.05 or newer."""

    kind: str = "slurm"
    """Which driver."""


class SlurmSpawner(BatchSpawner):
    """Starts servers as jobs of one Slurm cluster."""

    Settings: ClassVar[type[SpawnerSettings]] = SlurmSettings

    def __init__(self, settings: SlurmSettings, surroundings: Surroundings) -> None:
        super().__init__(settings, surroundings, SlurmScheduler(settings.site()))
