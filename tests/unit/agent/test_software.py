"""The two environments of a session."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from perijove.agent import software
from perijove.agent.cannot import Cannot
from perijove.spawners.local.supervisor import Signals

HOME = "/home/ann"
OUTER = {
    "PATH": f"{HOME}/miniconda/bin:/opt/slurm/bin:/usr/bin:/bin:.",
    "PYTHONPATH": f"{HOME}/lib",
    "LD_PRELOAD": f"{HOME}/evil.so",
    "BASH_ENV": f"{HOME}/.bashrc",
    "SLURM_JOB_ID": "17",
    "SLURM_MEM_PER_NODE": "100",
    "SLURM_CONF": "/etc/slurm/slurm.conf",
    "PMI_RANK": "0",
    "JOB_ID": "17",
    "PE_HOSTFILE": "/spool/17",
    "SGE_ROOT": "/opt/sge",
    "SGE_TASK_ID": "undefined",
    "CUDA_VISIBLE_DEVICES": "1",
    "EDITOR": "vi",
}


@pytest.fixture
def signals() -> Iterator[Signals]:
    """Give what the wrapper hears signals with, and take it back."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
    before = [(number, signal.getsignal(number)) for number in numbers]
    wakeup = signal.set_wakeup_fd(-1)
    yield Signals()
    signal.set_wakeup_fd(wakeup)
    for number, handler in before:
        signal.signal(number, handler)


def test_the_server_starts_without_what_a_home_can_break() -> None:
    """No code from the home, no scheduler's variables; the login's own settings stay."""
    assert software.base_environment(OUTER, HOME) == {
        "PATH": "/opt/slurm/bin:/usr/bin:/bin",
        "PYTHONNOUSERSITE": "1",
        "LANG": "C.UTF-8",
        "SLURM_CONF": "/etc/slurm/slurm.conf",
        "SGE_ROOT": "/opt/sge",
        "CUDA_VISIBLE_DEVICES": "1",
        "EDITOR": "vi",
    }


def test_kernels_get_the_persons_world_back() -> None:
    """They have what a login has, after what modules and the session added."""
    server = software.base_environment(OUTER, HOME)
    server.update(PATH="/sw/python/bin:" + server["PATH"], PYTHONPATH="/sw/lib")

    world = software.own_world(server, OUTER, HOME, {"PYTHONPATH": "/tmp/pip", "PIP_PREFIX": "/p"})

    assert world["PATH"] == "/sw/python/bin:" + OUTER["PATH"]
    assert world["PYTHONPATH"] == f"/tmp/pip:/sw/lib:{HOME}/lib"
    assert world["LD_PRELOAD"] == OUTER["LD_PRELOAD"]
    assert (world["PYTHONNOUSERSITE"], world["PIP_PREFIX"]) == (None, "/p")
    assert not [name for name in world if software.is_of_scheduler(name)]


def test_threads_match_the_cores_unless_somebody_said() -> None:
    """A number that a module or the site set stays."""
    environment = {"MKL_NUM_THREADS": "1"}
    software.set_threads(environment, 4)
    assert (environment["MKL_NUM_THREADS"], environment["OMP_NUM_THREADS"]) == ("1", "4")


def test_words_of_the_site_stay_words(signals: Signals, tmp_path: Path) -> None:
    """Whatever is in a setup command or a module's name is never read by the shell."""
    word = "'; touch broken; $(touch broken) `touch broken` \n\"*"
    wanted = {"setup": [["export", f"ODD={word}"], ["cd", str(tmp_path)]]}

    environment = software.load_software(wanted, {"PATH": "/usr/bin:/bin"}, signals)

    assert environment["ODD"] == word
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Cannot) as failed:
        software.load_software({"modules": [word]}, {"PATH": "/usr/bin:/bin"}, signals)
    assert failed.value.code == "module-failed"


def test_software_that_takes_too_long_is_given_up(
    signals: Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A setup that hangs ends with its reason, and is killed."""
    monkeypatch.setattr(software, "SOFTWARE_SECONDS", 0.3)
    with pytest.raises(Cannot, match=r"not done within 0\.3 s") as slow:
        software.load_software({"setup": [["sleep", "60"]]}, {"PATH": "/usr/bin:/bin"}, signals)
    assert slow.value.code == "setup-failed"


def test_the_command_is_found_in_its_software_first(tmp_path: Path) -> None:
    """A prefix wins over the system, and a program of the home is the last resort."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "server").write_text("#!/bin/sh\n")
    (own / "server").chmod(0o755)
    environment = {"PATH": "/usr/bin:/bin"}

    def find(command: list[str], **wanted: object) -> list[str]:
        return software.find_command(
            command, wanted, environment, own_path=str(own), temporary="/tmp/t"
        )

    assert find(["sh", "-x"])[0] in ("/usr/bin/sh", "/bin/sh")
    assert find(["server", "-x"]) == [str(own / "server"), "-x"]
    with pytest.raises(Cannot, match="no-such is not in"):
        find(["no-such"])
    container = {"image": str(own), "runtime": "env", "arguments": ["--nv"]}
    runtime, *rest = find(["server"], container=container)
    assert runtime.endswith("/env")
    assert rest == ["exec", "--bind", "/tmp/t", "--nv", str(own), "server"]


def test_pip_has_a_place_for_the_session(tmp_path: Path) -> None:
    """Packages go where the session's Python finds them, unless the person chose a place."""
    environment = {"PATH": str(Path(sys.executable).parent)}
    places = software.pip_places(environment, str(tmp_path))
    assert places["PIP_PREFIX"] == str(tmp_path)
    assert places["PYTHONPATH"].startswith(f"{tmp_path}/")
    assert software.pip_places({**environment, "PIP_TARGET": "/x"}, str(tmp_path)) == {}


@pytest.mark.parametrize(
    ("start", "umask"),
    [
        ("exit 1\n", 0o022),
        ("while :; do :; done\n", 0o022),
        ("export MINE=1\n", 0o022),
        ("export MINE=1; umask 007; echo hello\n", 0o007),
    ],
)
def test_start_files_cannot_stop_a_session(
    start: str, umask: int, signals: Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login whose files end the shell, or never end, is left out; a sound one is taken whole."""
    ours = os.umask(0o077)
    monkeypatch.setattr(software, "LOGIN_SECONDS", 2)
    (tmp_path / ".bash_profile").write_text(start)
    person = {"HOME": str(tmp_path), "USER": "ann", "LOGNAME": "ann", "SHELL": "/bin/bash"}
    found, masked = software.with_login({"PATH": "/bin", "SLURM_JOB_ID": "7"}, person, signals)
    assert (masked, os.umask(ours)) == (umask, 0o077)
    assert found["SLURM_JOB_ID"] == "7"
    assert found.get("MINE") == ("1" if "MINE" in start else None)
    assert found["HOME"] == str(tmp_path)


def test_what_is_submitted_forgets_the_session(tmp_path: Path) -> None:
    """A job gets no token, directory or core count of the session, but what was set anew."""
    programs, folder = tmp_path / "programs", tmp_path / "bin"
    programs.mkdir()
    folder.mkdir()
    (programs / "sbatch").write_text('#!/bin/sh\nenv\necho "args: $*"\n')
    (programs / "sbatch").chmod(0o755)
    world: dict[str, str | None] = {"TMPDIR": "/of/session", "OMP_NUM_THREADS": "2"}
    assert software.write_submitters(str(folder), world, str(programs)) == ["sbatch"]

    environment = {
        "PATH": f"{folder}:/usr/bin:/bin",
        "TMPDIR": "/of/session",
        "OMP_NUM_THREADS": "16",
        "JUPYTERHUB_API_TOKEN": "secret",
        "PERIJOVE_SESSION": "/x",
        "MINE": "a b",
    }
    told = subprocess.run(
        ["sbatch", "--wrap", "two words"], env=environment, capture_output=True, text=True,
        check=True, executable=folder / "sbatch",
    ).stdout.splitlines()  # fmt: skip
    assert "OMP_NUM_THREADS=16" in told
    assert "MINE=a b" in told
    assert "args: --wrap two words" in told
    assert not [each for each in told if each.startswith(("TMPDIR", "JUPYTER", "PERIJOVE"))]
