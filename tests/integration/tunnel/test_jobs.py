"""A person's job on a real scheduler, reached through the tunnels of a whole site."""

import json
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests import clusters
from tests.clusters import Cluster
from tests.e2e.site import Site, free_port, place_for

pytestmark = [
    pytest.mark.needs("root", "users", "slurm", "gridengine"),
    pytest.mark.timeout(180),
]

SERVER = Path(__file__).with_name("server.py")

CONFIG = """
[auth.demo]
password = "any"

[tunnel]
url = "http://127.0.0.1:{port}"
bind = "127.0.0.1:{port}"
"""

SETTINGS = """
tunnel = true
accounts = "trusted"
command = ["/usr/bin/python3", "-I", "{server}"]
"""


@pytest.fixture(params=clusters.BOTH)
def place(request: pytest.FixtureRequest) -> Iterator[Site]:
    """Run a site below a directory that others may pass through, in front of one cluster."""
    cluster: Cluster = request.param
    directory, server = place_for(SERVER)
    section = clusters.section(cluster, SETTINGS.format(server=server))
    site = Site(directory / "hub", free_port(), extra=CONFIG.format(port=free_port()) + section)
    with clusters.left_clean(cluster) as ends:
        ends.callback(shutil.rmtree, directory)
        site.start()
        ends.callback(site.stop)
        ends.callback(clusters.end_servers, site)
        yield site


def test_a_job_without_a_port_is_used(place: Site) -> None:
    """Alice's server runs on a node as alice, listens at no port, and answers behind the proxy."""
    assert place.api("POST", "/users/alice")[0] == 201
    place.start_server("alice")
    with urllib.request.urlopen(f"{place.url}/user/alice/api", timeout=30) as found:
        world: dict[str, str] = json.load(found)
    assert world["USER"] == "alice"
    assert world["JUPYTERHUB_API_TOKEN"]
    family = processes_of(world["PERIJOVE_LAUNCH"])
    assert {user for user, _ in family} == {"alice"}
    assert psutil.CONN_LISTEN not in {state for _, states in family for state in states}


def processes_of(launch: str) -> list[tuple[str, set[str]]]:
    """
    Return the processes on this machine, the bed's only one, that belong to a launch.

    Of each its user, and the states of its connections.
    """
    found = []
    for each in psutil.process_iter():
        with suppress(psutil.Error):  # It has just ended, as some that a session starts do.
            if each.environ().get("PERIJOVE_LAUNCH") == launch:
                states = {connection.status for connection in each.net_connections()}
                found.append((each.username(), states))
    return found
