"""The objects of one launch: its pod, the secret with its environment, its volumes' claims."""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from pydantic import ValidationError

from perijove.agent.entry import wrapped
from perijove.domain.errors import SpawnerRejected
from perijove.spawners.contract import LaunchSpec, VolumeSpec
from perijove.spawners.kubernetes.names import (
    DAY,
    LAUNCH,
    NAME,
    USER,
    Ours,
    day,
    launch_labels,
    readable,
)
from perijove.spawners.kubernetes.names import SERVER as SERVER_NAME
from perijove.spawners.kubernetes.objects import (
    CLAIMS,
    PODS,
    SECRETS,
    Object,
    name_of,
    quantity,
    uid_of,
)
from perijove.spawners.kubernetes.overlay import merged
from perijove.spawners.kubernetes.sections import (
    OURS,
    SERVER,
    KubernetesSettings,
    Overrides,
    fraction_of,
)

POD: Final = "server"
ENVIRONMENT: Final = "environment"
VOLUME: Final = "volume"

_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]{0,250}")
_FOLDER = re.compile(r"[A-Za-z0-9_@][A-Za-z0-9_@.+-]{0,127}")


def overrides_of(settings: KubernetesSettings, platform: Mapping[str, Any]) -> Overrides:
    """Return what holds for one launch: what its profile says, else what the section says."""
    try:
        said = Overrides.model_validate(platform)
    except ValidationError as error:
        # The whole of it repeats what was read, which is the administrator's own.
        words = error.errors()[0]["msg"]
        raise SpawnerRejected(
            f"the profile's platform settings do not fit: {words}", code="bad-option"
        ) from None
    values = {
        key: getattr(said if key in said.model_fields_set else settings, key)
        for key in Overrides.model_fields
    }
    return Overrides.model_construct(**values)


def pod_of(spec: LaunchSpec, settings: KubernetesSettings, ours: Ours) -> dict[str, Any]:
    """Return the pod of a launch; raises `SpawnerRejected` when there can be none."""
    chosen = overrides_of(settings, spec.platform)
    pod: dict[str, Any] = {
        "apiVersion": PODS.api_version,
        "kind": PODS.name,
        "metadata": {
            "name": spec.name,
            "labels": {**chosen.labels, **ours.labels(POD), **launch_labels(spec)},
            "annotations": {
                **chosen.annotations,
                LAUNCH: spec.launch_id,
                USER: spec.user_name,
                SERVER_NAME: spec.server_name,
                f"{OURS}port": str(settings.port),
                f"{OURS}gpu": chosen.gpu_resource,
            },
        },
        "spec": {
            "restartPolicy": "Never",
            "enableServiceLinks": False,
            "automountServiceAccountToken": bool(chosen.service_account),
            "terminationGracePeriodSeconds": max(int(settings.stop_grace), 0),
            "securityContext": _pod_security(chosen),
            "containers": [_server(spec, settings, chosen), *chosen.sidecars],
            "initContainers": list(chosen.init_containers),
            "volumes": _volumes(spec, chosen),
            **_placement(chosen),
        },
    }
    if spec.resources.time_seconds is not None:
        pod["spec"]["activeDeadlineSeconds"] = spec.resources.time_seconds
    laid: dict[str, Any] = merged(pod, chosen.overlay)
    return laid


def secret_of(
    spec: LaunchSpec, settings: KubernetesSettings, ours: Ours, *, now: datetime
) -> dict[str, Any]:
    """Return the secret with a launch's environment, which no pod has yet."""
    environment = dict(spec.environment) | {
        "JUPYTERHUB_SERVICE_URL": f"http://0.0.0.0:{settings.port}{spec.prefix}"
    }
    if spec.volumes:
        environment["PERIJOVE_VOLUMES"] = json.dumps([volume.path for volume in spec.volumes])
    for name in environment:
        if not _VARIABLE.fullmatch(name):
            raise SpawnerRejected(
                f"{name[:80]!r} cannot be the name of a variable here", code="bad-option"
            )
    labels = {**ours.labels(ENVIRONMENT), **launch_labels(spec), DAY: day(now)}
    return {
        "apiVersion": SECRETS.api_version,
        "kind": SECRETS.name,
        "metadata": {"name": spec.name, "labels": labels},
        "type": "Opaque",
        "data": {
            name: base64.b64encode(value.encode()).decode() for name, value in environment.items()
        },
    }


def adopted(secret: Object, pod: Object) -> dict[str, Any]:
    """Return a secret that is removed together with its pod, and not before."""
    metadata = secret["metadata"]
    owner = {
        "apiVersion": PODS.api_version,
        "kind": PODS.name,
        "name": name_of(pod),
        "uid": uid_of(pod),
    }
    labels = {key: value for key, value in metadata["labels"].items() if key != DAY}
    return {**secret, "metadata": {**metadata, "labels": labels, "ownerReferences": [owner]}}


def claim_of(
    volume: VolumeSpec, spec: LaunchSpec, settings: KubernetesSettings, ours: Ours
) -> dict[str, Any]:
    """Return the claim of a volume, which stays when the launch ends."""
    size = settings.storage_default_size if volume.size_bytes is None else volume.size_bytes
    readables = {
        f"{OURS}{readable(key)}": readable(value)
        for key, value in volume.labels.items()
        if readable(key)
    }
    wanted: dict[str, Any] = {
        "accessModes": [settings.storage_access],
        "resources": {"requests": {"storage": str(size)}},
    }
    if storage_class := volume.storage_class or settings.storage_class:
        wanted["storageClassName"] = storage_class
    return {
        "apiVersion": CLAIMS.api_version,
        "kind": CLAIMS.name,
        "metadata": {
            "name": volume.name,
            "labels": {**readables, **ours.labels(VOLUME), NAME: volume.name},
            "annotations": {
                USER: spec.user_name,
                f"{OURS}labels": json.dumps(dict(volume.labels)),
            },
        },
        "spec": wanted,
    }


def _server(spec: LaunchSpec, settings: KubernetesSettings, chosen: Overrides) -> dict[str, Any]:
    image = spec.image or settings.image
    if not image:
        raise SpawnerRejected("neither profile nor spawner names an image", code="image-invalid")
    command = list(spec.command)
    if spec.volumes and settings.entry:
        command = wrapped(command)
    container: dict[str, Any] = {
        "name": SERVER,
        "image": image,
        "imagePullPolicy": chosen.image_pull_policy,
        "args": [_literally(word) for word in command],
        "envFrom": _environment(spec, chosen),
        "ports": [{"name": "http", "containerPort": settings.port}],
        "resources": _resources(spec, chosen),
        "securityContext": _container_security(chosen),
        "volumeMounts": _mounts(spec, chosen),
    }
    if settings.entrypoint:
        container["command"] = [_literally(word) for word in settings.entrypoint]
    return container


def _literally(word: str) -> str:
    """Return a word of a command so that `$(NAME)` in it stays what it is."""
    return word.replace("$(", "$$(")


def _environment(spec: LaunchSpec, chosen: Overrides) -> Sequence[dict[str, Any]]:
    """Return where variables come from; of two of one name the later wins."""
    return [
        *({"configMapRef": {"name": name}} for name in chosen.environment_from_config_maps),
        *({"secretRef": {"name": name}} for name in chosen.environment_from_secrets),
        {"secretRef": {"name": spec.name}},
    ]


def _resources(spec: LaunchSpec, chosen: Overrides) -> dict[str, dict[str, str]]:
    asked = spec.resources
    limits = dict(chosen.extra_resources)
    if asked.gpu:
        limits[chosen.gpu_resource] = str(asked.gpu)
    requests = dict(limits)  # What is not cpu or memory cannot be shared.
    for resource, limit, guarantee in (
        ("cpu", asked.cpu, chosen.cpu_guarantee),
        ("memory", asked.memory_bytes, chosen.memory_guarantee),
    ):
        most = None if limit is None else Decimal(str(limit))
        if most is not None:
            limits[resource] = _write(resource, most)
        if (least := _guaranteed(guarantee, most)) is not None:
            requests[resource] = _write(resource, least)
    return {"limits": limits, "requests": requests}


def _guaranteed(guarantee: str, limit: Decimal | None) -> Decimal | None:
    fraction = fraction_of(guarantee)
    if fraction is not None:
        return None if limit is None else limit * fraction
    value = quantity(guarantee)
    return value if limit is None else min(value, limit)


def _write(resource: str, amount: Decimal) -> str:
    return f"{int(amount * 1000)}m" if resource == "cpu" else str(int(amount))


def _pod_security(chosen: Overrides) -> dict[str, Any]:
    security = chosen.security
    context: dict[str, Any] = {"runAsNonRoot": not security.root}
    if security.user != "image":
        context["runAsUser"] = security.user
    if security.group != "image":
        context["runAsGroup"] = security.group
    if security.volume_group != "none":
        context["fsGroup"] = security.volume_group
        # Changing owners of all files of a large volume at each start takes minutes.
        context["fsGroupChangePolicy"] = "OnRootMismatch"
    if security.seccomp:
        context["seccompProfile"] = {"type": security.seccomp}
    return context


def _container_security(chosen: Overrides) -> dict[str, Any]:
    security = chosen.security
    return {
        "allowPrivilegeEscalation": security.gain_privileges,
        "capabilities": {"drop": ["ALL"], "add": list(security.capabilities)},
        "privileged": False,
        "readOnlyRootFilesystem": security.read_only_root,
    }


def _volumes(spec: LaunchSpec, chosen: Overrides) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [
        {"name": f"perijove-{number}", "persistentVolumeClaim": {"claimName": volume.name}}
        for number, volume in enumerate(spec.volumes)
    ]
    if chosen.shared_memory is not None:
        memory = {"medium": "Memory", "sizeLimit": str(chosen.shared_memory)}
        volumes.append({"name": "perijove-shm", "emptyDir": memory})
    if chosen.security.read_only_root:
        volumes.append({"name": "perijove-tmp", "emptyDir": {"medium": "Memory"}})
    return [*volumes, *chosen.volumes]


def _mounts(spec: LaunchSpec, chosen: Overrides) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = [
        {"name": f"perijove-{number}", "mountPath": volume.path}
        for number, volume in enumerate(spec.volumes)
    ]
    if chosen.shared_memory is not None:
        mounts.append({"name": "perijove-shm", "mountPath": "/dev/shm"})  # noqa: S108 - in a pod
    if chosen.security.read_only_root:
        mounts.append({"name": "perijove-tmp", "mountPath": "/tmp"})  # noqa: S108 - in a pod
    return [*mounts, *(_for_user(mount, spec.user_name) for mount in chosen.volume_mounts)]


def _for_user(mount: Mapping[str, Any], user_name: str) -> dict[str, Any]:
    """Return a mount whose folder is the person's own; no two people have one."""
    inside = str(mount.get("subPath", ""))
    if "{user}" not in inside:
        return dict(mount)
    if not _FOLDER.fullmatch(user_name):
        raise SpawnerRejected(
            f"{user_name[:80]!r} cannot be the name of a folder", code="volume-failed"
        )
    return dict(mount) | {"subPath": inside.replace("{user}", user_name)}


def _placement(chosen: Overrides) -> dict[str, Any]:
    tolerations = [
        {
            key: value
            for key, value in {
                "key": one.key,
                "operator": one.operator,
                "value": one.value,
                "effect": one.effect,
                "tolerationSeconds": one.seconds,
            }.items()
            if value not in ("", None)
        }
        for one in chosen.tolerations
    ]
    wanted = {
        "imagePullSecrets": [{"name": name} for name in chosen.pull_secrets],
        "nodeSelector": chosen.node_selector,
        "affinity": chosen.affinity,
        "tolerations": tolerations,
        "priorityClassName": chosen.priority_class,
        "runtimeClassName": chosen.runtime_class,
        "schedulerName": chosen.scheduler,
        "serviceAccountName": chosen.service_account,
    }
    return {key: value for key, value in wanted.items() if value}
