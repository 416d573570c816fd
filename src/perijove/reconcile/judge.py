"""
Judgements on what was seen: pure functions, one place for each rule.

A platform's answer is three-valued: alive, gone (with evidence), or unknown; *unknown never
means gone* (design decision 5). Time-outs count only time in which a hub could hear
(design decision 7).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from perijove.domain.launch import CLOCK_OF, Cause, Clock, End, Launch, Reason, Status
from perijove.domain.policy import queue_limit
from perijove.domain.reasons import PREPARING, find_reason
from perijove.spawners.contract import Phase, Sighting, SpawnerSettings, Survey

ABSENCES_TO_BE_GONE: Final = 2
"""Complete answers, one after the other, that must not show a launch."""
BREAKER_SHARE: Final = 0.1
BREAKER_LEAST: Final = 3
"""More absences at once than both of these: a sick platform is likelier than a mass death."""
BREAKER_HOLD: Final = timedelta(minutes=10)
"""How long the platform must go on saying so before the breaker believes it."""

ESTIMATE_PERIOD: Final = timedelta(minutes=1)
"""How old the mark of a forecast may get that the platform repeats with every answer."""

_RUNS = (Status.STARTING, Status.CONNECTING, Status.READY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a sighting changes of a launch's row."""

    values: Mapping[str, Any]
    """Columns to write; ``status`` only when it changes."""
    event: str = ""
    """Code of the event to record, if this is news."""
    params: Mapping[str, Any]
    end: End | None = None
    """The evidence, when the platform says it is over."""

    def __bool__(self) -> bool:
        return bool(self.values) or self.end is not None


_NAME: Final = re.compile(r"pj-[a-z0-9-]{1,60}")
_URL: Final = re.compile(
    r"https?://[A-Za-z0-9.-]+:\d{1,5}|https?://\[[0-9a-f:.]+\]:\d{1,5}|unix:/[^\x00]+"
)


def sensible(survey: Survey) -> Survey:
    """
    Return an answer without what makes no sense in it; it is complete only if all of it did.

    What cannot be a name of ours, ends without evidence, listens nowhere, or is there twice
    and not alike, says nothing about anything: unknown, never gone. Raises `ValueError` for an
    answer that is none at all.
    """
    answer: object = survey  # a driver's promise is worth checking: plug-ins come from anywhere
    if not isinstance(answer, Survey):
        raise ValueError(f"not a survey: {type(answer).__name__}")
    by_name: dict[tuple[str, str], list[Sighting]] = {}
    for sighting in survey.sightings:
        key = (str(getattr(sighting, "name", "")), str(getattr(sighting, "owner", "")))
        by_name.setdefault(key, []).append(sighting)
    kept = [same[0] for same in by_name.values() if len(same) == 1 and is_sensible(same[0])]
    complete = survey.complete and len(kept) == len(by_name)
    return Survey(complete=complete, sightings=kept)


_TYPES: Final[Mapping[str, Any]] = {
    "name": str,
    "phase": Phase,
    "handle": Mapping | None,
    "owner": str,
    "url": str,
    "node": str,
    "reason": Reason | None,
    "end": End | None,
    "expected_start": datetime | None,
    "ends_at": datetime | None,
}


def is_of(sighting: Sighting, launch: Launch) -> bool:
    """Tell whether what carries a launch's name also belongs to its user."""
    return sighting.name == launch.name and sighting.owner in ("", launch.user_name)


def is_sensible(sighting: object) -> bool:
    """Tell whether what a spawner says of one thing can be believed at all."""
    if not isinstance(sighting, Sighting):
        return False
    if not all(isinstance(getattr(sighting, name), kind) for name, kind in _TYPES.items()):
        return False
    return (
        _NAME.fullmatch(sighting.name) is not None
        and (not sighting.url or _URL.fullmatch(sighting.url) is not None)
        and (sighting.phase is not Phase.GONE or sighting.end is not None)
    )


def is_outdated(launch: Launch, sighting: Sighting, asked_at: datetime) -> bool:
    """
    Tell whether an answer that shows a launch waiting is older than what is known of it.

    Since `asked_at` its server has spoken, or its job has, or a younger answer has shown it
    running: a platform may take long to say how things were.
    """
    if sighting.phase not in (Phase.PENDING, Phase.HELD):
        return False
    if launch.heard_at is not None and launch.heard_at >= asked_at:
        return True
    return launch.status in _RUNS and launch.entered_at() >= asked_at


def read_sighting(launch: Launch, sighting: Sighting, *, now: datetime) -> Change:
    """Return what a sighting of a live launch changes; nothing for one that is ending."""
    if launch.status in (Status.ENDING, Status.ENDED):
        return Change(values={}, params={})
    values: dict[str, Any] = {}
    if launch.unknown_since is not None:
        values["unknown_since"] = None
    if launch.absences:
        values["absences"] = 0
    if sighting.phase is Phase.GONE:
        return Change(values=values, params={}, end=sighting.end or End(cause=Cause.UNKNOWN))
    if end := _hopeless(sighting):
        return Change(values=values, params={}, end=end)
    if sighting.node and sighting.node != launch.node:
        values["node"] = sighting.node
    if sighting.url and sighting.url != launch.url:
        values["url"] = sighting.url
    if sighting.phase in (Phase.PENDING, Phase.HELD) and launch.url:
        values["url"] = ""  # requeued: where it listened, somebody else may soon
    values |= _times(launch, sighting, now)
    status = _status_of(launch, sighting)
    event = ""
    if status is not launch.status:
        values["status"] = status
        event = str(status)
        if launch.failures:
            values["failures"] = 0  # They were of what is over by now.
    reason = sighting.reason if status in (Status.QUEUED, Status.HELD, Status.SUSPENDED) else None
    if _is_other(reason, launch.reason):
        values["reason"] = reason
        event = event or ("reason" if reason else "")
    if not event and "unknown_since" in values:
        event = "seen-again"
    return Change(values=values, event=event, params=_params(status, sighting, reason))


def _hopeless(sighting: Sighting) -> End | None:
    """Return the end of what waits for something that cannot happen (anchors 4.11.3)."""
    reason = sighting.reason
    if sighting.phase not in (Phase.PENDING, Phase.HELD) or reason is None:
        return None
    if not find_reason(reason.code).can_never_start:
        return None
    return End(cause=Cause.NEVER_STARTED, reason=reason.code, detail=reason.words)


def _times(launch: Launch, sighting: Sighting, now: datetime) -> Mapping[str, Any]:
    """Return what changed of when it will start and end; a forecast is renewed once a minute."""
    values: dict[str, Any] = {}
    age = now - (launch.estimated_at or datetime.min.replace(tzinfo=UTC))
    if sighting.expected_start != launch.expected_start or (
        sighting.expected_start is not None and age >= ESTIMATE_PERIOD
    ):
        values["expected_start"] = sighting.expected_start
        values["estimated_at"] = now if sighting.expected_start is not None else None
    if sighting.ends_at is not None and sighting.ends_at != launch.ends_at:
        values["ends_at"] = sighting.ends_at
    return values


def _status_of(launch: Launch, sighting: Sighting) -> Status:
    match sighting.phase:
        case Phase.PENDING:
            # A scheduler may requeue what ran. What only just was submitted stays so until
            # it is queued with a reason or runs.
            return Status.QUEUED
        case Phase.HELD:
            return Status.HELD
        case Phase.SUSPENDED:
            return Status.SUSPENDED
        case _:
            if launch.status is Status.READY:
                # Without an address its job was run again, and has not come up yet.
                return Status.READY if sighting.url or launch.url else Status.STARTING
            if launch.status is Status.SUSPENDED and launch.ready_at is not None:
                return Status.READY if launch.url else Status.STARTING
            return Status.CONNECTING if sighting.url or launch.url else Status.STARTING


def _is_other(new: Reason | None, old: Reason | None) -> bool:
    """Tell whether the reason is news; the words alone may change with every answer."""
    if new is None or old is None:
        return new is not old
    return (new.code, dict(new.params)) != (old.code, dict(old.params))


def _params(status: Status, sighting: Sighting, reason: Reason | None) -> Mapping[str, Any]:
    params: dict[str, Any] = {}
    if sighting.node and status in _RUNS:
        params["node"] = sighting.node
    if reason is not None:
        params["reason"] = reason.code
        params["reason_params"] = dict(reason.params)
        if reason.words:
            params["words"] = reason.words[:300]
    return params


def trips_breaker(absent: int, watched: int) -> bool:
    """
    Tell whether so many launches missing from one answer must not be believed at once.

    An answer that shows nothing of what was there is never believed at once: an empty list
    with exit status 0 is what a scheduler in trouble says (failure 5.3).
    """
    return absent > max(BREAKER_LEAST, BREAKER_SHARE * watched) or (0 < watched == absent)


# --- clocks -----------------------------------------------------------------------------------


def limit_of(clock: Clock, settings: SpawnerSettings, launch: Launch) -> timedelta | None:
    """Return a clock's limit for a launch; None where it has none."""
    limits: Mapping[str, Any] = launch.spec.get("limits", {})
    seconds = {
        Clock.SUBMIT: settings.submit_limit,
        Clock.QUEUE: queue_limit(limits, settings.queue_limit),
        Clock.START: settings.start_limit,
        Clock.CONNECT: settings.connect_limit,
    }[clock]
    return None if seconds is None else timedelta(seconds=seconds)


def deadline_of(
    launch: Launch, settings: SpawnerSettings, *, hearing_since: datetime
) -> tuple[Clock, datetime] | None:
    """
    Return which clock runs for a launch and when it runs out; None when none does.

    Time in which no hub could hear is not counted, nor while the platform says that it prepares
    what the launch needs: it gives up by itself.
    """
    clock = CLOCK_OF.get(launch.status)
    if clock is None or (clock is Clock.SUBMIT and _is_preparing(launch)):
        return None
    limit = limit_of(clock, settings, launch)
    if limit is None:
        return None
    began = launch.entered_at()
    if clock is Clock.QUEUE and launch.queue_extended_at is not None:
        began = max(began, launch.queue_extended_at)
    return clock, max(began, hearing_since) + limit


def _is_preparing(launch: Launch) -> bool:
    return launch.reason is not None and launch.reason.code in PREPARING


def out_of_time(clock: Clock, limit: timedelta) -> End:
    """Return the end of a launch whose clock ran out."""
    return End(
        cause=Cause.NEVER_STARTED,
        reason=f"{clock}-clock",
        detail=f"Spawn failed: Timeout. The {clock} clock ran out after "
        f"{int(limit.total_seconds())} s.",
    )


def walltime_ends_at(
    launch: Launch, *, hearing_since: datetime, hearing: timedelta
) -> datetime | None:
    """
    Return when a ready launch's own time is over; None when it has no limit.

    Never before its server had time to be heard again after the hub's own absence. A platform
    that says itself when it will end it (and may have been asked to put that off) does so.
    """
    if launch.ends_at is not None:
        return None
    seconds = launch.spec.get("resources", {}).get("time_seconds")
    started = launch.starting_at or launch.connecting_at or launch.ready_at
    if seconds is None or started is None:
        return None
    planned = started + timedelta(seconds=seconds)
    if hearing_since <= started:
        return planned
    return max(planned, hearing_since + hearing)
