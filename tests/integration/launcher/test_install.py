"""The installer says no in time, and what it asks of systemd is enough for sudo."""

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

from tests import beds

INSTALL = beds.ROOT / "deploy/launcher/install"
DROP_IN = beds.ROOT / "deploy/launcher/perijove-hub.conf"
UNIT = beds.ROOT / "deploy/systemd/perijove-hub.service"
# Each of these makes a process of a unit with User= unable to gain rights, or hides from it, and
# so from what it starts, what people need (systemd.exec(5)).
IN_THE_WAY = {
    "NoNewPrivileges",
    "CapabilityBoundingSet",
    "RestrictSUIDSGID",
    "LockPersonality",
    "RestrictRealtime",
    "SystemCallArchitectures",
}


@pytest.mark.needs("root", "users")
@pytest.mark.parametrize(
    "arguments",
    [
        ["--hub", "root"],
        ["--hub", "nobody-here"],
        ["--hub", "perijove-hub", "--group", "a) NOPASSWD: ALL #"],
        ["--hub", "perijove-hub\nALL"],
        ["--hub", "perijove-hub", "--program", "/nonexistent"],
        ["--what"],
    ],
)
def test_installer_refuses_what_would_be_a_hole(arguments: list[str]) -> None:
    """An account of root's, a name that is none, a missing program: nothing is installed."""
    rule = Path("/etc/sudoers.d/perijove-launch")
    before = rule.exists()

    result = subprocess.run(
        [INSTALL, *arguments], capture_output=True, text=True, timeout=30, check=False
    )

    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert rule.exists() is before


@pytest.mark.needs("root", "users")
def test_only_root_installs() -> None:
    """Anybody else is told so."""
    copied = beds.run_as("alice", "bash", "-s", stdin=INSTALL.read_text())

    assert copied.returncode == 1
    assert "only root" in copied.stderr


def test_drop_in_takes_back_what_stands_in_sudos_way() -> None:
    """Whatever the unit restricts that sudo or people's programs need is open again."""
    unit, drop_in = _service(UNIT), _service(DROP_IN)
    restricting = {name for name in unit if name in IN_THE_WAY or name.startswith("Protect")}

    assert restricting <= set(drop_in)
    assert set(drop_in) <= set(unit)


@pytest.mark.needs("systemd-analyze")
def test_systemd_accepts_the_drop_in(tmp_path: Path) -> None:
    """`systemd-analyze verify` finds nothing to say about the unit with its drop-in."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/perijove/bin/perijove", sys.executable))
    folder = tmp_path / f"{UNIT.name}.d"
    folder.mkdir()
    (folder / DROP_IN.name).write_bytes(DROP_IN.read_bytes())

    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )

    assert [line for line in result.stderr.splitlines() if UNIT.name in line] == []


def _service(file: Path) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None, strict=False, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(file)
    return parser["Service"]
