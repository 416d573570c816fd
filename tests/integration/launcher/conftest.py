"""A place like the one where people have their directories of launches, and the launcher."""

import json
import os
import pwd
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from perijove.spawners.launcher.client import PROGRAM


@dataclass(frozen=True, slots=True)
class Place:
    """Where launches are, and a copy of the launcher that every account can read."""

    root: Path

    @property
    def launches(self) -> Path:
        """The folder in which each person makes one."""
        return self.root / "launches"

    def run(
        self, account: str, request: bytes, **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the launcher as an account and give it `request`."""
        entry = pwd.getpwnam(account)
        return subprocess.run(
            ["/usr/bin/python3", "-I", self.root / "launch"],
            input=request,
            env={"PATH": "/usr/bin:/bin"} | environment,
            user=entry.pw_uid,
            group=entry.pw_gid,
            extra_groups=os.getgrouplist(account, entry.pw_gid),
            capture_output=True,
            timeout=60,
            check=False,
        )

    def ask(self, account: str, verb: str, **fields: Any) -> Any:
        """Return the launcher's answer."""
        result = self.run(account, json.dumps({"verb": verb} | fields).encode())
        assert result.stderr == b""
        answer = json.loads(result.stdout)
        assert result.returncode == (3 if "error" in answer else 0)
        return answer


@pytest.fixture
def place() -> Iterator[Place]:
    """Give a place that accounts can reach."""
    with TemporaryDirectory(dir="/var/tmp", prefix="perijove-test-") as directory:
        root = Path(directory)
        root.chmod(0o711)
        found = Place(root)
        (root / "launch").write_bytes(PROGRAM.read_bytes())
        (root / "launch").chmod(0o755)
        found.launches.mkdir()
        found.launches.chmod(0o1733)
        yield found
