"""Persistent environments between the person who asks and the sessions that build."""

import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import Connection, insert, select

from perijove.db.core import bound
from perijove.db.environments import Environment, list_of
from perijove.db.tables import group_members, groups, launches, volumes
from perijove.domain.environments import State
from perijove.domain.errors import Conflict, HubError, Invalid, NotFound, Refused
from perijove.domain.launch import Cause, Launch, Status, Wanted
from perijove.kit.clock import SystemClock
from perijove.services import environments as service
from perijove.services.environments import MOST, Place
from perijove.services.offers import PolicySection, ProfileSection
from perijove.services.specs import spec_of
from perijove.services.users import delete_user
from perijove.wire.environments import Report, Sync
from tests.hubs import TestHub, running_hub

pytestmark = pytest.mark.anyio

WITH_VOLUME = ProfileSection.model_validate(
    {"name": "kept", "storage": {"size": "2 GiB", "kept": "user"}}
)
PLAIN = ProfileSection.model_validate({"name": "plain"})
FORBIDDEN = PolicySection.model_validate({"groups": ["guests"], "environments": False})


@pytest.fixture(
    params=["sqlite", pytest.param("postgresql", marks=pytest.mark.needs("postgresql"))]
)
async def hub(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[TestHub]:
    """Give a hub that starts nothing, with ann and bob in the lab, on either database."""
    url = f"sqlite:///{tmp_path}/hub.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql_url")
    given: dict[str, Any] = {
        "profile_sections": [PLAIN, WITH_VOLUME],
        "policies": [FORBIDDEN],
        "spawner": {"home_storage": "nfs"},
        "loops": False,
        "with_proxy": False,
    }
    async with running_hub(url, tmp_path, **given) as found:
        for name in ("ann", "bob"):
            await join(found, name, "lab")
        yield found


async def join(hub: TestHub, name: str, group: str) -> None:
    """Make somebody a member of a group."""
    user_id = await hub.user(name)

    def unit(connection: Connection) -> None:
        id_ = connection.scalar(select(groups.c.id).where(groups.c.name == group))
        if id_ is None:
            made = insert(groups).values(name=group, created_at=SystemClock().now())
            key = connection.execute(made).inserted_primary_key
            assert key is not None
            id_ = key[0]
        connection.execute(insert(group_members).values(group_id=id_, user_id=user_id))

    await hub.hub.database.write(unit)


async def worked(hub: TestHub, name: str = "ann", profile: str = "plain") -> Launch:
    """Ask for a server, as whoever wants environments has done."""
    return await hub.start(name, profile, profile=profile)


async def do(hub: TestHub, act: Callable[..., Any], who: str, *given: Any, **more: Any) -> Any:
    """Do something of the service as a person, in a unit of its own."""
    user_id = await hub.user(who)
    if act in (service.create, service.copy, service.remove):

        def unit(connection: Connection) -> Any:
            now = hub.hub.clock.now()
            return act(hub.hub, connection, user_id, *given, now=now, **more)

    else:

        def unit(connection: Connection) -> Any:
            return act(connection, user_id, *given, now=hub.hub.clock.now(), **more)

    return await hub.hub.database.write(unit)


async def says(
    hub: TestHub, launch: Launch, *news: Report, found: Sequence[str] = ()
) -> Sequence[Environment]:
    """Let a session speak, and return what it hears."""
    place = service.place_of(hub.hub, launch)
    assert place is not None
    said = Sync(found=list(found), reports=list(news))
    tasks, _ = await service.sync(hub.hub, launch, place, said)
    return tasks


async def now_of(hub: TestHub, name: str = "ann") -> dict[str, Environment]:
    """Return a person's environments by name."""
    user_id = await hub.user(name)
    found = await hub.hub.database.read(bound(list_of, user_id))
    return {each.name: each for each in found}


def ready(task: Environment, lock: str = "numpy==2.0\n", **more: Any) -> Report:
    """Say that one was built."""
    return Report(id=task.id, revision=task.revision, state="ready", lock=lock, **more)


async def built(hub: TestHub, name: str = "mine", owner: str = "ann", **wish: Any) -> Environment:
    """Have an environment that was built."""
    launch = await worked(hub, owner, "plain") if not await now_of(hub, owner) else None
    made: Environment = await do(hub, service.create, owner, name=name, **wish)
    launch = launch or (await hub.live())[0]
    await says(hub, launch, ready(made))
    return (await now_of(hub, owner))[name]


async def refusal(awaited: Any) -> HubError:
    """Return why something was refused."""
    with pytest.raises(HubError) as refused:
        await awaited
    return refused.value


async def test_nothing_is_made_before_there_is_a_place(hub: TestHub) -> None:
    """Who never had a server that keeps files has nowhere to keep environments."""
    refused = await refusal(do(hub, service.create, "ann", name="mine"))
    assert (type(refused), refused.code) == (Conflict, "environment-nowhere")
    await worked(hub)
    strange = await refusal(do(hub, service.create, "ann", name="mine", place="homes:other"))
    assert (type(strange), strange.code) == (Invalid, "environment-place")


async def test_the_place_is_the_volume_or_the_homes(hub: TestHub) -> None:
    """The session is told where environments lie, and each place has its own."""
    at_home, on_volume = await worked(hub), await worked(hub, profile="kept")
    name = on_volume.spec["volumes"][0]["name"]
    assert service.place_of(hub.hub, at_home) == Place(
        key="homes:nfs", folder="~/.perijove/environments"
    )
    assert spec_of(hub.hub, at_home).environment["PERIJOVE_ENVIRONMENTS"] == (
        "~/.perijove/environments"
    )
    assert spec_of(hub.hub, on_volume).environment["PERIJOVE_ENVIRONMENTS"] == (
        "/home/jovyan/.perijove/environments"
    )
    made = await do(hub, service.create, "ann", name="mine", packages=["numpy"])
    assert made.place == f"volume:{name}"
    assert await says(hub, at_home) == []
    (task,) = await says(hub, on_volume)
    assert (task.name, task.packages) == ("mine", ["numpy"])
    await says(hub, at_home, ready(task))
    assert (await now_of(hub))["mine"].state is State.WANTED


async def test_a_policy_forbids_them(hub: TestHub) -> None:
    """Who may have none cannot ask, and the session gets no place and hears nothing."""
    before = await worked(hub)
    made = await do(hub, service.create, "ann", name="mine")
    await join(hub, "ann", "guests")
    for act, given in (
        (service.create, {"name": "other"}),
        (service.change, {"id_": made.id, "packages": ["numpy"]}),
        (service.retry, {"id_": made.id}),
    ):
        refused = await refusal(do(hub, act, "ann", **given))
        assert isinstance(refused, Refused)
    assert await says(hub, before) == []
    later = await hub.start("ann", "later", profile="plain")
    assert service.place_of(hub.hub, later) is None
    assert "PERIJOVE_ENVIRONMENTS" not in spec_of(hub.hub, later).environment
    assert await do(hub, service.remove, "ann", made.id) is None


async def test_who_may_have_none_any_more_can_tidy_up(hub: TestHub) -> None:
    """Unlocked, shared with nobody, and removed by a session that still runs; nothing is built."""
    made = await built(hub)
    await do(hub, service.change, "ann", made.id, locked=True, shared=["lab"])
    await do(hub, service.create, "ann", name="wanted")
    await join(hub, "ann", "guests")
    (launch,) = await hub.live()
    assert await says(hub, launch) == []
    again = await refusal(do(hub, service.change, "ann", made.id, shared=["lab"]))
    assert isinstance(again, Refused)
    freed = await do(hub, service.change, "ann", made.id, locked=False, shared=[])
    assert (freed.is_locked, freed.shared) == (False, [])
    await do(hub, service.remove, "ann", made.id)
    (task,) = await says(hub, launch)
    assert (task.name, task.is_wanted) == ("mine", False)


async def test_names_are_unique_and_not_too_many(hub: TestHub) -> None:
    """A second one of a name is refused, and so is one too many at a place."""
    await worked(hub)
    await do(hub, service.create, "ann", name="n0")
    taken = await refusal(do(hub, service.create, "ann", name="n0"))
    assert taken.code == "environment-exists"
    for number in range(1, MOST):
        await do(hub, service.create, "ann", name=f"n{number}")
    assert (await refusal(do(hub, service.create, "ann", name="more"))).code == "environment-most"


async def test_only_what_is_wanted_now_is_believed(hub: TestHub) -> None:
    """News of another revision, of nobody's and of another's environment change nothing."""
    launch = await worked(hub)
    made = await do(hub, service.create, "ann", name="mine")
    await worked(hub, "bob")
    bobs = await do(hub, service.create, "bob", name="mine")
    changed = await do(hub, service.change, "ann", made.id, packages=["numpy"])
    wild = Report(id=10**30, revision=1, state="ready")
    removed = Report(id=made.id, revision=changed.revision, state="removed")
    odd = Report(id=made.id, revision=changed.revision, state="wanted")
    tasks = await says(hub, launch, ready(made), ready(bobs), wild, removed, odd)
    assert [(each.revision, each.state) for each in tasks] == [(2, State.WANTED)]
    assert (await now_of(hub, "bob"))["mine"].state is State.WANTED


async def test_words_of_a_session_are_cut_and_cleaned(hub: TestHub) -> None:
    """What no database keeps and what is no lock does not get in; the end of the words does."""
    launch = await worked(hub)
    made = await do(hub, service.create, "ann", name="mine")
    words = "\x00\x1b[31m<b>" + "x" * 10_000 + "the end"
    failed = Report(id=made.id, revision=1, state="failed", error=words)
    assert await says(hub, launch, failed) == []
    found = (await now_of(hub))["mine"]
    assert found.state is State.FAILED
    assert found.error.endswith("xthe end")
    assert len(found.error) == 4000
    again = await do(hub, service.retry, "ann", made.id)
    assert (again.state, again.revision, again.error) == (State.WANTED, 2, "")
    for lock in ("-r /etc/passwd", "x==1\x00", "y" * 300_000):
        await says(hub, launch, ready(again, lock))
        assert (await now_of(hub))["mine"].lock == ""
    assert (await now_of(hub))["mine"].state is State.READY


async def test_what_is_locked_stays_as_it_is(hub: TestHub) -> None:
    """A locked one is built from its lock, and neither changed nor removed until it is unlocked."""
    launch = await worked(hub)
    made = await do(hub, service.create, "ann", name="mine", packages=["numpy"])
    early = await refusal(do(hub, service.change, "ann", made.id, locked=True))
    assert early.code == "environment-not-built"
    await says(hub, launch, ready(made))
    await do(hub, service.change, "ann", made.id, locked=True)
    for awaited in (
        do(hub, service.change, "ann", made.id, packages=["pandas"]),
        do(hub, service.remove, "ann", made.id),
    ):
        assert (await refusal(awaited)).code == "environment-locked"
    (task,) = await says(hub, launch, ready(made, "numpy==3.0\n"))
    assert (task.is_locked, task.lock) == (True, "numpy==2.0\n")
    await do(hub, service.change, "ann", made.id, locked=False)
    changed = await do(hub, service.change, "ann", made.id, packages=["pandas"])
    late = await refusal(do(hub, service.change, "ann", made.id, locked=True))
    assert late.code == "environment-not-built", "the lock is of what was there before"
    await says(hub, launch, ready(changed, "pandas==1.0\n"))
    assert (await do(hub, service.change, "ann", made.id, locked=True)).lock == "pandas==1.0\n"


async def test_members_make_their_own_of_what_is_shared(hub: TestHub) -> None:
    """Who is in the group sees it and gets the same versions, locked; nobody else does."""
    source = await built(hub, packages=["numpy"])
    await worked(hub, "bob")
    hidden = await refusal(do(hub, service.copy, "bob", source=source.id))
    assert isinstance(hidden, NotFound)
    strange = await refusal(do(hub, service.change, "ann", source.id, shared=["others"]))
    assert strange.code == "environment-group"
    await do(hub, service.change, "ann", source.id, shared=["lab"])
    bob, carla = await hub.user("bob"), await hub.user("carla")
    seen = await hub.hub.database.read(lambda c: service.find_mine(hub.hub, c, bob).shared)
    assert [each.id for each in seen] == [source.id]
    unseen = await hub.hub.database.read(lambda c: service.find_mine(hub.hub, c, carla).shared)
    assert unseen == []
    mine = await do(hub, service.copy, "bob", source=source.id)
    assert (mine.name, mine.lock, mine.is_locked) == ("mine", "numpy==2.0\n", True)
    assert isinstance(await refusal(do(hub, service.copy, "carla", source=source.id)), NotFound)


async def test_a_remark_carries_nothing_over(hub: TestHub) -> None:
    """What pip would read behind a rare end of a line, or in another encoding, is not kept."""
    launch = await worked(hub)
    made = await do(hub, service.create, "ann", name="mine")
    await says(hub, launch, ready(made, "numpy==2.0\n# \u2028x @ https://evil.test/x.whl\n"))
    refused = await refusal(do(hub, service.change, "ann", made.id, shared=["lab"]))
    assert refused.code == "environment-elsewhere"
    await says(hub, launch, ready(made, "# coding: utf-7\nnumpy==2.0\n"))
    assert (await now_of(hub))["mine"].lock == "numpy==2.0\n"
    locked = await do(hub, service.create, "ann", name="other", lock="# none\n")
    assert (locked.lock, locked.is_locked) == ("", False)


async def test_a_copy_outlives_its_source_and_its_owner(hub: TestHub) -> None:
    """With an account all that it shared is gone; what others made of it is theirs."""
    source = await built(hub)
    await do(hub, service.change, "ann", source.id, shared=["lab"])
    await worked(hub, "bob")
    await do(hub, service.copy, "bob", source=source.id, name="copied")
    (launch,) = [each for each in await hub.live() if each.user_name == "ann"]
    with pytest.raises(Invalid):
        await hub.hub.database.write(bound(delete_user, "ann"))
    await hub.hub.database.write(bound(end_at_once, launch))
    await hub.hub.database.write(bound(delete_user, "ann"))
    bob = await hub.user("bob")
    assert (await hub.hub.database.read(lambda c: service.find_mine(hub.hub, c, bob))).shared == []
    gone = await refusal(do(hub, service.copy, "bob", source=source.id, name="again"))
    assert isinstance(gone, NotFound)
    (task,) = await says(hub, (await hub.live())[0])
    assert (task.name, task.lock) == ("copied", "numpy==2.0\n")


def end_at_once(connection: Connection, launch: Launch) -> None:
    """Let a launch be over."""
    now = SystemClock().now()
    connection.execute(
        launches.update()
        .where(launches.c.id == launch.id)
        .values(status=Status.ENDED, wanted=Wanted.END, end_cause=Cause.USER, ended_at=now)
    )


async def test_nothing_that_lies_with_another_is_shared(hub: TestHub) -> None:
    """What comes from a file or an address is not shared, whatever the session calls its lock."""
    launch = await worked(hub)
    made = await do(hub, service.create, "ann", name="mine")
    await says(hub, launch, ready(made, "x @ file:///home/ann/x.whl\n"))
    refused = await refusal(do(hub, service.change, "ann", made.id, shared=["lab"]))
    assert refused.code == "environment-elsewhere"
    await says(hub, launch, ready(made, "x==1\n"))
    await do(hub, service.change, "ann", made.id, shared=["lab"])
    await says(hub, launch, ready(made, "x @ https://evil.test/x.whl\n"))
    await worked(hub, "bob")
    refused = await refusal(do(hub, service.copy, "bob", source=made.id))
    assert refused.code == "environment-elsewhere"


async def test_a_removal_waits_for_a_session(hub: TestHub) -> None:
    """What was built is removed by a session; what never was is forgotten at once."""
    source = await built(hub)
    other = await do(hub, service.create, "ann", name="other")
    assert await do(hub, service.remove, "ann", other.id) is None
    going = await do(hub, service.remove, "ann", source.id)
    assert (going.state, going.is_wanted) == (State.REMOVING, False)
    assert await do(hub, service.remove, "ann", source.id) == going
    late = await refusal(do(hub, service.change, "ann", source.id, packages=["numpy"]))
    assert late.code == "environment-removing"
    (launch,) = await hub.live()
    (task,) = await says(hub, launch, ready(source))
    assert (task.id, task.is_wanted) == (source.id, False)
    stuck = Report(id=task.id, revision=task.revision, state="failed", error="cannot")
    (task,) = await says(hub, launch, stuck)
    assert (task.state, task.error) == (State.REMOVING, "cannot")
    done = Report(id=task.id, revision=task.revision, state="removed")
    assert await says(hub, launch, done) == []
    assert await now_of(hub) == {}


async def test_what_was_made_by_hand_is_shown_and_left_alone(hub: TestHub) -> None:
    """It comes and goes with what the session finds; nonsense and a flood do not get in."""
    launch = await worked(hub)
    await do(hub, service.create, "ann", name="mine")
    await says(hub, launch, found=["mine", "conda", "../etc", "python3", "x" * 99])
    assert sorted(await now_of(hub)) == ["conda", "mine"]
    conda = (await now_of(hub))["conda"]
    for act, given in (
        (service.change, {"packages": ["numpy"]}),
        (service.change, {"shared": ["lab"]}),
        (service.retry, {}),
        (service.remove, {}),
    ):
        refused = await refusal(do(hub, act, "ann", conda.id, **given))
        assert refused.code == "environment-by-hand"
    await says(hub, launch, ready(conda), found=["conda"])
    assert (await now_of(hub))["conda"] == conda
    await says(hub, launch, found=[f"n{number}" for number in range(1000)])
    assert len(await now_of(hub)) == 1 + MOST
    await says(hub, launch)
    assert sorted(await now_of(hub)) == ["mine"]


async def test_a_session_with_nothing_new_writes_nothing(tmp_path: Path) -> None:
    """Thousands of sessions ask every half minute: they need no lock that another writer has."""
    url = f"sqlite:///{tmp_path}/hub.db"
    given: dict[str, Any] = {"spawner": {"home_storage": "nfs"}, "loops": False}
    async with running_hub(url, tmp_path, with_proxy=False, **given) as hub:
        launch = await hub.start("ann")
        made = await do(hub, service.create, "ann", name="mine")
        await says(hub, launch, ready(made), found=["mine", "conda"])
        with closing(sqlite3.connect(tmp_path / "hub.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with anyio.fail_after(9):  # a write waits ten seconds for the lock, and fails then
                assert await says(hub, launch, found=["conda", "mine"])


async def test_they_are_forgotten_with_their_volume(hub: TestHub) -> None:
    """A deleted volume is no place any more; when it is gone so is what lay on it."""
    launch = await worked(hub, profile="kept")
    name = launch.spec["volumes"][0]["name"]
    made = await do(hub, service.create, "ann", name="mine")
    await says(hub, launch, ready(made))

    def delete(connection: Connection) -> None:
        at = hub.hub.clock.now()
        connection.execute(volumes.update().where(volumes.c.name == name).values(delete_after=at))

    await hub.hub.database.write(delete)
    refused = await refusal(do(hub, service.create, "ann", name="other"))
    assert refused.code == "environment-nowhere"
    assert "mine" in await now_of(hub)
    await hub.hub.database.write(bound(service.forget_volume, name))
    assert await now_of(hub) == {}
