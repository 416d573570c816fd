"""
Columns that arrive as the wire sends them, so that nothing is decoded to be encoded again.

An instant as its text, a JSON column as its text, a list of related values as one JSON array.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Dialect,
    String,
    Text,
    TypeDecorator,
    cast,
    func,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import JSONB, aggregate_order_by
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

from perijove.kit.clock import isoformat


class _InstantText(TypeDecorator[str]):
    """An instant read as wire text: SQLite keeps it so, PostgreSQL's is written out here."""

    impl = String(27)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(DateTime(timezone=True))
        return dialect.type_descriptor(String(27))

    def process_result_value(self, value: Any, _dialect: Dialect) -> str | None:
        return isoformat(value) if isinstance(value, datetime) else value


def instant_text(column: ColumnElement[Any]) -> ColumnElement[str | None]:
    """Read an `Instant` as the text the wire sends."""
    return type_coerce(column, _InstantText())


def json_text(column: ColumnElement[Any]) -> ColumnElement[str | None]:
    """Read a JSON column as its text."""
    return cast(column, Text)


class json_list(FunctionElement[str]):
    """Aggregate values (text, or JSON columns) into the text of one JSON array; ``[]`` of none."""

    inherit_cache = True
    type = Text()


@compiles(json_list, "sqlite")
def _sqlite(element: json_list, compiler: SQLCompiler, **kw: Any) -> str:
    (value,) = element.clauses
    if value.type._type_affinity is JSONB()._type_affinity:
        value = func.json(value)
    return f"json_group_array({compiler.process(value, **kw)})"


@compiles(json_list, "postgresql")
def _postgresql(element: json_list, compiler: SQLCompiler, **kw: Any) -> str:
    (value,) = element.clauses
    ordered = aggregate_order_by(value, value)
    return f"coalesce(jsonb_agg({compiler.process(ordered, **kw)})::text, '[]')"
