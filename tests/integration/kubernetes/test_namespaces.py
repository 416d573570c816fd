"""A namespace for each person, made at their first start, with the rights that this takes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from perijove.spawners.contract import Phase, VolumeSpec
from perijove.spawners.kubernetes.names import namespace_for
from perijove.spawners.kubernetes.spawner import KubernetesSpawner
from tests.contract.spawners.kubernetes_site import KubernetesSite, a_cluster, shown
from tests.contract.spawners.sites import NAME, answers, find, phase, recorded
from tests.integration.kubernetes.conftest import order

pytestmark = [pytest.mark.anyio, pytest.mark.needs("kubernetes")]

HOME = VolumeSpec(name=f"{NAME}-home", path="/home/jovyan/data", size_bytes=2**20)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[KubernetesSite]:
    """Give the cluster to a hub that may make namespaces; afterwards they are gone."""
    with a_cluster(tmp_path, per_user=True) as site:
        yield site


async def test_each_person_has_a_namespace(site: KubernetesSite) -> None:
    """Servers of two people are in two namespaces, each with its policy; both are seen, and end."""
    async with site.place(KubernetesSpawner, namespace_per_user=True) as spawner:
        for name, user in ((f"{NAME}-1", "ann"), (f"{NAME}-2", "Ann")):
            await spawner.start(order(name, user_name=user), recorded)
            await answers(await phase(spawner, name, Phase.RUNNING))
        found = shown("pods,networkpolicies", "--all-namespaces",
                      f"--selector=perijove.org/installation={site.own()}")  # fmt: skip
        async with site.place(KubernetesSpawner, namespace_per_user=True) as later:
            for name in (f"{NAME}-1", f"{NAME}-2"):
                assert await later.stop(name, None, grace=1) is not None
                assert await find(later, name) is None

    places = {(one["kind"], one["metadata"]["namespace"]) for one in found["items"]}
    homes = {namespace_for(site.own(), user) for user in ("ann", "Ann")}
    assert places == {(kind, home) for kind in ("Pod", "NetworkPolicy") for home in homes}


async def test_volume_is_found_again_under_a_new_name(site: KubernetesSite) -> None:
    """Who is called something else finds their volume, in the namespace where it is."""
    async with site.place(KubernetesSpawner, namespace_per_user=True) as spawner:
        for name, user in ((f"{NAME}-1", "ann"), (f"{NAME}-2", "anna")):
            await spawner.start(order(name, user_name=user, volumes=[HOME]), recorded)
            running = await phase(spawner, name, Phase.RUNNING)
            await spawner.stop(name, running.handle, grace=1)

    assert running.handle is not None
    assert running.handle["namespace"] == namespace_for(site.own(), "ann")
