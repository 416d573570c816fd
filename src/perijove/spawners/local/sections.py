"""The section ``[spawners.NAME]`` of kind ``local``."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from perijove.kit.config import Size
from perijove.spawners.contract import SpawnerSettings

Port = Annotated[int, Field(ge=1, le=65535)]


class LocalSettings(SpawnerSettings):
    """Servers on the hub's own machine."""

    kind: str = "local"
    """Which driver."""
    home_storage: str = "local"
    """A name for the storage that homes are on; say the same for all spawners with these homes."""
    accounts: Literal["auto", "system", "shared"] = "auto"
    """
    Whose account servers run under: ``system``, each under the system account of its person;
    ``shared``, all under the hub's. ``auto`` is ``system`` where people sign in with system
    accounts and the hub is root or has the launcher, and ``shared`` elsewhere.
    """
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
    """
    Where the home directories are under a shared account; without it in ``homes`` below the
    spawner's directory.
    """
    launches: Path = Path("/var/lib/perijove-launch")
    """Where each system account has its directory of launches; on a local file system."""
    login_shell: bool = True
    """Ask the login shell of a system account for the environment that servers begin with."""
    processes_limit: Annotated[int, Field(ge=16)] = 4096
    """How many processes and threads a server may have where this hub can limit that."""
    kill_limit: Annotated[float, Field(gt=0)] = 10
    """Seconds in which what was killed must be gone; then the stop fails and is tried again."""
    environment: dict[str, str] = {}
    """Added to the environment of every server; wins over everything else there."""

    @model_validator(mode="after")
    def _check_ports(self) -> Self:
        if self.port_range is not None and self.port_range[0] > self.port_range[1]:
            raise ValueError("port_range must be written as [first, last]")
        return self
