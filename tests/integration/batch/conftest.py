"""One site for the tests of a module: it takes seconds to start."""

from collections.abc import Iterator

import pytest

from tests import clusters
from tests.integration.batch.site import BatchSite, a_batch_site


@pytest.fixture(scope="module")
def the_site() -> Iterator[BatchSite]:
    """Run a site."""
    with a_batch_site() as found:
        yield found


@pytest.fixture
def site(the_site: BatchSite) -> Iterator[BatchSite]:
    """Give the site on clean clusters; its servers, and the jobs beside it, end with the test."""
    with clusters.left_clean("slurm", "gridengine") as ends:
        ends.callback(clusters.end_servers, the_site.site)
        ends.callback(the_site.beside.unblock)
        yield the_site
