"""What stands in a section ``[spawners.NAME]`` of the kind `kubernetes`, and in profiles for it."""

import re
from collections.abc import Sequence
from decimal import Decimal
from ipaddress import ip_network
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from perijove.kit.config import Section, Size
from perijove.spawners.contract import SpawnerSettings
from perijove.spawners.kubernetes.objects import quantity
from perijove.spawners.kubernetes.overlay import check_overlay
from perijove.spawners.kubernetes.shapes import check_shape

_PERCENT = re.compile(r"\s*([0-9]{1,3}(?:\.[0-9]{1,3})?)\s*%\s*")
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_QUALIFIED = re.compile(
    r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")

SERVER = "server"
"""The name of the container in which the server runs."""
OURS = "perijove.org/"
"""What the keys of our own labels and annotations begin with."""


def fraction_of(guarantee: str) -> Decimal | None:
    """Return how much of the limit a guarantee in percent is; None for one that is a value."""
    match = _PERCENT.fullmatch(guarantee)
    return Decimal(match[1]) / 100 if match else None


def _check_guarantee(guarantee: str) -> str:
    fraction = fraction_of(guarantee)
    if fraction is None:
        quantity(guarantee)
    elif fraction > 1:
        raise ValueError("a guarantee is at most 100 % of the limit")
    return guarantee


def _check_labels(labels: dict[str, str]) -> dict[str, str]:
    for key, value in labels.items():
        if not _QUALIFIED.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            raise ValueError(f"{key[:80]} = {value[:80]!r} is not a label")
    return _check_keys(labels)


def _check_keys(entries: dict[str, str]) -> dict[str, str]:
    for key in entries:
        if not _QUALIFIED.fullmatch(key):
            raise ValueError(f"{key[:80]!r} is not the name of a label or an annotation")
        if key.startswith(OURS):
            raise ValueError(f"{key[:80]} belongs to the hub")
    return entries


def _check_quantities(resources: dict[str, str]) -> dict[str, str]:
    for name, amount in resources.items():
        if not _QUALIFIED.fullmatch(name):
            raise ValueError(f"{name[:80]!r} is not the name of a resource")
        quantity(amount)
    return resources


def _check_dns_label(name: str) -> str:
    if not _DNS_LABEL.fullmatch(name):
        raise ValueError(f"{name[:80]!r} must be 1 to 63 of a-z, 0-9 and '-'")
    return name


def _check_networks(networks: list[str]) -> list[str]:
    for network in networks:
        ip_network(network)
    return networks


Guarantee = Annotated[str, AfterValidator(_check_guarantee)]
Labels = Annotated[dict[str, str], AfterValidator(_check_labels)]
Annotations = Annotated[dict[str, str], AfterValidator(_check_keys)]
Quantities = Annotated[dict[str, str], AfterValidator(_check_quantities)]
DnsLabel = Annotated[str, AfterValidator(_check_dns_label)]
Networks = Annotated[list[str], AfterValidator(_check_networks)]
Parts = list[dict[str, Any]]


class TolerationSection(Section):
    """A taint of nodes that a pod puts up with."""

    key: str = ""
    """The taint's key; empty: any."""
    operator: Literal["Equal", "Exists"] = "Equal"
    """Whether `value` counts."""
    value: str = ""
    """The taint's value."""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    """The taint's effect; empty: any."""
    seconds: int | None = None
    """How long it puts up with a `NoExecute`; without it for ever."""


class SecuritySection(Section):
    """Under which account a server runs, and what it may do."""

    user: Annotated[int, Field(ge=0)] | Literal["image"] = 1000
    """Number of the account; or that which the image says."""
    group: Annotated[int, Field(ge=0)] | Literal["image"] = 100
    """Number of its group; or that which the image says."""
    volume_group: Annotated[int, Field(ge=0)] | Literal["none"] = 100
    """Number of the group that volumes are given to."""
    root: bool = False
    """Whether it may run as root."""
    gain_privileges: bool = False
    """Whether programs such as sudo work."""
    capabilities: list[str] = []
    """What it keeps of root's powers, such as `["NET_BIND_SERVICE"]`; all others are dropped."""
    seccomp: Literal["RuntimeDefault", "Unconfined", ""] = "RuntimeDefault"
    """Which system calls it may make; empty: what the cluster's own default is."""
    read_only_root: bool = False
    """Whether it can write to its volumes only; `/tmp` is then in memory."""


class Overrides(Section):
    """
    What a profile may say to Kubernetes; in the spawner's section, what holds for all profiles.

    A profile's value replaces the section's.
    """

    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    """When nodes fetch an image anew."""
    pull_secrets: list[DnsLabel] = []
    """Names of the secrets with which images are fetched."""
    cpu_guarantee: Guarantee = "100 %"
    """How much of its cores a server has for itself: of the limit, or a value such as `"500m"`."""
    memory_guarantee: Guarantee = "100 %"
    """How much of its memory a server has for itself: of the limit, or such as `"1Gi"`."""
    gpu_resource: str = "nvidia.com/gpu"
    """What this cluster calls a GPU."""
    extra_resources: Quantities = {}
    """Further resources, guarantee and limit in one: `{ "example.com/dongle" = "1" }`."""
    node_selector: Labels = {}
    """Labels that the node must have."""
    affinity: dict[str, Any] = {}
    """Which nodes are preferred, in Kubernetes' own words (`nodeAffinity`, …)."""
    tolerations: list[TolerationSection] = []
    """Taints of nodes that servers put up with."""
    priority_class: str = ""
    """The name of a PriorityClass."""
    runtime_class: str = ""
    """The name of a RuntimeClass, such as that of gVisor."""
    scheduler: str = ""
    """The name of the scheduler; empty: the cluster's own."""
    service_account: str = ""
    """As whom a server may ask the API server; without it no token is mounted at all."""
    security: SecuritySection = SecuritySection()
    """Under which account a server runs, and what it may do."""
    shared_memory: Size | None = None
    """Size of `/dev/shm`, which counts as the server's memory; the runtime has 64 MiB."""
    environment_from_secrets: list[DnsLabel] = []
    """Names of secrets whose entries become variables."""
    environment_from_config_maps: list[DnsLabel] = []
    """Names of config maps whose entries become variables."""
    volumes: Parts = []
    """Further volumes, in Kubernetes' own words: `{ name = "data", nfs = { … } }`."""
    volume_mounts: Parts = []
    """
    Where the server has them: `{ name = "data", mountPath = "/data", readOnly = true }`. In a
    `subPath`, `{user}` stands for the person's name, as it is: who has one that cannot be a
    folder's name does not start.
    """
    init_containers: Parts = []
    """Containers that run before the server, one after the other, in Kubernetes' own words."""
    sidecars: Parts = []
    """Containers that run beside the server, in Kubernetes' own words."""
    labels: Labels = {}
    """Further labels of the pod."""
    annotations: Annotations = {}
    """Annotations of the pod."""
    overlay: dict[str, Any] = {}
    """
    A part of a pod's manifest that is laid over it last, for what has no setting here.

    Tables are merged, lists whose entries have names by these, other lists replaced. The name, the
    hub's labels and what holds the token cannot be changed.
    """

    @field_validator("overlay")
    @classmethod
    def _check_overlay(cls, overlay: dict[str, Any]) -> dict[str, Any]:
        check_overlay(overlay)
        check_shape(overlay, "V1Pod")
        return overlay

    @field_validator("affinity")
    @classmethod
    def _check_affinity(cls, affinity: dict[str, Any]) -> dict[str, Any]:
        check_shape(affinity, "V1Affinity")
        return affinity

    @field_validator("init_containers", "sidecars")
    @classmethod
    def _check_containers(cls, containers: Parts) -> Parts:
        _check_parts(containers, "V1Container", "image")
        if any(one["name"] == SERVER for one in containers):
            raise ValueError(f"the name {SERVER!r} is that of the server's own container")
        return containers

    @field_validator("volumes")
    @classmethod
    def _check_volumes(cls, volumes: Parts) -> Parts:
        _check_parts(volumes, "V1Volume")
        if any(str(one["name"]).startswith("perijove-") for one in volumes):
            raise ValueError("names that begin with perijove- are the hub's")
        return volumes

    @field_validator("volume_mounts")
    @classmethod
    def _check_mounts(cls, mounts: Parts) -> Parts:
        _check_parts(mounts, "V1VolumeMount", "mountPath")
        for one in mounts:
            if not PurePosixPath(str(one["mountPath"])).is_absolute():
                raise ValueError(f"mountPath = {one['mountPath']!r} must be absolute")
        return mounts


def _check_parts(parts: Sequence[dict[str, Any]], kind: str, *keys: str) -> None:
    for part in parts:
        for key in ("name", *keys):
            if not isinstance(part.get(key), str):
                raise ValueError(f"each entry needs a text `{key}`")
    check_shape(parts, f"List[{kind}]")


class NetworkSection(Section):
    """
    Who reaches servers, and whom they reach: a NetworkPolicy in each namespace with servers.

    The cluster's network has to enforce it; not every one does.
    """

    policy: bool = True
    """Whether the policy is made. Without it, servers reach each other's ports."""
    hub_labels: Labels = {"app.kubernetes.io/name": "perijove"}
    """The pods of hub and proxy, which alone reach servers."""
    hub_namespace_labels: Labels = {}
    """Labels of the namespace these are in; without them in any."""
    hub_networks: Networks = []
    """From where hub and proxy come when they are outside of the cluster: `["10.1.0.5/32"]`."""
    blocked: Networks = ["169.254.0.0/16", "fd00:ec2::254/128"]
    """Whom servers do not reach: by default the cloud's metadata services."""


class KubernetesSettings(SpawnerSettings, Overrides):
    """Servers as pods of a Kubernetes cluster."""

    kubeconfig: Path | None = None
    """How the cluster is reached; without it by the service account of the hub's own pod."""
    context: str = ""
    """Which of the contexts in `kubeconfig`; empty: its current one."""
    namespace: DnsLabel
    """Where the servers are, and what the hub remembers of those that were stopped."""
    namespace_per_user: bool = False
    """Give each person a namespace, `pj-<installation>-<16 characters>`, that is made here."""
    image: str = ""
    """The image of profiles that name none."""
    entrypoint: list[str] = []
    """Run instead of the image's own entry point, before `command`."""
    entry: bool = True
    """Look at volumes before the server starts, so that it starts although one is full; needs
    `python3` in the image."""
    port: Annotated[int, Field(ge=1024, le=65535)] = 8888
    """Where servers listen in their pods."""
    network: NetworkSection = NetworkSection()
    """Who reaches servers, and whom they reach."""
    storage_class: str = ""
    """The storage class of volumes whose profile names none; empty: the cluster's default."""
    storage_access: Literal["ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"] = "ReadWriteOnce"
    """Whether pods of several nodes can have a volume at once."""
    storage_default_size: Size = 10 * 2**30
    """What is asked for where nobody limits a volume: a claim has to have a size."""
    storage_enforced: bool = True
    """Whether a volume cannot hold more than its size; not so with `hostPath` and most NFS."""
    look_at_nodes: bool = True
    """Compare requests with what the largest node has; needs the right to list nodes."""
    autoscaled: bool = False
    """The cluster can grow nodes larger than those it has: no request is too large for it."""
    watch_seconds: Annotated[int, Field(ge=5, le=300)] = 45
    """How long one watch lasts: after twice that without a word, what is known counts as old."""
    relist_seconds: Annotated[float, Field(ge=10)] = 300
    """Seconds between two full lists, which put right whatever a watch has missed."""
    submit_limit: float = 60
    """Seconds the platform has to take a request."""
    start_limit: float = 600
    """Seconds from running to saying where it listens."""
    stop_limit: Annotated[float, Field(gt=0)] = 45
    """Seconds that a pod has to vanish after `stop_grace`; later it is tried again."""

    @model_validator(mode="after")
    def _check_network(self) -> Self:
        if self.kubeconfig and self.network.policy and not self.network.hub_networks:
            raise ValueError(
                "with `kubeconfig` the hub is outside of the cluster: say in `network.hub_networks`"
                " from where it and the proxy come, or `network.policy = false`"
            )
        return self
