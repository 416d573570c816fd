"""
Run the tests, in two lanes beside each other: ``python -m scripts.test [PYTEST ARGUMENTS]``.

One lane is what uses the platforms of which a machine has one each (schedulers, engines, system
accounts): those tests take turns. The other is all the rest. Their progress is shown as it
comes, each line behind its lane's name; the report of a lane follows in one piece when it is
done. With arguments there is one lane, and pytest gets them.
"""

import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

LANES: Final = ("platforms", "rest")
_DONE: Final = 0
_FAILED: Final = 1
_NO_TESTS: Final = 5
_COUNT: Final = re.compile(r"(\d+) (passed|failed|errors?|skipped)")
_HEADING: Final = re.compile(r"=+ (?!test session starts).* =+")
_SUMMARY: Final = re.compile(r"=+ .* in [\d.]+s.*=+")

Program = subprocess.Popen[str]


def main(arguments: Sequence[str]) -> int:
    """Run them; return pytest's exit status, or the first lane's that is not 0."""
    if arguments:
        command = [sys.executable, "-m", "pytest", *arguments]
        return subprocess.run(command, check=False).returncode  # noqa: S603 - no shell
    # The lanes would overwrite each other's memory of what failed last.
    pytest = (sys.executable, "-u", "-m", "pytest", "-p", "no:cacheprovider")
    return run_lanes({lane: (*pytest, f"--lane={lane}") for lane in LANES})


def run_lanes(commands: Mapping[str, Sequence[str]]) -> int:
    """Run each lane's command, show what they say, and sum up; return the status of all."""
    # Ctrl-C reaches the lanes as well, which report and end: they are waited for.
    signal.signal(signal.SIGINT, lambda _number, _frame: None)
    lanes = {name: _start(command) for name, command in commands.items()}
    with ThreadPoolExecutor() as threads:
        relays = [threads.submit(_relay, name, program) for name, program in lanes.items()]
        counts = sum((relay.result() for relay in relays), Counter[str]())
    codes = {name: program.wait() for name, program in lanes.items()}
    for name, code in codes.items():
        if code not in (_DONE, _FAILED, _NO_TESTS):
            print(f"error: the lane {name} ended with status {code}, before all its tests had run")
    failed = counts["failed"] + counts["error"] + counts["errors"]
    print(f"tests: {counts['passed']} passed, {failed} failed, {counts['skipped']} skipped")
    unwell = (code for code in codes.values() if code not in (_DONE, _NO_TESTS))
    return next(unwell, _DONE if any(counts) else _NO_TESTS)


def _start(command: Sequence[str]) -> Program:
    return subprocess.Popen(  # noqa: S603 - no shell
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


def _relay(name: str, program: Program) -> Counter[str]:
    """Show what a lane says; return what its closing line counts."""
    assert program.stdout is not None
    show = partial(print, end="", flush=True)
    report: list[str] = []
    for line in program.stdout:
        if report or _HEADING.fullmatch(line.strip()):
            report.append(line)
        else:
            show(f"{name:9} {line}")
    show("".join(report))
    return next(filter(None, map(_counts_in, reversed(report))), Counter())


def _counts_in(line: str) -> Counter[str]:
    """Return the counts of a closing line; nothing of any other."""
    if not _SUMMARY.fullmatch(line.strip()):
        return Counter()
    return Counter({what: int(count) for count, what in _COUNT.findall(line)})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
