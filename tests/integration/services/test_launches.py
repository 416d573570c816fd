"""Asking for launches: what is written, what is refused, and what fifty at once get."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import Connection, func, select

from perijove.db.core import bound
from perijove.db.servers import find_server
from perijove.db.tables import launches, servers
from perijove.domain.errors import HubError, Invalid, NotFound, Refused
from perijove.domain.launch import Cause, End, Status, Wanted
from perijove.services.launches import mark_end, place_in_line, request_restart, wait_for
from perijove.services.offers import PolicySection, ProfileSection
from tests.hubs import TEST, TestHub, running_hub

pytestmark = pytest.mark.anyio

AT_ONCE = 50
LIMIT = 5
PROFILES = [ProfileSection(name="small"), ProfileSection(name="large")]


@asynccontextmanager
async def asked(database_url: str, directory: Path, **options: Any) -> AsyncIterator[TestHub]:
    """Run a hub that writes what is wanted, and does nothing about it."""
    async with running_hub(
        database_url,
        directory,
        loops=False,
        with_proxy=False,
        profile_sections=PROFILES,
        **options,
    ) as hub:
        yield hub


async def outcomes(hub: TestHub, starts: list[tuple[str, str]]) -> Counter[str]:
    """Ask for servers at the same moment; returns how often each answer was given."""
    found: Counter[str] = Counter()

    async def one(user: str, server: str) -> None:
        try:
            launch = await hub.start(user, server)
        except HubError as error:
            found[error.code] += 1
        else:
            found[launch.id] += 1

    for user in {user for user, _server in starts}:
        await hub.user(user)
    async with anyio.create_task_group() as tasks:
        for user, server in starts:
            tasks.start_soon(one, user, server)
    return found


@pytest.mark.parametrize("rule", ["active_servers", "group_active_servers", "total_active_servers"])
async def test_fifty_at_once_against_a_limit_of_five(
    database_url: str, tmp_path: Path, rule: str
) -> None:
    """Exactly five are admitted, whoever they are of, and the others are told the rule."""
    policies = [PolicySection.model_validate({rule: LIMIT, "named_servers": "unlimited"})]
    if rule == "active_servers":
        starts = [("ann", f"s{number}") for number in range(AT_ONCE)]
    else:
        starts = [(f"user{number}", "") for number in range(AT_ONCE)]
    async with asked(database_url, tmp_path, policies=policies) as hub:
        found = await outcomes(hub, starts)

        refused = {code: times for code, times in found.items() if code.startswith("refused-")}
        assert sum(refused.values()) == AT_ONCE - LIMIT
        assert len(found) - len(refused) == LIMIT
        assert len(await hub.live()) == LIMIT


async def test_one_server_asked_for_at_once_is_one_launch(
    database_url: str, tmp_path: Path
) -> None:
    """Everyone who asks gets the same."""
    async with asked(database_url, tmp_path) as hub:
        found = await outcomes(hub, [("ann", "")] * 20)

        assert list(found.values()) == [20]


async def test_a_start_is_written_whole(database_url: str, tmp_path: Path) -> None:
    """The launch with its frozen choice, the server that points to it, and the event."""
    async with asked(database_url, tmp_path) as hub:
        launch = await hub.start("ann", "lab-1", profile="large")

        assert (launch.status, launch.wanted) == (Status.REQUESTED, Wanted.RUN)
        assert launch.spec["profile"]["name"] == "large"
        assert launch.name.startswith(f"pj-{hub.hub.installation}-")
        read = bound(find_server, await hub.user("ann"), "lab-1")
        server = await hub.hub.database.read(read)
        assert server is not None
        assert server.launch_id == launch.id
        (event,) = await hub.events(launch.id)
        assert (event.code, event.actor) == ("requested", "test")


async def test_the_last_choice_is_remembered(database_url: str, tmp_path: Path) -> None:
    """Who does not say what to start gets what the server was last."""
    async with asked(database_url, tmp_path) as hub:
        await hub.start("ann", profile="large")
        await hub.stop("ann")
        again = await hub.start("ann")

        assert again.spec["profile"]["name"] == "large"
        assert again.generation == 2


async def test_a_refused_start_changes_nothing(database_url: str, tmp_path: Path) -> None:
    """Neither a server nor a launch is left of it."""
    policies = [PolicySection(named_servers=0)]
    async with asked(database_url, tmp_path, policies=policies) as hub:
        with pytest.raises(Refused):
            await hub.start("ann", "lab-1")
        with pytest.raises(Invalid, match="zork"):
            await hub.start("ann", profile="zork")

        assert await hub.hub.database.read(count_rows) == [0, 0]


def count_rows(connection: Connection) -> list[int | None]:
    """Count all servers and launches there ever were."""
    return [
        connection.scalar(select(func.count()).select_from(table)) for table in (servers, launches)
    ]


async def test_the_first_cause_stands(database_url: str, tmp_path: Path) -> None:
    """A second stop, for whatever reason, changes neither the cause nor the history."""
    async with asked(database_url, tmp_path) as hub:
        launch = await hub.start("ann")
        await hub.stop("ann", cause=Cause.ADMIN)
        await hub.stop("ann")

        assert (await hub.launch(launch.id)).end == End(cause=Cause.ADMIN)
        codes = [event.code for event in await hub.events(launch.id)]
        assert codes == ["requested", "end-wanted"]


async def test_a_stop_of_nothing_is_no_error(database_url: str, tmp_path: Path) -> None:
    """The default server is always there; a named one that is not is not found."""
    async with asked(database_url, tmp_path) as hub:
        assert await hub.stop("ann") is None
        with pytest.raises(NotFound):
            await hub.stop("ann", "lab-1")


async def test_a_server_can_be_removed_in_any_state(database_url: str, tmp_path: Path) -> None:
    """At once where nothing runs, later where something does; and a new start keeps it."""

    def removed(connection: Connection) -> list[bool]:
        return list(connection.scalars(select(servers.c.remove)))

    async with asked(database_url, tmp_path) as hub:
        await hub.start("ann", "lab-1")
        await hub.stop("ann", "lab-1", remove=True)
        assert await hub.hub.database.read(removed) == [True]

        await hub.start("ann", "lab-1")
        assert await hub.hub.database.read(removed) == [False]


async def test_a_restart_follows_the_first(database_url: str, tmp_path: Path) -> None:
    """The old one is to end, the new one waits for it, both in one step."""
    async with asked(database_url, tmp_path) as hub:
        old = await hub.start("ann")
        user_id = await hub.user("ann")
        new = await request_restart(
            hub.hub, user_id=user_id, server_name="", profile="large", asking=TEST
        )

        assert (new.after, new.generation) == (old.id, 2)
        assert (await hub.launch(old.id)).wanted is Wanted.END
        assert await hub.hub.database.read(bound(place_in_line, new)) is None


async def test_a_refused_restart_lets_the_first_go_on(database_url: str, tmp_path: Path) -> None:
    """A choice that is not allowed ends nobody's work."""
    async with asked(database_url, tmp_path) as hub:
        old = await hub.start("ann")
        user_id = await hub.user("ann")
        with pytest.raises(Invalid, match="zork"):
            await request_restart(
                hub.hub, user_id=user_id, server_name="", profile="zork", asking=TEST
            )

        assert await hub.launch(old.id) == old


async def test_the_place_in_line_counts_from_one(database_url: str, tmp_path: Path) -> None:
    """Who waits is told how many are before."""
    async with asked(database_url, tmp_path) as hub:
        line = [await hub.start(name) for name in ("ann", "bob", "cyd")]
        places = [await hub.hub.database.read(bound(place_in_line, launch)) for launch in line]

        assert places == [(1, 3), (2, 3), (3, 3)]


async def test_who_waits_is_woken_by_the_change(database_url: str, tmp_path: Path) -> None:
    """The answer comes with the change, or as it is when the time is over."""
    async with asked(database_url, tmp_path) as hub:
        launch = await hub.start("ann")
        as_it_is = await wait_for(
            hub.hub, launch.id, until=lambda now: now.wanted is Wanted.END, seconds=0.05
        )
        assert as_it_is == launch

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(hub.stop, "ann")
                changed = await wait_for(
                    hub.hub, launch.id, until=lambda now: now.wanted is Wanted.END, seconds=3600
                )
        assert changed.wanted is Wanted.END


async def test_nobody_starts_for_who_is_not_there(database_url: str, tmp_path: Path) -> None:
    """A user who was removed meanwhile is not found."""
    async with asked(database_url, tmp_path) as hub:
        hub.users["ghost"] = 10**6
        with pytest.raises(NotFound):
            await hub.start("ghost")


async def test_the_first_cause_stands_though_another_hub_wrote_it(
    database_url: str, tmp_path: Path
) -> None:
    """What is seen of a launch that was ended meanwhile does not take the cause's place."""
    async with asked(database_url, tmp_path) as hub:
        seen = await hub.start()
        await hub.stop()

        late = End(cause=Cause.EXITED, code=1)
        unit = bound(mark_end, seen, late, asking=TEST, now=hub.hub.clock.now())
        told = await hub.hub.database.write(unit)

        assert told.end == (await hub.launch(seen.id)).end == End(cause=Cause.USER)
        codes = [event.code for event in await hub.events(seen.id)]
        assert codes.count("end-wanted") == 1
