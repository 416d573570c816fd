"""What these tests have in common."""

from pathlib import Path

import pytest


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Give the URL of an empty database, where its kind makes no difference."""
    return f"sqlite:///{tmp_path / 'hub.sqlite'}"
