"""Profiles and policies as rows with revisions (design decision 17)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    Column,
    Connection,
    Row,
    Table,
    and_,
    insert,
    select,
    update,
)

from perijove.db.core import upsert
from perijove.db.prepared import Statement
from perijove.db.tables import policies, policy_revisions, profile_revisions, profiles
from perijove.domain.errors import ConfigError
from perijove.domain.policy import Policy
from perijove.domain.profile import Profile

OURS: Final = ("builtin", "file")
"""Sources whose rows the configuration owns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """A table of named things and the table of their revisions."""

    noun: str
    rows: Table
    revisions: Table
    owner: Column[Any]
    """The revisions' reference to the row."""


PROFILES: Final = Shelf(
    noun="profile",
    rows=profiles,
    revisions=profile_revisions,
    owner=profile_revisions.c.profile_id,
)
POLICIES: Final = Shelf(
    noun="policy", rows=policies, revisions=policy_revisions, owner=policy_revisions.c.policy_id
)


def list_profiles(connection: Connection) -> list[Profile]:
    """Return all profiles in use, in the administrator's order."""
    return [
        Profile.from_body(row["name"], row["body"], revision=row["revision"])
        for row in _PROFILES_NOW.rows(connection, {})
    ]


def list_policies(connection: Connection) -> list[Policy]:
    """Return all policies in use, top-down."""
    return [
        Policy.from_body(row["name"], row["body"], id=row["id"], revision=row["revision"])
        for row in _POLICIES_NOW.rows(connection, {})
    ]


def replace_ours(
    connection: Connection,
    shelf: Shelf,
    wanted: Mapping[str, Mapping[str, Any]],
    *,
    source: str,
    actor: str,
    now: datetime,
) -> None:
    """
    Make the rows that the configuration owns be `wanted`, bodies by name, in this order.

    A changed body is a new revision, a row no longer wanted is retired. Rows made in the
    browser are never touched: raises `ConfigError` for a name that one of them has.
    """
    known = {row.name: row for row in connection.execute(select(shelf.rows))}
    for position, (name, body) in enumerate(wanted.items()):
        row = known.get(name)
        if row is not None and row.source not in OURS and row.retired_at is None:
            raise ConfigError(f"{shelf.noun} {name!r} was made in the browser; give another name")
        revision = row.revision if row else 0
        changed = row is None or _body(connection, shelf, row) != body
        values = {
            "position": position,
            "source": source,
            "revision": revision + 1 if changed else revision,
            "retired_at": None,
        }
        upsert(connection, shelf.rows, key={"name": name}, values=values)
        if changed:
            id = connection.scalar(select(shelf.rows.c.id).where(shelf.rows.c.name == name))
            key = {shelf.owner.name: id, "revision": values["revision"]}
            connection.execute(
                insert(shelf.revisions).values(body=body, created_at=now, actor=actor, **key)
            )
    gone = [
        row.id
        for row in known.values()
        if row.source in OURS and row.retired_at is None and row.name not in wanted
    ]
    if gone:
        connection.execute(
            update(shelf.rows).where(shelf.rows.c.id.in_(gone)).values(retired_at=now)
        )


def has_browser_rows(connection: Connection, shelf: Shelf) -> bool:
    """Tell whether anything in use was made in the browser."""
    rows = shelf.rows.c
    found = select(rows.id).where(rows.source == "browser", rows.retired_at.is_(None)).limit(1)
    return connection.scalar(found) is not None


def _current(shelf: Shelf) -> Statement:
    rows, revisions = shelf.rows.c, shelf.revisions.c
    return Statement(
        select(rows.id, rows.name, rows.revision, revisions.body)
        .join(shelf.revisions, and_(shelf.owner == rows.id, revisions.revision == rows.revision))
        .where(rows.retired_at.is_(None))
        .order_by(rows.position, rows.id)
    )


_PROFILES_NOW: Final = _current(PROFILES)
_POLICIES_NOW: Final = _current(POLICIES)


def _body(connection: Connection, shelf: Shelf, row: Row[Any]) -> Any:
    return connection.scalar(
        select(shelf.revisions.c.body).where(
            shelf.owner == row.id, shelf.revisions.c.revision == row.revision
        )
    )
