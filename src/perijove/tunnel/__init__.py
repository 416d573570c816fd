"""The hub's end of the tunnels, a program of its own: offers a unix socket for each launch.

Knows `perijove.kit`, `perijove.wire`, what both ends share (`perijove.agent.link`), and of the
proxy how a request's head is read and how the hub is asked. Start reading at
``docs/design/tunnel.md``; `run` is what ``perijove tunnel`` calls.
"""

from perijove.tunnel.server import TunnelServer, run
from perijove.tunnel.settings import TunnelOptions, TunnelSettings

__all__ = ["TunnelOptions", "TunnelServer", "TunnelSettings", "run"]
