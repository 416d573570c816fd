"""The view of one launch: how a start goes, why it waits, how it ended."""

from collections.abc import Sequence
from dataclasses import dataclass
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
from perijove.services.overview import Shown
from perijove.spawners.contract import SpawnerSettings
from perijove.web.pages.views import (
    Chip,
    Fact,
    State,
    Titles,
    chips_of,
    clock_limit,
    name_of,
    profile_title,
    state_of,
)
from perijove.web.texts import Texts, reasons, sentences
from perijove.web.texts.sentence import Said

_PLAN: Final = (
    Status.REQUESTED,
    Status.SUBMITTED,
    Status.STARTING,
    Status.CONNECTING,
    Status.READY,
)
"""The steps of every start; a queue comes between where there was one."""
_QUIET: Final = {"routed", "reason", "seen-again", "end-wanted", "submitted"}
"""Events that no step is made of: machinery, or said elsewhere on the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One line of the list of steps: done, now, later, or at fault."""

    text: str
    kind: str
    at: datetime | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Everything the page of a launch shows."""

    server: str
    state: State
    why: Said
    words: str
    since: datetime | None
    unknown_since: datetime | None
    chips: Sequence[Chip]
    facts: Sequence[Fact]
    steps: Sequence[Step]
    log: str
    diagnostic: str
    is_live: bool
    is_moving: bool
    is_ready: bool
    is_ended: bool
    may_stop: bool


def tell(
    texts: Texts,
    shown: Shown,
    launch: Launch,
    events: Sequence[Event],
    *,
    log: str,
    line: tuple[int, int] | None,
    settings: SpawnerSettings | None,
    titles: Titles,
) -> Told:
    """Return the view of a launch; `line` is its place and the length of the hub's own line."""
    words, ending_log = _evidence(launch)
    return Told(
        server=name_of(texts, shown),
        state=_state(texts, launch),
        why=_why(texts, launch, line, settings),
        words=words,
        since=launch.entered_at(),
        unknown_since=launch.unknown_since if launch.is_live else None,
        chips=chips_of(texts, launch.spec.get("resources", {})),
        facts=_facts(texts, launch, events, line, titles),
        steps=steps_of(texts, launch, events),
        log=log or ending_log,
        diagnostic=launch.id,
        is_live=launch.is_live,
        is_moving=launch.is_live and launch.status not in (Status.READY, Status.HELD),
        is_ready=launch.status is Status.READY and launch.wanted is Wanted.RUN,
        is_ended=not launch.is_live,
        may_stop=launch.is_live and launch.wanted is Wanted.RUN,
    )


def _state(texts: Texts, launch: Launch) -> State:
    if launch.is_live and launch.wanted is Wanted.END and launch.status is not Status.ENDING:
        ending = state_of(texts, launch)
        word = sentences.state_word(texts, Status.ENDING)
        return State(word=word, icon="stop", tone="calm", code=f"{ending.code}-ending")
    if launch.end is not None and not launch.is_live and launch.end.cause in _FAULTS:
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


def _evidence(launch: Launch) -> tuple[str, str]:
    """Return the platform's own words, and what is a log rather than words."""
    if launch.is_live:
        return (launch.reason.words if launch.reason else "", "")
    detail = launch.end.detail.strip() if launch.end else ""
    return ("", detail) if "\n" in detail else (detail, "")


def _facts(
    texts: Texts,
    launch: Launch,
    events: Sequence[Event],
    line: tuple[int, int] | None,
    titles: Titles,
) -> list[Fact]:
    profile = profile_title(texts, launch, titles)
    facts = [
        Fact(label=texts.gettext("Profile"), text=profile, verbatim=True),
        Fact(label=texts.gettext("Runs on"), text=_place(launch), verbatim=True),
    ]
    if launch.status in WAITING:
        facts.append(Fact(label=texts.gettext("Asked for"), at=launch.requested_at))
        if launch.status in (Status.QUEUED, Status.HELD) or line is not None:
            text = texts.gettext("no estimate yet")
            facts.append(Fact(label=texts.gettext("Expected start"), text=text))
    if not launch.is_live:
        facts.append(Fact(label=texts.gettext("Ended by"), text=_ended_by(texts, launch, events)))
        if launch.end is not None:
            ids = dict.fromkeys((str(launch.end), sentences.end_code(launch.end)))
            text = texts.listing(ids)
            facts.append(Fact(label=texts.gettext("Evidence"), text=text, verbatim=True))
        if launch.ready_at is not None and launch.ended_at is not None:
            ran = (launch.ended_at - launch.ready_at).total_seconds()
            facts.append(Fact(label=texts.gettext("It had run for"), text=texts.duration(ran)))
        if launch.last_activity is not None and launch.ready_at is not None:
            facts.append(Fact(label=texts.gettext("Last activity"), at=launch.last_activity))
    return [fact for fact in facts if fact.text or fact.at]


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
        fault = launch.end is not None and launch.end.cause in _FAULTS
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
