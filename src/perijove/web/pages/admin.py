"""The plain admin list: people, their servers, and the health of every platform."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from starlette.responses import Response

from perijove.db.core import Connection
from perijove.domain.errors import Forbidden
from perijove.services.overview import Health, Owner, Shown, list_health, list_people
from perijove.spawners.contract import Warns
from perijove.web.pages.door import me
from perijove.web.pages.look import Frame
from perijove.web.pages.views import Links, Sign, State, name_of, offset_of, state_of, with_query
from perijove.web.texts import Texts
from perijove.web.texts.sentence import N_

_PAGE: Final = 50
_ROWS: Final = 36
"""Servers on one page; more would make it heavier than 30 kB."""
WARNINGS: Final[Mapping[str, str]] = {
    "local-shared-account": N_(
        "All servers run under this hub's own account: people could reach each other's files."
        " This is for one person, or for people who trust each other."
    ),
    "local-no-limits": N_(
        "Servers have no limits of memory and processors: this hub may not use control groups."
    ),
    "api-loopback": N_(
        "Jobs on other machines cannot reach this hub: it listens for them on this machine only."
        " Set api_bind in [hub] to an address that the nodes reach."
    ),
    "docker-containers-meet": N_(
        "People's containers can reach each other on the Docker engine: its machine passes packets"
        " between them on without a firewall. Switch on net.bridge.bridge-nf-call-iptables there,"
        " or set network to per-user."
    ),
    "kubernetes-events-old": N_(
        "The cluster tells no events: why servers wait there may be told late or less precisely."
        " See this hub's log for why, and whether it has the right to list and watch events."
    ),
}
"""By the code a spawner warns with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A server of a person, or that the person has none."""

    user: str
    admin: bool
    first: bool
    """The first row of this person."""
    last: bool
    server: str
    named: bool
    place: str
    state: State
    last_activity: datetime | None
    is_live: bool
    wait_url: str
    stop_url: str
    spawn_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SpawnerRow:
    """How a platform does."""

    name: str
    state: State
    error: str
    complete_at: datetime | None
    count: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """What the administrator must know of some platforms."""

    text: str
    of: str
    """Their names, where there are others."""


_STATES: Final[Sequence[tuple[Callable[[Health], object], Sign]]] = (
    (lambda health: health.breaker_since, Sign(N_("Ends held back"), "alert", "bad")),
    (lambda health: health.failing_since, Sign(N_("Does not answer"), "alert", "bad")),
    (lambda health: health.complete_at, Sign(N_("Answers"), "check", "good")),
    (lambda health: True, Sign(N_("Not asked yet"), "queue", "calm")),
)
"""How a platform does: the first that holds."""


async def show_admin(frame: Frame) -> Response:
    """Show people and servers, to those who may."""
    if not me(frame).may("admin-ui"):
        raise Forbidden("the admin page needs the scope admin-ui", code="forbidden")
    query = frame.request.query_params
    find, only_live = query.get("find", "").strip()[:255], "running" in query
    offset = offset_of(query)

    def unit(
        connection: Connection,
    ) -> tuple[Sequence[Owner], Sequence[Shown], int, Sequence[Health]]:
        people, all_shown, total = list_people(
            connection, find=find, only_live=only_live, offset=offset, limit=_PAGE
        )
        return people, all_shown, total, list_health(connection, frame.hub.spawners)

    people, all_shown, total, health = await frame.hub.database.read_long(unit)
    people = _as_many_as_fit(people, all_shown)
    texts = frame.texts

    def page_at(start: int) -> str:
        running = "1" if only_live else ""
        return with_query(
            f"{frame.hub.hub_prefix}admin", find=find, running=running, **{"from": str(start)}
        )

    return frame.page(
        "admin.html",
        nav="admin",
        warnings=list(_warnings(frame)),
        spawners=[_spawner_row(texts, each) for each in health],
        rows=list(_rows(frame, people, all_shown)),
        total=texts.number(total),
        find=find,
        only_running=only_live,
        newer_url=page_at(max(0, offset - _PAGE)) if offset else "",
        older_url=page_at(offset + len(people)) if offset + len(people) < total else "",
    )


def _as_many_as_fit(people: Sequence[Owner], all_shown: Sequence[Shown]) -> Sequence[Owner]:
    """Return the first people whose servers fill one page, and at least one person."""
    servers = Counter(shown.owner.id for shown in all_shown)
    rows = 0
    for number, owner in enumerate(people):
        rows += max(1, servers[owner.id])
        if rows > _ROWS and number:
            return people[:number]
    return people


def _warnings(frame: Frame) -> Iterator[Warned]:
    """Say what the platforms warn of, each thing once."""
    told: dict[str, list[str]] = {}
    for name, placed in frame.hub.spawners.items():
        if isinstance(placed.spawner, Warns):
            for code in placed.spawner.warnings(public=False):
                told.setdefault(code, []).append(name)
    for code, names in told.items():
        text = frame.texts.gettext(WARNINGS[code]) if code in WARNINGS else code
        yield Warned(text=text, of=", ".join(names) if len(frame.hub.spawners) > 1 else "")


def _rows(frame: Frame, people: Sequence[Owner], all_shown: Sequence[Shown]) -> Iterator[Row]:
    of: dict[int, list[Shown]] = {}
    for shown in all_shown:
        of.setdefault(shown.owner.id, []).append(shown)
    for owner in people:
        mine = of.get(owner.id) or [
            Shown(
                owner=owner,
                name="",
                display_name="",
                last_activity=owner.last_activity,
                launch=None,
            )
        ]
        for shown in mine:
            yield _row(frame, shown, first=shown is mine[0], last=shown is mine[-1])


def _row(frame: Frame, shown: Shown, *, first: bool, last: bool) -> Row:
    launch = shown.launch if shown.is_live else None
    links = Links(frame.hub.base_path, shown.owner.name, shown.name)
    return Row(
        user=shown.owner.name,
        admin=shown.owner.admin,
        first=first,
        last=last,
        server=name_of(frame.texts, shown),
        named=bool(shown.name),
        place=" · ".join(part for part in (launch.spawner, launch.node) if part) if launch else "",
        state=state_of(frame.texts, launch),
        last_activity=shown.last_activity or shown.owner.last_activity,
        is_live=launch is not None,
        wait_url=links.wait,
        stop_url=links.act("stop"),
        spawn_url=links.spawn,
    )


def _spawner_row(texts: Texts, health: Health) -> SpawnerRow:
    sign = next(sign for holds, sign in _STATES if holds(health))
    return SpawnerRow(
        name=health.name,
        state=sign.said(texts),
        error=health.error[:300] if health.failing_since else "",
        complete_at=health.complete_at,
        count=texts.number(health.live),
    )
