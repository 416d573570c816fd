"""The section ``[spawners.NAME]`` of kind ``docker``, and what a profile may say of it."""

import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from perijove.domain.images import is_reference
from perijove.kit.config import Section, Size
from perijove.spawners.contract import SpawnerSettings

Port = Annotated[int, Field(ge=1, le=65535)]

PLACEHOLDERS: Final = ("{user}", "{server}")
_BRACES: Final = re.compile(r"\{[^}]*\}?|\}")
_NEIGHBOURS: Final = re.compile(r"\{(user|server)\}([^{]*)(?=\{(user|server)\})")
_APART: Final = re.compile(r"[.@+]|--")
"""What no server's name has, so that it tells where one name ends and the other begins."""
_VOLUME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_NETWORK: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_USER: Final = re.compile(r"(system|[0-9]{1,10}(:[0-9]{1,10})?)?")
_SCHEMES: Final = frozenset({"unix", "tcp", "http", "https"})


class MountSection(Section):
    """Something of the engine's machine, seen in the container."""

    source: str
    """
    An absolute path on the engine's machine, or the name of a volume there. `{user}` and
    `{server}` stand for the names of both; the server without a name is `_default`. In a path
    they may stand in its last part only: of what lies above a person's own directory nothing is
    theirs, so no link of theirs can lead out of it. Between the two there must be `--` or one of
    `.@+`, which no server's name has: with `-`, ann's server `b-c` would be ann-b's server `c`.
    """
    target: str
    """Where it is in the container, an absolute path."""
    read_only: bool = True
    """Whether it can only be read there."""

    @field_validator("source")
    @classmethod
    def _check_source(cls, source: str) -> str:
        bare = source
        for placeholder in PLACEHOLDERS:
            bare = bare.replace(placeholder, "x")
        if _BRACES.search(bare):
            raise ValueError(f"only {' and '.join(PLACEHOLDERS)} can stand in braces")
        for one, between, other in _NEIGHBOURS.findall(source):
            if one != other and not _APART.search(between):
                raise ValueError("between {user} and {server} there must be '--' or one of '.@+'")
        if source.startswith("/"):
            above = source.rstrip("/").rpartition("/")[0]
            if any(placeholder in above for placeholder in PLACEHOLDERS):
                raise ValueError("a placeholder may stand in the last part of the path only")
            _check_path(bare)
        elif not _VOLUME.fullmatch(bare):
            raise ValueError("the source must be an absolute path or the name of a volume")
        return source

    @field_validator("target")
    @classmethod
    def _check_target(cls, target: str) -> str:
        return _check_path(target)


class DockerOverrides(Section):
    """
    What a profile may say in `[profiles.platform]`, and the section for all profiles.

    What a profile says replaces what the section says under the same key.
    """

    network: str = "own"
    """
    The network of the containers. `own`: one that the spawner makes, in which containers cannot
    reach each other. `per-user`: one for each person, in which only their own can. Anything
    else: the name of a network that is there.
    """
    mounts: list[MountSection] = []
    """What else is seen in the container, besides the volumes of the profile's storage."""
    environment: dict[str, str] = {}
    """Added to the environment of every server; wins over everything else there."""
    user: str = ""
    """
    Whom servers run as: `uid` or `uid:gid` in numbers; `system`, the system account of the
    person on the hub's machine; empty, whom the image says.
    """
    runtime: str = ""
    """The engine's runtime, such as `runsc` or `nvidia`; empty: its default."""
    shm_size: Annotated[Size, Field(ge=4096)] | None = None
    """Size of `/dev/shm`; without it the engine's default of 64 MiB."""
    devices: list[str] = []
    """Devices of the engine's machine, such as `/dev/fuse`."""
    extra_hosts: list[str] = []
    """Further names and addresses, such as `hub:host-gateway`."""
    dns: list[str] = []
    """Addresses of name servers; without them the engine's."""
    capabilities: list[str] = []
    """Linux capabilities that are kept; all others are dropped."""
    no_new_privileges: bool = True
    """Whether `sudo` and the like are of no use in the container."""
    read_only: bool = False
    """
    Whether the container's own file system can only be read; the volumes, the mounts and the
    directories of `tmpfs` can be written to.
    """
    tmpfs: dict[str, Size] = {}
    """Directories in memory, with their sizes; they count towards the memory limit."""
    processes_limit: Annotated[int, Field(ge=16)] = 4096
    """How many processes and threads a server may have."""
    working_dir: str = ""
    """The directory that the command starts in; empty: the image's."""
    entrypoint: list[str] | None = None
    """Replaces what the image runs the command with; `[]` for nothing."""
    init: bool = False
    """Whether the engine puts a small init process before the command, if the image has none."""
    entry: bool = True
    """
    Whether a server with volumes begins with a small program that looks whether these can be
    used, and starts it in a temporary directory if not. It needs `python3` in the image.
    """
    port: Port = 8888
    """Where servers listen in their containers."""

    @field_validator("network")
    @classmethod
    def _check_network(cls, network: str) -> str:
        if network in {"host", "none"} or not _NETWORK.fullmatch(network):
            raise ValueError(
                "'own', 'per-user' or the name of a network; not 'host', where all servers share "
                "one set of ports, and not another container's"
            )
        return network

    @field_validator("user")
    @classmethod
    def _check_user(cls, user: str) -> str:
        if not _USER.fullmatch(user):
            raise ValueError("numbers such as '1000' or '1000:100', 'system', or empty")
        return user

    @field_validator("tmpfs")
    @classmethod
    def _check_tmpfs(cls, tmpfs: dict[str, int]) -> dict[str, int]:
        for path in tmpfs:
            _check_path(path)
        return tmpfs


class DockerSettings(DockerOverrides, SpawnerSettings):
    """Servers in containers of one engine; for several engines there are several sections."""

    kind: str = "docker"
    """Which driver."""
    submit_limit: float = 120
    """Seconds the engine has to make and start a container, without those for its image."""
    url: str = ""
    """
    The engine: `unix:///var/run/docker.sock`, `tcp://host:2376`. Without it `DOCKER_HOST` of the
    hub's environment, or that socket. Who may talk to an engine is root on its machine.
    """
    tls_ca: Path | None = None
    """PEM file of the authority that the engine's certificate is believed by."""
    tls_cert: Path | None = None
    """PEM file with the certificate that the hub shows to the engine."""
    tls_key: Path | None = None
    """PEM file with its key."""
    engine_timeout: Annotated[float, Field(gt=0, le=300)] = 20
    """Seconds the engine has to answer a question."""
    image: str = ""
    """The image of profiles that name none."""
    pull: Literal["missing", "always", "never"] = "missing"
    """
    When images are fetched: those that are not there; every one, to have what its tag names
    now; or none.
    """
    pull_limit: Annotated[float, Field(gt=0)] = 1800
    """Seconds in which an image must have been fetched; failures are tried again meanwhile."""
    credentials: Path | None = None
    """
    A file as `docker login` writes it, with what registries want to see; only its owner may
    be able to read it.
    """
    publish: str = ""
    """
    An address of the engine's machine at which each server gets a port of its own, where hub
    and proxy are not on that machine and so cannot reach containers themselves.
    """
    join: list[str] = []
    """
    Containers that are connected to each network that `per-user` makes: those of hub and proxy,
    where they are containers of the same engine.
    """
    subnet: str = ""
    """The addresses of the network `own`, such as `10.77.0.0/16`; empty: the engine chooses."""
    mtu: Annotated[int, Field(ge=576, le=65535)] | None = None
    """The largest packet in networks that the spawner makes; without it the engine's default."""
    volume_driver: str = "local"
    """The kind of storage of volumes whose profile names none."""
    volume_options: dict[str, str] = {}
    """Options of that driver for every volume."""
    volume_size_option: str = ""
    """
    The driver's option that limits a volume's size, such as `size`, if it enforces that; without
    it sizes are measured only.
    """
    log_driver: str = "json-file"
    """What keeps the output of servers; empty: the engine's default."""
    log_limit: Annotated[Size, Field(ge=4096)] = 10 * 2**20
    """How much of a server's output is kept, by the drivers `json-file` and `local`."""

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if url and (parts.scheme not in _SCHEMES or not (parts.netloc or parts.path)):
            raise ValueError("unix:///path, tcp://host:port or https://host:port")
        return url

    @field_validator("image")
    @classmethod
    def _check_image(cls, image: str) -> str:
        if image and not is_reference(image):
            raise ValueError("not the name of an image with its tag, such as 'quay.io/a/b:1'")
        return image

    @field_validator("publish")
    @classmethod
    def _check_publish(cls, publish: str) -> str:
        if publish and ip_address(publish).is_unspecified:
            raise ValueError("one address, at which hub and proxy reach the engine's machine")
        return publish

    @field_validator("subnet")
    @classmethod
    def _check_subnet(cls, subnet: str) -> str:
        return str(ip_network(subnet)) if subnet else ""

    @field_validator("join")
    @classmethod
    def _check_join(cls, join: list[str]) -> list[str]:
        for name in join:
            if not _NETWORK.fullmatch(name):
                raise ValueError(f"{name[:80]!r} cannot be the name of a container")
        return join

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together")
        return self


def _check_path(path: str) -> str:
    """Return an absolute path of ordinary parts as it is; raise `ValueError` for others."""
    parts = path.rstrip("/").split("/")
    if parts[0] or len(parts) < 2 or {"", ".", ".."} & set(parts[1:]) or not path.isprintable():
        raise ValueError(f"{path[:80]!r} is not an absolute path of ordinary parts")
    return path
