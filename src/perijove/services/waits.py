"""
What is known of a wait besides the scheduler's own words: how long others waited, and answers.

The platform's forecast stands in the launch; this is the second opinion, from our own rows.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from statistics import median
from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, select

from perijove.db import launches as rows
from perijove.db.events import record
from perijove.db.notify import notify
from perijove.db.prepared import Statement
from perijove.db.spawner_states import find_state
from perijove.db.tables import discoveries, launches
from perijove.domain.asking import Asking
from perijove.domain.errors import Conflict
from perijove.domain.launch import WAITING, Launch, Status, Wanted
from perijove.domain.market import Market
from perijove.domain.offer import Offer, OwnJob
from perijove.domain.reasons import Action, find_reason
from perijove.domain.sooner import FULL, NO_OUTLOOK, Outlook, outlook
from perijove.kit.kept import Kept
from perijove.services.discovery import FRESH, LEAST_PAUSE, find_discovery, offer_of
from perijove.services.hub import Hub
from perijove.services.overview import Shown, list_shown
from perijove.spawners.contract import Handle, Releases

WINDOW: Final = timedelta(days=14)
"""How far back starts are compared: queues change with the season."""
_USUAL_KEPT: Final = timedelta(minutes=1)
_OFFER_KEPT: Final = timedelta(minutes=10)
_LEAST: Final = 3
"""Fewer similar starts say nothing."""
_MOST: Final = 200
"""How many of the newest starts are looked at."""
_ALIKE: Final = {"cpu": 2.0, "memory_bytes": 2.0, "gpu": 1.0, "time_seconds": 4.0}
"""Up to which factor two requests count as similar, by resource."""
_CANCELS: Final = {"slurm": "scancel", "gridengine": "qdel"}
"""By kind of platform. Not done from here: we act in a person's name on our own jobs only."""
_SAME: Final = ("partition", "account", "qos", "reservation", "gpu_type")
"""Options that lead to another queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """How long similar requests waited in the queue, from being handed over to starting."""

    seconds: float
    """The median."""
    count: int
    """Of how many starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What is free at one moment where a launch may run."""

    as_of: datetime
    cpus: int
    of_cpus: int
    gpus: int
    of_gpus: int
    most_cpus: int
    """Free on one node: the one with the most."""
    most_memory: int
    """Of the same node, in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What surrounds a wait: all that may explain it or shorten it."""

    silent_since: datetime | None = None
    """Since when the platform has not answered."""
    usual: Usual | None = None
    as_of: datetime | None = None
    """When the platform told what is free and what else the person has there."""
    room: Room | None = None
    own_jobs: Sequence[OwnJob] = ()
    """Of the same person, not started here; they take of the same limits."""
    own_servers: Sequence[Shown] = ()
    """The person's other servers that are live on the same platform."""
    outlook: Outlook = NO_OUTLOOK
    """What may let it start sooner."""


def look_around(connection: Connection, hub: Hub, shown: Shown) -> Around:
    """Return what surrounds a server that waits; nothing for one that does not."""
    launch = shown.launch
    if launch is None or launch.status not in WAITING:
        return Around()
    now = hub.clock.now()
    offered = _find_offered(connection, hub.kept, launch, now)
    return Around(
        silent_since=find_state(connection, launch.spawner).failing_since,
        usual=hub.kept.get(
            ("usual", launch.spawner, *_kind_of(launch)),
            lambda: usual_wait(connection, launch, now=now),
            now=now,
            ttl=_USUAL_KEPT,
        ),
        as_of=offered.as_of,
        room=offered.room,
        own_jobs=offered.own_jobs,
        own_servers=[
            other
            for other in list_shown(connection, shown.owner)
            if other.name != shown.name and _is_live_on(other, launch.spawner)
        ],
        outlook=offered.outlook
        if launch.reason is not None and launch.reason.code in FULL
        else replace(offered.outlook, fits_now={}),
    )


async def renew(hub: Hub, launch: Launch, around: Around) -> None:
    """
    Have the platform asked again where what is shown around a wait is older than a minute.

    Nobody waits for the answer: who looks next sees it. However many look, a person is asked
    about once at a time, and a driver asks its scheduler for what all people share only once.
    """
    if launch.user_id is None or launch.status not in WAITING:
        return
    if around.as_of is None or hub.clock.now() - around.as_of >= FRESH:
        await offer_of(hub, launch.user_id, launch.spawner, max_age=LEAST_PAUSE, seconds=0)


def _kind_of(launch: Launch) -> tuple[object, ...]:
    """Return what requests that are similar to the same ones have in common."""
    options, resources = launch.spec.get("options", {}), launch.spec.get("resources", {})
    return (
        launch.spec.get("profile", {}).get("name"),
        *(options.get(name) or "" for name in _SAME),
        *(resources.get(name) for name in _ALIKE),
    )


def _is_live_on(shown: Shown, spawner: str) -> bool:
    return shown.launch is not None and shown.is_live and shown.launch.spawner == spawner


def room_in(offer: Offer, partition: str) -> Room | None:
    """Return what is free in a partition, in all of them without one; None when it is not known."""
    shapes = [
        shape
        for shape in offer.shapes
        if shape.free and (not partition or partition in shape.partitions)
    ]
    if not shapes:
        return None
    free = [node for shape in shapes for node in shape.free]
    most = max(free, key=lambda node: (node.cpus, node.memory_bytes))
    return Room(
        as_of=offer.as_of,
        cpus=sum(node.cpus for node in free),
        of_cpus=sum(shape.cpus * len(shape.nodes) for shape in shapes),
        gpus=sum(sum(node.gpus.values()) for node in free),
        of_gpus=sum(sum(shape.gpus.values()) * len(shape.nodes) for shape in shapes),
        most_cpus=most.cpus,
        most_memory=most.memory_bytes,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Offered:
    """What a wait needs of an offer, which may tell of thousands of nodes."""

    as_of: datetime | None = None
    room: Room | None = None
    own_jobs: Sequence[OwnJob] = ()
    outlook: Outlook = NO_OUTLOOK


def _find_offered(connection: Connection, kept: Kept, launch: Launch, now: datetime) -> _Offered:
    """Return what the platform last said; an answer is read once, however often it is asked for."""
    user_id, spawner = launch.user_id, launch.spawner
    if user_id is None:
        return _Offered()
    mine = (discoveries.c.spawner == spawner, discoveries.c.user_id == user_id)
    asked_at = connection.scalar(select(discoveries.c.asked_at).where(*mine))
    if asked_at is None:
        return _Offered()
    options = launch.spec.get("options", {})

    def read() -> _Offered:
        known = find_discovery(connection, spawner, user_id)
        if known is None or known.offer is None:
            return _Offered()
        return _Offered(
            as_of=known.offer.as_of,
            room=room_in(known.offer, options.get("partition") or ""),
            own_jobs=known.offer.own_jobs,
            outlook=outlook(Market(now=now, offer=known.offer), options),
        )

    key = ("offered", launch.id, asked_at)
    return kept.get(key, read, now=now, ttl=_OFFER_KEPT)


def cancel_command(kind: str, job: OwnJob) -> str:
    """Return how a person cancels a job that is not ours, on this kind of platform."""
    command = _CANCELS.get(kind)
    return f"{command} {job.id}" if command else ""


def usual_wait(connection: Connection, launch: Launch, *, now: datetime) -> Usual | None:
    """Return how long requests like this one waited lately; None when too few are known."""
    found = _STARTS.rows(connection, {"the_spawner": launch.spawner, "since": now - WINDOW})
    return _usual_of([_wait_of(row) for row in found if is_alike(launch.spec, row["spec"])])


def usual_waits(connection: Connection, hub: Hub, spawners: Iterable[str]) -> Mapping[str, Usual]:
    """Return how long starts of each profile on these platforms waited lately, by its name."""
    now = hub.clock.now()
    found: dict[str, Usual] = {}
    for spawner in spawners:
        read = partial(_usual_by_profile, connection, spawner, now)
        found |= hub.kept.get(("usual", spawner), read, now=now, ttl=_USUAL_KEPT)
    return found


def _usual_by_profile(connection: Connection, spawner: str, now: datetime) -> Mapping[str, Usual]:
    waits: defaultdict[str, list[float]] = defaultdict(list)
    for row in _STARTS.rows(connection, {"the_spawner": spawner, "since": now - WINDOW}):
        waits[row["spec"].get("profile", {}).get("name", "")].append(_wait_of(row))
    known = {profile: _usual_of(each) for profile, each in waits.items()}
    return {profile: usual for profile, usual in known.items() if usual is not None}


def _wait_of(row: Mapping[str, Any]) -> float:
    seconds: float = (row["began"] - row["submitted_at"]).total_seconds()
    return seconds


def _usual_of(waits: Sequence[float]) -> Usual | None:
    if len(waits) < _LEAST:
        return None
    return Usual(seconds=max(0.0, median(waits)), count=len(waits))


def is_alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether two specs ask for the same profile, much the same size, and the same queue."""
    if one.get("profile", {}).get("name") != other.get("profile", {}).get("name"):
        return False
    options, others = one.get("options", {}), other.get("options", {})
    if any((options.get(name) or "") != (others.get(name) or "") for name in _SAME):
        return False
    return all(
        _is_near(one.get("resources", {}).get(name), other.get("resources", {}).get(name), factor)
        for name, factor in _ALIKE.items()
    )


def _is_near(one: float | None, other: float | None, factor: float) -> bool:
    if not one or not other:
        return not one and not other
    return max(one, other) <= factor * min(one, other)


_BEGAN: Final = func.coalesce(launches.c.starting_at, launches.c.connecting_at)
_STARTS: Final = Statement(
    select(launches.c.spec, launches.c.submitted_at, _BEGAN.label("began"))
    .where(
        launches.c.spawner == bindparam("the_spawner"),
        launches.c.requested_at >= bindparam("since"),
        launches.c.submitted_at.is_not(None),
        _BEGAN.is_not(None),
    )
    .order_by(launches.c.requested_at.desc())
    .limit(_MOST)
)


def is_asked(launch: Launch) -> bool:
    """Tell whether the queue's limit was reached and nobody has answered yet."""
    return (
        launch.queue_asked_at is not None
        and launch.wanted is Wanted.RUN
        and launch.status in (Status.QUEUED, Status.HELD)
    )


async def keep_waiting(hub: Hub, launch_id: str, *, asking: Asking) -> Launch:
    """
    Let a launch wait for as long again as its queue's limit; it may be said before it is asked.

    Raises `Conflict` for one that does not wait any more.
    """

    def unit(connection: Connection) -> Launch:
        launch, now = rows.hold_launch(connection, launch_id), hub.clock.now()
        if launch.wanted is not Wanted.RUN or launch.status not in (Status.QUEUED, Status.HELD):
            raise Conflict("it does not wait in the queue any more", code="not-waiting")
        launch = rows.change(
            connection, launch, now=now, queue_asked_at=None, queue_extended_at=now, due_at=now
        )
        record(connection, launch_id, "kept-waiting", {}, asking=asking, now=now)
        notify(connection, "due")
        return launch

    launch = await hub.database.write(unit)
    hub.due.ring()
    hub.events.strike(launch_id)
    return launch


def is_releasable(launch: Launch) -> bool:
    """Tell whether a launch is held by its owner, who may take that back."""
    return (
        launch.wanted is Wanted.RUN
        and launch.status is Status.HELD
        and launch.reason is not None
        and Action.RELEASE in find_reason(launch.reason.code).actions
    )


async def release(hub: Hub, launch_id: str, *, asking: Asking) -> None:
    """
    Release a launch that its owner holds, on its platform and as its owner.

    What comes of it is seen, as always, by the next survey. Raises `Conflict` for one that its
    owner does not hold, `SpawnerRejected` when the platform refuses, `SpawnerTransient` when it
    is silent.
    """

    def find(connection: Connection) -> tuple[Launch, Sequence[Handle]]:
        return rows.get_launch(connection, launch_id), rows.list_handles(connection, launch_id)

    launch, handles = await hub.database.read(find)
    placed = hub.spawners.get(launch.spawner)
    if not is_releasable(launch) or placed is None or not isinstance(placed.spawner, Releases):
        raise Conflict("its owner does not hold it", code="not-held")
    await placed.spawner.release(launch.name, handles)

    def unit(connection: Connection) -> None:
        now = hub.clock.now()
        record(connection, launch_id, "released", {}, asking=asking, now=now)

    await hub.database.write(unit)
    hub.look.ring()
    hub.events.strike(launch_id)
