"""What every spawner promises (`perijove/spawners/contract.py`), on every platform."""

import anyio
import pytest

from perijove.domain.launch import Cause
from perijove.spawners.contract import Handle, LaunchSpec, Phase, Sighting, Spawner
from tests.contract.spawners.conftest import DOCKER, KUBERNETES, SYSTEM
from tests.contract.spawners.docker_site import DockerSite
from tests.contract.spawners.kubernetes_site import KubernetesSite
from tests.contract.spawners.sites import (
    NAME,
    LocalSite,
    MemorySite,
    Site,
    SystemSite,
    answers,
    find,
    make_spec,
    phase,
    recorded,
)

pytestmark = pytest.mark.anyio


class Crash(Exception):
    """Stands for the end of the hub."""


async def crash(handle: Handle) -> None:
    """Be a checkpoint at which the hub ends."""
    raise Crash


async def test_start_runs_where_it_says(spawner: Spawner) -> None:
    """What was started runs, and answers at the address that a survey gives."""
    await spawner.start(make_spec(), recorded)

    sighting = await phase(spawner, NAME, Phase.RUNNING)

    await answers(sighting)


async def test_start_again_finds_the_first(spawner: Spawner) -> None:
    """A second start of one name finds the first one's work."""
    await spawner.start(make_spec(), recorded)
    first = await phase(spawner, NAME, Phase.RUNNING)

    again = await spawner.start(make_spec(), recorded)

    assert (again.phase, again.url) == (Phase.RUNNING, first.url)
    assert await phase(spawner, NAME, Phase.RUNNING) == first


async def test_starts_at_the_same_time_are_one(site: Site) -> None:
    """Starts of one name, at the same time and by several hubs, end in one server."""
    seen: list[Sighting] = []

    async def start(spawner: Spawner) -> None:
        seen.append(await spawner.start(make_spec(), recorded))

    async with site.spawner() as one, site.spawner() as other:
        async with anyio.create_task_group() as tasks:
            for spawner in (one, other, one, other):
                tasks.start_soon(start, spawner)
        running = await phase(one, NAME, Phase.RUNNING)

    assert {sighting.url for sighting in seen} <= {"", running.url}


async def test_checkpoint_gets_the_handle_that_surveys_show(spawner: Spawner) -> None:
    """The handle that was recorded is the one by which the launch is seen later."""
    seen: list[Handle] = []

    async def note(handle: Handle) -> None:
        seen.append(handle)

    await spawner.start(make_spec(), note)
    sighting = await phase(spawner, NAME, Phase.RUNNING)

    assert seen == [sighting.handle]


async def test_crash_at_the_checkpoint_leaks_nothing(spawner: Spawner) -> None:
    """What the checkpoint saw is enough to remove whatever was created."""
    seen: list[Handle] = []

    async def note_and_crash(handle: Handle) -> None:
        seen.append(handle)
        raise Crash

    with pytest.raises(Crash):
        await spawner.start(make_spec(), note_and_crash)
    await spawner.stop(NAME, seen[0], grace=1)

    assert await find(spawner, NAME) is None


async def test_start_after_a_crash_finishes_the_first(site: Site) -> None:
    """A start that broke off is finished by the next one, and there is one server."""
    async with site.spawner() as spawner:
        with pytest.raises(Crash):
            await spawner.start(make_spec(), crash)

    async with site.spawner() as spawner:
        await spawner.start(make_spec(), recorded)
        await answers(await phase(spawner, NAME, Phase.RUNNING))


async def test_what_was_taken_is_kept(site: Site) -> None:
    """What a survey shows after a crash gets to run, although nobody calls start again."""
    async with site.spawner() as spawner:
        with pytest.raises(Crash):
            await spawner.start(make_spec(), crash)

    async with site.spawner() as spawner:
        await answers(await phase(spawner, NAME, Phase.RUNNING))


async def test_stop_removes_it_with_evidence(spawner: Spawner) -> None:
    """Stopping returns how it ended, and then nothing carries the name."""
    await spawner.start(make_spec(), recorded)
    running = await phase(spawner, NAME, Phase.RUNNING)

    gone = await spawner.stop(NAME, running.handle, grace=5)

    assert gone is not None
    assert (gone.name, gone.phase) == (NAME, Phase.GONE)
    assert gone.end is not None
    assert await find(spawner, NAME) is None


async def test_stop_without_handle_is_enough(spawner: Spawner) -> None:
    """The name alone is enough to stop: a handle may never have been recorded."""
    await spawner.start(make_spec(), recorded)

    assert await spawner.stop(NAME, None, grace=5) is not None
    assert await find(spawner, NAME) is None


async def test_stop_again_does_nothing(spawner: Spawner) -> None:
    """Stopping what was stopped is quiet: nothing carries the name any more."""
    await spawner.start(make_spec(), recorded)
    await spawner.stop(NAME, None, grace=5)

    assert await spawner.stop(NAME, None, grace=5) is None


async def test_stops_at_the_same_time_agree(spawner: Spawner) -> None:
    """Two stops at once remove it once, and neither fails."""
    await spawner.start(make_spec(), recorded)
    await phase(spawner, NAME, Phase.RUNNING)
    seen: list[Sighting | None] = []

    async def stop() -> None:
        seen.append(await spawner.stop(NAME, None, grace=5))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stop)
        tasks.start_soon(stop)

    assert len({one.end for one in seen if one is not None}) == 1
    assert await find(spawner, NAME) is None


async def test_stop_of_an_unknown_name_is_quiet(spawner: Spawner) -> None:
    """Nothing carries a name that was never started."""
    assert await spawner.stop(f"{NAME}-never", None, grace=5) is None


async def test_start_after_stop_starts_nothing(spawner: Spawner) -> None:
    """What ended is never started again: its end is returned."""
    await spawner.start(make_spec(), recorded)
    gone = await spawner.stop(NAME, None, grace=5)

    late = await spawner.start(make_spec(), recorded)

    assert gone is not None
    assert (late.phase, late.end) == (Phase.GONE, gone.end)
    assert await find(spawner, NAME) is None


async def test_start_that_comes_after_its_stop_starts_nothing(spawner: Spawner) -> None:
    """A name that was stopped before anything carried it never starts."""
    await spawner.stop(NAME, None, grace=5)

    late = await spawner.start(make_spec(), recorded)

    assert late.phase is Phase.GONE
    assert late.end is not None
    assert late.end.cause is Cause.NEVER_STARTED
    assert await find(spawner, NAME) is None


async def test_stop_while_it_starts_wins(site: Site) -> None:
    """A start that is overtaken by a stop, of another hub, starts nothing."""
    async with site.spawner() as starting, site.spawner() as stopping:

        async def overtake(handle: Handle) -> None:
            await stopping.stop(NAME, handle, grace=5)

        late = await starting.start(make_spec(), overtake)

        assert late.phase is Phase.GONE
        assert await find(stopping, NAME) is None


async def test_survey_shows_all_of_ours(spawner: Spawner) -> None:
    """One survey shows everything that was started and not stopped, and says it is complete."""
    names = {f"{NAME}-{number}" for number in range(5)}
    for name in sorted(names):
        await spawner.start(make_spec(name), recorded)
    await spawner.stop(f"{NAME}-3", None, grace=5)

    survey = await spawner.survey()

    assert survey.complete
    assert {one.name for one in survey.sightings} == names - {f"{NAME}-3"}


async def test_survey_of_nothing_is_complete(spawner: Spawner) -> None:
    """An empty platform is an answer."""
    survey = await spawner.survey()

    assert (survey.complete, list(survey.sightings)) == (True, [])


async def test_installations_do_not_meet(site: Site) -> None:
    """Two hubs on one platform neither see nor stop what the other one started."""
    async with site.spawner("inst") as ours, site.spawner("other") as theirs:
        await ours.start(make_spec(), recorded)

        assert await find(theirs, NAME) is None
        assert await theirs.stop(NAME, None, grace=0) is None
        await answers(await phase(ours, NAME, Phase.RUNNING))


async def test_what_runs_outlives_its_hub(site: Site) -> None:
    """A hub that starts anew sees what the one before it started, unchanged."""
    async with site.spawner() as before:
        await before.start(make_spec(), recorded)
        running = await phase(before, NAME, Phase.RUNNING)

    async with site.spawner() as after:
        assert await phase(after, NAME, Phase.RUNNING) == running
        await answers(running)


@pytest.mark.parametrize(
    "user", ["A/b", "..", "", "ünï 🐍", "x" * 300, "'; rm -rf ~ #", "a\nb", "-rf", "%41"]
)
async def test_any_user_name_will_do(spawner: Spawner, user: str) -> None:
    """What people are called is no business of the platform."""
    await spawner.start(make_spec(user_name=user), recorded)

    await answers(await phase(spawner, NAME, Phase.RUNNING))


Mortal = LocalSite | MemorySite | SystemSite | DockerSite | KubernetesSite


@pytest.fixture(params=["local_site", "memory_site", SYSTEM, DOCKER, KUBERNETES])
def mortal(request: pytest.FixtureRequest) -> Mortal:
    """Give each platform on which a server can end by itself."""
    found: Mortal = request.getfixturevalue(request.param)
    return found


async def test_end_is_seen_with_its_evidence(mortal: Mortal) -> None:
    """A server that was killed is gone, with the signal, for every hub until it is removed."""
    async with mortal.spawner() as spawner:
        await spawner.start(make_spec(), recorded)
        end = await mortal.kill(await phase(spawner, NAME, Phase.RUNNING))
        gone = await phase(spawner, NAME, Phase.GONE)
    async with mortal.spawner() as after:
        again = await phase(after, NAME, Phase.GONE)
        removed = await after.stop(NAME, None, grace=5)
        left = await find(after, NAME)

    assert [one.end if one else None for one in (gone, again, removed)] == [end] * 3
    assert left is None


async def test_what_ended_is_not_started_again(mortal: Mortal) -> None:
    """Starting what has ended returns its end and starts nothing."""
    async with mortal.spawner() as spawner:
        await spawner.start(make_spec(), recorded)
        end = await mortal.kill(await phase(spawner, NAME, Phase.RUNNING))
        await phase(spawner, NAME, Phase.GONE)

        again = await spawner.start(make_spec(), recorded)

        assert (again.phase, again.end) == (Phase.GONE, end)


def test_spec_does_not_show_the_token() -> None:
    """What is logged of a launch's order does not hold its secrets."""
    spec: LaunchSpec = make_spec()

    assert "JUPYTERHUB_API_TOKEN" not in repr(spec)
