"""The pins: complete, fitting, and free of addresses."""

import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests import beds

FILES = [beds.ROOT / "constraints.txt", *sorted(beds.ROOT.glob("testbeds/*/constraints*.txt"))]


def pins(file: Path) -> dict[str, str]:
    """Read the pinned versions that hold on this machine, by package."""
    requirements = map(Requirement, file.read_text().splitlines())
    return {
        each.name: str(each.specifier).removeprefix("==")
        for each in requirements
        if each.marker is None or each.marker.evaluate()
    }


def requirements() -> list[Requirement]:
    """Return what the project and all its extras ask for."""
    project = tomllib.loads((beds.ROOT / "pyproject.toml").read_text())["project"]
    asked = chain(project["dependencies"], *project["optional-dependencies"].values())
    return [each for each in map(Requirement, asked) if each.name != project["name"]]


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_a_pin_names_no_address(file: Path) -> None:
    """Constraints work with any mirror: each line is a package, a version, perhaps a marker."""
    lines = file.read_text().splitlines()

    assert [line for line in lines if not str(Requirement(line).specifier).startswith("==")] == []
    assert "://" not in file.read_text()


def test_all_that_is_asked_for_is_pinned() -> None:
    """Every requirement of `pyproject.toml` has a pin that satisfies it."""
    pinned = pins(beds.ROOT / "constraints.txt")

    assert [
        str(each)
        for each in requirements()
        if not each.specifier.contains(pinned.get(each.name, "0.dev0"))
    ] == []
