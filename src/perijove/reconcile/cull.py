"""
The culler: ends servers that nobody uses, or that are too old, and says so.

Activity is what the server itself reports and what people ask of it through the proxy (never
the bytes of an open WebSocket). Before ending a server the culler asks the server: a busy
kernel counts as use, up to a limit. Nobody is culled for what a hub could not hear.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import Connection

from perijove.db import launches as rows
from perijove.db.core import bound
from perijove.db.installation import hearing_since
from perijove.db.leases import take_lease
from perijove.domain.asking import HUB
from perijove.domain.errors import SpawnerError
from perijove.domain.launch import Cause, End, Launch, Status, Wanted
from perijove.kit.ids import new_id
from perijove.kit.loops import for_each
from perijove.reconcile.probe import Busyness, Prober
from perijove.reconcile.steps import owns_listener
from perijove.services.hub import Hub, server_prefix
from perijove.services.launches import mark_end
from perijove.services.specs import server_token

log = structlog.get_logger()

_LEASE = timedelta(minutes=2)
_SILENT = timedelta(minutes=10)
"""How much longer than its limit an idle server that does not answer is left alone."""
_AT_ONCE = 20
"""Servers that are asked at the same time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Overdue:
    launch: Launch
    cause: Cause
    silent_too_long: bool = False


def idle_since(launch: Launch) -> datetime:
    """Return since when a ready launch has not been used."""
    start = launch.ready_at or launch.requested_at
    return max(start, launch.last_activity or start)


def idle_limit(launch: Launch, reporting_period: timedelta) -> timedelta | None:
    """Return how long a launch may be idle; never less than one reporting period."""
    seconds = launch.spec.get("limits", {}).get("idle_seconds")
    return None if seconds is None else max(timedelta(seconds=seconds), reporting_period)


def overdue_cause(
    launch: Launch, *, now: datetime, heard_since: datetime, reporting_period: timedelta
) -> Cause | None:
    """
    Return why a ready launch should end now: idle, max-age, or None.

    After the hub's own absence every server first gets two reporting periods to be heard.
    """
    if launch.status is not Status.READY or launch.wanted is Wanted.END:
        return None
    if launch.unknown_since is not None or now - heard_since < 2 * reporting_period:
        return None
    max_age = launch.spec.get("limits", {}).get("max_age_seconds")
    age = now - (launch.ready_at or now)
    if max_age is not None and age >= timedelta(seconds=max_age):
        return Cause.MAX_AGE
    limit = idle_limit(launch, reporting_period)
    if limit is not None and now - idle_since(launch) >= limit:
        return Cause.IDLE
    return None


class Culler:
    """Looks for overdue launches; one lease holder for all replicas."""

    def __init__(self, hub: Hub, prober: Prober) -> None:
        self._hub = hub
        self._prober = prober
        self._token = new_id("culler")

    async def cull(self) -> None:
        """Look once at all ready launches, ask the overdue ones, and end those that are."""
        if not await self._hub.database.write(
            bound(take_lease, "cull", token=self._token, ttl=_LEASE)
        ):
            return
        found = await self._hub.database.read_long(self._list_overdue)
        await for_each(found, self._judge, at_once=_AT_ONCE)

    async def _judge(self, overdue: _Overdue) -> None:
        """End an overdue launch, unless its server says that it is used."""
        if overdue.cause is Cause.IDLE and await self._is_used(overdue):
            return
        await self._hub.database.write(bound(self._end, overdue))
        self._hub.due.ring()
        self._hub.events.strike()

    def _list_overdue(self, connection: Connection) -> list[_Overdue]:
        now = self._hub.clock.now()
        period = self._hub.lifecycle.reporting_period
        since = hearing_since(connection)
        found = []
        for launch in rows.list_live(connection):
            cause = overdue_cause(launch, now=now, heard_since=since, reporting_period=period)
            if cause is not None:
                limit = idle_limit(launch, period) or timedelta(0)
                silent = now - idle_since(launch) >= limit + max(limit, _SILENT)
                found.append(_Overdue(launch=launch, cause=cause, silent_too_long=silent))
        return found

    async def _is_used(self, overdue: _Overdue) -> bool:
        """Ask the server itself; what it says is written as activity."""
        launch = overdue.launch
        said = await self._ask(launch)
        if said is None:
            log.info("idle_server_silent", launch=launch.id, ends=overdue.silent_too_long)
            return not overdue.silent_too_long
        now = self._hub.clock.now()
        if said.busy and now - idle_since(launch) < self._hub.lifecycle.max_busy:
            return True
        latest = said.last_activity
        if latest is None or not idle_since(launch) < latest <= now:
            return False
        values: dict[str, Any] = {"last_activity": latest, "activity_source": "kernels"}
        await self._hub.database.write(bound(self._note, launch.id, values))
        limit = idle_limit(launch, self._hub.lifecycle.reporting_period)
        return limit is not None and now - latest < limit

    async def _ask(self, launch: Launch) -> Busyness | None:
        """Return what a server says of itself; None where it is silent, or may be another's."""
        placed = self._hub.spawners.get(launch.spawner)
        try:
            # Where it died, somebody else may listen by now: the token is for the server alone.
            if placed is None or not await owns_listener(self._hub, launch, placed):
                return None
        except SpawnerError as error:
            log.warning("listener_unknown", launch=launch.id, error=str(error)[:200])
            return None
        prefix = server_prefix(self._hub.base_path, launch.user_name, launch.server_name)
        return await self._prober.busyness(launch.url, prefix, server_token(self._hub, launch))

    def _note(self, connection: Connection, launch_id: str, values: dict[str, Any]) -> None:
        launch = rows.hold_launch(connection, launch_id)
        rows.change(connection, launch, now=self._hub.clock.now(), **values)

    def _end(self, connection: Connection, overdue: _Overdue) -> None:
        """End it, unless it was used while it was asked."""
        launch = rows.get_launch(connection, overdue.launch.id)
        now = self._hub.clock.now()
        cause = overdue_cause(
            launch,
            now=now,
            heard_since=hearing_since(connection),
            reporting_period=self._hub.lifecycle.reporting_period,
        )
        if cause is not None:
            log.info("culled", launch=launch.id, cause=str(cause))
            mark_end(connection, launch, End(cause=cause), asking=HUB, now=now)
