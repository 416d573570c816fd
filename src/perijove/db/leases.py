"""
Leases: the right of one replica to work on something until a time.

Counted on the database's clock. A lease saves work, it is not a fence (design decision 4):
what must not be lost is written without asking for it. The leases of launches are columns of
their own table (`db/launches.py`).
"""

from datetime import timedelta

from sqlalchemy import Connection, delete, update

from perijove.db.core import database_now, upsert
from perijove.db.tables import leases


def take_lease(connection: Connection, name: str, *, token: str, ttl: timedelta) -> bool:
    """Take or renew the named lease for `token`; False while another holds it."""
    now = database_now(connection)
    mine = (leases.c.token == token) | (leases.c.until < now)
    renewed = connection.execute(
        update(leases).where(leases.c.name == name, mine).values(token=token, until=now + ttl)
    )
    if renewed.rowcount:
        return True
    values = {"token": token, "until": now + ttl}
    return upsert(connection, leases, key={"name": name}, values=values, on_update={})


def drop_all(connection: Connection) -> None:
    """Take every lease back: for a database that only one hub uses, when that one starts."""
    connection.execute(delete(leases))
