"""The systemd units: valid, and harmless to people's servers."""

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

from tests import beds

UNITS = beds.ROOT / "deploy/systemd"
INSTALLED = "/opt/perijove/bin/perijove"


def service(name: str) -> configparser.SectionProxy:
    """Read the [Service] section of a unit of ours."""
    parser = configparser.ConfigParser(interpolation=None, strict=False, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(UNITS / name)
    return parser["Service"]


@pytest.mark.needs("systemd-analyze")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """`systemd-analyze verify` finds nothing to say about the units."""
    units = sorted(UNITS.glob("*.service"))
    for unit in units:
        # verify wants the program to exist; where it is installed is the site's choice.
        (tmp_path / unit.name).write_text(unit.read_text().replace(INSTALLED, sys.executable))

    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(tmp_path / unit.name for unit in units)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    told = [line for line in result.stderr.splitlines() if "perijove" in line]
    assert (result.returncode, told) == (0, [])
    assert [unit.stem for unit in units] == ["perijove-hub", "perijove-proxy", "perijove-tunnel"]


def test_the_end_of_the_hub_is_not_the_end_of_servers() -> None:
    """The hub's unit stops the hub's process alone, and one killed server stops no unit."""
    hub = service("perijove-hub.service")

    assert hub["KillMode"] == "process"
    assert hub["OOMPolicy"] == "continue"
    assert "PrivateTmp" not in hub


@pytest.mark.parametrize("name", ["hub", "proxy", "tunnel"])
def test_a_unit_starts_a_command_that_exists(name: str) -> None:
    """What a unit starts is a command of ours with options it knows."""
    program, command, *options = service(f"perijove-{name}.service")["ExecStart"].split()

    told = subprocess.run(
        [Path(sys.executable).with_name("perijove"), command, "--help"],
        capture_output=True, text=True, check=True, env={"COLUMNS": "120", "TERM": "dumb"},
    ).stdout  # fmt: skip

    assert program == INSTALLED
    assert all(option in told for option in options if option.startswith("--"))
