"""
The observer: what each platform says, written down; what nobody owns, found.

One lease holder per spawner, whichever replica it is. Here, and only here, is decided what
*absent* means (design decision 5): missing from two complete answers, one after the other,
no sign of life from the server itself, and not so many at once that the platform is likelier
to be sick than they are to be dead.
"""

import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import anyio
import structlog
from sqlalchemy import Connection

from perijove.db import launches as rows
from perijove.db.core import bound
from perijove.db.events import record
from perijove.db.leases import take_lease
from perijove.db.registrations import find_registration
from perijove.db.spawner_states import (
    find_state,
    forget_orphan,
    list_orphans,
    note_orphan,
    save_state,
)
from perijove.domain.asking import HUB
from perijove.domain.errors import LeaseLost
from perijove.domain.launch import ON_PLATFORM, Cause, End, Launch, Status, Wanted
from perijove.kit.clock import monotonic
from perijove.kit.ids import new_id
from perijove.kit.loops import for_each
from perijove.reconcile.judge import (
    ABSENCES_TO_BE_GONE,
    BREAKER_HOLD,
    is_of,
    is_outdated,
    read_sighting,
    sensible,
    trips_breaker,
)
from perijove.reconcile.probe import Prober
from perijove.reconcile.steps import apply_change
from perijove.services.hub import Hub, PlacedSpawner, server_prefix
from perijove.services.launches import mark_end
from perijove.spawners.contract import (
    AsksAsPeople,
    CountsCalls,
    Phase,
    Remembers,
    Sighting,
    Survey,
    TakesTurns,
    TellsChanges,
)

log = structlog.get_logger()

SURVEY_DEADLINE = 60.0
"""Seconds a platform has to answer one survey."""
CLOCKS_APART = timedelta(seconds=30)
"""How far a platform's clock may be ahead of ours."""
SWEEP_SECONDS = 30.0
"""Seconds between two surveys for removing what nobody owns."""
_AT_ONCE = 20
"""Servers that are asked, and leftovers that are removed, at the same time."""
_UNLESS_IT_MOVES = suppress(LeaseLost)
"""Around a change: a launch whose own step writes it at this moment waits for the next answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Findings:
    """What one complete or partial answer leaves to be done outside the unit that wrote it."""

    missing: Sequence[Launch]
    """Not in a complete answer: the platform may still remember how they ended."""
    absent: Sequence[Launch]
    """Missing often enough to be gone, unless they give a sign of life."""
    leftovers: Sequence[Sighting]
    """Of ours on the platform, but of no live launch: to be removed now."""


class Observer:
    """Watches one spawner for one replica."""

    def __init__(self, hub: Hub, name: str, placed: PlacedSpawner, prober: Prober) -> None:
        self._hub = hub
        self._name = name
        self._placed = placed
        self._prober = prober
        self._token = new_id("observer")
        self._began: float | None = monotonic()

    async def pause(self, _seconds: float) -> None:
        """Wait until the next survey is due: soon while something is on its way or has changed."""
        longest = self._period()
        shortest = _spread(min(self._period(is_busy=True), longest))
        if await self._hub.database.read(self._is_busy):
            await anyio.sleep(shortest)
            return
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._await_change, shortest, tasks.cancel_scope)
            await self._hub.look.wait(_spread(longest))
            tasks.cancel_scope.cancel()

    def _period(self, *, is_busy: bool = False) -> float:
        """Return how far apart surveys are: no closer than the platform may be asked."""
        settings, spawner = self._placed.settings, self._placed.spawner
        wished = settings.survey_busy_period if is_busy else settings.survey_period
        return max(wished, spawner.pace) if isinstance(spawner, TakesTurns) else wished

    async def _await_change(self, shortest: float, pause: anyio.CancelScope) -> None:
        """End a pause when the platform tells of a change, but not before `shortest`."""
        spawner = self._placed.spawner
        if not isinstance(spawner, TellsChanges):
            return
        await anyio.sleep(shortest)
        try:
            await spawner.changed()
        except Exception as error:  # noqa: BLE001 - whatever a driver raises, surveys go on
            log.warning("platform_tells_nothing", spawner=self._name, error=str(error)[:200])
        else:
            pause.cancel()

    def _show_calls(self) -> None:
        spawner, metrics = self._placed.spawner, self._hub.metrics
        if isinstance(spawner, CountsCalls):
            metrics.scheduler_calls(self._name, spawner.calls())
        if isinstance(spawner, AsksAsPeople):
            metrics.scheduler_calls(self._name, spawner.calls_as_people(), account="person")

    def _deadline(self) -> float:
        """Return how long a platform may take: what waits for its turn has not asked it yet."""
        spawner = self._placed.spawner
        return SURVEY_DEADLINE + (spawner.patience if isinstance(spawner, TakesTurns) else 0)

    def _is_busy(self, connection: Connection) -> bool:
        return rows.count_on_the_way(connection, self._name) > 0

    async def look(self) -> None:
        """Survey the platform once, if the lease is ours, and write what changed."""
        # Should a survey outlast it another replica surveys too, which does no harm.
        ttl = self._hub.lifecycle.takeover + timedelta(seconds=self._period())
        lease = f"observe:{self._name}"
        if not await self._hub.database.write(bound(take_lease, lease, token=self._token, ttl=ttl)):
            return
        asked_at, began = self._hub.clock.now(), monotonic()
        self._show_calls()
        try:
            with anyio.fail_after(self._deadline()):
                survey = sensible(await self._placed.spawner.survey())
        except Exception as error:  # noqa: BLE001 - whatever a driver raises is silence
            log.warning("platform_silent", spawner=self._name, error=str(error)[:200])
            await self._hub.database.write(bound(self._note_silence, error))
            self._hub.events.strike()
            return

        self._hub.metrics.survey(monotonic() - began, running=bool(survey.sightings))
        if self._began is not None:  # the first answer since this hub started
            self._hub.metrics.spawners_checked(monotonic() - self._began)
            self._began = None

        def unit(connection: Connection) -> _Findings:
            return self._write_down(connection, survey, asked_at)

        findings = await self._hub.database.write(unit)
        self._hub.events.strike()
        self._hub.due.ring()
        await self._note_ends(findings.missing)
        await self._judge_absent(findings.absent)
        await self._sweep(findings.leftovers)

    # --- writing down ---------------------------------------------------------------------

    def _note_silence(self, connection: Connection, error: Exception) -> None:
        """No answer: since when, and that nothing is known of what runs there."""
        now = self._hub.clock.now()
        state = find_state(connection, self._name)
        words = str(error)[:500] or type(error).__name__
        save_state(connection, self._name, failing_since=state.failing_since or now, error=words)
        for launch in rows.list_live(connection, spawner=self._name):
            self._note_unknown(connection, launch, now)

    def _note_unknown(self, connection: Connection, launch: Launch, now: datetime) -> None:
        if launch.status not in ON_PLATFORM or launch.unknown_since is not None:
            return
        if launch.status is Status.SUBMITTED or launch.status is Status.ENDING:
            return  # its own step asks the platform, and says when that is silent
        with _UNLESS_IT_MOVES:
            rows.change(connection, launch, now=now, unknown_since=now)
            record(connection, launch.id, "unknown", {}, asking=HUB, now=now)

    def _write_down(
        self,
        connection: Connection,
        survey: Survey,
        asked_at: datetime,
    ) -> _Findings:
        now = self._hub.clock.now()
        live = {launch.name: launch for launch in rows.list_live(connection, spawner=self._name)}
        seen = set()
        leftovers = []
        strangers = list_orphans(connection, self._name)
        for sighting in survey.sightings:
            launch = live.get(sighting.name)
            if launch is not None and not is_of(sighting, launch):
                log.warning("forged_name", name=sighting.name, owner=sighting.owner[:80])
                continue
            seen.add(sighting.name)
            if launch is not None:
                if not is_outdated(launch, sighting, asked_at):
                    with _UNLESS_IT_MOVES:
                        self._see(connection, launch, sighting, now)
            elif self._is_leftover(connection, sighting, strangers, now):
                leftovers.append(sighting)
        for name in strangers:
            if name not in seen and survey.complete:
                forget_orphan(connection, self._name, name)
        missing = [
            launch
            for launch in live.values()
            if launch.name not in seen and _must_be_there(launch, asked_at)
        ]
        watched = sum(_must_be_there(launch, asked_at) for launch in live.values())
        absent = self._count_absences(connection, missing, survey, watched, now)
        changes: dict[str, Any] = {"answered_at": now, "failing_since": None, "error": ""}
        if find_state(connection, self._name).failing_since is not None:
            changes["answering_since"] = now
            for launch in live.values():
                if launch.failures:  # Its step has waited ever longer between two tries.
                    current = rows.get_launch(connection, launch.id)
                    with _UNLESS_IT_MOVES:
                        rows.change(connection, current, now=now, due_at=now)
        if survey.complete:
            changes["complete_at"] = asked_at
        save_state(connection, self._name, **changes)
        return _Findings(
            missing=missing if survey.complete else (), absent=absent, leftovers=leftovers
        )

    def _see(
        self, connection: Connection, launch: Launch, sighting: Sighting, now: datetime
    ) -> None:
        if launch.status is Status.REQUESTED:
            return  # a backup was restored: its own start will find it by name
        if sighting.handle is not None and launch.status is Status.SUBMITTED:
            rows.append_handle(connection, launch.id, sighting.handle, now=now)
        if sighting.phase is Phase.RUNNING and not launch.url and not sighting.url:
            sighting = replace(sighting, url=_known_address(connection, launch, sighting))
        change = read_sighting(launch, sighting, now=now)
        if change:
            apply_change(connection, launch, change, now=now)

    def _count_absences(
        self,
        connection: Connection,
        missing: Sequence[Launch],
        survey: Survey,
        watched: int,
        now: datetime,
    ) -> Sequence[Launch]:
        """Return who is missing often enough; all of them wait while the breaker holds."""
        state = find_state(connection, self._name)
        if not survey.complete:
            for launch in missing:
                self._note_unknown(connection, launch, now)
            return []
        absent = []
        for launch in missing:
            self._note_unknown(connection, launch, now)
            current = rows.get_launch(connection, launch.id)
            with _UNLESS_IT_MOVES:
                counted = rows.change(connection, current, now=now, absences=current.absences + 1)
                if counted.absences >= ABSENCES_TO_BE_GONE:
                    absent.append(counted)
        if not trips_breaker(len(missing), watched):
            if state.breaker_since is not None:
                save_state(connection, self._name, breaker_since=None, breaker_count=0)
            return absent
        since = state.breaker_since or now
        save_state(connection, self._name, breaker_since=since, breaker_count=len(missing))
        if state.breaker_since is None:
            log.error("mass_loss_held_back", spawner=self._name, missing=len(missing), of=watched)
        return absent if now - since >= BREAKER_HOLD else []

    def _is_leftover(
        self,
        connection: Connection,
        sighting: Sighting,
        strangers: Mapping[str, datetime],
        now: datetime,
    ) -> bool:
        """
        Tell whether something of ours that no live launch claims is to be removed now.

        What belongs to a launch that has ended is; what no record knows at all is left alone
        for a while, for the record may be on its way (or the database be yesterday's).
        """
        launch = rows.find_by_name(connection, sighting.name)
        if launch is not None:
            # One that lives is another spawner's: two may have the same platform.
            return launch.status is Status.ENDED and is_of(sighting, launch)
        first_seen_at = strangers.get(sighting.name)
        if first_seen_at is None:
            note_orphan(connection, self._name, sighting.name, owner=sighting.owner[:255], now=now)
            log.warning("orphan_seen", spawner=self._name, name=sighting.name)
            return False
        return bool(now - first_seen_at >= self._hub.lifecycle.orphan_grace)

    # --- acting ---------------------------------------------------------------------------

    async def _note_ends(self, missing: Sequence[Launch]) -> None:
        """Write the ends of those that the platform remembers, though its list has them no more."""
        spawner = self._placed.spawner
        if not missing or not isinstance(spawner, Remembers):
            return
        handles = await self._hub.database.read(
            bound(rows.last_handles, [launch.id for launch in missing])
        )
        by_name = {launch.name: handles[launch.id] for launch in missing if launch.id in handles}
        try:
            with anyio.fail_after(self._deadline()):
                ends = await spawner.find_ends(by_name)
        except Exception as error:  # noqa: BLE001 - whatever a driver raises is silence
            log.warning("platform_forgets", spawner=self._name, error=str(error)[:200])
            return

        def unit(connection: Connection) -> None:
            for launch in missing:
                current = rows.get_launch(connection, launch.id)
                if launch.name in ends and current.wanted is Wanted.RUN:
                    end, now = ends[launch.name], self._hub.clock.now()
                    mark_end(connection, current, end, asking=HUB, now=now)

        if ends:
            await self._hub.database.write(unit)
            self._hub.due.ring()
            self._hub.events.strike()

    async def _judge_absent(self, absent: Sequence[Launch]) -> None:
        """End what is missing and gives no sign of life; a server that answers is alive."""
        await for_each(absent, self._judge_one, at_once=_AT_ONCE)
        if absent:
            self._hub.due.ring()
            self._hub.events.strike()

    async def _judge_one(self, launch: Launch) -> None:
        if launch.url and launch.status in (Status.CONNECTING, Status.READY):
            prefix = server_prefix(self._hub.base_path, launch.user_name, launch.server_name)
            if await self._prober.answer(launch.url, prefix) is not None:
                log.warning("absent_but_alive", launch=launch.id, spawner=self._name)
                return
        await self._hub.database.write(bound(self._declare_gone, launch.id))

    def _declare_gone(self, connection: Connection, launch_id: str) -> None:
        launch = rows.get_launch(connection, launch_id)
        if launch.wanted is Wanted.RUN and launch.absences >= ABSENCES_TO_BE_GONE:
            cause = Cause.NEVER_STARTED if launch.ready_at is None else Cause.UNKNOWN
            end = End(cause=cause, reason="absent")
            mark_end(connection, launch, end, asking=HUB, now=self._hub.clock.now())

    async def _sweep(self, leftovers: Sequence[Sighting]) -> None:
        """
        Remove what is ours and nobody's; what takes longer is removed after the next answer.

        On some platforms anybody can name things as we do, as many as they like: that must not
        keep everybody from being seen.
        """
        with anyio.move_on_after(SWEEP_SECONDS):
            in_turn = random.sample(leftovers, len(leftovers))
            await for_each(in_turn, self._remove, at_once=_AT_ONCE)

    async def _remove(self, sighting: Sighting) -> None:
        grace = self._placed.settings.stop_grace
        try:
            with anyio.fail_after(self._deadline() + grace):
                await self._placed.spawner.stop(sighting.name, sighting.handle, grace=grace)
        except Exception as error:  # noqa: BLE001 - the next pass tries again
            log.warning("orphan_stays", name=sighting.name, error=str(error)[:200])
            return
        log.info("orphan_removed", spawner=self._name, name=sighting.name)
        await self._hub.database.write(bound(forget_orphan, self._name, sighting.name))


def _must_be_there(launch: Launch, asked_at: datetime) -> bool:
    """
    Tell whether a complete answer must show a launch.

    Not one that was handed over after the question was asked, nor one that is being removed,
    nor one whose submission has not come back yet: its own step knows more.
    """
    if launch.status not in ON_PLATFORM or launch.status in (Status.SUBMITTED, Status.ENDING):
        return False
    handed_over_at = launch.submitted_at
    return handed_over_at is not None and handed_over_at < asked_at


def _known_address(connection: Connection, launch: Launch, sighting: Sighting) -> str:
    """
    Return where a job listens that was lost sight of; empty when it has to say so itself.

    A scheduler that restarts may show a running job as waiting for a moment. It is the same run
    if it began before it registered; one that began later has another address.
    """
    known = find_registration(connection, launch.id)
    handle = sighting.handle or {}
    if known is None or known.listening_at is None or known.job_id != handle.get("job_id"):
        return ""
    latest = known.registered_at + CLOCKS_APART
    began_before = sighting.since is not None and sighting.since <= latest
    return known.url if began_before else ""


def _spread(period: float) -> float:
    """Return about `period`: observers that began together do not go on together."""
    return period * random.uniform(0.9, 1.1)  # noqa: S311 - nothing secret
