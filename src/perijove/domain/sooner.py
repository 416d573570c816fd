"""
How a request that waits could start sooner, as far as its platform tells (anchors 4.11.3).

Pure over what a scheduler has said. Nothing here is a promise: what is free at one moment may be
somebody else's at the next.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from fractions import Fraction
from typing import Any, Final

from perijove.domain.combination import BEFORE_MAINTENANCE, ceilings, maintenance, with_features
from perijove.domain.market import Market, shapes_in, whole_gpus
from perijove.domain.offer import Free, Reservation, Shape
from perijove.domain.profile import (
    FIELDS,
    GPU_TYPE,
    PARTITION,
    RESERVATION,
    Value,
    exact,
)

AHEAD: Final = timedelta(days=14)
"""How long before a maintenance it is worth a word."""
FULL: Final = frozenset({"resources", "no-slots"})
"""The reasons for which a smaller request helps: it waits for nodes, not for a limit."""
_GIB: Final = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What a platform has, and will not have, for one request."""

    reservation: Reservation | None = None
    """The one it asks for."""
    maintenance: Reservation | None = None
    """The next one, or the present one, of nodes it may run on."""
    fits_now: Mapping[str, Fraction] = field(default_factory=dict)
    """Less of what it asks for, so much as one node has free; empty where it fits, or none has."""
    fits_before: Fraction | None = None
    """Seconds that end before the maintenance, where it asks for more."""


NO_OUTLOOK: Final = Outlook()
"""Where a platform has not told, or cannot."""


def outlook(market: Market, options: Mapping[str, Any]) -> Outlook:
    """Return what is known for a request with the options of a launch's spec."""
    offer = market.offer
    if offer is None:
        return NO_OUTLOOK
    values = _values(options)
    partition = str(values.get(PARTITION) or market.preferred(PARTITION))
    shapes = with_features(shapes_in(offer, (partition,) if partition else None), values)
    wanted = values.get(RESERVATION)
    return Outlook(
        reservation=next((each for each in offer.reservations if each.name == wanted), None),
        maintenance=maintenance(market, AHEAD, shapes),
        fits_now={} if wanted else _fits_now(shapes, values),
        fits_before=_fits_before(market, values),
    )


def _values(options: Mapping[str, Any]) -> dict[str, Value]:
    return {name: _value(options[name]) for name in FIELDS if options.get(name) is not None}


def _value(stored: Any) -> Value:
    if isinstance(stored, list):
        return tuple(stored)
    return stored if isinstance(stored, str) else exact(stored)


def _fits_before(market: Market, values: Mapping[str, Value]) -> Fraction | None:
    most, asked = ceilings(market, values).get("time"), values.get("time")
    if most is None or most.code != BEFORE_MAINTENANCE or not isinstance(asked, Fraction):
        return None
    return most.value if most.value < asked else None


def _fits_now(shapes: Sequence[Shape], values: Mapping[str, Value]) -> dict[str, Fraction]:
    """Return how much less would fit on the node that has most of what is asked for."""
    asked = {
        name: value
        for name in ("cpu", "memory")
        if isinstance(value := values.get(name), Fraction) and value > 0
    }
    rooms = [_room(free) for shape in shapes for free in shape.free if _has_gpus(free, values)]
    if not asked or not rooms:
        return {}
    most = max(rooms, key=lambda room: min(room[name] / asked[name] for name in asked))
    if not all(most[name] > 0 for name in asked):
        return {}
    return {name: most[name] for name in asked if most[name] < asked[name]}


def _room(free: Free) -> dict[str, Fraction]:
    """Return what a node has, as one asks for it: whole gibibytes, unless it has none."""
    memory = free.memory_bytes
    whole = memory // _GIB * _GIB if memory >= _GIB else memory
    return {"cpu": Fraction(free.cpus), "memory": Fraction(whole)}


def _has_gpus(free: Free, values: Mapping[str, Value]) -> bool:
    count, kind = values.get("gpu"), str(values.get(GPU_TYPE) or "")
    if not isinstance(count, Fraction):
        return True
    if kind:
        return free.gpus.get(kind, 0) >= count
    return whole_gpus(free.gpus) >= count
