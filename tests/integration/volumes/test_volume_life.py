"""A volume's life: made at the first start, kept on stop, deleted with the server, had back."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import Connection

from perijove.db import environments
from perijove.db.core import bound
from perijove.db.servers import find_server
from perijove.db.tables import leases
from perijove.db.tables import volumes as table
from perijove.db.volumes import (
    Volume,
    begin_removal,
    find_volume,
    list_unknown,
    list_volumes,
    take_back,
)
from perijove.domain.environments import Maker, State
from perijove.domain.errors import Conflict, Gone, Invalid, NotFound
from perijove.domain.launch import Launch, Status
from perijove.domain.storage import Fullness, Kept, Storage
from perijove.kit.loops import until
from perijove.reconcile.housekeeping import Housekeeper
from perijove.reconcile.volumes import VolumeKeeper
from perijove.services import volumes
from perijove.services.offers import PolicySection, ProfileSection
from perijove.services.servers import Description, change_description
from perijove.services.users import change_user, delete_user
from perijove.spawners.contract import VolumeSpec
from tests.fakes.spawners import MemoryPlatform, MemoryVolume, Wrapper
from tests.hubs import (
    PATIENCE,
    TEST,
    ShiftedClock,
    TestHub,
    answering_server,
    running_hub,
)

pytestmark = pytest.mark.anyio
WEEK = timedelta(days=7)


@asynccontextmanager
async def _hub(
    database_url: str,
    directory: Path,
    *,
    policies: Sequence[dict[str, Any]] = (),
    clock: ShiftedClock | None = None,
    wrap: type[Wrapper] | None = None,
    **storage: Any,
) -> AsyncIterator[TestHub]:
    """Run a hub whose only profile keeps something."""
    profile = ProfileSection.model_validate({"name": "only", "storage": storage})
    async with (
        answering_server() as server,
        running_hub(
            database_url,
            directory,
            platform=MemoryPlatform(url=server.url),
            clock=clock or ShiftedClock(),
            wrap=wrap,
            profile_sections=[profile],
            policies=[PolicySection.model_validate(each) for each in policies],
        ) as hub,
    ):
        yield hub


async def _ready(hub: TestHub, user: str = "ann", server: str = "") -> Launch:
    return await hub.becomes(await hub.start(user, server), Status.READY)


async def _stopped(hub: TestHub, user: str = "ann", server: str = "", **given: Any) -> None:
    launch = await hub.stop(user, server, **given)
    assert launch is not None
    await hub.becomes(launch, Status.ENDED)


async def _all(hub: TestHub) -> Sequence[Volume]:
    return await hub.hub.database.read(list_volumes)


async def _only(hub: TestHub) -> Volume:
    (volume,) = await _all(hub)
    return volume


async def _look(hub: TestHub) -> None:
    """Let a keeper look once, as another replica's would when the first one is gone."""

    async def is_free() -> bool:
        return await hub.hub.database.write(_forget_lease)

    assert await until(is_free, seconds=PATIENCE)  # the hub's own keeper has looked, once
    await VolumeKeeper(hub.hub, "memory", hub.spawner).step()


def _forget_lease(connection: Connection) -> bool:
    done = connection.execute(leases.delete().where(leases.c.name == "volumes:memory"))
    return done.rowcount > 0


async def test_a_volume_is_made_once_and_kept_on_stop(database_url: str, tmp_path: Path) -> None:
    """The first start makes it, the second finds it with what was written on it."""
    async with _hub(database_url, tmp_path, size="2 GiB", path="/home/ann") as hub:
        first = await _ready(hub)
        (name, made) = next(iter(hub.platform.volumes.items()))
        assert first.spec["volumes"] == [
            {
                "name": name,
                "path": "/home/ann",
                "size_bytes": 2 * 2**30,
                "storage_class": "",
                "labels": {"user": "ann"},
            }
        ]
        made.files["work.ipynb"] = b"mine"
        await _stopped(hub)
        again = await _ready(hub)
        assert again.spec["volumes"][0]["name"] == name
        assert hub.platform.volumes[name].files == {"work.ipynb": b"mine"}
        assert hub.platform.volumes.keys() == {name}


async def test_servers_have_their_own_and_a_user_kept_one_is_shared(
    database_url: str, tmp_path: Path
) -> None:
    """With `server` each has its own; a policy that forces `user` gives one for all of them."""
    policies = [{"groups": [], "users": ["bob"], "storage_kept": "user", "storage": "1 GiB"}]
    async with _hub(database_url, tmp_path, policies=policies, size="2 GiB") as hub:
        of_ann = [await _ready(hub, "ann"), await _ready(hub, "ann", "second")]
        of_bob = [await _ready(hub, "bob"), await _ready(hub, "bob", "second")]
        names = [launch.spec["volumes"][0]["name"] for launch in (*of_ann, *of_bob)]
        assert len(set(names[:2])) == 2
        assert len(set(names[2:])) == 1
        assert {launch.spec["volumes"][0]["size_bytes"] for launch in of_bob} == {2**30}
        kinds = {volume.user_name: volume.kind for volume in await _all(hub)}
        assert kinds == {"ann": Kept.SERVER, "bob": Kept.USER}


async def test_a_policy_can_say_that_nothing_is_kept(database_url: str, tmp_path: Path) -> None:
    """With `none` a start has no volume, and makes none."""
    async with _hub(database_url, tmp_path, policies=[{"storage_kept": "none"}]) as hub:
        launch = await _ready(hub)
        assert "volumes" not in launch.spec
        assert hub.platform.volumes == {}


async def test_a_platform_without_volumes_is_said(database_url: str, tmp_path: Path) -> None:
    """A profile that keeps something cannot start where nothing can be kept, and nothing is."""
    async with _hub(database_url, tmp_path, wrap=Wrapper) as hub:
        with pytest.raises(Invalid) as refused:
            await hub.start()
        assert refused.value.code == "storage-impossible"
        assert await hub.live() == []
        assert await _all(hub) == []


async def test_names_built_to_collide_share_nothing(database_url: str, tmp_path: Path) -> None:
    """Pairs that any rule of joining names would mix up have volumes of their own (5.16)."""
    pairs = [
        ("ann", "lab-one"),
        ("ann-lab", "one"),
        ("ann--lab", "one"),
        ("ann@x.org", "a"),
        ("ann-40x-2eorg", "a"),
        ("ann-x.org", "a"),
        ("a" * 64, "b"),
        ("a" * 63, "ab"),
    ]
    async with _hub(database_url, tmp_path) as hub:
        for user, server in pairs:
            await _ready(hub, user, server)
        names = [volume.name for volume in await _all(hub)]
        assert len(set(names)) == len(pairs)
        assert all(name.startswith(f"pj-{hub.hub.installation}-") for name in names)
        assert hub.platform.volumes.keys() == set(names)


async def test_a_person_of_the_same_name_gets_nothing_of_the_last_one(
    database_url: str, tmp_path: Path
) -> None:
    """Who gets a deleted person's name starts with an empty volume; the old one is kept."""
    async with _hub(database_url, tmp_path) as hub:
        old = (await _ready(hub, "ann")).spec["volumes"][0]["name"]
        await _stopped(hub, "ann")
        await hub.hub.database.write(bound(delete_user, "ann"))
        del hub.users["ann"]
        new = (await _ready(hub, "ann")).spec["volumes"][0]["name"]
        assert new != old
        owners = {volume.name: volume.user_id for volume in await _all(hub)}
        assert owners[old] is None
        assert old in hub.platform.volumes


async def _has_environment(hub: TestHub, volume: Volume) -> None:
    def unit(connection: Connection) -> None:
        environments.add(
            connection,
            user_id=volume.user_id,
            place=f"volume:{volume.name}",
            name="mine",
            maker=Maker.HUB,
            packages=[],
            state=State.READY,
            created_at=volume.created_at,
            changed_at=volume.created_at,
        )

    await hub.hub.database.write(unit)


async def _environments(hub: TestHub) -> Sequence[environments.Environment]:
    return await hub.hub.database.read(bound(environments.list_of, await hub.user("ann")))


async def test_it_is_deleted_with_its_server_after_its_retention(
    database_url: str, tmp_path: Path
) -> None:
    """Deleting the server marks it; it goes when its days are over, and not before."""
    clock = ShiftedClock()
    async with _hub(database_url, tmp_path, clock=clock, retention="1 min") as hub:
        await _ready(hub, "ann", "lab")
        await _stopped(hub, "ann", "lab", remove=True)
        volume = await _only(hub)
        assert volume.delete_after is not None
        assert not volume.attached
        await _has_environment(hub, volume)
        await _look(hub)
        assert hub.platform.volumes.keys() == {volume.name}
        assert await _environments(hub)
        clock.shift(timedelta(minutes=1))
        await _look(hub)
        assert hub.platform.volumes == {}
        assert await _all(hub) == []
        assert not await _environments(hub)


async def test_what_may_go_at_once_goes_soon(database_url: str, tmp_path: Path) -> None:
    """Without days to be had back a volume is gone some seconds after its server."""
    async with _hub(database_url, tmp_path, retention="0 s") as hub:
        await _ready(hub, "ann", "lab")
        await _stopped(hub, "ann", "lab", remove=True)

        async def is_gone() -> bool:
            return not hub.platform.volumes

        assert await until(is_gone, seconds=PATIENCE)


async def test_what_lives_keeps_its_volume(database_url: str, tmp_path: Path) -> None:
    """A volume that is due stays while a launch has it, or anything else on the platform."""
    async with _hub(database_url, tmp_path, retention="0 s") as hub:
        await _ready(hub, "ann", "lab")
        volume = await _only(hub)
        with pytest.raises(Conflict):
            await hub.hub.database.write(_burying(hub, volume))
        await _mark_due(hub, volume)
        await _look(hub)
        assert (await _only(hub)).removing_at is None
        await _stopped(hub, "ann", "lab")
        hub.platform.volumes[volume.name].stuck = True
        await _look(hub)
        assert (await _only(hub)).removing_at is not None
        assert (await _only(hub)).deleted_at is None
        hub.platform.volumes[volume.name].stuck = False
        await _look(hub)
        assert await _all(hub) == []


async def test_a_deletion_can_be_taken_back(database_url: str, tmp_path: Path) -> None:
    """Until it is being removed its owner has it back, where it was and with what it holds."""
    async with _hub(database_url, tmp_path) as hub:
        name = (await _ready(hub)).spec["volumes"][0]["name"]
        hub.platform.volumes[name].files["a"] = b"b"
        await _stopped(hub)
        await hub.hub.database.write(_burying(hub, await _only(hub)))
        now = hub.hub.clock.now()
        await hub.hub.database.write(bound(volumes.restore, name, asking=TEST, now=now))
        assert (await _ready(hub)).spec["volumes"][0]["name"] == name
        await _stopped(hub)
        await hub.hub.database.write(_burying(hub, await _only(hub)))
        await hub.hub.database.write(_writing(name, removing_at=now))
        with pytest.raises(Gone):
            await hub.hub.database.write(bound(volumes.restore, name, asking=TEST, now=now))


async def test_what_was_had_back_is_not_removed(database_url: str, tmp_path: Path) -> None:
    """A keeper that read it before its owner had it back leaves it; and the other way round."""
    async with _hub(database_url, tmp_path, retention="0 s") as hub:
        name = (await _ready(hub)).spec["volumes"][0]["name"]
        await _stopped(hub)
        await _mark_due(hub, await _only(hub))
        due, now = await _only(hub), hub.hub.clock.now()
        await hub.hub.database.write(bound(volumes.restore, name, asking=TEST, now=now))
        assert not await hub.hub.database.write(bound(begin_removal, due.id, now))
        await _look(hub)
        assert hub.platform.volumes.keys() == {name}
        await _mark_due(hub, due)
        now = hub.hub.clock.now()
        assert await hub.hub.database.write(bound(begin_removal, due.id, now))
        assert not await hub.hub.database.write(bound(take_back, due.id, attached=True))
        with pytest.raises(Gone):
            await hub.hub.database.write(bound(volumes.attach, name, "", asking=TEST, now=now))
        assert (await _ready(hub)).spec["volumes"][0]["name"] != name


async def test_a_deletion_and_a_start_take_turns(database_url: str, tmp_path: Path) -> None:
    """Asked for at the same time, either the volume is in use or the start begins empty."""
    async with _hub(database_url, tmp_path) as hub:
        for number in range(5):
            server = f"s{number}"
            old = (await _ready(hub, "ann", server)).spec["volumes"][0]["name"]
            await _stopped(hub, "ann", server)
            volume = await hub.hub.database.read(bound(find_volume, old))
            assert volume is not None
            is_deleted: list[bool] = []

            async def delete(volume: Volume = volume, told: list[bool] = is_deleted) -> None:
                try:
                    await hub.hub.database.write(_burying(hub, volume))
                except Conflict:
                    told.append(False)
                else:
                    told.append(True)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(delete)
                tasks.start_soon(_ready, hub, "ann", server)
            (live,) = [each for each in await hub.live() if each.server_name == server]
            assert is_deleted == [live.spec["volumes"][0]["name"] != old]


async def test_what_is_left_of_somebody_has_the_last_names(
    database_url: str, tmp_path: Path
) -> None:
    """Renamed person, renamed server, then both deleted: an administrator sees the new names."""
    async with _hub(database_url, tmp_path) as hub:
        await _ready(hub, "ann", "lab")
        await _stopped(hub, "ann", "lab")
        now = hub.hub.clock.now()

        def unit(connection: Connection) -> None:
            anna = change_user(connection, "ann", new_name="anna", admin=None)
            change_description(connection, anna, "lab", Description(name="thesis"), now=now)
            delete_user(connection, "anna")

        await hub.hub.database.write(unit)
        left = await _only(hub)
        assert (left.user_id, left.user_name, left.server_name) == (None, "anna", "thesis")


async def test_a_start_after_a_deletion_begins_empty(database_url: str, tmp_path: Path) -> None:
    """Who deletes a volume and starts the server gets a new one; the old one waits for its end."""
    async with _hub(database_url, tmp_path) as hub:
        old = (await _ready(hub)).spec["volumes"][0]["name"]
        await _stopped(hub)
        await hub.hub.database.write(_burying(hub, await _only(hub)))
        new = (await _ready(hub)).spec["volumes"][0]["name"]
        assert new != old
        now = hub.hub.clock.now()
        await hub.hub.database.write(bound(volumes.restore, old, asking=TEST, now=now))
        attached = {volume.name: volume.attached for volume in await _all(hub)}
        assert attached == {old: False, new: True}


async def test_a_server_that_goes_on_keeps_what_it_has(database_url: str, tmp_path: Path) -> None:
    """A start that comes before the deletion has happened takes back all of it."""
    async with _hub(database_url, tmp_path) as hub:
        first = await _ready(hub, "ann", "lab")
        may_stop, stop = anyio.Event(), hub.spawner.stop

        async def slow_stop(*given: Any, **more: Any) -> Any:
            await may_stop.wait()
            return await stop(*given, **more)

        hub.spawner.stop = slow_stop
        await hub.stop("ann", "lab", remove=True)
        assert (await _only(hub)).delete_after is not None
        again = await hub.start("ann", "lab")
        may_stop.set()
        assert again.spec["volumes"] == first.spec["volumes"]
        assert (await _only(hub)).delete_after is None
        await hub.becomes(again, Status.READY)


async def test_it_goes_to_another_server_of_its_owner(database_url: str, tmp_path: Path) -> None:
    """Attached elsewhere it is what that server starts with; what was there is kept for later."""
    async with _hub(database_url, tmp_path) as hub:
        old = (await _ready(hub, "ann", "old")).spec["volumes"][0]["name"]
        other = (await _ready(hub, "ann", "new")).spec["volumes"][0]["name"]
        now = hub.hub.clock.now()
        attach = bound(volumes.attach, old, "new", asking=TEST, now=now)
        with pytest.raises(Conflict):
            await hub.hub.database.write(attach)
        await _stopped(hub, "ann", "old", remove=True)
        with pytest.raises(Conflict):
            await hub.hub.database.write(attach)
        await _stopped(hub, "ann", "new")
        with pytest.raises(NotFound):
            await hub.hub.database.write(
                bound(volumes.attach, old, "elsewhere", asking=TEST, now=now)
            )
        await hub.hub.database.write(attach)
        assert (await _ready(hub, "ann", "new")).spec["volumes"][0]["name"] == old
        attached = {volume.name: volume.attached for volume in await _all(hub)}
        assert attached == {old: True, other: False}


async def test_what_the_platform_says_is_written_down(database_url: str, tmp_path: Path) -> None:
    """Use, whether the size is enforced, and which launch has it come from the platform."""
    async with _hub(database_url, tmp_path, size="1 MiB") as hub:
        launch = await _ready(hub)
        volume = await _only(hub)
        assert volume.fullness is Fullness.UNKNOWN
        hub.platform.volumes[volume.name].files["big"] = b"x" * 1_000_000
        await _look(hub)
        volume = await _only(hub)
        assert (volume.used_bytes, volume.enforced) == (1_000_000, True)
        assert volume.held_by == launch.name
        assert volume.fullness is Fullness.NEARLY_FULL
        hub.platform.enforces_size = False
        hub.platform.volumes[volume.name].files["bigger"] = b"x" * 1_000_000
        await _look(hub)
        volume = await _only(hub)
        assert (volume.enforced, volume.fullness) == (False, Fullness.FULL)


@pytest.mark.parametrize("enforced", [True, False])
async def test_what_is_said_later_counts_from_the_next_start(
    database_url: str, tmp_path: Path, enforced: bool
) -> None:
    """Another size, path and retention; a size that the platform enforces stays as it was made."""
    async with _hub(database_url, tmp_path, size="2 GiB") as hub:
        hub.platform.enforces_size = enforced
        await _ready(hub, "ann", "lab")
        await _look(hub)
        await _stopped(hub, "ann", "lab")
        user_id, now = await hub.user("ann"), hub.hub.clock.now()
        later = Storage(
            kept=Kept.SERVER,
            path="/data",
            size_bytes=2**30,
            storage_class="fast",
            retention=timedelta(days=1),
        )

        def start(connection: Connection) -> VolumeSpec:
            server = find_server(connection, user_id, "lab")
            assert server is not None
            given: dict[str, Any] = {"spawner": "memory", "server": server, "user_name": "ann"}
            (kept,) = volumes.keep(hub.hub, connection, later, **given, now=now)
            return VolumeSpec(**volumes.spec_of([kept])["volumes"][0])

        spec = await hub.hub.database.write(start)
        assert (spec.path, spec.storage_class) == ("/data", "")
        assert spec.size_bytes == (2 * 2**30 if enforced else 2**30)
        assert (await _only(hub)).retention == timedelta(days=1)


async def test_a_volume_that_vanished_is_told(database_url: str, tmp_path: Path) -> None:
    """It is missing, not gone; the start that makes it anew says in its events what was lost."""
    async with _hub(database_url, tmp_path) as hub:
        await _ready(hub)
        volume = await _only(hub)
        await _look(hub)
        await _stopped(hub)
        del hub.platform.volumes[volume.name]
        await _look(hub)
        assert (await _only(hub)).missing_since is not None
        again = await _ready(hub)
        assert "volume-lost" in [event.code for event in await hub.events(again.id)]
        await _look(hub)
        assert (await _only(hub)).missing_since is None


async def test_what_no_row_knows_is_told_and_left_alone(database_url: str, tmp_path: Path) -> None:
    """An unknown volume of ours is recorded, stays on the platform, and is forgotten when gone."""
    async with _hub(database_url, tmp_path) as hub:
        stray = f"pj-{hub.hub.installation}-aaaaaaaaaaaaaaaa"
        installation = hub.hub.installation
        hub.platform.volumes[stray] = MemoryVolume(installation, None, {"user": "zoe"})
        hub.platform.volumes["pj-other-x"] = MemoryVolume("other", None, {})
        await _look(hub)
        (found,) = await hub.hub.database.read(list_unknown)
        assert (found.name, dict(found.labels)) == (stray, {"user": "zoe"})
        assert stray in hub.platform.volumes
        del hub.platform.volumes[stray]
        await _look(hub)
        assert await hub.hub.database.read(list_unknown) == []


async def test_a_silent_platform_changes_nothing(database_url: str, tmp_path: Path) -> None:
    """No answer is not an answer: nothing is missing and nothing is removed."""
    async with _hub(database_url, tmp_path, retention="0 s") as hub:
        await _ready(hub)
        await _look(hub)
        before = await _all(hub)

        async def silent() -> None:
            raise TimeoutError

        hub.spawner.survey_volumes = silent
        await _look(hub)
        assert await _all(hub) == before


def _burying(hub: TestHub, volume: Volume) -> Any:
    return bound(volumes.bury, volume.name, asking=TEST, now=hub.hub.clock.now())


def _writing(name: str, **values: Any) -> Any:
    def unit(connection: Connection) -> None:
        connection.execute(table.update().where(table.c.name == name).values(**values))

    return unit


async def _mark_due(hub: TestHub, volume: Volume) -> None:
    now = hub.hub.clock.now()
    await hub.hub.database.write(_writing(volume.name, delete_after=now, attached=False))


async def test_what_is_gone_for_long_is_forgotten(database_url: str, tmp_path: Path) -> None:
    """The row of a volume that was removed lately is kept as a record, an old one is not."""
    async with _hub(database_url, tmp_path) as hub:
        old = (await _ready(hub, "ann")).spec["volumes"][0]["name"]
        new = (await _ready(hub, "bob")).spec["volumes"][0]["name"]
        now = hub.hub.clock.now()
        await hub.hub.database.write(_writing(old, deleted_at=now - timedelta(days=3650)))
        await hub.hub.database.write(_writing(new, deleted_at=now))
        await Housekeeper(hub.hub).purge()
        assert await hub.hub.database.read(bound(find_volume, old)) is None
        assert await hub.hub.database.read(bound(find_volume, new)) is not None
