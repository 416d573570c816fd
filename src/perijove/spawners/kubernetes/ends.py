"""How a pod ended, or why it never will start: by what the cluster says, never by silence."""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from perijove.domain.launch import Cause, End
from perijove.spawners.kubernetes.evidence import Evidence
from perijove.spawners.kubernetes.objects import moment, name_of

_WORDS: Final = 500
_LAST_SIGNAL: Final = 64
_DEAD: Final = timedelta(seconds=30)
_SETTLED: Final = timedelta(seconds=30)

_POD_ENDS: Final[Mapping[str, tuple[Cause, str]]] = {
    "Evicted": (Cause.PREEMPTED, "evicted"),
    "Preempting": (Cause.PREEMPTED, "evicted"),
    "DeadlineExceeded": (Cause.WALLTIME, ""),
    "NodeLost": (Cause.NODE_FAIL, "node-lost"),
    "NodeShutdown": (Cause.NODE_FAIL, "node-shutdown"),
    "Shutdown": (Cause.NODE_FAIL, "node-shutdown"),
    "Terminated": (Cause.NODE_FAIL, "node-shutdown"),
}
"""By the reason that the pod itself gives."""

_DISRUPTIONS: Final[Mapping[str, tuple[Cause, str]]] = {
    "PreemptionByScheduler": (Cause.PREEMPTED, "evicted"),
    "TerminationByKubelet": (Cause.PREEMPTED, "evicted"),
    "DeletionByTaintManager": (Cause.NODE_FAIL, "node-lost"),
    "DeletionByPodGC": (Cause.NODE_FAIL, "node-lost"),
    "EvictionByEvictionAPI": (Cause.NODE_FAIL, "drained"),
}
"""By the reason of the condition `DisruptionTarget`; clusters before 1.26 have only events."""

_EVENTS: Final[Mapping[str, tuple[Cause, str]]] = {
    "Preempted": (Cause.PREEMPTED, "evicted"),
    "Evicted": (Cause.PREEMPTED, "evicted"),
    "TaintManagerEviction": (Cause.NODE_FAIL, "node-lost"),
    "NodeNotReady": (Cause.NODE_FAIL, "node-lost"),
}

_NEVER: Final[Mapping[str, str]] = {
    "InvalidImageName": "image-invalid",
    "ErrImageNeverPull": "image-not-found",
}
"""By what a container waits for, in vain."""

_NOT_FOUND: Final = re.compile(
    r"manifest unknown|name unknown|not found|does not exist|no such image|not present", re.I
)
_DENIED: Final = re.compile(
    r"unauthorized|denied|forbidden|authentication required|no basic auth", re.I
)
_NO_SUCH_HOST: Final = re.compile(r"no such host|lookup |dial tcp", re.I)
_NO_SUCH_PROGRAM: Final = re.compile(r"no such file|not found in \$PATH|permission denied", re.I)
_NAMED: Final = re.compile(
    r'(?:secret|configmap) "([^"]+)" not found|references non-existent|couldn\'t find key', re.I
)
_NOT_ALLOWED: Final = re.compile(r"runAsNonRoot|runAsUser|non-root|non-numeric", re.I)
PULL_FAILURES: Final = {"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"}
"""What a container waits for whose image could not be fetched."""

_NO_SUCH_CLASS: Final = re.compile(r'storageclass[^"]*"[^"]+" not found', re.I)
_NO_VOLUME: Final = re.compile(r"no persistent volumes available.* no storage class is set", re.I)
_NOT_LASTING: Final = re.compile(r"deadline exceeded|already in use|is reserved", re.I)


def end_of(evidence: Evidence) -> End | None:
    """Return how it ended; None while it has not, or may still start."""
    if evidence.deleted_at is not None:
        return _end_of_deleted(evidence)
    return own_end_of(evidence) or _hopeless(evidence)


def own_end_of(evidence: Evidence) -> End | None:
    """Return how its server ended, by its own word; None while it has not."""
    status = evidence.status
    if status.get("phase") == "Failed" and status.get("reason") in _POD_ENDS:
        return _end(_POD_ENDS[status["reason"]], status.get("message"))
    if "terminated" in evidence.server:
        return _end_of_container(evidence.server["terminated"])
    for state in evidence.preparations:
        if "terminated" in state and state["terminated"]["exitCode"] != 0:
            return _never("init-failed", _words_of_exit(state["terminated"]))
    if status.get("phase") == "Failed":
        # The kubelet itself refused: not enough of something, a node that does not suit it.
        words = f"{status.get('reason', '')}: {status.get('message', '')}"
        return _never("container-refused", words)
    return None


def end_of_removed(evidence: Evidence) -> End:
    """Return how a pod ended that is no more, though we did not remove it."""
    return (own_end_of(evidence) if evidence.deleted_at is None else None) or _end_by_others(
        evidence
    )


def _end_of_deleted(evidence: Evidence) -> End | None:
    """Return the end of what somebody has deleted: once its server is over, or its node dead."""
    at, node = evidence.deleted_at, evidence.node
    over = "terminated" in evidence.server or evidence.status.get("phase") in {
        "Failed",
        "Succeeded",
    }
    if over or "running" not in evidence.server:
        return _end_by_others(evidence) if over else None
    if at is not None and node is not None and not node.ready and evidence.now - at > _DEAD:
        return End(cause=Cause.NODE_FAIL, reason="node-lost", detail=node.name)
    return None


def _end_by_others(evidence: Evidence) -> End:
    """Return who ended it, as far as there are traces."""
    disruption = evidence.condition("DisruptionTarget")
    if disruption.get("status") == "True" and disruption.get("reason") in _DISRUPTIONS:
        return _end(_DISRUPTIONS[disruption["reason"]], disruption.get("message"))
    status = evidence.status
    if status.get("reason") in _POD_ENDS:
        return _end(_POD_ENDS[status["reason"]], status.get("message"))
    if (event := evidence.latest(_EVENTS)) is not None:
        return _end(_EVENTS[event["reason"]], event.get("message"))
    node = evidence.node
    if node is not None and not node.ready:
        return End(cause=Cause.NODE_FAIL, reason="node-lost", detail=node.name)
    if node is not None and node.cordoned:
        return End(cause=Cause.NODE_FAIL, reason="drained", detail=node.name)
    return End(cause=Cause.CANCELLED_OUTSIDE)


def _end_of_container(terminated: Mapping[str, Any]) -> End:
    code, reason = int(terminated["exitCode"]), terminated.get("reason")
    words = str(terminated.get("message", ""))
    if reason == "OOMKilled":
        return End(cause=Cause.OUT_OF_MEMORY, code=code)
    if reason == "ContainerStatusUnknown":
        return End(cause=Cause.NODE_FAIL, reason="node-lost", detail=words[:_WORDS])
    if reason in {"ContainerCannotRun", "StartError"}:
        missing = _NO_SUCH_PROGRAM.search(words)
        return _never("command-missing" if missing else "container-failed", words)
    number = int(terminated.get("signal") or code - 128)
    if 0 < number <= _LAST_SIGNAL:
        return End(cause=Cause.SIGNAL, code=number)
    return End(cause=Cause.EXITED, code=code)


def _hopeless(evidence: Evidence) -> End | None:
    """Return why it can never start, though it still waits."""
    reason = str(evidence.waiting.get("reason", ""))
    words = str(evidence.waiting.get("message", ""))
    if reason in _NEVER:
        return _never(_NEVER[reason], words)
    if reason in PULL_FAILURES:
        return _unfetchable(pull_words(evidence))
    if reason == "CreateContainerConfigError":
        return _misconfigured(evidence, words)
    if reason in {"CreateContainerError", "RunContainerError"}:
        return None if _NOT_LASTING.search(words) else _never("container-refused", words)
    return _without_storage(evidence) or _without_volume(evidence)


def pull_words(evidence: Evidence) -> str:
    """Return what the cluster last said of an image that it could not fetch."""
    for event in reversed(evidence.events):
        words = str(event.get("message", ""))
        if event.get("reason") == "Failed" and words.startswith("Failed to pull image"):
            return words
    return str(evidence.waiting.get("message", ""))


def _unfetchable(words: str) -> End | None:
    """Return that an image is not there or is refused; None for what may pass."""
    if _NO_SUCH_HOST.search(words):
        return None
    if _NOT_FOUND.search(words):
        return _never("image-not-found", words)
    if _DENIED.search(words):
        return _never("image-denied", words)
    return None


def _misconfigured(evidence: Evidence, words: str) -> End | None:
    """Return what is missing or not allowed; None for what a kubelet will come to know."""
    if _NOT_ALLOWED.search(words):
        return _never("container-refused", words)
    named = _NAMED.search(words)
    # Its own secret was made before it: the kubelet has not heard of it yet.
    if named is None or named[1] == name_of(evidence.pod):
        return None
    return _never("config-missing", words)


def _without_storage(evidence: Evidence) -> End | None:
    """Return that nothing makes the volume that a claim is for, by the word of who would."""
    said = evidence.about_claims
    if said is None:
        return None
    words = str(said.get("message", ""))
    if said.get("reason") == "ProvisioningFailed" and _NO_SUCH_CLASS.search(words):
        return _never("no-storage", words)
    # A volume that is made by hand, or comes with a node, may be there a moment later.
    is_by_hand = said.get("reason") == "FailedBinding" and _NO_VOLUME.search(words)
    if is_by_hand and _is_settled(evidence) and not evidence.growable:
        return _never("no-storage", words)
    return None


def _without_volume(evidence: Evidence) -> End | None:
    """Return that a volume, or what one is made of, is not there."""
    mount = evidence.current({"FailedMount", "Pulling", "Pulled", "Created"})
    if mount is not None and mount["reason"] == "FailedMount":
        words = str(mount.get("message", ""))
        return _misconfigured(evidence, words)
    words = str(evidence.condition("PodScheduled").get("message", ""))
    # A scheduler learns of a new one only after a while.
    if _is_settled(evidence) and re.search(r'persistentvolumeclaim "[^"]+" not found', words):
        return _never("volume-missing", words)
    return None


def _is_settled(evidence: Evidence) -> bool:
    """Tell whether all who have to do with a pod have had time to hear of it."""
    made = moment(evidence.pod["metadata"].get("creationTimestamp"))
    return made is not None and evidence.now - made > _SETTLED


def _words_of_exit(terminated: Mapping[str, Any]) -> str:
    words = terminated.get("message") or terminated.get("reason") or ""
    return f"exit code {terminated['exitCode']}: {words}"


def _never(reason: str, words: str) -> End:
    return End(cause=Cause.NEVER_STARTED, reason=reason, detail=words.strip()[:_WORDS])


def _end(known: tuple[Cause, str], words: object) -> End:
    cause, reason = known
    return End(cause=cause, reason=reason, detail=str(words or "").strip()[:_WORDS])
