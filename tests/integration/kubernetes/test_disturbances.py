"""What a cluster does to servers, and what a hub makes of a cluster that is away for a while."""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import anyio.abc
import pytest

from perijove.domain.errors import SpawnerTransient
from perijove.domain.launch import Cause
from perijove.spawners.contract import Phase
from perijove.spawners.kubernetes.spawner import KubernetesSpawner
from tests.contract.spawners.kubernetes_site import KubernetesSite, kubectl
from tests.contract.spawners.sites import NAME, answers, eventually, find, phase, recorded
from tests.integration.kubernetes.conftest import disturbed, order

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.needs("kubernetes"),
    pytest.mark.timeout(180),
]


@dataclass(slots=True)
class Wire:
    """A way to the API server that can be cut without a word to either side."""

    kubeconfig: Path
    frozen: bool = False
    thawed: anyio.Event = field(default_factory=anyio.Event)

    async def carry(self, source: anyio.abc.ByteStream, target: anyio.abc.ByteStream) -> None:
        """Carry what is said one way, while it is not frozen."""
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            while True:
                said = await source.receive()
                if self.frozen:
                    await self.thawed.wait()
                    return  # What was cut once stays cut.
                await target.send(said)


@asynccontextmanager
async def a_wire(site: KubernetesSite, folder: Path) -> AsyncIterator[Wire]:
    """Give a way to the API server through this test."""
    config = json.loads(site.kubeconfig.read_text())
    cluster = config["clusters"][0]["cluster"]
    server = urlsplit(cluster["server"])
    host, port = str(server.hostname), server.port or 443
    wire = Wire(folder / "wire.json")

    async def serve(client: anyio.abc.SocketStream) -> None:
        upstream = await anyio.connect_tcp(host, port)
        async with client, upstream, anyio.create_task_group() as both:

            async def way(source: anyio.abc.ByteStream, target: anyio.abc.ByteStream) -> None:
                await wire.carry(source, target)
                both.cancel_scope.cancel()

            both.start_soon(way, client, upstream)
            both.start_soon(way, upstream, client)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    local = listener.extra(anyio.abc.SocketAttribute.local_port)
    cluster |= {"server": f"https://127.0.0.1:{local}", "tls-server-name": host}
    wire.kubeconfig.write_text(json.dumps(config))
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield wire
        wire.thawed.set()
        tasks.cancel_scope.cancel()


async def test_silent_connection_is_noticed(site: KubernetesSite, tmp_path: Path) -> None:
    """A connection that dies without a word makes the hub say that it does not know, and mends."""
    async with a_wire(site, tmp_path) as wire:
        placed = site.place(KubernetesSpawner, kubeconfig=wire.kubeconfig, watch_seconds=5)
        async with placed as spawner:
            await spawner.start(order(), recorded)
            running = await phase(spawner, NAME, Phase.RUNNING)

            async def is_silent() -> bool:
                with suppress(SpawnerTransient):
                    await spawner.survey()
                    return False
                return True

            async def is_known_again() -> bool:
                with suppress(SpawnerTransient):
                    return (await spawner.survey()).complete
                return False

            wire.frozen = True
            assert await eventually(is_silent)
            kubectl("delete", "pod", NAME, f"--namespace={site.namespace}", "--grace-period=1")
            wire.frozen = False
            wire.thawed.set()
            assert await eventually(is_known_again)

            assert await find(spawner, NAME) is None
            assert running.handle is not None
            ends = await spawner.find_ends({NAME: running.handle})
            assert ends[NAME].cause is Cause.CANCELLED_OUTSIDE


async def test_api_server_may_be_away(spawner: KubernetesSpawner) -> None:
    """While the API server is away nothing is said to be gone; afterwards all is as it was."""
    await spawner.start(order(), recorded)
    running = await phase(spawner, NAME, Phase.RUNNING)

    with disturbed("kill", "kube-apiserver", mend=("start", "kube-apiserver")):

        async def is_noticed() -> bool:
            return not (await spawner.survey()).complete

        assert await eventually(is_noticed)
        with pytest.raises(SpawnerTransient):
            await spawner.start(order(f"{NAME}-late"), recorded)
        with pytest.raises(SpawnerTransient):
            await spawner.stop(NAME, running.handle, grace=1)
        assert [one.phase for one in (await spawner.survey()).sightings] == [Phase.RUNNING]

    async def is_complete() -> bool:
        return (await spawner.survey()).complete

    assert await eventually(is_complete)
    assert await find(spawner, NAME) == running
    await answers(running)
    assert await spawner.stop(NAME, running.handle, grace=1) is not None


async def test_hub_may_start_before_its_cluster(site: KubernetesSite) -> None:
    """A hub that starts while the API server is away knows nothing, and learns all later."""
    with disturbed("stop", "kube-apiserver", mend=("start", "kube-apiserver")):
        spawner = site.place(KubernetesSpawner)
        await spawner.__aenter__()
        with pytest.raises(SpawnerTransient):
            await spawner.survey()

    async def is_complete() -> bool:
        with suppress(SpawnerTransient):
            return (await spawner.survey()).complete
        return False

    try:
        assert await eventually(is_complete)
    finally:
        await spawner.__aexit__(None, None, None)


async def test_kubelet_may_be_away(spawner: KubernetesSpawner) -> None:
    """What is started while the kubelet is away waits; what ran is not disturbed."""
    await spawner.start(order(f"{NAME}-before"), recorded)
    before = await phase(spawner, f"{NAME}-before", Phase.RUNNING)

    with disturbed("kill", "kubelet", mend=("start", "kubelet")):
        await spawner.start(order(), recorded)
        waiting = await phase(spawner, NAME, Phase.PENDING)
        assert waiting.reason is not None
        assert (await find(spawner, f"{NAME}-before")) == before
        await answers(before)

    await answers(await phase(spawner, NAME, Phase.RUNNING))
    assert await find(spawner, f"{NAME}-before") == before


async def test_drained_node_is_told(spawner: KubernetesSpawner) -> None:
    """Who is driven from a node hears why; and who wants to start there waits until it is back."""
    await spawner.start(order(), recorded)
    await phase(spawner, NAME, Phase.RUNNING)
    node = os.environ["PERIJOVE_TEST_KUBERNETES_NODE"]
    seen: list[Cause] = []

    async def is_over() -> bool:
        sighting = await find(spawner, NAME)
        if sighting is None:
            ends = await spawner.find_ends({NAME: running.handle or {}})
            seen.append(ends[NAME].cause)
        elif sighting.end is not None:
            seen.append(sighting.end.cause)
        return bool(seen)

    running = await phase(spawner, NAME, Phase.RUNNING)
    kubectl("cordon", node)
    try:
        chosen = "--pod-selector=perijove.org/name=" + NAME
        kubectl("drain", node, chosen, "--force", "--delete-emptydir-data", "--grace-period=2")
        assert await eventually(is_over)
        await spawner.start(order(f"{NAME}-late"), recorded)
        late = await phase(spawner, f"{NAME}-late", Phase.PENDING)

        async def says_why() -> bool:
            sighting = await find(spawner, f"{NAME}-late")
            return sighting is not None and (
                sighting.reason is not None and sighting.reason.code == "no-node"
            )

        assert await eventually(says_why)
    finally:
        kubectl("uncordon", node)

    assert seen == [Cause.NODE_FAIL]
    await answers(await phase(spawner, late.name, Phase.RUNNING))
