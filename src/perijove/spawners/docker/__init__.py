"""Servers in containers of a Docker engine, or of another one that speaks its language."""

from perijove.domain.errors import ConfigError

try:
    import aiodocker  # noqa: F401 - only to say well that it is missing
except ModuleNotFoundError as error:
    raise ConfigError(
        "spawners of kind 'docker' need aiodocker: pip install 'perijove[docker]'"
    ) from error

from perijove.spawners.docker.sections import DockerOverrides, DockerSettings
from perijove.spawners.docker.spawner import DockerSpawner

__all__ = ["DockerOverrides", "DockerSettings", "DockerSpawner"]
