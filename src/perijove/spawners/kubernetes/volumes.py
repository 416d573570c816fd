"""Volumes that outlive a launch: claims, made at the first use and removed on request only."""

import json
from collections.abc import Mapping

from perijove.domain.errors import SpawnerPending, SpawnerRejected
from perijove.spawners.contract import (
    LaunchSpec,
    VolumeSighting,
    VolumeSpec,
    VolumeSurvey,
)
from perijove.spawners.kubernetes.api import AlreadyThere, NotThere
from perijove.spawners.kubernetes.cluster import Cluster
from perijove.spawners.kubernetes.manifest import VOLUME, claim_of
from perijove.spawners.kubernetes.names import INSTALLATION, PART, Ours, is_object_name
from perijove.spawners.kubernetes.objects import (
    CLAIMS,
    Object,
    labels_of,
    name_of,
    namespace_of,
    quantity,
    uid_of,
)
from perijove.spawners.kubernetes.sections import OURS, KubernetesSettings

_OVER = {"Succeeded", "Failed"}


class Volumes:
    """The claims of one spawner's launches."""

    def __init__(self, cluster: Cluster, settings: KubernetesSettings, ours: Ours) -> None:
        self._cluster = cluster
        self._settings = settings
        self._ours = ours

    async def ensure(self, volume: VolumeSpec, spec: LaunchSpec, namespace: str) -> None:
        """
        Make a volume unless it is there.

        Raises `SpawnerPending` while one of its name is being removed, `SpawnerRejected` when its
        name is another's.
        """
        api = self._cluster.api
        try:
            claim = await api.get(CLAIMS, namespace, volume.name)
        except NotThere:
            try:
                made = claim_of(volume, spec, self._settings, self._ours)
                claim = await api.create(CLAIMS, made, namespace=namespace)
            except AlreadyThere:
                claim = await api.get(CLAIMS, namespace, volume.name)
        if not self._is_of_installation(claim):
            raise SpawnerRejected(f"the volume {volume.name} is not ours", code="volume-missing")
        if "deletionTimestamp" in claim["metadata"]:
            raise SpawnerPending(f"{volume.name} is being removed", code="volume-pending")

    async def find(self, name: str) -> Object | None:
        """Return a volume of this installation, in whichever namespace."""
        found, _ = await self._cluster.api.list(
            CLAIMS, self._cluster.everywhere, fields=f"metadata.name={name}"
        )
        return next((claim for claim in found if self._is_of_installation(claim)), None)

    async def survey(self) -> VolumeSurvey:
        """Return all volumes that were made here, and who has them."""
        claims, _ = await self._cluster.api.list(
            CLAIMS, self._cluster.everywhere, labels=self._ours.selector(VOLUME)
        )
        holders = self._holders()
        return VolumeSurvey(
            complete=self._cluster.pods.is_current,
            volumes=[
                VolumeSighting(
                    name=name_of(claim),
                    size_bytes=_size_of(claim) if self._settings.storage_enforced else None,
                    held_by=holders.get((namespace_of(claim), name_of(claim)), ()),
                    labels=_labels(claim),
                )
                for claim in claims
            ],
        )

    async def remove(self, name: str) -> bool:
        """Remove a volume that nobody has; True when nothing of that name is left."""
        claim = await self.find(name) if is_object_name(name) else None
        if claim is None:
            return True
        if (namespace_of(claim), name) in self._holders():
            return False
        try:
            await self._cluster.api.delete(CLAIMS, namespace_of(claim), name, uid=uid_of(claim))
            await self._cluster.api.get(CLAIMS, namespace_of(claim), name)
        except NotThere:
            return True
        except AlreadyThere:
            return False  # Another one of its name, made this very moment.
        return False

    def _is_of_installation(self, claim: Object) -> bool:
        wanted = {key: self._ours.labels(VOLUME)[key] for key in (INSTALLATION, PART)}
        return wanted.items() <= labels_of(claim).items()

    def _holders(self) -> Mapping[tuple[str, str], tuple[str, ...]]:
        """Return which of our pods that are not over have which claim."""
        held: dict[tuple[str, str], tuple[str, ...]] = {}
        for pod in self._cluster.pods.objects:
            if (pod.get("status") or {}).get("phase") in _OVER:
                continue
            for volume in pod["spec"].get("volumes") or ():
                claim = volume.get("persistentVolumeClaim", {}).get("claimName", "")
                key = (namespace_of(pod), claim)
                held[key] = (*held.get(key, ()), name_of(pod))
        return held


def _size_of(claim: Object) -> int:
    granted = (claim.get("status") or {}).get("capacity") or {}
    asked = claim["spec"]["resources"]["requests"]
    return int(quantity(granted.get("storage") or asked["storage"]))


def _labels(claim: Object) -> Mapping[str, str]:
    written = (claim["metadata"].get("annotations") or {}).get(f"{OURS}labels", "{}")
    found: Mapping[str, str] = json.loads(written)
    return found
