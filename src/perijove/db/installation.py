"""The installation's own row: its name, and since when it has been able to hear."""

from datetime import datetime, timedelta

from sqlalchemy import Connection, select, update

from perijove.db.core import upsert
from perijove.db.prepared import Statement
from perijove.db.tables import installation
from perijove.kit.ids import new_installation_id

DEAF_AFTER = timedelta(seconds=60)
"""A gap in the heart-beat longer than this means that nobody could hear meanwhile."""


def ensure_installation(connection: Connection, *, now: datetime) -> str:
    """Return the installation's name, giving it one on the first run, whichever hub is first."""
    upsert(
        connection,
        installation,
        key={"id": 1},
        values={
            "name": new_installation_id(),
            "created_at": now,
            "hearing_since": now,
            "heard_until": now,
        },
        on_update={},
    )
    name: str = connection.execute(select(installation.c.name)).scalar_one()
    return name


def beat(connection: Connection, *, now: datetime) -> None:
    """
    Record that a hub runs, and can hear.

    After a gap, `hearing_since` starts anew: idle limits and deadlines count only time in
    which a hub could hear (design decision 7).
    """
    heard_until = connection.scalar(select(installation.c.heard_until))
    values = {"heard_until": now}
    if heard_until is None or now - heard_until > DEAF_AFTER:
        values["hearing_since"] = now
    connection.execute(update(installation).values(**values))


_HEARING_SINCE = Statement(select(installation.c.hearing_since))


def hearing_since(connection: Connection) -> datetime:
    """Return since when, without a gap, some hub has been able to hear."""
    (row,) = _HEARING_SINCE.rows(connection, {})
    at: datetime = row["hearing_since"]
    return at
