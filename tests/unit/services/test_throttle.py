"""Slowing down whoever guesses, without keeping anybody out."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.db.core import bound
from perijove.db.tables import signin_failures
from perijove.domain.errors import Throttled
from perijove.services.hub import Hub
from perijove.services.sessions import Visitor
from perijove.services.throttle import (
    CAP_SECONDS,
    FREE,
    attempt_of,
    count_attempt,
    discount,
    forgive,
)
from tests.doors import SetClock, count, open_for, signin_hub

pytestmark = pytest.mark.anyio

HOME, CAFE = "192.0.2.1", "198.51.100.1"


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Give the URL of an empty database."""
    return f"sqlite:///{tmp_path / 'hub.sqlite'}"


async def fail(hub: Hub, name: str = "ann", address: str = HOME) -> float:
    """Try and fail; returns the seconds to wait if it came too early, else 0."""
    attempt = attempt_of(name, address)
    work = bound(count_attempt, attempt, name=name, address=address, now=hub.clock.now())
    try:
        await hub.database.write(work)
    except Throttled as refused:
        return refused.retry_after
    return 0


async def test_five_failures_are_free_and_then_pauses_double(url: str) -> None:
    """One place has to wait 1, 2, 4 … seconds, and at most five minutes."""
    clock = SetClock()
    async with signin_hub(url, clock=clock) as hub:
        assert [await fail(hub) for _ in range(FREE["place"])] == [0] * 5
        pauses = []
        for _ in range(12):
            pauses.append(await fail(hub))
            clock.move(seconds=pauses[-1])
            assert await fail(hub) == 0
        assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]


async def test_refused_attempts_do_not_lengthen_the_pause(url: str) -> None:
    """Hammering while one has to wait changes nothing: the end of the pause stays."""
    clock = SetClock()
    async with signin_hub(url, clock=clock) as hub:
        for _ in range(7):
            await fail(hub)
            clock.move(seconds=2)
        await fail(hub)
        first = await fail(hub)
        assert first > 0
        assert {await fail(hub) for _ in range(50)} == {first}
        clock.move(seconds=first)
        assert await fail(hub) == 0


async def test_a_clock_that_was_put_back_keeps_nobody_out(url: str) -> None:
    """Nor does another replica's that is ahead: free failures stay free, a pause is no longer."""
    clock = SetClock()
    async with signin_hub(url, clock=clock) as hub:
        assert await fail(hub) == 0
        clock.move(seconds=-3600)
        assert [await fail(hub) for _ in range(FREE["place"] - 1)] == [0] * 4
        assert await fail(hub) == 1
        clock.move(seconds=-3600)
        assert await fail(hub) == 1


async def test_a_quarter_of_an_hour_forgets(url: str) -> None:
    """Whoever stops failing begins anew."""
    clock = SetClock()
    async with signin_hub(url, clock=clock) as hub:
        for _ in range(5):
            await fail(hub)
        assert await fail(hub) > 0
        clock.move(minutes=15, seconds=1)
        assert [await fail(hub) for _ in range(5)] == [0] * 5


async def test_one_name_from_many_addresses_is_slowed_down(url: str) -> None:
    """A guesser with many addresses gets ten free guesses at a name, not five for each."""
    async with signin_hub(url) as hub:
        pauses = [await fail(hub, "ann", f"203.0.113.{n}") for n in range(12)]
        assert pauses == [0] * 10 + [1, 1]
        assert await fail(hub, "bob", "203.0.113.99") == 0


async def test_one_address_for_many_names_is_slowed_down(url: str) -> None:
    """Trying a common password on everybody ends after thirty names."""
    async with signin_hub(url) as hub:
        pauses = [await fail(hub, f"user-{n}", HOME) for n in range(32)]
        assert pauses == [0] * 30 + [1, 1]
        assert await fail(hub, "user-1", CAFE) == 0


async def test_one_network_of_version_six_is_one_address(url: str) -> None:
    """Whoever has a /64 cannot change the address for every guess."""
    async with signin_hub(url) as hub:
        pauses = [await fail(hub, "ann", f"2001:db8::{n:x}") for n in range(1, 7)]
        assert pauses == [0] * 5 + [1]
        assert await fail(hub, "ann", "2001:db8:0:1::1") == 0


async def test_stranger_cannot_keep_out_who_is_signed_in_there(url: str) -> None:
    """Failures elsewhere do not count at an address from which the name is signed in."""
    async with signin_hub(url) as hub:
        await open_for(hub, "ann", Visitor(address=HOME))
        for number in range(40):
            await fail(hub, "ann", f"203.0.113.{number}")
        assert await fail(hub, "ann", CAFE) > 0
        assert await fail(hub, "ann", HOME) == 0


async def test_success_forgets_the_name_but_not_the_address(url: str) -> None:
    """An account of one's own is no way to go on guessing those of others."""
    async with signin_hub(url) as hub:
        for number in range(29):
            await fail(hub, f"user-{number}", HOME)
        for _ in range(3):
            assert await fail(hub, "mallory", HOME) == 0
            await hub.database.write(bound(forgive, attempt_of("mallory", HOME)))
        assert await fail(hub, "user-30", HOME) == 0
        assert await fail(hub, "user-31", HOME) > 0


async def test_success_gives_back_all_free_attempts(url: str) -> None:
    """Who got it right at last may fail five times again."""
    async with signin_hub(url) as hub:
        for _ in range(5):
            await fail(hub)
        await hub.database.write(bound(forgive, attempt_of("ann", HOME)))
        assert [await fail(hub) for _ in range(5)] == [0] * 5


async def test_attempt_that_nobody_could_judge_does_not_count(url: str) -> None:
    """When the directory was away, the person has lost nothing."""
    async with signin_hub(url) as hub:
        for _ in range(50):
            assert await fail(hub) == 0
            await hub.database.write(bound(discount, attempt_of("ann", HOME)))


async def test_refused_attempt_writes_nothing(url: str) -> None:
    """A flood of refused attempts does not make the table grow."""
    async with signin_hub(url) as hub:
        for _ in range(5):
            await fail(hub)
        before = await count(hub, signin_failures)
        for number in range(30):
            await fail(hub, f"user-{number}", HOME)
        grown = await count(hub, signin_failures)
        for number in range(200):
            await fail(hub, f"other-{number}", HOME)
        assert before == 3
        assert await count(hub, signin_failures) == grown


@given(name=st.text(max_size=20), address=st.text(max_size=20))
def test_keys_fit_their_column_and_show_nothing(name: str, address: str) -> None:
    """A key is short, and no name or address can be read in it."""
    keys = attempt_of(name.encode(errors="replace").decode(), address).keys
    assert len(set(keys)) == 3
    assert all(len(key) <= 80 and key.rpartition(":")[2].isalnum() for key in keys)


def test_cap_is_five_minutes() -> None:
    """Nobody is ever kept out for longer."""
    assert CAP_SECONDS == 300
