"""The embedded reverse proxy, a program of its own: keeps traffic flowing while hubs restart.

May import `perijove.wire` and `perijove.kit`, nothing else of ours. Start reading at
``docs/design/proxy.md``; `run` is what ``perijove proxy`` calls.
"""

from perijove.proxy.settings import ControlAddress, ProxyOptions, ProxySettings
from perijove.proxy.supervisor import EXIT_ADDRESS, run

__all__ = ["EXIT_ADDRESS", "ControlAddress", "ProxyOptions", "ProxySettings", "run"]
