"""What jobs cost: a hub that watches many, and how often a scheduler is asked for them."""

import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import anyio
from sqlalchemy import Connection, select, update

from perijove.db.tables import launches
from perijove.domain.launch import Launch, Resources, Status
from perijove.kit.clock import monotonic
from perijove.reconcile.observe import Observer
from perijove.spawners.batch.spawner import BatchSpawner
from perijove.spawners.contract import Handle, Phase, Surroundings
from perijove.spawners.slurm.spawner import SlurmSettings, SlurmSpawner
from tests.bench.hubs import Size
from tests.bench.programs import BenchError
from tests.bench.results import Result
from tests.bench.upstream import Upstream
from tests.contract.spawners.batch_sites import BatchSite
from tests.contract.spawners.sites import recorded
from tests.hubs import running_hub

NAMES: tuple[str, ...] = ("polling", "calls")
NEEDS: tuple[str, ...] = ("root", "users", "slurm")

_WATCHED: Final = 2_000
_SURVEYS: Final = 20
_SHARE: Final = 0.02
"""Of one core, at most, for a hub that watches so many jobs."""
_JOBS: Final = 200
_CALLS: Final = 6.0
"""Questions to the scheduler in any minute, at most; submissions and cancellations aside."""
_NO_QUESTION: Final = frozenset({"sbatch", "scancel"})
_AT_ONCE: Final = 8
_PATIENCE: Final = 600.0
_MINUTE: Final = 60.0
_SAMPLE: Final = 0.25


def measure(
    directory: Path, upstream: Upstream, size: Size, wanted: Collection[str]
) -> Iterator[Result]:
    """Yield the results of `wanted`."""
    del upstream
    if "polling" in wanted:
        yield anyio.run(poll, directory / "polling", _WATCHED)
    if "calls" in wanted:
        jobs = _JOBS if size.rounds > 1 else _JOBS // 10
        yield anyio.run(count, directory / "calls", jobs)


def _result(name: str, what: str, unit: str, ours: float, most: float, rounds: int) -> Result:
    return Result(
        name=name,
        what=what,
        unit=unit,
        ours=ours,
        theirs=most,
        ratio=ours / most,
        cpu_ratio=None,
        goal=f"≤ {most:g} {unit}",
        is_met=ours <= most,
        rounds=rounds,
    )


# --- watching ---------------------------------------------------------------------------------

_SQUEUE: Final = """#!/bin/sh
for last; do :; done
mark=$(printf %s "$last" | tail -c 16)
exec sed "s/@MARK@/$mark/" {rows}
"""
"""Prints rows that were written before, each with the mark of this question at its end."""

_WAITS: Final = 5
"""One job in so many waits, with a reason and a forecast; all others run."""


async def poll(directory: Path, jobs: int) -> Result:
    """Return the share of a core that observing unchanged jobs takes: ask, read, write down."""
    directory.mkdir(parents=True)
    settings = SlurmSettings(accounts="trusted", minimum_period=1, bin_dir=directory)
    around = Surroundings(name="memory", installation="bench", data_dir=directory)
    spawner = SlurmSpawner(settings, around)
    spent = 0.0
    async with running_hub(
        f"sqlite:///{directory / 'hub.sqlite'}",
        directory,
        wrap=lambda _: spawner,
        loops=False,
        with_proxy=False,
    ) as hub:
        started = [await hub.start(f"person{number}") for number in range(jobs)]
        # Names as this installation would have given them.
        await hub.hub.database.write(_set_submitted)
        _write_squeue(directory, started)
        observer = Observer(hub.hub, "memory", hub.hub.spawners["memory"], hub.prober)
        await observer.look()
        await hub.hub.database.write(_set_ready)
        await observer.look()
        for _ in range(_SURVEYS):
            began = time.process_time()
            await observer.look()
            spent += time.process_time() - began
        states = Counter(launch.status for launch in await hub.live())
    if states != {Status.QUEUED: jobs // _WAITS, Status.READY: jobs - jobs // _WAITS}:
        raise BenchError(f"the launches are not as their jobs are: {states}")
    return _result(
        "polling",
        f"watch {jobs} jobs, each {settings.survey_busy_period:g} s",
        "of a core",
        spent / _SURVEYS / settings.survey_busy_period,
        _SHARE,
        _SURVEYS,
    )


def _write_squeue(directory: Path, started: Sequence[Launch]) -> None:
    """Write a program ``squeue`` that shows the jobs of launches."""
    rows = directory / "rows"
    rows.write_text("".join(_row(number, launch) for number, launch in enumerate(started)))
    program = directory / "squeue"
    program.write_text(_SQUEUE.format(rows=rows))
    program.chmod(0o755)


def _row(number: int, launch: Launch) -> str:
    now = int(time.time())
    name = launch.name.replace(launch.name.split("-")[1], "bench")
    state, reason, node, start = ("RUNNING", "None", f"c{number % 64}", now - 3600)
    if number % _WAITS == 0:
        state, reason, node, start = ("PENDING", "Priority", "", now + 3600)
    columns = (
        number + 1, launch.user_name, state, 0, reason, node, start, start + 7200, now - 4000,
        1, "cpu", "def-people", 1, "cpu=1,mem=1G,node=1,billing=1", name,
    )  # fmt: skip
    return "\x1f".join([*map(str, columns), "@MARK@\n"])


def _set_submitted(connection: Connection) -> None:
    """Hand all launches over, under names of the installation that is observed."""
    then = datetime.now(UTC) - timedelta(minutes=1)
    for launch_id, name in connection.execute(select(launches.c.id, launches.c.name)).all():
        connection.execute(
            update(launches)
            .where(launches.c.id == launch_id)
            .values(
                status=Status.QUEUED,
                name=name.replace(name.split("-")[1], "bench"),
                submitted_at=then,
                queued_at=then,
            )
        )


def _set_ready(connection: Connection) -> None:
    """Have all servers that run answer."""
    now = datetime.now(UTC)
    connection.execute(
        update(launches)
        .where(launches.c.status == Status.STARTING)
        .values(status=Status.READY, url="http://127.0.0.1:1", ready_at=now)
    )


# --- asking -----------------------------------------------------------------------------------


async def count(directory: Path, jobs: int) -> Result:
    """Return the most questions to Slurm in a minute while many jobs began, ran and ended."""
    directory.mkdir(parents=True)
    site = BatchSite("slurm", directory)
    asked: list[tuple[float, int]] = []
    try:
        async with (
            site.spawner(minimum_period=_MINUTE / _CALLS) as spawner,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(_record, spawner, asked)
            began = monotonic()
            with anyio.fail_after(_PATIENCE):
                await _start_all(spawner, site, jobs)
                handles = await _all_running(spawner, jobs)
                await _stop_all(spawner, handles)
            minutes = (monotonic() - began) / 60
            asked.append(_questions(spawner))
            tasks.cancel_scope.cancel()
    finally:
        site.clear()
    what = (
        f"{jobs} jobs of Slurm, begun and ended in {minutes:.1f} min with {asked[-1][1]} questions"
    )
    return _result("calls", what, "in a minute", _most_in_a_minute(asked), _CALLS, jobs)


async def _record(spawner: BatchSpawner, asked: list[tuple[float, int]]) -> None:
    """Write down how often was asked until now, again and again."""
    while True:
        asked.append(_questions(spawner))
        await anyio.sleep(_SAMPLE)


def _questions(spawner: BatchSpawner) -> tuple[float, int]:
    calls = spawner.calls()
    return monotonic(), sum(calls[name] for name in calls if name not in _NO_QUESTION)


def _most_in_a_minute(asked: Sequence[tuple[float, int]]) -> int:
    """Return the most that was asked between two moments no further apart than a minute."""
    most = first = 0
    for at, number in asked:
        while at - asked[first][0] > _MINUTE:
            first += 1
        most = max(most, number - asked[first][1])
    return most


async def _start_all(spawner: BatchSpawner, site: BatchSite, jobs: int) -> None:
    room = anyio.CapacityLimiter(_AT_ONCE)

    async def start(name: str) -> None:
        async with room:
            await spawner.start(
                site.spec(
                    name=name,
                    resources=Resources(cpu=1, memory_bytes=32 << 20, time_seconds=3600),
                    options={"partition": "many"},
                ),
                recorded,
            )

    async with anyio.create_task_group() as tasks:
        for _ in range(jobs):
            tasks.start_soon(start, site.new_name())


async def _all_running(spawner: BatchSpawner, jobs: int) -> Mapping[str, Handle]:
    while True:
        seen = (await spawner.survey()).sightings
        running = {
            each.name: each.handle for each in seen if each.phase is Phase.RUNNING and each.handle
        }
        if len(running) == jobs:
            return running
        await anyio.sleep(1)


async def _stop_all(spawner: BatchSpawner, handles: Mapping[str, Handle]) -> None:
    room = anyio.CapacityLimiter(_AT_ONCE * 4)

    async def stop(name: str, handle: Handle) -> None:
        async with room:
            if await spawner.stop(name, handle, grace=5) is None:
                raise BenchError(f"the end of {name} is not known")

    async with anyio.create_task_group() as tasks:
        for name, handle in handles.items():
            tasks.start_soon(stop, name, handle)
