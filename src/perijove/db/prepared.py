"""
Statements of every request and every launch: compiled once, on SQLite run by the driver itself.

There, what SQLAlchemy does around a statement costs twice what SQLite takes to answer it.

`Prepared` is for queries whose columns need no conversion: text, numbers, and what
`db/rendered.py` makes. `Statement` converts by the columns' types, and may write.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Delete, Insert, Select, Update
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeEngine

from perijove.kit.clock import isoformat

_SQLITE = sqlite.dialect(paramstyle="named")


class Prepared:
    """A query with named parameters; rows come as plain tuples."""

    __slots__ = ("_constants", "_sqlite", "_statement")

    def __init__(self, statement: Select[Any]) -> None:
        self._statement = statement
        compiled = statement.compile(dialect=_SQLITE)
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


class Statement:
    """A statement with named parameters; values go in and come out as with SQLAlchemy."""

    __slots__ = ("_forms", "_statement")

    def __init__(self, statement: Select[Any] | Insert | Update | Delete) -> None:
        self._statement = statement
        self._forms: dict[tuple[str, ...], _Form] = {}

    def rows(self, connection: Connection, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Run it; returns all rows, by the names of the columns."""
        if connection.dialect.name != "sqlite":
            return [row._asdict() for row in connection.execute(self._statement, parameters)]
        form = self._form(parameters)
        return [form.converted(row) for row in form.execute(connection, parameters).fetchall()]

    def first(self, connection: Connection, parameters: Mapping[str, Any]) -> dict[str, Any] | None:
        """Run it; returns the first row."""
        rows = self.rows(connection, parameters)
        return rows[0] if rows else None

    def run(self, connection: Connection, parameters: Mapping[str, Any]) -> int:
        """Run it for what it changes; returns how many rows that were."""
        if connection.dialect.name != "sqlite":
            return connection.execute(self._statement, parameters).rowcount
        return self._form(parameters).execute(connection, parameters).rowcount

    def _form(self, parameters: Mapping[str, Any]) -> "_Form":
        names = tuple(parameters)
        form = self._forms.get(names)
        if form is None:
            form = self._forms[names] = _Form(self._statement, names)
        return form


_Conversion = Callable[[Any], Any]


class _Form:
    """The SQLite form of a statement for one choice of parameters: which columns are written."""

    __slots__ = ("_binds", "_columns", "_constants", "_results", "_text", "_writes")

    def __init__(
        self, statement: Select[Any] | Insert | Update | Delete, names: tuple[str, ...]
    ) -> None:
        compiled: Any = statement.compile(dialect=_SQLITE, column_keys=list(names))
        missing = [
            name for name, bind in compiled.binds.items() if bind.required and name not in names
        ]
        self._text = str(compiled)
        self._writes = not isinstance(statement, Select)
        self._binds: dict[str, _Conversion] = {
            name: convert
            for name, bind in compiled.binds.items()
            if (convert := _implementation(bind.type).bind_processor(_SQLITE)) is not None
        }
        # A default that is computed would be the same for ever: such statements name the column.
        defaults = {
            column.key: column.default.arg
            for column in compiled.insert_prefetch
            if column.default.is_scalar
        }
        missing += [column.key for column in compiled.insert_prefetch if column.key not in defaults]
        if missing:
            raise TypeError(f"a statement lacks the parameters {missing}: {compiled}")
        self._constants = self._bound(
            {
                name: defaults.get(name, value)
                for name, value in compiled.params.items()
                if name not in names
            }
        )
        self._columns = tuple(str(column.key) for column in statement.exported_columns)
        self._results: list[tuple[str, _Conversion]] = [
            (str(column.key), convert)
            for column in statement.exported_columns
            if (convert := _implementation(column.type).result_processor(_SQLITE, None)) is not None
        ]

    def execute(self, connection: Connection, parameters: Mapping[str, Any]) -> sqlite3.Cursor:
        """Run it by the driver, in the connection's transaction; errors are SQLAlchemy's."""
        if self._writes and not connection.in_transaction():
            connection.begin()
        raw: Any = connection.connection.driver_connection
        try:
            cursor: sqlite3.Cursor = raw.execute(
                self._text, self._constants | self._bound(parameters)
            )
        except sqlite3.Error as error:
            raise DBAPIError.instance(self._text, None, error, sqlite3.Error) from error
        return cursor

    def converted(self, row: Sequence[Any]) -> dict[str, Any]:
        """Return a row of the driver's as values by name."""
        values = dict(zip(self._columns, row, strict=True))
        for name, convert in self._results:
            values[name] = convert(values[name])
        return values

    def _bound(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        bound = dict(parameters)
        for name, convert in self._binds.items():
            if name in bound:
                bound[name] = convert(bound[name])
        return bound


def _implementation(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    return type_.dialect_impl(_SQLITE)
