"""
The Kubernetes spawner: a pod for each launch.

Names decide races, for the API server has no transactions: of two pods of one name the second is
refused; and a stop first leaves a note of the name and then looks for the pod, while a start first
makes the pod and then looks for the note. Whichever comes first, one sees the other.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Self

import anyio

from perijove.domain.errors import SpawnerPending, SpawnerRejected, SpawnerTransient
from perijove.domain.launch import Cause, End
from perijove.kit.clock import monotonic
from perijove.spawners.contract import (
    Checkpoint,
    Handle,
    LaunchSpec,
    Phase,
    Sighting,
    SpawnerSettings,
    Surroundings,
    Survey,
    VolumeSurvey,
)
from perijove.spawners.kubernetes import sections
from perijove.spawners.kubernetes.api import AlreadyThere, NotThere, connect
from perijove.spawners.kubernetes.cluster import Cluster
from perijove.spawners.kubernetes.ends import end_of, end_of_removed, own_end_of
from perijove.spawners.kubernetes.manifest import (
    ENVIRONMENT,
    adopted,
    overrides_of,
    pod_of,
    secret_of,
)
from perijove.spawners.kubernetes.names import (
    Ours,
    check_object_name,
    is_object_name,
    mark_name,
    namespace_for,
)
from perijove.spawners.kubernetes.objects import (
    CONFIG_MAPS,
    NAMESPACES,
    PODS,
    POLICIES,
    SECRETS,
    Object,
    namespace_of,
    uid_of,
)
from perijove.spawners.kubernetes.quotas import hopeless_code
from perijove.spawners.kubernetes.sections import SERVER, KubernetesSettings
from perijove.spawners.kubernetes.surroundings import (
    end_of_mark,
    mark_of,
    namespace_of_user,
    policy_of,
)
from perijove.spawners.kubernetes.truth import handle_of, sighting_of
from perijove.spawners.kubernetes.volumes import Volumes

_FIRST_LIST: Final = 5.0
_TO_BE_LESSENED: Final = 20
_QUOTA_PAUSE: Final = 5.0
"""Seconds between two tries of what a quota forbids: others have to end first."""


class KubernetesSpawner:
    """Starts servers as pods, and tells of them what the cluster's watch says."""

    Settings: ClassVar[type[SpawnerSettings]] = KubernetesSettings
    Overrides: ClassVar[type[sections.Overrides]] = sections.Overrides

    def __init__(self, settings: KubernetesSettings, surroundings: Surroundings) -> None:
        self._settings = settings
        self._ours = Ours(installation=surroundings.installation, spawner=surroundings.name)
        self._entered: Cluster | None = None
        self._stack = AsyncExitStack()
        self._prepared: set[str] = set()
        self._running: dict[str, Sighting] = {}
        """What the last survey said of pods that run, by their versions."""
        self._refused: dict[str, tuple[float, SpawnerPending]] = {}

    async def __aenter__(self) -> Self:
        """
        Begin to watch the cluster; one that is away is tried again for as long as it takes.

        Raises `ConfigError` when there is no way to it.
        """
        api = await connect(self._settings.kubeconfig, self._settings.context)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(api.close)
            tasks = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(tasks.cancel_scope.cancel)
            cluster = Cluster(api, self._settings, self._ours)
            cluster.watch(tasks)
            with anyio.move_on_after(_FIRST_LIST):
                await cluster.wait_for_all()
            self._entered = cluster
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Stop watching; pods run on."""
        self._entered = None
        await self._stack.aclose()

    # --- starting -------------------------------------------------------------------------

    async def start(self, spec: LaunchSpec, checkpoint: Checkpoint) -> Sighting:
        """Make the launch's volumes, secret and pod, whichever are not there."""
        check_object_name(spec.name)
        pod = pod_of(spec, self._settings, self._ours)
        secret = secret_of(spec, self._settings, self._ours, now=datetime.now(UTC))
        self._raise_what_holds(spec.name)
        if (end := await self._end_of_stopped(spec.name)) is not None:
            return _gone(spec.name, end)
        try:
            made = await self._make(spec, pod, secret, checkpoint)
        except SpawnerPending as error:
            self._hold(spec.name, error)
            raise
        self._cluster.pods.note(made)
        await checkpoint(handle_of(made))
        if own_end_of(await self._cluster.evidence(made)) is None:
            with suppress(NotThere):  # Stopped meanwhile.
                owned = adopted(secret, made)
                await self._cluster.api.replace(SECRETS, owned, namespace=namespace_of(made))
        if (end := await self._end_of_stopped(spec.name)) is not None:
            await self._remove(made, grace=0)
            return _gone(spec.name, end)
        return sighting_of(await self._cluster.evidence(made))

    def _hold(self, name: str, error: SpawnerPending) -> None:
        now = monotonic()
        self._refused = {one: held for one, held in self._refused.items() if held[0] > now}
        self._refused[name] = (now + _QUOTA_PAUSE, error)

    def _raise_what_holds(self, name: str) -> None:
        until, error = self._refused.pop(name, (0.0, None))
        if error is not None and monotonic() < until:
            self._refused[name] = (until, error)
            raise SpawnerPending(str(error), code=error.code, **error.params)

    async def _make(
        self, spec: LaunchSpec, pod: Object, secret: Object, checkpoint: Checkpoint
    ) -> Object:
        """Make the pod and all it needs; return it, or the one that is there."""
        namespace = await self._namespace_of(spec)
        try:
            await self._prepare(namespace, spec.user_name)
            for volume in spec.volumes:
                await self._volumes.ensure(volume, spec, namespace)
            if self._settings.namespace_per_user:
                # Until there is a pod nothing else says where the secret is.
                await checkpoint({"namespace": namespace})
            # Before its pod, which would wait for it; a stop removes it also without one.
            await self._put_secret(secret, namespace)
            return await self._cluster.api.create(PODS, pod, namespace=namespace)
        except AlreadyThere:
            found = await self._cluster.find(spec.name, namespace)
        except NotThere as error:
            self._prepared.discard(namespace)
            raise SpawnerTransient(f"{namespace}: {error}") from error
        except SpawnerPending as error:
            gpu = overrides_of(self._settings, spec.platform).gpu_resource
            if code := hopeless_code(str(error), gpu_resource=gpu):
                await self._remove_secret(spec.name, namespace)
                raise SpawnerRejected(str(error), code=code) from error
            raise
        except SpawnerRejected:
            await self._remove_secret(spec.name, namespace)
            raise
        if found is None:
            raise SpawnerTransient(f"there was another pod called {spec.name}")
        return found

    async def _put_secret(self, secret: Object, namespace: str) -> None:
        """Make a secret; one that is there may go with a pod that is gone, and is renewed."""
        api = self._cluster.api
        try:
            await api.create(SECRETS, secret, namespace=namespace)
        except AlreadyThere:
            await api.replace(SECRETS, secret, namespace=namespace)

    async def _namespace_of(self, spec: LaunchSpec) -> str:
        """Return where a launch is; what it keeps its data on decides, whatever people's names."""
        if not self._settings.namespace_per_user:
            return self._settings.namespace
        for volume in spec.volumes:
            if (claim := await self._volumes.find(volume.name)) is not None:
                return namespace_of(claim)
        return namespace_for(self._ours.installation, spec.user_name)

    async def _prepare(self, namespace: str, user_name: str) -> None:
        """Make sure of a namespace and its network policy, once."""
        if namespace in self._prepared:
            return
        api = self._cluster.api
        if self._settings.namespace_per_user:
            with suppress(AlreadyThere):
                made = namespace_of_user(self._ours, namespace, user_name)
                await api.create(NAMESPACES, made, namespace=None)
        if self._settings.network.policy:
            policy = policy_of(self._settings, self._ours)
            try:
                await api.create(POLICIES, policy, namespace=namespace)
            except AlreadyThere:
                await api.replace(POLICIES, policy, namespace=namespace)
        self._prepared.add(namespace)

    # --- surveying ------------------------------------------------------------------------

    async def survey(self) -> Survey:
        """Return what the watch has told of our pods; while it is broken, not all of it."""
        pods = self._cluster.pods
        if pods.is_old:
            raise SpawnerTransient(pods.silence)
        before, self._running = self._running, {}
        sightings = [await self._sighting(pod, before) for pod in pods.objects]
        return Survey(complete=pods.is_current, sightings=sightings)

    async def changed(self) -> None:
        """Return when the watch has told of a pod of ours since this last returned."""
        await self._cluster.pods.changes.wait(math.inf)

    async def _sighting(self, pod: Object, before: Mapping[str, Sighting]) -> Sighting:
        """Return what is to be said of a pod; of one that runs, only when it has changed."""
        version = f"{uid_of(pod)}/{pod['metadata']['resourceVersion']}"
        seen = before.get(version) or sighting_of(await self._cluster.evidence(pod))
        if seen.phase is Phase.RUNNING and "deletionTimestamp" not in pod["metadata"]:
            self._running[version] = seen
        return seen

    async def find_ends(self, handles: Mapping[str, Handle]) -> Mapping[str, End]:
        """Return how those ended that somebody else has removed: they are gone for certain."""
        ends = {}
        for name, handle in handles.items():
            uid, namespace = str(handle.get("uid", "")), str(handle.get("namespace", ""))
            if not uid:
                continue  # Its pod may never have been made.
            removed = self._cluster.pods.departed(uid)
            if removed is None:
                there = await self._cluster.find(name, namespace)
                if there is not None and uid_of(there) == uid:
                    continue
                removed = _unknown_pod(name, namespace, uid)
            ends[name] = end_of_removed(await self._cluster.evidence(removed))
        return ends

    async def log_tail(self, name: str, handle: Handle | None, *, lines: int) -> str:
        """Return what the server has written last."""
        namespace = self._known_namespace(name, handle)
        if not is_object_name(name) or not namespace:
            return ""
        try:
            return await self._cluster.api.log_tail(namespace, name, container=SERVER, lines=lines)
        except (NotThere, SpawnerRejected):  # No pod; or no container yet.
            return ""

    def warnings(self, *, public: bool) -> Sequence[str]:
        """
        Say that reasons may be old, though pods are heard of: nobody is counted absent for that.

        Where nothing at all is heard the platform is silent, which is said of it as of any.
        """
        cluster = self._entered
        is_half_deaf = cluster is not None and cluster.is_deaf and not cluster.pods.is_old
        return ["kubernetes-events-old"] if is_half_deaf else []

    def calls(self) -> Mapping[str, int]:
        """Return how often the API server was asked for what."""
        return dict(self._entered.api.calls) if self._entered else {}

    # --- stopping -------------------------------------------------------------------------

    async def stop(self, name: str, handle: Handle | None, *, grace: float) -> Sighting | None:
        """Leave a note that it was stopped, and remove its pod and its secret."""
        if not is_object_name(name):
            return None
        self._refused.pop(name, None)
        await self._mark(name, None)
        namespace = self._known_namespace(name, handle)
        pod = await self._cluster.find(name, namespace)
        if pod is None:
            if namespace:
                await self._remove_secret(name, namespace)
            return None
        end = await self._remove(pod, grace=grace)
        await self._mark(name, end)
        return _gone(name, end, handle_of(pod))

    async def _mark(self, name: str, end: End | None) -> None:
        """Note that `name` was stopped, and how it ended once that is known."""
        api, namespace = self._cluster.api, self._settings.namespace
        mark = mark_of(self._ours, name, now=datetime.now(UTC), end=end)
        with suppress(AlreadyThere):
            if end is None:
                await api.create(CONFIG_MAPS, mark, namespace=namespace)
                return
            with suppress(NotThere):
                await api.replace(CONFIG_MAPS, mark, namespace=namespace)

    async def _end_of_stopped(self, name: str) -> End | None:
        try:
            mark = await self._cluster.api.get(
                CONFIG_MAPS, self._settings.namespace, mark_name(self._ours, name)
            )
        except NotThere:
            return None
        return end_of_mark(mark)

    async def _remove(self, pod: Object, *, grace: float) -> End:
        """Remove a pod, wait until it is gone, and return how it ended."""
        before = await self._cluster.evidence(pod)
        # Without any it would vanish before its server has ended; one that never ran takes no
        # time, and what it is given is there to be lessened.
        seconds = max(1, int(grace))
        given = seconds if "running" in before.server else max(seconds, _TO_BE_LESSENED)
        with suppress(NotThere, AlreadyThere):
            await self._cluster.api.delete(
                PODS,
                namespace_of(pod),
                str(pod["metadata"]["name"]),
                uid=uid_of(pod),
                grace=given,
            )
        removed = await self._cluster.gone(pod, seconds + self._settings.stop_limit)
        await self._remove_secret(str(pod["metadata"]["name"]), namespace_of(pod))
        at_last = replace(before, pod=removed)
        return end_of(before) or own_end_of(at_last) or _cut_short(at_last)

    async def _remove_secret(self, name: str, namespace: str) -> None:
        labels = self._ours.selector(ENVIRONMENT, name)
        await self._cluster.api.delete_all(SECRETS, namespace, labels=labels)

    def _known_namespace(self, name: str, handle: Handle | None) -> str:
        """Return where something is; empty where that is not known."""
        if not self._settings.namespace_per_user:
            return self._settings.namespace
        if handle is not None and "namespace" in handle:
            return str(handle["namespace"])
        pod = self._cluster.pods.find(name)
        return namespace_of(pod) if pod is not None else ""

    # --- volumes --------------------------------------------------------------------------

    def enforces_size(self) -> bool:
        """Tell what the section says of its storage."""
        return self._settings.storage_enforced

    def measures_use(self) -> bool:
        """Say that it is not asked: only kubelets know, and that needs a right over all nodes."""
        return False

    async def survey_volumes(self) -> VolumeSurvey:
        """Return all claims that were made here, and which of our pods have them."""
        return await self._volumes.survey()

    async def remove_volume(self, name: str) -> bool:
        """Remove a claim, and with it what is on it, as its storage class says."""
        return await self._volumes.remove(name)

    @property
    def _cluster(self) -> Cluster:
        if self._entered is None:
            raise SpawnerTransient("there is no way to the cluster yet")
        return self._entered

    @property
    def _volumes(self) -> Volumes:
        return Volumes(self._cluster, self._settings, self._ours)


def _gone(name: str, end: End, handle: Handle | None = None) -> Sighting:
    return Sighting(name=name, phase=Phase.GONE, handle=handle, end=end)


def _cut_short(evidence: Any) -> End:
    """Return how something ended that was stopped and left no word of its own."""
    if "running" in evidence.server:
        return End(cause=Cause.UNKNOWN, reason="stopped")
    return End(cause=Cause.NEVER_STARTED, reason="cancelled")


def _unknown_pod(name: str, namespace: str, uid: str) -> Object:
    """Return a pod of which only its handle is left; its events may still be there."""
    metadata = {"name": name, "namespace": namespace, "uid": uid, "deletionTimestamp": None}
    return {"metadata": metadata, "spec": {"containers": [{"name": SERVER}]}, "status": {}}
