"""`make test` without arguments: two lanes, told as one run."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests import beds

PROGRAM = """
import json, sys
from scripts.test import run_lanes
sys.exit(run_lanes(json.loads(sys.argv[1])))
"""
HEAD = "===== test session starts ====="
GOOD = f"echo '{HEAD}'; echo 'one.py ..'; echo '===== 2 passed, 1 skipped in 1.50s ====='"
BAD = (
    "echo 'two.py .F'; echo '===== FAILURES ====='; echo '== 9 passed in 0.1s =='; echo why;"
    " echo '===== 1 failed, 1 passed, 1 error in 61.00s (0:01:01) ====='; exit 1"
)


@contextmanager
def running(lanes: Mapping[str, str]) -> "Iterator[subprocess.Popen[str]]":
    """Run a shell's command in each lane."""
    commands = {name: ["sh", "-c", command] for name, command in lanes.items()}
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, json.dumps(commands)],
        cwd=beds.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        yield program
    finally:
        program.kill()
        program.communicate()


def said(lanes: Mapping[str, str]) -> tuple[list[str], int]:
    """Return all lines, and the status."""
    with running(lanes) as program:
        out, _ = program.communicate(timeout=60)
        return out.splitlines(), program.returncode


def test_two_lanes_are_summed_up() -> None:
    """The last line counts both, each by its own last word; what failed is the status."""
    lines, status = said({"platforms": GOOD, "rest": BAD})

    assert lines[-1] == "tests: 3 passed, 2 failed, 1 skipped"
    assert status == 1
    assert {f"platforms {HEAD}", "platforms one.py ..", "rest      two.py .F"} <= set(lines)
    report = lines.index("===== FAILURES =====")
    assert lines[report + 1 : report + 3] == ["== 9 passed in 0.1s ==", "why"]


def test_progress_is_shown_as_it_comes(tmp_path: Path) -> None:
    """Of a run that is cut off, it is seen how far each lane had come."""
    go_on = tmp_path / "go-on"
    waits = f"echo 'one.py ..'; until [ -e {go_on} ]; do sleep 0.1; done; {GOOD}"
    with running({"platforms": GOOD, "rest": waits}) as program:
        assert program.stdout is not None
        while program.stdout.readline() != "rest      one.py ..\n":
            assert program.poll() is None
        go_on.touch()
        out, _ = program.communicate(timeout=60)

    assert out.splitlines()[-1] == "tests: 4 passed, 0 failed, 2 skipped"
    assert program.returncode == 0


def test_a_lane_that_dies_is_named() -> None:
    """What it did not run is not taken for passed."""
    lines, status = said({"platforms": GOOD, "rest": "echo 'one.py .'; kill -9 $$"})

    assert f"error: the lane rest ended with status {-signal.SIGKILL}" in lines[-2]
    assert status != 0


def test_ctrl_c_waits_for_what_the_lanes_report() -> None:
    """They hear it too, and say what they had done."""
    waits = f'trap "{GOOD}; exit 2" INT; echo ready; while :; do sleep 0.1; done'
    with running({"rest": waits}) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "rest      ready\n"
        (lane,) = psutil.Process(program.pid).children()
        lane.send_signal(signal.SIGINT)
        program.send_signal(signal.SIGINT)
        out, _ = program.communicate(timeout=60)

    assert out.splitlines()[-1] == "tests: 2 passed, 0 failed, 1 skipped"
    assert program.returncode == 2


def test_no_tests_at_all_is_no_success() -> None:
    """As with pytest itself."""
    nothing = "echo '===== 7 deselected in 0.10s ====='; exit 5"

    assert said({"platforms": nothing, "rest": nothing})[1] == 5
