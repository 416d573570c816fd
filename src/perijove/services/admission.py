"""
Admission: the one decision on every path to a launch (design decision 8).

Page, API, restart and start at sign-in all end in `admit`, inside the unit that inserts the
launch. What is counted is counted there, with the rows that serialise it held: the user's, then
the policy's, then the total's, always in this order.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, func, or_, select, true

from perijove.db.locks import hold, hold_user
from perijove.db.offers import list_profiles
from perijove.db.servers import Server, find_server
from perijove.db.tables import group_members, groups, launches, servers, users
from perijove.domain.errors import Forbidden, Invalid, Refused, Throttled
from perijove.domain.launch import Kind, Status, Wanted
from perijove.domain.names import SERVER_NAME_LENGTH, check_server_name
from perijove.domain.options import Choice, apply, still_valid
from perijove.domain.policy import BUILT_IN, EVERYONE, UNLIMITED, Limit, Limits, Policy, Rule
from perijove.domain.profile import Profile
from perijove.domain.storage import Storage, storage_under
from perijove.services.discovery import Platforms, platforms_of
from perijove.services.limits import Person, find_person, limits_of
from perijove.services.profiles import (
    Wish,
    choices_in,
    find_profile,
    offers_under,
    refusal_as_json,
    remembered_by,
)

SPEC_VERSION: Final = 1
_RETRY_SECONDS: Final = 60
SAFE_MODE: Final = "safe_mode"
"""
An option of this one start: to ignore what the person has configured, and may have broken.

No profile has it and no server remembers it. Alone it means: otherwise as the last time.
"""
_YES: Final = (True, "1", "true")  # a form writes texts
NO_KINDS: Final[Mapping[str, str]] = MappingProxyType({})
"""Where no platform can tell what it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What a launch was admitted with; frozen into its row."""

    profile: Profile
    choice: Choice
    limits: Limits
    at: datetime
    safe_mode: bool = False

    @property
    def spawner(self) -> str:
        """The spawner instance that starts it."""
        return self.profile.spawner

    @property
    def storage(self) -> Storage | None:
        """What it keeps; None: nothing."""
        return storage_under(self.profile.storage, self.limits)

    def spec(self) -> dict[str, Any]:
        """Return what the launch keeps of the decision, as JSON."""
        return {
            "version": SPEC_VERSION,
            "profile": {"name": self.profile.name, "revision": self.profile.revision},
            "options": {**self.choice.options, **({SAFE_MODE: True} if self.safe_mode else {})},
            "resources": asdict(self.choice.resources),
            "default_url": self.choice.default_url,
            "environment": dict(self.choice.environment),
            "image": self.choice.image,
            "platform": dict(self.choice.platform),
            "environments": bool(self.limits.value(Rule.ENVIRONMENTS)),
            "limits": {
                "idle_seconds": self.limits.value(Rule.IDLE_TIMEOUT),
                "max_age_seconds": self.limits.value(Rule.MAX_AGE),
                "queue_seconds": _ruled(self.limits[Rule.QUEUE_LIMIT]),
                "queue_wish": self.choice.queue_seconds,
                "queue_unanswered": self.limits.value(Rule.QUEUE_UNANSWERED),
            },
            "decision": [
                decided for decided in self.limits.as_json() if decided["policy"] != BUILT_IN
            ],
        }

    def remembered(self) -> dict[str, Any]:
        """Return what the server remembers, to offer it or to start the same next time."""
        return {"profile": self.profile.name, "options": dict(self.choice.asked)}


def _ruled(limit: Limit) -> Any:
    """Return what a policy says, that there is no limit included; None where none says anything."""
    return UNLIMITED if limit.source is not None and limit.value is None else limit.value


def admit(
    connection: Connection,
    *,
    user_id: int,
    server_name: str,
    profile: str | None,
    options: Mapping[str, object] | None,
    now: datetime,
    kinds: Mapping[str, str] = NO_KINDS,
    extra: Mapping[str, Any] | None = None,
) -> Admission:
    """
    Decide whether a person may start a server now, and with what.

    Runs inside the unit that inserts the launch. `profile` and `options` None mean what the
    server remembers, as far as it can still be had. `kinds` are the platforms that can tell
    what they have (`discovery.kinds_of`): what is asked must go together there, by what was
    last heard of them. `extra` is what a client said besides, see `profiles.choices_in`.

    Raises `Refused`, with the rule, the policy, the limit and what was asked; `Invalid` with the
    field; `Throttled` where only the total is reached; `Forbidden` for a blocked account;
    `NotFound` for no such user.
    """
    hold_user(connection, user_id)
    person = find_person(connection, user_id)
    if person.blocked:
        raise Forbidden(f"the account {person.name} is blocked")
    limits = limits_of(connection, person)
    server = _check_server(connection, person, limits, server_name)
    wish = wish_of(server, profile, options, extra)
    platforms = platforms_of(connection, kinds, user_id, now)
    found = choose_profile(connection, limits, wish, platforms)
    if wish.safe_mode and found.spawner not in kinds:
        # Only jobs have one: elsewhere it is an option like any that is not known.
        wish = replace(wish, options={SAFE_MODE: True})
    choice = choose_options(found, limits, wish, platforms)
    _check_active(connection, person, limits, server)
    return Admission(profile=found, choice=choice, limits=limits, at=now, safe_mode=wish.safe_mode)


def admit_server(connection: Connection, *, user_id: int, server_name: str) -> None:
    """
    Decide whether a person may make a named server, in the unit that inserts its row.

    Raises `Refused` or `Invalid` as `admit` would for its first start.
    """
    hold_user(connection, user_id)
    person = find_person(connection, user_id)
    _check_server(connection, person, limits_of(connection, person), server_name)


def explain(connection: Connection, user_id: int) -> dict[str, Any]:
    """Return what a person may do and which policy says so, for administrators; as JSON."""
    person = find_person(connection, user_id)
    limits = limits_of(connection, person)
    used = {
        Rule.NAMED_SERVERS: _count_named(connection, user_id),
        Rule.ACTIVE_SERVERS: _count_active(connection, launches.c.user_id == user_id, None),
    }
    return {
        "user": person.name,
        "groups": sorted(person.groups),
        "limits": [
            {
                "rule": str(rule),
                "limit": limit.value,
                "policy": limit.policy,
                "used": used.get(rule),
                "overruled": [
                    {"policy": policy, "limit": value} for policy, value in limit.overruled
                ],
            }
            for rule, limit in limits.by_rule.items()
        ],
        "profiles": [
            {"name": offer.profile.name, "refused": refusal_as_json(offer.refusal)}
            for offer in offers_under(limits, list_profiles(connection))
        ],
    }


# --- what is asked for ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked for, and what was asked for last time where nothing is said."""

    profile: str | None
    options: Mapping[str, object] | None
    remembered: Wish
    safe_mode: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What a client said besides: some of it may mean choices of the profile."""


def wish_of(
    server: Server | None,
    profile: str | None,
    options: Mapping[str, object] | None,
    extra: Mapping[str, Any] | None = None,
) -> Asked:
    """Return what is asked for of a server; None means what it remembers."""
    safe_mode = options is not None and options.get(SAFE_MODE) in _YES
    if options is not None and safe_mode:
        options = {name: value for name, value in options.items() if name != SAFE_MODE} or None
    remembered = remembered_by(server)
    return Asked(
        profile=profile,
        options=options,
        remembered=remembered,
        safe_mode=safe_mode,
        extra=extra or {},
    )


def choose_profile(
    connection: Connection, limits: Limits, asked: Asked, platforms: Platforms
) -> Profile:
    """Return the profile that is started; raises `Invalid` and `Refused`."""
    profiles, name = list_profiles(connection), asked.profile
    if name is None:
        name = _still_offered(limits, profiles, asked.remembered.profile, platforms)
    return find_profile(limits, profiles, name, platforms)


def choose_options(profile: Profile, limits: Limits, asked: Asked, platforms: Platforms) -> Choice:
    """Return what it is started with; raises `InvalidOptions` and `RefusedOptions`."""
    options, market = asked.options, platforms.of(profile.spawner)
    if options is None:
        last = asked.remembered
        mine = last.profile == profile.name
        options = still_valid(profile, limits, last.options, market) if mine else {}
    else:
        options = {**choices_in(profile, asked.extra), **options}
    return apply(profile, limits, options, market)


def _still_offered(
    limits: Limits, profiles: list[Profile], name: str | None, platforms: Platforms
) -> str | None:
    try:
        return find_profile(limits, profiles, name, platforms).name
    except (Invalid, Refused):
        return None


# --- the server -------------------------------------------------------------------------------


def _check_server(
    connection: Connection, person: Person, limits: Limits, name: str
) -> Server | None:
    """Return the server of a name, or None when a person may make it."""
    if not name:
        _check_default(limits[Rule.DEFAULT_SERVER])
        return find_server(connection, person.id, name)
    count = limits[Rule.NAMED_SERVERS]
    if count.value == 0:
        raise _refused(count, "Named servers are not enabled.", asked=1)
    if not name.isprintable():
        check_server_name(name)  # a database may not even be asked for some characters
    if server := find_server(connection, person.id, name):
        return server  # made under the rules of its day
    _check_name(limits, name)
    have = _count_named(connection, person.id)
    if count.value is not None and have >= count.value:
        raise _refused(
            count,
            f"User {person.name} already has the maximum of {count.value} named servers.  "
            "One must be deleted before a new server can be created",
            asked=have + 1,
        )
    return None


def _check_default(limit: Limit) -> None:
    if not limit.value:
        raise _refused(
            limit, f"policy {limit.policy} allows no server without a name", asked="default server"
        )


def _check_name(limits: Limits, name: str) -> None:
    check_server_name(name)
    length = limits[Rule.SERVER_NAME_LENGTH]
    if len(name) > (length.value or SERVER_NAME_LENGTH):
        raise _refused(
            length,
            f"Invalid server_name: {name}: policy {length.policy} allows {length.value} characters",
            asked=len(name),
            field="server_name",
        )
    pattern = limits[Rule.SERVER_NAME]
    if pattern.value is not None and not re.fullmatch(pattern.value, name):
        raise _refused(
            pattern,
            f"Invalid server_name: {name}: policy {pattern.policy} wants {pattern.value}",
            asked=name,
            field="server_name",
        )


def _refused(limit: Limit, message: str, *, asked: object, field: str = "") -> Refused:
    return Refused(
        message,
        rule=str(limit.rule),
        limit=limit.value,
        asked=asked,
        field=field,
        policy=limit.policy,
    )


# --- what is counted --------------------------------------------------------------------------


def _check_active(
    connection: Connection, person: Person, limits: Limits, server: Server | None
) -> None:
    own = limits[Rule.ACTIVE_SERVERS]
    if own.value is not None:
        have = _count_active(connection, launches.c.user_id == person.id, server)
        if have >= own.value:
            raise _refused(
                own,
                f"{person.name} has {have} servers running or on their way,"
                f" policy {own.policy} allows {own.value}",
                asked=have + 1,
            )
    _check_group(connection, limits[Rule.GROUP_ACTIVE_SERVERS], server)
    _check_total(connection, limits[Rule.TOTAL_ACTIVE_SERVERS], server)


def _check_group(connection: Connection, limit: Limit, server: Server | None) -> None:
    if limit.value is None or limit.source is None:
        return
    hold(connection, f"admit:policy:{limit.source.id}")
    have = _count_active(connection, _belongs_to(limit.source), server)
    if have >= limit.value:
        raise _refused(
            limit,
            f"policy {limit.policy} allows {limit.value} servers at once to all its people"
            f" together, and they have {have}",
            asked=have + 1,
        )


def _check_total(connection: Connection, limit: Limit, server: Server | None) -> None:
    if limit.value is None:
        return
    hold(connection, "admit:total")
    have = _count_active(connection, true(), server)
    if have >= limit.value:
        raise Throttled(
            "Active user limit exceeded. Try again in a few minutes.",
            retry_after=_RETRY_SECONDS,
            code=f"refused-{limit.rule}",
            rule=str(limit.rule),
            policy=limit.policy,
            limit=limit.value,
            asked=have + 1,
        )


def _belongs_to(policy: Policy) -> ColumnElement[bool]:
    """Return the condition that a launch is of somebody to whom the policy applies."""
    if EVERYONE in policy.groups:
        return true()
    members = (
        select(group_members.c.user_id)
        .join(groups, groups.c.id == group_members.c.group_id)
        .where(groups.c.name.in_(policy.groups))
    )
    named = select(users.c.id).where(users.c.name.in_(policy.users))
    return or_(launches.c.user_id.in_(members), launches.c.user_id.in_(named))


def _count_active(
    connection: Connection, whose: ColumnElement[bool], besides: Server | None
) -> int:
    """Count the servers that are wanted and live, without the one that is about to start."""
    statement = select(func.count()).where(
        launches.c.kind == Kind.SERVER,
        launches.c.wanted == Wanted.RUN,
        launches.c.status != Status.ENDED,
        whose,
    )
    if besides is not None:
        others = or_(launches.c.server_id.is_(None), launches.c.server_id != besides.id)
        statement = statement.where(others)
    return connection.scalar(statement) or 0


def _count_named(connection: Connection, user_id: int) -> int:
    count = select(func.count()).where(servers.c.user_id == user_id, servers.c.name != "")
    return connection.scalar(count) or 0
