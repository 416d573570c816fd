"""Waits: what is usual, what is free, and what is said at the queue's limit."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from sqlalchemy import Connection, insert, update

from perijove.db.core import bound
from perijove.db.spawner_states import save_state
from perijove.db.tables import discoveries, launches
from perijove.domain.errors import Conflict, SpawnerRejected
from perijove.domain.launch import Launch, Reason, Status, Wanted
from perijove.domain.offer import Free, Offer, OwnJob, Shape
from perijove.kit.clock import isoformat
from perijove.kit.ids import new_id, platform_name
from perijove.services.overview import find_shown, get_owner
from perijove.services.waits import (
    Around,
    Usual,
    is_alike,
    is_asked,
    keep_waiting,
    look_around,
    release,
    renew,
    room_in,
    usual_wait,
    usual_waits,
)
from perijove.spawners.contract import Phase
from tests.fakes.spawners import Held, Tells
from tests.hubs import TEST, ShiftedClock, TestHub, running_hub

pytestmark = pytest.mark.anyio

GIB = 2**30
SPEC: dict[str, Any] = {
    "profile": {"name": "small", "revision": 1},
    "options": {"partition": "main"},
    "resources": {"cpu": 4, "memory_bytes": 16 * GIB, "time_seconds": 7200},
}


async def change(hub: TestHub, launch: Launch, **values: Any) -> Launch:
    """Let something happen to a launch."""

    def unit(connection: Connection) -> None:
        connection.execute(update(launches).where(launches.c.id == launch.id).values(**values))

    await hub.hub.database.write(unit)
    return await hub.launch(launch.id)


async def add_past(hub: TestHub, minutes: float, *, days_ago: float = 1, **spec: Any) -> None:
    """Add a start of somebody that waited so long."""
    asked = hub.hub.clock.now() - timedelta(days=days_ago)
    row = {
        "id": new_id("lch"),
        "kind": "server",
        "wanted": "end",
        "status": "ended",
        "name": platform_name("test"),
        "spawner": "memory",
        "user_name": "somebody",
        "server_name": "",
        "generation": 1,
        "spec": {**SPEC, **spec},
        "requested_at": asked,
        "submitted_at": asked,
        "starting_at": asked + timedelta(minutes=minutes),
        "ended_at": asked + timedelta(hours=9),
        "end_cause": "user",
        "end": {"cause": "user", "code": None, "reason": "", "detail": ""},
    }
    await hub.hub.database.write(lambda connection: connection.execute(insert(launches), row))


async def test_the_usual_wait_of_a_profile_is_that_of_all_its_starts(
    tmp_path: Path, database_url: str
) -> None:
    """Whatever was asked for within it; of a profile that was started rarely nothing is said."""
    async with running_hub(database_url, tmp_path, loops=False, with_proxy=False) as hub:
        for minutes, cpu in ((2, 1), (30, 64), (4, 8)):
            await add_past(hub, minutes, resources={"cpu": cpu})
        await add_past(hub, 90, profile={"name": "rare", "revision": 1})
        found = await hub.hub.database.read(bound(usual_waits, hub.hub, ["memory", "other"]))
    assert found == {"small": Usual(seconds=240, count=3)}


@pytest.mark.parametrize(
    ("other", "alike"),
    [
        ({}, True),
        ({"resources": {"cpu": 8, "memory_bytes": 9 * GIB, "time_seconds": 8 * 3600}}, True),
        ({"resources": {"cpu": 9, "memory_bytes": 16 * GIB, "time_seconds": 7200}}, False),
        ({"resources": {**SPEC["resources"], "gpu": 1}}, False),
        ({"profile": {"name": "large"}}, False),
        ({"options": {"partition": "long"}}, False),
        ({"options": {"partition": "main", "ui": "terminal"}}, True),
        ({"resources": {}}, False),
    ],
)
def test_only_much_the_same_request_counts_as_similar(other: dict[str, Any], alike: bool) -> None:
    """Another size, profile or queue waits for another reason."""
    assert is_alike(SPEC, {**SPEC, **other}) is alike
    assert is_alike({**SPEC, **other}, SPEC) is alike


async def test_usual_wait_is_the_median_of_the_last_weeks(
    tmp_path: Path, database_url: str
) -> None:
    """Too few starts say nothing; old ones and other ones are not counted."""
    async with running_hub(database_url, tmp_path, loops=False, with_proxy=False) as hub:
        launch = await change(hub, await hub.start(), spec=SPEC)
        now = hub.hub.clock.now()
        for minutes in (2, 30):
            await add_past(hub, minutes)
        await add_past(hub, 999, days_ago=20)
        await add_past(hub, 999, profile={"name": "large"})
        found = await hub.hub.database.read(bound(usual_wait, launch, now=now))
        assert found is None
        await add_past(hub, 5)
        found = await hub.hub.database.read(bound(usual_wait, launch, now=now))
        assert found is not None
        assert (found.seconds, found.count) == (300, 3)


OFFER = Offer(
    as_of=ShiftedClock().now(),
    shapes=(
        Shape(
            nodes=("a", "b"),
            partitions=("main",),
            cpus=16,
            memory_bytes=64 * GIB,
            gpus={"a100": 2},
            free=(
                Free(cpus=8, memory_bytes=4 * GIB, gpus={"a100": 1}),
                Free(cpus=2, memory_bytes=60 * GIB),
            ),
        ),
        Shape(
            nodes=("c",),
            partitions=("long",),
            cpus=64,
            memory_bytes=GIB,
            free=(Free(cpus=60, memory_bytes=GIB),),
        ),
        Shape(nodes=("d",), partitions=("main",), cpus=99, memory_bytes=GIB),
    ),
    own_jobs=(OwnJob(id="7", name="train", state="running"),),
)


def test_what_is_free_is_told_for_the_partition_that_was_asked_for() -> None:
    """Nodes of which nothing is known are not counted; the best node is one node."""
    room = room_in(OFFER, "main")
    assert room is not None
    assert (room.cpus, room.of_cpus, room.gpus, room.of_gpus) == (10, 32, 1, 4)
    assert (room.most_cpus, room.most_memory) == (8, 4 * GIB)
    everywhere = room_in(OFFER, "")
    assert everywhere is not None
    assert everywhere.cpus == 70
    assert room_in(OFFER, "elsewhere") is None


async def test_what_surrounds_a_wait_is_found(tmp_path: Path) -> None:
    """Silence, free room, one's own jobs and other servers; nothing once it runs."""
    async with running_hub(
        f"sqlite:///{tmp_path / 'hub.sqlite'}", tmp_path, loops=False, with_proxy=False
    ) as hub:
        other = await hub.start(server="other")
        await hub.start("bob")
        launch = await change(hub, await hub.start(), spec=SPEC)
        since = hub.hub.clock.now() - timedelta(minutes=4)

        def unit(connection: Connection) -> None:
            save_state(connection, "memory", failing_since=since)
            body = msgspec.to_builtins(OFFER, enc_hook=dict)
            row = {"spawner": "memory", "user_id": launch.user_id, "body": body}
            row |= {"as_of": since, "asked_at": since}
            connection.execute(insert(discoveries), row)

        await hub.hub.database.write(unit)

        def look(connection: Connection) -> Around:
            shown = find_shown(connection, get_owner(connection, "ann"), "")
            assert shown is not None
            return look_around(connection, hub.hub, shown)

        around = await hub.hub.database.read(look)
        assert around.silent_since is not None
        assert isoformat(around.silent_since) == isoformat(since)
        assert around.room is not None
        assert around.room.of_cpus == 32
        assert [job.id for job in around.own_jobs] == ["7"]
        assert [each.launch and each.launch.id for each in around.own_servers] == [other.id]
        await change(hub, launch, status="ready", ready_at=since)
        assert await hub.hub.database.read(look) == Around()


async def test_what_is_free_is_asked_for_again_while_somebody_looks(tmp_path: Path) -> None:
    """After a minute, once however many look; nobody waits for the answer, the next look has it."""
    clock = ShiftedClock()
    offer = replace(OFFER, as_of=clock.now(), own_jobs=())
    async with running_hub(
        f"sqlite:///{tmp_path / 'hub.sqlite'}",
        tmp_path,
        wrap=lambda inner: Tells(inner, offer),
        clock=clock,
        spawner={"kind": "slurm"},
    ) as hub:
        launch = await hub.becomes(await hub.start(), Status.CONNECTING)
        hub.platform.show(launch.name, Phase.PENDING, reason=Reason(code="max-jobs-user"))
        launch = await hub.becomes(launch, Status.QUEUED)
        tells: Tells = hub.spawner

        def unit(connection: Connection) -> Around:
            shown = find_shown(connection, get_owner(connection, "ann"), "")
            assert shown is not None
            return look_around(connection, hub.hub, shown)

        async def look() -> Around:
            around = await hub.hub.database.read(unit)
            await renew(hub.hub, launch, around)
            return around

        async def sees(as_of: datetime) -> Around:
            with anyio.fail_after(10):
                while (around := await look()).as_of != as_of:
                    await anyio.lowlevel.checkpoint()
            return around

        assert (await sees(offer.as_of)).own_jobs == ()
        asked = len(tells.asked)
        assert await look() == await look()
        assert len(tells.asked) == asked
        clock.shift(timedelta(seconds=61))
        tells.offer = replace(OFFER, as_of=clock.now())
        tells.gate = anyio.Event()
        for _ in range(5):
            assert (await look()).own_jobs == ()
        with anyio.fail_after(10):
            while len(tells.asked) == asked:
                await anyio.lowlevel.checkpoint()
        tells.gate.set()
        around = await sees(tells.offer.as_of)
        assert around.own_jobs == OFFER.own_jobs
        assert len(tells.asked) == asked + 1


async def test_the_limit_of_the_queue_asks_and_an_answer_prolongs(tmp_path: Path) -> None:
    """Nothing is ended at the limit; who says so waits as long again and is asked again."""
    clock = ShiftedClock()
    async with running_hub(
        f"sqlite:///{tmp_path / 'hub.sqlite'}", tmp_path, clock=clock, spawner={"queue_limit": 40}
    ) as hub:
        launch = await hub.becomes(await hub.start(), Status.CONNECTING)
        hub.platform.show(launch.name, Phase.PENDING)
        launch = await hub.becomes(launch, Status.QUEUED)
        assert not is_asked(launch)
        clock.shift(timedelta(seconds=45))
        launch = await hub.until(launch, is_asked, what="the question")
        launch = await keep_waiting(hub.hub, launch.id, asking=TEST)
        assert (launch.status, is_asked(launch)) == (Status.QUEUED, False)
        clock.shift(timedelta(seconds=30))
        codes = [event.code for event in await hub.events(launch.id)]
        assert codes.count("kept-waiting") == 1
        assert not is_asked(await hub.launch(launch.id))
        clock.shift(timedelta(seconds=30))
        launch = await hub.until(launch, is_asked, what="the question again")
        assert launch.wanted is Wanted.RUN


async def test_what_waits_no_more_cannot_be_prolonged(tmp_path: Path) -> None:
    """The answer to a question that is over is a conflict, and changes nothing."""
    async with running_hub(
        f"sqlite:///{tmp_path / 'hub.sqlite'}", tmp_path, loops=False, with_proxy=False
    ) as hub:
        launch = await hub.start()
        with pytest.raises(Conflict):
            await keep_waiting(hub.hub, launch.id, asking=TEST)
        now = hub.hub.clock.now()
        await change(hub, launch, status="queued", queued_at=now, wanted="end")
        with pytest.raises(Conflict):
            await keep_waiting(hub.hub, launch.id, asking=TEST)


async def test_what_its_owner_holds_is_released_once_asked(
    tmp_path: Path, database_url: str
) -> None:
    """It goes on, its steps say who released it, and afterwards there is nothing to release."""
    async with running_hub(database_url, tmp_path, wrap=Held) as hub:
        launch = await hub.becomes(await hub.start(), Status.HELD)
        assert launch.reason == Reason(code="held-by-user", words="(JobHeldUser)")
        await release(hub.hub, launch.id, asking=TEST)
        assert hub.spawner.released == [launch.name]
        await hub.becomes(launch, Status.CONNECTING)
        actors = {event.code: event.actor for event in await hub.events(launch.id)}
        assert actors["released"] == TEST.actor
        with pytest.raises(Conflict):
            await release(hub.hub, launch.id, asking=TEST)
        assert hub.spawner.released == [launch.name]


async def test_what_the_platform_does_not_release_stays_held(tmp_path: Path) -> None:
    """Its refusal reaches who asked, and no step says that it was released."""
    refusal = SpawnerRejected("Access/permission denied", code="not-released")
    async with running_hub(
        f"sqlite:///{tmp_path / 'hub.sqlite'}", tmp_path, wrap=lambda inner: Held(inner, refusal)
    ) as hub:
        launch = await hub.becomes(await hub.start(), Status.HELD)
        with pytest.raises(SpawnerRejected):
            await release(hub.hub, launch.id, asking=TEST)
        assert (await hub.launch(launch.id)).status is Status.HELD
        assert "released" not in [event.code for event in await hub.events(launch.id)]


@pytest.mark.parametrize(
    ("code", "wanted", "wrap"),
    [
        ("held-by-admin", "run", Held),
        ("resources", "run", Held),
        ("held-by-user", "end", Held),
        ("held-by-user", "run", None),
    ],
)
async def test_only_what_its_owner_holds_can_be_released(
    tmp_path: Path, code: str, wanted: str, wrap: Any
) -> None:
    """An administrator's hold, another reason, an end on its way, a platform without holds."""
    async with running_hub(
        f"sqlite:///{tmp_path / 'hub.sqlite'}", tmp_path, loops=False, with_proxy=False, wrap=wrap
    ) as hub:
        launch = await hub.start()
        now = hub.hub.clock.now()
        reason = {"code": code, "words": "", "params": {}}
        await change(hub, launch, status="held", queued_at=now, wanted=wanted, reason=reason)
        with pytest.raises(Conflict):
            await release(hub.hub, launch.id, asking=TEST)
        assert [event.code for event in await hub.events(launch.id)] == ["requested"]
