"""Taking turns: units of work that hold the same name run one after the other."""

from sqlalchemy import Connection, bindparam, select

from perijove.db.core import upsert
from perijove.db.prepared import Statement
from perijove.db.tables import counters, users
from perijove.domain.errors import NotFound

_USER = Statement(
    select(users.c.id).where(users.c.id == bindparam("the_id")).with_for_update(key_share=True)
)


def hold_user(connection: Connection, user_id: int) -> None:
    """Hold a user's row until this unit ends; raises `NotFound`."""
    # Rows that refer to the user may still be written meanwhile: tokens, sessions.
    if _USER.first(connection, {"the_id": user_id}) is None:
        raise NotFound("no such user")


def hold(connection: Connection, name: str) -> None:
    """Hold a name until this unit ends. Several are always held in the same order."""
    upsert(connection, counters, key={"name": name}, values={"value": 0}, on_update={})
    connection.execute(select(counters.c.name).where(counters.c.name == name).with_for_update())
