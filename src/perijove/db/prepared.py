"""
Queries that are asked for every request: compiled once, and on SQLite run by the driver itself.

There, what SQLAlchemy does around a statement costs twice what SQLite takes to answer it. What
such a query selects must need no conversion: text, numbers, and what `db/rendered.py` makes.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select
from sqlalchemy.dialects import sqlite

from perijove.kit.clock import isoformat


class Prepared:
    """A query with named parameters; rows come as plain tuples."""

    __slots__ = ("_constants", "_sqlite", "_statement")

    def __init__(self, statement: Select[Any]) -> None:
        self._statement = statement
        compiled = statement.compile(dialect=sqlite.dialect(paramstyle="named"))
        self._sqlite = str(compiled)
        self._constants = {
            name: value for name, value in compiled.params.items() if value is not None
        }

    def rows(
        self, connection: Connection, parameters: Mapping[str, Any]
    ) -> Sequence[Sequence[Any]]:
        """Return all rows; instants among the parameters may be `datetime`."""
        if connection.dialect.name != "sqlite":
            return connection.execute(self._statement, parameters).all()
        bound = self._constants.copy()
        for name, value in parameters.items():
            bound[name] = isoformat(value) if isinstance(value, datetime) else value
        raw: Any = connection.connection.driver_connection
        found: list[tuple[Any, ...]] = raw.execute(self._sqlite, bound).fetchall()
        return found

    def first(self, connection: Connection, parameters: Mapping[str, Any]) -> Sequence[Any] | None:
        """Return the first row."""
        rows = self.rows(connection, parameters)
        return rows[0] if rows else None
