"""What people see of servers: read-only, in as few queries as a page needs."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Select, exists, func, select

from perijove.db.launches import launch_of
from perijove.db.tables import launches, servers, spawner_states, users
from perijove.domain.errors import NotFound
from perijove.domain.launch import Launch, Status

_HIDDEN = {"seq", "due_at", "lease_token", "lease_until", "end_cause"}
_LAUNCH = tuple(column for column in launches.c if column.name not in _HIDDEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose servers are looked at."""

    id: int
    name: str
    admin: bool
    last_activity: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A server with its newest launch, live or ended; None if it never had one."""

    owner: Owner
    name: str
    display_name: str
    last_activity: datetime | None
    launch: Launch | None

    @property
    def is_live(self) -> bool:
        """Whether anything of it runs, waits, or is being stopped."""
        return self.launch is not None and self.launch.is_live


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What is known of a platform, and how many live launches it has."""

    name: str
    complete_at: datetime | None = None
    failing_since: datetime | None = None
    error: str = ""
    breaker_since: datetime | None = None
    live: int = 0


def get_owner(connection: Connection, name: str) -> Owner:
    """Return the user of a name; raises `NotFound`."""
    row = connection.execute(_owners().where(users.c.name == name)).one_or_none()
    if row is None:
        raise NotFound(f"No such user {name}", code="user-unknown", name=name)
    return Owner(**row._mapping)


def list_shown(connection: Connection, owner: Owner) -> Sequence[Shown]:
    """Return all servers of a person, the default one first, then by display name."""
    return _shown(connection, [owner])


def find_shown(connection: Connection, owner: Owner, name: str) -> Shown | None:
    """Return one server of a person by name."""
    return next((shown for shown in _shown(connection, [owner], name=name)), None)


def list_people(
    connection: Connection,
    *,
    find: str = "",
    only_live: bool = False,
    offset: int = 0,
    limit: int = 50,
) -> tuple[Sequence[Owner], Sequence[Shown], int]:
    """Return a page of people by name, all their servers, and how many people there are."""
    query = _owners()
    if find:
        query = query.where(users.c.name.contains(find, autoescape=True))
    if only_live:
        live = exists().where(launches.c.user_id == users.c.id, launches.c.status != Status.ENDED)
        query = query.where(live)
    total = connection.scalar(select(func.count()).select_from(query.subquery())) or 0
    page = query.order_by(users.c.name).offset(offset).limit(limit)
    owners = [Owner(**row._mapping) for row in connection.execute(page).all()]
    return owners, _shown(connection, owners), total


def list_health(connection: Connection, names: Iterable[str]) -> Sequence[Health]:
    """Return what is known of each spawner of the configuration."""
    counts = (
        select(launches.c.spawner, func.count())
        .where(launches.c.status != Status.ENDED)
        .group_by(launches.c.spawner)
    )
    live = {row[0]: row[1] for row in connection.execute(counts)}
    states = {row["name"]: row for row in connection.execute(select(spawner_states)).mappings()}
    return [
        Health(
            name=name,
            live=live.get(name, 0),
            **{
                key: states[name][key]
                for key in ("complete_at", "failing_since", "error", "breaker_since")
                if name in states
            },
        )
        for name in names
    ]


def _owners() -> Select[tuple[int, str, bool, datetime | None]]:
    return select(users.c.id, users.c.name, users.c.admin, users.c.last_activity)


def _shown(
    connection: Connection, owners: Sequence[Owner], *, name: str | None = None
) -> Sequence[Shown]:
    by_id = {owner.id: owner for owner in owners}
    query = select(servers).where(servers.c.user_id.in_(by_id))
    if name is not None:
        query = query.where(servers.c.name == name)
    rows = connection.execute(query).mappings().all()
    newest = _launches(connection, [row["launch_id"] for row in rows if row["launch_id"]])
    found = [
        Shown(
            owner=by_id[row["user_id"]],
            name=row["name"],
            display_name=row["display_name"],
            last_activity=row["last_activity"],
            launch=newest.get(row["launch_id"]),
        )
        for row in rows
    ]
    return sorted(found, key=_order)


def _order(shown: Shown) -> tuple[bool, list[tuple[bool, int, str]]]:
    """Sort as people count: the default one first, ``Project 2`` before ``Project 10``."""
    parts = re.findall(r"[0-9]{1,9}|[^0-9]+", shown.display_name.casefold())
    return shown.name != "", [
        (not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts
    ]


def _launches(connection: Connection, ids: Sequence[str]) -> Mapping[str, Launch]:
    query = select(*_LAUNCH).where(launches.c.id.in_(ids))
    return {row["id"]: launch_of(row) for row in connection.execute(query).mappings()}
