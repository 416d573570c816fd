"""What an engine says of a container, as a `Sighting`. Pure."""

import re
from collections.abc import Mapping
from typing import Any, Final

from perijove.domain.launch import Cause, End, Reason
from perijove.spawners.contract import Phase, Sighting
from perijove.spawners.docker.labels import PORT

_WORDS: Final = 500
_KILLED: Final = 137
_SIGNALS: Final = range(129, 128 + 65)
_OVER: Final = frozenset({"exited", "dead", "stopped", "removing"})

# What engines say when they refuse a container, the first that fits. They have no codes.
_REFUSALS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), code)
    for pattern, code in (
        (r"could not select device driver|\bgpu|nvidia", "over-gpu"),
        (r"range of cpus", "over-cpu"),
        (r"bind source path does not exist|no such volume", "volume-missing"),
        (r"exec: .*(not found|no such file|permission denied)", "command-missing"),
        (r"error while mounting volume|failed to mount|VolumeDriver", "volume-failed"),
        (r"unknown.* runtime|network \S+ not found|no such network", "config-missing"),
        (r"invalid reference format", "image-invalid"),
    )
)


_AMBIGUOUS: Final = re.compile(r"network \S+ is ambiguous")


def refusal_code(words: str) -> str:
    """Return the code for why an engine does not create or start a container."""
    return next((code for pattern, code in _REFUSALS if pattern.search(words)), "container-refused")


def will_pass(state: Mapping[str, Any]) -> bool:
    """
    Tell whether what an engine said when it did not start a container is soon not true any more.

    Two hubs that make the same network at the same time make two; one of them is removed at once.
    """
    return _AMBIGUOUS.search(str(state.get("Error") or "")) is not None


def is_over(state: str) -> bool:
    """Tell whether a container in a listed state has run and does not any more."""
    return state in _OVER


def end_of(state: Mapping[str, Any]) -> End | None:
    """Return how a container ended, from its ``State``; None while it has not."""
    status, code = state["Status"], int(state.get("ExitCode", 0))
    words = str(state.get("Error") or "")[:_WORDS]
    if status == "created":
        if (not words and code == 0) or will_pass(state):
            return None
        return End(cause=Cause.NEVER_STARTED, reason=refusal_code(words), detail=words)
    if not is_over(status):
        return None
    if code == _KILLED and state.get("OOMKilled"):
        # An engine also says so of a server that outlived the death of one of its processes.
        return End(cause=Cause.OUT_OF_MEMORY, detail=words)
    if code in _SIGNALS:
        return End(cause=Cause.SIGNAL, code=code - 128, detail=words)
    return End(cause=Cause.EXITED, code=code, detail=words)


def name_of(listed: Mapping[str, Any]) -> str:
    """Return a listed container's name."""
    return str(listed["Names"][0]).removeprefix("/")


def sighting_of(listed: Mapping[str, Any], *, node: str, end: End | None) -> Sighting:
    """Return what is seen of a listed container; `end` is the evidence of one that is over."""
    name, handle = name_of(listed), {"id": listed["Id"]}
    if end is not None:
        return Sighting(name=name, phase=Phase.GONE, handle=handle, node=node, end=end)
    match listed["State"]:
        case "running":
            url = address_of(listed)
            return Sighting(name=name, phase=Phase.RUNNING, handle=handle, node=node, url=url)
        case "paused":
            return Sighting(name=name, phase=Phase.SUSPENDED, handle=handle, node=node)
        case "created" | "configured" | "initialized":
            reason = Reason(code="container-creating")
            return Sighting(name=name, phase=Phase.PENDING, handle=handle, node=node, reason=reason)
        case _:
            # On its way from one state to another, such as one that is over but, as its details
            # say, not yet: nothing that anybody should act on.
            return Sighting(name=name, phase=Phase.RUNNING, handle=handle, node=node)


def address_of(listed: Mapping[str, Any]) -> str:
    """Return where the server in a listed container is reached; empty while it has no address."""
    port = int(listed["Labels"][PORT])
    for each in listed.get("Ports") or ():
        if each.get("PublicPort") and each["PrivatePort"] == port:
            return _url(each["IP"], each["PublicPort"])
    networks = listed["NetworkSettings"]["Networks"] or {}
    own = (listed.get("HostConfig") or {}).get("NetworkMode", "")  # podman lists none
    # The one that it was made in comes first: somebody may have connected it to others.
    for _, network in sorted(
        networks.items(), key=lambda each: own not in (each[0], each[1].get("NetworkID"))
    ):
        host = network.get("IPAddress") or network.get("GlobalIPv6Address")
        if host:
            return _url(host, port)
    return ""


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
