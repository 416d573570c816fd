"""
A hub killed at every commit of a launch's life, and started again.

The walk first records which commits there are, and fails when one is not in its list: who adds
a commit to a launch's life has to think of the crash beside it.
"""

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest

from perijove.spawners.local.process import MARKER
from tests.beds import ROOT

LIFE = {
    "request_start.<locals>.unit": 1,
    "LaunchLoop.pass_once.<locals>.unit": 2,  # the intent to submit; to end
    "append_handle": 1,  # the checkpoint
    "Steps._note_start.<locals>.unit": 1,  # what the start saw
    "Steps._locked.<locals>.unit": 1,  # ready
    "Steps._publish.<locals>.unit": 1,
    "Observer.look.<locals>.unit": 2,
    "request_stop.<locals>.unit": 1,
    "Steps._begin_end.<locals>.unit": 1,
    "Steps._finish.<locals>.unit": 1,
}
"""Every commit of a launch's life from asking to the end, and how often it comes at least."""

WALK = [
    f"{when}:{number}:{name}"
    for name, times in LIFE.items()
    for number in range(1, times + 1)
    for when in ("before", "after")
]


def run(data_dir: Path, url: str, goal: str, point: str) -> tuple[int, list[dict[str, str]]]:
    """Run a hub to its goal or its death; returns the exit code and what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.crash.crashing_hub", data_dir, url, goal, point],
        capture_output=True,
        cwd=ROOT,
        timeout=100,
        check=False,
    )
    if done.returncode not in (0, -signal.SIGKILL):
        raise AssertionError(done.stderr.decode()[-3000:])
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def launch_in(said: list[dict[str, str]]) -> dict[str, str]:
    """Return what a hub said of its launch; commits of its loops may come after it."""
    return next(fact for fact in said if "launch" in fact)


def processes_of(data_dir: Path) -> list[str]:
    """Return the launch of every living process that was started below a data directory."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            alive = process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            continue
        home = environment.get("HOME", "")
        if alive and MARKER in environment and home.startswith(str(data_dir)):
            found.append(environment[MARKER])
    return found


def starts_of(data_dir: Path) -> Counter[str]:
    """Return how often each launch's server was started."""
    try:
        return Counter((data_dir / "starts").read_text().split())
    except FileNotFoundError:
        return Counter()


def test_every_commit_of_a_life_is_in_the_list(database_url: str, tmp_path: Path) -> None:
    """A life without a crash commits just what the list names, and leaves no process."""
    code, said = run(tmp_path / "data", database_url, "ended", "none")

    assert code == 0
    assert {fact["commit"] for fact in said if "commit" in fact} == set(LIFE)
    assert launch_in(said)["end"] == "user"
    assert processes_of(tmp_path) == []


@pytest.mark.parametrize("point", WALK)
@pytest.mark.timeout(240)
def test_killed_hub_loses_and_doubles_nothing(
    database_url: str, tmp_path: Path, point: str
) -> None:
    """Killed anywhere, the next hub has one server for the request, and then none."""
    data_dir = tmp_path / "data"
    code, _ = run(data_dir, database_url, "ended", point)
    assert code == -signal.SIGKILL

    code, said = run(data_dir, database_url, "ready", "none")

    assert code == 0
    name = launch_in(said)["name"]
    assert set(processes_of(tmp_path)) == {name}
    starts = starts_of(data_dir)
    assert all(count == 1 for count in starts.values()), starts
    assert starts[name] == 1

    code, said = run(data_dir, database_url, "ended", "none")
    assert launch_in(said)["status"] == "ended"
    assert processes_of(tmp_path) == []
