"""Pods on a real cluster: what they are made of, why they wait, and how they end."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from perijove.domain.errors import SpawnerPending, SpawnerRejected
from perijove.domain.launch import Cause, End, Resources
from perijove.domain.reasons import find_reason
from perijove.spawners.contract import Phase, Sighting, VolumeSpec
from perijove.spawners.kubernetes.spawner import KubernetesSpawner
from tests.contract.spawners.kubernetes_site import KubernetesSite, apply, kubectl
from tests.contract.spawners.sites import (
    NAME,
    SECRET,
    answers,
    eventually,
    find,
    phase,
    recorded,
)
from tests.integration.kubernetes.conftest import order, ours, python

pytestmark = [pytest.mark.anyio, pytest.mark.needs("kubernetes")]


async def waits_for(spawner: KubernetesSpawner, code: str) -> Sighting:
    """Survey until the launch waits for a reason, and return that sighting."""
    seen: list[Sighting] = []

    async def look() -> bool:
        sighting = await find(spawner, NAME)
        seen[:] = [sighting] if sighting else []
        return (
            sighting is not None
            and (sighting.reason is not None)
            and (sighting.reason.code == code)
        )

    assert await eventually(look), f"it is {seen}, and does not wait for {code}"
    return seen[0]


async def test_token_is_in_a_secret_of_the_pod(
    site: KubernetesSite, spawner: KubernetesSpawner
) -> None:
    """What a pod's manifest shows holds no token; its secret goes when the pod does."""
    await spawner.start(order(), recorded)
    await phase(spawner, NAME, Phase.RUNNING)
    (pod,), (secret,) = ours(site, "pods"), ours(site, "secrets")

    assert SECRET not in json.dumps(pod)
    assert "JUPYTERHUB_API_TOKEN" in secret["data"]
    assert [one["uid"] for one in secret["metadata"]["ownerReferences"]] == [pod["metadata"]["uid"]]

    kubectl("delete", "pod", NAME, f"--namespace={site.namespace}", "--grace-period=1")

    async def is_gone() -> bool:
        return not ours(site, "secrets")

    assert await eventually(is_gone)


async def test_server_has_few_powers(site: KubernetesSite, spawner: KubernetesSpawner) -> None:
    """A server runs under an ordinary account, without powers, and has no way to the API."""
    source = """
import os
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines()
              if ":\\t" in line)
print(os.getuid(), os.getgid(), status["CapEff"], status["NoNewPrivs"],
      os.path.exists("/var/run/secrets/kubernetes.io"))
"""
    await spawner.start(order(command=python(source)), recorded)
    await phase(spawner, NAME, Phase.GONE)

    said = await spawner.log_tail(NAME, None, lines=5)

    assert said.split() == ["1000", "100", "0000000000000000", "1", "False"]


async def test_network_policy_is_there(site: KubernetesSite, spawner: KubernetesSpawner) -> None:
    """The first start makes the policy that lets hub and proxy alone reach servers."""
    await spawner.start(order(), recorded)
    (policy,) = ours(site, "networkpolicies")

    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    selected = policy["spec"]["podSelector"]["matchLabels"].items()
    (pod,) = ours(site, "pods")
    assert selected <= pod["metadata"]["labels"].items()
    (ingress,) = policy["spec"]["ingress"]
    assert ingress["ports"] == [{"port": 8888, "protocol": "TCP"}]
    assert all(
        not ("podSelector" in peer and peer["podSelector"].get("matchLabels", {}).items()
             <= pod["metadata"]["labels"].items())
        for peer in ingress["from"]
    )  # fmt: skip
    blocked = policy["spec"]["egress"][0]["to"][0]["ipBlock"]["except"]
    assert "169.254.0.0/16" in blocked


async def test_profile_says_where_it_runs(spawner: KubernetesSpawner) -> None:
    """What a profile says of the platform holds for its launches: an image that is not there."""
    platform = {"image_pull_policy": "Never", "labels": {"example.org/tier": "small"}}

    await spawner.start(order(image="perijove-test/absent:1", platform=platform), recorded)
    gone = await phase(spawner, NAME, Phase.GONE)

    assert gone.end is not None
    assert (gone.end.cause, gone.end.reason) == (Cause.NEVER_STARTED, "image-not-found")
    assert "perijove-test/absent:1" in gone.end.detail


async def test_registry_that_is_away_is_waited_for(spawner: KubernetesSpawner) -> None:
    """An image whose registry does not answer may yet come."""
    await spawner.start(order(image="127.0.0.1:1/lab:1"), recorded)

    seen = await waits_for(spawner, "image-pull-failing")

    assert seen.reason is not None
    assert "127.0.0.1:1" in seen.reason.words


async def test_more_than_any_node_has_never_starts(spawner: KubernetesSpawner) -> None:
    """What no node of the cluster has room for, were it empty, is said to be too much."""
    await spawner.start(order(resources=Resources(cpu=500)), recorded)

    seen = await waits_for(spawner, "over-cpu")

    assert seen.reason is not None
    assert find_reason(seen.reason.code).can_never_start


async def test_what_no_node_has_at_all_never_starts(spawner: KubernetesSpawner) -> None:
    """A device that nobody brought to the cluster is not waited for."""
    asked = {"extra_resources": {"example.org/dongle": "1"}}
    await spawner.start(order(platform=asked), recorded)

    seen = await waits_for(spawner, "over-resource")

    assert seen.reason is not None
    assert dict(seen.reason.params) == {"asked": 1, "most": 0}
    assert "example.org/dongle" in seen.reason.words
    assert find_reason("over-resource").can_never_start


async def test_storage_that_nobody_makes_is_not_waited_for(
    site: KubernetesSite, spawner: KubernetesSpawner
) -> None:
    """A class of storage that the cluster does not have ends the start, by the claim's own word."""
    volume = VolumeSpec(name=f"{NAME}-absent", path="/home/jovyan", storage_class="absent")

    await spawner.start(order(volumes=[volume]), recorded)
    gone = await phase(spawner, NAME, Phase.GONE)
    kubectl("delete", "pvc", volume.name, f"--namespace={site.namespace}", "--wait=false")

    assert gone.end is not None
    assert (gone.end.cause, gone.end.reason) == (Cause.NEVER_STARTED, "no-storage")
    assert '"absent" not found' in gone.end.detail


@asynccontextmanager
async def a_quota(site: KubernetesSite, **hard: str) -> AsyncIterator[None]:
    """Limit all that is in the namespace together, once admission has heard of it."""
    name, inside = "all-together", f"--namespace={site.namespace}"
    apply(
        {
            "apiVersion": "v1", "kind": "ResourceQuota", "spec": {"hard": {"services": "0"} | hard},
            "metadata": {"name": name, "namespace": site.namespace},
        }
    )  # fmt: skip

    async def is_enforced() -> bool:
        try:
            kubectl(
                "create", "service", "clusterip", "probe", "--tcp=1", "--dry-run=server", inside
            )
        except AssertionError as error:
            return "exceeded quota" in str(error)
        return False

    try:
        assert await eventually(is_enforced)
        yield
    finally:
        kubectl("delete", "resourcequota", name, inside)


async def test_quota_is_waited_for(site: KubernetesSite, spawner: KubernetesSpawner) -> None:
    """What a quota has no room for is not taken, and not forgotten: it starts when there is."""
    refused: list[SpawnerPending] = []
    other = f"{NAME}-other"

    async def is_taken() -> bool:
        try:
            await spawner.start(order(), recorded)
        except SpawnerPending as error:
            refused.append(error)
            return False
        return True

    async with a_quota(site, pods="1"):
        await spawner.start(order(other), recorded)
        assert not await is_taken()
        assert len(ours(site, "pods")) == 1
        assert refused[0].code == "namespace-quota"
        assert "exceeded quota" in str(refused[0])

        await spawner.stop(other, None, grace=1)
        assert await eventually(is_taken)
    await answers(await phase(spawner, NAME, Phase.RUNNING))


async def test_more_than_a_whole_quota_never_starts(
    site: KubernetesSite, spawner: KubernetesSpawner
) -> None:
    """Who asks for more than all may have together is told so at once; nothing is left of it."""
    async with a_quota(site, **{"limits.memory": "100Mi"}):
        with pytest.raises(SpawnerRejected, match="exceeded quota: all-together") as refused:
            await spawner.start(order(resources=Resources(memory_bytes=2**30)), recorded)

    assert refused.value.code == "over-memory-quota"
    assert not ours(site, "pods")
    assert not ours(site, "secrets")


async def test_what_was_refused_leaves_nothing(
    site: KubernetesSite, spawner: KubernetesSpawner
) -> None:
    """A launch that the cluster refuses for good leaves no secret behind."""
    rejected = order(platform={"priority_class": "no-such-class"})

    with pytest.raises(SpawnerRejected) as refused:
        await spawner.start(rejected, recorded)

    assert refused.value.code == "container-refused"
    assert not ours(site, "secrets")


async def test_out_of_memory_is_told(spawner: KubernetesSpawner) -> None:
    """A server that wants more memory than it has is said to have ended for that."""
    greedy = python("kept = [bytearray(1 << 20) for _ in range(400)]")
    resources = Resources(memory_bytes=64 * 2**20, cpu=0.1)

    await spawner.start(order(command=greedy, resources=resources), recorded)
    gone = await phase(spawner, NAME, Phase.GONE)

    assert gone.end is not None
    assert gone.end.cause is Cause.OUT_OF_MEMORY


async def test_time_that_is_over_ends_it(spawner: KubernetesSpawner) -> None:
    """The platform itself ends what outlives the time it asked for, and says so before."""
    await spawner.start(order(resources=Resources(time_seconds=10)), recorded)

    running = await phase(spawner, NAME, Phase.RUNNING)
    gone = await phase(spawner, NAME, Phase.GONE)

    assert running.ends_at is not None
    assert gone.end is not None
    assert gone.end.cause is Cause.WALLTIME


async def test_exit_is_told_with_its_log(spawner: KubernetesSpawner) -> None:
    """How a server ended, and its last words, are there until it is removed."""
    failing = python("print('the last words'); raise SystemExit(3)")

    await spawner.start(order(command=failing), recorded)
    gone = await phase(spawner, NAME, Phase.GONE)

    assert gone.end == End(cause=Cause.EXITED, code=3)
    assert await spawner.log_tail(NAME, gone.handle, lines=1) == "the last words\n"


async def test_pod_that_somebody_removed_is_found_to_be_over(
    site: KubernetesSite, spawner: KubernetesSpawner
) -> None:
    """What was removed behind the hub's back is over for certain, also for a hub that was away."""
    await spawner.start(order(), recorded)
    running = await phase(spawner, NAME, Phase.RUNNING)
    assert running.handle is not None
    before = await spawner.find_ends({NAME: running.handle})

    kubectl("delete", "pod", NAME, f"--namespace={site.namespace}", "--grace-period=1")
    there = await spawner.find_ends({NAME: running.handle})
    async with site.place(KubernetesSpawner) as later:
        afterwards = await later.find_ends({NAME: running.handle})

    assert before == {}
    assert there == afterwards == {NAME: End(cause=Cause.CANCELLED_OUTSIDE)}
