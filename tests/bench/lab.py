"""What a hub adds to the start of the server itself: from the click to the open Lab."""

import os
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from statistics import median

import anyio

from tests import beds
from tests.bench import load
from tests.bench.hubs import Size
from tests.bench.programs import BenchError, Program, free_port, is_open, stopping
from tests.bench.results import Result
from tests.bench.systems import PerijoveHub, add_users
from tests.bench.upstream import Upstream

NAMES: tuple[str, ...] = ("lab",)
NEEDS: tuple[str, ...] = ("singleuser-6",)
_GOAL = 0.3
_MODEL, _PERSON = "model", "ann"
_MORE_ROUNDS = 2
"""Starts take seconds and differ by tenths: more rounds than elsewhere."""


def measure(
    directory: Path, upstream: Upstream, size: Size, wanted: Collection[str]
) -> Iterator[Result]:
    """Yield the one result: the median of both kinds of start, taken in turns."""
    command = beds.singleuser("6")
    section = f"""
    [spawners.local]
    kind = "local"
    command = ["{command}"]
    """
    hub = PerijoveHub(directory, 0, spawner=section)
    hub.prepare()
    try:
        hub.start_hub()
        hub.start_proxy()
        yield _measure(hub, size)
    finally:
        if "hub" in hub.programs:
            anyio.run(_stop_all, hub)
        with stopping(*reversed(hub.programs.values())):
            pass


def _measure(hub: PerijoveHub, size: Size) -> Result:
    anyio.run(add_users, hub, [_MODEL, _PERSON])
    _through_hub(hub, _MODEL)  # stays: bare starts are made after its model
    _through_hub(hub, _PERSON)
    _stop(hub, _PERSON)
    rounds = []
    for _ in range(size.rounds + _MORE_ROUNDS):
        rounds.append((_through_hub(hub, _PERSON), _bare(hub)))
        _stop(hub, _PERSON)
    added = median(ours - bare for ours, bare in rounds)
    ours, bare = (median(column) for column in zip(*rounds, strict=True))
    return Result(
        name="lab",
        what="click to open Lab, against the bare jupyterhub-singleuser",
        unit="s",
        ours=ours,
        theirs=bare,
        ratio=ours / bare,
        cpu_ratio=None,
        goal=f"adds ≤ {_GOAL:g} s: {added:+.2f} s",
        is_met=added <= _GOAL,
        rounds=len(rounds),
    )


def _through_hub(hub: PerijoveHub, user: str) -> float:
    """Start a server through the hub; return the seconds until Lab is there, through the proxy."""
    began = time.monotonic()
    path = f"/hub/api/users/{user}/server"
    answer = anyio.run(_ask, hub.public_port, "POST", path, hub.token)
    if answer not in (201, 202):
        raise BenchError(f"status {answer} for a start: {hub.hub.log}")
    _until_lab(hub.public_port, user, hub.token)
    return time.monotonic() - began


def _bare(hub: PerijoveHub) -> float:
    """Start the same program with the same environment by itself, in the same way until Lab."""
    environment, command, directory = _model(hub)
    port = free_port()
    environment["JUPYTERHUB_SERVICE_URL"] = f"http://127.0.0.1:{port}/user/{_MODEL}/"
    began = time.monotonic()
    log = hub.directory / "bare.log"
    server = Program.start(
        "jupyterhub-singleuser", command, log, environment=environment, directory=directory
    )
    with stopping(server):
        server.wait_until(lambda: is_open(port), pause=0.01)
        _until_lab(port, _MODEL, hub.token)
        return time.monotonic() - began


def _model(hub: PerijoveHub) -> tuple[dict[str, str], list[str], Path]:
    """Return environment, command and directory of the server that the hub has started."""
    marker = b"JUPYTERHUB_USER=" + _MODEL.encode()
    for place in Path("/proc").glob("[0-9]*"):
        try:
            variables = (place / "environ").read_bytes().split(b"\0")
            command = (place / "cmdline").read_bytes().decode().split("\0")[:-1]
            if marker in variables and any("singleuser" in part for part in command[:2]):
                pairs = (os.fsdecode(each).partition("=") for each in variables if each)
                values = {name: value for name, _equals, value in pairs}
                return values, command, (place / "cwd").readlink()
        except OSError:
            continue
    raise BenchError(f"found no server of {_MODEL}: {hub.hub.log}")


def _until_lab(port: int, user: str, token: str) -> None:
    end = time.monotonic() + 120
    while (status := anyio.run(_ask, port, "GET", f"/user/{user}/lab", token)) != 200:
        if time.monotonic() > end:
            raise BenchError(f"status {status} for /lab of {user}")
        time.sleep(0.01)


async def _ask(port: int, method: str, path: str, token: str) -> int:
    try:
        return (await load.ask(port, method, path, token=token)).status
    except (OSError, anyio.BrokenResourceError):
        return 0


def _stop(hub: PerijoveHub, user: str) -> None:
    path = f"/hub/api/users/{user}/server"
    end = time.monotonic() + 60
    while anyio.run(_ask, hub.port, "DELETE", path, hub.token) != 204:
        if time.monotonic() > end:
            raise BenchError(f"the server of {user} does not end: {hub.hub.log}")
        time.sleep(0.1)


async def _stop_all(hub: PerijoveHub) -> None:
    for user in (_MODEL, _PERSON):
        await _ask(hub.port, "DELETE", f"/hub/api/users/{user}/server", hub.token)
