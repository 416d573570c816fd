"""
Who a proof makes somebody: user rows, identities, passwords (design decision 16).

A user name belongs to the authenticator that made it. ``identities`` binds what an
authenticator calls a person (its subject) to a user, for good; names only matter the first
time. A user whom no identity is bound to yet (an administrator made it, by the configuration,
the API or the command line) is free to be claimed through the *first* authenticator of the
configuration, the site's main way in, and through no other: otherwise whoever may choose a
name somewhere else could take the account that was meant for a colleague.

=====================================  =========================  ==========================
the name a new subject proposes is…    first authenticator        any other
=====================================  =========================  ==========================
unknown                                new user                   new user, unless the
                                                                  configuration gives the
                                                                  name rights: refused
a user without identity                bound to it                refused
a user with an identity                refused                    refused
=====================================  =========================  ==========================

An account of the hub itself (a password) is an identity of `native` whose subject is the
user's id, so renaming a user moves no password, and setting one claims the name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, exists, insert, or_, select, update

from perijove.auth.contract import Proof, StoredPassword
from perijove.db.core import Database, bound, upsert
from perijove.db.tables import (
    group_members,
    groups,
    identities,
    passwords,
    sessions,
    users,
)
from perijove.domain.errors import Forbidden, Invalid, NotFound
from perijove.domain.names import check_user_name, normalise_user_name
from perijove.kit.clock import Clock
from perijove.services.sections import HubSection

NATIVE = "native"
"""The authenticator whose accounts are rows of ours; the name of its section."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A user, as far as signing in is concerned."""

    id: int
    name: str
    admin: bool
    blocked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """The way somebody comes in by."""

    authenticator: str
    is_first: bool
    """The first authenticator of the configuration: the site's main way in."""
    settings: HubSection


_PERSON = (users.c.id, users.c.name, users.c.admin, users.c.blocked)


def clean_user_name(text: str) -> str:
    """Return the one form of a user name that somebody typed; raises `Invalid`."""
    return check_user_name(normalise_user_name(text.strip()))


def find_person(connection: Connection, name: str) -> Person | None:
    """Return the user of a name in its one form."""
    return _find(connection, name, lock=False)


def get_person(connection: Connection, name: str) -> Person:
    """Return the user of a name in its one form; raises `NotFound`."""
    person = find_person(connection, name)
    if person is None:
        raise NotFound(f"no user named {name!r}", code="user-unknown", name=name)
    return person


def get_person_by_id(connection: Connection, user_id: int) -> Person:
    """Return a user by id; raises `NotFound`."""
    row = connection.execute(select(*_PERSON).where(users.c.id == user_id)).one_or_none()
    if row is None:
        raise NotFound("no such user", code="user-unknown")
    return Person(**row._mapping)


def ensure_user(connection: Connection, name: str, *, now: datetime, admin: bool = False) -> Person:
    """Return the user of a name in its one form, made if need be; `admin` is only ever added."""
    upsert(
        connection,
        users,
        key={"name": name},
        values={"admin": admin, "created_at": now},
        on_update={"admin": True} if admin else {},
    )
    return get_person(connection, name)


def bind(connection: Connection, proof: Proof, door: Door, now: datetime) -> Person:
    """
    Return the user that a proof makes somebody, bound or made if need be.

    Raises `Forbidden` for a blocked user and where the name belongs to another identity,
    `Invalid` for a name that may not be one, `Conflict` when it has to be tried again because
    somebody else made the user at this moment.
    """
    person = _bound_user(connection, door.authenticator, proof.subject)
    if person is None:
        person = _claim(connection, clean_user_name(proof.name), proof.subject, door, now)
    check_not_blocked(person)
    connection.execute(
        update(identities)
        .where(
            identities.c.authenticator == door.authenticator,
            identities.c.subject == proof.subject,
        )
        .values(last_login_at=now)
    )
    if proof.groups is not None:
        _set_groups(connection, person.id, door.authenticator, proof.groups, now)
    if proof.admin is not None:
        _set_admin(connection, person, proof.admin, door.authenticator, proof.subject)
    if person.name in admin_names(door.settings):
        ensure_user(connection, person.name, now=now, admin=True)
    return get_person_by_id(connection, person.id)


def check_not_blocked(person: Person) -> None:
    """Raise `Forbidden` for a user who may not sign in."""
    if person.blocked:
        raise Forbidden("This account is blocked.", code="signin-blocked", name=person.name)


def link_identity(
    connection: Connection, user_id: int, authenticator: str, subject: str, *, now: datetime
) -> None:
    """Bind a subject of an authenticator to a user; raises `Invalid` for one that cannot be."""
    if not subject or len(subject) > 255:
        raise Invalid("an authenticator's subject has 1 to 255 characters", code="signin-subject")
    connection.execute(
        insert(identities).values(
            user_id=user_id, authenticator=authenticator, subject=subject, created_at=now
        )
    )


def admin_names(settings: HubSection) -> frozenset[str]:
    """Return the names of the configuration's administrators, in their one form."""
    return frozenset(clean_user_name(name) for name in settings.admins)


def has_anyone_signed_in(connection: Connection) -> bool:
    """Tell whether somebody has ever come in, by whatever way is still on record."""
    seen = select(
        or_(
            exists().where(sessions.c.id.is_not(None)),
            exists().where(identities.c.last_login_at.is_not(None)),
        )
    )
    return bool(connection.scalar(seen))


def _bound_user(connection: Connection, authenticator: str, subject: str) -> Person | None:
    row = connection.execute(
        select(*_PERSON)
        .join(identities, identities.c.user_id == users.c.id)
        .where(identities.c.authenticator == authenticator, identities.c.subject == subject)
    ).one_or_none()
    return Person(**row._mapping) if row else None


def _find(connection: Connection, name: str, *, lock: bool) -> Person | None:
    statement = select(*_PERSON).where(users.c.name == name)
    row = connection.execute(statement.with_for_update() if lock else statement).one_or_none()
    return Person(**row._mapping) if row else None


def _claim(connection: Connection, name: str, subject: str, door: Door, now: datetime) -> Person:
    """Bind a new subject to the user of a name, who is made if need be."""
    # Locked, so that of two subjects who claim one name at once the second sees the first.
    person = _find(connection, name, lock=True)
    if person is None:
        if not door.is_first and name in _named_in_configuration(door.settings):
            raise _taken(name, door.authenticator)
        # Raises `Conflict` if somebody makes the user at this moment: then look again.
        connection.execute(insert(users).values(name=name, created_at=now))
        person = get_person(connection, name)
    else:
        # The same person's other sign-in may have done all this while the lock was waited for.
        bound_meanwhile = _bound_user(connection, door.authenticator, subject)
        if bound_meanwhile is not None:
            return bound_meanwhile
        if not door.is_first or _has_identity(connection, person.id):
            raise _taken(name, door.authenticator)
    link_identity(connection, person.id, door.authenticator, subject, now=now)
    return person


def _set_groups(
    connection: Connection,
    user_id: int,
    authenticator: str,
    names: Sequence[str],
    now: datetime,
) -> None:
    """Make `names` the groups a user has by an authenticator; leaves what others gave."""
    for name in names:
        upsert(
            connection,
            groups,
            key={"name": name},
            values={"properties": {}, "created_at": now},
            on_update={},
        )
    wanted = list(connection.scalars(select(groups.c.id).where(groups.c.name.in_(names))))
    connection.execute(
        delete(group_members).where(
            group_members.c.user_id == user_id,
            group_members.c.authenticator == authenticator,
            group_members.c.group_id.not_in(wanted),
        )
    )
    for group_id in wanted:
        upsert(
            connection,
            group_members,
            key={"group_id": group_id, "user_id": user_id},
            values={"authenticator": authenticator},
            on_update={},
        )


def _set_admin(
    connection: Connection, person: Person, admin: bool, authenticator: str, subject: str
) -> None:
    """Make a user an administrator, or take back that this identity once did."""
    identity = (identities.c.authenticator == authenticator, identities.c.subject == subject)
    gave = bool(connection.scalar(select(identities.c.gave_admin).where(*identity)))
    if person.admin == admin or (person.admin and not gave):
        return
    connection.execute(update(users).where(users.c.id == person.id).values(admin=admin))
    connection.execute(update(identities).where(*identity).values(gave_admin=admin))


def _has_identity(connection: Connection, user_id: int) -> bool:
    return bool(connection.scalar(select(exists().where(identities.c.user_id == user_id))))


def _named_in_configuration(settings: HubSection) -> frozenset[str]:
    """Return every name that the configuration gives something to."""
    names = {*settings.admins, *(name for role in settings.roles for name in role.users)}
    for members in settings.groups.values():
        names.update(members)
    names.update(token.user for token in settings.tokens if token.user is not None)
    return frozenset(normalise_user_name(name.strip()) for name in names)


def _taken(name: str, authenticator: str) -> Forbidden:
    return Forbidden(
        f"The user name {name!r} belongs to another way of signing in than {authenticator!r};"
        " an administrator can link the two.",
        code="signin-name-taken",
        name=name,
        authenticator=authenticator,
    )


# --- passwords --------------------------------------------------------------------------------


class StoredPasswords:
    """The `PasswordStore` over our own rows."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def find(self, name: str) -> StoredPassword | None:
        """Return the password of the user of that name, which is not normalised yet."""
        return await self._database.read(bound(_find_password, normalise_user_name(name.strip())))

    async def renew(self, old: StoredPassword, hash_: str) -> None:
        """Store a new hash of the same password, unless it was changed since."""
        await self._database.write(
            bound(_renew_password, old=old, hash_=hash_, now=self._clock.now())
        )


def _find_password(connection: Connection, name: str) -> StoredPassword | None:
    row = connection.execute(
        select(users.c.id, passwords.c.hash)
        .join(passwords, passwords.c.user_id == users.c.id)
        .where(users.c.name == name)
    ).one_or_none()
    return StoredPassword(subject=str(row.id), hash=row.hash) if row else None


def _renew_password(
    connection: Connection, *, old: StoredPassword, hash_: str, now: datetime
) -> None:
    connection.execute(
        update(passwords)
        .where(passwords.c.user_id == int(old.subject), passwords.c.hash == old.hash)
        .values(hash=hash_, changed_at=now)
    )


def store_password(connection: Connection, user_id: int, hash_: str, *, now: datetime) -> None:
    """Give a user a password, and with it an account of the hub's own."""
    upsert(
        connection,
        passwords,
        key={"user_id": user_id},
        values={"hash": hash_, "changed_at": now},
    )
    upsert(
        connection,
        identities,
        key={"authenticator": NATIVE, "subject": str(user_id)},
        values={"user_id": user_id, "created_at": now},
        on_update={},
    )


def has_password(connection: Connection, user_id: int) -> bool:
    """Tell whether a user has an account of the hub's own."""
    return bool(connection.scalar(select(exists().where(passwords.c.user_id == user_id))))
