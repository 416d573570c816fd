"""
Signing in and out: credentials or a link in, a session out.

::

    credentials ──► count the attempt ──► authenticators ──► bind ──► open a session
                    (throttle.py)         (auth/*)           (people.py)  (sessions.py)
    link ─────────► take its row ────────────────────────────────────► open a session

The steps after the proof are one unit of work: an account, its identity, its session and the
audit row exist together or not at all.
"""

import secrets
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TypeVar

import anyio
import structlog
from sqlalchemy import Connection, delete, insert

from perijove.auth.contract import Authenticator, Credentials, Proof
from perijove.auth.native import NativeAuthenticator
from perijove.db.core import bound
from perijove.db.tables import signin_links
from perijove.domain.errors import Conflict, Forbidden, HubError, Invalid, Throttled
from perijove.kit.clock import monotonic
from perijove.kit.ids import hash_secret
from perijove.services import people
from perijove.services.audit import Audited, record_audit
from perijove.services.hub import Hub
from perijove.services.sessions import (
    Opened,
    Session,
    SigningIn,
    Visitor,
    close_sessions,
    end_session,
    open_session,
)
from perijove.services.throttle import Attempt, attempt_of, count_attempt, discount, forgive

log = structlog.get_logger()

T = TypeVar("T")

LINK_LIFETIME = timedelta(minutes=15)
LINK = "link"
"""What stands for the authenticator in a session that a one-time link opened."""
ADMIN_PASSWORD = "PERIJOVE_ADMIN_PASSWORD"  # noqa: S105 - the name of a variable
_PROOF_SECONDS = 30
"""An authenticator that has not answered by then cannot tell."""


async def sign_in(
    hub: Hub, credentials: Credentials, visitor: Visitor, *, authenticator: str | None = None
) -> Opened:
    """
    Open a session for whoever the credentials prove.

    All authenticators are asked in the order of the configuration, or only the one named.
    Raises `Forbidden` (code ``signin`` for wrong credentials), `Throttled` with the seconds to
    wait, and what an authenticator raises.
    """

    def finish(connection: Connection, person: people.Person, door: people.Door) -> Opened:
        return _open(hub, connection, person, door.authenticator, visitor)

    began = monotonic()
    try:
        opened = await _enter(hub, credentials, visitor, authenticator, finish)
    except HubError:
        hub.metrics.login("failure", monotonic() - began)
        raise
    hub.metrics.login("success", monotonic() - began)
    return opened


async def recognise(hub: Hub, credentials: Credentials, visitor: Visitor) -> people.Person:
    """
    Return whoever the credentials prove, for one request: as `sign_in`, without a session.

    For programs that send a name and a password instead of a token (wire §2.6.5).
    """

    def finish(connection: Connection, person: people.Person, door: people.Door) -> people.Person:
        record_audit(connection, _signed_in(person, door.authenticator, visitor), hub.clock.now())
        return person

    return await _enter(hub, credentials, visitor, None, finish)


async def _enter(
    hub: Hub,
    credentials: Credentials,
    visitor: Visitor,
    authenticator: str | None,
    finish: Callable[[Connection, people.Person, people.Door], T],
) -> T:
    name = _name_of(credentials)
    attempt = attempt_of(name, visitor.address)
    await hub.database.write(
        bound(count_attempt, attempt, name=name, address=visitor.address, now=hub.clock.now())
    )
    try:
        found = await _prove(_asked(hub, authenticator), credentials) if name else None
        if found is not None:
            return await _admit(hub, *found, attempt=attempt, finish=finish)
    except HubError as error:
        await hub.database.write(bound(discount, attempt))
        await _record_failure(hub, name, visitor, error)
        raise
    wrong = Forbidden("Invalid username or password", code="signin")
    await _record_failure(hub, name, visitor, wrong)
    raise wrong


def _name_of(credentials: Credentials) -> str:
    """Return the one form of the name that was typed; nothing for what cannot be a name."""
    try:
        return people.clean_user_name(credentials.username)
    except Invalid:
        return ""


def _asked(hub: Hub, name: str | None) -> Mapping[str, Authenticator]:
    if name is None:
        return hub.authenticators
    if name not in hub.authenticators:
        raise Invalid("there is no such way to sign in", field="authenticator", code="signin")
    return {name: hub.authenticators[name]}


async def _prove(
    authenticators: Mapping[str, Authenticator], credentials: Credentials
) -> tuple[str, Proof] | None:
    for name, authenticator in authenticators.items():
        try:
            with anyio.fail_after(_PROOF_SECONDS):
                proof = await authenticator.authenticate(credentials)
        except TimeoutError:
            raise Throttled(
                f"{name!r} did not answer within {_PROOF_SECONDS} s",
                retry_after=10,
                code="signin-away",
                authenticator=name,
            ) from None
        if proof is not None:
            return name, proof
    return None


async def _admit(
    hub: Hub,
    authenticator: str,
    proof: Proof,
    *,
    attempt: Attempt,
    finish: Callable[[Connection, people.Person, people.Door], T],
) -> T:
    door = people.Door(
        authenticator=authenticator,
        is_first=authenticator == next(iter(hub.authenticators)),
        settings=hub.settings,
    )

    def unit(connection: Connection) -> T:
        person = people.bind(connection, proof, door, hub.clock.now())
        forgive(connection, attempt)
        return finish(connection, person, door)

    try:
        return await hub.database.write(unit)
    except Conflict:
        # The same person's other sign-in made the account a moment ago: now it is found.
        return await hub.database.write(unit)


def _open(
    hub: Hub, connection: Connection, person: people.Person, authenticator: str, visitor: Visitor
) -> Opened:
    now = hub.clock.now()
    record_audit(connection, _signed_in(person, authenticator, visitor), now)
    signing_in = SigningIn(
        user_id=person.id, user_name=person.name, authenticator=authenticator, visitor=visitor
    )
    return open_session(connection, signing_in, now=now, lifetime=hub.settings.session_lifetime)


def _signed_in(person: people.Person, authenticator: str, visitor: Visitor) -> Audited:
    return Audited(
        action="signed-in",
        actor=person.name,
        target=person.name,
        params={"authenticator": authenticator},
        address=visitor.address,
        request_id=visitor.request_id,
    )


async def _record_failure(hub: Hub, name: str, visitor: Visitor, error: HubError) -> None:
    def unit(connection: Connection) -> None:
        # A name that nobody has may be a password that was typed into the wrong field.
        person = people.find_person(connection, name)
        audited = Audited(
            action="sign-in-failed",
            actor="anonymous",
            target=person.name if person else "",
            params={"code": error.code},
            address=visitor.address,
            request_id=visitor.request_id,
        )
        record_audit(connection, audited, hub.clock.now())

    await hub.database.write(unit)


async def sign_out(hub: Hub, session: Session, visitor: Visitor) -> None:
    """End a session and every token that was issued in it; nothing if it has ended already."""

    def unit(connection: Connection) -> None:
        end_session(connection, session)
        audited = Audited(
            action="signed-out",
            actor=session.user_name,
            target=session.user_name,
            address=visitor.address,
            request_id=visitor.request_id,
        )
        record_audit(connection, audited, hub.clock.now())

    began = monotonic()
    await hub.database.write(unit)
    hub.metrics.logout(monotonic() - began)


# --- one-time links ---------------------------------------------------------------------------


async def make_signin_link(hub: Hub, user_name: str) -> str:
    """
    Return the path of a link that signs a user in once, within a quarter of an hour.

    The path holds a secret: show it to the one who asked and write it nowhere.
    """
    value = secrets.token_urlsafe(32)

    def unit(connection: Connection) -> None:
        person = people.get_person(connection, user_name)
        people.check_not_blocked(person)
        connection.execute(
            insert(signin_links).values(
                hash=hash_secret(value),
                user_id=person.id,
                expires_at=hub.clock.now() + LINK_LIFETIME,
            )
        )

    await hub.database.write(unit)
    return f"{hub.hub_prefix}login?link={value}"


async def redeem_link(hub: Hub, value: str, visitor: Visitor) -> Opened:
    """
    Open a session for the user of a one-time link, which is dead afterwards.

    Of several at once one succeeds. Raises `Forbidden` with code ``link-used``.
    """

    def unit(connection: Connection) -> Opened:
        user_id = connection.scalar(
            delete(signin_links)
            .where(
                signin_links.c.hash == hash_secret(value),
                signin_links.c.expires_at > hub.clock.now(),
            )
            .returning(signin_links.c.user_id)
        )
        if user_id is None:
            raise Forbidden(
                "This sign-in link has been used already or is too old.", code="link-used"
            )
        person = people.get_person_by_id(connection, user_id)
        people.check_not_blocked(person)
        return _open(hub, connection, person, LINK, visitor)

    return await hub.database.write(unit)


# --- passwords --------------------------------------------------------------------------------


async def set_password(hub: Hub, user_name: str, password: str, *, actor: str) -> None:
    """
    Give a user a password, as an administrator does; ends all sessions of the user.

    Raises `Invalid` when the password breaks the rules, `NotFound` for an unknown user.
    """
    native = _native(hub)
    native.check_new_password(password)
    hash_ = await native.hash(password)

    def unit(connection: Connection) -> None:
        person = people.get_person(connection, user_name)
        replace_password(connection, person, hash_, actor=actor, now=hub.clock.now())

    await hub.database.write(unit)


async def change_password(hub: Hub, session: Session, old: str, new: str, visitor: Visitor) -> None:
    """
    Change one's own password; ends all other sessions of the user.

    Raises `Invalid` with field ``old`` for a wrong old password (which counts as a failed
    sign-in), with field ``password`` for a new one that breaks the rules.
    """
    native = _native(hub)
    native.check_new_password(new)
    attempt = attempt_of(session.user_name, visitor.address)
    await hub.database.write(
        bound(
            count_attempt,
            attempt,
            name=session.user_name,
            address=visitor.address,
            now=hub.clock.now(),
        )
    )
    try:
        proof = await native.authenticate(Credentials(username=session.user_name, password=old))
    except HubError:  # nobody has judged it
        await hub.database.write(bound(discount, attempt))
        raise
    if proof is None or proof.subject != str(session.user_id):
        raise Invalid("the old password is wrong", field="old", code="password-wrong")
    hash_ = await native.hash(new)

    def unit(connection: Connection) -> None:
        person = people.get_person_by_id(connection, session.user_id)
        forgive(connection, attempt)
        replace_password(
            connection,
            person,
            hash_,
            actor=person.name,
            now=hub.clock.now(),
            keep=session.session_id,
        )

    await hub.database.write(unit)


def replace_password(
    connection: Connection,
    person: people.Person,
    hash_: str,
    *,
    actor: str,
    now: datetime,
    keep: str | None = None,
) -> None:
    """Store a new password; ends all sessions of the user but the one with the id `keep`."""
    people.store_password(connection, person.id, hash_, now=now)
    close_sessions(connection, user_id=person.id, but=keep)
    audited = Audited(action="password-set", actor=actor, target=person.name)
    record_audit(connection, audited, now)


def _native(hub: Hub) -> NativeAuthenticator:
    found = hub.authenticators.get(people.NATIVE)
    if not isinstance(found, NativeAuthenticator):
        raise Conflict(
            "this hub keeps no passwords: there is no section [auth.native]",
            code="passwords-elsewhere",
        )
    return found


# --- the first run ----------------------------------------------------------------------------


async def ensure_first_admin(hub: Hub, environ: Mapping[str, str]) -> str | None:
    """
    Make the configured administrators, and a way in for the first of them.

    The variable ``PERIJOVE_ADMIN_PASSWORD`` becomes the password of `admin` while it has none:
    on the first run, never later. Returns the path of a one-time link as long as nobody has
    ever signed in.
    """
    names = [people.clean_user_name(name) for name in hub.settings.admins]
    if not names:
        return None
    first = "admin" if "admin" in names else names[0]

    def unit(connection: Connection) -> tuple[bool, bool]:
        made = {
            name: people.ensure_user(connection, name, now=hub.clock.now(), admin=True)
            for name in names
        }
        return (
            people.has_password(connection, made[first].id),
            people.has_anyone_signed_in(connection),
        )

    has_password, is_used = await hub.database.write(unit)
    if (password := environ.get(ADMIN_PASSWORD)) and not has_password:
        await _set_first_password(hub, first, password)
    return None if is_used else await make_signin_link(hub, first)


async def _set_first_password(hub: Hub, name: str, password: str) -> None:
    if people.NATIVE not in hub.authenticators:
        log.warning("admin_password_ignored", variable=ADMIN_PASSWORD, because="no [auth.native]")
        return
    native = _native(hub)
    try:
        native.check_new_password(password)
    except Invalid as fault:  # the site's own choice, and better said than refused at start
        log.warning("admin_password_weak", variable=ADMIN_PASSWORD, because=str(fault))
    hash_ = await native.hash(password)

    def unit(connection: Connection) -> None:
        person = people.get_person(connection, name)
        replace_password(connection, person, hash_, actor="hub", now=hub.clock.now())

    await hub.database.write(unit)
