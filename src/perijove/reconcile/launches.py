"""Claims due launches and runs their steps, many at once, each under its own lease."""

from datetime import datetime

import anyio
import structlog
from anyio.abc import TaskGroup
from sqlalchemy import Connection

from perijove.db import launches as rows
from perijove.db.core import bound
from perijove.db.events import record
from perijove.domain.asking import HUB
from perijove.domain.launch import Launch, Status
from perijove.kit.ids import new_id
from perijove.kit.loops import every
from perijove.reconcile.probe import Prober
from perijove.reconcile.steps import Steps
from perijove.services.hub import Hub
from perijove.services.specs import issue_server_token

log = structlog.get_logger()

PERIOD = 1.0
"""Seconds after which due launches are looked for although nobody rang."""
AT_ONCE = 200
"""Steps one replica runs at the same time."""


class LaunchLoop:
    """One replica's share of the launches."""

    def __init__(self, hub: Hub, prober: Prober) -> None:
        self._hub = hub
        self._token = new_id("lease")
        self._steps = Steps(hub, prober, token=self._token)
        self._ttl = hub.lifecycle.takeover
        self._running: set[str] = set()

    async def pass_once(self, tasks: TaskGroup) -> None:
        """Submit who is next in line, claim what is due, and start its steps in `tasks`."""
        room = AT_ONCE - len(self._running)
        if room <= 0 or not await self._hub.database.read(self._is_work):
            return

        under_way = list(self._running)

        def unit(connection: Connection) -> tuple[list[str], list[Launch]]:
            now = self._hub.clock.now()
            submitted = self._advance_lines(connection, now)
            # What is under way is ours: its lease is renewed, or was given back this moment.
            claimed = rows.claim_due(
                connection,
                token=self._token,
                now=now,
                ttl=self._ttl,
                limit=room,
                but=under_way,
            )
            return submitted, claimed

        submitted, claimed = await self._hub.database.write(unit)
        if submitted:
            self._hub.events.strike(*submitted)
        self._running.update(launch.id for launch in claimed)
        for launch in claimed:
            tasks.start_soon(self._run, launch)
        if claimed:
            self._hub.look.ring()

    async def renew(self) -> None:
        """
        Keep the leases of the steps that run; a hub that hangs or dies loses them soon.

        Only theirs: a lease that could not be given back must run out.
        """
        if running := list(self._running):
            await self._hub.database.write(
                bound(rows.renew, running, token=self._token, ttl=self._ttl)
            )

    async def _run(self, launch: Launch) -> None:
        try:
            await self._steps.step(launch)
        except Exception:
            # The lease runs out by itself; the next claim repairs.
            log.exception("step_lost", launch=launch.id)
        finally:
            self._running.discard(launch.id)
            self._hub.due.ring()

    def _is_work(self, connection: Connection) -> bool:
        due = rows.next_due(connection)
        if due is not None and due <= self._hub.clock.now():
            return True
        return any(self._room(connection, name) > 0 for name in rows.spawners_with_line(connection))

    def _room(self, connection: Connection, spawner: str) -> int:
        placed = self._hub.spawners.get(spawner)
        if placed is None:
            return 0
        return placed.settings.max_starting - rows.count_on_the_way(connection, spawner)

    def _advance_lines(self, connection: Connection, now: datetime) -> list[str]:
        """Write the intent to submit for as many launches as each spawner has room for."""
        advanced = []
        for spawner in rows.spawners_with_line(connection):
            rows.lock_line(connection, spawner)
            room = self._room(connection, spawner)
            if room <= 0:
                continue
            for launch in rows.line_of(connection, spawner, limit=room):
                submitted = rows.change(
                    connection, launch, now=now, status=Status.SUBMITTED, due_at=now
                )
                issue_server_token(self._hub, connection, submitted)
                record(connection, launch.id, "submitted", {}, asking=HUB, now=now)
                advanced.append(launch.id)
        return advanced


async def run_launches(hub: Hub, prober: Prober) -> None:
    """Step launches until cancelled."""
    loop = LaunchLoop(hub, prober)
    async with anyio.create_task_group() as tasks:

        async def pass_once() -> None:
            await loop.pass_once(tasks)

        async def renew() -> None:
            third = hub.lifecycle.takeover.total_seconds() / 3
            await every(third, loop.renew, name="renew", deadline=2 * third)

        tasks.start_soon(renew)
        await every(PERIOD, pass_once, name="launches", deadline=30, wait=hub.due.wait)
