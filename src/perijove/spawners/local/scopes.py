"""
Limits by systemd, which owns the control groups of a machine that it runs.

Each launch is a scope of its own, named after it: of the machine where the hub is root, else of
the user manager of the hub's account. That one runs while the account is signed in, or always
after ``loginctl enable-linger``. A scope is gone with its last process. Everything here blocks:
call it in a thread.
"""

import os
import secrets
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from perijove.domain.launch import Resources

_BOOTED: Final = Path("/run/systemd/system")  # As sd_booted(3) has it.
_PROGRAM: Final = "/usr/bin/systemd-run"
_TRIAL: Final = Resources(cpu=0.5, memory_bytes=64 * 2**20)
_TRIAL_PROCESSES: Final = 8
_TRIAL_FOUND: Final = ["67108864", "50000", "100000", "8"]
_TRIAL_SECONDS: Final = 30.0
_LOOK: Final = (
    'cd "/sys/fs/cgroup$(cut -d : -f 3- /proc/self/cgroup)" && cat memory.max cpu.max pids.max'
)


@dataclass(frozen=True, slots=True)
class Scopes:
    """The manager that makes scopes, and what it is told of each."""

    manager: str
    properties: Sequence[str] = ()

    @classmethod
    def find(cls) -> Self | None:
        """Return what this machine lets us use; None where a trial does not find its limits."""
        if not _BOOTED.is_dir():
            return None
        scopes = cls("--system" if os.geteuid() == 0 else "--user")
        # Since version 253 a kill for memory ends all of a scope, unless that is declined: a
        # server goes on when the kernel has killed one of its notebooks.
        for one in (replace(scopes, properties=("OOMPolicy=continue",)), scopes):
            if one._works():
                return one
        return None

    def enclose(self, name: str, resources: Resources, processes_limit: int) -> Sequence[str]:
        """Return what runs the command behind it in the scope of a launch."""
        properties = [*self.properties, f"TasksMax={processes_limit}"]
        if resources.memory_bytes is not None:
            properties += [f"MemoryMax={resources.memory_bytes}", "MemorySwapMax=0"]
        if resources.cpu is not None:
            properties.append(f"CPUQuota={max(round(resources.cpu * 100), 1)}%")
        return [
            _PROGRAM,
            self.manager,
            "--scope",
            "--quiet",
            "--collect",
            "--slice=perijove.slice",
            f"--unit={name}.scope",
            *(f"--property={one}" for one in properties),
            "--",
        ]

    def remove(self, name: str) -> None:
        """Do nothing: systemd has removed the scope."""

    def _works(self) -> bool:
        trial = self.enclose(f"pj-trial-{secrets.token_hex(8)}", _TRIAL, _TRIAL_PROCESSES)
        with suppress(OSError, subprocess.TimeoutExpired):
            result = subprocess.run(  # noqa: S603 - nothing of it is anybody's choice
                [*trial, "/bin/sh", "-c", _LOOK],
                env=manager_environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_TRIAL_SECONDS,
                check=False,
            )
            return result.stdout.split() == _TRIAL_FOUND
        return False


def manager_environment() -> dict[str, str]:
    """Return what a program needs to find the user manager of this account."""
    return {
        "LC_ALL": "C.UTF-8",
        "PATH": os.defpath,
        "XDG_RUNTIME_DIR": f"/run/user/{os.geteuid()}",
    }
