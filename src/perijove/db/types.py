"""Column types that mean the same on SQLite and PostgreSQL."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Integer, String, TypeDecorator
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine

from perijove.kit.clock import isoformat

Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
"""A JSON value; SQL NULL for None."""


Id = BigInteger().with_variant(Integer, "sqlite")
"""A serial number. SQLite numbers only INTEGER keys by itself."""


class Instant(TypeDecorator[datetime]):
    """
    An aware UTC instant.

    PostgreSQL has a type for it. SQLite has not: there it is text in the wire's own form
    (``2026-11-20T10:15:29.442695Z``), which sorts as time does and needs no rewriting to be sent.
    """

    impl = String(27)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the column's type."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(DateTime(timezone=True))
        return dialect.type_descriptor(String(27))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Write an aware instant; raises `ValueError` for a naive one."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("an instant must be aware")
        return value if dialect.name == "postgresql" else isoformat(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Read an instant."""
        if value is None:
            return None
        if isinstance(value, str):
            return datetime.fromisoformat(value)
        at: datetime = value
        return at.astimezone(UTC)
