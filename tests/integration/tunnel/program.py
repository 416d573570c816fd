"""The tunnels as a program of their own: ``program.py CONTROL DIRECTORY BIND [CERT KEY]``."""

import sys
from pathlib import Path

from perijove.proxy import ControlAddress
from perijove.tunnel import TunnelOptions, TunnelSettings, run

control, directory, bind, *tls = sys.argv[1:]
cert, key = map(Path, tls) if tls else (None, None)
options = TunnelOptions(
    ControlAddress(f"unix:{control}"),
    Path(directory),
    TunnelSettings(url=f"http://{bind}", bind=bind, tls_cert=cert, tls_key=key),
)
sys.exit(run(options))
