"""
Run the tests, in two lanes beside each other: ``python -m scripts.test [PYTEST ARGUMENTS]``.

One lane is what uses the platforms of which a machine has one each (schedulers, engines, system
accounts): those tests take turns. The other is all the rest. With arguments there is one lane,
and pytest gets them.
"""

import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from typing import IO, Final

LANES: Final = ("platforms", "rest")
_NO_TESTS: Final = 5
_COUNT: Final = re.compile(r"(\d+) (passed|failed|errors?|skipped)")
_SUMMARY: Final = re.compile(r"=+ .* in [\d.]+s.*=+")


def main(arguments: Sequence[str]) -> int:
    """Run them; return pytest's exit status, or the first lane's that is not 0."""
    if arguments:
        command = [sys.executable, "-m", "pytest", *arguments]
        return subprocess.run(command, check=False).returncode  # noqa: S603 - no shell
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as aside:
        rest = _start("rest", aside)
        platforms = _start("platforms", None)
        assert platforms.stdout is not None
        counts: Counter[str] = Counter()
        for line in platforms.stdout:
            print(line, end="", flush=True)
            counts += _counts_in(line)
        codes = [platforms.wait(), rest.wait()]
        aside.seek(0)
        for line in aside:
            print(line, end="")
            counts += _counts_in(line)
    failed = counts["failed"] + counts["error"] + counts["errors"]
    print(f"tests: {counts['passed']} passed, {failed} failed, {counts['skipped']} skipped")
    return next((code for code in codes if code not in (0, _NO_TESTS)), 0 if any(counts) else 5)


def _start(lane: str, output: IO[str] | None) -> "subprocess.Popen[str]":
    """Start one lane; its output goes to `output`, or is read by the caller."""
    return subprocess.Popen(  # noqa: S603 - no shell
        # The lanes would overwrite each other's memory of what failed last.
        [sys.executable, "-m", "pytest", f"--lane={lane}", "-p", "no:cacheprovider"],
        stdout=subprocess.PIPE if output is None else output,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


def _counts_in(line: str) -> Counter[str]:
    """Return the counts of a closing line; nothing of any other."""
    if not _SUMMARY.fullmatch(line.strip()):
        return Counter()
    return Counter({what: int(count) for count, what in _COUNT.findall(line)})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
