"""A container's server starts although its volume is full, read-only or gone (failure 5.17)."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from perijove.agent.entry import wrapped
from perijove.agent.rescue import biggest_in
from tests.e2e.site import wait_for

SHOW = "import json, os; print(json.dumps([dict(os.environ), os.getcwd()]))"
COMMAND = [sys.executable, "-c", SHOW]
ROOT = pytest.mark.needs("root")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 8 MiB and 128 inodes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    _run("mount", "-t", "tmpfs", "-o", "size=8m,nr_inodes=128,mode=0777", "none", str(disk))
    yield disk
    _run("umount", "--lazy", str(disk))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _begin(tmp_path: Path, *volumes: Path, **given: str) -> tuple[dict[str, str], str, str]:
    """Run a command behind the program; return its environment, its directory and the log."""
    temporary = tmp_path / "temporary"
    temporary.mkdir(exist_ok=True)
    environment = {
        "HOME": str(volumes[0]) if volumes else "/root",
        "PATH": os.environ["PATH"],
        "PERIJOVE_VOLUMES": json.dumps([str(path) for path in volumes]),
        "TMPDIR": str(temporary),
        **given,
    }
    done = subprocess.run(
        wrapped(COMMAND), env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    shown, folder = json.loads(done.stdout)
    return shown, folder, done.stderr


def test_a_good_volume_changes_nothing(tmp_path: Path) -> None:
    """With room on the volume the command gets the environment as it was, and nothing is left."""
    volume = tmp_path / "volume"
    volume.mkdir()
    shown, _, log = _begin(tmp_path, volume)
    assert "PERIJOVE_RESCUE" not in shown
    assert shown["HOME"] == str(volume)
    assert log == ""
    assert list(volume.iterdir()) == list((tmp_path / "temporary").iterdir()) == []


@ROOT
def test_a_full_volume_is_rescued(tmp_path: Path, small_disk: Path) -> None:
    """With no byte left all places are private ones elsewhere, and the big folder is named."""
    (small_disk / "data").mkdir()
    _fill(small_disk / "data" / "big.bin")
    shown, folder, log = _begin(tmp_path, small_disk)
    assert shown["PERIJOVE_RESCUE"] == "volume-full"
    assert "rescue mode: volume-full" in log
    for name in ("HOME", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR", "TMPDIR"):
        place = Path(shown[name])
        assert place.is_relative_to(tmp_path / "temporary")
        assert place.stat().st_mode & 0o777 == 0o700
    home = Path(shown["HOME"])
    assert folder == shown["JUPYTERHUB_ROOT_DIR"] == str(home)
    assert shown["JUPYTERHUB_DEFAULT_URL"] == "/lab/tree/RESCUE.md"
    assert str(small_disk / "data") in (home / "RESCUE.md").read_text()
    assert (home / small_disk.name / "data" / "big.bin").exists()


@ROOT
def test_a_volume_without_inodes_is_rescued(tmp_path: Path, small_disk: Path) -> None:
    """With bytes but no inode left it is rescued too, and told that it is files it has too many."""
    (small_disk / "many").mkdir()
    numbers = iter(range(1000))

    def add_file() -> None:
        (small_disk / "many" / str(next(numbers))).touch()

    with pytest.raises(OSError, match="No space"):
        _until_refused(add_file)
    assert os.statvfs(small_disk).f_bavail > 0
    shown, _, log = _begin(tmp_path, small_disk)
    assert shown["PERIJOVE_RESCUE"] == "volume-full"
    assert "no more files fit" in log
    assert str(small_disk / "many") in (Path(shown["HOME"]) / "RESCUE.md").read_text()


@ROOT
def test_a_read_only_volume_is_rescued(tmp_path: Path, small_disk: Path) -> None:
    """Nothing can be written on it: the server lives elsewhere and says so."""
    _run("mount", "-o", "remount,ro", str(small_disk))
    shown, _, _ = _begin(tmp_path, small_disk, JUPYTERHUB_DEFAULT_URL="/tree")
    assert shown["PERIJOVE_RESCUE"] == "volume-read-only"
    assert shown["JUPYTERHUB_DEFAULT_URL"] == "/tree"


def test_a_missing_volume_is_rescued(tmp_path: Path) -> None:
    """A volume that is not there does not keep the server from starting."""
    shown, _, log = _begin(tmp_path, tmp_path / "gone")
    assert shown["PERIJOVE_RESCUE"] == "volume-missing"
    assert "is not there" in log


@ROOT
def test_temporary_files_are_not_put_on_the_full_volume(tmp_path: Path, small_disk: Path) -> None:
    """A TMPDIR within the volume is passed over, also behind a link."""
    _fill(small_disk / "big.bin")
    (tmp_path / "link").symlink_to(small_disk)
    shown, _, _ = _begin(tmp_path, small_disk, TMPDIR=str(tmp_path / "link"))
    home = Path(shown["HOME"])
    assert not home.resolve().is_relative_to(small_disk)
    shutil.rmtree(home.parent)


def test_a_silent_hub_keeps_no_server_from_its_start(tmp_path: Path) -> None:
    """A hub that hears what is wrong and says nothing is not waited for."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/hub/api"
        shown, _, log = _begin(
            tmp_path, tmp_path / "gone", JUPYTERHUB_API_URL=url, JUPYTERHUB_API_TOKEN="t"
        )
    assert "PERIJOVE_RESCUE" in shown
    assert "the hub was not told: it does not answer" in log


def test_a_terminal_says_what_happened(tmp_path: Path) -> None:
    """A login shell of the rescued server shows the text before its prompt."""
    shown, _, _ = _begin(tmp_path, tmp_path / "gone")
    said = subprocess.run(
        ["/bin/bash", "-lc", "true"], env=shown, capture_output=True, text=True, check=True
    )
    assert "RESCUE MODE" in said.stdout
    assert "MODE DE SECOURS" in said.stdout


def test_a_command_that_is_not_there_is_said(tmp_path: Path) -> None:
    """The exit status is a shell's for a missing program."""
    done = subprocess.run(
        wrapped([str(tmp_path / "nothing")]), capture_output=True, text=True, check=False
    )
    assert done.returncode == 127
    assert "cannot start" in done.stderr


def test_environments_are_kept_beside_the_command(tmp_path: Path) -> None:
    """What lies on the volume becomes a kernel while the command runs, and its keeper ends too."""
    volume = tmp_path / "volume"
    place = volume / ".perijove/environments"
    site = place / "envs/mine/lib/python3.11/site-packages"
    (site / "ipykernel").mkdir(parents=True)
    (place / "envs/mine/bin").mkdir()
    (place / "envs/mine/bin/python").symlink_to(sys.executable)
    kernel = place / "share/jupyter/kernels/env-mine/kernel.json"
    command = [
        sys.executable,
        "-c",
        f"import os, pathlib, time\n"
        f"while not pathlib.Path({str(kernel)!r}).exists():\n    time.sleep(0.05)\n"
        f"(child,) = pathlib.Path('/proc/self/task', str(os.getpid()), 'children')"
        f".read_text().split()\n"
        f"print(child, os.environ['JUPYTER_PATH'])",
    ]
    environment = {
        "HOME": str(volume),
        "PATH": os.environ["PATH"],
        "PERIJOVE_VOLUMES": json.dumps([str(volume)]),
        "PERIJOVE_ENVIRONMENTS": str(place),
        "JUPYTERHUB_API_URL": "http://127.0.0.1:9",
    }
    done = subprocess.run(
        wrapped(command), env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    child, jupyter_path = done.stdout.split()
    assert jupyter_path == str(place / "share/jupyter")
    # It has the command's output as well, which ends only when both have; its parent reaps it.
    wait_for(lambda: _is_over(child), what="the keeper's end")


def _is_over(pid: str) -> bool:
    try:
        return psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_nothing_is_kept_in_rescue_mode(tmp_path: Path) -> None:
    """On a volume that cannot be used nobody looks for environments, nor builds any."""
    shown, _, _ = _begin(tmp_path, tmp_path / "gone", PERIJOVE_ENVIRONMENTS=str(tmp_path / "e"))
    assert "PERIJOVE_RESCUE" in shown
    assert "JUPYTER_PATH" not in shown
    assert not (tmp_path / "e").exists()


def test_folders_are_counted_two_levels_deep(tmp_path: Path) -> None:
    """What lies deep counts for the folders above it; links are not followed."""
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (deep / "big").write_bytes(b"x" * 500_000)
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    counted = {path: (size, files) for size, files, path in biggest_in(str(tmp_path))}
    assert counted.keys() == {str(tmp_path / "a"), str(tmp_path / "a" / "b")}
    assert all(size >= 500_000 for size, _ in counted.values())


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        _until_refused(lambda: file.write(b"\0" * 65536))


def _until_refused(act: Callable[[], object]) -> None:
    while True:
        act()
