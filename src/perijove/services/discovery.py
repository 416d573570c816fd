"""
Discovery: what each person can have of each platform that can tell (failure 5.7).

Kept in rows, so that every replica and every request shares one answer, with its age. A
platform that is silent leaves the last answer as it is, marked with since when.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import anyio
import msgspec
import structlog
from sqlalchemy import Connection, Row, func, select

from perijove.db.core import bound, upsert
from perijove.db.spawner_states import find_state
from perijove.db.tables import discoveries, launches, users
from perijove.domain.errors import SpawnerError
from perijove.domain.launch import Kind, Status
from perijove.domain.market import Market
from perijove.domain.offer import Offer
from perijove.services.hub import Hub
from perijove.spawners.contract import Discovers

log = structlog.get_logger()

PAGE_SECONDS: Final = 5.0
"""How long a page waits for a platform; the question goes on without it."""
FRESH: Final = timedelta(seconds=60)
"""How old an answer may be that a form shows."""
AT_START: Final = timedelta(seconds=15)
"""How old the answer may be by which a request is judged."""
LEAST_PAUSE: Final = timedelta(seconds=5)
"""No person's questions follow each other faster, whoever presses what."""
_PAUSE_WHEN_SILENT: Final = timedelta(seconds=15)
_ANSWER_SECONDS: Final = 120.0
"""The whole of it may be several questions, each of which has to wait for its turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """The last answer about one person, and how the last question ended."""

    offer: Offer | None
    """None: there never was an answer."""
    asked_at: datetime
    failing_since: datetime | None = None
    error: str = ""
    """The code of why there was no answer last time."""

    def is_due(self, now: datetime, max_age: timedelta) -> bool:
        """Tell whether to ask again, for an answer of at most `max_age`."""
        age = now - self.asked_at
        pause = _PAUSE_WHEN_SILENT if self.failing_since else LEAST_PAUSE
        return age >= max(pause, max_age if self.failing_since is None else pause)


@dataclass(frozen=True, slots=True, kw_only=True)
class Platforms:
    """The platforms that can tell, as one person sees them."""

    markets: Mapping[str, Market] = field(default_factory=dict)
    """By name of the spawner instance."""
    errors: Mapping[str, str] = field(default_factory=dict)
    """Codes of why some did not answer last time."""
    running: Mapping[str, int] = field(default_factory=dict)
    """How many servers of the person are there, or on their way."""

    def of(self, spawner: str) -> Market | None:
        """Return what is known of a spawner's platform; None when it cannot tell."""
        return self.markets.get(spawner)

    def as_json(self) -> dict[str, Any]:
        """Return them as the API shows them."""
        return {name: self._one(name, market) for name, market in self.markets.items()}

    def _one(self, name: str, market: Market) -> dict[str, Any]:
        told = {
            "kind": market.kind,
            "silent_since": market.silent_since,
            "error": self.errors.get(name, ""),
            "offer": market.offer,
        }
        plain: dict[str, Any] = msgspec.to_builtins(told, enc_hook=dict)
        return plain


NO_PLATFORMS: Final = Platforms()
"""Where no spawner can tell what it has."""


def kinds_of(hub: Hub) -> Mapping[str, str]:
    """Return the kinds of those spawner instances that can tell what they have, by name."""
    return {
        name: placed.settings.kind
        for name, placed in hub.spawners.items()
        if isinstance(placed.spawner, Discovers)
    }


async def offer_of(
    hub: Hub,
    user_id: int,
    spawner: str,
    *,
    max_age: timedelta = FRESH,
    seconds: float = PAGE_SECONDS,
) -> Discovery | None:
    """
    Return what a person can have, asking the platform where that is older than `max_age`.

    After `seconds` what is known is returned as it is. None when the spawner cannot tell, or
    nothing is known yet.
    """
    placed = hub.spawners.get(spawner)
    if placed is None or not isinstance(placed.spawner, Discovers):
        return None
    discovers: Discovers = placed.spawner

    async def look() -> tuple[Discovery | None, bool]:
        known = await hub.database.read(bound(find_discovery, spawner, user_id))
        return known, known is None or known.is_due(hub.clock.now(), max_age)

    async def ask() -> None:
        if (await look())[1]:  # who asked just before has not stored it in the meantime
            await _ask(hub, discovers, spawner, user_id)

    known, is_due = await look()
    if is_due:
        await hub.flights.join((spawner, user_id), ask, seconds=seconds)
        known, _ = await look()
    return known


async def refresh(
    hub: Hub, user_id: int, *, max_age: timedelta = FRESH, spawner: str | None = None
) -> None:
    """Ask the platforms, all or one, as far as what is known of them is older than `max_age`."""
    async with anyio.create_task_group() as tasks:
        for name in kinds_of(hub):
            if spawner in (None, name):
                tasks.start_soon(_refresh_one, hub, user_id, name, max_age)


def platforms_of(
    connection: Connection, kinds: Mapping[str, str], user_id: int, now: datetime
) -> Platforms:
    """Return what is known of the platforms `kinds`, see `kinds_of`, without asking them."""
    if not kinds:
        return NO_PLATFORMS
    rows = connection.execute(select(discoveries).where(discoveries.c.user_id == user_id)).all()
    found = {row.spawner: _discovery(row) for row in rows if row.spawner in kinds}
    silences = {name: find_state(connection, name).failing_since for name in kinds}
    return Platforms(
        markets={
            name: _market(kind, found.get(name), silences[name], now)
            for name, kind in kinds.items()
        },
        errors={name: each.error for name, each in found.items() if each.error},
        running=_count_live(connection, user_id),
    )


def find_discovery(connection: Connection, spawner: str, user_id: int) -> Discovery | None:
    """Return what is known of one platform for one person."""
    found = select(discoveries).where(
        discoveries.c.spawner == spawner, discoveries.c.user_id == user_id
    )
    row = connection.execute(found).first()
    return None if row is None else _discovery(row)


def _count_live(connection: Connection, user_id: int) -> Mapping[str, int]:
    live = (
        select(launches.c.spawner, func.count().label("servers"))
        .where(
            launches.c.user_id == user_id,
            launches.c.kind == Kind.SERVER,
            launches.c.status != Status.ENDED,
        )
        .group_by(launches.c.spawner)
    )
    return {row.spawner: row.servers for row in connection.execute(live)}


# --- asking -----------------------------------------------------------------------------------


async def _refresh_one(hub: Hub, user_id: int, spawner: str, max_age: timedelta) -> None:
    await offer_of(hub, user_id, spawner, max_age=max_age)


async def _ask(hub: Hub, discovers: Discovers, spawner: str, user_id: int) -> None:
    name = await hub.database.read(bound(_name_of, user_id))
    if name is None:
        return
    offer, error = None, ""
    try:
        with anyio.fail_after(_ANSWER_SECONDS):
            offer = await discovers.discover(name)
    except TimeoutError:
        error = "spawner-silent"
    except SpawnerError as failure:
        error = failure.code
    except Exception:  # a driver that stumbles over an answer must not take the form away
        log.exception("discovery_broken", spawner=spawner, user=name)
        error = "spawner-failed"
    if error:
        log.warning("discovery_failed", spawner=spawner, user=name, code=error)
    await hub.database.write(bound(_store, spawner, user_id, offer, error, hub.clock.now()))


def _name_of(connection: Connection, user_id: int) -> str | None:
    return connection.scalar(select(users.c.name).where(users.c.id == user_id))


def _store(
    connection: Connection,
    spawner: str,
    user_id: int,
    offer: Offer | None,
    error: str,
    now: datetime,
) -> None:
    if _name_of(connection, user_id) is None:
        return  # deleted while the platform was asked
    key = {"spawner": spawner, "user_id": user_id}
    if offer is not None:
        body = msgspec.to_builtins(offer, enc_hook=dict)
        values = {"body": body, "as_of": offer.as_of, "failing_since": None, "error": ""}
    else:
        known = find_discovery(connection, spawner, user_id)
        since = known.failing_since if known else None
        values = {"failing_since": since or now, "error": error}
    values["asked_at"] = now
    upsert(connection, discoveries, key=key, values=values, on_update=values)


# --- rows -------------------------------------------------------------------------------------


def _discovery(row: Row[Any]) -> Discovery:
    return Discovery(
        offer=_read(row.body),
        asked_at=row.asked_at,
        failing_since=row.failing_since,
        error=row.error,
    )


def _read(body: Any) -> Offer | None:
    """Return the offer of a row; None for one that another version of this program wrote."""
    if body is None:
        return None
    try:
        return msgspec.convert(body, Offer)
    except msgspec.ValidationError:
        return None


def _market(
    kind: str, known: Discovery | None, silent_since: datetime | None, now: datetime
) -> Market:
    """Return what a platform offers; its silence counts, whoever met it first."""
    if known is None:
        return Market(now=now, kind=kind, silent_since=silent_since)
    met = [since for since in (known.failing_since, silent_since) if since is not None]
    return Market(now=now, kind=kind, offer=known.offer, silent_since=min(met, default=None))
