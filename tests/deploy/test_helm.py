"""The Helm chart: valid for old and new clusters, and the configuration it makes is one."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from perijove.kit.config import Section
from perijove.services.offers import StorageSection
from perijove.settings import Settings, load
from perijove.spawners.kubernetes import rights
from perijove.spawners.kubernetes.sections import KubernetesSettings
from scripts import chart
from tests import beds

CHART: Final = beds.ROOT / "deploy/helm/perijove"
HELM: Final = Path(sys.executable).with_name("helm")
OLD, NEW = "1.20.2", "1.33.0"
DATABASE: Final = "postgresql://perijove@db.example.org/perijove"

GUIDE: Final = (beds.ROOT / "docs/admin/helm.md").read_text()
SHUT_IN: Final = {
    "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}  # fmt: skip
ADDITIONS: Final[dict[str, Any]] = {
    "extraEnv": [{"name": "TZ", "value": "Europe/Paris"}],
    "extraVolumes": [{"name": "site", "configMap": {"name": "site"}}],
    "extraVolumeMounts": [{"name": "site", "mountPath": "/site"}],
    "initContainers": [{"name": "before", "image": "site:1", "securityContext": SHUT_IN}],
    "extraContainers": [{"name": "beside", "image": "site:2", "securityContext": SHUT_IN}],
    "podSecurityContext": {"fsGroup": 2000, "runAsUser": None},
    "containerSecurityContext": {"seLinuxOptions": {"type": "site_t"}, "privileged": False},
}
MOVING: Final = (beds.ROOT / "docs/admin/from-zero-to-jupyterhub.md").read_text()
VALUES: Final[dict[str, dict[str, Any]]] = {
    "trial": {},
    "guide": yaml.safe_load(GUIDE.partition("```yaml\n")[2].partition("```")[0]),
    "site": {
        "image": {"repository": "registry.example.org/perijove", "pullSecrets": ["registry"]},
        "database": {"existingSecret": "site-database", "existingSecretKey": "url"},
        "secret": {"existing": "site-secrets"},
        "hub": {
            "replicas": 3,
            "upgradeDatabase": True,
            "env": {"TZ": "Europe/Paris"},
            "secretEnv": {"PERIJOVE__NOTIFY__SMTP__PASSWORD": "s3cret"},
            "nodeSelector": {"pool": "core"},
            "tolerations": [{"key": "core", "operator": "Exists"}],
            "service": {"clusterIP": "10.96.7.7"},
        },
        "proxy": {"tlsSecret": "site-tls", "service": {"type": "LoadBalancer", "port": 443}},
        "ingress": {
            "enabled": True, "className": "nginx", "hosts": ["hub.example.org"],
            "tls": [{"hosts": ["hub.example.org"], "secretName": "tls"}],
        },
        "servers": {"namespace": "people"},
        "networkPolicy": {"proxyFrom": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}]},
        "prePull": {"images": ["registry.example.org/r:1"]},
        "config": {
            "hub": {
                "base_path": "/jupyter/", "title": 'A "lab" & ü', "admins": ["ann"],
                "links": {"how to get one": "https://example.org/?a=1&b=2"},
            },
            "proxy": {"trusted_proxies": ["10.0.0.0/8"], "max_connections": 20000},
            "spawners": {"kubernetes": {"image": "registry.example.org/lab:1"}},
            "profiles": [
                {"name": "small", "cpu": 1, "memory": "4 GiB"},
                {"name": "large", "cpu": 4.5, "memory": "16 GiB", "environment": {"A_B": "c"}},
            ],
        },
        "configText": '[auth.native]\n\n[auth.pam]\nservice = "login"\n',
    },
    "images": {
        "prePull": {"images": ["registry.example.org/r:1", "registry.example.org/base:1"]},
        "config": {
            "spawners": {
                "kubernetes": {"image": "registry.example.org/base:1"},
                "engine": {"kind": "docker", "image": "registry.example.org/on-the-engine:1"},
            },
            "images": {
                "data": {"image": "registry.example.org/data:1"},
                "astro": {"image": "registry.example.org/astro:1"},
            },
            "profiles": [
                {"name": "fixed", "spawner": "kubernetes", "image": "registry.example.org/fixed:1"},
                {"name": "engine", "spawner": "engine", "image": "registry.example.org/engine:1"},
                {
                    "name": "field", "spawner": "kubernetes",
                    "fields": {
                        "cpu": {"default": 1, "max": 2},
                        "image": {
                            "default": "data",
                            "choices": ["data", "registry.example.org/choice:1"],
                            "free": {"pattern": "registry.example.org/.*"},
                        },
                    },
                },
                {
                    "name": "choices", "spawner": "kubernetes", "image": "astro",
                    "choices": {
                        "size": {"options": {
                            "small": {"set": {"cpu": 1}},
                            "gpu": {"set": {"image": "registry.example.org/gpu:1"}},
                        }},
                        "lesson": {
                            "options": {"none": {}},
                            "other": {
                                "pattern": "[0-9]+",
                                "set": {"image": "registry.example.org/lesson:{value}"},
                            },
                        },
                    },
                },
            ],
        },
    },
    "additions": {
        "hub": ADDITIONS | {"upgradeDatabase": True, "podLabels": {"team": "a"}},
        "proxy": ADDITIONS | {"podLabels": {"team": "b"}},
    },
    "spread": {
        "servers": {"createNamespace": False},
        "config": {
            "spawners": {"kubernetes": {"namespace_per_user": True, "look_at_nodes": False}}
        },
    },
    "outside": {
        "database": {"url": DATABASE},
        "networkPolicy": {"enabled": False},
        "prePull": {"enabled": False},
        "servers": {"enabled": False},
        "hub": {"disruptionBudget": {"enabled": False}, "serviceAccount": {"existing": "mine"}},
        "proxy": {"disruptionBudget": {"enabled": False}},
        "config": {"spawners": {"null": {"url": "http://127.0.0.1:9"}}},
    },
    "elsewhere": {
        "servers": {"enabled": False},
        "config": {
            "spawners": {"engine": {"kind": "docker", "url": "tcp://127.0.0.1:2376"}},
            "images": {"data": {"image": "registry.example.org/data:1"}},
            "profiles": [{"name": "only", "image": "registry.example.org/only:1"}],
        },
    },
}  # fmt: skip
"""Sets of values that between them take every way through the templates."""

Manifest = dict[str, Any]


def helm(tmp_path: Path, command: str, name: str, kubernetes: str, *arguments: str) -> str:
    """Return what Helm says of the chart with a set of values."""
    values = tmp_path / "values.yaml"
    values.write_text(json.dumps(VALUES[name]))
    release = ["a-site"] if command == "template" else []
    done = subprocess.run(
        [HELM, command, *release, CHART, "--values", values, "--kube-version", kubernetes,
         "--namespace", "hubs", *arguments],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rendered(tmp_path: Path, name: str, kubernetes: str = NEW) -> list[Manifest]:
    """Return the objects that a set of values makes."""
    text = helm(tmp_path, "template", name, kubernetes)
    return [found for found in yaml.safe_load_all(text) if found]


def one(manifests: list[Manifest], kind: str, ending: str = "") -> Manifest:
    """Return the object of a kind whose name ends so."""
    found = [
        each for each in manifests
        if each["kind"] == kind and each["metadata"]["name"].endswith(ending)
    ]  # fmt: skip
    assert len(found) == 1, (kind, ending)
    return found[0]


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Return the pods that are made, with the names of what makes them."""
    for each in manifests:
        if each["kind"] in {"Deployment", "StatefulSet", "DaemonSet"}:
            yield each["metadata"]["name"], each["spec"]["template"]["spec"]


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("kubernetes", [OLD, NEW])
def test_helm_finds_nothing_to_say(tmp_path: Path, name: str, kubernetes: str) -> None:
    """The linter accepts every set of values; on a new cluster nothing is deprecated either."""
    strict = ["--strict"] if kubernetes == NEW else []
    assert "0 chart(s) failed" in helm(tmp_path, "lint", name, kubernetes, *strict)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("hub.replica=3", "replica"),
        ("hub.replicas=many", "replicas"),
        ("proxy.service.type=Public", "type"),
        ("singleuser.image.name=a", "singleuser"),
    ],
)
def test_a_value_that_is_not_known_is_refused(value: str, named: str) -> None:
    """A misspelt value, or one of another chart, is an error that names it."""
    assert (CHART / "values.schema.json").read_text() == chart.schema()
    done = subprocess.run(
        [HELM, "template", "a-site", CHART, "--set", value],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert named in done.stderr


def test_the_way_from_the_other_chart_leads_to_values_that_exist() -> None:
    """What the guide names as ours is a value of the chart or a key of the configuration."""
    known = yaml.safe_load((CHART / "values.yaml").read_text())
    named = set(_ours(MOVING))
    assert len(named) > 80
    for name in named:
        root, *path = name.split(".")
        match root:
            case "k8s":
                assert _is_in(KubernetesSettings, path), name
            case "config":
                assert _is_in(Settings, path), name
            case "storage":
                assert _is_in(StorageSection, path), name
            case _:
                assert _is_in(known, [root, *path]), name


def _is_in(place: Any, path: Sequence[str]) -> bool:
    """Tell whether a path leads somewhere: down tables of values, or sections and their keys."""
    if not path:
        return True
    if isinstance(place, dict):
        return path[0] in place and _is_in(place[path[0]], path[1:])
    if not isinstance(place, type) or not issubclass(place, Section):
        return True  # A table whose keys the site chooses.
    field = place.model_fields.get(path[0])
    return field is not None and _is_in(field.annotation, path[1:])


def _ours(guide: str) -> Iterator[str]:
    """Return what the second columns name; `.b` after `x.a` is `x.b`."""
    for row in re.findall(r"^\| `[^|]+\| ([^|]*`[^|]*) \|", guide, re.MULTILINE):
        parent = ""
        for name in re.findall(r"`([\w.]+)", row):
            whole = f"{parent}{name}" if name.startswith(".") else name
            parent = whole.rpartition(".")[0]
            if parent:
                yield whole.rstrip(".")


@pytest.mark.parametrize(("kubernetes", "api"), [(OLD, "policy/v1beta1"), (NEW, "policy/v1")])
def test_budgets_are_what_the_cluster_knows(tmp_path: Path, kubernetes: str, api: str) -> None:
    """Hub and proxy keep one pod each while nodes are drained, on old clusters too."""
    manifests = rendered(tmp_path, "trial", kubernetes)
    budgets = [each for each in manifests if each["kind"] == "PodDisruptionBudget"]
    assert [each["apiVersion"] for each in budgets] == [api, api]
    assert {each["spec"]["minAvailable"] for each in budgets} == {1}


@pytest.mark.parametrize("name", VALUES)
def test_the_configuration_is_the_values(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """perijove.toml has what the values say, the chart's addresses, and is accepted by the hub."""
    manifests = rendered(tmp_path, name)
    secret = {"PERIJOVE__HUB__PROXY_SECRET": "x" * 40}
    hub = tmp_path / "hub.toml"
    hub.write_text(one(manifests, "ConfigMap", "-hub")["data"]["perijove.toml"])
    said = tomllib.loads(hub.read_text())
    wanted = VALUES[name].get("config", {})
    for section, value in wanted.items():
        if isinstance(value, dict):
            assert said[section].items() >= _scalars(value).items()
        else:
            assert said[section] == value
    settings = load(hub, secret)
    assert settings.hub.proxy_bind == "0.0.0.0:8082"
    if VALUES[name].get("configText"):
        assert list(settings.auth) == ["native", "pam"]

    proxy = tmp_path / "proxy.toml"
    proxy.write_text(one(manifests, "ConfigMap", "-proxy")["data"]["perijove.toml"])
    assert load(proxy, secret).hub.proxy_url == settings.hub.proxy_url
    assert {"hub", "proxy"} >= tomllib.loads(proxy.read_text()).keys()


def _scalars(table: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if not isinstance(value, dict)}


@pytest.mark.parametrize("name", VALUES)
def test_every_pod_is_shut_in(tmp_path: Path, name: str) -> None:
    """No pod runs as root, gains rights, or writes where it need not; tokens are for hubs alone."""
    starts_pods = VALUES[name].get("servers", {}).get("enabled", True)
    for owner, pod in pods(rendered(tmp_path, name)):
        assert pod["securityContext"]["runAsNonRoot"] is True, owner
        assert pod["automountServiceAccountToken"] is (owner.endswith("-hub") and starts_pods)
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, owner
            assert security["readOnlyRootFilesystem"] is True, owner
            assert security["capabilities"] == {"drop": ["ALL"]}, owner


@pytest.mark.parametrize("part", ["hub", "proxy"])
def test_a_site_adds_to_the_pods(tmp_path: Path, part: str) -> None:
    """Its containers, volumes, variables and labels are there, and its rights beside ours."""
    deployment = one(rendered(tmp_path, "additions"), "Deployment", f"-{part}")
    assert deployment["spec"]["template"]["metadata"]["labels"].items() >= {
        "team": "a" if part == "hub" else "b", "app.kubernetes.io/component": part,
    }.items()  # fmt: skip
    pod = deployment["spec"]["template"]["spec"]
    before = [each["name"] for each in pod["initContainers"]]
    assert before == (["before", "upgrade-database"] if part == "hub" else ["before"])
    ours, beside = pod["containers"]
    assert beside == ADDITIONS["extraContainers"][0]
    assert ADDITIONS["extraEnv"][0] in ours["env"]
    assert ADDITIONS["extraVolumes"][0] in pod["volumes"]
    assert ADDITIONS["extraVolumeMounts"][0] in ours["volumeMounts"]
    rights = pod["securityContext"]
    assert (rights["fsGroup"], rights["runAsUser"], rights["runAsGroup"]) == (2000, None, 10001)
    assert ours["securityContext"] == SHUT_IN | ADDITIONS["containerSecurityContext"]


def test_secrets_are_in_secrets(tmp_path: Path) -> None:
    """What is secret is in no other object, and proxies get the one secret they share."""
    text = helm(tmp_path, "template", "site", NEW)
    assert "s3cret" not in text
    manifests = rendered(tmp_path, "trial")
    proxy = dict(pods(manifests))["a-site-perijove-proxy"]["containers"][0]
    assert [each["name"] for each in proxy["env"]] == ["PERIJOVE__HUB__PROXY_SECRET"]
    assert "envFrom" not in proxy
    made = one(manifests, "Secret", "perijove")["data"]
    assert made.keys() >= {"keyring", "proxy-secret", "admin-password", "database-url"}


def test_a_site_with_secrets_of_its_own_gets_none_made(tmp_path: Path) -> None:
    """Tools that only render templates make no new keys each time."""
    made = one(rendered(tmp_path, "site"), "Secret", "perijove")
    assert not made["data"]


def test_only_proxies_reach_what_believes_them(tmp_path: Path) -> None:
    """The address of the hub that takes proxies' word is open to proxies and to nobody else."""
    policy = one(rendered(tmp_path, "site"), "NetworkPolicy", "-hub")
    (rule,) = [each for each in policy["spec"]["ingress"] if {"port": "proxies"} in each["ports"]]
    (peer,) = rule["from"]
    labels = peer["podSelector"]["matchLabels"]
    assert labels["app.kubernetes.io/component"] == "proxy"
    assert "namespaceSelector" not in peer


def test_the_rights_are_those_of_the_spawner(tmp_path: Path) -> None:
    """The hub may do what its spawner says it does, where it does it, and nothing else."""
    assert (CHART / "files/rights.yaml").read_text() == chart.rights()
    manifests = rendered(tmp_path, "site")
    assert one(manifests, "Role") == _as_written(one(manifests, "Role"), rights.role("", "people"))
    everywhere = one(manifests, "ClusterRole")
    assert everywhere == _as_written(everywhere, rights.cluster_role(""))

    manifests = rendered(tmp_path, "spread")
    assert not [each for each in manifests if each["kind"] in {"Role", "RoleBinding"}]
    made = one(manifests, "ClusterRole")["rules"]
    wanted = rights.cluster_role("", namespace_per_user=True)["rules"]
    assert made == [rule for rule in wanted if rule["resources"] != ["nodes"]]


def _as_written(found: Manifest, wanted: Mapping[str, Any]) -> Manifest:
    """Return what the spawner wants, there, with the name and labels that the chart gives it."""
    namespace = {
        key: wanted["metadata"][key] for key in ("namespace",) if key in wanted["metadata"]
    }
    ours = {key: found["metadata"][key] for key in ("name", "labels")}
    return {**wanted, "metadata": ours | namespace}


def test_servers_share_no_namespace_with_the_hub(tmp_path: Path) -> None:
    """Who starts pods beside the keyring could read it; and people's files outlive a release."""
    manifests = rendered(tmp_path, "trial")
    made = one(manifests, "Namespace")["metadata"]
    assert made["name"] == one(manifests, "Role")["metadata"]["namespace"] == "hubs-servers"
    assert made["annotations"] == {"helm.sh/resource-policy": "keep"}
    keyring = one(manifests, "Secret", "perijove")
    assert keyring["metadata"].get("namespace", "hubs") == "hubs"


def test_images_are_fetched_ahead(tmp_path: Path) -> None:
    """
    Those that are named and all that the configuration has for pods, each once.

    Not those of other platforms, and none that a person completes.
    """
    pod = dict(pods(rendered(tmp_path, "images")))["a-site-perijove-prepull"]
    images = [each["image"].removeprefix("registry.example.org/") for each in pod["initContainers"]]
    assert images[:2] == ["r:1", "base:1"]
    assert sorted(images[2:]) == ["astro:1", "choice:1", "data:1", "fixed:1", "gpu:1"]


def test_nothing_is_fetched_for_servers_that_are_no_pods(tmp_path: Path) -> None:
    """A hub in the cluster whose servers are elsewhere has no images put on the nodes."""
    assert "a-site-perijove-prepull" not in dict(pods(rendered(tmp_path, "elsewhere")))


def test_the_public_path_is_that_of_the_configuration(tmp_path: Path) -> None:
    """Ingress and probes know base_path."""
    manifests = rendered(tmp_path, "site")
    rule = one(manifests, "Ingress")["spec"]["rules"][0]["http"]["paths"][0]
    assert (rule["path"], rule["backend"]["service"]["port"]["number"]) == ("/jupyter/", 443)
    hub = dict(pods(manifests))["a-site-perijove-hub"]["containers"][0]
    assert hub["readinessProbe"]["httpGet"]["path"] == "/jupyter/hub/health"
