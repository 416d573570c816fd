"""A hundred servers are watched, not polled: how often the API server is asked is counted."""

from collections import Counter

import anyio
import pytest

from perijove.spawners.contract import Phase
from perijove.spawners.kubernetes.spawner import KubernetesSpawner
from tests.contract.spawners.kubernetes_site import KubernetesSite
from tests.contract.spawners.sites import NAME, eventually, recorded
from tests.integration.kubernetes.conftest import order, ours

pytestmark = [pytest.mark.anyio, pytest.mark.needs("kubernetes")]

SERVERS = 100
NOWHERE = {"node_selector": {"example.org/nowhere": "yes"}}
"""They are all the API server has to do with; no kubelet runs a hundred of them here."""


async def test_hundred_servers_are_watched(
    site: KubernetesSite, spawner: KubernetesSpawner
) -> None:
    """A hundred launches cost a few calls each, and to look at them costs none."""
    names = [f"{NAME}-{number}" for number in range(SERVERS)]
    limit = anyio.CapacityLimiter(20)

    async def start(name: str) -> None:
        async with limit:
            await spawner.start(order(name, platform=NOWHERE), recorded)

    async def stop(name: str) -> None:
        async with limit:
            await spawner.stop(name, None, grace=1)

    async def all_wait() -> bool:
        survey = await spawner.survey()
        codes = [one.reason.code for one in survey.sightings if one.reason]
        return survey.complete and codes == ["no-node"] * SERVERS

    async with anyio.create_task_group() as tasks:
        for name in names:
            tasks.start_soon(start, name)
    assert await eventually(all_wait)
    started = Counter(spawner.calls())
    for _ in range(SERVERS):
        survey = await spawner.survey()
        assert {one.phase for one in survey.sightings} == {Phase.PENDING}
    watched = Counter(spawner.calls()) - started
    async with anyio.create_task_group() as tasks:
        for name in names:
            tasks.start_soon(stop, name)

    assert started["create pods"] == started["create secrets"] == SERVERS
    assert started["list pods"] == 1
    assert started["watch pods"] <= 2
    assert started["get pods"] == 0
    assert sum(watched.values()) <= 4  # Watches and lists that fell due meanwhile.
    assert not (await spawner.survey()).sightings
    assert spawner.calls()["get pods"] <= SERVERS * 1.1
    assert not ours(site, "secrets")
