"""
Persistent environments: what people ask for, and what sessions made of it.

The hub writes what is wanted; the session's own program builds and removes, as the person and
on the person's storage, and says what became of it (`agent/environments.py`). So nothing of a
person's runs anywhere but in that person's session, and an environment that nobody can build
now is built in the next session at its place.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, select

from perijove.db import environments as rows
from perijove.db.core import bound
from perijove.db.environments import Environment
from perijove.db.locks import hold_user
from perijove.db.tables import launches, volumes
from perijove.domain.environments import (
    FOLDER,
    Maker,
    State,
    check_from_index,
    check_lock,
    check_name,
    check_packages,
    printable,
)
from perijove.domain.errors import Conflict, Invalid, NotFound, Refused
from perijove.domain.launch import Kind, Launch
from perijove.domain.policy import Limits, Rule
from perijove.services.hub import Hub
from perijove.services.limits import find_person, limits_of
from perijove.wire.environments import Report, Sync

MOST: Final = 50
"""Environments one person can have at one place."""
SILENCE: Final = timedelta(minutes=3)
"""A session that builds speaks more often than this."""
_SOON: Final = 10.0
_LATER: Final = 30.0
_LONGEST_ERROR: Final = 4000
_LONGEST_ID: Final = 15
_RECENT: Final = 200
_LARGEST: Final = 1 << 53


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Storage that outlives a launch."""

    key: str
    """``volume:<platform name>`` or ``homes:<name>``."""
    folder: str
    """Where environments lie there, as the session sees it; ``~`` is its home."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mine:
    """What one person sees."""

    own: Sequence[Environment]
    shared: Sequence[Environment]
    places: Sequence[str]
    """Where the person has worked; the last one first."""


def place_of(hub: Hub, launch: Launch) -> Place | None:
    """Return where a launch's environments lie; None where nothing is kept, or none allowed."""
    return _place_in(hub, launch.spawner, launch.spec)


def _place_in(hub: Hub, spawner: str, spec: Mapping[str, Any]) -> Place | None:
    if not spec.get("environments"):
        return None
    for volume in spec.get("volumes", ()):
        return Place(key=_place_on(volume["name"]), folder=f"{volume['path']}/{FOLDER}")
    placed = hub.spawners.get(spawner)
    if placed is None or not placed.settings.home_storage:
        return None
    return Place(key=f"homes:{placed.settings.home_storage}", folder=f"~/{FOLDER}")


def find_mine(hub: Hub, connection: Connection, user_id: int) -> Mine:
    """Return all that one person sees; raises `NotFound`."""
    person = find_person(connection, user_id)
    return Mine(
        own=rows.list_of(connection, user_id),
        shared=[
            each
            for each in rows.list_shared(connection)
            if each.user_id != user_id and not person.groups.isdisjoint(each.shared)
        ],
        places=_places(hub, connection, user_id),
    )


def may_have(connection: Connection, user_id: int) -> bool:
    """Tell whether a person may have environments."""
    return bool(_limits(connection, user_id).value(Rule.ENVIRONMENTS))


def read_id(text: str) -> int:
    """Return the number of an environment as an address has it; raises `NotFound`."""
    if not text.isascii() or not text.isdigit() or len(text) > _LONGEST_ID:
        raise NotFound("no such environment", code="environment-unknown")
    return int(text)


def find_own(connection: Connection, user_id: int, id_: int) -> Environment:
    """Return one of a person's; raises `NotFound`."""
    found = rows.find(connection, id_)
    if found is None or found.user_id != user_id:
        raise NotFound("no such environment", code="environment-unknown")
    return found


def create(
    hub: Hub,
    connection: Connection,
    user_id: int,
    *,
    name: str,
    packages: Sequence[str] = (),
    lock: str = "",
    place: str = "",
    now: datetime,
) -> Environment:
    """
    Ask for an environment with `packages`, or exactly with what `lock` says.

    `place` empty: where the person worked last. Raises `Refused`, `Invalid`, `Conflict`.
    """
    hold_user(connection, user_id)
    _check_allowed(connection, user_id)
    check_name(name)
    wanted = check_packages(packages)
    lock = check_lock(lock)
    at = _choose_place(_places(hub, connection, user_id), place)
    there = rows.list_of(connection, user_id, place=at)
    if any(each.name == name for each in there):
        raise Conflict(f"there is an environment {name} already", code="environment-exists")
    if len(there) >= MOST:
        raise Invalid(f"at most {MOST} environments", code="environment-most", limit=MOST)
    id_ = rows.add(
        connection,
        user_id=user_id,
        place=at,
        name=name,
        maker=Maker.HUB,
        packages=list(wanted),
        lock=lock,
        is_locked=bool(lock),
        state=State.WANTED,
        created_at=now,
        changed_at=now,
    )
    return find_own(connection, user_id, id_)


def copy(
    hub: Hub,
    connection: Connection,
    user_id: int,
    *,
    source: int,
    name: str = "",
    place: str = "",
    now: datetime,
) -> Environment:
    """
    Ask for one's own environment with exactly what a shared one has; raises as `create`.

    Only the list of versions is taken over, and of another person's only one from the package
    index: nothing that lies with another person is ever run.
    """
    person = find_person(connection, user_id)
    found = rows.find(connection, source)
    is_mine = found is not None and found.user_id == user_id
    if found is None or not (is_mine or not person.groups.isdisjoint(found.shared)):
        raise NotFound("no such environment", code="environment-unknown")
    if not found.lock:
        raise _not_built(found)
    if not is_mine:
        check_from_index(found.lock, found.packages)
    return create(
        hub,
        connection,
        user_id,
        name=name or found.name,
        packages=found.packages,
        lock=found.lock,
        place=place,
        now=now,
    )


def change(
    connection: Connection,
    user_id: int,
    id_: int,
    *,
    packages: Sequence[str] | None = None,
    locked: bool | None = None,
    shared: Collection[str] | None = None,
    now: datetime,
) -> Environment:
    """
    Change what is to be in it, lock or unlock it, or share it with groups of one's own.

    Who may have none any more can still unlock, and share with nobody. Raises `Conflict` for
    packages of a locked one, and for one that was made by hand or is being removed; `Invalid` and
    `Refused`.
    """
    hold_user(connection, user_id)
    if packages is not None or locked or shared:
        _check_allowed(connection, user_id)
    found = _find_changeable(connection, user_id, id_)
    is_locked = found.is_locked if locked is None else locked
    values: dict[str, object] = {}
    if locked is not None:
        # A lock of what was there before would not be what was asked for since.
        if locked and not (found.lock and (found.is_locked or found.state is State.READY)):
            raise _not_built(found)
        values["is_locked"] = locked
    if packages is not None:
        if is_locked:
            raise _is_locked(found)
        values["packages"] = list(check_packages(packages))
        values |= {"revision": found.revision + 1, "state": State.WANTED, "error": ""}
    if shared is not None:
        values["shared"] = _groups_of(connection, user_id, shared)
        if shared and not found.lock:
            raise _not_built(found)
        if shared:
            check_from_index(found.lock, found.packages)
    rows.change(connection, id_, changed_at=now, **values)
    return find_own(connection, user_id, id_)


def retry(connection: Connection, user_id: int, id_: int, *, now: datetime) -> Environment:
    """Ask once more for what could not be built."""
    hold_user(connection, user_id)
    _check_allowed(connection, user_id)
    found = _find_changeable(connection, user_id, id_)
    if found.state is State.FAILED:
        rows.change(
            connection,
            id_,
            revision=found.revision + 1,
            state=State.WANTED,
            error="",
            changed_at=now,
        )
    return find_own(connection, user_id, id_)


def remove(
    hub: Hub, connection: Connection, user_id: int, id_: int, *, now: datetime
) -> Environment | None:
    """
    Ask for its removal, with all that is in it; returns it until a session has done so.

    Forgotten at once where nothing was ever made, or its storage is gone. Raises `Conflict` for
    a locked one, and for one that was made by hand.
    """
    hold_user(connection, user_id)
    found = find_own(connection, user_id, id_)
    if found.maker is Maker.HAND:
        raise _by_hand(found)
    if not found.is_wanted:
        return found
    if found.is_locked:
        raise _is_locked(found)
    is_made = found.state is not State.WANTED or found.lock or found.revision > 1
    if not is_made or found.place not in _places(hub, connection, user_id):
        rows.remove(connection, id_)
        return None
    rows.change(
        connection,
        id_,
        is_wanted=False,
        shared=[],
        revision=found.revision + 1,
        state=State.REMOVING,
        error="",
        changed_at=now,
    )
    return find_own(connection, user_id, id_)


def forget_volume(connection: Connection, name: str) -> None:
    """Forget what lay on a volume that is gone."""
    rows.remove_place(connection, _place_on(name))


# --- the session's side -----------------------------------------------------------------------


async def sync(
    hub: Hub, launch: Launch, place: Place, said: Sync
) -> tuple[Sequence[Environment], float]:
    """
    Take a session's word for what lies at its place; return what is to lie there.

    The second value is in how many seconds the session is to ask again. Every session asks all
    its life: nothing is written as long as there is nothing new.
    """
    assert launch.user_id is not None
    user_id, now = launch.user_id, hub.clock.now()
    found, news = _sensible(said.found), said.reports
    is_news = await hub.database.read(bound(_is_news, user_id, place.key, found=found))
    if news or is_news:
        await hub.database.write(
            bound(_take_word, user_id, place.key, found=found, news=news, now=now)
        )
    return await hub.database.read(bound(_tasks, user_id, place.key))


def is_silent(environment: Environment, now: datetime) -> bool:
    """Tell whether the session that was building it has not been heard of since."""
    seen = environment.seen_at
    return environment.state is State.BUILDING and (seen is None or now - seen > SILENCE)


def _tasks(connection: Connection, user_id: int, place: str) -> tuple[Sequence[Environment], float]:
    left = rows.list_of(connection, user_id, place=place)
    tasks = [each for each in left if each.maker is Maker.HUB and each.state is not State.FAILED]
    if not may_have(connection, user_id):  # What is there may still be cleared away.
        tasks = [each for each in tasks if not each.is_wanted]
    busy = any(each.state is not State.READY for each in tasks)
    return tasks, _SOON if busy else _LATER


def _sensible(found: Iterable[str]) -> Collection[str]:
    """Return what can be an environment's name of what a session says it found."""
    kept: dict[str, None] = {}
    for name in found:
        with suppress(Invalid):
            kept[check_name(name)] = None
    return list(kept)[: 2 * MOST]


def _is_news(connection: Connection, user_id: int, place: str, *, found: Collection[str]) -> bool:
    known = rows.list_of(connection, user_id, place=place)
    by_hand = {each.name for each in known if each.maker is Maker.HAND}
    return _made_by_hand(known, found) != by_hand


def _take_word(
    connection: Connection,
    user_id: int,
    place: str,
    *,
    found: Collection[str],
    news: Sequence[Report],
    now: datetime,
) -> None:
    hold_user(connection, user_id)
    known = {each.id: each for each in rows.list_of(connection, user_id, place=place)}
    for each in news:
        _take(connection, known.get(each.id), each, now)
    _take_found(connection, user_id, place, found, now)


def _take(connection: Connection, known: Environment | None, news: Report, now: datetime) -> None:
    """Believe no more than a session can know: of what is wanted now, whatever it says."""
    if known is None or known.maker is Maker.HAND or news.revision != known.revision:
        return  # Of what was wanted before; the session hears what is wanted now.
    if news.state == "removed":
        if not known.is_wanted:
            rows.remove(connection, known.id)
        return
    if news.state not in (State.BUILDING, State.READY, State.FAILED):
        return
    error = printable(news.error)[-_LONGEST_ERROR:] if news.state == State.FAILED else ""
    values: dict[str, object] = {"seen_at": now, "error": error}
    if known.is_wanted:
        values["state"] = news.state
        if news.state == State.READY:
            values["size_bytes"] = max(0, min(news.size_bytes, _LARGEST))
            if not known.is_locked:
                values["lock"] = _lock_of(news)
    rows.change(connection, known.id, **values)


def _lock_of(news: Report) -> str:
    """Return a session's list of exact versions; none that could not be built again from."""
    try:
        return check_lock(news.lock)
    except Invalid:
        return ""


def _take_found(
    connection: Connection, user_id: int, place: str, found: Collection[str], now: datetime
) -> None:
    """Write down what was made by hand; forget what was and is gone."""
    known = rows.list_of(connection, user_id, place=place)
    by_hand = {each.name: each for each in known if each.maker is Maker.HAND}
    there = _made_by_hand(known, found)
    for name in there - by_hand.keys():
        rows.add(
            connection,
            user_id=user_id,
            place=place,
            name=name,
            maker=Maker.HAND,
            packages=[],
            state=State.READY,
            created_at=now,
            changed_at=now,
            seen_at=now,
        )
    for name in by_hand.keys() - there:
        rows.remove(connection, by_hand[name].id)


def _made_by_hand(known: Collection[Environment], found: Collection[str]) -> set[str]:
    """Return which of the names that were found the hub did not ask for, as many as can be."""
    asked = {each.name for each in known if each.maker is Maker.HUB}
    return set(sorted(set(found) - asked)[:MOST])


# --- rules ------------------------------------------------------------------------------------


def _limits(connection: Connection, user_id: int) -> Limits:
    return limits_of(connection, find_person(connection, user_id))


def _check_allowed(connection: Connection, user_id: int) -> None:
    limit = _limits(connection, user_id)[Rule.ENVIRONMENTS]
    if not limit.value:
        raise Refused(
            f"policy {limit.policy} allows no persistent environments",
            rule=str(limit.rule),
            limit=limit.value,
            asked=1,
            policy=limit.policy,
        )


def _find_changeable(connection: Connection, user_id: int, id_: int) -> Environment:
    found = find_own(connection, user_id, id_)
    if found.maker is Maker.HAND:
        raise _by_hand(found)
    if not found.is_wanted:
        raise Conflict(
            f"{found.name} is being removed", code="environment-removing", name=found.name
        )
    return found


def _by_hand(environment: Environment) -> Conflict:
    return Conflict(
        f"{environment.name} was made by hand: change or remove it there",
        code="environment-by-hand",
        name=environment.name,
    )


def _not_built(environment: Environment) -> Conflict:
    return Conflict(f"{environment.name} was not built yet", code="environment-not-built")


def _is_locked(environment: Environment) -> Conflict:
    return Conflict(
        f"{environment.name} is locked: unlock it first",
        code="environment-locked",
        name=environment.name,
    )


def _groups_of(connection: Connection, user_id: int, names: Collection[str]) -> list[str]:
    mine = find_person(connection, user_id).groups
    if strange := sorted(set(names) - mine):
        raise Invalid(
            f"you are not in {', '.join(strange)[:100]}: share with groups of your own",
            field="shared_with",
            code="environment-group",
            groups=", ".join(strange)[:100],
        )
    return sorted(set(names))


def _choose_place(places: Sequence[str], place: str) -> str:
    if place and place not in places:
        raise Invalid(f"no such place: {place[:80]}", field="place", code="environment-place")
    if not places:
        raise Conflict(
            "start a server that keeps its files first: the environment lies with them",
            code="environment-nowhere",
        )
    return place or places[0]


def _places(hub: Hub, connection: Connection, user_id: int) -> Sequence[str]:
    """Return where a person works or has worked lately, as far as it still can be."""
    query = (
        select(launches.c.spawner, launches.c.spec)
        .where(launches.c.user_id == user_id, launches.c.kind == Kind.SERVER)
        .order_by(launches.c.requested_at.desc())
        .limit(_RECENT)
    )
    kept = volumes.c.deleted_at.is_(None) & volumes.c.delete_after.is_(None)
    names = connection.scalars(select(volumes.c.name).where(volumes.c.user_id == user_id, kept))
    present = {_place_on(name) for name in names}
    seen: dict[str, None] = {}
    for row in connection.execute(query):
        place = _place_in(hub, row.spawner, row.spec)
        if place is not None and (place.key in present or not place.key.startswith(_place_on(""))):
            seen.setdefault(place.key)
    return list(seen)


def _place_on(volume: str) -> str:
    return f"volume:{volume}"
