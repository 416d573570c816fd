"""A Kubernetes cluster as a platform for the contract suite, with the rights of a real hub."""

import base64
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from perijove.domain.launch import Cause, End
from perijove.kit.ids import new_installation_id
from perijove.spawners.contract import Checkpoint, LaunchSpec, Sighting, Surroundings
from perijove.spawners.kubernetes.names import INSTALLATION
from perijove.spawners.kubernetes.rights import cluster_role, role
from perijove.spawners.kubernetes.sections import KubernetesSettings
from perijove.spawners.kubernetes.spawner import KubernetesSpawner
from tests.contract.spawners.docker_site import docker
from tests.e2e.site import wait_for

S = TypeVar("S", bound=KubernetesSpawner)

_PROGRAM: Final = ("python3", "-I", "-S", "/srv/program.py")
_HERE: Final = 4
"""How many words of the suite's command say where its program is on this machine."""
_HUB: Final = "hub"


def kubectl(*words: str, stdin: str = "") -> str:
    """Return what the cluster's administrator is told."""
    done = subprocess.run(
        [
            os.environ["PERIJOVE_TEST_KUBECTL"],
            f"--kubeconfig={os.environ['PERIJOVE_TEST_KUBECONFIG']}",
            *words,
        ],
        input=stdin, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def apply(*objects: Any) -> None:
    """Make objects, or change them to what is given."""
    kubectl(
        "apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    )


def shown(*words: str) -> Any:
    """Return what `kubectl get` says."""
    return json.loads(kubectl("get", *words, "--output=json"))


class ImageSpawner(KubernetesSpawner):
    """Starts by the Python of the test bed's image what a test orders by its own."""

    async def start(self, spec: LaunchSpec, checkpoint: Checkpoint) -> Sighting:
        """Start the program that is in the image."""
        command: Sequence[str] = [*_PROGRAM, *spec.command[_HERE:]]
        return await super().start(replace(spec, command=command), checkpoint)


@dataclass(slots=True)
class KubernetesSite:
    """The cluster of the test bed; a test has installations of its own there."""

    namespace: str
    kubeconfig: Path
    """Of the hub: it has the rights of `rights.py` and no others."""
    installations: dict[str, str] = field(default_factory=dict)

    def spawner(self, installation: str = "inst") -> ImageSpawner:
        """Return a spawner on the cluster."""
        return self.place(ImageSpawner, installation)

    def place(self, kind: type[S], installation: str = "inst", **settings: Any) -> S:
        """Return a spawner of some kind on the cluster, configured further."""
        given: dict[str, Any] = {
            "kind": "kubernetes",
            "kubeconfig": self.kubeconfig,
            "namespace": self.namespace,
            "image": os.environ["PERIJOVE_TEST_IMAGE_NULL"],
            "stop_grace": 5,
            "stop_limit": 150,  # the kubelet of the bed may take a minute with what never ran
            "network": {"hub_networks": ["0.0.0.0/0"]},
        }
        around = Surroundings(
            name="kubernetes", installation=self.own(installation), data_dir=Path("/nowhere")
        )
        return kind(KubernetesSettings(**given | settings), around)

    def own(self, installation: str = "inst") -> str:
        """Return the installation id that stands for one of the suite's."""
        return self.installations.setdefault(installation, new_installation_id())

    async def kill(self, sighting: Sighting) -> End:
        """Kill the server behind the spawner's back."""
        labels = {"pod.name": sighting.name, "container.name": "server"}
        chosen = [f"--filter=label=io.kubernetes.{key}={value}" for key, value in labels.items()]
        docker("kill", docker("ps", "--quiet", *chosen))
        return End(cause=Cause.SIGNAL, code=9)

    @staticmethod
    def has_volume(name: str) -> bool:
        """Tell whether there is such a claim, or a persistent volume that was made for one."""
        found = shown("persistentvolumeclaims,persistentvolumes", "--all-namespaces")["items"]
        claims = (one["spec"].get("claimRef", one["metadata"]) for one in found)
        return any(claim["name"] == name for claim in claims)

    def clear(self) -> None:
        """Leave no pod and no secret of the test's installations on the cluster."""
        for installation in self.installations.values():
            kubectl(
                "delete", "pods,secrets", "--force", "--grace-period=0",
                f"--namespace={self.namespace}", f"--selector={INSTALLATION}={installation}",
            )  # fmt: skip


@contextmanager
def a_namespace() -> Iterator[str]:
    """Give a new namespace; nothing of it is left afterwards."""
    name = f"perijove-test-{new_installation_id()}"
    kubectl("create", "namespace", name)
    try:
        yield name
    finally:
        kubectl("delete", "namespace", name, "--wait=false")


@contextmanager
def a_cluster(folder: Path, *, per_user: bool = False) -> Iterator[KubernetesSite]:
    """Give a namespace and a hub's way to the cluster; nothing is left there afterwards."""
    with a_namespace() as name:
        try:
            site = KubernetesSite(name, _kubeconfig(folder, name, per_user=per_user))
            yield site
            for installation in site.installations.values() if per_user else ():
                chosen = f"--selector={INSTALLATION}={installation}"
                kubectl("delete", "namespace", chosen, "--wait=false")
        finally:
            kubectl("delete", "clusterrole,clusterrolebinding", name, "--ignore-not-found")


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubernetesSite]:
    """Give the test bed's cluster to all tests of a package, with a namespace for them."""
    with a_cluster(tmp_path_factory.mktemp("kubernetes")) as site:
        yield site


@pytest.fixture
def kubernetes_site(cluster: KubernetesSite) -> Iterator[KubernetesSite]:
    """Give the test bed's cluster; afterwards no pod of the test is left there."""
    site = KubernetesSite(cluster.namespace, cluster.kubeconfig)
    yield site
    site.clear()


def _kubeconfig(folder: Path, name: str, *, per_user: bool) -> Path:
    """Return the way to the cluster of a service account that has a hub's rights."""
    subject = {"kind": "ServiceAccount", "name": _HUB, "namespace": name}
    rbac = {"apiVersion": "rbac.authorization.k8s.io/v1", "subjects": [subject]}
    group = "rbac.authorization.k8s.io"
    account = {"apiVersion": "v1", "kind": "ServiceAccount"}
    apply(
        account | {"metadata": {"name": _HUB, "namespace": name}},
        cluster_role(name, namespace_per_user=per_user),
        rbac
        | {
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
        },
        role(_HUB, name),
        rbac
        | {
            "kind": "RoleBinding",
            "metadata": {"name": _HUB, "namespace": name},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": _HUB},
        },
    )

    def token() -> str:
        secrets = shown("secrets", f"--namespace={name}")["items"]
        found = [one["data"]["token"] for one in secrets
                 if one["metadata"].get("annotations", {}).get(
                     "kubernetes.io/service-account.name") == _HUB]  # fmt: skip
        return base64.b64decode(found[0]).decode() if found else ""

    config = json.loads(
        kubectl("config", "view", "--raw", "--minify", "--flatten", "--output=json")
    )
    config["users"] = [{"name": _HUB, "user": {"token": wait_for(token, what="the hub's token")}}]
    config["contexts"][0]["context"]["user"] = _HUB
    file = folder / f"{name}.json"
    file.write_text(json.dumps(config))
    return file
