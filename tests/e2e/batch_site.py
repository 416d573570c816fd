"""A real site in front of the test bed's schedulers, and people who use it with a browser."""

import fcntl
import os
import pty
import re
import sqlite3
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests import clusters
from tests.clusters import Cluster
from tests.e2e.site import Site, a_site, wait_for

CONFIG: Final = """
title = "Perijove on the test bed"
logout_stops_servers = true

[[policies]]
named_servers = "unlimited"

[[profiles]]
name = "slurm"
title = { en = "Interactive session", fr = "Session interactive" }
spawner = "slurm"
[profiles.fields]
account = {}
partition = {}
qos = {}
reservation = {}
time = { default = "1 h", min = "1 min", max = "24 h" }
cpu = { default = 1, min = 1, max = 64 }
memory = { default = "512 MiB", min = "64 MiB", max = "64 GiB" }
gpu = { default = 0, min = 0, max = 4 }
gpu_type = {}
features = {}
ui = { default = "lab" }

[[profiles]]
name = "gridengine"
title = { en = "Session on the old cluster", fr = "Session sur l'ancienne grappe" }
spawner = "gridengine"
[profiles.fields]
account = {}
partition = {}
time = { default = "1 h", min = "1 min", max = "24 h" }
cpu = { default = 1, min = 1, max = 16 }
memory = { default = "512 MiB", min = "64 MiB", max = "16 GiB" }
gpu = { default = 0, min = 0, max = 2 }
ui = { default = "lab" }
"""


def configuration() -> str:
    """Return the configuration of a site with both schedulers, impatient as no real one is."""
    software = f'software = {{ prefix = "{os.environ["PERIJOVE_TEST_JOB_SINGLEUSER"]}" }}\n'
    sections = (clusters.section(cluster, software) for cluster in clusters.BOTH)
    return "".join([CONFIG, clusters.sign_in_section(), *sections])


@dataclass(slots=True)
class BatchSite:
    """A site, and what stands in the schedulers' queues because of it."""

    site: Site
    beside: clusters.Blockers = field(default_factory=clusters.Blockers)

    def names(self, user: str) -> set[str]:
        """Return the platform names of all launches a person ever had here."""
        (path,) = (self.site.directory / "data").glob("*.sqlite")
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as database:
            rows = database.execute("SELECT name FROM launches WHERE user_name = ?", [user])
            return {str(name) for (name,) in rows}

    def jobs(self, user: str, cluster: Cluster = "slurm") -> dict[str, str]:
        """Return a person's jobs of this site that the queue shows: id and state."""
        ours = self.names(user)
        return {job.id: job.state for job in clusters.jobs(cluster) if job.name in ours}

    def job(self, user: str, cluster: Cluster = "slurm") -> str:
        """Return the id of a person's one job, as soon as there is one."""
        found = wait_for(lambda: self.jobs(user, cluster), what=f"a job of {user}")
        (job,) = found
        return job

    def no_jobs(self, user: str, cluster: Cluster = "slurm") -> None:
        """Wait until a person has none left."""
        wait_for(lambda: not self.jobs(user, cluster), what=f"{user} to have no job")

    def kill_hub(self) -> None:
        """Kill the hub without a warning, and wait until another one is there."""
        before = self.site.parts()["hub"]
        before.kill()

        def is_back() -> bool:
            return self.site.parts().get("hub") not in (None, before) and self.site.is_serving()

        wait_for(is_back, what="a new hub")


@contextmanager
def a_batch_site(directory: Path) -> Iterator[BatchSite]:
    """Run a site."""
    with a_site(directory, extra=configuration()) as site:
        yield BatchSite(site)


@dataclass(slots=True)
class Terminal:
    """A login node's terminal, and the command line in it."""

    environment: Mapping[str, str]
    descriptor: int = -1
    process: subprocess.Popen[bytes] | None = None
    seen: str = ""
    """What the present command has shown so far, without the commands to the terminal."""

    def run(self, *arguments: str) -> None:
        """Begin ``perijove ARGUMENTS``."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        os.set_blocking(ours, False)
        # A session of its own whose terminal this is: passwords are asked of that.
        program = (
            "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
            " os.execv(sys.executable, [sys.executable, '-m', 'perijove', *sys.argv[1:]])"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=self.environment,
            start_new_session=True,
        )
        os.close(theirs)
        self.descriptor, self.seen = ours, ""

    def shows(self, *words: str) -> None:
        """Wait until all of some words have been shown."""

        def check() -> bool:
            self._read()
            flat = " ".join(self.seen.split())
            return all(word in flat for word in words)

        try:
            wait_for(check, what=f"{words} in the terminal")
        except AssertionError as error:
            raise AssertionError(f"{error}; it shows:\n{self.seen[-3000:]}") from None

    def type(self, line: str) -> None:
        """Type a line."""
        os.write(self.descriptor, f"{line}\n".encode())

    def ends(self) -> int:
        """Wait for the command's end; returns its code."""
        assert self.process is not None

        def is_over() -> bool:
            self._read()  # a full terminal would hold it up
            return self.process is not None and self.process.poll() is not None

        wait_for(is_over, what="the command to end")
        self._read()
        os.close(self.descriptor)
        return int(self.process.returncode)

    def close(self) -> None:
        """End what still runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def _read(self) -> None:
        try:
            while chunk := os.read(self.descriptor, 65536):
                self.seen += _COMMANDS.sub("", chunk.decode(errors="replace"))
        except OSError:  # nothing there yet, or the command has ended
            return


_COMMANDS: Final = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
