"""What every section ``[spawners.NAME]`` of a batch system has."""

from ipaddress import ip_network
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from perijove.kit.config import Section
from perijove.spawners.batch.scheduler import Site
from perijove.spawners.contract import SpawnerSettings

Port = Annotated[int, Field(ge=1, le=65535)]


class ContainerSection(Section):
    """The server runs in a container image of Apptainer or Singularity."""

    image: str
    """Path of the image on the nodes, or anything else that `runtime` accepts."""
    runtime: str = "apptainer"
    """The program, a name or a path."""
    arguments: list[str] = []
    """Further arguments of its `exec`, such as `["--nv", "--bind", "/scratch"]`."""


class SoftwareSection(Section):
    """Where the server's software comes from, on the node, in this order."""

    modules: list[str] = []
    """Environment modules to load, such as `["python/3.11", "scipy-stack"]`."""
    prefix: PurePosixPath | None = None
    """A Python environment; its `bin` is searched first."""
    container: ContainerSection | None = None
    """An image in which the command is run."""
    setup: list[list[str]] = []
    """Commands to run before, each a list of words; one that fails ends the start."""


class BatchSettings(SpawnerSettings):
    """Sessions as jobs of a batch system."""

    home_storage: str = "cluster"
    """A name for the storage that homes are on; say the same for all spawners with these homes."""
    accounts: Literal["checked", "trusted"] = "checked"
    """
    Whose account a job is submitted under: the one of the person's name, and nobody else's.

    `checked` wants people to sign in with this machine's accounts, by `[auth.pam]`. Say `trusted`
    where another way to sign in gives the same names to the same people.
    """
    bin_dir: Path | None = None
    """Where the scheduler's programs are; without it they are searched for."""
    scheduler_environment: dict[str, str] = {}
    """Variables they need, such as `SLURM_CONF`, or `SGE_ROOT` and `SGE_CELL`."""
    scheduler_timeout: Annotated[float, Field(gt=0, le=120)] = 15
    """Seconds a scheduler's program has to answer."""
    minimum_period: Annotated[float, Field(ge=1)] = 10
    """
    Seconds between two questions to the scheduler: in six times as many there are never more than
    six. What belongs to one person is not counted: submitting, cancelling, their associations, a
    dry run. Some sites want more: a job may then wait longer until the hub may look whether it is
    its own, so give `start_limit` six times as many seconds, and more.
    """
    survey_period: float = 30
    """Seconds between two surveys while nothing is on its way."""
    survey_busy_period: float = 15
    """
    Seconds between two surveys while something is on its way; one and a half `minimum_period` at
    the least.
    """
    start_limit: float = 600
    """Seconds from running to saying where it listens; loading software is part of it."""
    connect_limit: float = 180
    """Seconds from saying where it listens to answering there."""
    stop_grace: float = 35
    """Seconds a job has to end by itself before the scheduler kills it."""
    submit_limit: float = 240
    """Seconds the scheduler has to take a job; of a doubtful one it takes 90 to be sure."""
    submit_arguments: list[str] = []
    """Further arguments of the submission, such as `["--exclusive"]`."""
    ports: tuple[Port, Port] | None = None
    """First and last port for servers on the nodes; without it the node's system chooses."""
    networks: list[str] = []
    """
    The networks in which the hub and the proxy reach the nodes, such as `["10.1.0.0/16"]`.

    A server listens on the node's address there. Without it: the one its node's name stands for.
    """
    tunnel: bool = False
    """
    Servers listen at no port; their jobs dial out to `[tunnel] url`, and are reached through that.

    For clusters where only jobs can connect outward. `ports` and `networks` say nothing then.
    """
    software: SoftwareSection = SoftwareSection()
    """Where the server's software comes from."""
    environment: dict[str, str] = {}
    """Added to the environment of every server; wins over everything else there."""
    log_limit: Annotated[int, Field(ge=4096)] = 4 * 2**20
    """How many bytes of a server's output are kept: the first half of them, and the end."""
    dry_run: bool = True
    """Ask the scheduler whether it would take a request before it is made."""

    @field_validator("networks")
    @classmethod
    def _check_networks(cls, networks: list[str]) -> list[str]:
        for network in networks:
            ip_network(network)
        return networks

    @model_validator(mode="after")
    def _check_ports(self) -> Self:
        if self.ports is not None and self.ports[0] > self.ports[1]:
            raise ValueError("ports must be written as [first, last]")
        return self

    def for_examination(self) -> Self:
        """Return them without the site's minimum: one examination, by hand, waits for no turns."""
        return self.model_copy(update={"minimum_period": 1.0})

    def site(self) -> Site:
        """Return where the commands are."""
        return Site(
            bin_dir=self.bin_dir,
            environment=self.scheduler_environment,
            timeout=self.scheduler_timeout,
        )
