"""A program of several processes: real ones, killed for real."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

PATIENCE = 60
PROGRAM = """
import json, sys
from perijove.kit.processes import Supervisor
def report(name, code, pause):
    print("report", name, code, pause, flush=True)
commands = json.loads(sys.argv[1])
sys.exit(Supervisor(commands, final={0, 2}, report=report, grace=0.5).run())
"""
BOUND = """
import os, sys, time
from perijove.kit.processes import die_with_parent
die_with_parent(int(sys.argv[1]) if len(sys.argv) > 1 else os.getppid())
print("pid", os.getpid(), flush=True)
time.sleep(1000)
"""
RUNS = ["sh", "-c", "echo pid $$; exec sleep 1000"]
STUBBORN = ["sh", "-c", "trap '' TERM; echo pid $$; while :; do sleep 0.1; done"]


class Running:
    """A supervisor, and what it and its children say."""

    def __init__(self, program: "subprocess.Popen[str]") -> None:
        self.program = program

    def line(self) -> list[str]:
        """Return the words of the next line."""
        assert self.program.stdout is not None
        return self.program.stdout.readline().split()

    def child(self) -> psutil.Process:
        """Return the next child that says it runs."""
        word, pid = self.line()
        assert word == "pid"
        return psutil.Process(int(pid))


@contextmanager
def supervised(commands: Mapping[str, list[str]]) -> Iterator[Running]:
    """Run commands under a supervisor that is a process of its own."""
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, json.dumps(commands)], stdout=subprocess.PIPE, text=True
    )
    try:
        yield Running(program)
    finally:
        if program.poll() is None:
            for process in psutil.Process(program.pid).children(recursive=True):
                process.kill()
            program.kill()
        program.communicate(timeout=PATIENCE)


def test_what_dies_is_started_again_ever_more_slowly() -> None:
    """Each restart is reported with the code and a pause that grows."""
    with supervised({"a": ["sh", "-c", "exit 7"]}) as running:
        reports = [running.line() for _ in range(3)]

    assert [report[:3] for report in reports] == [["report", "a", "7"]] * 3
    assert [float(report[3]) for report in reports] == [0.2, 0.4, 0.8]


def test_only_what_died_is_started_again() -> None:
    """A killed child comes back; the other one never notices."""
    with supervised({"a": RUNS}) as running:
        first = running.child()
        first.kill()
        assert running.line()[:3] == ["report", "a", "-9"]
        second = running.child()

        assert second.pid != first.pid
        assert second.is_running()


def test_a_final_code_ends_everything(tmp_path: Path) -> None:
    """Where trying again is useless, the code is the whole program's."""
    ends = ["sh", "-c", 'until [ -e "$0" ]; do sleep 0.1; done; exit 2', str(tmp_path / "end")]
    with supervised({"a": RUNS, "b": ends}) as running:
        child = running.child()
        (tmp_path / "end").touch()
        assert running.program.wait(PATIENCE) == 2
        assert not child.is_running()


def test_an_orderly_end_of_one_ends_all_with_code_0() -> None:
    """A child that was told to stop is not started against its will."""
    with supervised({"a": ["true"]}) as running:
        assert running.program.wait(PATIENCE) == 0


def test_a_signal_ends_all() -> None:
    """SIGTERM and SIGINT reach every child, and the supervisor ends with code 0."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        with supervised({"a": RUNS, "b": RUNS}) as running:
            children = [running.child(), running.child()]
            running.program.send_signal(number)

            assert running.program.wait(PATIENCE) == 0
            assert not any(child.is_running() for child in children)


def test_who_does_not_end_is_killed() -> None:
    """After the grace there is no more asking."""
    with supervised({"a": STUBBORN}) as running:
        child = running.child()
        running.program.terminate()

        assert running.program.wait(PATIENCE) == 0
        assert not child.is_running()


def test_children_die_with_their_supervisor() -> None:
    """Also with one that was killed and could not say so."""
    with supervised({"a": [sys.executable, "-c", BOUND]}) as running:
        child = running.child()
        running.program.kill()
        running.program.wait()

        assert psutil.wait_procs([child], timeout=PATIENCE)[1] == []


def test_a_child_whose_supervisor_is_gone_already_ends() -> None:
    """The death of the parent before the kernel was told is noticed too."""
    done = subprocess.run(
        [sys.executable, "-c", BOUND, "1"], capture_output=True, timeout=PATIENCE, check=False
    )

    assert (done.returncode, done.stdout) == (0, b"")
