"""The README's two commands, each alone, on a fresh clone in an empty home directory."""

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests import beds

pytestmark = [pytest.mark.needs("fresh-clone"), pytest.mark.timeout(1200)]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Copy what a clone of the present tree would hold, and nothing that was built."""
    folder = tmp_path / "clone"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=beds.ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (beds.ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(beds.ROOT / name, folder / name)
    return folder


@pytest.fixture
def newcomer(tmp_path: Path) -> dict[str, str]:
    """Give the environment of somebody who has only just got an account."""
    (tmp_path / "home").mkdir()
    kept = {name: text for name, text in os.environ.items() if name.startswith("PIP_")}
    return kept | {"HOME": str(tmp_path / "home"), "PATH": "/usr/local/bin:/usr/bin:/bin"}


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def is_serving(url: str) -> bool:
    """Tell whether the hub answers its health check."""
    try:
        with urllib.request.urlopen(f"{url}/hub/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def make_run(clone: Path, environment: dict[str, str], port: int) -> Iterator[Path]:
    """Run ``make run`` until the hub serves, and end it as Ctrl-C does; yields its output."""
    said = clone / "said"
    with said.open("wb") as out:
        process = subprocess.Popen(
            ["make", "run", f"PORT={port}"], cwd=clone, env=environment, stdin=subprocess.DEVNULL,
            stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 900
        while not is_serving(f"http://127.0.0.1:{port}"):
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.2)
        yield said
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        process.wait(60)


def test_make_run_is_all_it_takes(clone: Path, newcomer: dict[str, str]) -> None:
    """`make run` sets itself up, serves, prints a link, and ends with Ctrl-C; twice over."""
    port = free_port()

    with make_run(clone, newcomer, port) as said:
        deadline = time.monotonic() + 30
        while "/hub/login?link=" not in said.read_text():
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.1)
    assert not is_serving(f"http://127.0.0.1:{port}")

    with make_run(clone, newcomer, port):
        assert (clone / "data/perijove.sqlite").is_file()


def test_make_test_is_all_it_takes(clone: Path, newcomer: dict[str, str]) -> None:
    """`make test` sets itself up and runs the tests it is asked for."""
    done = subprocess.run(
        ["make", "test", "ARGS=tests/test_pins.py"], cwd=clone, env=newcomer,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout
    assert " passed in " in done.stdout.splitlines()[-1]
