"""The section ``[spawners.NAME]`` of kind ``gridengine``, and the spawner it makes."""

from dataclasses import replace
from typing import ClassVar

from pydantic import Field

from perijove.spawners.batch.scheduler import Site
from perijove.spawners.batch.sections import BatchSettings
from perijove.spawners.batch.spawner import BatchSpawner
from perijove.spawners.contract import SpawnerSettings, Surroundings
from perijove.spawners.gridengine.scheduler import GridEngineScheduler


class GridEngineSettings(BatchSettings):
    """Sessions as jobs of Grid Engine, 8.1 and its relatives."""

    kind: str = "gridengine"
    """Which driver."""
    parallel_environment: str = ""
    """The parallel environment for more than one core on one host, such as `smp`."""
    memory_complex: str = "h_vmem"
    """The resource by which memory is asked for."""
    gpu_complex: str = ""
    """The resource by which GPUs are asked for; without it there are none."""
    per_job: list[str] = Field(default=[])
    """Resources counted once for a whole job (consumable `JOB`), not for each of its slots."""
    requested: list[str] = Field(default=[])
    """Resources that `submit_arguments` ask for; queues that want one are offered only then."""

    def site(self) -> Site:
        """Return where the commands are; they write instants without a time zone, in UTC."""
        site = super().site()
        return replace(site, environment={"TZ": "UTC", **site.environment})


class GridEngineSpawner(BatchSpawner):
    """Starts servers as jobs of one Grid Engine cell."""

    Settings: ClassVar[type[SpawnerSettings]] = GridEngineSettings

    def __init__(self, settings: GridEngineSettings, surroundings: Surroundings) -> None:
        scheduler = GridEngineScheduler(
            settings.site(),
            parallel_environment=settings.parallel_environment or None,
            memory_complex=settings.memory_complex,
            gpu_complex=settings.gpu_complex or None,
            per_job=settings.per_job,
            requested=settings.requested,
        )
        super().__init__(settings, surroundings, scheduler)
