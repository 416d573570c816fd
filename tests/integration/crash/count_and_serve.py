"""Note that a server was started, for which launch, and become the small server of the tests."""

import os
import sys
from pathlib import Path

with Path(sys.argv[1]).open("a") as starts:
    starts.write(os.environ["PERIJOVE_LAUNCH"] + "\n")
os.execv(sys.executable, [sys.executable, sys.argv[2], "plain"])
