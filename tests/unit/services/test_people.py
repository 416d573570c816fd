"""Who a proof makes somebody: the table of design decision 16, row by row."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, update

from perijove.auth.contract import Proof
from perijove.db.core import bound
from perijove.db.tables import identities, users
from perijove.domain.errors import Forbidden, HubError, Invalid, NotFound
from perijove.services import people
from perijove.services.hub import Hub
from perijove.services.people import Door, Person
from tests.doors import NOON, count, make_user, signin_hub

pytestmark = pytest.mark.anyio


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Give the URL of an empty database."""
    return f"sqlite:///{tmp_path / 'hub.sqlite'}"


async def bind(
    hub: Hub, name: str, *, subject: str = "", door: str = "first", is_first: bool = True
) -> Person:
    """Bind a proof that came in by a door."""
    proof = Proof(subject=subject or f"{door}:{name}", name=name)
    way = Door(authenticator=door, is_first=is_first, settings=hub.settings)
    return await hub.database.write(bound(people.bind, proof, way, NOON))


async def other(hub: Hub, name: str) -> Person:
    """Bind a proof that came in by the second door."""
    return await bind(hub, name, door="second", is_first=False)


async def refused(hub: Hub, attempt: Any) -> str:
    """Return the code with which an attempt is refused; nothing may have changed."""
    before = (await count(hub, users), await count(hub, identities))
    with pytest.raises(Forbidden) as error:
        await attempt
    assert (await count(hub, users), await count(hub, identities)) == before
    return error.value.code


async def test_unknown_name_becomes_a_user_through_any_door(url: str) -> None:
    """A first sign-in makes the user, under the one form of its name."""
    async with signin_hub(url) as hub:
        assert (await bind(hub, " Ann ")).name == "ann"
        assert (await other(hub, "BOB")).name == "bob"


async def test_bound_subject_is_its_user_for_good(url: str) -> None:
    """A subject comes back to its user although the user and the person changed names."""
    async with signin_hub(url) as hub:
        ann = await bind(hub, "ann", subject="s1")
        rename = update(users).where(users.c.id == ann.id).values(name="anna")
        await hub.database.write(lambda connection: connection.execute(rename).rowcount)
        again = await bind(hub, "someone-else", subject="s1")
        assert (again.id, again.name) == (ann.id, "anna")


async def test_freed_name_does_not_lead_to_its_former_user(url: str) -> None:
    """After a rename the old name is a new account."""
    async with signin_hub(url) as hub:
        ann = await bind(hub, "ann", subject="s1")
        rename = update(users).where(users.c.id == ann.id).values(name="anna")
        await hub.database.write(lambda connection: connection.execute(rename).rowcount)
        assert (await bind(hub, "ann", subject="s2")).id != ann.id


@pytest.mark.parametrize("door", ["first", "second"])
async def test_name_of_an_identity_is_not_given_to_another_subject(url: str, door: str) -> None:
    """Neither another subject of the same authenticator nor of another one takes the account."""
    async with signin_hub(url) as hub:
        await bind(hub, "ann", subject="s1")
        attempt = bind(hub, "Ann", subject="s2", door=door, is_first=door == "first")
        assert await refused(hub, attempt) == "signin-name-taken"


async def test_unclaimed_user_is_claimed_through_the_first_door_once(url: str) -> None:
    """An account that an administrator made waits for its person at the main way in."""
    async with signin_hub(url) as hub:
        made = await make_user(hub, "ann")
        assert (await bind(hub, "ann", subject="s1")).id == made
        attempt = bind(hub, "ann", subject="s2")
        assert await refused(hub, attempt) == "signin-name-taken"


async def test_unclaimed_user_is_not_claimed_through_another_door(url: str) -> None:
    """Whoever may choose a name elsewhere cannot take the account meant for a colleague."""
    async with signin_hub(url) as hub:
        await make_user(hub, "ann")
        assert await refused(hub, other(hub, "ann")) == "signin-name-taken"


@pytest.mark.parametrize(
    "settings",
    [
        {"admins": ["Boss"]},
        {"groups": {"staff": ["boss"]}},
        {"roles": [{"name": "grader", "users": ["boss"]}]},
        {"tokens": [{"name": "t", "user": "boss", "token": "0123456789"}]},
    ],
)
async def test_name_with_rights_is_not_made_through_another_door(
    url: str, settings: dict[str, Any]
) -> None:
    """A name that the configuration gives something to stays reserved, even when deleted."""
    async with signin_hub(url, settings=settings) as hub:
        gone = users.delete().where(users.c.name == "boss")
        await hub.database.write(lambda connection: connection.execute(gone).rowcount)
        assert await refused(hub, other(hub, "BOSS")) == "signin-name-taken"
        assert (await bind(hub, "boss")).name == "boss"


async def test_linked_identity_comes_in_through_another_door(url: str) -> None:
    """An administrator's link makes a second way in to the same user."""
    async with signin_hub(url) as hub:
        ann = await bind(hub, "ann")
        link = bound(people.link_identity, ann.id, "second", "second:ann", now=NOON)
        await hub.database.write(link)
        assert (await other(hub, "ann")).id == ann.id


async def test_password_claims_the_name(url: str) -> None:
    """Who is given a password is bound to the hub's own accounts: no other door may claim."""
    async with signin_hub(url) as hub:
        ann = await make_user(hub, "ann")
        await hub.database.write(bound(people.store_password, ann, "hash", now=NOON))
        assert await refused(hub, bind(hub, "ann")) == "signin-name-taken"
        native = await bind(hub, "ann", subject=str(ann), door="native", is_first=False)
        assert native.id == ann


async def test_password_can_be_changed(url: str) -> None:
    """A second password replaces the first."""
    async with signin_hub(url) as hub:
        ann = await make_user(hub, "ann")
        for hash_ in ("one", "two"):
            await hub.database.write(bound(people.store_password, ann, hash_, now=NOON))
        found = await people.StoredPasswords(hub.database, hub.clock).find(" ANN ")
        assert found is not None
        assert (found.subject, found.hash) == (str(ann), "two")


async def test_renewed_hash_does_not_undo_a_change(url: str) -> None:
    """A hash computed from the password of before is dropped when a new one was set meanwhile."""
    async with signin_hub(url) as hub:
        ann = await make_user(hub, "ann")
        store = people.StoredPasswords(hub.database, hub.clock)
        await hub.database.write(bound(people.store_password, ann, "old", now=NOON))
        seen = await store.find("ann")
        assert seen is not None
        await hub.database.write(bound(people.store_password, ann, "new", now=NOON))
        await store.renew(seen, "old again")
        now = await store.find("ann")
        assert now is not None
        assert now.hash == "new"


async def test_blocked_user_is_refused(url: str) -> None:
    """A blocked account lets nobody in, bound or not."""
    async with signin_hub(url) as hub:
        await make_user(hub, "ann", blocked=True)
        assert await refused(hub, bind(hub, "ann")) == "signin-blocked"


async def test_configured_admin_becomes_one_at_sign_in(url: str) -> None:
    """The flag is given to who has the name, and never taken."""
    async with signin_hub(url, settings={"admins": ["Ann"]}) as hub:
        take = update(users).where(users.c.name == "ann").values(admin=False)
        await hub.database.write(lambda connection: connection.execute(take).rowcount)
        assert (await bind(hub, "ann")).admin
        assert not (await bind(hub, "bob")).admin


@pytest.mark.parametrize("name", ["", "a/b", "..", "a\x00b", "x" * 300, "\u200b"])
async def test_impossible_name_is_invalid(url: str, name: str) -> None:
    """A name that cannot be a user's makes no user."""
    async with signin_hub(url) as hub:
        with pytest.raises(Invalid):
            await bind(hub, name, subject="s")


@pytest.mark.parametrize("subject", ["", "s" * 256])
async def test_impossible_subject_is_invalid(url: str, subject: str) -> None:
    """What cannot be bound is refused before a user is made."""
    async with signin_hub(url) as hub:
        with pytest.raises(Invalid):
            await hub.database.write(
                bound(people.link_identity, await make_user(hub, "ann"), "x", subject, now=NOON)
            )


async def test_two_authenticators_may_use_one_subject(url: str) -> None:
    """A subject is an id of its own authenticator only."""
    async with signin_hub(url) as hub:
        ann = await bind(hub, "ann", subject="1")
        bob = await bind(hub, "bob", subject="1", door="second", is_first=False)
        assert ann.id != bob.id


async def test_somebody_has_signed_in_only_after_they_have(url: str) -> None:
    """Rows that administrators make do not count, a bound sign-in does."""
    async with signin_hub(url) as hub:
        await make_user(hub, "ann")
        assert not await hub.database.read(people.has_anyone_signed_in)
        await bind(hub, "ann")
        assert await hub.database.read(people.has_anyone_signed_in)


async def test_unknown_user_is_not_found(url: str) -> None:
    """By name and by id."""
    async with signin_hub(url) as hub:
        for work in (bound(people.get_person, "nobody"), bound(people.get_person_by_id, 99)):
            with pytest.raises(NotFound):
                await hub.database.read(work)


async def test_admin_is_added_and_never_taken_by_ensure_user(url: str) -> None:
    """Making a user again keeps the flag and the row."""
    async with signin_hub(url) as hub:
        first = await make_user(hub, "ann", admin=True)
        assert await make_user(hub, "ann") == first
        admin = select(users.c.admin).where(users.c.id == first)
        assert await hub.database.read(lambda connection: connection.scalar(admin))


async def test_failing_unit_leaves_no_half_account(url: str) -> None:
    """When what follows the binding fails, the user is not there either."""
    async with signin_hub(url) as hub:

        def unit(connection: Connection) -> None:
            door = Door(authenticator="first", is_first=True, settings=hub.settings)
            people.bind(connection, Proof(subject="s", name="ann"), door, NOON)
            connection.execute(
                insert(identities).values(
                    user_id=1, authenticator="first", subject="s", created_at=NOON
                )
            )

        with pytest.raises(HubError):
            await hub.database.write(unit)
        assert await count(hub, identities) == 0
