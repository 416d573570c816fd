"""What a test of tunnels can have: a site of its own, with or without its tunnels."""

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

from tests.e2e.site import free_port
from tests.integration.tunnel.sites import Site


@pytest.fixture
def quiet() -> Iterator[Site]:
    """Give a site where nothing runs yet; its path is short, for the sockets in it."""
    found = Site(Path(mkdtemp(prefix="pjt-", dir="/tmp")), free_port())
    try:
        yield found
    finally:
        shutil.rmtree(found.directory)


@pytest.fixture
async def place(quiet: Site) -> AsyncIterator[Site]:
    """Give a site whose tunnels run; what dialled in hangs up in the loop that it is of."""
    with quiet.tunnels():
        yield quiet
