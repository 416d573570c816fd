"""One cluster as the spawner sees it: pods and events, mirrored, and its nodes, asked."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

import anyio
import anyio.abc

from perijove.domain.errors import SpawnerRejected, SpawnerTransient
from perijove.kit.clock import monotonic
from perijove.kit.loops import every
from perijove.spawners.kubernetes.api import AlreadyThere, Api, NotThere
from perijove.spawners.kubernetes.evidence import (
    Evidence,
    Node,
    claims_of,
    in_order,
    nodes_of,
)
from perijove.spawners.kubernetes.manifest import ENVIRONMENT, POD
from perijove.spawners.kubernetes.mirror import Mirror, Rhythm, Scope
from perijove.spawners.kubernetes.names import DAY, NAME, Ours, old_days
from perijove.spawners.kubernetes.objects import (
    CLAIMS,
    CONFIG_MAPS,
    EVENTS,
    NODES,
    PODS,
    SECRETS,
    Kind,
    Object,
    name_of,
    namespace_of,
    uid_of,
)
from perijove.spawners.kubernetes.sections import KubernetesSettings
from perijove.spawners.kubernetes.surroundings import OVER

_NODES_PERIOD: Final = 60.0
_NODES_LATE: Final = 120.0
"""Seconds for which nodes that could not be listed again are taken to be as they were."""
_NODES_PAUSE: Final = 10.0
_FORBIDDEN_PERIOD: Final = 600.0
_SWEEP_PERIOD: Final = 3600.0
_LOOK_PERIOD: Final = 3.0
"""Seconds without news of what is being removed, after which it is asked for."""


class Cluster:
    """What is on the cluster and ours."""

    def __init__(self, api: Api, settings: KubernetesSettings, ours: Ours) -> None:
        self.api = api
        self._settings = settings
        self._ours = ours
        rhythm = Rhythm(
            watch_seconds=settings.watch_seconds, relist_seconds=settings.relist_seconds
        )
        self.everywhere = None if settings.namespace_per_user else settings.namespace
        """Where our things can be; None: in each namespace."""
        pods = Scope(kind=PODS, namespace=self.everywhere, labels=ours.selector(POD))
        self.pods = Mirror(api, pods, rhythm, key=name_of)
        self._events = Mirror(api, self._events_of(PODS), rhythm, key=_uid_of_involved)
        self._claim_events = Mirror(api, self._events_of(CLAIMS), rhythm, key=_path_of_involved)
        self._nodes: list[Node] | None = None
        self._nodes_until = 0.0
        self._nodes_good_until = 0.0

    def _events_of(self, kind: Kind) -> Scope:
        fields = f"involvedObject.kind={kind.name}"
        return Scope(kind=EVENTS, namespace=self.everywhere, fields=fields)

    def watch(self, tasks: anyio.abc.TaskGroup) -> None:
        """Begin to watch, until `tasks` are cancelled."""
        tasks.start_soon(self.pods.run)
        tasks.start_soon(self._events.run)
        tasks.start_soon(self._claim_events.run)
        tasks.start_soon(self._sweep_now_and_then)

    async def wait_for_all(self) -> None:
        """Return once all has been listed."""
        for mirror in (self.pods, self._events, self._claim_events):
            await mirror.synced.wait()

    @property
    def is_deaf(self) -> bool:
        """Tell whether nothing is heard of events, so that they do not say how it is now."""
        return self._events.is_old or self._claim_events.is_old

    async def evidence(self, pod: Object) -> Evidence:
        """Return all that is known of a pod."""
        return Evidence(
            pod=pod,
            events=in_order(self._events.of(uid_of(pod))),
            claim_events=in_order(self._events_of_claims(pod)),
            deaf=self.is_deaf,
            nodes=await self._known_nodes() if _depends_on_nodes(pod) else None,
            find_pod=self.pods.find,
            growable=self._settings.autoscaled,
            now=datetime.now(UTC),
        )

    def _events_of_claims(self, pod: Object) -> list[Object]:
        paths = [CLAIMS.path(namespace_of(pod), name) for name in claims_of(pod)]
        return [event for path in paths for event in self._claim_events.of(path)]

    async def find(self, name: str, namespace: str) -> Object | None:
        """Return the pod of ours that has a name, as it is now; `namespace` empty: anywhere."""
        if not namespace and self.everywhere is None:
            found, _ = await self.api.list(
                PODS, None, labels=self._ours.selector(POD), fields=f"metadata.name={name}"
            )
            return found[0] if found else None
        try:
            pod = await self.api.get(PODS, namespace or self.everywhere, name)
        except NotThere:
            return None
        return pod if self._ours.owns(pod, POD) else None

    async def gone(self, pod: Object, seconds: float) -> Object:
        """
        Return a pod as it was at last, once it is gone.

        The watch tells; where it is silent the API server is asked. Raises `SpawnerTransient`
        when it is still there after `seconds`.
        """
        name, uid = name_of(pod), uid_of(pod)
        latest = monotonic() + seconds
        while (departed := self.pods.departed(uid)) is None:
            if monotonic() >= latest:
                node = pod["spec"].get("nodeName") or "no node"
                raise SpawnerTransient(f"{name} is still being removed, on {node}")
            before = self._version(name, uid)
            await self.pods.change(name, min(_LOOK_PERIOD, max(latest - monotonic(), 0)))
            if self._version(name, uid) != before:
                continue
            seen = self._last_seen(pod)
            if not await self._is_there(pod):
                self.pods.note_gone(seen)
            elif "running" not in Evidence(pod=seen, now=datetime.now(UTC)).server:
                await self._hasten(seen)
        return departed

    async def _hasten(self, pod: Object) -> None:
        """
        Have the kubelet look at a pod again that is to be removed and never ran.

        One that failed to make a container at that very moment does not for a minute; a second
        less to end is news to it.
        """
        grace = int(pod["metadata"].get("deletionGracePeriodSeconds") or 0) - 1
        if grace > 0:
            namespace, name = namespace_of(pod), name_of(pod)
            with suppress(NotThere, AlreadyThere):
                await self.api.delete(PODS, namespace, name, uid=uid_of(pod), grace=grace)

    def _version(self, name: str, uid: str) -> str:
        there = {uid_of(one): one for one in self.pods.of(name)}
        return str(there[uid]["metadata"]["resourceVersion"]) if uid in there else ""

    def _last_seen(self, pod: Object) -> Object:
        return next((one for one in self.pods.of(name_of(pod)) if uid_of(one) == uid_of(pod)), pod)

    async def _is_there(self, pod: Object) -> bool:
        found = await self.find(name_of(pod), namespace_of(pod))
        return found is not None and uid_of(found) == uid_of(pod)

    async def _known_nodes(self) -> list[Node] | None:
        if not self._settings.look_at_nodes:
            return None
        if monotonic() >= self._nodes_until:
            try:
                found, _ = await self.api.list(NODES, None)
            except SpawnerRejected:  # The right is an optional one.
                self._nodes, self._nodes_until = None, monotonic() + _FORBIDDEN_PERIOD
            except SpawnerTransient:
                # It must not hide what is known of pods, as long as it is good enough.
                if monotonic() >= self._nodes_good_until:
                    raise
                self._nodes_until = monotonic() + _NODES_PAUSE
            else:
                self._nodes, self._nodes_until = nodes_of(found), monotonic() + _NODES_PERIOD
                self._nodes_good_until = self._nodes_until + _NODES_LATE
        return self._nodes

    async def _sweep_now_and_then(self) -> None:
        await self.pods.synced.wait()  # Before that it is not known which secrets are waited for.
        await every(_SWEEP_PERIOD, self._sweep, name="kubernetes:sweep", deadline=60)

    async def _sweep(self) -> None:
        """Remove notes, and secrets that no pod needs any more, that are older than yesterday."""
        old = f"{DAY},{old_days(datetime.now(UTC))}"
        waiting = ",".join(name_of(pod) for pod in self.pods.objects if _waits(pod))
        # A hub that died right after it had made a pod has left its secret as it was before.
        unneeded = f"{old},{NAME} notin ({waiting})" if waiting else old
        for kind, part, chosen in ((CONFIG_MAPS, OVER, old), (SECRETS, ENVIRONMENT, unneeded)):
            labels = f"{self._ours.selector(part)},{chosen}"
            await self.api.delete_all(kind, self._settings.namespace, labels=labels)


def _waits(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") == "Pending"


def _uid_of_involved(event: Object) -> str:
    return str(event["involvedObject"].get("uid", ""))


def _path_of_involved(event: Object) -> str:
    involved = event["involvedObject"]
    return CLAIMS.path(str(involved.get("namespace", "")), str(involved.get("name", "")))


def _depends_on_nodes(pod: Object) -> bool:
    """Tell whether anything is to be said of a pod that its nodes decide."""
    waits = not pod["spec"].get("nodeName") and any(
        one["type"] == "PodScheduled" and one["status"] != "True"
        for one in (pod.get("status") or {}).get("conditions") or ()
    )
    return waits or "deletionTimestamp" in pod["metadata"]
