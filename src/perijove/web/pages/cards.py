"""The home page's view: a card for each server, and a line over all."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from perijove.db.volumes import Volume
from perijove.domain.launch import WAITING, Launch, Status, Wanted
from perijove.services.hub import Hub
from perijove.services.overview import Shown
from perijove.web.pages.left import Left, time_left
from perijove.web.pages.views import (
    Chip,
    Fact,
    Links,
    State,
    Titles,
    clock_limit,
    launch_chips,
    name_of,
    profile_title,
    state_of,
)
from perijove.web.pages.volumes import of_server, warning_of
from perijove.web.pages.waiting import is_fault, question_of
from perijove.web.texts import Texts, sentences


@dataclass(frozen=True, slots=True, kw_only=True)
class LastEnd:
    """How the last launch ended."""

    text: str
    at: datetime
    advice: str
    is_fault: bool
    """Nobody wanted it to end like that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One server."""

    key: str
    name: str
    named: bool
    state: State
    place: Sequence[str]
    chips: Sequence[Chip]
    since: datetime | None
    why: str
    unknown_since: datetime | None
    """Since when its platform has not told of it."""
    left: Left | None
    idle: str
    data_warning: str
    last_end: LastEnd | None
    is_live: bool
    is_ready: bool
    may_stop: bool
    has_launch: bool
    open_url: str
    wait_url: str
    spawn_url: str
    stop_url: str
    restart_url: str
    delete_url: str


def card(
    texts: Texts,
    shown: Shown,
    hub: Hub,
    now: datetime,
    titles: Titles,
    kept: Sequence[Volume] = (),
) -> Card:
    """Return the card of a server; `kept` are the volumes of its owner."""
    launch = shown.launch
    live = launch if launch is not None and launch.is_live else None
    links = Links(hub.base_path, shown.owner.name, shown.name)
    is_ready = live is not None and live.status is Status.READY and live.wanted is Wanted.RUN
    return Card(
        key=shown.name,
        name=name_of(texts, shown),
        named=bool(shown.name),
        state=state_of(texts, live),
        place=_place(texts, launch, titles),
        chips=launch_chips(texts, launch),
        since=live.entered_at() if live else None,
        why=_why(texts, live, now),
        unknown_since=live.unknown_since if live else None,
        left=time_left(texts, live, now),
        idle=_idle(texts, live, now),
        data_warning=warning_of(texts, of_server(kept, shown.name)),
        last_end=last_end(texts, launch, hub),
        is_live=live is not None,
        is_ready=is_ready,
        may_stop=live is not None and live.wanted is Wanted.RUN,
        has_launch=launch is not None,
        open_url=links.open,
        wait_url=links.wait,
        spawn_url=links.spawn,
        stop_url=links.act("stop"),
        restart_url=links.act("restart"),
        delete_url=links.act("delete"),
    )


def last_end(texts: Texts, launch: Launch | None, hub: Hub) -> LastEnd | None:
    """Return how a launch ended; None while it is live."""
    if launch is None or launch.end is None or launch.ended_at is None:
        return None
    placed = hub.spawners.get(launch.spawner)
    limit = clock_limit(launch, placed.settings if placed else None)
    said = sentences.end(texts, launch.end, limit_seconds=limit)
    return LastEnd(
        text=said.text, at=launch.ended_at, advice=said.advice, is_fault=is_fault(launch)
    )


def summary(texts: Texts, all_shown: Sequence[Shown], named_limit: int | None) -> list[Fact]:
    """Return the line over all: what a person has on the way or running, and the limit."""
    live = [shown.launch for shown in all_shown if shown.launch is not None and shown.is_live]
    asked = [launch.spec.get("resources", {}) for launch in live]
    facts = [Fact(label=texts.gettext("Running or starting"), text=texts.number(len(live)))]
    if cpu := sum(each.get("cpu") or 0 for each in asked):
        facts.append(Fact(label=texts.gettext("Cores"), text=texts.number(cpu)))
    if memory := sum(each.get("memory_bytes") or 0 for each in asked):
        facts.append(Fact(label=texts.gettext("Memory"), text=texts.size(memory)))
    if gpu := sum(each.get("gpu") or 0 for each in asked):
        facts.append(Fact(label=texts.gettext("GPUs"), text=texts.number(gpu)))
    if named_limit is not None:
        named = sum(1 for shown in all_shown if shown.name)
        text = texts.gettext(
            "%(count)s of %(limit)s", count=texts.number(named), limit=texts.number(named_limit)
        )
        facts.append(Fact(label=texts.gettext("Named servers"), text=text))
    return facts


def _place(texts: Texts, launch: Launch | None, titles: Titles) -> list[str]:
    if launch is None:
        return []
    return [
        part for part in (profile_title(texts, launch, titles), launch.spawner, launch.node) if part
    ]


def _why(texts: Texts, live: Launch | None, now: datetime) -> str:
    if live is None or live.status not in WAITING or live.wanted is Wanted.END:
        return ""
    if question := question_of(texts, live, now):
        return question.text
    return sentences.why(texts, live.status, live.reason).text


def _idle(texts: Texts, live: Launch | None, now: datetime) -> str:
    if live is None or live.status is not Status.READY or live.wanted is Wanted.END:
        return ""
    limit = live.spec.get("limits", {}).get("idle_seconds")
    since = max(filter(None, (live.last_activity, live.ready_at)), default=now)
    idle = texts.duration(60 * ((now - since).total_seconds() // 60))
    if now - since < timedelta(minutes=2):
        if limit is None:
            return ""
        return texts.gettext(
            "In use. It stops after %(limit)s unused.", limit=texts.duration(limit)
        )
    if limit is None:
        return texts.gettext("Unused for %(idle)s.", idle=idle)
    return texts.gettext(
        "Unused for %(idle)s; it stops after %(limit)s.", idle=idle, limit=texts.duration(limit)
    )
