"""What is on a volume is counted once, in time, and by nobody who outlives the server."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from perijove.agent.entry import wrapped
from perijove.agent.measure import bytes_in
from tests.e2e.site import wait_for

SIZE = 400_000


def test_all_that_lies_in_a_folder_is_counted_once(tmp_path: Path) -> None:
    """Also what lies deep; not again what has two names, and not what a link leads to."""
    elsewhere, root = tmp_path / "elsewhere", tmp_path / "volume"
    deep = root / "a" / "b"
    deep.mkdir(parents=True)
    elsewhere.mkdir()
    (elsewhere / "big").write_bytes(b"x" * 10 * SIZE)
    (root / "link").symlink_to(elsewhere)
    (deep / "one").write_bytes(b"x" * SIZE)
    (root / "two").hardlink_to(deep / "one")
    counted = bytes_in(str(root), os.getppid())
    assert counted is not None
    assert SIZE <= counted < 2 * SIZE


def test_a_sparse_file_takes_what_it_takes(tmp_path: Path) -> None:
    """It is the bytes on the disk that fill a volume, not the length of its files."""
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    counted = bytes_in(str(tmp_path), os.getppid())
    assert counted is not None
    assert counted < SIZE


def test_what_cannot_be_counted_is_not_guessed(tmp_path: Path) -> None:
    """No number for a folder that is not there, for one that takes too long, or to nobody."""
    assert bytes_in(str(tmp_path / "gone"), os.getppid()) is None
    assert bytes_in(str(tmp_path), os.getppid(), seconds=0) is None
    assert bytes_in(str(tmp_path), server=os.getpid()) is None


def test_counting_leaves_most_of_the_time_to_others(tmp_path: Path) -> None:
    """However much there is to count, it works for a quarter of the time."""
    for number in range(40):
        folder = tmp_path / str(number)
        folder.mkdir()
        for each in range(100):
            (folder / str(each)).touch()
    began, worked = time.monotonic(), time.process_time()
    assert bytes_in(str(tmp_path), os.getppid()) is not None
    assert time.process_time() - worked < 0.5 * (time.monotonic() - began)


def _children(tmp_path: Path, **given: str) -> list[str]:
    """Return the children of a command behind the program, when it is over."""
    show = "import os, pathlib; print(pathlib.Path(f'/proc/self/task/{os.getpid()}/children')"
    environment = {
        "PATH": os.environ["PATH"],
        "PERIJOVE_VOLUMES": json.dumps([str(tmp_path)]),
        "JUPYTERHUB_API_URL": "http://127.0.0.1:9",
        **given,
    }
    command = wrapped([sys.executable, "-c", f"{show}.read_text())"])
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.split()


def test_who_counts_ends_with_the_server(tmp_path: Path) -> None:
    """It is the server's child as long as that is, and says nothing in its log."""
    (child,) = _children(tmp_path, PERIJOVE_MEASURE="1")
    wait_for(lambda: _is_over(child), what="the end of who counts")


def test_nobody_counts_unasked(tmp_path: Path) -> None:
    """Where the platform itself measures the server has no such child."""
    assert _children(tmp_path) == []


def _is_over(pid: str) -> bool:
    try:
        return psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
