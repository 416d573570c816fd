"""One site for all tests here: it takes seconds to start, and its jobs do not meet."""

from collections.abc import Iterator

import pytest

from tests.integration.batch.site import BatchSite, a_batch_site


@pytest.fixture(scope="session")
def the_site() -> Iterator[BatchSite]:
    """Give a site that runs for the whole session."""
    with a_batch_site() as found:
        # Grid Engine ends it after a minute, while the other tests run.
        found.start("bob", "late-gridengine", "gridengine", time="1 min")
        yield found


@pytest.fixture
def site(the_site: BatchSite) -> Iterator[BatchSite]:
    """Give the site; blockers beside it end with the test, its servers with the session."""
    yield the_site
    the_site.unblock()
