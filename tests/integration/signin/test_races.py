"""Signing in when many do it at once, on both databases."""

from collections import Counter
from collections.abc import Awaitable, Callable
from threading import Thread
from time import sleep

import anyio
import pytest
from sqlalchemy import event, select

from perijove.auth.contract import Credentials
from perijove.db import schema
from perijove.db.core import bound, sync_engine
from perijove.db.tables import identities, sessions, signin_failures, users
from perijove.domain.errors import HubError
from perijove.kit.clock import monotonic
from perijove.services.hub import Hub
from perijove.services.signin import make_signin_link, redeem_link, set_password, sign_in
from perijove.services.throttle import attempt_of, count_attempt, forgive
from tests.crossing import is_waited_for
from tests.doors import HERE, NOON, count, make_user, signin_hub
from tests.hubs import PATIENCE

pytestmark = pytest.mark.anyio

RIGHT = "correct horse battery"


async def together(times: int, work: Callable[[], Awaitable[object]]) -> Counter[str]:
    """Do something many times at once; returns how often each outcome came."""
    outcomes: Counter[str] = Counter()

    async def once() -> None:
        try:
            await work()
            outcomes["done"] += 1
        except HubError as error:
            outcomes[error.code] += 1

    async with anyio.create_task_group() as tasks:
        for _ in range(times):
            tasks.start_soon(once)
    return outcomes


async def come(hub: Hub, name: str, password: str) -> None:
    """Sign in."""
    await sign_in(hub, Credentials(username=name, password=password), HERE)


async def test_burst_of_guesses_is_counted_one_by_one(database_url: str) -> None:
    """Of thirty guesses at once five are looked at."""
    async with signin_hub(database_url) as hub:
        await make_user(hub, "ann")
        await set_password(hub, "ann", RIGHT, actor="admin")
        outcomes = await together(30, lambda: come(hub, "ann", "wrong"))
        assert outcomes == {"signin": 5, "signin-throttled": 25}


async def test_first_sign_ins_of_one_person_make_one_account(database_url: str) -> None:
    """A double click on the first day makes one user and one identity."""
    async with signin_hub(database_url, doors=("demo",)) as hub:
        before = await count(hub, users)
        outcomes = await together(4, lambda: come(hub, "ann", "ann"))
        assert outcomes == {"done": 4}
        assert await count(hub, users) == before + 1
        assert await count(hub, identities) == 1
        assert await count(hub, sessions) == 4


async def test_two_doors_at_once_do_not_share_a_name(database_url: str) -> None:
    """Of two authenticators that know an ann, one gets the name and the other is refused."""
    async with signin_hub(database_url, doors=("demo", "other")) as hub:

        async def enter(door: str) -> None:
            credentials = Credentials(username="ann", password="ann")
            await sign_in(hub, credentials, HERE, authenticator=door)

        doors = iter(["demo", "other"])
        outcomes = await together(2, lambda: enter(next(doors)))
        assert outcomes == {"done": 1, "signin-name-taken": 1}
        assert await count(hub, identities) == 1


def test_who_is_counted_while_another_is_forgiven_is_counted(postgresql_url: str) -> None:
    """A success of the same person takes away what a second hub has just begun to read."""
    schema.ensure(postgresql_url)
    attempt = attempt_of("ann", HERE.address)
    counting = bound(count_attempt, attempt, name="ann", address=HERE.address, now=NOON)
    engine, beside = sync_engine(postgresql_url), sync_engine(postgresql_url)
    forgiving: list[Thread] = []

    def succeed() -> None:
        with beside.begin() as connection:
            forgive(connection, attempt)

    def before(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if forgiving or not statement.startswith("SELECT signin_failures"):
            return
        forgiving.append(Thread(target=succeed))
        forgiving[0].start()
        deadline = monotonic() + PATIENCE
        while forgiving[0].is_alive() and not is_waited_for(beside):
            assert monotonic() < deadline
            sleep(0.01)

    with engine.begin() as connection:
        counting(connection)
    event.listen(engine, "before_cursor_execute", before)
    with engine.begin() as connection:
        counting(connection)
    forgiving[0].join(PATIENCE)
    with engine.connect() as connection:
        left = connection.execute(select(signin_failures.c.failures)).scalars().all()
    assert left == [1]  # The address had two, and one of them was no failure.


async def test_link_opens_one_session(database_url: str) -> None:
    """However many open it at the same moment."""
    async with signin_hub(database_url) as hub:
        await make_user(hub, "ann")
        secret = (await make_signin_link(hub, "ann")).partition("link=")[2]
        outcomes = await together(10, lambda: redeem_link(hub, secret, HERE))
        assert outcomes == {"done": 1, "link-used": 9}
        assert await count(hub, sessions) == 1
