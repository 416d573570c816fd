"""
Notices that people have asked for: a server is ready, did not start, or has little time left.

An outbox: the rows are written when a person asks, become due when their occasion comes, and
are sent by a loop (`reconcile/notices.py`). A crash loses none. Each is sent at most once, but
for one that was sent in the very moment of a crash: it carries the same id both times.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from perijove.db import launches as rows
from perijove.db.events import record
from perijove.db.prepared import Statement
from perijove.db.tables import notices
from perijove.domain.asking import Asking
from perijove.domain.errors import Invalid
from perijove.domain.launch import WAITING, Cause, Launch, Status, Wanted
from perijove.kit.backoff import backoff
from perijove.services.hub import Hub


class Channel(StrEnum):
    """A way to reach a person who is not looking."""

    EMAIL = "email"
    WEBHOOK = "webhook"


class Occasion(StrEnum):
    """When something is told."""

    START = "start"  #: It is ready, or it did not start.
    LEFT_30 = "left-30"
    LEFT_10 = "left-10"
    LEFT_2 = "left-2"


class Outcome(StrEnum):
    """What is told."""

    READY = "ready"
    ENDED = "ended"
    LEFT = "left"


WARNINGS: Final[Mapping[Occasion, timedelta]] = MappingProxyType(
    {
        Occasion.LEFT_30: timedelta(minutes=30),
        Occasion.LEFT_10: timedelta(minutes=10),
        Occasion.LEFT_2: timedelta(minutes=2),
    }
)
"""How long before its end a person is warned; the longest first."""
_USELESS_AFTER: Final[Mapping[Occasion, timedelta]] = MappingProxyType(
    {
        Occasion.START: timedelta(days=1),
        Occasion.LEFT_30: timedelta(minutes=20),
        Occasion.LEFT_10: timedelta(minutes=8),
        Occasion.LEFT_2: timedelta(minutes=2),
    }
)
"""How long after its occasion a notice that cannot be delivered is tried again."""
_CLAIM: Final = timedelta(minutes=5)
"""How long one replica has to send what it took."""
_MOST: Final = 200
"""Rows of one look."""

_OPEN_ROWS: Final = (notices.c.sent_at.is_(None), notices.c.dropped_at.is_(None))

Words = Mapping[Outcome, tuple[str, str]]
"""What a mail says by outcome, subject and text, in the language of who asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One row that is to be sent now."""

    id: int
    launch: Launch
    occasion: Occasion
    channel: Channel
    outcome: Outcome
    words: Words
    occurred_at: datetime
    tries: int


def channels_for(hub: Hub, user_name: str) -> Sequence[Channel]:
    """Return the ways in which this site can reach a person."""
    email, webhook = hub.notify.email, hub.notify.webhook
    found = []
    if email is not None and email.address_of(user_name) is not None:
        found.append(Channel.EMAIL)
    if webhook is not None:
        found.append(Channel.WEBHOOK)
    return found


async def follow(
    hub: Hub,
    launch: Launch,
    channels: Collection[Channel],
    words: Words,
    *,
    asking: Asking,
) -> None:
    """Tell the owner about a launch in these ways and no others; may be said again and again."""
    known = channels_for(hub, launch.user_name)
    if not set(channels) <= set(known):
        raise Invalid("this site cannot notify in this way", field="by", code="channel-unknown")

    def unit(connection: Connection) -> None:
        now = hub.clock.now()
        connection.execute(
            delete(notices).where(
                notices.c.launch_id == launch.id,
                notices.c.channel.not_in([str(channel) for channel in channels]),
                notices.c.occurred_at.is_(None),
            )
        )
        added = _missing(connection, launch, channels, words, now)
        if added:
            connection.execute(insert(notices), added)
            by = ", ".join(sorted({row["channel"] for row in added}))
            record(connection, launch.id, "followed", {"by": by}, asking=asking, now=now)

    await hub.database.write(unit)
    hub.events.strike(launch.id)


def _missing(
    connection: Connection,
    launch: Launch,
    channels: Collection[Channel],
    words: Words,
    now: datetime,
) -> list[Mapping[str, Any]]:
    """Return the rows that are not there yet."""
    occasions = [Occasion.START, *WARNINGS] if launch.status in WAITING else [*WARNINGS]
    there = {
        (row.occasion, row.channel)
        for row in connection.execute(
            select(notices.c.occasion, notices.c.channel).where(notices.c.launch_id == launch.id)
        )
    }
    return [
        {
            "launch_id": launch.id,
            "occasion": occasion,
            "channel": channel,
            "words": {str(outcome): list(said) for outcome, said in words.items()},
            "created_at": now,
        }
        for occasion in occasions
        for channel in channels
        if (occasion, channel) not in there
    ]


def followed(connection: Connection, launch_id: str) -> Collection[Channel]:
    """Return the ways in which somebody will still be told about a launch."""
    found = connection.scalars(
        select(notices.c.channel).where(notices.c.launch_id == launch_id, *_OPEN_ROWS).distinct()
    )
    return {Channel(name) for name in found}


# --- the loop's two units ---------------------------------------------------------------------


def what_now(launch: Launch, occasion: Occasion, *, now: datetime) -> Outcome | bool:
    """Return what is to be told now; True for not yet, False for never."""
    if occasion is Occasion.START:
        return _of_start(launch)
    if not launch.is_live or launch.wanted is Wanted.END:
        return False
    return _of_time_left(launch, WARNINGS[occasion], now)


def _of_start(launch: Launch) -> Outcome | bool:
    if launch.status is Status.READY and launch.wanted is Wanted.RUN:
        return Outcome.READY
    if launch.is_live:
        return True
    by_choice = launch.end is not None and launch.end.cause is Cause.USER
    return Outcome.ENDED if launch.ready_at is None and not by_choice else False


def _of_time_left(launch: Launch, before: timedelta, now: datetime) -> Outcome | bool:
    at = launch.time_is_over_at()
    if at is None or launch.ready_at is None:
        return True
    if at - launch.ready_at <= before:
        return False  # that was all it ever had: no news
    shorter = max((each for each in WARNINGS.values() if each < before), default=timedelta(0))
    if at - now <= shorter:
        return False  # the next warning says it better
    return Outcome.LEFT if at - now <= before else True


def is_idle(connection: Connection) -> bool:
    """Tell whether nobody waits to be told anything."""
    return connection.scalar(select(notices.c.id).where(*_OPEN_ROWS).limit(1)) is None


def note_occasions(connection: Connection, *, now: datetime) -> None:
    """Make due what has an occasion now, and drop what never will."""
    for row in _OPEN.rows(connection, {}):
        launch = rows.get_launch(connection, row["launch_id"])
        told = what_now(launch, Occasion(row["occasion"]), now=now)
        if told is False:
            _CHANGE.run(connection, {"the_id": row["id"], "dropped_at": now})
        elif told is not True:
            values = {"outcome": told, "occurred_at": now, "due_at": now}
            _CHANGE.run(connection, {"the_id": row["id"], **values})


def claim(connection: Connection, *, now: datetime) -> Sequence[Notice]:
    """Take what is to be sent now; for a while nobody else takes it."""
    claimed = []
    for row in _DUE.rows(connection, {"now": now}):
        values = {"due_at": now + _CLAIM, "tries": row["tries"] + 1}
        _CHANGE.run(connection, {"the_id": row["id"], **values})
        claimed.append(
            Notice(
                id=row["id"],
                launch=rows.get_launch(connection, row["launch_id"]),
                occasion=Occasion(row["occasion"]),
                channel=Channel(row["channel"]),
                outcome=Outcome(row["outcome"]),
                words={Outcome(name): (said[0], said[1]) for name, said in row["words"].items()},
                occurred_at=row["occurred_at"],
                tries=values["tries"],
            )
        )
    return claimed


def note_sent(connection: Connection, notice: Notice, *, now: datetime) -> None:
    """Write that a notice has left."""
    _CHANGE.run(connection, {"the_id": notice.id, "sent_at": now, "due_at": None, "error": ""})


def note_failure(
    connection: Connection, notice: Notice, error: str, *, now: datetime, for_good: bool
) -> None:
    """Write that a notice did not leave: it is tried again, ever later, while it is of use."""
    again_at = now + backoff(notice.tries, base=10, cap=600)
    if for_good or again_at > notice.occurred_at + _USELESS_AFTER[notice.occasion]:
        values: Mapping[str, Any] = {"dropped_at": now, "due_at": None}
    else:
        values = {"due_at": again_at}
    _CHANGE.run(connection, {"the_id": notice.id, "error": error[:500], **values})


_OPEN: Final = Statement(
    select(notices.c.id, notices.c.launch_id, notices.c.occasion)
    .where(*_OPEN_ROWS, notices.c.occurred_at.is_(None))
    .order_by(notices.c.id)
)
_DUE: Final = Statement(
    select(notices)
    .where(*_OPEN_ROWS, notices.c.due_at <= bindparam("now"))
    .order_by(notices.c.due_at)
    .limit(_MOST)
    .with_for_update(skip_locked=True)
)
_CHANGE: Final = Statement(update(notices).where(notices.c.id == bindparam("the_id")))
