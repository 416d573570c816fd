"""What the keeper of environments makes of what it finds, and what it leaves alone."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from perijove.agent import job_files, keeper, local_files
from perijove.agent.environments import (
    BUILT,
    Failed,
    Keeper,
    build_of,
    drop_build,
    is_whole,
    mark_of,
    offered_in,
    only_one,
    write_json,
)
from perijove.agent.kernels import keeper_in, offer_environments, show_environments
from perijove.agent.software import own_world
from tests.e2e.site import wait_for

TASK: Mapping[str, Any] = {
    "id": 7,
    "revision": 1,
    "name": "mine",
    "wanted": True,
    "packages": [],
    "lock": "",
}


def keeper_at(root: Path) -> Keeper:
    """Return a keeper whose hub never answers."""
    environment = {"PERIJOVE_ENVIRONMENTS": str(root), "PATH": os.environ["PATH"]}
    return Keeper(environment | {"JUPYTERHUB_API_URL": "http://127.0.0.1:9"}, os.getppid())


def by_hand(root: Path, name: str) -> Path:
    """Make an environment with a kernel as a person would, without the network."""
    folder = root / "envs" / name
    return with_kernel(folder)


def with_kernel(folder: Path) -> Path:
    """Make a virtual environment that looks as if it had a kernel."""
    venv.create(folder, with_pip=False, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (folder / "lib" / version / "site-packages" / "ipykernel").mkdir()
    return folder


def built(at: Keeper, task: Mapping[str, Any]) -> Path:
    """Make what a keeper would have built, up to its mark."""
    build = with_kernel(Path(at._build(dict(task))))
    write_json(str(build / BUILT), mark_of(str(build), dict(task)))
    return build


def test_kernels_are_found_where_environments_lie(tmp_path: Path) -> None:
    """The server's path of kernels begins with the person's own, below the home it gets."""
    environment = {
        "HOME": str(tmp_path),
        "PERIJOVE_ENVIRONMENTS": "~/.perijove/environments",
        "JUPYTER_PATH": "/opt/site",
    }
    offer_environments(environment, [])
    root = tmp_path / ".perijove/environments"
    assert environment["JUPYTER_PATH"] == f"{root}/share/jupyter:/opt/site"
    assert environment["PERIJOVE_ENVIRONMENTS"] == str(root)


def test_the_kernels_of_a_job_are_among_what_its_person_has() -> None:
    """What a job's server is given anew when it reads its settings still names them."""
    server = {"HOME": "/home/ann", "PERIJOVE_ENVIRONMENTS": "~/e", "PATH": "/usr/bin"}
    show_environments(server)
    outer = {"PATH": "/usr/bin", "JUPYTER_PATH": "/home/ann/own"}
    world = own_world(server, outer, "/home/ann", {})
    assert world["JUPYTER_PATH"] == "/home/ann/e/share/jupyter:/home/ann/own"


def test_nothing_is_offered_where_nothing_is_allowed() -> None:
    """Without a place for environments the server's own is left as it is."""
    environment = {"HOME": "/home/ann"}
    offer_environments(environment, ["/bin/false"])
    assert environment == {"HOME": "/home/ann"}


def test_an_environment_made_by_hand_becomes_a_kernel(tmp_path: Path) -> None:
    """One with ipykernel is offered and told of; one without, and other folders, are not."""
    folder = by_hand(tmp_path, "conda-like")
    (folder / "conda-meta").mkdir()
    (tmp_path / "envs/plain").mkdir()
    (tmp_path / "envs/broken/bin").mkdir(parents=True)
    (tmp_path / "envs/broken/bin/python").touch()
    (tmp_path / "envs/Not A Name").mkdir()
    assert offered_in(str(tmp_path)) == ["conda-like"]
    kernel = tmp_path / "share/jupyter/kernels/env-conda-like/kernel.json"
    spec = json.loads(kernel.read_text())
    assert spec["argv"][0] == str(folder / "bin/python")
    assert spec["env"]["CONDA_PREFIX"] == str(folder)


def test_a_kernel_goes_with_its_environment(tmp_path: Path) -> None:
    """What somebody has removed by hand is offered no more; kernels of others stay."""
    folder = by_hand(tmp_path, "mine")
    other = tmp_path / "share/jupyter/kernels/julia"
    other.mkdir(parents=True)
    offered_in(str(tmp_path))
    shutil.rmtree(folder)
    assert offered_in(str(tmp_path)) == []
    assert list(other.parent.iterdir()) == [other]


def test_what_was_made_by_hand_is_never_touched(tmp_path: Path) -> None:
    """An environment of the same name that somebody made is neither built upon nor removed."""
    folder = by_hand(tmp_path, "mine")
    offered_in(str(tmp_path))
    at = keeper_at(tmp_path)
    with pytest.raises(Failed, match="was not made for this"):
        at._make(dict(TASK))
    at._remove(dict(TASK, wanted=False))
    assert (folder / "bin/python").exists()
    assert offered_in(str(tmp_path)) == ["mine"]
    assert (tmp_path / "share/jupyter/kernels/env-mine/kernel.json").exists()


def test_a_link_to_somewhere_else_is_not_ours(tmp_path: Path) -> None:
    """A link that a person made is as good as a folder; only the link to a build is a build."""
    elsewhere = with_kernel(tmp_path / "elsewhere")
    link = tmp_path / "envs/mine"
    link.parent.mkdir()
    for target in (elsewhere, Path("../builds/other/1-0"), Path("../../builds/mine/1-0")):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        assert build_of(str(link)) == ""
    link.unlink()
    link.symlink_to("../builds/mine/1-0")
    assert build_of(str(link)) == str(tmp_path / "builds/mine/1-0")


def test_what_was_built_and_not_yet_offered_is_offered(tmp_path: Path) -> None:
    """Killed between its mark and its link, a build is put in place and not made again."""
    at = keeper_at(tmp_path)
    build = built(at, TASK)
    assert not at._find_done(dict(TASK))
    at._make(dict(TASK))
    assert at._find_done(dict(TASK)) == str(build)
    assert (tmp_path / "envs/mine").resolve() == build.resolve()
    kernel = tmp_path / "share/jupyter/kernels/env-mine/kernel.json"
    assert json.loads(kernel.read_text())["argv"][0] == str(build / "bin/python")
    kernel.unlink()
    assert not at._find_done(dict(TASK))


def test_the_one_before_stays_as_long_as_its_kernels_may_run(tmp_path: Path) -> None:
    """A new revision takes the place of the old one, which the next session clears away."""
    at = keeper_at(tmp_path)
    first = built(at, TASK)
    at._make(dict(TASK))
    second = built(at, dict(TASK, revision=2))
    at._make(dict(TASK, revision=2))
    unfinished = tmp_path / "builds/mine/3-0"
    unfinished.mkdir()
    at._sweep(keep="")
    assert (first.exists(), second.exists(), unfinished.exists()) == (True, True, False)
    keeper_at(tmp_path)._sweep(keep="")
    assert (first.exists(), second.exists()) == (False, True)
    at._remove(dict(TASK, wanted=False))
    assert offered_in(str(tmp_path)) == []
    assert not list((tmp_path / "builds").iterdir())
    assert not list((tmp_path / "share/jupyter/kernels").iterdir())


def test_a_build_is_whole_only_where_its_python_is(tmp_path: Path) -> None:
    """Another Python, another path, or a removal that was begun: it is to be built anew."""
    at = keeper_at(tmp_path)
    build = built(at, TASK)
    assert is_whole(str(build))
    moved = build.rename(build.with_name("1-moved"))
    assert not is_whole(str(moved))
    moved.rename(build)
    python = build / "bin/python"
    python.unlink()
    python.symlink_to("/bin/sh")
    assert not is_whole(str(build))
    drop_build(str(build))
    assert not build.exists()


def test_another_python_gets_a_build_of_its_own(tmp_path: Path) -> None:
    """With a new image it is built anew beside the old one; with the old one again it is there."""
    root = tmp_path / "place"
    slow_python(tmp_path)
    old = keeper_with(tmp_path / "bin", root)
    assert told(old, TASK)["state"] == "ready"
    first = old._find_done(dict(TASK))
    shutil.copytree(tmp_path / "bin", tmp_path / "newer")
    mark = Path(first) / BUILT
    whole = mark.read_text()
    mark.write_text(json.dumps({**json.loads(whole), "python": "/gone/python3"}))
    new = keeper_with(tmp_path / "newer", root)
    assert told(new, TASK)["state"] == "ready"
    second = new._find_done(dict(TASK))
    assert second not in ("", first)
    assert Path(first).exists()
    mark.write_text(whole)
    count = len((tmp_path / "began").read_text().split())
    (root / "envs/mine").unlink()
    assert told(keeper_with(tmp_path / "bin", root), TASK)["state"] == "ready"
    assert old._find_done(dict(TASK)) == first
    assert len((tmp_path / "began").read_text().split()) == count, "it was built again"


def test_what_was_damaged_by_hand_is_built_again(tmp_path: Path) -> None:
    """A build in use that has lost its mark or its Python stands in nobody's way."""
    slow_python(tmp_path)
    for damage in (BUILT, "bin/python"):
        at = keeper_with(tmp_path / "bin", tmp_path / "place")
        assert told(at, TASK)["state"] == "ready"
        Path(at._find_done(dict(TASK)), damage).unlink()
    at = keeper_with(tmp_path / "bin", tmp_path / "place")
    assert told(at, TASK)["state"] == "ready"


def test_to_lock_and_to_unlock_builds_nothing(tmp_path: Path) -> None:
    """What is there is what its own lock says; another lock, or another list, is another wish."""
    slow_python(tmp_path)
    at = keeper_with(tmp_path / "bin", tmp_path / "place")
    lock = told(at, dict(TASK, packages=["a"]))["lock"]
    build = at._find_done(dict(TASK, packages=["a"]))
    assert at._find_done(dict(TASK, packages=["a"], lock=lock)) == build
    assert at._find_done(dict(TASK, packages=["a"], lock=f"# a remark\n\n {lock}")) == build
    assert not at._find_done(dict(TASK, packages=["a"], lock="other==1\n"))
    assert not at._find_done(dict(TASK, packages=["b"]))
    assert not at._find_done(dict(TASK, packages=["a"], revision=2))
    copy = dict(TASK, id=8, name="copy", packages=["a"], lock="few==1\n")
    told(at, copy)
    assert at._find_done(copy)
    assert at._find_done(dict(copy, lock="")) == at._find_done(copy)


def test_what_has_no_kernel_is_not_called_ready(tmp_path: Path) -> None:
    """A lock without ipykernel makes nothing that could be started, and takes no room."""
    slow_python(tmp_path, kernel=False)
    at = keeper_with(tmp_path / "bin", tmp_path / "place")
    failed = told(at, dict(TASK, lock="numpy==2\n"))
    assert (failed["state"], "ipykernel" in failed["error"]) == ("failed", True)
    assert not list((tmp_path / "place/builds/mine").iterdir())


def test_only_builds_are_removed(tmp_path: Path) -> None:
    """What somebody put beside them, or a folder of theirs that is linked there, is left alone."""
    at = keeper_at(tmp_path)
    built(at, TASK)
    at._make(dict(TASK))
    beside = tmp_path / "builds/mine/notes.txt"
    beside.touch()
    treasure = tmp_path / "elsewhere/treasure"
    treasure.mkdir(parents=True)
    (tmp_path / "builds/linked").symlink_to(tmp_path / "elsewhere")
    at._sweep(keep="")
    at._remove(dict(TASK, wanted=False))
    at._remove(dict(TASK, name="linked", wanted=False))
    assert beside.exists()
    assert treasure.exists()
    assert not (tmp_path / "envs/mine").exists()
    assert list((tmp_path / "builds/mine").iterdir()) == [beside]


def test_many_are_told_in_several_breaths(tmp_path: Path) -> None:
    """The hub reads a mebibyte at a time: fifty environments with long locks still get through."""
    hub = Hub()
    at = keeper_at(tmp_path)
    at._url = f"http://127.0.0.1:{hub.server.server_port}"
    for number in range(9):
        at._report(dict(TASK, id=number), "ready", lock="x")
    with serving(hub):
        for most in (4, 8, 9):
            at._ask()
            assert len(hub.reports) == most
    assert {each["id"] for each in hub.reports} == set(range(9))


def test_another_list_of_another_hub_is_another_build(tmp_path: Path) -> None:
    """A hub that begins anew, with the numbers of the old one, does not take it for its own."""
    at = keeper_at(tmp_path)
    assert at._build(dict(TASK)) != at._build(dict(TASK, packages=["numpy"]))
    assert at._build(dict(TASK)) != at._build(dict(TASK, lock="numpy==2.0"))


def test_two_sessions_do_not_build_at_once(tmp_path: Path) -> None:
    """Who comes second at one place waits for its turn, also for what a killed one has left."""
    lock = str(tmp_path / "lock")
    with only_one(lock) as first, only_one(lock) as second:
        assert first is not None
        assert second is None
        child = subprocess.Popen(["sleep", "600"], pass_fds=(first,))
    try:
        with only_one(lock) as third:
            assert third is None
    finally:
        child.kill()
        child.wait()
    with only_one(lock) as fourth:
        assert fourth is not None


def test_the_keeper_comes_with_everything_that_starts_servers(tmp_path: Path) -> None:
    """Jobs and local servers are delivered the same program, which runs by itself."""
    assert job_files()["environments.py"] == local_files()["environments.py"]
    assert keeper_in(str(tmp_path)) == []
    (tmp_path / "environments.py").write_text(local_files()["environments.py"])
    assert keeper_in(str(tmp_path))[-1] == str(tmp_path / "environments.py")
    compile(local_files()["environments.py"], "environments.py", "exec")


# --- a keeper that is killed ------------------------------------------------------------------


class Hub:
    """A hub that wants one environment, and hears what becomes of it."""

    def __init__(self, *tasks: Mapping[str, Any]) -> None:
        self.tasks = tasks
        self.reports: list[dict[str, Any]] = []
        self.found: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                said = json.loads(self.rfile.read(int(self.headers["content-length"])))
                hub.reports += said["reports"]
                hub.found = said["found"]
                answer = json.dumps({"again_in": 1, "environments": hub.tasks}).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def last(self, state: str) -> dict[str, Any] | None:
        """Return what was said last, if it says this."""
        return self.reports[-1] if self.reports and self.reports[-1]["state"] == state else None


@contextmanager
def serving(hub: Hub) -> Iterator[None]:
    """Let a hub answer."""
    thread = threading.Thread(target=hub.server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield
    finally:
        hub.server.shutdown()
        thread.join()
        hub.server.server_close()


@contextmanager
def a_keeper(hub: Hub, root: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the program as a session does; end all that it began."""
    environment = {
        "PATH": f"{root.parent}/bin:{os.environ['PATH']}",
        "HOME": str(root.parent),
        "PERIJOVE_ENVIRONMENTS": str(root),
        "JUPYTERHUB_API_URL": f"http://127.0.0.1:{hub.server.server_port}",
        "JUPYTERHUB_API_TOKEN": "token",
    }
    command = [sys.executable, "-I", "-S", "-c", keeper(), str(os.getpid())]
    process = subprocess.Popen(command, env=environment)
    try:
        yield process
    finally:
        left = psutil.Process(process.pid).children(recursive=True) if not process.poll() else []
        process.kill()
        process.wait()
        for each in left:
            each.kill()


def keeper_with(programs: Path, root: Path) -> Keeper:
    """Return a keeper in a session with programs of its own, whose hub never answers."""
    at = keeper_at(root)
    at._environment["PATH"] = f"{programs}:{os.environ['PATH']}"
    return at


def told(at: Keeper, task: Mapping[str, Any]) -> dict[str, Any]:
    """Let a keeper do what is asked for, and return what it has to say of it."""
    at._do([dict(task)])
    (said,) = (each for each in at._reports if each["id"] == task["id"])
    return said


def slow_python(folder: Path, *, kernel: bool = True) -> Path:
    """
    Give a Python whose environments install in an instant, but wait while a file is there.

    It makes real environments; only their pip is one of ours.
    """
    (folder / "bin").mkdir()
    hold = folder / "hold"
    (folder / "began").touch()  # Before its line comes, so that nobody reads one half made.
    program = folder / "bin/python3"
    pip = (
        "import os, sys, time\n"
        f"open({str(folder / 'began')!r}, 'a').write(str(os.getpid()) + chr(10))\n"
        f"while os.path.exists({str(hold)!r}):\n    time.sleep(0.02)\n"
        "if 'freeze' in sys.argv:\n    print('ipykernel==1.0')\n"
        f"elif 'install' in sys.argv and {kernel}:\n"
        "    os.mkdir(os.path.join(os.path.dirname(os.path.dirname(__file__)), 'ipykernel'))\n"
    )
    program.write_text(
        f"#!{sys.executable}\n"
        "import pathlib, sys, venv\n"
        "folder = pathlib.Path(sys.argv[-1])\n"
        "venv.create(folder, with_pip=False, symlinks=True)\n"
        "(site,) = folder.glob('lib/python*/site-packages')\n"
        "(site / 'pip').mkdir()\n"
        f"(site / 'pip/__main__.py').write_text({pip!r})\n"
    )
    program.chmod(0o755)
    return hold


def installing(folder: Path) -> int:
    """Return the process of a slow Python's pip as soon as it is there."""
    return int(wait_for((folder / "began").read_text, what="the installation to begin"))


def test_a_build_that_was_killed_is_finished_by_the_next_keeper(tmp_path: Path) -> None:
    """Nobody builds beside what a killed keeper left running; then it is begun anew, and ready."""
    hold, root = slow_python(tmp_path), tmp_path / "place"
    hold.touch()
    hub = Hub(dict(TASK))
    with serving(hub):
        with a_keeper(hub, root) as first:
            orphan = installing(tmp_path)
            assert hub.last("building")
            os.kill(first.pid, signal.SIGKILL)
            first.wait()
        assert hub.found == []
        assert not (root / "envs").exists()
        with a_keeper(hub, root):
            wait_for(lambda: len(hub.reports) and psutil.pid_exists(orphan), what="both")
            with only_one(str(root / "lock")) as handle:
                assert handle is None
            hold.unlink()
            ready = wait_for(lambda: hub.last("ready"), what="the environment")
            wait_for(lambda: hub.found == ["mine"], what="it to be offered")
    assert ready["lock"] == "ipykernel==1.0\n"
    assert ready["size_bytes"] > 0
    assert len(list((root / "builds/mine").iterdir())) == 1
    assert len((tmp_path / "began").read_text().split()) == 3  # One in vain, then two of pip.


def test_a_build_that_nobody_wants_any_more_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changed or removed meanwhile, or of a session that ended: its processes end with it."""
    hold, root = slow_python(tmp_path), tmp_path / "place"
    hold.touch()
    hub = Hub(dict(TASK))
    monkeypatch.setattr("perijove.agent.environments.HEARTBEAT", 0.1)
    environment = {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "PERIJOVE_ENVIRONMENTS": str(root),
        "JUPYTERHUB_API_URL": f"http://127.0.0.1:{hub.server.server_port}",
    }
    at = Keeper(environment, os.getppid())
    with serving(hub):
        work = threading.Thread(target=at._do, args=([dict(TASK)],))
        work.start()
        process = psutil.Process(installing(tmp_path))
        hub.tasks = (dict(TASK, revision=2),)
        work.join(timeout=30)
        assert not work.is_alive()
        assert not process.is_running()
        hold.unlink()
        assert at._do([dict(TASK, revision=2)])
        at._ask()
    assert hub.last("ready")
    assert hub.reports[-1]["revision"] == 2


def test_a_keeper_ends_with_its_server(tmp_path: Path) -> None:
    """One whose server was gone before it looked ends at once."""
    hub = Hub()
    with serving(hub):
        command = [sys.executable, "-I", "-S", "-c", keeper(), "1"]
        environment = {"PERIJOVE_ENVIRONMENTS": str(tmp_path), "PATH": os.environ["PATH"]}
        assert subprocess.run(command, env=environment, timeout=30, check=False).returncode == 0
    assert hub.reports == []
