"""
JupyterHub as the benchmarks run it: nothing throttled, no limit, and a spawner of nothing.

Read by JupyterHub in its own environment; the places come from the environment.
"""

import os
from urllib.parse import urlsplit

from jupyterhub.spawner import Spawner

upstream = urlsplit(os.environ["BENCH_UPSTREAM"])


class NullSpawner(Spawner):
    """Says of everything it is asked to start that it runs at one address."""

    async def start(self) -> tuple[str, int]:
        """Return the address."""
        return (upstream.hostname, upstream.port)

    async def poll(self) -> None:
        """Say that it runs."""

    async def stop(self, now: bool = False) -> None:
        """Do nothing."""


c = get_config()  # noqa: F821 - JupyterHub puts it there

c.JupyterHub.spawner_class = NullSpawner
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.Authenticator.admin_users = {"admin"}

c.JupyterHub.bind_url = os.environ["BENCH_BIND_URL"]
c.JupyterHub.hub_bind_url = os.environ["BENCH_HUB_URL"]
c.JupyterHub.db_url = "sqlite:///jupyterhub.sqlite"
c.JupyterHub.cleanup_servers = False
c.JupyterHub.cleanup_proxy = False
# The proxy is started by the benchmark, so that a hub restart is only that.
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = os.environ["BENCH_PROXY_API"]
c.ConfigurableHTTPProxy.auth_token = os.environ["CONFIGPROXY_AUTH_TOKEN"]

c.JupyterHub.concurrent_spawn_limit = 0
c.JupyterHub.active_server_limit = 0
# Requests wait until servers are ready, so that nobody needs to poll.
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 300, "slow_stop_timeout": 300}

c.JupyterHub.services = [{"name": "bench", "api_token": os.environ["BENCH_TOKEN"]}]
c.JupyterHub.load_roles = [
    {
        "name": "bench",
        "scopes": os.environ["BENCH_SCOPES"].split(),
        "services": ["bench"],
    }
]
