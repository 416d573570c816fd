"""Signing in and out, links, passwords, the first run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import anyio
import pytest
from sqlalchemy import select

from perijove.auth.contract import Authenticator, Credentials, Proof
from perijove.db.core import bound
from perijove.db.tables import audit_events, passwords, sessions, signin_links, users
from perijove.domain.errors import Conflict, Forbidden, Invalid, NotFound, Throttled
from perijove.kit.config import Section
from perijove.services.hub import Hub
from perijove.services.sessions import Opened, Session, Visitor, find_session
from perijove.services.signin import (
    change_password,
    ensure_first_admin,
    make_signin_link,
    recognise,
    redeem_link,
    set_password,
    sign_in,
    sign_out,
)
from tests.doors import HERE, SetClock, audited, count, make_user, open_for, signin_hub

pytestmark = pytest.mark.anyio

RIGHT = "correct horse battery"


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Give the URL of an empty database."""
    return f"sqlite:///{tmp_path / 'hub.sqlite'}"


async def come(hub: Hub, name: str, password: str, *, door: str | None = None) -> Opened:
    """Sign in with a password."""
    return await sign_in(
        hub, Credentials(username=name, password=password), HERE, authenticator=door
    )


async def refusal(hub: Hub, name: str, password: str, *, door: str | None = None) -> str:
    """Return the code with which a sign-in is refused."""
    with pytest.raises((Forbidden, Invalid, Throttled)) as error:
        await come(hub, name, password, door=door)
    return error.value.code


async def session_of(hub: Hub, opened: Opened) -> Session | None:
    """Return the live session of a sign-in."""
    return await hub.database.read(bound(find_session, opened.cookie, hub.clock.now()))


async def ann(hub: Hub) -> int:
    """Make ann, with a password."""
    user_id = await make_user(hub, "ann")
    await set_password(hub, "ann", RIGHT, actor="admin")
    return user_id


async def test_sign_in_opens_a_session_and_leaves_a_trace(url: str) -> None:
    """The right password gives a session of the user, and a row in the trail."""
    async with signin_hub(url) as hub:
        user_id = await ann(hub)
        opened = await come(hub, " Ann ", RIGHT)
        assert (opened.user_id, opened.user_name) == (user_id, "ann")
        session = await session_of(hub, opened)
        assert session is not None
        assert session.authenticator == "native"
        assert (await audited(hub))[-1] == ("signed-in", "ann", "ann")


@pytest.mark.parametrize(
    ("name", "password"),
    [("ann", "wrong"), ("nobody", RIGHT), ("a/b", RIGHT), ("", ""), ("a\x00", "x"), ("\ud800", "")],
)
async def test_wrong_credentials_are_all_refused_alike(url: str, name: str, password: str) -> None:
    """The answer does not tell whether the name exists or could exist."""
    async with signin_hub(url) as hub:
        await ann(hub)
        assert await refusal(hub, name, password) == "signin"
        assert await count(hub, sessions) == 0
        assert await count(hub, users) == 2  # ann, and the configured admin


async def test_failure_is_audited_without_what_was_typed(url: str) -> None:
    """A name that nobody has may be a password in the wrong field: it is kept nowhere."""
    async with signin_hub(url) as hub:
        await ann(hub)
        await refusal(hub, "my-secret-password", "oops")
        await refusal(hub, "ann", "wrong")
        assert (await audited(hub))[-2:] == [
            ("sign-in-failed", "anonymous", ""),
            ("sign-in-failed", "anonymous", "ann"),
        ]
        rows = await hub.database.read(
            lambda connection: [str(tuple(row)) for row in connection.execute(select(audit_events))]
        )
        assert "my-secret-password" not in "".join(rows)


async def test_guessing_is_throttled_also_with_the_right_password(url: str) -> None:
    """After five failures even the right password has to wait, and then works."""
    clock = SetClock()
    async with signin_hub(url, clock=clock) as hub:
        await ann(hub)
        for _ in range(5):
            assert await refusal(hub, "ann", "wrong") == "signin"
        with pytest.raises(Throttled) as throttled:
            await come(hub, "ann", RIGHT)
        assert throttled.value.params["retry_after_seconds"] == 1
        clock.move(seconds=throttled.value.retry_after)
        assert (await come(hub, "ann", RIGHT)).cookie


async def test_many_guesses_at_once_gain_nothing(url: str) -> None:
    """A burst is counted before a password is looked at: five are tried, not fifty."""
    async with signin_hub(url) as hub:
        await ann(hub)
        codes: list[str] = []

        async def guess() -> None:
            codes.append(await refusal(hub, "ann", "wrong"))

        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(guess)
        assert codes.count("signin") == 5
        assert codes.count("signin-throttled") == 45


async def test_blocked_user_learns_it_only_with_the_right_password(url: str) -> None:
    """To everybody else a blocked account looks like any other."""
    async with signin_hub(url) as hub:
        await ann(hub)
        await make_user(hub, "ann", blocked=True)
        assert await refusal(hub, "ann", "wrong") == "signin"
        assert await refusal(hub, "ann", RIGHT) == "signin-blocked"
        assert await count(hub, sessions) == 0


async def test_doors_are_tried_in_order(url: str) -> None:
    """The first authenticator that knows the person lets them in; one may be named."""
    async with signin_hub(url, doors=("demo", "native")) as hub:
        await ann(hub)
        assert (await come(hub, "bob", "bob")).user_name == "bob"
        assert (await come(hub, "ann", RIGHT)).user_name == "ann"
        assert await refusal(hub, "carol", "carol", door="native") == "signin"
        assert await refusal(hub, "carol", "carol", door="nowhere") == "signin"


async def test_account_with_a_password_is_not_taken_through_the_demo_door(url: str) -> None:
    """The name belongs to who has the password, although the demo stands first."""
    async with signin_hub(url, doors=("demo", "native")) as hub:
        await ann(hub)
        assert await refusal(hub, "ann", "ann") == "signin-name-taken"
        assert await count(hub, sessions) == 0


async def test_configured_admin_is_not_taken_through_a_second_door(url: str) -> None:
    """The admin's row, not claimed yet, opens through the first authenticator only."""
    async with signin_hub(url, doors=("native", "demo")) as hub:
        assert await refusal(hub, "admin", "admin") == "signin-name-taken"


async def test_one_person_signing_in_twice_at_once_is_one_user(url: str) -> None:
    """Two first sign-ins of one person make one account and two sessions."""
    async with signin_hub(url, doors=("demo",)) as hub:
        opened: list[Opened] = []

        async def enter() -> None:
            opened.append(await come(hub, "ann", "ann"))

        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(enter)
        assert len({each.user_id for each in opened}) == 1
        assert len({each.session_id for each in opened}) == 2


class Broken:
    """An authenticator that cannot tell."""

    Settings: ClassVar[type[Section]] = Section
    names_system_accounts: ClassVar[bool] = False
    name = "broken"

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def authenticate(self, credentials: Credentials) -> Proof | None:
        """Fail."""
        raise self._error

    def check_address(self, *, public: bool) -> None:
        """Accept any."""


async def test_door_that_cannot_tell_costs_no_attempt(url: str) -> None:
    """While a directory is away nobody uses up their free attempts."""
    away = Throttled("away", retry_after=1, code="directory-away")
    async with signin_hub(url) as hub:
        await ann(hub)
        closed = {"broken": Broken(away)}
        for _ in range(20):
            with pytest.raises(Throttled, match="away"):
                await sign_in(
                    with_doors(hub, closed), Credentials(username="ann", password=RIGHT), HERE
                )
        assert (await come(hub, "ann", RIGHT)).cookie


def with_doors(hub: Hub, doors: Mapping[str, Authenticator]) -> Hub:
    """Return the same hub with other authenticators."""
    return Hub(
        database=hub.database,
        clock=hub.clock,
        keyring=hub.keyring,
        installation=hub.installation,
        settings=hub.settings,
        lifecycle=hub.lifecycle,
        api_url=hub.api_url,
        authenticators=doors,
    )


async def test_program_is_recognised_without_a_session(url: str) -> None:
    """A name and a password in place of a token prove the same, and leave nothing open."""
    async with signin_hub(url) as hub:
        user_id = await ann(hub)
        person = await recognise(hub, Credentials(username="Ann", password=RIGHT), HERE)
        assert (person.id, person.name) == (user_id, "ann")
        assert await count(hub, sessions) == 0
        assert (await audited(hub))[-1] == ("signed-in", "ann", "ann")


async def test_program_is_throttled_like_a_browser(url: str) -> None:
    """The API is no way around the counters."""
    async with signin_hub(url) as hub:
        await ann(hub)
        wrong = Credentials(username="ann", password="wrong")
        for _ in range(5):
            with pytest.raises(Forbidden):
                await recognise(hub, wrong, HERE)
        with pytest.raises(Throttled):
            await recognise(hub, wrong, HERE)
        assert await refusal(hub, "ann", RIGHT) == "signin-throttled"


async def test_sign_out_ends_the_session_and_may_be_repeated(url: str) -> None:
    """The cookie is worth nothing afterwards; a second time is no error."""
    async with signin_hub(url) as hub:
        opened = await open_for(hub, "ann")
        session = await session_of(hub, opened)
        assert session is not None
        await sign_out(hub, session, HERE)
        await sign_out(hub, session, HERE)
        assert await session_of(hub, opened) is None
        assert (await audited(hub))[-1] == ("signed-out", "ann", "ann")


# --- links ------------------------------------------------------------------------------------


def secret_of(path: str) -> str:
    """Return the secret of a link."""
    head, _, secret = path.partition("/hub/login?link=")
    assert head == ""
    return secret


async def test_link_signs_in_once(url: str) -> None:
    """It opens a session of its user, and a second time says so."""
    async with signin_hub(url) as hub:
        await make_user(hub, "ann")
        secret = secret_of(await make_signin_link(hub, "ann"))
        assert len(secret) == 43
        opened = await redeem_link(hub, secret, HERE)
        assert opened.user_name == "ann"
        with pytest.raises(Forbidden) as used:
            await redeem_link(hub, secret, HERE)
        assert used.value.code == "link-used"


async def test_link_dies_after_a_quarter_of_an_hour(url: str) -> None:
    """A second before it works, at its end no more."""
    clock = SetClock()
    async with signin_hub(url, clock=clock) as hub:
        await make_user(hub, "ann")
        early, late = [secret_of(await make_signin_link(hub, "ann")) for _ in range(2)]
        clock.move(minutes=15, seconds=-1)
        await redeem_link(hub, early, HERE)
        clock.move(seconds=1)
        with pytest.raises(Forbidden):
            await redeem_link(hub, late, HERE)


async def test_of_many_redemptions_at_once_one_succeeds(url: str) -> None:
    """A link opens exactly one session, however many click."""
    async with signin_hub(url) as hub:
        await make_user(hub, "ann")
        secret = secret_of(await make_signin_link(hub, "ann"))
        outcomes = await together(hub, secret, 20)
        assert outcomes.count("opened") == 1
        assert await count(hub, sessions) == 1


async def together(hub: Hub, secret: str, times: int) -> Sequence[str]:
    """Redeem one link many times at once; returns what became of each."""
    outcomes: list[str] = []

    async def redeem() -> None:
        try:
            await redeem_link(hub, secret, HERE)
            outcomes.append("opened")
        except Forbidden as refused:
            outcomes.append(refused.code)

    async with anyio.create_task_group() as tasks:
        for _ in range(times):
            tasks.start_soon(redeem)
    return outcomes


async def test_link_of_a_blocked_user_opens_nothing(url: str) -> None:
    """Neither is one made, nor does an older one work."""
    async with signin_hub(url) as hub:
        await make_user(hub, "ann")
        secret = secret_of(await make_signin_link(hub, "ann"))
        await make_user(hub, "ann", blocked=True)
        with pytest.raises(Forbidden):
            await redeem_link(hub, secret, HERE)
        with pytest.raises(Forbidden):
            await make_signin_link(hub, "ann")


async def test_link_is_stored_as_a_hash(url: str) -> None:
    """Who reads the database cannot sign in with it."""
    async with signin_hub(url) as hub:
        await make_user(hub, "ann")
        secret = secret_of(await make_signin_link(hub, "ann"))
        rows = await hub.database.read(
            lambda connection: str(connection.execute(select(signin_links)).all())
        )
        assert secret not in rows


async def test_link_for_nobody_is_refused(url: str) -> None:
    """An unknown user gets no link."""
    async with signin_hub(url) as hub:
        with pytest.raises(NotFound):
            await make_signin_link(hub, "nobody")


# --- passwords --------------------------------------------------------------------------------


async def test_change_of_password_ends_all_other_sessions(url: str) -> None:
    """The one in which it was changed stays, the old password is worth nothing."""
    async with signin_hub(url) as hub:
        await ann(hub)
        mine, other = await come(hub, "ann", RIGHT), await come(hub, "ann", RIGHT)
        session = await session_of(hub, mine)
        assert session is not None
        await change_password(hub, session, RIGHT, "another good one", HERE)
        assert await session_of(hub, mine)
        assert await session_of(hub, other) is None
        assert await refusal(hub, "ann", RIGHT) == "signin"
        assert (await come(hub, "ann", "another good one")).cookie


async def test_change_with_a_wrong_old_password_is_refused_and_counts(url: str) -> None:
    """Who finds an open browser cannot guess the password either."""
    async with signin_hub(url) as hub:
        await ann(hub)
        opened = await come(hub, "ann", RIGHT)
        session = await session_of(hub, opened)
        assert session is not None
        for _ in range(5):
            with pytest.raises(Invalid) as wrong:
                await change_password(hub, session, "guess", "another good one", HERE)
            assert (wrong.value.field, wrong.value.code) == ("old", "password-wrong")
        with pytest.raises(Throttled):
            await change_password(hub, session, RIGHT, "another good one", HERE)


async def test_change_to_a_bad_password_is_refused_before_anything(url: str) -> None:
    """The rules are looked at first; the old password stays."""
    async with signin_hub(url) as hub:
        await ann(hub)
        session = await session_of(hub, await come(hub, "ann", RIGHT))
        assert session is not None
        with pytest.raises(Invalid) as refused:
            await change_password(hub, session, RIGHT, "short", HERE)
        assert refused.value.code == "password-too-short"
        assert (await come(hub, "ann", RIGHT)).cookie


async def test_password_set_by_an_administrator_ends_all_sessions(url: str) -> None:
    """After a reset nobody who came in before stays in."""
    async with signin_hub(url) as hub:
        await ann(hub)
        opened = await come(hub, "ann", RIGHT)
        await set_password(hub, "ann", "the new password", actor="boss")
        assert await session_of(hub, opened) is None
        assert (await audited(hub))[-1] == ("password-set", "boss", "ann")


async def test_hub_without_native_keeps_no_passwords(url: str) -> None:
    """The refusal names the section that is missing."""
    async with signin_hub(url, doors=("demo",)) as hub:
        await make_user(hub, "ann")
        with pytest.raises(Conflict, match=r"\[auth\.native\]"):
            await set_password(hub, "ann", RIGHT, actor="admin")


# --- the first run ----------------------------------------------------------------------------


async def test_first_run_makes_the_admin_and_a_link(url: str) -> None:
    """The link signs the admin in, and a hub that was used gives none."""
    async with signin_hub(url) as hub:
        path = await ensure_first_admin(hub, {})
        assert path is not None
        assert (await redeem_link(hub, secret_of(path), HERE)).user_name == "admin"
        assert await ensure_first_admin(hub, {}) is None


async def test_link_is_given_until_somebody_has_signed_in(url: str) -> None:
    """Who missed the first link starts the hub again and gets another."""
    async with signin_hub(url) as hub:
        first, second = await ensure_first_admin(hub, {}), await ensure_first_admin(hub, {})
        assert first
        assert second
        assert first != second


async def test_admin_password_of_the_environment_is_set_on_the_first_run_only(url: str) -> None:
    """Later runs leave the password alone, whatever the variable says."""
    async with signin_hub(url) as hub:
        await ensure_first_admin(hub, {"PERIJOVE_ADMIN_PASSWORD": "first password"})
        await ensure_first_admin(hub, {"PERIJOVE_ADMIN_PASSWORD": "second password"})
        assert (await come(hub, "admin", "first password")).cookie
        assert await refusal(hub, "admin", "second password") == "signin"


async def test_weak_admin_password_is_the_sites_own_choice(url: str) -> None:
    """A trial is not stopped by the rule for new passwords."""
    async with signin_hub(url) as hub:
        await ensure_first_admin(hub, {"PERIJOVE_ADMIN_PASSWORD": "x"})
        assert (await come(hub, "admin", "x")).cookie


async def test_admin_password_is_ignored_without_native(url: str) -> None:
    """Nothing is stored that could claim the name for an authenticator that is not there."""
    async with signin_hub(url, doors=("demo",)) as hub:
        await ensure_first_admin(hub, {"PERIJOVE_ADMIN_PASSWORD": RIGHT})
        assert await count(hub, passwords) == 0
        assert (await come(hub, "admin", "admin")).cookie


async def test_first_run_without_admins_gives_no_link(url: str) -> None:
    """A site may have no administrators."""
    async with signin_hub(url, settings={"admins": []}) as hub:
        assert await ensure_first_admin(hub, {}) is None


async def test_visitor_without_an_address_can_sign_in(url: str) -> None:
    """Behind a socket there is no address; that is no reason to fail."""
    async with signin_hub(url) as hub:
        await ann(hub)
        credentials = Credentials(username="ann", password=RIGHT)
        assert (await sign_in(hub, credentials, Visitor())).cookie
