"""One Alembic tree for both databases. Never edit a revision that was released."""
