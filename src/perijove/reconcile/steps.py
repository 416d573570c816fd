"""
One step of one launch: load under the lease, act with no transaction open, apply.

A step is idempotent. Killed anywhere, the next one finishes or undoes the work: the intent
(`submitted`, `ending`) is written before the act, the handle by `checkpoint` as soon as
anything exists, and the end only on evidence.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import anyio
import structlog
from sqlalchemy import Connection

from perijove.db import launches as rows
from perijove.db.core import bound
from perijove.db.events import record
from perijove.db.installation import hearing_since
from perijove.db.notify import notify
from perijove.db.routes import live_workers, put_route, remove_routes
from perijove.db.servers import remove_if_asked
from perijove.db.spawner_states import SpawnerState, find_state
from perijove.domain.asking import HUB
from perijove.domain.errors import (
    LeaseLost,
    SpawnerError,
    SpawnerPending,
    SpawnerRejected,
    SpawnerTransient,
)
from perijove.domain.launch import Cause, Clock, End, Launch, Reason, Status, Wanted
from perijove.kit.backoff import backoff
from perijove.kit.clock import monotonic
from perijove.reconcile.judge import (
    Change,
    deadline_of,
    is_of,
    is_outdated,
    is_sensible,
    limit_of,
    out_of_time,
    read_sighting,
    sensible,
    walltime_ends_at,
)
from perijove.reconcile.probe import Answer, Prober
from perijove.services.hub import Hub, PlacedSpawner, server_prefix
from perijove.services.launches import mark_end
from perijove.services.specs import revoke_server_token, spec_of
from perijove.spawners.contract import ChecksListener, Handle, HasLogs, Sighting

log = structlog.get_logger()

STEP_DEADLINE = 60.0
"""Seconds one step may take, besides the grace a server has to end."""
_AWAKE = 20.0
"""Seconds a connecting step stays awake before it gives its place to another."""
ANSWER_TIME = timedelta(minutes=15)
"""How long a person has to say whether to go on waiting; not longer than the limit itself."""
_LOG_DEADLINE = 20.0
"""Seconds a platform has to show what a server that ended has written."""
_ROUTED_WITHIN = 2.0
"""Seconds after which a route counts as known to the workers that live (design §2.4)."""
_STRANGER = timedelta(seconds=5)
"""How long a stranger may listen at a launch's address before the start has failed."""


class Steps:
    """Does the steps of launches for one replica, holding leases under `token`."""

    def __init__(self, hub: Hub, prober: Prober, *, token: str) -> None:
        self._hub = hub
        self._prober = prober
        self._token = token

    async def step(self, launch: Launch) -> None:
        """Bring a claimed launch one step on, and give its lease back."""
        with structlog.contextvars.bound_contextvars(launch=launch.id, user=launch.user_name):
            try:
                with anyio.fail_after(STEP_DEADLINE + launch_grace(self._hub, launch)):
                    await self._act(launch)
            except LeaseLost:
                log.info("lease_lost")
            except Exception as error:
                if not isinstance(error, (SpawnerError, TimeoutError)):
                    log.exception("step_failed", status=launch.status)
                await self._failed(launch, error)
            finally:
                with anyio.CancelScope(shield=True), anyio.move_on_after(10):
                    await self._hub.database.write(
                        bound(rows.release, launch.id, token=self._token)
                    )

    async def _act(self, launch: Launch) -> None:
        placed = self._hub.spawners.get(launch.spawner)
        if launch.wanted is Wanted.END or launch.status is Status.ENDING:
            if launch.status is Status.REQUESTED:
                await self._finish(launch, None)
            else:
                await self._end(launch, placed)
        elif placed is None:
            await self._write(launch, due=60, reason=Reason(code="spawner-missing"))
        elif launch.status is Status.CONNECTING:
            await self._connect(launch, placed)
        elif launch.url and launch.status in _BEFORE_CONNECTING:
            # Its own job says so, and is faster than the next answer of the platform.
            await self._write(
                launch, due=0, status=Status.CONNECTING, event="connecting", reason=None
            )
        elif launch.status is Status.SUBMITTED:
            await self._submit(launch, placed)
        else:
            await self._wait(launch, placed)

    # --- submitted ------------------------------------------------------------------------

    async def _submit(self, launch: Launch, placed: PlacedSpawner) -> None:
        """Start it on the platform; `start` is idempotent, so a crash here is repaired by it."""
        if await self._is_out_of_time(launch, placed):
            return

        recorded: list[Handle] = []

        async def checkpoint(handle: Handle) -> None:
            recorded.append(handle)
            await self._hub.database.write(
                bound(rows.append_handle, launch.id, handle, now=self._hub.clock.now())
            )

        asked_at = self._hub.clock.now()
        try:
            with anyio.fail_after(placed.settings.submit_limit):
                sighting = await self._seen_before(launch, placed)
                if sighting is None:
                    sighting = await placed.spawner.start(spec_of(self._hub, launch), checkpoint)
        except SpawnerPending as error:
            await self._is_prepared(launch, error)
            return
        except SpawnerRejected as error:
            reason = "rejected" if error.code == SpawnerRejected.code else error.code
            end = End(cause=Cause.NEVER_STARTED, reason=reason, detail=str(error))
            await self._over(launch, end)
            return
        if not is_sensible(sighting):
            raise SpawnerTransient("the platform's answer to the start makes no sense")
        if sighting.handle is not None and sighting.handle not in recorded:
            await checkpoint(sighting.handle)
        launch = await self._note_start(launch, sighting, asked_at)
        if launch.status is Status.CONNECTING and launch.wanted is Wanted.RUN:
            await self._connect(launch, placed)  # it runs already: no need to be claimed again

    async def _is_prepared(self, launch: Launch, error: SpawnerPending) -> None:
        """Say what the platform is preparing, and ask it again soon."""
        reason = Reason(code=error.code, params=error.params, words=str(error))
        is_news = launch.reason is None or launch.reason.code != reason.code
        await self._write(
            launch, due=1, failures=0, reason=reason, event="reason" if is_news else ""
        )

    async def _seen_before(self, launch: Launch, placed: PlacedSpawner) -> Sighting | None:
        """
        Look for the launch on the platform when an earlier try may have succeeded.

        A platform that has been silent is asked as well: what it is given then could be lost
        or not, and it takes time to find out which.
        """
        platform = await self._hub.database.read(bound(find_state, launch.spawner))
        if not launch.failures and platform.failing_since is None:
            return None
        survey = sensible(await placed.spawner.survey())
        return next((seen for seen in survey.sightings if is_of(seen, launch)), None)

    # --- queued, starting, ready ----------------------------------------------------------

    async def _wait(self, launch: Launch, placed: PlacedSpawner) -> None:
        """Judge the clocks of a launch that others move on; due again when one may run out."""
        if await self._is_out_of_time(launch, placed):
            return
        since = await self._hub.database.read(hearing_since)
        now = self._hub.clock.now()
        if launch.status is Status.READY:
            hearing = 2 * self._hub.lifecycle.reporting_period
            at = walltime_ends_at(launch, hearing_since=since, hearing=hearing)
            if at is not None and at <= now:
                await self._over(launch, End(cause=Cause.WALLTIME))
                return
        else:
            deadline = deadline_of(launch, placed.settings, hearing_since=since)
            at = deadline[1] if deadline else None
        # A deadline that may not be judged yet is looked at again soon.
        await self._write(launch, at=max(at, now + timedelta(seconds=2)) if at else None)

    async def _is_out_of_time(self, launch: Launch, placed: PlacedSpawner) -> bool:
        """
        End a launch whose clock ran out; only after one complete observation since we hear.

        A platform that is silent makes nobody late: its silence is not counted either.
        """
        earliest = deadline_of(launch, placed.settings, hearing_since=launch.entered_at())
        if earliest is None or earliest[1] > self._hub.clock.now():
            return False  # deafness only ever puts it off: nothing to be read yet

        def read(connection: Connection) -> tuple[datetime, SpawnerState]:
            return hearing_since(connection), find_state(connection, launch.spawner)

        since, platform = await self._hub.database.read(read)
        if platform.failing_since is not None:
            return False
        since = max(since, platform.answering_since or since)
        deadline = deadline_of(launch, placed.settings, hearing_since=since)
        if deadline is None or deadline[1] > self._hub.clock.now():
            return False
        complete_at = platform.complete_at
        if complete_at is None or complete_at < max(since, launch.entered_at()):
            return False
        limit = limit_of(deadline[0], placed.settings, launch)
        assert limit is not None
        if deadline[0] is Clock.QUEUE and not _is_given_up(launch, limit, self._hub.clock.now()):
            await self._ask(launch, min(limit, ANSWER_TIME))
            return True
        await self._over(launch, out_of_time(deadline[0], limit))
        return True

    async def _ask(self, launch: Launch, again: timedelta) -> None:
        """Ask whether to go on waiting, once; meanwhile it keeps its place (failure 5.1)."""
        asked = launch.queue_asked_at is not None
        await self._write(
            launch,
            due=again.total_seconds(),
            event="" if asked else "queue-limit",
            **({} if asked else {"queue_asked_at": self._hub.clock.now()}),
        )

    # --- connecting -----------------------------------------------------------------------

    async def _connect(self, launch: Launch, placed: PlacedSpawner) -> None:
        """Stay awake until the server answers and its route is known; then it is ready."""
        prefix = server_prefix(self._hub.base_path, launch.user_name, launch.server_name)
        answer = await self._until_answer(launch, placed, prefix)
        if answer is None:
            return
        began = monotonic()
        launch = await self._publish(launch, prefix, answer)
        if await self._until_routed(launch):
            now = self._hub.clock.now()
            self._hub.metrics.route_added("success", monotonic() - began)
            waited = now - launch.requested_at
            self._hub.metrics.spawn("success", waited.total_seconds())
            since = await self._hub.database.read(hearing_since)
            at = walltime_ends_at(launch, hearing_since=since, hearing=timedelta(0))
            await self._write(
                launch,
                at=at,
                status=Status.READY,
                event="ready",
                reason=None,
                heard_at=now,
                last_activity=now,
                activity_source="start",
            )

    async def _until_answer(
        self, launch: Launch, placed: PlacedSpawner, prefix: str
    ) -> Answer | None:
        """
        Return the server's answer, or None when somebody else has to act first.

        An address where a stranger listens is never asked anything: the launch must own it.
        """
        began = monotonic()
        while monotonic() - began < _AWAKE:
            owned = await owns_listener(self._hub, launch, placed)
            if owned is False:
                if self._hub.clock.now() - launch.entered_at() > _STRANGER:
                    detail = f"another program listens at {launch.url}"
                    end = End(cause=Cause.NEVER_STARTED, reason="port-taken", detail=detail)
                    await self._over(launch, end)
                    return None
            elif owned is None:
                pass  # nobody listens there yet
            elif answer := await self._prober.answer(launch.url, prefix):
                return answer
            elapsed = self._hub.clock.now() - launch.entered_at()
            await anyio.sleep(0.1 if elapsed < timedelta(seconds=10) else 0.5)
            now_is = await self._hub.database.read(bound(rows.get_launch, launch.id))
            if now_is.wanted is Wanted.END or now_is.status is not Status.CONNECTING:
                return None
            if now_is.url != launch.url:
                launch = now_is
            if await self._is_out_of_time(launch, placed):
                return None
        await self._write(launch, due=0)
        return None

    async def _publish(self, launch: Launch, prefix: str, answer: Answer) -> Launch:
        """Put the route into the table; from here on the proxies may send people there."""

        def unit(connection: Connection) -> Launch:
            now = self._hub.clock.now()
            current = rows.get_launch(connection, launch.id)
            if current.wanted is Wanted.END or current.status is not Status.CONNECTING:
                raise LeaseLost(f"launch {launch.id} is to end")
            revision = put_route(connection, prefix=prefix, target=current.url, launch_id=launch.id)
            if current.route_revision is None:
                record(connection, launch.id, "routed", {}, asking=HUB, now=now)
            notify(connection, "routes")
            return rows.change(
                connection,
                current,
                now=now,
                lease=self._token,
                route_revision=revision,
                server_version=answer.version,
            )

        changed = await self._hub.database.write(unit)
        self._hub.routes.strike()
        return changed

    async def _until_routed(self, launch: Launch) -> bool:
        """Return True when every live proxy worker uses a table with the launch's route."""
        revision = launch.route_revision or 0
        began = monotonic()
        while True:
            strike = self._hub.workers.listen()
            workers = await self._hub.database.read(bound(live_workers, now=self._hub.clock.now()))
            waited = monotonic() - began
            if workers and (
                waited >= _ROUTED_WITHIN or all(worker.revision >= revision for worker in workers)
            ):
                return True
            if not workers and waited >= _ROUTED_WITHIN:
                reason = launch.reason
                if reason is None or reason.code != "proxy-away":
                    reason = Reason(code="proxy-away")
                    await self._write(launch, due=1, reason=reason, event="proxy-away")
                else:
                    await self._write(launch, due=1)
                return False
            with anyio.move_on_after(0.1):
                await strike.wait()

    # --- ending ---------------------------------------------------------------------------

    async def _end(self, launch: Launch, placed: PlacedSpawner | None) -> None:
        """Take the route away, remove it from the platform, and write the end on evidence."""
        if launch.status is not Status.ENDING:
            launch = await self._begin_end(launch)
        if placed is None:
            await self._write(launch, due=60, reason=Reason(code="spawner-missing"))
            return
        handles = await self._hub.database.read(bound(rows.list_handles, launch.id))
        await self._keep_log(launch, placed, handles)
        grace = placed.settings.stop_grace
        evidence = None
        with anyio.fail_after(STEP_DEADLINE + grace):
            for handle in to_stop(handles) or (None,):
                evidence = await placed.spawner.stop(launch.name, handle, grace=grace) or evidence
        await self._finish(launch, evidence)

    async def _begin_end(self, launch: Launch) -> Launch:
        """Write that it is being removed: no route, no token, before the platform is asked."""

        def unit(connection: Connection) -> Launch:
            now = self._hub.clock.now()
            current = rows.get_launch(connection, launch.id)
            if current.status in (Status.ENDING, Status.ENDED):
                return current
            remove_routes(connection, launch.id, now=now)
            revoke_server_token(connection, current)
            cause = str(current.end.cause) if current.end else str(Cause.UNKNOWN)
            record(connection, launch.id, "ending", {"cause": cause}, asking=HUB, now=now)
            notify(connection, "routes")
            return rows.change(
                connection, current, now=now, lease=self._token, status=Status.ENDING, reason=None
            )

        began = monotonic()
        changed = await self._hub.database.write(unit)
        self._hub.metrics.route_deleted("success", monotonic() - began)
        self._hub.routes.strike()
        self._hub.events.strike(launch.id)
        return changed

    async def _keep_log(self, launch: Launch, placed: PlacedSpawner, handles: list[Handle]) -> None:
        """Note the last lines of a server that ended by itself, for the page that tells of it."""
        if launch.end is None or launch.end.detail or not isinstance(placed.spawner, HasLogs):
            return
        if launch.end.cause not in _TELLS_LOG:
            return
        handle = handles[0] if handles else None
        try:
            with anyio.fail_after(_LOG_DEADLINE):
                tail = await placed.spawner.log_tail(launch.name, handle, lines=50)
        except Exception as error:  # noqa: BLE001 - what cannot be told must not keep it from ending
            log.warning("log_lost", error=str(error)[:200])
            return

        def unit(connection: Connection) -> None:
            current = rows.hold_launch(connection, launch.id)
            if current.end is not None and tail:
                end = End(
                    cause=current.end.cause,
                    code=current.end.code,
                    reason=current.end.reason,
                    detail=tail[-4000:],
                )
                rows.change(connection, current, now=self._hub.clock.now(), end=end)

        await self._hub.database.write(unit)

    async def _finish(self, launch: Launch, evidence: Sighting | None) -> None:
        """Write the end. What was asked or seen first is the cause; else the evidence is."""

        def unit(connection: Connection) -> Launch | None:
            now = self._hub.clock.now()
            current = rows.get_launch(connection, launch.id)
            if current.status is Status.ENDED:
                return None
            end = current.end or (evidence.end if evidence else None) or End(cause=Cause.UNKNOWN)
            ended = rows.change(
                connection,
                current,
                now=now,
                lease=self._token,
                status=Status.ENDED,
                end=end,
                due_at=None,
                unknown_since=None,
                reason=None,
            )
            params = {"cause": str(end.cause), "code": end.code, "reason": end.reason}
            record(connection, launch.id, "ended", params, asking=HUB, now=now)
            if current.server_id is not None:
                remove_if_asked(connection, current.server_id)
            notify(connection, "due")
            return ended

        ended = await self._hub.database.write(unit)
        if ended is not None:
            log.info("launch_ended", end=str(ended.end))
            self._count_end(ended)
        self._hub.events.strike(launch.id)
        self._hub.due.ring()

    def _count_end(self, launch: Launch) -> None:
        ended_at = launch.ended_at or self._hub.clock.now()
        if launch.ending_at is not None:
            self._hub.metrics.stop("success", (ended_at - launch.ending_at).total_seconds())
        if launch.ready_at is None and launch.end and launch.end.cause not in _ASKED_FOR:
            reason = "exited" if launch.end.cause in (Cause.EXITED, Cause.SIGNAL) else ""
            waited = (ended_at - launch.requested_at).total_seconds()
            self._hub.metrics.spawn("failure", waited, reason)

    # --- writing --------------------------------------------------------------------------

    async def _over(self, launch: Launch, end: End) -> None:
        """Write that it is to end for a reason of our own or one that was seen."""
        await self._locked(
            launch,
            lambda connection, current, now: mark_end(
                connection, current, end, asking=HUB, now=now
            ),
        )
        self._hub.due.ring()

    async def _note_start(self, launch: Launch, sighting: Sighting, asked_at: datetime) -> Launch:
        """
        Write what the answer to a start says; returns the launch as it is then.

        Its job may run and have registered before the answer came: that is not taken back.
        """

        def unit(connection: Connection) -> Launch:
            current = rows.hold_launch(connection, launch.id)
            now = self._hub.clock.now()
            change = Change(values={}, params={})
            if not is_outdated(current, sighting, asked_at):
                change = read_sighting(current, sighting, now=now)
            return apply_change(connection, current, change, now=now, lease=self._token, failures=0)

        changed = await self._hub.database.write(unit)
        self._hub.events.strike(launch.id)
        self._hub.due.ring()
        return changed

    async def _write(
        self,
        launch: Launch,
        *,
        due: float | None = None,
        at: datetime | None = None,
        event: str = "",
        **values: Any,
    ) -> None:
        """Write columns, an event, and when to look again: in `due` seconds, or `at`."""

        def work(connection: Connection, current: Launch, now: datetime) -> None:
            if launch.wanted is Wanted.RUN and _place(current) != _place(launch):
                return  # moved on meanwhile, by a request, its own job or the queue: due by that
            due_at = now + timedelta(seconds=due) if due is not None else at
            rows.change(connection, current, now=now, lease=self._token, due_at=due_at, **values)
            if event:
                reason = values.get("reason")
                params = dict(reason.params) if reason else {}
                record(connection, launch.id, event, params, asking=HUB, now=now)

        await self._locked(launch, work)

    async def _locked(
        self, launch: Launch, work: Callable[[Connection, Launch, datetime], object]
    ) -> None:
        def unit(connection: Connection) -> None:
            work(connection, rows.get_launch(connection, launch.id), self._hub.clock.now())

        await self._hub.database.write(unit)
        self._hub.events.strike(launch.id)

    async def _failed(self, launch: Launch, error: Exception) -> None:
        """Note that the platform could not do it, and try again later, ever more slowly."""
        failures = launch.failures + 1
        reason = Reason(
            code="spawner-silent" if isinstance(error, TimeoutError) else "spawner-failed",
            params={"tries": failures},
            words=str(error) if isinstance(error, SpawnerError) else type(error).__name__,
        )
        is_news = launch.reason is None or launch.reason.code != reason.code
        event = "start-failed" if is_news and launch.wanted is Wanted.RUN else ""

        def work(connection: Connection, current: Launch, now: datetime) -> None:
            if launch.wanted is Wanted.RUN and _place(current) != _place(launch):
                return  # moved on meanwhile, by its own job or the queue: it is due by that
            due_at = now + backoff(failures, cap=60)
            rows.change(
                connection,
                current,
                now=now,
                lease=self._token,
                due_at=due_at,
                failures=failures,
                reason=reason,
            )
            if event:
                record(connection, launch.id, event, dict(reason.params), asking=HUB, now=now)

        try:
            await self._locked(launch, work)
        except LeaseLost:
            log.info("lease_lost")


_ASKED_FOR = frozenset({Cause.USER, Cause.ADMIN})
_BEFORE_CONNECTING = frozenset({Status.SUBMITTED, Status.QUEUED, Status.HELD, Status.STARTING})
_TELLS_LOG = frozenset(
    {Cause.EXITED, Cause.SIGNAL, Cause.OUT_OF_MEMORY, Cause.UNKNOWN, Cause.NEVER_STARTED}
)


def _is_given_up(launch: Launch, limit: timedelta, now: datetime) -> bool:
    """Tell whether nobody answered for too long, where the policy minds that."""
    if launch.spec.get("limits", {}).get("queue_unanswered") != "cancel":
        return False
    asked_at = launch.queue_asked_at
    return asked_at is not None and now - asked_at >= min(limit, ANSWER_TIME)


def to_stop(handles: Sequence[Handle]) -> Sequence[Handle]:
    """
    Return the handles to stop a launch by: those that no other one completes.

    A spawner that learns more about a launch records a fuller handle of the same thing, as a
    batch system's when there is a job; to stop it once is enough.
    """
    return [
        handle
        for handle in handles
        if not any(handle != other and handle.items() <= other.items() for other in handles)
    ]


def _place(launch: Launch) -> tuple[Wanted, Status, str]:
    """Return how far a launch is, by all who may move it on."""
    return launch.wanted, launch.status, launch.url


async def owns_listener(hub: Hub, launch: Launch, placed: PlacedSpawner) -> bool | None:
    """
    Tell whether who listens at a launch's address belongs to it; None: nobody listens there.

    To be asked before anything is said to an address that others can take.
    """
    if not isinstance(placed.spawner, ChecksListener):
        return True
    handles = await hub.database.read(bound(rows.list_handles, launch.id))
    handle = handles[0] if handles else None
    return await placed.spawner.owns_listener(launch.name, handle, launch.url)


def launch_grace(hub: Hub, launch: Launch) -> float:
    """Return how much longer than a step a launch's platform may take to end it."""
    placed = hub.spawners.get(launch.spawner)
    return placed.settings.stop_grace if placed else 0.0


def apply_change(
    connection: Connection,
    launch: Launch,
    change: Change,
    *,
    now: datetime,
    lease: str | None = None,
    **values: Any,
) -> Launch:
    """
    Write what was seen of a launch, with its event; used by steps and by the observer.

    Evidence of its end makes it wanted to end, with that cause unless one was given before.
    """
    if launch.status in (Status.ENDING, Status.ENDED):
        return launch
    if change.end is not None:
        values = {**values, **change.values}
        if values:
            launch = rows.change(connection, launch, now=now, lease=lease, **values)
        if launch.wanted is Wanted.RUN:
            return mark_end(connection, launch, change.end, asking=HUB, now=now)
        return launch
    status = change.values.get("status", launch.status)
    launch = rows.change(
        connection,
        launch,
        now=now,
        lease=lease,
        due_at=now if launch.wanted is Wanted.RUN else False,
        **{**values, **change.values},
    )
    if change.event:
        record(connection, launch.id, change.event, change.params, asking=HUB, now=now)
    if status in (Status.QUEUED, Status.HELD) and launch.route_revision is not None:
        remove_routes(connection, launch.id, now=now)
        notify(connection, "routes")
    if status in (Status.QUEUED, Status.STARTING, Status.CONNECTING):
        notify(connection, "due")
    return launch
