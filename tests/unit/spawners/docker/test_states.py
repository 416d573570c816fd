"""How the words of an engine are read."""

from typing import Any

import pytest

from perijove.domain.launch import Cause, End
from perijove.spawners.contract import Phase
from perijove.spawners.docker.states import end_of, refusal_code, sighting_of


def state(status: str, code: int = 0, **more: Any) -> dict[str, Any]:
    """Return a container's state as an engine tells it."""
    return {"Status": status, "ExitCode": code, "OOMKilled": False, "Error": "", **more}


@pytest.mark.parametrize(
    ("seen", "end"),
    [
        (state("running"), None),
        (state("created"), None),
        (state("paused"), None),
        (state("restarting", 1), None),
        (state("exited"), End(cause=Cause.EXITED, code=0)),
        (state("exited", 3), End(cause=Cause.EXITED, code=3)),
        (state("exited", 128), End(cause=Cause.EXITED, code=128)),
        (state("exited", 255), End(cause=Cause.EXITED, code=255)),
        (state("exited", 143), End(cause=Cause.SIGNAL, code=15)),
        (state("dead", 137), End(cause=Cause.SIGNAL, code=9)),
        (state("exited", 137, OOMKilled=True), End(cause=Cause.OUT_OF_MEMORY)),
        # One of its processes had been killed before, the server itself had not.
        (state("exited", 0, OOMKilled=True), End(cause=Cause.EXITED, code=0)),
        (state("exited", 143, OOMKilled=True), End(cause=Cause.SIGNAL, code=15)),
    ],
)
def test_ends_are_told_by_their_evidence(seen: dict[str, Any], end: End | None) -> None:
    """Only what has an exit status is over, and the status says how."""
    assert end_of(seen) == end


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ('could not select device driver "" with capabilities: [[gpu]]', "over-gpu"),
        ("range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available", "over-cpu"),
        (
            'OCI runtime create failed: exec: "/x": stat /x: no such file or directory: unknown',
            "command-missing",
        ),
        (
            'invalid mount config for type "bind": bind source path does not exist: /x',
            "volume-missing",
        ),
        ("network nosuch not found", "config-missing"),
        ("Unknown runtime specified runsc", "config-missing"),
        ("something nobody has heard of", "container-refused"),
    ],
)
def test_refusals_have_a_code(words: str, code: str) -> None:
    """What engines say is told apart as far as people can do different things about it."""
    assert refusal_code(words) == code


def listed(state: str = "running", **changes: Any) -> dict[str, Any]:
    """Return a container as an engine lists it."""
    return {
        "Id": "c1",
        "Names": ["/pj-inst-1"],
        "State": state,
        "Labels": {"perijove.org/port": "8888"},
        "Ports": [{"PrivatePort": 8888, "Type": "tcp"}],
        "HostConfig": {"NetworkMode": "n1"},
        "NetworkSettings": {
            "Networks": {
                "other": {"NetworkID": "n2", "IPAddress": "10.2.0.2"},
                "own": {"NetworkID": "n1", "IPAddress": "10.1.0.2"},
            }
        },
        "Mounts": [],
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        ({}, "http://10.1.0.2:8888"),
        ({"HostConfig": {"NetworkMode": "other"}}, "http://10.2.0.2:8888"),
        ({"HostConfig": {}}, "http://10.2.0.2:8888"),
        ({"NetworkSettings": {"Networks": None}}, ""),
        (
            {
                "NetworkSettings": {
                    "Networks": {"n": {"IPAddress": "", "GlobalIPv6Address": "fd::2"}}
                }
            },
            "http://[fd::2]:8888",
        ),
        (
            {"Ports": [{"PrivatePort": 8888, "PublicPort": 4000, "IP": "127.0.0.1"}]},
            "http://127.0.0.1:4000",
        ),
        (
            {"Ports": [{"PrivatePort": 22, "PublicPort": 4000, "IP": "127.0.0.1"}]},
            "http://10.1.0.2:8888",
        ),
    ],
)
def test_address_is_the_one_it_was_made_with(changes: dict[str, Any], url: str) -> None:
    """A published port comes before the network it was made in, and that before all others."""
    assert sighting_of(listed(**changes), node="here", end=None).url == url


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        ("running", Phase.RUNNING),
        ("paused", Phase.SUSPENDED),
        ("created", Phase.PENDING),
        ("exited", Phase.RUNNING),
        ("removing", Phase.RUNNING),
        ("a state of the future", Phase.RUNNING),
    ],
)
def test_nothing_is_gone_without_evidence(status: str, phase: Phase) -> None:
    """A listed state alone ends nothing; with the end it is gone, whatever was listed."""
    end = End(cause=Cause.EXITED, code=1)

    assert sighting_of(listed(status), node="", end=None).phase is phase
    assert sighting_of(listed(status), node="", end=end).phase is Phase.GONE


def test_what_will_pass_is_no_end() -> None:
    """Two networks of one name, for a moment, end no start."""
    words = "network pj-inst is ambiguous (2 matches found on name)"
    state = {"Status": "created", "ExitCode": 128, "Error": words}
    assert end_of(state) is None
    assert end_of({**state, "Error": "no such network"}) is not None
