"""What an administrator may lay over a pod, and what not."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.spawners.kubernetes.overlay import check_overlay, merged
from perijove.spawners.kubernetes.shapes import check_shape

POD = {
    "metadata": {"name": "pj-a", "labels": {"perijove.org/name": "pj-a"}},
    "spec": {
        "containers": [{"name": "server", "image": "lab", "env": [{"name": "A", "value": "1"}]}],
        "volumes": [{"name": "perijove-0"}],
        "dnsPolicy": "ClusterFirst",
    },
}


@pytest.mark.parametrize(
    "overlay",
    [
        {"apiVersion": "v2"},
        {"kind": "Job"},
        {"status": {}},
        {"anything": 1},
        {"metadata": {"name": "other"}},
        {"metadata": {"namespace": "other"}},
        {"metadata": {"ownerReferences": []}},
        {"metadata": {"finalizers": ["a/b"]}},
        {"metadata": {"labels": {"perijove.org/installation": "other"}}},
        {"metadata": {"labels": None}},
        {"metadata": {"annotations": {"perijove.org/port": "1"}}},
        {"metadata": None},
        {"spec": None},
        {"spec": []},
        {"spec": {"restartPolicy": "Always"}},
        {"spec": {"nodeName": "n1"}},
        {"spec": {"containers": None}},
        {"spec": {"containers": []}},
        {"spec": {"containers": [{"image": "nameless"}]}},
        {"spec": {"containers": [{"name": "server", "envFrom": []}]}},
        {"spec": {"containers": [{"name": "server", "envFrom": None}]}},
        {"spec": {"containers": [{"name": "server", "env": [{"name": "JUPYTERHUB_API_TOKEN"}]}]}},
        {"spec": {"containers": [{"name": "server", "env": "all"}]}},
    ],
)
def test_what_is_the_hubs_cannot_be_changed(overlay: Any) -> None:
    """What makes a pod ours, and what its token comes by, is refused, however it is written."""
    with pytest.raises(ValueError, match=r"cannot be changed|must be a"):
        check_overlay(overlay)


def test_tables_and_named_entries_are_merged() -> None:
    """Tables are merged, entries of lists by their names, and nothing else is lost."""
    overlay = {
        "metadata": {"labels": {"team": "a"}},
        "spec": {
            "dnsPolicy": "None",
            "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}],
            "containers": [
                {"name": "server", "stdin": True, "env": [{"name": "B", "value": "2"}]},
                {"name": "beside", "image": "b"},
            ],
        },
    }
    check_overlay(overlay)

    laid = merged(POD, overlay)

    assert laid["metadata"]["labels"] == {"perijove.org/name": "pj-a", "team": "a"}
    server, beside = laid["spec"]["containers"]
    assert (server["image"], server["stdin"], beside["image"]) == ("lab", True, "b")
    assert [one["name"] for one in server["env"]] == ["A", "B"]
    assert laid["spec"]["dnsPolicy"] == "None"
    assert laid["spec"]["volumes"] == [{"name": "perijove-0"}]


def test_nothing_laid_over_takes_away() -> None:
    """What is laid over as nothing is taken away."""
    assert "dnsPolicy" not in merged(POD, {"spec": {"dnsPolicy": None}})["spec"]


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "spec", "metadata", "labels", "containers", "env", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["metadata", "spec"]), TREES))
def test_whatever_is_accepted_leaves_the_pod_ours(overlay: dict[str, Any]) -> None:
    """Whatever is laid over is refused, or leaves name, labels and the server's container."""
    try:
        check_overlay(overlay)
    except ValueError:
        return

    laid = merged(POD, overlay)

    assert laid["metadata"]["name"] == "pj-a"
    assert laid["metadata"]["labels"]["perijove.org/name"] == "pj-a"
    assert laid["spec"]["containers"][0]["name"] == "server"


@pytest.mark.parametrize(
    ("overlay", "said"),
    [
        ({"spec": {"container": []}}, "spec.container.*did you mean 'containers'"),
        ({"metadata": {"label": {}}}, "metadata.label.*did you mean 'labels'"),
        (
            {
                "spec": {
                    "containers": [{"name": "server"}, {"name": "b", "imagePulPolicy": "Always"}]
                }
            },
            r"spec.containers\[1\].imagePulPolicy",
        ),
        (
            {"spec": {"containers": [{"name": "server", "resources": {"limit": {}}}]}},
            r"spec.containers\[0\].resources.limit:",
        ),
        ({"spec": {"dns_policy": "None"}}, "did you mean 'dnsPolicy'"),
        ({"spec": {"tolerations": {"key": "a"}}}, "spec.tolerations must be a list"),
        ({"spec": {"nodeSelector": ["a"]}}, "spec.nodeSelector must be a table"),
        ({"spec": {"hostNetwork": "yes"}}, "spec.hostNetwork must be true or false"),
        ({"spec": {"priority": True}}, "spec.priority must be a whole number"),
        ({"spec": {"priority": "high"}}, "spec.priority must be a whole number"),
        ({"spec": {"hostname": True}}, "spec.hostname must be a text"),
        ({"metadata": {"annotations": {"a": {"b": "c"}}}}, "metadata.annotations.a must be a text"),
    ],
)
def test_what_kubernetes_does_not_know_is_named(overlay: Any, said: str) -> None:
    """A key of no meaning, or a value that cannot be, is refused by the path where it stands."""
    with pytest.raises(ValueError, match=said):
        check_shape(overlay, "V1Pod")


def test_what_kubernetes_knows_is_let_through() -> None:
    """Whatever a pod can have may be laid over it, in whichever way it may be written."""
    check_shape(
        {
            "metadata": {"annotations": {"a": "b"}},
            "spec": {
                "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]},
                "dnsPolicy": None,
                "hostNetwork": False,
                "containers": [
                    {
                        "name": "server",
                        "livenessProbe": {"httpGet": {"port": "http", "path": "/api"}},
                        "readinessProbe": {"tcpSocket": {"port": 8888}},
                        "resources": {"limits": {"cpu": 1, "memory": "1Gi"}},
                    }
                ],
                "volumes": [{"name": "a", "emptyDir": {}}],
                "securityContext": {"supplementalGroups": [4, 5]},
            },
        },
        "V1Pod",
    )
