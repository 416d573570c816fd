"""The machine with its accounts, as the contract suite has it."""

from collections.abc import AsyncIterator

import pytest

from tests.contract.spawners.conftest import system_site
from tests.contract.spawners.sites import AliceSpawner, SystemSite

__all__ = ["alice", "system_site"]


@pytest.fixture
async def alice(system_site: SystemSite) -> AsyncIterator[AliceSpawner]:
    """Give an entered spawner that starts everything as alice."""
    async with system_site.spawner() as spawner:
        yield spawner
