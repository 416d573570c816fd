"""What people meet inside sessions that are jobs of real schedulers."""

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect, sync_playwright

from tests import beds, clusters
from tests.e2e.site import CHROMIUM_ARGUMENTS, chromium, wait_for
from tests.integration.session.inside import Inside
from tests.integration.session.sites import Sessions, running_sessions, sign_in

pytestmark = [
    pytest.mark.needs("root", "users", "slurm", "gridengine"),
    pytest.mark.timeout(400),
]

EVIL_CONFIG = "import os\nos._exit(3)\n"


@pytest.fixture(scope="module")
def the_site() -> Iterator[Sessions]:
    """Run a site with both schedulers."""
    with running_sessions() as running:
        yield running


@pytest.fixture
def sessions(the_site: Sessions) -> Iterator[Sessions]:
    """Give the site, with clean clusters and homes; its sessions end with the test."""
    with clusters.left_clean("slurm", "gridengine") as ends:
        ends.callback(clusters.end_servers, the_site.site)
        yield the_site


@pytest.fixture
def wheel() -> Iterator[Path]:
    """Give a package that people can install without the Internet."""
    name = "pjprobe-1.0"
    path = Path(f"/var/tmp/{name}-py3-none-any.whl")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("pjprobe.py", "value = 42\n")
        info = f"{name}.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: pjprobe\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    path.chmod(0o644)
    yield path
    path.unlink()


def _environment(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines())
    return {name: value for name, separator, value in pairs if separator}


def _looks_as_on_a_login_node(inside: Inside, wheel: Path, cpus: str) -> tuple[str, ...]:
    """Check terminal and kernel of one session; return its private directories."""
    environment, places, installed = inside.shell(
        "env",
        "stat -c '%a %U' $TMPDIR $JUPYTER_RUNTIME_DIR; which python",
        f"pip install --quiet --no-index {wheel} && python -c 'import pjprobe; print(pjprobe)'",
    )
    seen = _environment(environment)
    leaked = {name for name in seen if name.startswith(("SLURM_", "JOB_", "NSLOTS", "PE_"))}
    assert leaked <= {"SLURM_CONF"}
    assert seen["OMP_NUM_THREADS"] == cpus
    private = (seen["PERIJOVE_SESSION"], seen["TMPDIR"], seen["JUPYTER_RUNTIME_DIR"])
    assert places.splitlines()[:2] == ["700 alice"] * 2
    assert places.splitlines()[2].startswith(os.environ["PERIJOVE_TEST_JOB_SINGLEUSER"])
    assert private[0] in installed
    with inside.kernel() as kernel:
        assert private[0] in kernel.run("import pjprobe; print(pjprobe.__file__)")
        assert kernel.run("print(get_ipython().history_manager.hist_file)") == ":memory:"
        names = kernel.run("import os; print(*os.environ)").split()
        assert not [name for name in names if name.startswith("SLURM_") and name != "SLURM_CONF"]
    return private


def test_a_session_on_slurm(sessions: Sessions, wheel: Path) -> None:
    """Terminals submit, granted GPUs are seen, and an administrator's minutes are counted."""
    inside = sessions.start("alice", "s", "slurm", cpu=2, gpu=1, partition="gpu", time="9 min")
    first = inside.session()
    assert first["node"] == "gpu1"
    assert [each["id"].rpartition("-")[0] for each in first["notices"]] == ["time-10"]
    assert first["memory"]["limit"] == 2**30
    root = beds.run_as("root", "scontrol", "update", f"jobid={first['job_id']}", "TimeLimit=60")
    assert root.returncode == 0, root.stderr
    beds.run_as("root", "scancel", "--signal=USR1", "--batch", first["job_id"])

    private = _looks_as_on_a_login_node(inside, wheel, "2")
    submitted, within, gpu = inside.shell(
        "sbatch --wait --output=$HOME/pj-sub.out --wrap env; cat pj-sub.out; rm pj-sub.out",
        ". $PERIJOVE_JOB_ENVIRONMENT; srun --overlap -n1 env </dev/null | grep SLURM_JOB_ID=",
        "echo $CUDA_VISIBLE_DEVICES",
    )
    job = _environment(submitted)
    assert job["SLURM_JOB_ID"] != first["job_id"]
    assert not {"TMPDIR", "OMP_NUM_THREADS"} & {
        name for name, value in job.items() if value in (private[1], "2")
    }
    assert not [name for name in job if name.startswith(("JUPYTER", "PERIJOVE_", "CUDA_"))]
    assert within == f"SLURM_JOB_ID={first['job_id']}"
    assert gpu in ("0", "1")
    codes = wait_for(
        lambda: [each["code"] for each in inside.session()["notices"] if each["code"] != "time"],
        what="the scheduler's notice",
    )
    assert codes == ["ending-soon"]
    wait_for(lambda: inside.session()["seconds_left"] > 2400, what="the new end", seconds=120)

    sessions.stop("alice", "s")
    assert not [each for each in private if Path(each).exists()]


def test_a_session_on_grid_engine(sessions: Sessions, wheel: Path) -> None:
    """The same there: ``qsub -V`` takes nothing of the session along."""
    inside = sessions.start("alice", "g", "gridengine", cpu=2, time="30 min")
    assert 1500 < inside.session()["seconds_left"] <= 1800
    private = _looks_as_on_a_login_node(inside, wheel, "2")
    (submitted,) = inside.shell(
        "echo env | qsub -V -sync y -S /bin/sh -j y -o $HOME/pj-sub.out -N probe;"
        " cat pj-sub.out; rm pj-sub.out"
    )
    job = _environment(submitted)
    assert job["JOB_NAME"] == "probe"
    assert job["TMPDIR"] != private[1]
    assert not [name for name in job if name.startswith(("JUPYTER", "PERIJOVE_", "OMP_"))]
    sessions.stop("alice", "g")
    assert not [each for each in private if Path(each).exists()]


@pytest.fixture
def broken_home(sessions: Sessions) -> Path:
    """Break the home of carol in every way; it is mended when the sessions have ended."""
    del sessions  # before it all is as new
    home = Path("~carol").expanduser()
    files = {
        ".bashrc": "while :; do :; done\n",
        ".jupyter/jupyter_server_config.py": "c.ServerApp.( = 1\n",
        ".local/lib/python3.11/site-packages/jupyter_server/__init__.py": "raise RuntimeError\n",
    }
    for name, text in files.items():
        beds.run_as("carol", "mkdir", "-p", str((home / name).parent))
        assert beds.run_as("carol", "tee", str(home / name), stdin=text).returncode == 0
    return home


@pytest.mark.parametrize("kind", clusters.BOTH)
def test_a_broken_home_stops_no_server(
    sessions: Sessions, broken_home: Path, kind: clusters.Cluster
) -> None:
    """Start files that never end and a broken configuration are survived; safe mode ignores all."""
    inside = sessions.start("carol", "b", kind, cpu=1)
    with inside.kernel() as kernel:
        assert kernel.run("print(6 * 7)") == "42"
    sessions.stop("carol", "b")

    config = broken_home / ".jupyter/jupyter_server_config.py"
    beds.run_as("carol", "tee", str(config), stdin=EVIL_CONFIG)
    sessions.request("carol", "b", kind, cpu=1)

    def is_over() -> bool:
        _, found = sessions.site.api("GET", "/users/carol")
        return "b" not in found["servers"]

    wait_for(is_over, what="the start to fail")
    inside = sessions.start("carol", "b", kind, safe_mode=True)
    assert [each["code"] for each in inside.session()["notices"]] == ["safe"]
    assert inside.shell("echo repaired") == ["repaired"]
    sessions.stop("carol", "b")


@pytest.mark.needs("chromium")
@pytest.mark.parametrize(
    ("ui", "language", "words", "line"),
    [
        ("lab", "fr", "Cette session se termine dans", "fin à"),
        ("notebook", "pt", "Esta sessão termina dentro de", "termina às"),
        ("terminal", "en", "This session ends in", "left"),
    ],
)
def test_the_browser_shows_what_is_left(
    sessions: Sessions, tmp_path: Path, ui: str, language: str, words: str, line: str
) -> None:
    """JupyterLab, Notebook 7 and a terminal open, each with time, memory and the warning."""
    inside = sessions.start("alice", ui, "slurm", time="9 min", ui=ui, cpu=1)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=CHROMIUM_ARGUMENTS)
        page: Any = browser.new_context(locale=language).new_page()
        page.goto(f"{sessions.site.url}/hub/login")
        for name, value in sign_in("alice").items():
            page.fill(f"input[name={name}]", value)
        with page.expect_navigation():
            page.keyboard.press("Enter")
        page.goto(inside.url)
        expect(page.locator("#perijove-session")).to_contain_text(line, timeout=60_000)
        expect(page.locator("#perijove-session")).to_contain_text("1 GiB")
        expect(page.locator(".Toastify__toast", has_text=words)).to_be_visible(timeout=30_000)
        if ui == "terminal":
            expect(page.locator(".jp-Terminal .xterm").first).to_be_visible()
        browser.close()
    sessions.stop("alice", ui)


def test_a_kernel_that_took_too_much_is_named(sessions: Sessions) -> None:
    """A kernel killed for memory is told by its notebook's name, and the server lives on."""
    inside = sessions.start("alice", "m", "slurm", cpu=1, memory="300 MiB")
    notebook = {
        "path": "big.ipynb", "name": "big.ipynb", "type": "notebook", "kernel": {"name": "python3"},
    }  # fmt: skip
    kernel_id = inside.ask("api/sessions", notebook)["kernel"]["id"]
    with inside.attach(kernel_id) as kernel:
        assert inside.session()["notices"] == []
        kernel.send("b = bytearray(400 << 20)")

        def told() -> list[str]:
            notices = inside.session()["notices"]
            return [each["name"] for each in notices if each["code"] == "kernel-killed"]

        assert wait_for(told, what="the notice", seconds=90) == ["big.ipynb"]
    sessions.stop("alice", "m")


def test_an_environment_is_kept_beside_a_job(sessions: Sessions) -> None:
    """What a person made by hand becomes a kernel while the job runs, and is one in the next."""
    beds.run_as("alice", "rm", "-rf", str(Path("~alice/.perijove/environments").expanduser()))
    inside = sessions.start("alice", "e", "slurm", cpu=1)
    place = "$HOME/.perijove/environments/envs/mine"
    package = 'python -c "import ipykernel, os; print(os.path.dirname(ipykernel.__path__[0]))"'
    made, keeper = inside.shell(
        # It borrows the packages of the server's own Python.
        f"python -m venv --without-pip {place} && cd {place}/lib/python3*/site-packages"
        f" && {package} > mine.pth && ln -s $(cat mine.pth)/ipykernel . && echo made",
        "pgrep -u alice -f environments.py",
    )
    assert made == "made"

    def is_offered() -> Any:
        return inside.ask("api/kernelspecs")["kernelspecs"].get("env-mine")

    # It looks twice a minute; until then the person has other kernels.
    wait_for(is_offered, what="the kernel", seconds=90)
    kernel_id = inside.ask("api/kernels", {"name": "env-mine"})["id"]
    with inside.attach(kernel_id) as kernel:
        assert kernel.run("import sys; print(sys.prefix)").endswith("/envs/mine")
    status, found = sessions.site.api("GET", "/perijove/users/alice/environments")
    assert status == 200
    assert [(each["name"], each["maker"]) for each in found["environments"]] == [("mine", "hand")]
    sessions.stop("alice", "e")
    for pid in keeper.split():
        assert not Path("/proc", pid).exists()

    inside = sessions.start("alice", "e", "slurm", cpu=1)
    assert is_offered()
    inside.shell("rm -r $HOME/.perijove/environments")
    sessions.stop("alice", "e")
