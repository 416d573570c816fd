"""What is asked of the cluster for a launch: its pod, its secret, its volumes' claims."""

import base64
import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from perijove.domain.errors import SpawnerRejected
from perijove.domain.launch import Resources
from perijove.spawners.contract import LaunchSpec, VolumeSpec
from perijove.spawners.kubernetes.manifest import adopted, claim_of, pod_of, secret_of
from perijove.spawners.kubernetes.names import Ours, exact, namespace_for, readable
from perijove.spawners.kubernetes.sections import KubernetesSettings
from perijove.spawners.kubernetes.shapes import check_shape
from perijove.spawners.kubernetes.surroundings import policy_of
from tests.contract.spawners.sites import SECRET, make_spec

OURS = Ours(installation="k3x", spawner="cloud")
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


def settings(**given: Any) -> KubernetesSettings:
    """Return a section."""
    values = {"kind": "kubernetes", "namespace": "servers", "image": "here/lab:1"}
    return KubernetesSettings.model_validate(values | given)


def spec(**changes: Any) -> LaunchSpec:
    """Return a launch."""
    return make_spec(**{"command": ["jupyterhub-singleuser"], **changes})


def server(**given: Any) -> dict[str, Any]:
    """Return the server's container as a section and a launch have it."""
    launch = {key: given.pop(key) for key in list(given) if key in LaunchSpec.__slots__}
    container: dict[str, Any] = pod_of(spec(**launch), settings(**given), OURS)["spec"][
        "containers"
    ][0]
    return container


def laid_out(**given: Any) -> dict[str, Any]:
    """Return what is asked of the cluster for a pod by a section."""
    asked: dict[str, Any] = pod_of(spec(), settings(**given), OURS)["spec"]
    return asked


def test_environment_is_in_the_secret_alone() -> None:
    """What a pod says of itself holds no token, and its secret all that the server needs."""
    pod, secret = (
        pod_of(spec(), settings(), OURS),
        secret_of(spec(), settings(), OURS, now=NOW),
    )
    said = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}

    assert SECRET not in json.dumps(pod)
    assert said["JUPYTERHUB_API_TOKEN"] == SECRET
    assert said["JUPYTERHUB_SERVICE_URL"] == "http://0.0.0.0:8888/base/user/ann/"
    assert pod["spec"]["containers"][0]["envFrom"] == [{"secretRef": {"name": spec().name}}]


def test_secret_goes_with_its_pod() -> None:
    """A secret that a pod has is removed with it, and not swept before."""
    secret = secret_of(spec(), settings(), OURS, now=NOW)

    owned = adopted(secret, {"metadata": {"name": "pj-a", "uid": "7"}})

    assert owned["metadata"]["ownerReferences"][0]["uid"] == "7"
    assert "perijove.org/day" in secret["metadata"]["labels"]
    assert "perijove.org/day" not in owned["metadata"]["labels"]


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=3))
def test_variables_are_kept_as_they_are_or_refused(environment: dict[str, str]) -> None:
    """Each variable's value comes out as it went in; a name that is impossible is refused."""
    try:
        secret = secret_of(spec(environment=environment), settings(), OURS, now=NOW)
    except SpawnerRejected:
        assert not all(re.fullmatch(r"[-._a-zA-Z][-._a-zA-Z0-9]*", name) for name in environment)
        return
    said = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}

    assert environment.items() <= said.items()


@given(st.text(max_size=400), st.text(max_size=100), st.text(max_size=100))
def test_any_names_make_labels(user: str, name: str, launch: str) -> None:
    """Whatever people call themselves and their servers, the labels are labels."""
    asked = spec(user_name=user, server_name=name, launch_id=launch)

    for one in (pod_of(asked, settings(), OURS), secret_of(asked, settings(), OURS, now=NOW)):
        for value in one["metadata"]["labels"].values():
            assert LABEL.fullmatch(value)


@given(st.text(), st.text())
def test_exact_labels_and_namespaces_do_not_collide(one: str, other: str) -> None:
    """Different names have different exact labels and different namespaces."""
    assert (exact(one) == exact(other)) == (one == other)
    assert (namespace_for("k3x", one) == namespace_for("k3x", other)) == (one == other)
    assert LABEL.fullmatch(readable(one))
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", namespace_for("k3x", one))


@pytest.mark.parametrize(
    ("given", "limits", "requests"),
    [
        ({}, {"cpu": "2000m", "memory": "4294967296"}, {"cpu": "2000m", "memory": "4294967296"}),
        (
            {"cpu_guarantee": "25 %", "memory_guarantee": "50%"},
            {"cpu": "2000m", "memory": "4294967296"},
            {"cpu": "500m", "memory": "2147483648"},
        ),
        (
            {"cpu_guarantee": "100m", "memory_guarantee": "8Gi"},
            {"cpu": "2000m", "memory": "4294967296"},
            {"cpu": "100m", "memory": "4294967296"},
        ),
    ],
)
def test_guarantees_are_shares_or_values(
    given: dict[str, str], limits: dict[str, str], requests: dict[str, str]
) -> None:
    """What a server has for itself is a share of its limit, or a value that is at most that."""
    asked = Resources(cpu=2, memory_bytes=4 * 2**30)

    assert server(resources=asked, **given)["resources"] == {
        "limits": limits,
        "requests": requests,
    }


def test_without_limits_there_are_values_only() -> None:
    """A share of no limit is none; a value is one."""
    found = server(cpu_guarantee="50 %", memory_guarantee="1Gi")["resources"]

    assert found == {"limits": {}, "requests": {"memory": "1073741824"}}


def test_gpus_are_asked_for_by_the_clusters_name() -> None:
    """A GPU, and what else a cluster has, is limit and guarantee in one."""
    found = server(
        resources=Resources(gpu=2), gpu_resource="amd.com/gpu", extra_resources={"a.org/b": "1"}
    )["resources"]

    assert found["limits"] == found["requests"] == {"amd.com/gpu": "2", "a.org/b": "1"}


def test_server_has_few_powers() -> None:
    """Without a word about it a server is nobody special, and knows no way to the API server."""
    pod = pod_of(spec(), settings(), OURS)["spec"]
    security = pod["containers"][0]["securityContext"]

    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod["automountServiceAccountToken"]
    assert not pod["enableServiceLinks"]
    assert security["capabilities"]["drop"] == ["ALL"]
    assert not security["allowPrivilegeEscalation"]


def test_profile_replaces_what_the_section_says() -> None:
    """What a profile says to the platform holds; what it does not say is the section's."""
    launch = spec(platform={"node_selector": {"pool": "gpu"}, "security": {"user": "image"}})
    section = settings(node_selector={"pool": "cpu", "disk": "ssd"}, priority_class="people")

    pod = pod_of(launch, section, OURS)["spec"]

    assert pod["nodeSelector"] == {"pool": "gpu"}
    assert pod["priorityClassName"] == "people"
    assert "runAsUser" not in pod["securityContext"]


def test_nodes_are_chosen_in_the_clusters_own_words() -> None:
    """Where a pod may be, and by whose leave, is asked for as it was written, and no more."""
    preferred = {
        "weight": 1,
        "preference": {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]},
    }
    affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [preferred]}}
    pod = laid_out(
        affinity=affinity,
        tolerations=[
            {"key": "people", "value": "yes", "effect": "NoSchedule"},
            {"operator": "Exists", "effect": "NoExecute", "seconds": 0},
        ],
        pull_secrets=["registry", "mirror"],
        priority_class="people",
        runtime_class="gvisor",
        scheduler="packer",
        node_selector={"pool": "people"},
    )

    assert pod["affinity"] == affinity
    assert pod["tolerations"] == [
        {"key": "people", "operator": "Equal", "value": "yes", "effect": "NoSchedule"},
        {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0},
    ]
    assert pod["imagePullSecrets"] == [{"name": "registry"}, {"name": "mirror"}]
    assert pod["priorityClassName"] == "people"
    assert pod["runtimeClassName"] == "gvisor"
    assert pod["schedulerName"] == "packer"
    assert pod["nodeSelector"] == {"pool": "people"}


def test_what_is_not_said_is_left_to_the_cluster() -> None:
    """A pod of which nothing was said names no node, secret, class or account."""
    unsaid = {
        "affinity", "tolerations", "imagePullSecrets", "priorityClassName", "runtimeClassName",
        "schedulerName", "nodeSelector", "serviceAccountName",
    }  # fmt: skip

    assert not unsaid & laid_out().keys()


def test_account_of_the_cluster_comes_with_its_token() -> None:
    """A server that is to ask the API server is somebody there, and can prove it."""
    pod = laid_out(service_account="spark")

    assert pod["serviceAccountName"] == "spark"
    assert pod["automountServiceAccountToken"]


def test_containers_of_the_site_run_before_and_beside_a_server() -> None:
    """What a site adds is in the pod as it was written; the server is the first that stays."""
    before = [{"name": "fill", "image": "here/fill:1", "command": ["fill"]}]
    beside = [{"name": "sync", "image": "here/sync:1", "resources": {"limits": {"cpu": "1"}}}]

    pod = laid_out(init_containers=before, sidecars=beside)

    assert pod["initContainers"] == before
    assert [one["name"] for one in pod["containers"]] == ["server", "sync"]
    assert pod["containers"][1:] == beside


def test_shared_memory_has_the_size_that_was_asked_for() -> None:
    """Programs that share memory have a place for it that is no larger than what was said."""
    pod = laid_out(shared_memory="4 GiB")

    memory = {"medium": "Memory", "sizeLimit": str(4 * 2**30)}
    assert pod["volumes"] == [{"name": "perijove-shm", "emptyDir": memory}]
    assert pod["containers"][0]["volumeMounts"] == [
        {"name": "perijove-shm", "mountPath": "/dev/shm"}
    ]


def test_read_only_server_has_a_place_for_what_passes() -> None:
    """Where a server's own files cannot be written, `/tmp` still can."""
    pod = laid_out(security={"read_only_root": True})

    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"]
    assert pod["volumes"] == [{"name": "perijove-tmp", "emptyDir": {"medium": "Memory"}}]
    assert pod["containers"][0]["volumeMounts"] == [{"name": "perijove-tmp", "mountPath": "/tmp"}]


def test_variables_of_the_site_never_replace_the_hubs() -> None:
    """Of two variables of one name a secret's wins over a config map's, and the hub's over both."""
    container = server(
        environment_from_config_maps=["common", "more"], environment_from_secrets=["licence"]
    )

    assert container["envFrom"] == [
        {"configMapRef": {"name": "common"}},
        {"configMapRef": {"name": "more"}},
        {"secretRef": {"name": "licence"}},
        {"secretRef": {"name": spec().name}},
    ]


def test_powers_are_given_where_they_are_named() -> None:
    """What a section allows a server is in its pod: account, groups, powers, system calls."""
    allowed = {
        "user": 0,
        "group": 5,
        "volume_group": "none",
        "root": True,
        "gain_privileges": True,
        "capabilities": ["NET_BIND_SERVICE"],
        "seccomp": "Unconfined",
    }

    pod = laid_out(security=allowed)

    assert pod["securityContext"] == {
        "runAsNonRoot": False,
        "runAsUser": 0,
        "runAsGroup": 5,
        "seccompProfile": {"type": "Unconfined"},
    }
    assert pod["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": True,
        "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
        "privileged": False,
        "readOnlyRootFilesystem": False,
    }


@pytest.mark.parametrize("volumes", [[], [VolumeSpec(name="pj-v", path="/home/jovyan")]])
def test_kubernetes_knows_all_that_is_asked_of_it(volumes: list[VolumeSpec]) -> None:
    """No key of ours is one that the API server would drop without a word."""
    section = settings(
        shared_memory="1 GiB",
        security={"read_only_root": True},
        tolerations=[{"key": "a", "seconds": 5}],
        pull_secrets=["registry"],
        environment_from_config_maps=["common"],
        service_account="spark",
        entrypoint=["tini"],
    )
    asked = spec(volumes=volumes, resources=Resources(cpu=2, gpu=1, time_seconds=60))

    check_shape(pod_of(asked, section, OURS), "V1Pod")
    check_shape(secret_of(asked, section, OURS, now=NOW), "V1Secret")
    check_shape(policy_of(section, OURS), "V1NetworkPolicy")
    for volume in volumes:
        claim = claim_of(volume, asked, section, OURS)
        check_shape(claim, "V1PersistentVolumeClaim")


def test_commands_are_taken_literally() -> None:
    """Nothing in a command is replaced by a variable's value."""
    assert server(command=["sh", "-c", "echo $(id)"])["args"] == ["sh", "-c", "echo $$(id)"]


def test_volumes_are_looked_at_before_the_server_starts() -> None:
    """A launch with volumes starts by way of the entry program, where the site wants that."""
    volume = VolumeSpec(name="pj-v", path="/home/jovyan", size_bytes=2**30)
    with_entry = server(volumes=[volume])
    without = server(volumes=[volume], entry=False)
    secret = secret_of(spec(volumes=[volume]), settings(), OURS, now=NOW)

    assert with_entry["args"][-1] == "jupyterhub-singleuser"
    assert with_entry["args"][:3] == ["python3", "-I", "-c"]
    assert without["args"] == ["jupyterhub-singleuser"]
    assert without["volumeMounts"] == [{"name": "perijove-0", "mountPath": "/home/jovyan"}]
    assert json.loads(base64.b64decode(secret["data"]["PERIJOVE_VOLUMES"])) == ["/home/jovyan"]


@given(st.dictionaries(st.text(max_size=10), st.text(max_size=80), max_size=3))
def test_claims_carry_what_a_volume_is_called(labels: dict[str, str]) -> None:
    """Whatever is written on a volume is kept, and what of it can be is a label too."""
    volume = VolumeSpec(name="pj-v", path="/home", size_bytes=2**31, labels=labels)

    claim = claim_of(volume, spec(), settings(storage_class="fast"), OURS)

    assert claim["spec"]["resources"]["requests"] == {"storage": str(2**31)}
    assert claim["spec"]["storageClassName"] == "fast"
    assert json.loads(claim["metadata"]["annotations"]["perijove.org/labels"]) == labels
    assert claim["metadata"]["labels"]["perijove.org/installation"] == "k3x"
    assert all(LABEL.fullmatch(value) for value in claim["metadata"]["labels"].values())


@pytest.mark.parametrize("user", ["..", "a/b", "", ".hidden", "x" * 200])
def test_folder_of_nobody_is_refused(user: str) -> None:
    """Who has a name that is no folder's is not given somebody else's folder."""
    mounts = [{"name": "homes", "mountPath": "/home", "subPath": "people/{user}"}]
    launch = spec(user_name=user, platform={"volume_mounts": mounts})

    with pytest.raises(SpawnerRejected):
        pod_of(launch, settings(), OURS)


def test_folder_is_the_persons_own() -> None:
    """In a shared volume each person has the folder of their name."""
    mounts = [{"name": "homes", "mountPath": "/home", "subPath": "people/{user}"}]

    assert server(user_name="ann@x.org", volume_mounts=mounts)["volumeMounts"] == [
        {"name": "homes", "mountPath": "/home", "subPath": "people/ann@x.org"}
    ]


@pytest.mark.parametrize(
    "platform",
    [
        {"unknown": 1},
        {"tolerations": [{"key": "a", "effekt": "NoSchedule"}]},
        {"overlay": {"metadata": {"name": "x"}}},
        {"labels": {"perijove.org/name": "x"}},
        {"labels": {"a": "not a label!"}},
        {"sidecars": [{"name": "server", "image": "x"}]},
        {"sidecars": [{"name": "x"}]},
        {"volumes": [{"name": "perijove-0"}]},
        {"volume_mounts": [{"name": "x", "mountPath": "relative"}]},
        {"volume_mounts": [{"name": "x", "mountPath": "/x", "readonly": True}]},
        {"volumes": [{"name": "x", "nfs": {"sever": "10.1.0.9"}}]},
        {"sidecars": [{"name": "x", "image": "x", "resource": {}}]},
        {"init_containers": [{"name": "x", "image": "x", "env": [{"nme": "A"}]}]},
        {"affinity": {"nodeAfinity": {}}},
        {"overlay": {"spec": {"dnsPolcy": "None"}}},
        {"cpu_guarantee": "120 %"},
        {"cpu_guarantee": "many"},
        {"extra_resources": {"a b": "1"}},
        {"pull_secrets": ["Not A Name"]},
    ],
)
def test_mistakes_are_found_before_anything_starts(platform: dict[str, Any]) -> None:
    """What a profile or a section says wrongly is refused, by its name."""
    with pytest.raises(ValidationError, match=next(iter(platform))):
        settings(**platform)
    with pytest.raises(SpawnerRejected) as refused:
        pod_of(spec(platform=platform), settings(), OURS)
    assert refused.value.code == "bad-option"
    assert "input_value" not in str(refused.value)  # It may be a secret, and people read this.


def test_image_has_to_be_named_somewhere() -> None:
    """A launch that neither profile nor section names an image for is refused."""
    with pytest.raises(SpawnerRejected) as refused:
        pod_of(spec(), settings(image=""), OURS)
    assert refused.value.code == "image-invalid"


def test_hub_outside_says_from_where_it_comes() -> None:
    """A network policy that would keep the hub itself away is refused."""
    with pytest.raises(ValidationError, match="hub_networks"):
        settings(kubeconfig="/etc/kubeconfig")
    settings(kubeconfig="/etc/kubeconfig", network={"policy": False})


def test_servers_are_reached_by_hub_and_proxy_alone() -> None:
    """Nobody else is let in, servers neither; addresses of either kind are blocked in theirs."""
    section = settings(network={"hub_networks": ["10.1.0.5/32"]})

    policy = policy_of(section, OURS)["spec"]

    hub, outside = policy["ingress"][0]["from"]
    assert hub["podSelector"] == {"matchLabels": {"app.kubernetes.io/name": "perijove"}}
    assert outside == {"ipBlock": {"cidr": "10.1.0.5/32"}}
    fourth, sixth, _pods = policy["egress"][0]["to"]
    assert fourth["ipBlock"]["except"] == ["169.254.0.0/16"]
    assert sixth["ipBlock"]["except"] == ["fd00:ec2::254/128"]
