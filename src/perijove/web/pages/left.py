"""How much time a server has left, and when to say that it is little."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from perijove.domain.launch import Launch, Status, Wanted
from perijove.services.notices import WARNINGS
from perijove.web.texts import Texts

_STEPS: Final[Sequence[timedelta]] = sorted(WARNINGS.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """Time that is left, as a bar with its numbers."""

    text: str
    value: int
    max: int
    at: datetime
    """When it is over."""
    warning: str
    """What to say because it is little; empty while there is enough."""
    level: int
    """How urgent that is: 0, and from 1 (the first warning) up."""

    @property
    def low(self) -> bool:
        """Whether it is time to save one's work."""
        return self.level > 0


def time_left(texts: Texts, launch: Launch | None, now: datetime) -> Left | None:
    """Return how much time a ready launch has left; None where it has no limit, or does not run."""
    if launch is None or launch.status is not Status.READY or launch.wanted is Wanted.END:
        return None
    at, began = launch.time_is_over_at(), _began(launch)
    if at is None or began is None:
        return None
    whole = max(1, round((at - began).total_seconds()))
    left = max(0, round((at - now).total_seconds()))
    level = sum(timedelta(seconds=left) <= step < at - began for step in _STEPS)
    shown = texts.duration(left - left % 60 if left >= 120 else left)
    # A scheduler rounds what it was asked for; nobody thinks in seconds of an hour.
    in_all = texts.duration(round(whole / 60) * 60 if whole >= 120 else whole)
    return Left(
        text=texts.gettext("%(left)s left of %(all)s", left=shown, all=in_all),
        value=min(left, whole),
        max=whole,
        at=at,
        warning=_warning(texts, left, shown) if level else "",
        level=level,
    )


def _began(launch: Launch) -> datetime | None:
    return launch.starting_at or launch.connecting_at or launch.ready_at


def _warning(texts: Texts, left: int, shown: str) -> str:
    if left == 0:
        return texts.gettext("Its time is over: it is about to be ended.")
    return texts.gettext("Only %(left)s left: save your work now.", left=shown)
