"""The tunnels as a program of their own: ``program.py CONTROL DIRECTORY BIND``."""

import sys
from pathlib import Path

from perijove.proxy import ControlAddress
from perijove.tunnel import TunnelOptions, TunnelSettings, run

control, directory, bind = sys.argv[1:]
options = TunnelOptions(
    ControlAddress(f"unix:{control}"),
    Path(directory),
    TunnelSettings(url=f"http://{bind}", bind=bind),
)
sys.exit(run(options))
