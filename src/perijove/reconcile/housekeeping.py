"""Small loops that keep the state true and bounded: the heart-beat and retention."""

from datetime import timedelta

import structlog
from sqlalchemy import Connection, delete, select

from perijove.db.installation import beat
from perijove.db.routes import purge_tombstones, purge_workers, repair_routes
from perijove.db.tables import (
    events,
    launches,
    oauth_codes,
    sessions,
    signin_failures,
    signin_links,
    volumes,
)
from perijove.domain.launch import Status
from perijove.kit.clock import monotonic
from perijove.services.hub import Hub, server_prefix
from perijove.services.tokens import delete_expired

log = structlog.get_logger()

_TOMBSTONES_KEPT = timedelta(hours=1)
_FAILURES_KEPT = timedelta(days=1)


class Housekeeper:
    """Bound to one hub; each method is the step of one loop."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def beat(self) -> None:
        """Record that this hub runs and can hear."""

        def unit(connection: Connection) -> None:
            beat(connection, now=self._hub.clock.now())

        await self._hub.database.write(unit)

    async def purge(self) -> None:
        """Forget what has expired."""

        def unit(connection: Connection) -> int:
            return self._purge(connection)

        purged = await self._hub.database.write(unit)
        if purged:
            log.info("purged", rows=purged)

    async def check_routes(self) -> None:
        """
        Bring the route table in line with the launches, should they ever differ.

        Each change of a launch changes its route in the same transaction; this is the net
        under it, for a database that was restored or changed by hand.
        """
        began = monotonic()

        def unit(connection: Connection) -> int:
            return repair_routes(connection, now=self._hub.clock.now(), prefix_of=self._prefix_of)

        repaired = await self._hub.database.write(unit)
        self._hub.metrics.routes_checked(monotonic() - began)
        if repaired:
            log.warning("routes_repaired", routes=repaired)
            self._hub.routes.strike()

    def _prefix_of(self, user: str, server: str) -> str:
        return server_prefix(self._hub.base_path, user, server)

    def _purge(self, connection: Connection) -> int:
        now = self._hub.clock.now()
        old_launches = select(launches.c.id).where(
            launches.c.status == Status.ENDED,
            launches.c.ended_at < now - self._hub.lifecycle.events_kept,
        )
        statements = (
            delete(sessions).where(sessions.c.expires_at < now),
            delete(oauth_codes).where(oauth_codes.c.expires_at < now),
            delete(signin_links).where(signin_links.c.expires_at < now),
            delete(signin_failures).where(signin_failures.c.last_at < now - _FAILURES_KEPT),
            delete(events).where(events.c.launch_id.in_(old_launches)),
            delete(volumes).where(volumes.c.deleted_at < now - self._hub.lifecycle.events_kept),
        )
        purged = sum(connection.execute(statement).rowcount for statement in statements)
        purged += delete_expired(connection, now)
        purge_workers(connection, before=now - _TOMBSTONES_KEPT)
        return purged + purge_tombstones(connection, before=now - _TOMBSTONES_KEPT)
