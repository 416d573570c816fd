"""What the tests of the running proxy share."""

import pytest


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Run on the loop that the proxy runs on."""
    return "asyncio", {"use_uvloop": True}
