"""What journeys on the schedulers rely on: that each begins where nothing is in the way."""

from pathlib import Path

import pytest

from tests import beds, clusters

DISTURBED: dict[clusters.Cluster, tuple[tuple[str, str], str]] = {
    "slurm": (("down", "cpu2"), "node cpu2 is down"),
    "gridengine": (("disable", "short.q"), "queue short.q@"),
}


@pytest.mark.needs("root", "users", "slurm", "gridengine")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("cluster", clusters.BOTH)
def test_what_a_test_leaves_is_named_and_removed(cluster: clusters.Cluster) -> None:
    """A job, a node or queue that is off, and start files of a home: none of them stays."""
    disturbance, shown = DISTURBED[cluster]
    profile = Path("~alice/.bash_profile").expanduser()
    jobs: list[str] = []

    def leave() -> None:
        with clusters.left_clean(cluster, patience=1):
            jobs.append(clusters.Blockers().block(cluster, "alice"))
            beds.disturb(cluster, *disturbance)
            beds.run_as("alice", "touch", str(profile))

    with pytest.raises(AssertionError, match="is left of this test") as caught:
        leave()
    said = str(caught.value)
    assert f"id='{jobs[0]}'" in said
    assert shown in said
    assert clusters.in_the_way([cluster]) == []
    assert not profile.exists()
