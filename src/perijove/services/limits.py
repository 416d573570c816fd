"""What the policies allow one person: their rows, read and evaluated."""

from dataclasses import dataclass

from sqlalchemy import Connection, select

from perijove.db.offers import list_policies
from perijove.db.tables import group_members, groups, users
from perijove.domain.errors import NotFound
from perijove.domain.policy import Limits, evaluate


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Whom a decision is about."""

    id: int
    name: str
    blocked: bool
    groups: frozenset[str]


def find_person(connection: Connection, user_id: int) -> Person:
    """Return a user with the groups they are in; raises `NotFound`."""
    row = connection.execute(
        select(users.c.name, users.c.blocked).where(users.c.id == user_id)
    ).first()
    if row is None:
        raise NotFound("no such user")
    names = connection.scalars(
        select(groups.c.name)
        .join(group_members, group_members.c.group_id == groups.c.id)
        .where(group_members.c.user_id == user_id)
    )
    return Person(id=user_id, name=row.name, blocked=row.blocked, groups=frozenset(names))


def limits_of(connection: Connection, person: Person) -> Limits:
    """Return what holds for a person now."""
    return evaluate(list_policies(connection), user=person.name, groups=person.groups)
