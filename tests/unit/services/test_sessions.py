"""Sign-ins as rows: opened, seen, listed, closed, expired."""

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert, select

from perijove.db.core import bound
from perijove.db.tables import sessions, tokens
from perijove.domain.errors import NotFound
from perijove.kit.ids import hash_secret
from perijove.services.hub import Hub
from perijove.services.sessions import (
    Session,
    close_session,
    close_sessions,
    find_session,
    list_sessions,
    touch_session,
)
from tests.doors import HERE, NOON, SetClock, make_user, open_for, signin_hub

pytestmark = pytest.mark.anyio


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Give the URL of an empty database."""
    return f"sqlite:///{tmp_path / 'hub.sqlite'}"


async def find(hub: Hub, cookie: str) -> Session | None:
    """Return the session of a cookie."""
    return await hub.database.read(bound(find_session, cookie, hub.clock.now()))


async def add_token(hub: Hub, user_id: int, session_id: str | None, value: str) -> None:
    """Insert a token that was issued in a session, or in none."""
    row = insert(tokens).values(
        hash=hash_secret(value),
        scheme="random",
        user_id=user_id,
        scopes=["inherit"],
        created_at=NOON,
        session_id=session_id,
    )
    await hub.database.write(lambda connection: connection.execute(row).rowcount)


async def test_session_is_found_by_its_cookie_and_stored_hashed(url: str) -> None:
    """The row knows who and where; the cookie itself is nowhere in it."""
    async with signin_hub(url) as hub:
        opened = await open_for(hub, "ann")
        session = await find(hub, opened.cookie)
        assert session is not None
        assert (session.user_name, session.session_id) == ("ann", opened.session_id)
        assert (session.address, session.device) == (HERE.address, HERE.device)
        assert opened.expires_at == NOON + timedelta(days=14)
        row = await hub.database.read(
            lambda connection: tuple(connection.execute(select(sessions)).one())
        )
        assert opened.cookie not in map(str, row)
        assert opened.cookie not in repr(opened)


async def test_sessions_are_never_alike(url: str) -> None:
    """Every sign-in has a cookie of 256 random bits and an id of 32 digits of its own."""
    async with signin_hub(url) as hub:
        one, two = await open_for(hub, "ann"), await open_for(hub, "ann")
        assert one.cookie != two.cookie
        assert one.session_id != two.session_id
        assert (len(one.cookie), len(one.session_id)) == (43, 32)


async def test_session_ends_at_its_time(url: str) -> None:
    """A moment before its end it is good, at its end no more."""
    clock = SetClock()
    async with signin_hub(url, clock=clock) as hub:
        opened = await open_for(hub, "ann")
        clock.move(days=14, seconds=-1)
        assert await find(hub, opened.cookie)
        clock.move(seconds=1)
        assert await find(hub, opened.cookie) is None


async def test_session_of_a_blocked_user_is_none(url: str) -> None:
    """Blocking works at the next request."""
    async with signin_hub(url) as hub:
        opened = await open_for(hub, "ann")
        await make_user(hub, "ann", blocked=True)
        assert await find(hub, opened.cookie) is None


async def test_last_seen_is_written_every_five_minutes_at_most(url: str) -> None:
    """A session is due to be touched only when its row is five minutes old."""
    clock = SetClock()
    async with signin_hub(url, clock=clock) as hub:
        opened = await open_for(hub, "ann")
        clock.move(minutes=4, seconds=59)
        session = await find(hub, opened.cookie)
        assert session is not None
        assert session.is_seen(clock.now())
        clock.move(seconds=1)
        assert not session.is_seen(clock.now())
        await hub.database.write(bound(touch_session, session, clock.now()))
        touched = await find(hub, opened.cookie)
        assert touched is not None
        assert touched.last_seen_at == clock.now()


async def test_late_touch_does_not_turn_the_time_back(url: str) -> None:
    """Of two touches the later instant stays."""
    async with signin_hub(url) as hub:
        opened = await open_for(hub, "ann")
        session = await find(hub, opened.cookie)
        assert session is not None
        for minutes in (20, 10):
            at = NOON + timedelta(minutes=minutes)
            await hub.database.write(bound(touch_session, session, at))
        touched = await find(hub, opened.cookie)
        assert touched is not None
        assert touched.last_seen_at == NOON + timedelta(minutes=20)


async def test_list_shows_ones_own_live_sessions_last_used_first(url: str) -> None:
    """Not other people's, and not those that are over."""
    clock = SetClock()
    async with signin_hub(url, clock=clock) as hub:
        await open_for(hub, "ann")
        clock.move(days=13)
        two, three = await open_for(hub, "ann"), await open_for(hub, "ann")
        await open_for(hub, "bob")
        clock.move(days=2)
        found = await hub.database.read(bound(list_sessions, two.user_id, clock.now()))
        assert [session.session_id for session in found] == [three.session_id, two.session_id]


async def test_closing_a_session_takes_what_was_issued_in_it(url: str) -> None:
    """Tokens and codes of the session go; those of another session and plain tokens stay."""
    async with signin_hub(url) as hub:
        one, two = await open_for(hub, "ann"), await open_for(hub, "ann")
        for number, session_id in enumerate((one.session_id, two.session_id, None)):
            await add_token(hub, one.user_id, session_id, f"token-{number}")
        session = await find(hub, one.cookie)
        assert session is not None
        closing = bound(close_session, user_id=one.user_id, id_=session.id)
        await hub.database.write(closing)
        assert await find(hub, one.cookie) is None
        assert await find(hub, two.cookie)
        left = await hub.database.read(
            lambda connection: set(connection.scalars(select(tokens.c.hash)))
        )
        assert left == {hash_secret("token-1"), hash_secret("token-2")}


async def test_closing_all_but_this_one(url: str) -> None:
    """All of one's own others go, nobody else's."""
    async with signin_hub(url) as hub:
        mine = [await open_for(hub, "ann") for _ in range(3)]
        theirs = await open_for(hub, "bob")
        work = bound(close_sessions, user_id=mine[0].user_id, but=mine[0].session_id)
        assert await hub.database.write(work) == 2
        assert await find(hub, mine[0].cookie)
        assert await find(hub, theirs.cookie)
        assert await hub.database.write(bound(close_sessions, user_id=mine[0].user_id)) == 1


async def test_somebody_elses_session_is_not_found(url: str) -> None:
    """An id that is not one's own is as absent as one that never was."""
    async with signin_hub(url) as hub:
        mine, theirs = await open_for(hub, "ann"), await open_for(hub, "bob")
        session = await find(hub, theirs.cookie)
        assert session is not None
        for id_ in (session.id, 99):
            with pytest.raises(NotFound):
                await hub.database.write(bound(close_session, user_id=mine.user_id, id_=id_))
        assert await find(hub, theirs.cookie)
