"""A start that another hub has written and not committed yet, and what must not go around it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection

from perijove.db.core import bound
from perijove.db.launches import change, get_launch, insert_launch
from perijove.db.locks import hold_user
from perijove.db.servers import change_server, ensure_server, find_server, remove_if_asked
from perijove.domain.errors import Invalid
from perijove.domain.launch import Kind, Launch, Status, Wanted
from perijove.kit.ids import new_id, platform_name
from perijove.services.hub import Hub
from perijove.services.offers import PolicySection
from perijove.services.servers import Description, change_description
from perijove.services.users import change_user, delete_user, get_user
from tests.crossing import during
from tests.hubs import running_hub

pytestmark = [pytest.mark.anyio, pytest.mark.needs("postgresql")]


def _rename(connection: Connection) -> object:
    return change_user(connection, "ann", new_name="anna", admin=None)


def _delete(connection: Connection) -> None:
    delete_user(connection, "ann")


def _describe(connection: Connection, hub: Hub) -> object:
    user = get_user(connection, "ann")
    now = hub.clock.now()
    return change_description(connection, user, "", Description(name="other"), now=now)


def _start(connection: Connection, hub: Hub, user_id: int) -> None:
    hold_user(connection, user_id)
    now = hub.clock.now()
    server = ensure_server(connection, user_id, "", now=now)
    launch = Launch(
        id=new_id("lch"),
        kind=Kind.SERVER,
        wanted=Wanted.RUN,
        status=Status.REQUESTED,
        name=platform_name(hub.installation),
        spawner="memory",
        user_id=user_id,
        user_name="ann",
        server_id=server.id,
        server_name="",
        generation=1,
        spec={},
        requested_at=now,
    )
    insert_launch(connection, launch)
    change_server(connection, server.id, launch_id=launch.id)


@pytest.mark.parametrize(
    "act",
    [lambda _hub: _rename, lambda _hub: _delete, lambda hub: bound(_describe, hub=hub)],
    ids=["rename-user", "delete-user", "rename-server"],
)
async def test_nothing_is_taken_from_under_a_start(
    postgresql_url: str, tmp_path: Path, act: Callable[[Hub], Callable[[Connection], object]]
) -> None:
    """Users and servers are renamed and deleted only when nothing of them runs, also not just."""
    async with running_hub(postgresql_url, tmp_path, loops=False, with_proxy=False) as hub:
        user_id = await hub.user("ann")

        start = bound(_start, hub.hub, user_id)

        with pytest.raises(Invalid) as refused:
            await during(postgresql_url, start, lambda: hub.hub.database.write(act(hub.hub)))

        assert refused.value.code == "server-active"
        (launch,) = await hub.live()
        assert (launch.user_name, launch.user_id) == ("ann", user_id)


async def test_a_server_is_removed_also_when_it_ends_meanwhile(
    postgresql_url: str, tmp_path: Path
) -> None:
    """A removal asked for while another hub writes the end is not forgotten between the two."""
    policies = [PolicySection(named_servers=1)]
    async with running_hub(
        postgresql_url, tmp_path, loops=False, with_proxy=False, policies=policies
    ) as hub:
        launch = await hub.start(server="work")
        await hub.stop(server="work")

        def end(connection: Connection) -> None:
            current = get_launch(connection, launch.id)
            now = hub.hub.clock.now()
            change(connection, current, now=now, status=Status.ENDED, due_at=None)
            assert current.server_id is not None
            remove_if_asked(connection, current.server_id)

        left = await during(postgresql_url, end, lambda: hub.stop(server="work", remove=True))

        assert left is None
        user_id = await hub.user()
        assert await hub.hub.database.read(bound(find_server, user_id, "work")) is None
