"""A real site with both schedulers of the test bed, and ways to look at what it has there."""

import json
import os
import pwd
import shutil
import socket
import sqlite3
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

from tests import beds
from tests.e2e.site import ADMIN_TOKEN, Site, free_port, wait_for

PROGRAM: Final = Path(__file__).with_name("program.py")
PATIENCE: Final = 60.0
PEOPLE: Final = ("alice", "bob", "carol")
PERIOD: Final = 1
"""Seconds between two questions to a scheduler: real sites want more, tests are in a hurry."""

CONFIG: Final = """
[auth.pam]
service = "{service}"
[[policies]]
named_servers = "unlimited"

[spawners.slurm]
kind = "slurm"
scheduler_environment = {{ SLURM_CONF = "{slurm_conf}" }}
submit_arguments = ["--requeue"]
{common}
[spawners.gridengine]
kind = "gridengine"
scheduler_environment = {{ {sge} }}
parallel_environment = "smp"
memory_complex = "rmem"
gpu_complex = "gpu"
{common}
{profiles}
"""

COMMON: Final = """
command = ["/usr/bin/python3", "-I", "-S", "{program}"]
software = {{ setup = [["/usr/bin/python3", "-I", "-S", "{program}", "setup"]] }}
networks = ["127.0.0.0/8", "{address}/32"]
scheduler_timeout = 5
minimum_period = {period}
survey_period = {period}
survey_busy_period = {period}
stop_grace = 5
"""

PROFILE: Final = """
[[profiles]]
name = "{name}"
spawner = "{name}"
[profiles.fields]
time = {{ default = "1 h", min = "1 min", max = "24 h" }}
memory = {{ default = "64 MiB", min = "16 MiB", max = "64 GiB" }}
cpu = {{ default = 1, min = 1, max = 64 }}
gpu = {{ default = 0, min = 0, max = 8 }}
account = {{}}
partition = {{}}
{more}"""


@dataclass(slots=True)
class BatchSite:
    """A site, and the jobs that it has submitted as people."""

    site: Site
    blockers: list[tuple[str, str]] = field(default_factory=list)

    # --- asking the hub -------------------------------------------------------------------

    def start(
        self,
        user: str,
        server: str,
        profile: str,
        *,
        expect: Sequence[int] = (201, 202),
        **given: Any,
    ) -> Any:
        """Ask for a server of a person and do not wait for it; returns the answer's body."""
        request = urllib.request.Request(
            f"{self.site.url}/hub/api/users/{user}/servers/{server}",
            method="POST",
            data=json.dumps({"profile": profile, "options": given}).encode(),
            headers={"Authorization": f"token {ADMIN_TOKEN}", "Prefer": "respond-async"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                status, text = response.status, response.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        assert status in expect, (status, text)
        return json.loads(text or b"null")

    def try_start(self, user: str, server: str, profile: str) -> None:
        """Ask for a server of a hub that may be killed before it answers."""
        with suppress(OSError, HTTPException):
            self.start(user, server, profile)

    def stop(self, user: str, server: str) -> None:
        """Ask for a server's end."""
        status, answer = self.site.api("DELETE", f"/users/{user}/servers/{server}")
        assert status in (202, 204), (status, answer)

    def launch(self, user: str, server: str) -> dict[str, Any]:
        """Return the newest launch of a server as the API shows it."""
        status, found = self.site.api("GET", f"/perijove/launches/{self.row(user, server)['id']}")
        assert status == 200, found
        model: dict[str, Any] = found
        return model

    def becomes(
        self, user: str, server: str, *states: str, seconds: float = PATIENCE
    ) -> dict[str, Any]:
        """Wait until a server's newest launch has one of the states; return it."""
        return self.until(
            user, server, lambda now: now["status"] in states, what=str(states), seconds=seconds
        )

    def until(
        self,
        user: str,
        server: str,
        holds: Callable[[dict[str, Any]], Any],
        *,
        what: str,
        seconds: float = PATIENCE,
    ) -> dict[str, Any]:
        """Wait until something holds of a server's newest launch; return it."""
        deadline = time.monotonic() + seconds
        while not holds(now := self.launch(user, server)):
            assert time.monotonic() < deadline, (
                f"waited {seconds} s for {what} of {user}/{server}: {now}\n"
                f"events: {self.events(now['id'])}\n{self.log(user, server)}"
            )
            time.sleep(0.1)
        return now

    def events(self, launch_id: str) -> list[tuple[str, Any]]:
        """Return a launch's events as codes and parameters."""
        with self._database() as database:
            rows = database.execute(
                "SELECT code, params FROM events WHERE launch_id = ? ORDER BY seq", [launch_id]
            )
            return [(code, json.loads(params)) for code, params in rows]

    def codes(self, launch_id: str) -> list[str]:
        """Return the codes of a launch's events."""
        return [code for code, _ in self.events(launch_id)]

    def servers(self, user: str) -> list[str]:
        """Return the names of a person's servers that are live."""
        status, model = self.site.api("GET", f"/users/{user}")
        assert status == 200, model
        return list(model["servers"])

    # --- looking at what it has written down ----------------------------------------------

    def row(self, user: str, server: str) -> dict[str, Any]:
        """Return the newest row of a server's launches."""
        with self._database() as database:
            found = database.execute(
                "SELECT * FROM launches WHERE user_name = ? AND server_name = ?"
                " ORDER BY requested_at DESC LIMIT 1",
                [user, server],
            ).fetchone()
        assert found is not None, f"{user} never had a server {server}"
        return dict(found)

    def has_launch(self, user: str, server: str) -> bool:
        """Tell whether a server was ever asked for, durably."""
        with self._database() as database:
            return bool(
                database.execute(
                    "SELECT count(*) FROM launches WHERE user_name = ? AND server_name = ?",
                    [user, server],
                ).fetchone()[0]
            )

    def until_submitting(self, most: int) -> None:
        """Return in the midst of it: when some of `most` launches are handed over, and not all."""

        def some() -> bool:
            with self._database() as database:
                found = database.execute(
                    "SELECT count(*) FROM launches WHERE status = 'submitted'"
                ).fetchone()[0]
            return bool(0 < found <= most)

        wait_for(some, what="a submission")

    def folder(self, user: str, server: str) -> Path:
        """Return the directory of a server's newest launch."""
        name = self.row(user, server)["name"]
        return Path(pwd.getpwnam(user).pw_dir, ".perijove/launches", name)

    def handles(self, user: str, server: str) -> list[Mapping[str, Any]]:
        """Return the handles that are recorded of a server's newest launch."""
        with self._database() as database:
            rows = database.execute(
                "SELECT body FROM handles WHERE launch_id = ?", [self.row(user, server)["id"]]
            )
            return [json.loads(body) for (body,) in rows]

    def job_id(self, user: str, server: str) -> str:
        """Return the id of the one job of a server's newest launch, once it is recorded."""
        self.until(
            user,
            server,
            lambda _: any("job_id" in each for each in self.handles(user, server)),
            what="a job's id",
        )
        (found,) = {each["job_id"] for each in self.handles(user, server) if "job_id" in each}
        return str(found)

    def state(self, spawner: str) -> dict[str, Any]:
        """Return what is known of a platform's health."""
        with self._database() as database:
            found = database.execute(
                "SELECT * FROM spawner_states WHERE name = ?", [spawner]
            ).fetchone()
        return dict(found) if found else {}

    def log(self, user: str, server: str) -> str:
        """Return what a launch's job has printed."""
        folder = self.folder(user, server)
        texts = [folder / "job.log", folder / "output"]
        return "".join(text.read_text(errors="replace") for text in texts if text.exists())

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        (path,) = (self.site.directory / "data").glob("*.sqlite")
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as database:
            database.row_factory = sqlite3.Row
            yield database

    # --- looking at the schedulers --------------------------------------------------------

    def jobs_of(self, user: str, server: str, profile: str) -> list[str]:
        """Return the ids of the live jobs that carry the name of a server's newest launch."""
        return live_jobs(profile, self.row(user, server)["name"])

    def block(self, user: str, *command: str) -> str:
        """Submit a job beside the hub, as a person; it ends with the site."""
        done = beds.run_as(user, *command)
        assert done.returncode == 0, done.stderr
        job_id = done.stdout.strip().partition(";")[0]
        self.blockers.append((user, job_id))
        wait_for(lambda: is_running(command[0], user, job_id), what=f"job {job_id} to run")
        return job_id

    def unblock(self) -> None:
        """Cancel the jobs beside the hub."""
        for user, job_id in self.blockers:
            program = "qdel" if job_id in live_ids("gridengine") else "scancel"
            beds.run_as(user, program, job_id)
        self.blockers.clear()


def is_running(program: str, user: str, job_id: str) -> bool:
    """Tell whether a job that `program` submitted has what it asked for."""
    if program == "qsub":
        return job_id in asked("qstat", "-u", user, "-s", "r").split()
    return asked("squeue", "--noheader", f"--jobs={job_id}", "--format=%T").strip() == "RUNNING"


def live_jobs(profile: str, name: str) -> list[str]:
    """Return the ids of the jobs of a name that are in a scheduler's queue and not over."""
    if profile == "slurm":
        listing = asked("squeue", "--noheader", f"--name={name}", "--format=%A")
        return listing.split()
    listing = asked("qstat", "-u", "*", "-r")
    found: list[str] = []
    last = ""
    for line in listing.splitlines():
        words = line.split()
        if words and words[0].isdecimal():
            last = words[0]
        if words[:2] == ["Full", "jobname:"] and words[2] == name:
            found.append(last)
    return found


def live_ids(profile: str) -> set[str]:
    """Return the ids of all jobs in a scheduler's queue."""
    if profile == "slurm":
        return set(asked("squeue", "--noheader", "--format=%A").split())
    rows = (line.split() for line in asked("qstat", "-u", "*").splitlines())
    return {row[0] for row in rows if row and row[0].isdecimal()}


def asked(*command: str) -> str:
    """Return what a scheduler's program answers to root."""
    environment = beds.account_environment("root")
    return subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True, timeout=60
    ).stdout


def configuration(program: Path) -> str:
    """Return the configuration of a site with both schedulers."""
    common = COMMON.format(program=program, period=PERIOD, address=own_address())
    sge = {
        name.removeprefix("PERIJOVE_TEST_"): os.environ[name]
        for name in os.environ
        if name.startswith("PERIJOVE_TEST_SGE_") and not name.endswith(("_HOST", "_CGROUP", "_CTL"))
    }
    return CONFIG.format(
        service=os.environ["PERIJOVE_TEST_PAM_SERVICE"],
        slurm_conf=os.environ["PERIJOVE_TEST_SLURM_CONF"],
        sge=", ".join(f'{name} = "{value}"' for name, value in sge.items()),
        common=common,
        profiles=PROFILE.format(name="slurm", more="qos = {}\n")
        + PROFILE.format(name="gridengine", more=""),
    )


def own_address() -> str:
    """Return the address that the name of Grid Engine's host stands for."""
    return socket.gethostbyname(os.environ["PERIJOVE_TEST_SGE_HOST"])


@contextmanager
def a_batch_site() -> Iterator[BatchSite]:
    """Run a site; at the end neither it nor any job of its is left."""
    place = Path(mkdtemp(dir="/var/tmp", prefix="perijove-test-"))
    place.chmod(0o711)
    program = place / "program.py"
    program.write_bytes(PROGRAM.read_bytes())
    program.chmod(0o644)
    directory = place / "hub"
    directory.mkdir(mode=0o700)
    found = BatchSite(Site(directory, free_port(), extra=configuration(program)))
    found.site.start()
    try:
        for user in PEOPLE:
            assert found.site.api("POST", f"/users/{user}")[0] == 201
        yield found
    finally:
        found.unblock()
        _end_everything(found)
        found.site.stop()
        shutil.rmtree(place)


def _end_everything(found: BatchSite) -> None:
    """Stop all servers, and wait until that has happened: jobs outlive their hub."""
    live = [(user, server) for user in PEOPLE for server in found.servers(user)]
    with ThreadPoolExecutor(20) as pool:
        for user, server in live:
            pool.submit(found.stop, user, server)
    for user, server in live:
        found.becomes(user, server, "ended")
