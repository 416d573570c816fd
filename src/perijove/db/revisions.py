"""Alembic, and all we ask of it. Imported only when a schema is changed: it is slow to load."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection


def upgrade(connection: Connection) -> None:
    """Run the revisions that a database lacks, and commit."""
    command.upgrade(_config(connection), "head")
    connection.commit()


def downgrade(connection: Connection, revision: str) -> None:
    """Undo revisions down to `revision` (``base`` empties the database), and commit."""
    command.downgrade(_config(connection), revision)
    connection.commit()


def newest() -> str:
    """Return the last revision of the tree."""
    found = ScriptDirectory.from_config(_config()).get_current_head()
    assert found is not None
    return found


def is_known(revision: str) -> bool:
    """Tell whether a revision is one of this program's, and not of a newer one's."""
    scripts = ScriptDirectory.from_config(_config())
    return any(script.revision == revision for script in scripts.walk_revisions())


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
