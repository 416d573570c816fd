"""
The schedulers of the test beds as journeys use them: configured, asked, and left as they were.

There is one of each on a machine, and what one journey leaves there holds up the next one. So
every test that submits jobs does so within `left_clean`: it begins on clusters without a job and
with every node, or fails by naming what is in the way; and it leaves them so, whatever happened.
"""

import fcntl
import functools
import os
import pwd
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from socket import gethostbyname
from typing import Final, Literal

from tests import beds
from tests.e2e.site import Site, wait_for

Cluster = Literal["slurm", "gridengine"]

BOTH: Final[tuple[Cluster, ...]] = ("slurm", "gridengine")
PEOPLE: Final = ("alice", "bob", "carol")
"""Those whom the schedulers know."""

_STATE: Final = "/var/lib/perijove-testbeds"
_PATIENCE: Final = 90.0
"""Seconds in which what a test started has left a cluster; it takes a few on an idle machine."""


# --- as a site configures them --------------------------------------------------------------


def section(cluster: Cluster, settings: str = "") -> str:
    """
    Return a spawner's section, TOML, with further lines; it has the cluster's name.

    Its periods are shorter than any real site would have them: tests are in a hurry.
    """
    return f"""
[spawners.{cluster}]
kind = "{cluster}"
{_OWN[cluster]}
scheduler_environment = {{ {_environment(cluster)} }}
networks = {_networks(cluster)}
scheduler_timeout = 5
minimum_period = 1
survey_period = 1
survey_busy_period = 1
stop_grace = 5
{settings}
"""


_OWN: Final = {
    "slurm": "",
    "gridengine": """\
parallel_environment = "smp"
memory_complex = "rmem"
gpu_complex = "gpu"
""",
}
_VARIABLES: Final = {
    "slurm": ("SLURM_CONF",),
    "gridengine": ("SGE_ROOT", "SGE_CELL", "SGE_QMASTER_PORT", "SGE_EXECD_PORT"),
}


def _environment(cluster: Cluster) -> str:
    names = _VARIABLES[cluster]
    return ", ".join(f'{name} = "{os.environ[f"PERIJOVE_TEST_{name}"]}"' for name in names)


def _networks(cluster: Cluster) -> list[str]:
    """Return where jobs listen: Slurm's nodes are loopback addresses, the other's is a name."""
    if cluster == "slurm":
        return ["127.0.0.0/8"]
    return ["127.0.0.0/8", f"{gethostbyname(os.environ['PERIJOVE_TEST_SGE_HOST'])}/32"]


def sign_in_section() -> str:
    """Return the section by which the beds' people sign in with their passwords, TOML."""
    return f'[auth.pam]\nservice = "{os.environ["PERIJOVE_TEST_PAM_SERVICE"]}"\n'


# --- what is there --------------------------------------------------------------------------


def asked(*command: str) -> str:
    """Return what a scheduler's program answers to root; one that is silent is asked again."""

    def ask() -> subprocess.CompletedProcess[str] | None:
        with suppress(subprocess.CalledProcessError, subprocess.TimeoutExpired):
            return subprocess.run(
                command,
                env=beds.account_environment("root"),
                check=True,
                capture_output=True,
                text=True,
                timeout=20,
            )
        return None

    return wait_for(ask, what=f"an answer to {' '.join(command)}").stdout


@dataclass(frozen=True, slots=True)
class Job:
    """A job in a queue that is not over."""

    id: str
    name: str
    user: str
    state: str
    """The scheduler's own letters."""

    @property
    def is_running(self) -> bool:
        """It has what it asked for."""
        return self.state.upper() == "R"


def jobs(cluster: Cluster) -> list[Job]:
    """Return all jobs of a cluster that are not over, whoever owns them."""
    if cluster == "slurm":
        rows = asked("squeue", "--noheader", "--format=%A\x1f%j\x1f%u\x1f%t").splitlines()
        return [Job(*row.split("\x1f")) for row in rows if row.count("\x1f") == 3]
    # Not as XML: people's control characters stand in that as they are.
    listing = asked("qstat", "-u", "*", "-r")
    return [Job(job, name, user, state) for job, user, state, name in _ROWS.findall(listing)]


_ROWS: Final = re.compile(r"^ *(\d+) +\S+ +\S+ +(\S+) +(\S+) .*\n +Full jobname: +(\S+)", re.M)


def jobs_named(cluster: Cluster, name: str) -> list[str]:
    """Return the ids of the jobs of a name that are not over."""
    return [job.id for job in jobs(cluster) if job.name == name]


# --- jobs beside a hub ----------------------------------------------------------------------

_QUIET: Final = {
    "slurm": ("sbatch", "--parsable", "--time=30", "--output=/dev/null"),
    "gridengine": ("qsub", "-terse", "-o", "/dev/null", "-j", "y", "-b", "y"),
}
_IDLE: Final = {"slurm": ("--wrap=exec sleep 1800",), "gridengine": ("/bin/sleep", "1800")}
_LITTLE: Final = {"slurm": ("--mem=16M",), "gridengine": ("-l", "rmem=16M")}


@dataclass(slots=True)
class Blockers:
    """Jobs of people beside the hub that occupy something, until they are ended."""

    found: list[tuple[Cluster, str]] = field(default_factory=list)

    def submit(self, cluster: Cluster, user: str, *arguments: str) -> str:
        """Submit a job that does nothing; returns its id."""
        command = (*_QUIET[cluster], *_LITTLE[cluster], *arguments, *_IDLE[cluster])
        done = beds.run_as(user, *command)
        assert done.returncode == 0, done.stderr
        job_id = done.stdout.strip().partition(";")[0]
        self.found.append((cluster, job_id))
        return job_id

    def block(self, cluster: Cluster, user: str, *arguments: str) -> str:
        """Submit such a job, and wait until it runs; returns its id."""
        job_id = self.submit(cluster, user, *arguments)
        wait_for(
            lambda: any(job.id == job_id and job.is_running for job in jobs(cluster)),
            what=f"the blocker {job_id} to run",
        )
        return job_id

    def unblock(self) -> None:
        """End them all."""
        for cluster, job_id in self.found:
            _cancel(cluster, [job_id])
        self.found.clear()


def _cancel(cluster: Cluster, job_ids: Sequence[str]) -> None:
    """Cancel jobs as root; those that are over by now do no harm."""
    program = {"slurm": "scancel", "gridengine": "qdel"}[cluster]
    beds.run_as("root", program, *job_ids)


# --- servers of a hub -----------------------------------------------------------------------


def end_servers(site: Site) -> None:
    """Stop every server of a hub, and wait until that has happened: jobs outlive their hub."""

    def live() -> list[tuple[str, str]]:
        models = {user: site.api("GET", f"/users/{user}")[1] for user in PEOPLE}
        return [(user, name) for user in PEOPLE for name in models[user].get("servers", {})]

    found = live()
    with ThreadPoolExecutor(20) as pool:
        for user, name in found:
            path = f"servers/{name}" if name else "server"
            pool.submit(site.api, "DELETE", f"/users/{user}/{path}")
    wait_for(lambda: not live(), what=f"the end of {found}", seconds=_PATIENCE)


# --- beginning and leaving ------------------------------------------------------------------


@contextmanager
def left_clean(*clusters: Cluster, patience: float = _PATIENCE) -> Iterator[ExitStack]:
    """
    Give a stack of what is to be done at the end, on clusters where nothing is in the way.

    Afterwards they are so again: what does not leave within `patience` seconds is named, and
    removed all the same. Other runs on this machine wait meanwhile.
    """
    with ExitStack() as held:
        for cluster in sorted(clusters):
            file = held.enter_context(Path(_STATE, f"{cluster}.used").open("w"))
            fcntl.flock(file, fcntl.LOCK_EX)
        _sweep(clusters)
        _settle(clusters, "was left by what ran before")
        try:
            with ExitStack() as ends:
                yield ends
        finally:
            _settle(clusters, "is left of this test", seconds=patience)


@functools.cache
def _sweep(clusters: Sequence[Cluster]) -> None:
    """Remove what an earlier run left that was interrupted; nobody here is to blame for it."""
    with suppress(AssertionError):
        _settle(clusters, "was left by an earlier run", seconds=20)


def _settle(clusters: Sequence[Cluster], what: str, seconds: float = _PATIENCE) -> None:
    """Wait until nothing is in the way; remove and name what still is, and mend the homes."""
    for cluster in clusters:
        _wake(cluster)
    deadline = time.monotonic() + seconds
    while (left := in_the_way(clusters)) and time.monotonic() < deadline:
        time.sleep(0.1)
    if left:
        for cluster in clusters:
            _mend(cluster)
    for user in PEOPLE:
        _mend_home(user)
    assert not left, f"this {what}: {left}"


def in_the_way(clusters: Sequence[Cluster]) -> list[str]:
    """Return a line for each thing that is not as the beds brought it up; empty when clean."""
    return [line for cluster in clusters for look in _LOOKS[cluster] for line in look()]


def _jobs_of(cluster: Cluster) -> Callable[[], list[str]]:
    return lambda: [f"{cluster}: {job}" for job in jobs(cluster)]


def _ailing_nodes() -> list[str]:
    dead = os.environ["PERIJOVE_TEST_SLURM_DEAD_NODE"]
    rows = {tuple(row.split()) for row in asked("sinfo", "-h", "-N", "-o", "%N %t").splitlines()}
    well = {"idle", "mix", "alloc", "comp"}
    return [f"slurm: node {name} is {state}" for name, state in rows
            if name != dead and state not in well]  # fmt: skip


def _reservations() -> list[str]:
    shown = asked("scontrol", "--oneliner", "show", "reservation").splitlines()
    return [f"slurm: {row}" for row in shown if row.startswith("ReservationName=")]


def _ailing_queues() -> list[str]:
    rows = [row.split() for row in asked("qstat", "-f", "-u", "nobody").splitlines()]
    return [f"gridengine: queue {row[0]} is in state {row[5]}" for row in rows
            if len(row) == 6 and "@" in row[0]]  # fmt: skip


_LOOKS: Final[dict[Cluster, Sequence[Callable[[], list[str]]]]] = {
    "slurm": (_jobs_of("slurm"), _ailing_nodes, _reservations),
    "gridengine": (_jobs_of("gridengine"), _ailing_queues),
}


def _wake(cluster: Cluster) -> None:
    """Start a scheduler that was stopped or killed and never started again."""
    probe = {"slurm": ("squeue", "--noheader"), "gridengine": ("qstat",)}[cluster]
    try:
        subprocess.run(
            probe,
            env=beds.account_environment("root"),
            check=True,
            capture_output=True,
            timeout=20,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        beds.disturb(cluster, "start")


def _mend(cluster: Cluster) -> None:
    """Cancel every job, and bring back every node and queue."""
    if left := [job.id for job in jobs(cluster)]:
        _cancel(cluster, left)
    if cluster == "gridengine":
        beds.disturb("gridengine", "resume")
        beds.run_as("root", "qmod", "-e", "*")
    else:
        for line in _ailing_nodes():
            beds.disturb("slurm", "resume", line.split()[2])
        for line in _reservations():
            beds.run_as("root", "scontrol", "delete", line.split()[1])
    wait_for(lambda: not in_the_way([cluster]), what=f"{cluster} to be clean", seconds=_PATIENCE)


_OF_SESSIONS: Final = (
    ".bash_history", ".bash_profile", ".bashrc", ".profile", ".ipynb_checkpoints", ".ipython",
    ".jupyter", ".local", ".perijove/environments", "Untitled*.ipynb", "slurm-*", "pj-sub.out",
)  # fmt: skip
"""What sessions and tests leave in a home, and others start with."""


def _mend_home(user: str) -> None:
    """Give a person's home the start files of a new account, and nothing of earlier sessions."""
    script = f"rm -rf -- {' '.join(_OF_SESSIONS)} && cp -rT /etc/skel ."
    done = beds.run_as(user, "sh", "-c", f"cd {pwd.getpwnam(user).pw_dir} && {script}")
    assert done.returncode == 0, done.stderr
