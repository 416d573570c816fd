"""Running the real program, as a person or a script does."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PATIENCE = 120
"""Seconds a command may take; long, because the machine may be busy."""


def perijove(
    *arguments: str | Path, given: str = "", environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, without this test's own settings."""
    clean = {name: value for name, value in os.environ.items() if "PERIJOVE" not in name}
    return subprocess.run(
        [sys.executable, "-m", "perijove", *arguments],
        input=given,
        env=clean | {"NO_COLOR": "1", "COLUMNS": "200", "TZ": "UTC"} | (environ or {}),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def answer(*arguments: str | Path) -> Any:
    """Run a command that must succeed, and return the JSON it prints."""
    done = perijove(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refusal(
    *arguments: str | Path, code: int, given: str = "", environ: dict[str, str] | None = None
) -> str:
    """Run a command that must fail with a code, in words and not with a traceback."""
    done = perijove(*arguments, given=given, environ=environ)
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr
