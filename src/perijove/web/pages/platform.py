"""What the options page tells of a platform: what is free, what is coming, whom one shares with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from perijove.domain.combination import maintenance
from perijove.domain.market import Market, find_accounts, find_qos, most_of, shapes_in
from perijove.domain.offer import Offer, Partition, Shape
from perijove.domain.profile import ACCOUNT, PARTITION, term
from perijove.domain.sooner import AHEAD
from perijove.services.discovery import Platforms
from perijove.web.texts import Texts
from perijove.web.texts.options import field_label, gpu_model, gpu_text, moment
from perijove.web.texts.reasons import CANNOT

_MOST_ROWS: Final = 40
_MOST_JOBS: Final = 8
_NONE: Final = "\N{EN DASH}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceView:
    """One partition or queue."""

    name: str
    time: str
    cores: str
    memory: str
    gpus: str
    free: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """One job of the person's own."""

    id: str
    name: str
    where: str
    since: datetime | None
    is_interactive: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformView:
    """What one platform has, now."""

    name: str
    title: str
    as_of: datetime | None
    """None: it never told."""
    silent_since: datetime | None
    problem: str
    """Why it did not answer last time, where that is known."""
    free: Sequence[str]
    coming: str
    """The next maintenance."""
    own: str
    is_full: bool
    """One more job of this person would wait for one to end."""
    fast_lane: str
    """What the person's interactive jobs mean for one more."""
    jobs: Sequence[JobView]
    place_label: str
    places: Sequence[PlaceView]


def platform_views(texts: Texts, platforms: Platforms, used: Sequence[str]) -> list[PlatformView]:
    """Return what there is to tell of the platforms that profiles start on."""
    several = len(used) > 1
    return [
        _platform(texts, name, platforms.markets[name], platforms, named=several)
        for name in used
        if name in platforms.markets
    ]


def free_gpus(market: Market, within: Sequence[str] | None) -> Mapping[str, tuple[int, int]]:
    """Return (free, all) GPUs by type in these partitions."""
    if market.offer is None:
        return {}
    found: dict[str, tuple[int, int]] = {}
    for shape in shapes_in(market.offer, within):
        for kind, count in shape.gpus.items():
            free, total = found.get(kind, (0, 0))
            now = sum(node.gpus.get(kind, 0) for node in shape.free)
            found[kind] = (free + now, total + count * len(shape.nodes))
    return found


def free_said(texts: Texts, kind: str, free: int, total: int) -> str:
    """Say how many GPUs of a type are free."""
    return texts.ngettext(
        "%(count)s of %(total)s %(model)s free",
        "%(count)s of %(total)s %(model)s free",
        free,
        total=texts.number(total),
        model=gpu_model(texts, kind),
    )


def _platform(
    texts: Texts, name: str, market: Market, platforms: Platforms, *, named: bool
) -> PlatformView:
    offer = market.offer
    error = CANNOT.get(platforms.errors.get(name, ""))
    running = platforms.running.get(name, 0)
    view: dict[str, Any] = {
        "name": name,
        "title": name if named else "",
        "as_of": offer.as_of if offer else None,
        "silent_since": market.silent_since,
        "problem": texts.gettext(error.text) if error and "%(" not in error.text else "",
        "free": _free(texts, market) if offer else [],
        "coming": _coming(texts, market),
        "place_label": field_label(texts, term(PARTITION, market.kind)),
        "places": _places(texts, market),
    }
    jobs = offer.own_jobs if offer else ()
    limit = _limit_of_jobs(market)
    return PlatformView(
        **view,
        own=_own(texts, running + len(jobs), limit),
        fast_lane=_fast_lane(texts, sum(job.is_interactive for job in jobs)),
        is_full=limit is not None and running + len(jobs) >= limit,
        jobs=[
            JobView(
                id=job.id,
                name=job.name,
                where=job.partition,
                since=job.since,
                is_interactive=job.is_interactive,
            )
            for job in sorted(jobs, key=lambda job: not job.is_interactive)[:_MOST_JOBS]
        ],
    )


def _own(texts: Texts, count: int, limit: int | None) -> str:
    if not count:
        return ""
    if limit is None:
        return texts.ngettext(
            "You have %(count)s job there.",
            "You have %(count)s jobs there.",
            count,
        )
    said = texts.ngettext(
        "You have %(count)s job there; the limit is %(limit)s jobs at once.",
        "You have %(count)s jobs there; the limit is %(limit)s jobs at once.",
        count,
        limit=texts.number(limit),
    )
    if count < limit:
        return said
    return f"{said} {texts.gettext('A further one waits until one of them ends.')}"


def _fast_lane(texts: Texts, count: int) -> str:
    """Warn of what no scheduler tells: how many jobs one works in are let through soon."""
    if not count:
        return ""
    return texts.ngettext(
        "%(count)s of them is interactive. Where only a few such jobs start early, "
        "a further one may wait longer.",
        "%(count)s of them are interactive. Where only a few such jobs start early, "
        "a further one may wait longer.",
        count,
    )


def _limit_of_jobs(market: Market) -> int | None:
    """Return how many jobs this person may run at once where nothing else is chosen."""
    if market.offer is None:
        return None
    found = []
    for account in find_accounts(market.offer, market.preferred(ACCOUNT)):
        qos = find_qos(market.offer, account.default_qos)
        theirs = qos.per_person.jobs if qos else None
        found.append(account.per_person.jobs if theirs is None else theirs)
    return min((each for each in found if each is not None), default=None)


def _free(texts: Texts, market: Market) -> list[str]:
    assert market.offer is not None
    said = []
    shapes = [shape for shape in market.offer.shapes if shape.free]
    total = sum(shape.cpus * len(shape.nodes) for shape in shapes)
    if total:
        free = sum(node.cpus for shape in shapes for node in shape.free)
        said.append(
            texts.ngettext(
                "%(count)s of %(total)s cores free",
                "%(count)s of %(total)s cores free",
                free,
                total=texts.number(total),
            )
        )
    said += [
        free_said(texts, kind, free, total)
        for kind, (free, total) in sorted(free_gpus(market, None).items())
        if total
    ]
    return said


def _coming(texts: Texts, market: Market) -> str:
    coming = maintenance(market, AHEAD)
    if coming is None:
        return ""
    ends = moment(texts, coming.ends_at)
    if coming.starts_at <= market.now:
        return texts.gettext("Maintenance is under way until %(ends)s.", ends=ends)
    return texts.gettext(
        "Maintenance from %(starts)s to %(ends)s: a session must end before it.",
        starts=moment(texts, coming.starts_at),
        ends=ends,
    )


def _places(texts: Texts, market: Market) -> list[PlaceView]:
    if market.offer is None:
        return []
    names = market.names(PARTITION) or ()
    known = [each for each in market.offer.partitions if each.name in names]
    return [_place(texts, market.offer, each) for each in known[:_MOST_ROWS]]


def _place(texts: Texts, offer: Offer, partition: Partition) -> PlaceView:
    shapes = shapes_in(offer, (partition.name,))
    cpus, memory = most_of("cpu", shapes), most_of("memory", shapes)
    seconds = partition.max_seconds
    return PlaceView(
        name=partition.name,
        time=texts.gettext("no limit") if seconds is None else texts.duration(seconds),
        cores=texts.number(int(cpus)) if cpus else _NONE,
        memory=texts.size(int(memory)) if memory else _NONE,
        gpus=", ".join(
            gpu_text(texts, count, kind) for kind, count in sorted(_biggest(shapes).items())
        )
        or _NONE,
        free=_free_nodes(texts, partition, shapes),
    )


def _biggest(shapes: Sequence[Shape]) -> Mapping[str, int]:
    kinds = {kind for shape in shapes for kind, count in shape.gpus.items() if count}
    return {kind: max(shape.gpus.get(kind, 0) for shape in shapes) for kind in kinds}


def _free_nodes(texts: Texts, partition: Partition, shapes: Sequence[Shape]) -> str:
    if not partition.is_up or not shapes:
        return texts.gettext("closed")
    known = [node for shape in shapes for node in shape.free]
    if not known:
        return _NONE
    return texts.cores(sum(node.cpus for node in known))
