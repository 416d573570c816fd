"""What a job is delivered with."""

import ast
import collections
import subprocess
import sys
from pathlib import Path

import pytest

from perijove.agent import job_files
from perijove.agent.cannot import EXITS
from perijove.domain.reasons import CANNOT


def test_the_program_is_one_file_for_old_machines() -> None:
    """It reads as Python 3.6, imports the standard library only, and names each thing once."""
    tree = ast.parse(job_files()["wrapper.py"], feature_version=(3, 6))

    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import)
                for name in node.names}  # fmt: skip
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names
    defined = [
        node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    ] + [
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id != "TYPE_CHECKING"
    ]
    assert [name for name, count in collections.Counter(defined).items() if count > 1] == []


def test_every_exit_status_has_a_reason_that_people_can_read() -> None:
    """What accounting shows of a failed job leads to a sentence; no two reasons share one."""
    assert len(set(EXITS.values())) == len(EXITS)
    assert all(64 <= status < 128 for status in EXITS.values())
    assert EXITS.keys() - {"second-job"} <= CANNOT.keys()


@pytest.mark.parametrize(("name", "code"), [("wrapper.py", "home-missing"), ("", "python-too-old")])
def test_the_script_says_what_it_misses(tmp_path: Path, name: str, code: str) -> None:
    """Without its program, or without a Python, the script ends with that reason's status."""
    for each, text in job_files().items():
        if each != name:
            (tmp_path / each).write_text(text)
    (tmp_path / "uname").write_text("#!/bin/sh\necho n1\n")
    (tmp_path / "uname").chmod(0o755)
    # No Python that this machine may have somewhere is to be found.
    script = (tmp_path / "job.sh").read_text().replace("/usr/", "/no/")

    result = subprocess.run(
        ["/bin/sh", "-c", script], cwd=tmp_path, env={"PATH": str(tmp_path)},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip

    assert result.returncode == EXITS[code]
    assert code in result.stderr


def test_a_spec_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    """A job without its order ends with that reason's status."""
    for name, text in job_files().items():
        (tmp_path / name).write_text(text)

    result = subprocess.run(
        ["/bin/sh", "./job.sh"], cwd=tmp_path, capture_output=True, text=True, timeout=30,
        check=False,
    )  # fmt: skip

    assert result.returncode == EXITS["spec-unreadable"], result.stderr
    assert "spec.json" in result.stdout
