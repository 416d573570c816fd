"""The Helm chart in a real cluster: two hubs, two proxies, and a person with a server."""

import base64
import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.deploy import containers
from tests.deploy.test_helm import CHART, HELM
from tests.e2e.site import wait_for

pytestmark = [pytest.mark.needs("docker", "kubernetes"), pytest.mark.timeout(1500)]

LITTLE: Final = {"requests": {"cpu": "10m", "memory": "64Mi"}}


@dataclass(frozen=True, slots=True)
class Cluster:
    """The bed's cluster, and a namespace in it."""

    namespace: str

    def kubectl(self, *arguments: str) -> str:
        """Return what the cluster's own program says."""
        return run(os.environ["PERIJOVE_TEST_KUBECTL"], "--namespace", self.namespace, *arguments)

    def get(self, *arguments: str) -> Any:
        """Return an object, or a list of them."""
        return json.loads(self.kubectl("get", *arguments, "--output", "json"))

    def pods(self, component: str) -> list[str]:
        """Return the names of the pods of a part that are not being ended."""
        found = self.get("pods", "--selector", f"app.kubernetes.io/component={component}")
        return [
            each["metadata"]["name"] for each in found["items"]
            if "deletionTimestamp" not in each["metadata"]
        ]  # fmt: skip

    def is_ready(self, component: str) -> bool:
        """Tell whether all pods of a part that are wanted serve."""
        status = self.get("deployment", f"perijove-{component}")["status"]
        return bool(status["replicas"] == status.get("readyReplicas"))


def run(program: str | Path, *arguments: str | Path) -> str:
    """Run a program of Kubernetes against the bed's cluster; return what it says."""
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=400, check=False,
        env={**os.environ, "KUBECONFIG": os.environ["PERIJOVE_TEST_KUBECONFIG"]},
    )  # fmt: skip
    assert done.returncode == 0, f"{arguments}\n{done.stdout}{done.stderr}"
    return done.stdout


def values() -> dict[str, Any]:
    """Return what a site would set, with images of this clone and addresses in place of names."""
    repository, _, tag = containers.built().partition(":")
    own, database = (f"10.96.{secrets.choice(range(100, 250))}.{end}" for end in (81, 82))
    return {
        "image": {"repository": repository, "tag": tag},
        "database": {
            "trial": {
                "image": containers.postgresql(), "clusterIP": database, "storage": "1Gi",
                "resources": LITTLE,
            }
        },
        "hub": {"service": {"clusterIP": own}, "resources": LITTLE},
        "proxy": {"resources": LITTLE},
        "config": {
            "spawners": {"kubernetes": {"image": os.environ["PERIJOVE_TEST_IMAGE_SINGLEUSER"]}},
            "profiles": [{"name": "small", "cpu": 0.1, "memory": "512 MiB"}],
        },
    }  # fmt: skip


@contextmanager
def installed(tmp_path: Path) -> Iterator[Cluster]:
    """Install the chart in namespaces of its own, and leave nothing of it."""
    cluster = Cluster(f"pj-deploy-{os.getpid()}")
    file = tmp_path / "values.yaml"
    file.write_text(json.dumps(values()))
    cluster.kubectl("create", "namespace", cluster.namespace)
    place = ("--namespace", cluster.namespace)
    try:
        run(
            HELM,
            "install",
            "perijove",
            CHART,
            *place,
            "--values",
            file,
            "--wait",
            "--timeout",
            "5m",
        )
        yield cluster
    finally:
        run(HELM, "uninstall", "perijove", *place, "--ignore-not-found")
        both = (cluster.namespace, f"{cluster.namespace}-servers")
        cluster.kubectl("delete", "namespace", *both, "--ignore-not-found", "--timeout", "120s")


def password(cluster: Cluster) -> str:
    """Return the first administrator's, as the chart's notes say."""
    kept = cluster.get("secret", "perijove")["data"]
    return base64.b64decode(kept["admin-password"]).decode()


def test_a_site_by_helm(tmp_path: Path) -> None:
    """A person's server starts as a pod, is used through any proxy, and outlives a hub."""
    with installed(tmp_path) as cluster:
        assert [len(cluster.pods(each)) for each in ("hub", "proxy", "prepull")] == [2, 2, 1]
        service = cluster.get("service", "perijove")["spec"]
        url = f"http://{service['clusterIP']}:{service['ports'][0]['port']}"
        with containers.signed_in(url, password=password(cluster)) as person:
            containers.use_a_server(person, seconds=180)
            servers = Cluster(f"{cluster.namespace}-servers")
            (pod,) = servers.get("pods")["items"]
            assert pod["metadata"]["labels"]["perijove.org/user"] == "admin"
            (policy,) = servers.get("networkpolicy")["items"]
            (rule,) = policy["spec"]["ingress"]
            assert rule["from"][0]["podSelector"]["matchLabels"] == {
                "app.kubernetes.io/name": "perijove",
                "app.kubernetes.io/instance": "perijove",
            }

            for component in ("hub", "proxy"):
                victim = cluster.pods(component)[0]
                cluster.kubectl("delete", "pod", victim, "--wait=true", "--timeout", "120s")
                wait_for(
                    lambda part=component: cluster.is_ready(part),  # type: ignore[misc]
                    what=f"another {component}",
                    seconds=120,
                )
                assert person.get("/user/admin/api/status").status_code == 200
            containers.stop_server(person, seconds=120)
            assert servers.get("pods")["items"] == []
