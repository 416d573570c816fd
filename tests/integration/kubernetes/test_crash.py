"""A hub that dies at any question to the API server loses nothing, and leaves nothing behind."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from perijove.domain.launch import Cause, End
from perijove.kit.ids import platform_name
from perijove.spawners.contract import Handle, LaunchSpec, Phase, VolumeSpec
from perijove.spawners.kubernetes.names import DAY, NAME, Ours
from perijove.spawners.kubernetes.spawner import KubernetesSpawner
from perijove.spawners.kubernetes.surroundings import mark_of
from tests.contract.spawners.kubernetes_site import (
    KubernetesSite,
    a_cluster,
    apply,
    kubectl,
    shown,
)
from tests.contract.spawners.sites import eventually, find, recorded
from tests.fakes.crashes import AtStep, Crash, die
from tests.integration.kubernetes.conftest import order

pytestmark = [pytest.mark.anyio, pytest.mark.needs("kubernetes"), pytest.mark.timeout(300)]

NOWHERE = {"node_selector": {"example.org/nowhere": "yes"}}
"""What is made and removed is looked at, not what runs: no pod here gets to a node."""


class InterruptedSpawner(KubernetesSpawner):
    """Is interrupted before the n-th question to the API server from now."""

    def interrupt(self, step: int, happens: Callable[[], None]) -> AtStep:
        """Choose the question, and what happens then."""
        calls = AtStep(step, happens)
        self._cluster.api.calls = calls
        return calls

    async def dies_starting(self, step: int, spec: LaunchSpec, handles: list[Handle]) -> bool:
        """Start, and tell whether the hub has died before its n-th question; keep handles."""

        async def record(handle: Handle) -> None:
            handles.append(handle)

        self.interrupt(step, die)
        try:
            await self.start(spec, record)
        except Crash:
            return True
        return False


def nowhere(name: str) -> LaunchSpec:
    """Return a launch with a new volume, for a node that there is not."""
    home = VolumeSpec(name=f"{name}-home", path="/data", size_bytes=2**20)
    return order(name, platform=NOWHERE, volumes=[home])


def objects_of(name: str) -> Mapping[str, Sequence[Any]]:
    """Return all objects of a launch, in whichever namespace, by their kinds."""
    kinds = "pods,secrets,configmaps"
    found = shown(kinds, "--all-namespaces", f"--selector={NAME}={name}")["items"]
    kinds_of = {one["kind"] for one in found}
    return {kind: [one for one in found if one["kind"] == kind] for kind in kinds_of}


async def test_start_survives_its_hub(site: KubernetesSite) -> None:
    """Whenever the hub dies while it starts a server, the next one has exactly one of it."""
    for step in count(1):
        name = platform_name("start")
        async with site.place(InterruptedSpawner) as hub:
            died = await hub.dies_starting(step, nowhere(name), [])
        async with site.place(KubernetesSpawner) as spawner:
            seen = await find(spawner, name)
            await spawner.start(nowhere(name), recorded)
            made = objects_of(name)
            (pod,), (secret,) = made["Pod"], made["Secret"]
            (owner,) = secret["metadata"]["ownerReferences"]
            assert owner["uid"] == pod["metadata"]["uid"]
            assert DAY not in secret["metadata"]["labels"]
            if seen is not None and seen.handle is not None:
                assert seen.handle["uid"] == pod["metadata"]["uid"]
            assert await spawner.stop(name, None, grace=0) is not None
            assert objects_of(name).keys() == {"ConfigMap"}
        if not died:
            break
    assert step > 8


@pytest.mark.parametrize("per_user", [False, True], ids=["shared", "per-user"])
async def test_cancel_survives_its_hub(tmp_path: Path, per_user: bool) -> None:
    """Whenever the hub dies while it starts a server, a stop by the next one leaves nothing."""
    with a_cluster(tmp_path, per_user=per_user) as site:
        for step in count(1):
            name, handles = platform_name("cancel"), list[Handle]()
            async with site.place(InterruptedSpawner, namespace_per_user=per_user) as hub:
                died = await hub.dies_starting(step, nowhere(name), handles)
            async with site.place(KubernetesSpawner, namespace_per_user=per_user) as spawner:
                before = await find(spawner, name)
                gone = await spawner.stop(name, handles[-1] if handles else None, grace=0)
                assert (gone is None) == (before is None), step
                assert objects_of(name).keys() == {"ConfigMap"}, step
                late = await spawner.start(nowhere(name), recorded)
                assert await find(spawner, name) is None
                assert late.end == End(cause=Cause.NEVER_STARTED, reason="cancelled")
                assert objects_of(name).keys() == {"ConfigMap"}, step
            if not died:
                break
        assert step > 8


async def test_stop_survives_its_hub(site: KubernetesSite) -> None:
    """Whenever the hub dies while it stops a server, asking again leaves nothing of it."""
    for step in count(1):
        name, died = platform_name("stop"), True
        async with site.place(InterruptedSpawner) as hub:
            await hub.start(nowhere(name), recorded)
            hub.interrupt(step, die)
            try:
                await hub.stop(name, None, grace=0)
                died = False
            except Crash:
                pass
        async with site.place(KubernetesSpawner) as spawner:
            before = await find(spawner, name)
            gone = await spawner.stop(name, None, grace=0)
            late = await spawner.start(nowhere(name), recorded)
            assert await find(spawner, name) is None
        assert (gone is None) == (before is None), step
        assert late.phase is Phase.GONE
        assert objects_of(name).keys() == {"ConfigMap"}, step
        if not died:
            break
    assert step > 4


async def test_a_stop_wins_whenever_it_comes(site: KubernetesSite) -> None:
    """Whenever another hub stops a launch that is being started, nothing is left of it."""
    ours = Ours(installation=site.own(), spawner="kubernetes")
    async with site.place(InterruptedSpawner) as spawner:
        for step in count(1):
            name = platform_name("race")

            def stop(name: str = name) -> None:
                """Do on the cluster what another hub's `stop` does there."""
                mark = mark_of(ours, name, now=datetime.now(UTC))
                mark["metadata"]["namespace"] = site.namespace
                apply(mark)
                kubectl(
                    "delete", "pods,secrets", "--grace-period=1",
                    f"--namespace={site.namespace}", f"--selector={NAME}={name}",
                )  # fmt: skip

            asked = spawner.interrupt(step, stop)
            late = await spawner.start(nowhere(name), recorded)
            if asked.left > 0:
                break
            assert late.phase is Phase.GONE, step
            assert objects_of(name).keys() == {"ConfigMap"}, step
    assert step > 6


async def test_secret_is_kept_for_a_pod_that_waits_for_days(site: KubernetesSite) -> None:
    """What a hub that died has left is swept one day, but for what a pod still waits for."""
    names = [platform_name("waits"), platform_name("none"), platform_name("over")]
    waits, none, over = names
    async with site.place(InterruptedSpawner) as hub:
        await hub.start(order(over, platform=NOWHERE), recorded)
        await hub.stop(over, None, grace=0)
        # What a start asks from the second on: the mark, the secret, the pod, the secret again.
        assert await hub.dies_starting(3, order(none, platform=NOWHERE), [])
        assert await hub.dies_starting(4, order(waits, platform=NOWHERE), [])
    assert objects_of(none).keys() == {"Secret"}
    assert objects_of(waits).keys() == {"Pod", "Secret"}
    kubectl(
        "label", "--overwrite", f"--namespace={site.namespace}", "secrets,configmaps",
        f"--selector={NAME} in ({','.join(names)})", f"{DAY}=2001-01-01",
    )  # fmt: skip

    async def is_swept() -> bool:
        return not objects_of(none) and not objects_of(over)

    async with site.place(KubernetesSpawner):
        assert await eventually(is_swept)
    assert objects_of(waits).keys() == {"Pod", "Secret"}
