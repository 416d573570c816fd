"""What the engine is asked to make for a launch. Pure."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from perijove.agent.entry import wrapped
from perijove.domain.errors import SpawnerRejected
from perijove.domain.images import is_reference
from perijove.spawners.contract import LaunchSpec
from perijove.spawners.docker.labels import LAUNCH, PORT, readable_labels
from perijove.spawners.docker.sections import DockerOverrides, DockerSettings, MountSection

_PART: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")
_UNNAMED: Final = "_default"  # no name begins so
_TEMPORARY_BYTES: Final = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whom a server runs as."""

    user: str = ""
    """``uid:gid``; empty: whom the image says."""
    groups: tuple[str, ...] = ()


def settings_for(spec: LaunchSpec, settings: DockerSettings) -> DockerSettings:
    """Return the section with what the launch's profile says laid over it."""
    try:
        overrides = DockerOverrides.model_validate(dict(spec.platform))
    except ValidationError as error:
        raise SpawnerRejected(
            f"the profile's platform settings do not fit: {error.errors()[0]['msg']}",
            code="container-refused",
        ) from None
    said = {name: getattr(overrides, name) for name in overrides.model_fields_set}
    return settings.model_copy(update=said)


def image_of(spec: LaunchSpec, settings: DockerSettings) -> str:
    """Return the launch's image; raise `SpawnerRejected` when there is none that could be."""
    image = spec.image or settings.image
    if not image:
        raise SpawnerRejected(
            "neither the profile nor the spawner's section names an image", code="config-missing"
        )
    if not is_reference(image):
        raise SpawnerRejected(f"{image[:200]!r} is not an image's name", code="image-invalid")
    return image


def labels_of(
    spec: LaunchSpec, own: Mapping[str, str], settings: DockerSettings
) -> Mapping[str, str]:
    """Return what a launch's container carries; by `own` the spawner finds what is its own."""
    more = {LAUNCH: spec.launch_id, PORT: str(settings.port)}
    return {**readable_labels(spec.labels), **more, **own}


def container_config(
    spec: LaunchSpec,
    settings: DockerSettings,
    *,
    network: str,
    identity: Identity,
    labels: Mapping[str, str],
) -> Mapping[str, Any]:
    """Return the engine's description of a launch's container."""
    port = f"{settings.port}/tcp"
    config: dict[str, Any] = {
        "Image": image_of(spec, settings),
        "Env": [f"{key}={value}" for key, value in _environment(spec, settings).items()],
        "Labels": dict(labels),
        "ExposedPorts": {port: {}},
        "StopTimeout": int(settings.stop_grace),
        "HostConfig": _host_config(spec, settings, network=network, groups=identity.groups),
    }
    if spec.command:
        uses_entry = spec.volumes and settings.entry
        config["Cmd"] = wrapped(spec.command) if uses_entry else list(spec.command)
    if identity.user:
        config["User"] = identity.user
    if settings.working_dir:
        config["WorkingDir"] = settings.working_dir
    if settings.entrypoint is not None:
        config["Entrypoint"] = settings.entrypoint
    return config


def _environment(spec: LaunchSpec, settings: DockerSettings) -> Mapping[str, str]:
    environment = {
        **spec.environment,
        "JUPYTERHUB_SERVICE_URL": f"http://0.0.0.0:{settings.port}{spec.prefix}",
    }
    if spec.volumes:
        environment["PERIJOVE_VOLUMES"] = json.dumps([volume.path for volume in spec.volumes])
    return environment | settings.environment


def _host_config(
    spec: LaunchSpec, settings: DockerSettings, *, network: str, groups: Sequence[str]
) -> Mapping[str, Any]:
    return {
        "NetworkMode": network,
        "RestartPolicy": {"Name": "no"},  # What ended stays so: it is the evidence.
        "Mounts": [
            *(
                {"Type": "volume", "Source": each.name, "Target": each.path}
                for each in spec.volumes
            ),
            *(
                mount_of(each, user_name=spec.user_name, server_name=spec.server_name)
                for each in settings.mounts
            ),
        ],
        "Init": settings.init,
        "GroupAdd": list(groups),
        "ExtraHosts": settings.extra_hosts,
        "Dns": settings.dns,
        **_limits(spec, settings),
        **_confinement(settings),
        **_devices(spec, settings),
        **_output(settings),
        **({"PortBindings": _published(settings)} if settings.publish else {}),
        **({"Runtime": settings.runtime} if settings.runtime else {}),
    }


def _limits(spec: LaunchSpec, settings: DockerSettings) -> Mapping[str, Any]:
    limits: dict[str, Any] = {"PidsLimit": settings.processes_limit}
    if spec.resources.cpu is not None:
        limits["NanoCpus"] = round(spec.resources.cpu * 1e9)
    if spec.resources.memory_bytes is not None:
        # Of memory and swap together; so there is no swap.
        limits["Memory"] = limits["MemorySwap"] = spec.resources.memory_bytes
    if settings.shm_size is not None:
        limits["ShmSize"] = settings.shm_size
    return limits


def _confinement(settings: DockerSettings) -> Mapping[str, Any]:
    tmpfs = dict(settings.tmpfs)
    if settings.read_only:
        tmpfs.setdefault("/tmp", _TEMPORARY_BYTES)  # noqa: S108 - in the container
    return {
        "CapDrop": ["ALL"],
        "CapAdd": settings.capabilities,
        "SecurityOpt": ["no-new-privileges"] if settings.no_new_privileges else [],
        "Privileged": False,
        "ReadonlyRootfs": settings.read_only,
        # What is built there is also run there.
        "Tmpfs": {path: f"rw,exec,nosuid,nodev,size={size}" for path, size in tmpfs.items()},
    }


def _devices(spec: LaunchSpec, settings: DockerSettings) -> Mapping[str, Any]:
    devices: dict[str, Any] = {
        "Devices": [
            {"PathOnHost": path, "PathInContainer": path, "CgroupPermissions": "rwm"}
            for path in settings.devices
        ]
    }
    if spec.resources.gpu:
        devices["DeviceRequests"] = [{"Count": spec.resources.gpu, "Capabilities": [["gpu"]]}]
    return devices


def _output(settings: DockerSettings) -> Mapping[str, Any]:
    if not settings.log_driver:
        return {}
    log: dict[str, Any] = {"Type": settings.log_driver}
    if settings.log_driver in {"json-file", "local"}:
        log["Config"] = {"max-size": str(settings.log_limit // 2), "max-file": "2"}
    return {"LogConfig": log}


def _published(settings: DockerSettings) -> Mapping[str, Any]:
    return {f"{settings.port}/tcp": [{"HostIp": settings.publish, "HostPort": ""}]}


def mount_of(mount: MountSection, *, user_name: str, server_name: str) -> Mapping[str, Any]:
    """Return a mount of somebody's server; no two have one that both names are in."""
    source = mount.source
    for placeholder, name in (("{user}", user_name), ("{server}", server_name)):
        if placeholder in source:
            source = source.replace(placeholder, _part(name) if name else _UNNAMED)
    kind = "bind" if source.startswith("/") else "volume"
    return {"Type": kind, "Source": source, "Target": mount.target, "ReadOnly": mount.read_only}


def _part(name: str) -> str:
    """Return a name that is one ordinary part of a path, whatever stands beside it."""
    if not _PART.fullmatch(name) or ".." in name:
        raise SpawnerRejected(
            f"{name[:80]!r} cannot be the name of a directory: letters, digits and . _ @ + - only",
            code="volume-failed",
        )
    return name
