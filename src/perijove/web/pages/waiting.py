"""The view of one launch: how a start goes, why it waits, how it ended."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from perijove.db.events import Event
from perijove.domain.launch import (
    OUTSIDE,
    WAITING,
    Cause,
    Launch,
    Status,
    Wanted,
)
from perijove.domain.offer import OwnJob, Reservation
from perijove.domain.reasons import Action, Known, find_reason, of_end
from perijove.services.overview import Shown
from perijove.services.waits import (
    WINDOW,
    Around,
    Room,
    Usual,
    cancel_command,
    is_asked,
    is_releasable,
)
from perijove.spawners.contract import SpawnerSettings
from perijove.web.pages.left import Left, time_left
from perijove.web.pages.views import (
    Chip,
    Fact,
    Links,
    State,
    Titles,
    chips_of,
    clock_limit,
    launch_chips,
    name_of,
    profile_title,
    state_of,
    state_word_of,
)
from perijove.web.texts import Texts, reasons, sentences
from perijove.web.texts.options import moment
from perijove.web.texts.sentence import Said

_PLAN: Final = (
    Status.REQUESTED,
    Status.SUBMITTED,
    Status.STARTING,
    Status.CONNECTING,
    Status.READY,
)
"""The steps of every start; a queue comes between where there was one."""
_QUIET: Final = {
    *("routed", "reason", "seen-again", "end-wanted", "submitted"),
    *("listening", "usage"),
}
"""Events that no step is made of: machinery, or said elsewhere on the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One line of the list of steps: done, now, later, or at fault."""

    text: str
    kind: str
    at: datetime | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the page of a launch is made of."""

    launch: Launch
    now: datetime
    base_path: str
    events: Sequence[Event] = ()
    line: tuple[int, int] | None = None
    """Its place in the hub's own line, and the length of that."""
    titles: Titles = field(default_factory=dict)
    around: Around = field(default_factory=Around)
    settings: SpawnerSettings | None = None
    log: str = ""
    is_one_of_several: bool = False
    """There are more platforms that can be silent than that of the launch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """Something else of the same person that may stand in the way."""

    name: str
    state: State
    chips: Sequence[Chip]
    stop_url: str = ""
    """Where it can be stopped from here."""
    command: str = ""
    """How it is cancelled elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Everything the page of a launch shows."""

    server: str
    state: State
    why: Said
    lasting: str
    """How long it has been so, where that is known."""
    words: str
    since: datetime | None
    unknown_since: datetime | None
    silent_since: datetime | None
    silent: str
    """Who it is that is silent, where there are several."""
    question: Said | None
    """What its owner is asked, since the limit of the queue was reached."""
    actions: Sequence[Action]
    """What helps, the most useful first."""
    is_impossible: bool
    """It was ended because it could never have started as it was asked for."""
    left: Left | None
    others: Sequence[Other]
    jobs: Sequence[Other]
    jobs_as_of: datetime | None
    chips: Sequence[Chip]
    facts: Sequence[Fact]
    steps: Sequence[Step]
    log: str
    diagnostic: str
    codes: Sequence[str]
    """What its end is called where people look it up."""
    is_live: bool
    is_moving: bool
    is_ready: bool
    is_ended: bool
    may_stop: bool
    may_release: bool
    may_start_again: bool
    """Waiting is no use: it is ended and the same asked for anew."""


def tell(texts: Texts, shown: Shown, seen: Seen) -> Told:
    """Return the view of a launch."""
    launch, events, around = seen.launch, seen.events, seen.around
    words, ending_log = _evidence(launch)
    known = _known(launch)
    why = _why(texts, launch, seen.line, seen.settings)
    return Told(
        server=name_of(texts, shown),
        state=_state(texts, launch),
        why=why,
        lasting=_lasting(texts, launch, why, seen.now),
        words=words,
        since=launch.entered_at(),
        unknown_since=launch.unknown_since if launch.is_live else None,
        silent_since=around.silent_since,
        silent=launch.spawner if seen.is_one_of_several else "",
        question=question_of(texts, launch, seen.now),
        actions=known.actions if known else (),
        is_impossible=is_impossible(launch),
        left=time_left(texts, launch, seen.now),
        others=[_other(texts, other, seen.base_path) for other in around.own_servers],
        jobs=[_job(texts, job, seen.settings) for job in around.own_jobs],
        jobs_as_of=around.as_of,
        chips=launch_chips(texts, launch),
        facts=[
            fact
            for fact in (
                *_places(texts, launch, seen.titles),
                *_waits(texts, launch, seen.line, around, seen.now),
                *_ends(texts, launch, events),
            )
            if fact.text or fact.at or fact.about
        ],
        steps=steps_of(texts, launch, events),
        log=seen.log or ending_log,
        diagnostic=launch.id,
        codes=_codes(launch),
        is_live=launch.is_live,
        is_moving=launch.is_live and launch.status not in (Status.READY, Status.HELD),
        is_ready=launch.status is Status.READY and launch.wanted is Wanted.RUN,
        is_ended=not launch.is_live,
        may_stop=launch.is_live and launch.wanted is Wanted.RUN,
        may_release=is_releasable(launch),
        may_start_again=launch.is_live
        and known is not None
        and Action.START_AGAIN in known.actions,
    )


def in_words(
    texts: Texts, launch: Launch, line: tuple[int, int] | None, settings: SpawnerSettings | None
) -> tuple[str, Said]:
    """Return the word for how a launch is, and why it waits or how it ended."""
    return _state(texts, launch).word, _why(texts, launch, line, settings)


def _state(texts: Texts, launch: Launch) -> State:
    if launch.end is not None and is_fault(launch):
        never = launch.end.cause is Cause.NEVER_STARTED and launch.end.reason != "cancelled"
        word = texts.gettext("Did not start") if never else texts.gettext("Stopped")
        return State(word=word, icon="alert", tone="bad", code="ended")
    return state_of(texts, launch)


_FAULTS: Final = {
    Cause.NEVER_STARTED,
    Cause.OUT_OF_MEMORY,
    Cause.NODE_FAIL,
    Cause.EXITED,
    Cause.SIGNAL,
    Cause.UNKNOWN,
}


def is_fault(launch: Launch) -> bool:
    """Tell whether a launch ended as nobody wanted it to."""
    return not launch.is_live and launch.end is not None and launch.end.cause in _FAULTS


def _why(
    texts: Texts,
    launch: Launch,
    line: tuple[int, int] | None,
    settings: SpawnerSettings | None,
) -> Said:
    if launch.end is not None and not launch.is_live:
        return sentences.end(texts, launch.end, clock_limit(launch, settings))
    if launch.wanted is Wanted.END:
        return sentences.say(texts, sentences.WHY[Status.ENDING], {})
    if launch.status is Status.REQUESTED and line is not None and line[1] > 1:
        place, length = line
        params = {"place": place, "of": length}
        return sentences.say(texts, reasons.WAITING["in-line"], params, "in-line")
    if launch.status is Status.REQUESTED and launch.after is not None:
        return sentences.say(texts, reasons.WAITING["after"], {}, "after")
    return sentences.why(texts, launch.status, launch.reason)


def _lasting(texts: Texts, launch: Launch, why: Said, now: datetime) -> str:
    """Say for how long it has been the reason that is told, once that is worth a word."""
    reason = launch.reason
    if launch.status not in WAITING or reason is None or reason.code != why.code:
        return ""
    seconds = (now - reason.since).total_seconds() if reason.since else 0
    return texts.gettext("For %(time)s now.", time=texts.duration(seconds)) if seconds >= 1 else ""


def _evidence(launch: Launch) -> tuple[str, str]:
    """Return the platform's own words, and what is a log rather than words."""
    if launch.is_live:
        return (launch.reason.words if launch.reason else "", "")
    detail = launch.end.detail.strip() if launch.end else ""
    return ("", detail) if "\n" in detail else (detail, "")


def is_impossible(launch: Launch) -> bool:
    """Tell whether a launch never started for something that a change of the request mends."""
    if launch.is_live or launch.end is None or launch.end.cause is not Cause.NEVER_STARTED:
        return False
    known = of_end(launch.end)
    return known.can_never_start or bool(known.field)


def _known(launch: Launch) -> Known | None:
    """Return what follows from why a launch waits, or from how it ended."""
    if launch.end is not None and not launch.is_live:
        return of_end(launch.end)
    if launch.reason is not None and launch.status in WAITING and launch.wanted is Wanted.RUN:
        return find_reason(launch.reason.code)
    return None


def question_of(texts: Texts, launch: Launch, now: datetime) -> Said | None:
    """Return what the owner of a launch is asked, as long as there is no answer."""
    if not is_asked(launch):
        return None
    waited = {"limit_seconds": (now - launch.entered_at()).total_seconds()}
    gives_up = launch.spec.get("limits", {}).get("queue_unanswered") == "cancel"
    code = "queue-limit-cancels" if gives_up else "queue-limit-asked"
    return sentences.say(texts, reasons.WAITING[code], waited, code)


def _other(texts: Texts, shown: Shown, base_path: str) -> Other:
    launch = shown.launch
    is_wanted = launch is not None and launch.wanted is Wanted.RUN
    return Other(
        name=name_of(texts, shown),
        state=state_of(texts, launch),
        chips=launch_chips(texts, launch),
        stop_url=Links(base_path, shown.owner.name, shown.name).act("stop") if is_wanted else "",
    )


_JOB_STATES: Final = {
    "running": Status.READY,
    "queued": Status.QUEUED,
    "held": Status.HELD,
    "suspended": Status.SUSPENDED,
}


def _job(texts: Texts, job: OwnJob, settings: SpawnerSettings | None) -> Other:
    asked = {"cpu": job.cpus, "gpu": job.gpus}
    kind = [Chip("user", texts.gettext("interactive"))] if job.is_interactive else []
    return Other(
        name=f"{job.id} {job.name}".strip(),
        state=state_word_of(texts, _JOB_STATES.get(job.state, Status.QUEUED)),
        chips=[*kind, *chips_of(texts, asked)],
        command=cancel_command(settings.kind, job) if settings else "",
    )


def _places(texts: Texts, launch: Launch, titles: Titles) -> list[Fact]:
    profile = profile_title(texts, launch, titles)
    return [
        Fact(label=texts.gettext("Profile"), text=profile, verbatim=True),
        Fact(label=texts.gettext("Runs on"), text=_place(launch), verbatim=True),
    ]


def _waits(
    texts: Texts,
    launch: Launch,
    line: tuple[int, int] | None,
    around: Around,
    now: datetime,
) -> list[Fact]:
    """Return what is known of the wait: so far, the forecast, what is usual, what is free."""
    if launch.status not in WAITING:
        return []
    facts = [
        Fact(label=texts.gettext("Asked for"), at=launch.requested_at),
        Fact(label=texts.gettext("Waiting for"), text=_elapsed(texts, launch, now)),
    ]
    if launch.status in (Status.QUEUED, Status.HELD) or line is not None:
        facts.append(_forecast(texts, launch, now))
    if launch.status not in (Status.STARTING, Status.CONNECTING):
        facts.append(Fact(label=texts.gettext("Usual wait"), text=_usual(texts, around.usual)))
        if around.room is not None:
            facts.append(
                Fact(
                    label=texts.gettext("Free now"),
                    text=_room(texts, around.room),
                    as_of=around.room.as_of,
                )
            )
        facts += _windows(texts, launch, around)
    return facts


def _windows(texts: Texts, launch: Launch, around: Around) -> list[Fact]:
    """Return when the reservation it waits for is, and when no job may run."""
    reservation, coming = around.outlook.reservation, around.outlook.maintenance
    facts = []
    if reservation is not None:
        said = texts.listing([reservation.name, _window(texts, reservation)])
        facts.append(Fact(label=texts.gettext("Reservation"), text=said, as_of=around.as_of))
    if coming is not None and launch.status is Status.QUEUED:
        said = _window(texts, coming)
        facts.append(Fact(label=texts.gettext("Next maintenance"), text=said, as_of=around.as_of))
    return facts


def _window(texts: Texts, window: Reservation) -> str:
    return texts.gettext(
        "from %(starts)s to %(ends)s",
        starts=moment(texts, window.starts_at),
        ends=moment(texts, window.ends_at),
    )


def _elapsed(texts: Texts, launch: Launch, now: datetime) -> str:
    seconds = (now - launch.requested_at).total_seconds()
    return texts.duration(60 * (seconds // 60)) if seconds >= 60 else ""


def _forecast(texts: Texts, launch: Launch, now: datetime) -> Fact:
    """Return when it is expected to start, never without the age of the forecast."""
    label, at, as_of = texts.gettext("Expected start"), launch.expected_start, launch.estimated_at
    if at is None or as_of is None:
        return Fact(label=label, text=texts.gettext("no estimate yet"))
    if at <= now:
        return Fact(label=label, text=texts.gettext("any moment"), as_of=as_of)
    return Fact(label=label, about=at, as_of=as_of)


def _usual(texts: Texts, usual: Usual | None) -> str:
    if usual is None:
        return ""
    if usual.seconds < 60:
        wait = texts.gettext("less than %(time)s", time=texts.duration(60))
    else:
        wait = texts.gettext(
            "typically %(time)s", time=texts.duration(60 * round(usual.seconds / 60))
        )
    return texts.gettext(
        "%(wait)s (median of %(count)s similar starts in %(days)s)",
        wait=wait,
        count=texts.number(usual.count),
        days=texts.duration(WINDOW.total_seconds()),
    )


def _room(texts: Texts, room: Room) -> str:
    parts = [
        texts.ngettext(
            "%(count)s of %(all)s cores",
            "%(count)s of %(all)s cores",
            room.cpus,
            all=texts.number(room.of_cpus),
        )
    ]
    if room.of_gpus:
        parts.append(
            texts.gettext(
                "%(free)s of %(all)s GPUs",
                free=texts.number(room.gpus),
                all=texts.number(room.of_gpus),
            )
        )
    parts.append(
        texts.gettext(
            "%(cores)s and %(memory)s on the freest node",
            cores=texts.cores(room.most_cpus),
            memory=texts.size(room.most_memory),
        )
    )
    return texts.listing(parts)


def _codes(launch: Launch) -> Sequence[str]:
    if launch.is_live or launch.end is None:
        return ()
    return tuple(dict.fromkeys((str(launch.end), sentences.end_code(launch.end))))


def _ends(texts: Texts, launch: Launch, events: Sequence[Event]) -> list[Fact]:
    if launch.is_live:
        return []
    facts = [Fact(label=texts.gettext("Ended by"), text=_ended_by(texts, launch, events))]
    if launch.end is not None:
        seen = sentences.evidence(texts, launch.end)
        facts.append(Fact(label=texts.gettext("Evidence"), text=seen))
    if launch.ready_at is not None and launch.ended_at is not None:
        ran = (launch.ended_at - launch.ready_at).total_seconds()
        facts.append(Fact(label=texts.gettext("It had run for"), text=texts.duration(ran)))
        if launch.last_activity is not None:
            facts.append(Fact(label=texts.gettext("Last activity"), at=launch.last_activity))
    return facts


def _place(launch: Launch) -> str:
    return " · ".join(part for part in (launch.spawner, launch.node) if part)


def _ended_by(texts: Texts, launch: Launch, events: Sequence[Event]) -> str:
    """Say on whose behalf it ended: a person, this site's rules, or nobody here."""
    actor = next((event.actor for event in events if event.code == "end-wanted"), "")
    if launch.end is not None and launch.end.cause in OUTSIDE:
        actor = ""
    if actor == "hub":
        return texts.gettext("this site")
    if actor:
        return actor
    return texts.gettext("nobody here: it ended by itself or from outside")


# --- steps ------------------------------------------------------------------------------------


def steps_of(texts: Texts, launch: Launch, events: Sequence[Event]) -> list[Step]:
    """Return what happened, what happens, and, on the way up, what is still to come."""
    told = [event for event in events if event.code not in _QUIET]
    steps = [_step(texts, launch, event) for event in told]
    if not launch.is_live:
        fault = is_fault(launch)
        return [*steps[:-1], _as(steps[-1], "fault")] if steps and fault else steps
    if not steps:
        steps = [
            Step(text=sentences.event(texts, "requested", {}), kind="now", at=launch.requested_at)
        ]
    if launch.status is not Status.READY:
        steps[-1] = _as(steps[-1], "now")
    if launch.wanted is Wanted.RUN and launch.status in WAITING:
        steps += _to_come(texts, launch)
    return steps


def _step(texts: Texts, launch: Launch, event: Event) -> Step:
    params: dict[str, Any] = dict(event.params)
    detail = str(params.get("words", ""))
    if event.code == "requested" and event.actor != launch.user_name:
        detail = event.actor
    return Step(
        text=sentences.event(texts, event.code, params),
        kind="done",
        at=event.at,
        detail=detail,
    )


def _as(step: Step, kind: str) -> Step:
    return Step(text=step.text, kind=kind, at=step.at, detail=step.detail)


def _to_come(texts: Texts, launch: Launch) -> list[Step]:
    """Return the steps of the plan that are still ahead."""
    reached = Status.SUBMITTED if launch.status in (Status.QUEUED, Status.HELD) else launch.status
    ahead = _PLAN[_PLAN.index(reached) + 1 :]
    return [
        Step(text=sentences.event(texts, str(status), {}), kind="later")
        for status in ahead
        if status is not Status.SUBMITTED
    ]
