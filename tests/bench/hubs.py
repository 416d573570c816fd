"""The measurements of the hubs: the API, a class that starts its servers, restart and memory."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio

from tests.bench import load
from tests.bench.programs import BenchError
from tests.bench.results import Goal, Result, Sample, at_most, compare
from tests.bench.systems import Hub, JupyterHub, PerijoveHub, add_users, running_hubs
from tests.bench.upstream import Upstream

NAMES: tuple[str, ...] = ("user", "users", "activity", "start", "stop", "restart", "memory")
NEEDS: tuple[str, ...] = ("jupyterhub", "configurable-http-proxy")

_CONNECTIONS = 16
_BY_REQUESTS: dict[str, Goal] = {
    goal.name: goal
    for goal in (
        Goal(name="user", what="GET /users/:name", unit="requests/s", at_least=15),
        Goal(name="users", what="GET /users?limit=200", unit="requests/s", at_least=10),
        Goal(name="activity", what="POST …/activity", unit="requests/s", at_least=5),
    )
}
_START = Goal(name="start", what="start {} servers until ready", unit="launches/s", at_least=5)
_STOP = Goal(name="stop", what="stop {} servers until gone", unit="launches/s", at_least=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured."""

    rounds: int = 3
    seconds: float = 3.0
    users: int = 1_000
    servers: int = 200
    """Started and stopped at once."""
    many_users: int = 10_000
    many_servers: int = 500
    """There when the hubs are restarted."""


def measure(
    directory: Path, upstream: Upstream, size: Size, wanted: Collection[str]
) -> Iterator[Result]:
    """Yield the results of `wanted`, of the names in `NAMES`."""
    with running_hubs(directory, upstream.port) as hubs:
        session = _Session(hubs, size)
        session.have_users(size.users)
        for name in ("user", "users"):
            if name in wanted:
                yield session.requests(_BY_REQUESTS[name], users=size.users)
        if {"activity", "start", "stop"} & set(wanted):
            yield from session.storm(wanted)
        if {"restart", "memory"} & set(wanted):
            yield from session.restart(wanted)


class _Session:
    """Both hubs, and what they hold."""

    def __init__(self, hubs: tuple[PerijoveHub, JupyterHub], size: Size) -> None:
        self._hubs = hubs
        self._size = size
        self._users = 0

    def have_users(self, count: int) -> None:
        """Add accounts ``u0``, ``u1``, … until there are `count`."""
        names = [f"u{number}" for number in range(self._users, count)]
        for hub in self._hubs:
            anyio.run(add_users, hub, names)
        self._users = count

    def requests(self, goal: Goal, *, users: int) -> Result:
        """Measure requests a second at the hub's own port, from many connections that stay."""

        def sample(hub: Hub, seconds: float = self._size.seconds) -> Sample:
            cpu = hub.hub.cpu_seconds()
            requests, seconds = load.many(
                f"http://127.0.0.1:{hub.port}",
                goal.name,
                token=hub.token,
                users=users,
                connections=_CONNECTIONS,
                seconds=seconds,
            )
            return Sample(work=requests, seconds=seconds, cpu=hub.hub.cpu_seconds() - cpu)

        for hub in self._hubs:
            sample(hub, 1)  # what is cached is cached
        return compare(goal, self._in_turns(sample, self._size.rounds))

    def storm(self, wanted: Collection[str]) -> Iterator[Result]:
        """Measure a class that starts its servers within a moment, uses them, and stops them."""
        count = self._size.servers
        starts: list[tuple[Sample, Sample]] = []
        stops: list[tuple[Sample, Sample]] = []
        for number in range(max(self._size.rounds - 1, 1)):
            starts += self._in_turns(lambda hub: _start(hub, range(count)), 1)
            if number == 0 and "activity" in wanted:
                yield self.requests(_BY_REQUESTS["activity"], users=count)
            stops += self._in_turns(lambda hub: _stop(hub, range(count)), 1)
        for goal, rounds in ((_START, starts), (_STOP, stops)):
            if goal.name in wanted:
                yield compare(_filled(goal, count), rounds)

    def restart(self, wanted: Collection[str]) -> Iterator[Result]:
        """Measure the memory of hubs that have done much, and how long they need to be back."""
        self.have_users(self._size.many_users)
        for hub in self._hubs:
            for first in range(0, self._size.many_servers, self._size.servers):
                last = min(first + self._size.servers, self._size.many_servers)
                _start(hub, range(first, last))
        ours, theirs = (hub.hub.resident_bytes() / 2**20 for hub in self._hubs)
        if "restart" in wanted:
            yield self._restarts()
        if "memory" in wanted:
            what = "resident memory of the hub after all that"
            yield at_most("memory", what, "MiB", [(ours, theirs)], ratio=1)

    def _restarts(self) -> Result:
        def sample(hub: Hub) -> Sample:
            hub.hub.stop()
            began = time.monotonic()
            hub.start_hub()
            seconds = time.monotonic() - began
            return Sample(work=1, seconds=seconds, cpu=hub.hub.cpu_seconds())

        rounds = self._in_turns(sample, self._size.rounds)
        what = (
            f"start of the hub until it serves, {self._size.many_users} users, "
            f"{self._size.many_servers} servers"
        )
        seconds = [(ours.seconds, theirs.seconds) for ours, theirs in rounds]
        return at_most("restart", what, "s", seconds, ratio=1 / 5)

    def _in_turns(
        self, sample: Callable[[Hub], Sample], rounds: int
    ) -> list[tuple[Sample, Sample]]:
        ours, theirs = self._hubs
        return [(sample(ours), sample(theirs)) for _ in range(rounds)]


def _filled(goal: Goal, count: int) -> Goal:
    return Goal(
        name=goal.name, what=goal.what.format(count), unit=goal.unit, at_least=goal.at_least
    )


def _start(hub: Hub, numbers: Sequence[int]) -> Sample:
    """Start servers, all asked for at once; it ends when the last is ready."""
    return anyio.run(_storm, hub, "POST", numbers, {201}, _is_ready)


def _stop(hub: Hub, numbers: Sequence[int]) -> Sample:
    """Stop servers, all at once; it ends when the last is gone."""
    return anyio.run(_storm, hub, "DELETE", numbers, {204}, _is_gone)


def _is_ready(user: dict[str, object]) -> bool:
    return user["server"] is not None


def _is_gone(user: dict[str, object]) -> bool:
    return user["server"] is None and user["pending"] is None


async def _storm(
    hub: Hub,
    method: str,
    numbers: Sequence[int],
    done: Collection[int],
    is_done: Callable[[dict[str, object]], bool],
) -> Sample:
    paths = [f"/hub/api/users/u{number}/server" for number in numbers]
    cpu = _cpu(hub)
    began = time.monotonic()
    answers = await load.at_once(hub.port, method, paths, token=hub.token)
    for number, answer in zip(numbers, answers, strict=True):
        if answer.status == 202:  # it did not happen within the request
            await _until(hub, number, is_done)
        elif answer.status not in done:
            raise BenchError(f"{hub.name}: {method} answered {answer.status}: {answer.body!r}")
    seconds = time.monotonic() - began
    return Sample(work=len(numbers), seconds=seconds, cpu=_cpu(hub) - cpu)


def _cpu(hub: Hub) -> float:
    return hub.hub.cpu_seconds() + hub.proxy.cpu_seconds()


async def _until(hub: Hub, number: int, is_done: Callable[[dict[str, object]], bool]) -> None:
    with anyio.fail_after(300):
        while True:
            answer = await load.ask(hub.port, "GET", f"/hub/api/users/u{number}", token=hub.token)
            if answer.status == 200 and is_done(answer.json()):
                return
            await anyio.sleep(0.05)
