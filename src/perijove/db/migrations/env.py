"""Alembic's entry: runs the revisions on the connection that `db/schema.py` hands over."""

from alembic import context

from perijove.db.tables import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    render_as_batch=connection.dialect.name == "sqlite",
    compare_type=False,
)
with context.begin_transaction():
    context.run_migrations()
