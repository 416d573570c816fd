"""What a spawner is given to start: environment, token and OAuth client of a launch."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, func, insert, select

from perijove.db.core import bound
from perijove.db.tables import oauth_clients, tokens
from perijove.domain.launch import Launch, Resources
from perijove.kit.ids import hash_secret
from perijove.services.access import caller_by_token
from perijove.services.offers import ProfileSection
from perijove.services.specs import (
    issue_server_token,
    resources_of,
    revoke_server_token,
    server_token,
    spec_of,
)
from tests.hubs import TestHub, running_hub

pytestmark = pytest.mark.anyio

PROFILES = [
    ProfileSection.model_validate(
        {
            "name": "small",
            "cpu": 0.5,
            "memory": "2 GiB",
            "time": "1 h",
            "environment": {"OMP_NUM_THREADS": "1"},
        }
    )
]


def asked(database_url: str, directory: Path, **settings: Any) -> Any:
    """Run a hub that starts nothing by itself."""
    return running_hub(
        database_url,
        directory,
        loops=False,
        with_proxy=False,
        profile_sections=PROFILES,
        settings=settings,
    )


async def issue(hub: TestHub, launch: Launch) -> str:
    """Make the launch's token known, as the intent to submit does; returns it."""

    def unit(connection: Connection) -> None:
        issue_server_token(hub.hub, connection, launch)

    await hub.hub.database.write(unit)
    return server_token(hub.hub, launch)


async def test_the_environment_is_the_wires(database_url: str, tmp_path: Path) -> None:
    """A default server below the root, as a stock single-user server reads it."""
    async with asked(database_url, tmp_path) as hub:
        launch = await hub.start("ann")
        spec = spec_of(hub.hub, launch)

    api = "http://127.0.0.1:8081/hub/api"
    access = '["access:servers!server=ann/", "access:servers!user=ann"]'
    assert dict(spec.environment) == {
        "JUPYTERHUB_API_TOKEN": server_token(hub.hub, launch),
        "JUPYTERHUB_CLIENT_ID": "jupyterhub-user-ann",
        "JUPYTERHUB_HOST": "",
        "JUPYTERHUB_OAUTH_CALLBACK_URL": "/user/ann/oauth_callback",
        "JUPYTERHUB_OAUTH_ACCESS_SCOPES": access,
        "JUPYTERHUB_OAUTH_SCOPES": access,
        "JUPYTERHUB_OAUTH_CLIENT_ALLOWED_SCOPES": "[]",
        "JUPYTERHUB_USER": "ann",
        "JUPYTERHUB_SERVER_NAME": "",
        "JUPYTERHUB_API_URL": api,
        "JUPYTERHUB_ACTIVITY_URL": f"{api}/users/ann/activity",
        "JUPYTERHUB_ACTIVITY_INTERVAL": "300",
        "JUPYTERHUB_BASE_URL": "/",
        "JUPYTERHUB_SERVICE_PREFIX": "/user/ann/",
        "JUPYTERHUB_PUBLIC_URL": "",
        "JUPYTERHUB_PUBLIC_HUB_URL": "",
        "JUPYTERHUB_COOKIE_HOST_PREFIX_ENABLED": "0",
        "JUPYTERHUB_DEFAULT_URL": "/lab",
        "MEM_LIMIT": str(2 * 2**30),
        "CPU_LIMIT": "0.5",
        "OMP_NUM_THREADS": "1",
    }
    assert (spec.name, spec.prefix) == (launch.name, "/user/ann/")
    assert resources_of(launch) == Resources(
        cpu=0.5, memory_bytes=2 * 2**30, gpu=0, time_seconds=3600
    )


async def test_names_are_quoted_where_they_are_part_of_an_address(
    database_url: str, tmp_path: Path
) -> None:
    """Raw where a program reads a name, percent-encoded where a browser does."""
    async with asked(
        database_url, tmp_path, base_path="/jupyter/", url="https://hub.example.org/jupyter/"
    ) as hub:
        launch = await hub.start("é@example.org", "gpu-1")
        environment = spec_of(hub.hub, launch).environment

    prefix = "/jupyter/user/%C3%A9@example.org/gpu-1/"
    assert environment["JUPYTERHUB_SERVICE_PREFIX"] == prefix
    assert environment["JUPYTERHUB_OAUTH_CALLBACK_URL"] == f"{prefix}oauth_callback"
    assert environment["JUPYTERHUB_PUBLIC_URL"] == f"https://hub.example.org{prefix}"
    assert environment["JUPYTERHUB_PUBLIC_HUB_URL"] == "https://hub.example.org/jupyter/hub/"
    assert environment["JUPYTERHUB_CLIENT_ID"] == "jupyterhub-user-%C3%A9%40example.org-gpu-1"
    assert environment["JUPYTERHUB_USER"] == "é@example.org"
    assert json.loads(environment["JUPYTERHUB_OAUTH_ACCESS_SCOPES"]) == [
        "access:servers!server=é@example.org/gpu-1",
        "access:servers!user=é@example.org",
    ]


async def test_a_spec_can_be_logged(database_url: str, tmp_path: Path) -> None:
    """Its text holds no token."""
    async with asked(database_url, tmp_path) as hub:
        launch = await hub.start("ann")
        assert server_token(hub.hub, launch) not in repr(spec_of(hub.hub, launch))


async def test_a_server_token_is_its_users_and_dies_with_the_launch(
    database_url: str, tmp_path: Path
) -> None:
    """It is good from the intent to submit until the removal begins, and stored as a hash."""
    async with asked(database_url, tmp_path) as hub:
        launch = await hub.start("ann")
        now = hub.hub.clock.now()
        value = server_token(hub.hub, launch)
        who = bound(caller_by_token, value, now)
        assert await hub.hub.database.read(who) is None

        assert await issue(hub, launch) == value
        caller = await hub.hub.database.read(who)
        assert caller is not None
        assert (caller.name, caller.launch_id) == ("ann", launch.id)
        stored = await hub.hub.database.read(lambda c: c.scalar(select(tokens.c.hash)))
        assert stored == hash_secret(value)

        await hub.hub.database.write(bound(revoke_server_token, launch))
        assert await hub.hub.database.read(who) is None


async def test_what_was_issued_through_a_server_dies_with_it(
    database_url: str, tmp_path: Path
) -> None:
    """Visitors' tokens of a launch are of no use for the next one."""
    async with asked(database_url, tmp_path) as hub:
        launch = await hub.start("ann")
        await issue(hub, launch)
        visitor = await hub.user("bob")

        def visit(connection: Connection) -> None:
            connection.execute(
                insert(tokens).values(
                    hash="h",
                    scheme="random",
                    user_id=visitor,
                    scopes=["access:servers!server=ann/"],
                    created_at=hub.hub.clock.now(),
                    client_id="jupyterhub-user-ann",
                )
            )

        def left(connection: Connection) -> list[int | None]:
            return [
                connection.scalar(select(func.count()).select_from(table))
                for table in (tokens, oauth_clients)
            ]

        await hub.hub.database.write(visit)
        assert await hub.hub.database.read(left) == [2, 1]
        await hub.hub.database.write(bound(revoke_server_token, launch))

        assert await hub.hub.database.read(left) == [0, 0]


async def test_each_launch_has_a_token_of_its_own(database_url: str, tmp_path: Path) -> None:
    """A stopped server's secret does not open the next one."""
    async with asked(database_url, tmp_path) as hub:
        first = await hub.start("ann")
        await hub.stop("ann")
        second = await hub.start("ann")

        assert server_token(hub.hub, first) != server_token(hub.hub, second)
