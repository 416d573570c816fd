"""The section ``[spawners.NAME]`` of kind ``local``."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from perijove.kit.config import Size
from perijove.spawners.contract import SpawnerSettings

Port = Annotated[int, Field(ge=1, le=65535)]


class LocalSettings(SpawnerSettings):
    """Servers on the hub's own machine, all under the hub's own account."""

    kind: str = "local"
    """Which driver."""
    shared_account: bool = False
    """
    Allow a public address although all people share one system account.

    Each of them can then read and change what the others have: say so only where all trust
    each other.
    """
    port_range: tuple[Port, Port] | None = None
    """First and last port for servers; without it the system chooses."""
    log_limit: Annotated[Size, Field(ge=4096)] = 4 * 2**20
    """How much of a server's output is kept: the first half of this size, and the end."""
    homes: Path | None = None
    """Where the home directories are; without it in ``homes`` below the spawner's directory."""
    kill_limit: Annotated[float, Field(gt=0)] = 10
    """Seconds in which what was killed must be gone; then the stop fails and is tried again."""
    environment: dict[str, str] = {}
    """Added to the environment of every server; wins over everything else there."""

    @model_validator(mode="after")
    def _check_ports(self) -> Self:
        if self.port_range is not None and self.port_range[0] > self.port_range[1]:
            raise ValueError("port_range must be written as [first, last]")
        return self
