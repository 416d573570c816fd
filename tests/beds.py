"""
What a test may need from this machine, how to see whether it is there, and who provides it.

A test says ``@pytest.mark.needs("postgresql")``; where the need is not met it is skipped with
the reason and the command that helps, and under ``PERIJOVE_TEST_NO_SKIP=1`` it fails instead.
The test beds (`testbeds/`) tell what they provide by ``NAME=value`` lines, read here once.
"""

import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

ROOT: Final = Path(__file__).resolve().parent.parent

NO_SKIP: Final = "PERIJOVE_TEST_NO_SKIP"
"""Set to 1 where nothing may stay untested, as `.ci/run` does: a skip is then a failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Something a test cannot do without."""

    met: Callable[[], bool]
    provided_by: str


def load_environment(environ: MutableMapping[str, str]) -> None:
    """Lay what the test beds published under `environ`; what is set there already stays."""
    for file in sorted((ROOT / "testbeds/.state/env").glob("*")):
        for line in file.read_text().splitlines():
            name, _, value = line.partition("=")
            environ.setdefault(name, value)


def singleuser(version: str) -> Path:
    """Return the ``jupyterhub-singleuser`` of release `version`: 4.1, 5 or 6."""
    return ROOT / f".venvs/singleuser-{version}/bin/jupyterhub-singleuser"


def account_environment(account: str) -> dict[str, str]:
    """Return what a login gives `account`, and what the commands of the schedulers need."""
    entry = pwd.getpwnam(account)
    settings = {
        name.removeprefix("PERIJOVE_TEST_"): value
        for name, value in os.environ.items()
        if name.startswith(("PERIJOVE_TEST_SLURM_CONF", "PERIJOVE_TEST_SGE_"))
    }
    return settings | {
        "HOME": entry.pw_dir,
        "USER": account,
        "LOGNAME": account,
        "SHELL": "/bin/bash",
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
    }


def run_as(account: str, *command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run `command` to its end as a system account, in its home; only root can."""
    entry = pwd.getpwnam(account)
    return subprocess.run(
        command, input=stdin, env=account_environment(account), cwd=entry.pw_dir,
        user=entry.pw_uid, group=entry.pw_gid,
        extra_groups=os.getgrouplist(account, entry.pw_gid),
        capture_output=True, text=True, errors="replace", timeout=120, check=False,
    )  # fmt: skip


def disturb(bed: Literal["slurm", "gridengine", "docker", "kubernetes"], *what: str) -> None:
    """Stop, kill or mend something of a platform: see `testbeds/slurm/ctl` and its like."""
    subprocess.run([ROOT / "testbeds" / bed / "ctl", *what], check=True, timeout=120)


def _is_file(path: Path) -> bool:
    return path.is_file()


def _names_a_file(variable: str) -> bool:
    return _is_file(Path(os.environ.get(variable, "/nonexistent")))


def _control_groups_are_ours() -> bool:
    places = ("/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory/cgroup.procs")
    return any(os.access(place, os.W_OK) for place in places)


def _grid_engine_is_known() -> bool:
    root = os.environ.get("PERIJOVE_TEST_SGE_ROOT", "/nonexistent")
    return _is_file(Path(root, "default/common/bootstrap"))


NEEDS: Final[Mapping[str, Need]] = {
    "postgresql": Need(
        met=partial(os.environ.__contains__, "PERIJOVE_TEST_POSTGRESQL"),
        provided_by="testbeds/up postgresql",
    ),
    "chromium": Need(
        met=partial(_names_a_file, "PERIJOVE_TEST_CHROMIUM"), provided_by="testbeds/up chromium"
    ),
    "axe-core": Need(
        met=partial(_names_a_file, "PERIJOVE_TEST_AXE"), provided_by="testbeds/up chromium"
    ),
    "lab": Need(
        met=partial(_is_file, ROOT / ".venv/bin/jupyterhub-singleuser"),
        provided_by="make test, which installs the extra `lab`",
    ),
    "configurable-http-proxy": Need(
        met=partial(_names_a_file, "PERIJOVE_TEST_CHP"), provided_by="testbeds/up bench"
    ),
    "jupyterhub": Need(
        met=partial(_is_file, ROOT / ".venvs/bench/bin/jupyterhub"),
        provided_by="testbeds/up bench",
    ),
    **{
        f"singleuser-{version}": Need(
            met=partial(_is_file, singleuser(version)),
            provided_by="testbeds/up singleuser",
        )
        for version in ("4.1", "5", "6")
    },
    "systemd-analyze": Need(
        met=lambda: shutil.which("systemd-analyze") is not None,
        provided_by="testbeds/up tools",
    ),
    "users": Need(
        met=partial(os.environ.__contains__, "PERIJOVE_TEST_PASSWORD"),
        provided_by="testbeds/up users, as root",
    ),
    "hub-account": Need(
        met=partial(os.environ.__contains__, "PERIJOVE_TEST_HUB_PREFIX"),
        provided_by="testbeds/up users, as root",
    ),
    "slurm": Need(
        met=partial(_names_a_file, "PERIJOVE_TEST_SLURM_CONF"),
        provided_by="testbeds/up users slurm, as root",
    ),
    "gridengine": Need(
        met=_grid_engine_is_known, provided_by="testbeds/up users gridengine, as root"
    ),
    "docker": Need(
        met=partial(os.environ.__contains__, "PERIJOVE_TEST_DOCKER_HOST"),
        provided_by="testbeds/up docker, as root",
    ),
    "docker-ctl": Need(
        met=partial(_names_a_file, "PERIJOVE_TEST_DOCKER_CTL"),
        provided_by="testbeds/up docker, as root, where no other engine has the socket",
    ),
    "docker-compose": Need(
        met=lambda: shutil.which("docker-compose") is not None,
        provided_by="apt-get install docker-compose",
    ),
    "kubernetes": Need(
        met=partial(_names_a_file, "PERIJOVE_TEST_KUBECONFIG"),
        provided_by="testbeds/up docker kubernetes, as root",
    ),
    "machine": Need(
        met=partial(_names_a_file, "PERIJOVE_TEST_MACHINE"),
        provided_by="testbeds/up machine, as root",
    ),
    "fresh-clone": Need(
        met=lambda: "1" in (os.environ.get("PERIJOVE_TEST_FRESH"), os.environ.get(NO_SKIP)),
        provided_by="PERIJOVE_TEST_FRESH=1 (installs everything anew, takes minutes)",
    ),
    "control-groups": Need(
        met=_control_groups_are_ours, provided_by="a machine where root may make control groups"
    ),
    "root": Need(met=lambda: os.geteuid() == 0, provided_by="running the tests as root"),
}


SINGLE: Final = frozenset(
    {
        "users",
        "hub-account",
        "slurm",
        "gridengine",
        "docker",
        "docker-ctl",
        "kubernetes",
        "machine",
        "control-groups",
    }
)
"""What a machine has one of: tests that use it take turns, see `scripts/test.py`."""


def missing(names: tuple[str, ...]) -> str:
    """Say what of `names` is not there and how to get it; an empty text if all is there."""
    return "; ".join(
        f"needs {name}: {NEEDS[name].provided_by}" for name in names if not NEEDS[name].met()
    )
