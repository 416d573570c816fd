"""The machine with systemd in charge, as `testbeds/machine` provides it, and Perijove in it."""

import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

import pytest

from tests import beds

INSIDE: Final = "/srv/perijove"
"""Where the repository's `deploy` and what the tests bring along is, with Perijove's wheel."""
SENT: Final = (
    "deploy/launcher",
    "deploy/pam",
    "deploy/systemd",
    "src/perijove/spawners/launcher/perijove_launch.py",
)
PROGRAMS: Final = (
    beds.ROOT / "tests/contract/spawners/program.py",
    Path(__file__).with_name("limited_hub.py"),
)


@dataclass(frozen=True, slots=True)
class Machine:
    """What can be done with it, as root. It is slow: nothing here hurries."""

    command: str
    url: str
    """Where its port 8000 is."""

    def run(self, script: str, stdin: bytes = b"") -> str:
        """Return what a shell in it says, which must succeed."""
        result = subprocess.run(
            [self.command, f"set -e; {script}"], input=stdin, capture_output=True, timeout=500,
            check=False,
        )  # fmt: skip
        assert result.returncode == 0, f"{script}\n{result.stdout!r}\n{result.stderr!r}"
        return result.stdout.decode()


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """Give the machine with this tree's Perijove in `/opt/perijove` and its account."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder)]
    subprocess.run([*pip, str(beds.ROOT)], check=True, timeout=300)
    (wheel,) = folder.glob("*.whl")
    parcel = BytesIO()
    with tarfile.open(fileobj=parcel, mode="w") as archive:
        for name in SENT:
            archive.add(beds.ROOT / name, name, filter=_as_roots)
        for file in (wheel, *PROGRAMS):
            archive.add(file, file.name, filter=_as_roots)
    found = Machine(os.environ["PERIJOVE_TEST_MACHINE"], os.environ["PERIJOVE_TEST_MACHINE_URL"])
    found.run(
        f"rm -rf {INSIDE}; mkdir -p {INSIDE}; tar -C {INSIDE} -xf -; cd {INSIDE}; "
        "/opt/perijove/bin/pip install --quiet --no-index --no-deps --force-reinstall *.whl; "
        f"systemd-sysusers {INSIDE}/deploy/systemd/perijove.sysusers.conf; "
        "install -d -o perijove -g perijove -m 700 /var/lib/perijove",
        parcel.getvalue(),
    )
    return found


def _as_roots(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Have a file belong to root, with a mode that does not depend on this clone's."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    return member


@pytest.fixture
def user_manager(machine: Machine) -> Iterator[None]:
    """Have a user manager of the hub's account run, as an administrator does for good."""
    machine.run("loginctl enable-linger perijove; systemctl start user@$(id -u perijove)")
    yield
    machine.run("loginctl disable-linger perijove; systemctl stop user@$(id -u perijove)")
