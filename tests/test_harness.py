"""The rules of the test suite itself: a need is met, told, or a failure."""

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from tests import beds

SKIPPING = 'import pytest\n\ndef test_it():\n    """Skip."""\n    pytest.skip("not today")\n'
NEEDY = 'import pytest\n\n@pytest.mark.needs("{name}")\ndef test_it():\n    """Need something."""\n'


def run_pytest(
    folder: Path, source: str, *arguments: str, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run `source` as a test module under this project's rules."""
    module = folder / "test_sample.py"
    module.write_text(source)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider",
         "--rootdir", beds.ROOT, "-c", beds.ROOT / "pyproject.toml", *arguments, module],
        cwd=beds.ROOT, env=os.environ | {"PERIJOVE_TEST_NO_SKIP": "0"} | environ,
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip


def test_a_skip_is_told_with_its_reason(tmp_path: Path) -> None:
    """A skipped test does not fail the run, and its reason stands in the summary."""
    result = run_pytest(tmp_path, SKIPPING)

    assert "1 skipped" in result.stdout
    assert "not today" in result.stdout
    assert result.returncode == 0


def test_a_skip_is_a_failure_where_nothing_may_stay_untested(tmp_path: Path) -> None:
    """With PERIJOVE_TEST_NO_SKIP=1 a skip of any kind fails the run."""
    result = run_pytest(tmp_path, SKIPPING, PERIJOVE_TEST_NO_SKIP="1")

    assert "a skip is a failure here" in result.stdout
    assert result.returncode == 1


def test_a_skipped_module_is_a_failure_too(tmp_path: Path) -> None:
    """A whole module that skips itself fails the run where nothing may stay untested."""
    source = 'import pytest\n\npytest.importorskip("no_such_module")\n'

    result = run_pytest(tmp_path, source, PERIJOVE_TEST_NO_SKIP="1")

    assert "a skip is a failure here" in result.stdout
    assert result.returncode != 0


def test_an_unmet_need_names_the_command_that_helps(tmp_path: Path) -> None:
    """A test whose need is not met says which, and what provides it."""
    result = run_pytest(tmp_path, NEEDY.format(name="chromium"), PERIJOVE_TEST_CHROMIUM="/gone")

    assert "needs chromium: testbeds/up chromium" in result.stdout


def test_an_unknown_need_is_refused(tmp_path: Path) -> None:
    """A misspelt need stops the run instead of skipping its test for ever."""
    result = run_pytest(tmp_path, NEEDY.format(name="postgres-ql"))

    assert "known are axe-core, chromium" in result.stdout + result.stderr
    assert result.returncode == pytest.ExitCode.USAGE_ERROR


def test_the_database_is_empty_and_its_own(postgresql_url: str) -> None:
    """Each test gets a PostgreSQL database of its own, with no table in it."""
    with psycopg.connect(postgresql_url) as connection:
        name, tables = connection.execute(
            "SELECT current_database(), count(*) FROM pg_tables WHERE schemaname = 'public'"
            " GROUP BY 1 UNION ALL SELECT current_database(), 0 LIMIT 1"
        ).fetchone() or ("", -1)

    assert name.startswith("test_")
    assert tables == 0


@pytest.mark.parametrize(
    ("need", "lane"), [("slurm", "platforms"), ("docker", "platforms"), ("root", "rest")]
)
def test_every_test_is_in_one_lane(tmp_path: Path, need: str, lane: str) -> None:
    """What needs a platform of which there is one runs in its lane, and nowhere else."""
    for asked in ("platforms", "rest"):
        result = run_pytest(tmp_path, NEEDY.format(name=need), f"--lane={asked}", "--collect-only")
        assert ("1 test collected" in result.stdout) is (asked == lane)
        assert ("1 deselected" in result.stdout) is (asked != lane)
