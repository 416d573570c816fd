"""What a platform has: asked once, kept with its age, and the last word at every start."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import update

from perijove.db.core import bound
from perijove.db.tables import discoveries
from perijove.domain.errors import SpawnerRejected, SpawnerTransient
from perijove.domain.faults import InvalidOptions, RefusedOptions
from perijove.domain.launch import Launch
from perijove.domain.offer import Objection
from perijove.services.discovery import (
    LEAST_PAUSE,
    Platforms,
    find_discovery,
    kinds_of,
    offer_of,
    platforms_of,
)
from perijove.services.launches import request_restart
from perijove.services.offers import PolicySection, ProfileSection
from perijove.services.profiles import OptionsForm, options_schema
from tests.fakes.offers import cluster_offer
from tests.fakes.spawners import Tells
from tests.hubs import TEST, ShiftedClock, TestHub, running_hub

pytestmark = pytest.mark.anyio

PROFILES = [
    ProfileSection.model_validate(
        {
            "name": "batch",
            "fields": {
                "account": {},
                "partition": {},
                "qos": {},
                "reservation": {},
                "cpu": {"default": 1},
                "memory": {"default": "1 GiB"},
                "time": {"default": "1 h"},
                "gpu": {},
                "gpu_type": {},
                "features": {},
            },
        }
    ),
    ProfileSection.model_validate({"name": "plain", "cpu": 1}),
]


@asynccontextmanager
async def telling(
    database_url: str, directory: Path, **options: Any
) -> AsyncIterator[tuple[TestHub, Tells]]:
    """Run a hub whose platform tells what it has, and that does nothing about launches."""
    clock = ShiftedClock()
    async with running_hub(
        database_url,
        directory,
        wrap=lambda inner: Tells(inner, cluster_offer(clock.now())),
        clock=clock,
        loops=False,
        with_proxy=False,
        profile_sections=PROFILES,
        spawner={"kind": "slurm"},
        **options,
    ) as hub:
        yield hub, hub.spawner


def shift(hub: TestHub, **by: float) -> None:
    """Let time pass."""
    clock = hub.hub.clock
    assert isinstance(clock, ShiftedClock)
    clock.shift(timedelta(**by))


async def seen(hub: TestHub, server: str = "") -> OptionsForm:
    """Return what the form shows, with what is known of the platforms."""
    user_id, kinds, now = await hub.user(), kinds_of(hub.hub), hub.hub.clock.now()

    def unit(connection: Any) -> OptionsForm:
        platforms: Platforms = platforms_of(connection, kinds, user_id, now)
        return options_schema(connection, user_id, server, platforms)

    return await hub.hub.database.read(unit)


async def test_an_answer_is_shared_until_it_is_old(database_url: str, tmp_path: Path) -> None:
    """Whoever looks within a minute sees the same answer; later the platform is asked again."""
    async with telling(database_url, tmp_path) as (hub, spawner):
        user_id = await hub.user()
        first = await offer_of(hub.hub, user_id, "memory")
        assert first is not None
        assert first.offer == spawner.offer
        await offer_of(hub.hub, user_id, "memory")
        assert spawner.asked == ["ann"]
        shift(hub, seconds=61)
        await offer_of(hub.hub, user_id, "memory")
        assert spawner.asked == ["ann", "ann"]


async def test_people_who_look_at_once_ask_once(database_url: str, tmp_path: Path) -> None:
    """Ten tabs of one person are one question."""
    async with telling(database_url, tmp_path) as (hub, spawner):
        user_id = await hub.user()
        spawner.gate = anyio.Event()
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(offer_of, hub.hub, user_id, "memory")
            while not spawner.asked:
                await anyio.lowlevel.checkpoint()
            spawner.gate.set()
        assert spawner.asked == ["ann"]


async def test_refreshing_without_end_asks_now_and_then(database_url: str, tmp_path: Path) -> None:
    """Who presses the button all the time is asked to wait a little."""
    async with telling(database_url, tmp_path) as (hub, spawner):
        user_id = await hub.user()
        for _ in range(10):
            await offer_of(hub.hub, user_id, "memory", max_age=timedelta(0))
        assert len(spawner.asked) == 1
        shift(hub, seconds=LEAST_PAUSE.total_seconds())
        await offer_of(hub.hub, user_id, "memory", max_age=timedelta(0))
        assert len(spawner.asked) == 2


async def test_a_silent_platform_leaves_the_last_answer_with_since_when(
    database_url: str, tmp_path: Path
) -> None:
    """The form goes on with what was last known, says so, and starts are possible."""
    async with telling(database_url, tmp_path) as (hub, spawner):
        user_id = await hub.user()
        await offer_of(hub.hub, user_id, "memory")
        spawner.error = SpawnerTransient("away")
        shift(hub, minutes=5)
        since = hub.hub.clock.now()
        await offer_of(hub.hub, user_id, "memory")
        shift(hub, minutes=5)
        found = await offer_of(hub.hub, user_id, "memory")
        assert found is not None
        assert found.offer == spawner.offer
        assert found.failing_since is not None
        assert abs(found.failing_since - since) < timedelta(seconds=30)
        market = (await seen(hub)).platforms.of("memory")
        assert market is not None
        assert market.silent_since == found.failing_since
        launch = await hub.start(profile="batch", options={"partition": "gpu"})
        assert launch.spec["options"]["partition"] == "gpu"


async def test_a_platform_that_never_answered(database_url: str, tmp_path: Path) -> None:
    """There is no answer to show, the reason is kept, and the profile's own bounds hold."""
    async with telling(database_url, tmp_path) as (hub, spawner):
        user_id = await hub.user()
        spawner.error = SpawnerRejected("nobody of that name", code="account-unknown")
        await offer_of(hub.hub, user_id, "memory")
        form = await seen(hub)
        market = form.platforms.of("memory")
        assert market is not None
        assert market.offer is None
        assert market.silent_since is not None
        assert form.platforms.errors == {"memory": "account-unknown"}
        launch = await hub.start(profile="batch", options={"cpu": 4})
        assert launch.spec["resources"]["cpu"] == 4
        named = await hub.start(server="two", profile="batch", options={"partition": "gpu"})
        assert named.spec["options"]["partition"] == "gpu"


async def test_a_row_of_another_version_is_as_none(database_url: str, tmp_path: Path) -> None:
    """What this program cannot read is asked for anew, not a reason to fail."""
    async with telling(database_url, tmp_path) as (hub, _):
        user_id = await hub.user()
        await offer_of(hub.hub, user_id, "memory")
        spoil = update(discoveries).values(body={"as_of": 3})
        await hub.hub.database.write(lambda connection: connection.execute(spoil).rowcount)
        found = await hub.hub.database.read(bound(find_discovery, "memory", user_id))
        assert found is not None
        assert found.offer is None
        assert (await seen(hub)).profile == "batch"


async def test_a_start_is_judged_by_what_is_there_now(database_url: str, tmp_path: Path) -> None:
    """An association taken away between form and submit is found, without a job in the queue."""
    async with telling(database_url, tmp_path) as (hub, spawner):
        user_id = await hub.user()
        await offer_of(hub.hub, user_id, "memory")
        spawner.offer = replace(spawner.offer, accounts=spawner.offer.accounts[:1])
        shift(hub, seconds=30)
        with pytest.raises(InvalidOptions) as caught:
            await hub.start(profile="batch", options={"account": "biology"})
        assert [fault.field for fault in caught.value.faults] == ["account"]
        assert await hub.live() == []


async def test_what_was_chosen_reaches_the_launch(database_url: str, tmp_path: Path) -> None:
    """Account, partition and the rest are kept in their JSON form, as the spawner gets them."""
    async with telling(database_url, tmp_path) as (hub, spawner):
        launch = await hub.start(
            profile="batch",
            options={
                "account": "biology",
                "partition": "gpu",
                "qos": "",
                "gpu": 2,
                "gpu_type": "a100",
                "features": ["amd"],
            },
        )
        assert launch.spec["options"] == {
            "account": "biology",
            "partition": "gpu",
            "cpu": 1,
            "memory": 2**30,
            "time": 3600,
            "gpu": 2,
            "gpu_type": "a100",
            "features": ["amd"],
            "ui": "lab",
        }
        assert launch.spec["resources"]["gpu"] == 2
        resources, options = spawner.validated[-1]
        assert (resources.gpu, options["gpu_type"]) == (2, "a100")


async def test_the_scheduler_s_own_objection_is_a_fault_of_its_field(
    database_url: str, tmp_path: Path
) -> None:
    """What the dry run says stands beside the field, in the scheduler's words, and nothing runs."""
    async with telling(database_url, tmp_path) as (hub, spawner):
        spawner.objections = [
            Objection(field="qos", code="invalid-qos", words="Invalid qos\x00specification")
        ]
        with pytest.raises(InvalidOptions) as caught:
            await hub.start(profile="batch", options={})
        [fault] = caught.value.faults
        assert (fault.field, fault.code) == ("qos", "objection")
        assert "Invalid qos" in str(fault)
        assert str(fault).isprintable()
        assert await hub.live() == []


async def test_a_live_server_is_returned_whatever_the_platform_says_now(
    database_url: str, tmp_path: Path
) -> None:
    """Asking twice for the same start asks the platform nothing the second time."""
    async with telling(database_url, tmp_path) as (hub, spawner):
        launch = await hub.start(profile="batch", options={})
        spawner.objections = [Objection(field="", code="other", words="no")]
        spawner.offer = replace(spawner.offer, partitions=())
        shift(hub, minutes=5)
        assert (await hub.start(profile="batch", options={})).id == launch.id
        assert len(spawner.validated) == 1
        user_id = await hub.user()
        with pytest.raises(InvalidOptions):
            await request_restart(
                hub.hub, user_id=user_id, server_name="", profile="batch", options={}, asking=TEST
            )
        assert (await hub.launch(launch.id)).wanted == "run"


@pytest.mark.parametrize("error", [SpawnerTransient("away"), KeyError("a driver's own fault")])
async def test_a_dry_run_without_an_answer_decides_nothing(
    database_url: str, tmp_path: Path, error: Exception
) -> None:
    """A scheduler that is away, or that nobody understands, keeps nobody from asking."""
    async with telling(database_url, tmp_path) as (hub, spawner):
        await offer_of(hub.hub, await hub.user(), "memory")
        spawner.error = error
        shift(hub, minutes=5)
        launch = await hub.start(profile="batch", options={})
        assert launch.spawner == "memory"
        assert (await seen(hub)).platforms.errors.keys() == {"memory"}


async def test_a_remembered_choice_that_became_impossible_is_dropped_and_said(
    database_url: str, tmp_path: Path
) -> None:
    """The next start works without being asked; the form names what was dropped."""
    async with telling(database_url, tmp_path) as (hub, spawner):
        chosen = {"partition": "gpu", "time": 7200, "features": ["amd"]}
        launch = await hub.start(profile="batch", options=chosen)
        await hub.stop()
        assert (await seen(hub)).options == chosen
        spawner.offer = replace(spawner.offer, partitions=spawner.offer.partitions[:1])
        shift(hub, minutes=2)
        again = await hub.start()
        assert again.id != launch.id
        assert again.spec["options"]["time"] == 7200
        assert "partition" not in again.spec["options"]


POLICIES: list[dict[str, Any]] = [
    {"partitions": ["gpu"]},
    {"accounts": ["biology"]},
    {"qos": ["normal"]},
    {"gpu_types": ["a100_1g.5gb"]},
    {"time": "30 min"},
    {"cpu": 2, "memory": "2 GiB", "gpu": 1},
]
ASKED: list[dict[str, Any]] = [
    {},
    {"partition": "cpu"},
    {"partition": "gpu", "gpu": 1},
    {"partition": "gpu", "gpu": 2, "gpu_type": "a100"},
    {"account": "physics", "qos": "normal"},
    {"account": "biology", "qos": "high"},
    {"time": "2 h", "cpu": 4, "memory": "4 GiB"},
]


@pytest.mark.parametrize("way", ["start", "restart", "remembered"])
async def test_no_way_to_a_launch_passes_a_policy(
    database_url: str, tmp_path: Path, way: str
) -> None:
    """Start, restart and start with what is remembered end within every limit, or not at all."""
    people: dict[str, dict[str, Any]] = {
        f"u{number}": policy for number, policy in enumerate(POLICIES)
    }
    sections = [
        PolicySection.model_validate({"groups": [], "users": [name], **policy})
        for name, policy in people.items()
    ]
    async with telling(database_url, tmp_path, policies=sections) as (hub, _):
        for name, policy in people.items():
            for asked in ASKED:
                try:
                    launch = await _start(hub, name, way, "batch", asked)
                except (InvalidOptions, RefusedOptions):
                    continue
                _check(launch.spec["options"], policy)
            launch = await _start(hub, name, way, "plain", {})
            _check({"memory": 0, **launch.spec["options"]}, policy)


async def _start(hub: TestHub, name: str, way: str, profile: str, asked: dict[str, Any]) -> Launch:
    await hub.stop(name)
    launch = await hub.start(name, profile=profile, options=asked)
    if way == "restart":
        return await request_restart(
            hub.hub,
            user_id=await hub.user(name),
            server_name="",
            profile=profile,
            options=asked,
            asking=TEST,
        )
    if way == "remembered":
        await hub.stop(name)
        return await hub.start(name)
    return launch


def _check(options: dict[str, Any], policy: dict[str, Any]) -> None:
    """Fail when a launch got what its policy forbids."""
    for key, field in (("partitions", "partition"), ("accounts", "account"), ("qos", "qos")):
        if key in policy:
            assert options[field] in policy[key]
    if "gpu_types" in policy and options.get("gpu"):
        assert options["gpu_type"] in policy["gpu_types"]
    if "time" in policy:
        assert options["time"] <= 1800
    if "cpu" in policy:
        assert options["cpu"] <= 2
        assert options["memory"] <= 2 * 2**30
        assert options["gpu"] <= 1
