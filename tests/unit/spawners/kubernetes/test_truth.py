"""What is said of a pod follows from what the cluster says of it, and from nothing else."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from perijove.domain.launch import Cause, End
from perijove.domain.reasons import CANNOT, WAITING, find_reason
from perijove.spawners.contract import Phase
from perijove.spawners.kubernetes.ends import end_of_removed, own_end_of
from perijove.spawners.kubernetes.evidence import nodes_of
from perijove.spawners.kubernetes.objects import moment
from perijove.spawners.kubernetes.truth import sighting_of
from perijove.spawners.kubernetes.waiting import requested
from tests.unit.spawners.kubernetes.corpus import FOLDER, event, evidence, nodes, read

PODS = sorted(file.stem for file in FOLDER.glob("*.json") if "pod" in read(file.stem))


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("init-running", "init-running"),
        ("mount-host-path", "volume-attaching"),
        ("mount-nfs", "volume-attaching"),
        ("pending-cordoned", "no-node"),
        ("pending-cpu", "over-cpu"),
        ("pending-cpu-and-memory", "over-gpu"),
        ("pending-ephemeral-storage", "over-resource"),
        ("pending-gpu", "over-gpu"),
        ("pending-gpu-busy", "no-gpu"),
        ("pending-memory", "over-memory"),
        ("pending-new", "just-submitted"),
        ("pending-node-selector", "no-node"),
        ("pending-taint", "no-node"),
        ("preempting", "no-gpu"),
        ("pull-no-such-host", "image-pull-failing"),
        ("pull-rate-limit", "image-pull-failing"),
        ("pull-refused", "image-pull-failing"),
        ("scheduled", "container-creating"),
    ],
)
def test_what_waits_says_why(name: str, code: str) -> None:
    """Why a pod waits is one of the catalogue's codes, with the cluster's words beside it."""
    seen = sighting_of(evidence(name))

    assert seen.reason is not None
    assert (seen.phase, seen.reason.code) == (Phase.PENDING, code)
    assert seen.reason.code in WAITING


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("command-missing", "command-missing"),
        ("config-map-missing", "config-missing"),
        ("config-root-user", "container-refused"),
        ("config-secret-missing", "config-missing"),
        ("image-name-invalid", "image-invalid"),
        ("init-failed", "init-failed"),
        ("init-pull-back-off", "image-not-found"),
        ("mount-secret-missing", "config-missing"),
        ("pending-claim-missing", "volume-missing"),
        ("pending-claim-no-class", "no-storage"),
        ("pending-class-missing", "no-storage"),
        ("pull-back-off", "image-not-found"),
        ("pull-denied", "image-denied"),
        ("pull-never", "image-not-found"),
        ("pull-not-found", "image-not-found"),
    ],
)
def test_what_can_never_start_has_ended(name: str, reason: str) -> None:
    """What waits in vain is over at once, and says why in the catalogue's and its own words."""
    seen = sighting_of(evidence(name))

    assert seen.end is not None
    assert (seen.phase, seen.end.cause, seen.end.reason) == (
        Phase.GONE,
        Cause.NEVER_STARTED,
        reason,
    )
    assert seen.end.detail
    assert reason in CANNOT


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("exit-0", End(cause=Cause.EXITED, code=0)),
        ("exit-3", End(cause=Cause.EXITED, code=3)),
        ("exit-3-log", End(cause=Cause.EXITED, code=3)),
        ("signal-9", End(cause=Cause.SIGNAL, code=9)),
        ("signal-11", End(cause=Cause.SIGNAL, code=11)),
        ("oom-killed", End(cause=Cause.OUT_OF_MEMORY, code=137)),
    ],
)
def test_what_ended_by_itself_says_how(name: str, end: End) -> None:
    """The end of a server's process is told by its own word."""
    seen = sighting_of(evidence(name))

    assert (seen.phase, seen.end) == (Phase.GONE, end)


@pytest.mark.parametrize(
    ("name", "cause", "reason"),
    [
        ("evicted", Cause.PREEMPTED, "evicted"),
        ("deadline-exceeded", Cause.WALLTIME, ""),
        ("deadline-exceeded-early", Cause.WALLTIME, ""),
    ],
)
def test_what_the_cluster_ended_says_so(name: str, cause: Cause, reason: str) -> None:
    """What the cluster ended for a reason of its own is not taken for the server's doing."""
    seen = sighting_of(evidence(name))

    assert seen.end is not None
    assert (seen.phase, seen.end.cause, seen.end.reason) == (Phase.GONE, cause, reason)


@pytest.mark.parametrize("name", ["running", "running-not-ready", "sidecar-failed"])
def test_what_runs_is_reached_in_its_pod(name: str) -> None:
    """A server runs when its own container does, whatever is beside it."""
    seen = sighting_of(evidence(name))

    assert seen.phase is Phase.RUNNING
    assert seen.url == f"http://{evidence(name).status['podIP']}:8888"
    assert (seen.node, seen.end, seen.reason) == ("testbed", None, None)
    assert seen.since is not None


def test_address_of_the_sixth_version_is_written_in_brackets() -> None:
    """An address with colons can be told from its port."""
    known = evidence("running")
    known.pod["status"]["podIP"] = "fd00::7"

    assert sighting_of(known).url == "http://[fd00::7]:8888"


@pytest.mark.parametrize("name", PODS)
def test_every_state_says_enough(name: str) -> None:
    """Whatever a cluster says there is an answer: a reason, an address or an end."""
    for known in (evidence(name), evidence(name, nodes=None), evidence(name, events=[])):
        seen = sighting_of(known)

        assert (seen.phase is Phase.GONE) == (seen.end is not None)
        assert (seen.phase is Phase.PENDING) == (seen.reason is not None)
        assert (seen.phase is Phase.RUNNING) == bool(seen.url)


def test_too_large_is_known_by_the_nodes_alone() -> None:
    """Where nodes may not be seen, or larger ones may come, what does not fit may yet fit."""
    seen = [
        sighting_of(evidence("pending-cpu", **changes)).reason
        for changes in ({"nodes": None}, {"growable": True})
    ]

    assert [reason.code if reason else "" for reason in seen] == ["no-cpu", "no-cpu"]


@pytest.mark.parametrize(
    ("resource", "asked", "code"),
    [
        ("example.org/dongle", "1", "over-resource"),
        ("hugepages-2Mi", "4Mi", "over-resource"),
        ("nvidia.com/gpu", "2", "over-gpu"),
        ("nvidia.com/gpu", "1", "no-gpu"),
    ],
)
def test_what_no_node_has_is_too_much_whatever_it_is(resource: str, asked: str, code: str) -> None:
    """No kind of resource is waited for of which no node has enough, were it empty."""
    known = evidence("pending-gpu")
    known.pod["spec"]["containers"][0]["resources"]["requests"] = {resource: asked}
    known.pod["status"]["conditions"][0]["message"] = f"0/1 nodes: 1 Insufficient {resource}."

    reason = sighting_of(known).reason
    growing = sighting_of(replace(known, growable=True)).reason

    assert reason is not None
    assert growing is not None
    assert reason.code == code
    assert not find_reason(growing.code).can_never_start


def test_device_that_fails_now_may_be_well_again() -> None:
    """A node whose devices are not healthy, or whose driver starts anew, still has them."""
    items = read("nodes")["items"]
    items[0]["status"]["allocatable"]["nvidia.com/gpu"] = "0"
    known = evidence("pending-gpu-busy", nodes=nodes_of(items))

    reason = sighting_of(known).reason

    assert reason is not None
    assert reason.code == "no-gpu"


@pytest.mark.parametrize(
    ("before", "beside", "cpu"),
    [
        ([], ["1", "500m"], "1.5"),
        ([{"cpu": "4"}, {"cpu": "3"}], ["1", "500m"], "4"),
        ([{"cpu": "1"}], ["1", "500m"], "1.5"),
        ([{"cpu": "1", "stays": True}, {"cpu": "3"}], ["1", "500m"], "4"),
        ([{"cpu": "3"}, {"cpu": "2", "stays": True}], ["1", "500m"], "3.5"),
    ],
)
def test_what_runs_before_a_server_counts_too(
    before: list[dict[str, Any]], beside: list[str], cpu: str
) -> None:
    """A node has to have room for the greediest moment: what runs before, or all that stays."""
    first = [
        {"resources": {"requests": {"cpu": one["cpu"]}}}
        | ({"restartPolicy": "Always"} if "stays" in one else {})
        for one in before
    ]
    containers = [{"resources": {"requests": {"cpu": one}}} for one in beside]

    assert requested({"initContainers": first, "containers": containers}) == {"cpu": Decimal(cpu)}


def test_too_large_says_how_much_there_is() -> None:
    """What can never start names what was asked for and what the largest node has."""
    reason = sighting_of(evidence("pending-cpu")).reason

    assert reason is not None
    assert find_reason(reason.code).can_never_start
    assert dict(reason.params) == {"asked": 500.0, "most": 2.0}


def test_pulling_says_since_when() -> None:
    """While an image is fetched it is said which one and since when."""
    said = event("Pulling", 'Pulling image "here/lab:1"', "2026-11-20T19:40:00Z")

    reason = sighting_of(evidence("scheduled", events=[said])).reason

    assert reason is not None
    assert reason.code == "pulling-image"
    assert reason.params["since"] == "2026-11-20T19:40:00.000000Z"


def test_growing_node_pool_is_said_while_it_lasts() -> None:
    """A node that is being added is news for a while, and none once it was given up."""
    known = evidence("pending-memory")
    at = moment(known.pod["metadata"]["creationTimestamp"])
    assert at is not None
    grows = event("TriggeredScaleUp", "pod triggered scale-up", at.isoformat())
    stays = event("NotTriggerScaleUp", "max node group size reached", at.isoformat())

    def code(now: Any, *events: Any) -> str:
        reason = sighting_of(evidence("pending-memory", now=now, events=events)).reason
        return reason.code if reason else ""

    assert code(at + timedelta(minutes=1), grows) == "node-pool-growing"
    assert code(at + timedelta(minutes=1), grows, stays) == "over-memory"
    assert code(at + timedelta(hours=1), grows) == "over-memory"


def a_pod(user: str, server: str | None, node: str = "") -> dict[str, Any]:
    """Return a pod of ours; one that an older hub has made where `server` is None."""
    written = {} if server is None else {"perijove.org/server": server}
    return {
        "metadata": {
            "annotations": {"perijove.org/user": user, **written},
            "labels": {"perijove.org/server": "as-a-label"},
        },
        "spec": {"nodeName": node} if node else {},
    }


USED = 'Multi-Attach error for volume "pvc-1" Volume is already used by pod(s) '
PODS_THERE = {
    "pj-own": a_pod("ann", "My work", "n1"),
    "pj-default": a_pod("ann", ""),
    "pj-older": a_pod("ann", None, "n1"),
    "pj-theirs": a_pod("bob", "secret plans", "n2"),
}


@pytest.mark.parametrize(
    ("message", "code", "params"),
    [
        (f"{USED}pj-own", "volume-held", {"server": "My work", "node": "n1"}),
        (f"{USED}pj-theirs, pj-own", "volume-held", {"server": "My work", "node": "n1"}),
        (f"{USED}pj-default", "volume-held", {"server": ""}),
        (f"{USED}pj-older", "volume-held", {"server": "as-a-label", "node": "n1"}),
        (f"{USED}pj-theirs", "volume-held-by-another", {"node": "n2"}),
        (f"{USED}somebody-else", "volume-held-by-another", {}),
        (
            f"{USED}pj-own and 1 pod(s) in different namespaces",
            "volume-held",
            {"server": "My work", "node": "n1"},
        ),
        (
            "Multi-Attach error for volume Volume is already used by 2 pod(s) in different "
            "namespaces",
            "volume-held-by-another",
            {},
        ),
        (
            'Multi-Attach error for volume "pvc-1" Volume is already exclusively attached to one '
            "node and can't be attached to another",
            "volume-held",
            {},
        ),
    ],
)
def test_volume_in_use_names_its_holder(message: str, code: str, params: dict[str, str]) -> None:
    """Of a held volume people learn by which of their own servers, and nothing of others'."""
    known = evidence(
        "scheduled", events=[event("FailedAttachVolume", message)], find_pod=PODS_THERE.get
    )
    known.pod["metadata"]["annotations"]["perijove.org/user"] = "ann"

    reason = sighting_of(known).reason

    assert reason is not None
    assert (reason.code, dict(reason.params)) == (code, params)


@pytest.mark.parametrize(
    "words",
    [
        'secret "config-secret-missing" not found',
        "failed to sync secret cache: timed out waiting for the condition",
    ],
)
def test_what_the_kubelet_has_not_heard_of_is_waited_for(words: str) -> None:
    """A kubelet that does not know the pod's own secret yet, made before it, will know it."""
    known = evidence("config-secret-missing")
    waiting = known.pod["status"]["containerStatuses"][0]["state"]["waiting"]
    waiting["message"] = words

    seen = sighting_of(known)

    assert seen.reason is not None
    assert (seen.reason.code, seen.reason.words) == ("container-creating", words)


def test_new_claim_is_waited_for() -> None:
    """A scheduler that has not heard of a claim that was made first will hear of it."""
    known = evidence("pending-claim-missing")
    soon = known.now - timedelta(minutes=2) + timedelta(seconds=5)

    assert sighting_of(evidence("pending-claim-missing", now=soon)).phase is Phase.PENDING


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("pending-class-missing", {"deaf": True}),
        ("pending-class-missing", {"claim_events": ()}),
        ("pending-claim-no-class", {"growable": True}),
        ("pending-claim-no-class", {"now": moment("2026-11-20T19:17:30Z")}),
    ],
)
def test_storage_that_may_yet_come_is_waited_for(name: str, changes: dict[str, Any]) -> None:
    """A volume may be made by hand or come with a node; and what is not heard of is not known."""
    reason = sighting_of(evidence(name, **changes)).reason

    assert reason is not None
    assert reason.code == "volume-pending"


def test_what_was_said_to_an_earlier_pod_ends_no_later_one() -> None:
    """A storage class that was missing last time may be there now: what is said anew counts."""
    known = evidence("pending-class-missing")
    known.pod["metadata"]["creationTimestamp"] = "2026-11-20T19:40:00Z"

    seen = sighting_of(known)

    assert seen.reason is not None
    assert (seen.reason.code, seen.reason.words) == (
        "volume-pending",
        known.condition("PodScheduled")["message"],
    )


def test_claim_that_has_its_volume_by_now_ends_nothing() -> None:
    """Who makes volumes by hand may have made one meanwhile: the scheduler knows, no event does."""
    known = evidence("pending-class-missing")
    known.pod["status"]["conditions"][0]["message"] = "0/1 nodes: 1 Insufficient memory."

    reason = sighting_of(known).reason

    assert reason is not None
    assert reason.code == "no-memory"


def test_claim_says_itself_why_it_waits() -> None:
    """What prepares a volume is quoted, rather than the scheduler that only waits for it."""
    words = "failed to provision volume with StorageClass: the store is busy"
    said = event("ProvisioningFailed", words)

    reason = sighting_of(evidence("pending-class-missing", claim_events=[said])).reason

    assert reason is not None
    assert (reason.code, reason.words) == ("volume-pending", words)


@pytest.mark.parametrize("name", ["mount-secret-missing", "pull-refused", "mount-nfs"])
def test_old_events_say_nothing_of_now(name: str) -> None:
    """What events said before nothing more was heard of them neither ends nor explains a launch."""
    seen = sighting_of(evidence(name, deaf=True))

    assert seen.reason is not None
    assert seen.reason.code in {"container-creating", "image-pull-failing"}


def test_terminating_server_still_runs() -> None:
    """What somebody has deleted runs until its server has ended."""
    assert sighting_of(evidence("terminating")).phase is Phase.RUNNING
    assert sighting_of(evidence("evicted-by-api")).phase is Phase.RUNNING


@pytest.mark.parametrize(
    ("name", "seen", "events", "cause", "reason"),
    [
        ("terminating", "nodes", (), Cause.CANCELLED_OUTSIDE, ""),
        ("evicted-by-api", "nodes-cordoned", (), Cause.NODE_FAIL, "drained"),
        ("node-lost", "nodes-lost", (), Cause.NODE_FAIL, "node-lost"),
        ("terminating", "nodes", ("TaintManagerEviction",), Cause.NODE_FAIL, "node-lost"),
        ("preempted", "nodes", ("Preempted",), Cause.PREEMPTED, "evicted"),
    ],
)
def test_removed_pod_says_by_whom(
    name: str, seen: str, events: tuple[str, ...], cause: Cause, reason: str
) -> None:
    """A pod that somebody else has removed ended by what there are traces of."""
    known = evidence(name, nodes=nodes(seen), events=[event(one, "words") for one in events])
    known.pod["metadata"].setdefault("deletionTimestamp", "2026-11-20T19:30:00Z")

    end = end_of_removed(known)

    assert (end.cause, end.reason) == (cause, reason)


def test_newer_clusters_say_who_disrupted_a_pod() -> None:
    """The condition that clusters from 1.26 on set is believed before anything else."""
    known = evidence("terminating", nodes=nodes("nodes-lost"))
    known.pod["status"]["conditions"].append(
        {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
    )

    assert end_of_removed(known).cause is Cause.PREEMPTED


def test_deleted_pod_of_a_dead_node_is_gone() -> None:
    """What was to be gone by now, on a node that is not heard of, failed with its node."""
    known = evidence("node-lost", nodes=nodes("nodes-lost"))
    at = known.now
    known.pod["metadata"]["deletionTimestamp"] = at.isoformat()

    def seen(seconds: float) -> Phase:
        now = at + timedelta(seconds=seconds)
        return sighting_of(
            evidence("node-lost", pod=known.pod, nodes=nodes("nodes-lost"), now=now)
        ).phase

    assert [seen(5), seen(60)] == [Phase.RUNNING, Phase.GONE]


def test_silence_of_a_node_is_no_end() -> None:
    """As long as nobody has removed it, what runs on a node that is not heard of runs."""
    known = evidence("node-lost", nodes=nodes("nodes-lost"))

    assert own_end_of(known) is None
    assert sighting_of(known).phase is Phase.RUNNING
