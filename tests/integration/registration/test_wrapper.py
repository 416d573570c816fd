"""Real jobs register at a real hub, whatever happens to either of them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pytest

from perijove.agent.cannot import EXITS
from perijove.domain.launch import Cause, Status
from perijove.kit.loops import until
from perijove.spawners.batch.exits import end_of_status
from perijove.spawners.contract import Phase
from tests.contract.spawners.sites import PROGRAM
from tests.fakes.spawners import MemoryPlatform
from tests.integration.registration.jobs import running_job, seen_by, serving_hub

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


async def test_a_job_brings_its_server_up_and_tells_its_end(url: str, tmp_path: Path) -> None:
    """The server gets its token and no scheduler's variables; its end is told by itself."""
    async with serving_hub(url, tmp_path) as served:
        launch = await served.running_launch()
        folder = served.deliver(launch, tmp_path)
        variables = {"PYTHONPATH": "/of/ann", "SLURM_CONF": "/etc/slurm.conf"}
        async with running_job(folder, **variables) as job:
            ready = await served.hub.becomes(launch, Status.READY, seconds=30)

            seen = await seen_by(ready)
            assert seen["JUPYTERHUB_API_TOKEN"] == served.token(ready)
            assert not [name for name in seen if name.startswith("SLURM") and name != "SLURM_CONF"]
            assert (seen["PERIJOVE_JOB_ID"], seen["OMP_NUM_THREADS"]) == ("17", "2")
            assert (seen["HOME"], seen["cwd"]) == (str(tmp_path / "home"), str(tmp_path / "home"))
            assert "PYTHONPATH" not in seen
            session = Path(seen["PERIJOVE_SESSION"])
            assert session.stat().st_mode & 0o777 == 0o700
            world = json.loads((session / "world.json").read_text())
            assert "/of/ann" in world["PYTHONPATH"].split(":")
            codes = [event.code for event in await served.hub.events(launch.id)]
            assert codes[-5:] == ["registered", "listening", "connecting", "routed", "ready"]

            server = psutil.Process(job.process.pid).children()[0]
            server.kill()
            assert await job.exit_status() == 128 + signal.SIGKILL

        ended = await served.hub.becomes(launch, Status.ENDED)
        assert ended.end is not None
        assert (ended.end.cause, ended.end.code) == (Cause.SIGNAL, 9)
        assert job.end["signal"] == 9
        assert job.end["memory_peak_bytes"] > 0
        assert not session.exists()
        secrets = (served.code(launch), served.token(ready))
        for path in (folder / "job.log", folder / "end.json"):
            assert not [secret for secret in secrets if secret in path.read_text()]


async def test_a_job_waits_for_a_hub_that_is_away(url: str, tmp_path: Path) -> None:
    """Started while no hub answers, a job registers when one does; a restart does not touch it."""
    platform = MemoryPlatform(url="")
    async with serving_hub(url, tmp_path, platform=platform) as served:
        launch = await served.running_launch()
        folder = served.deliver(launch, tmp_path)
        port, jobs = served.port, served.spawner.jobs

    async with running_job(folder) as job:
        await job.says("registering")
        async with serving_hub(url, tmp_path, port=port, platform=platform, jobs=jobs) as served:
            ready = await served.hub.becomes(launch, Status.READY, seconds=60)
            first = await seen_by(ready)
        async with serving_hub(url, tmp_path, port=port, platform=platform, jobs=jobs) as served:
            again = await served.hub.becomes(launch, Status.READY)
            assert await seen_by(again) == first
            job.process.terminate()
            assert await job.exit_status() == 128 + signal.SIGTERM
            # Why it was asked to end, only the platform knows.
            assert (await served.hub.launch(launch.id)).status is Status.READY


@pytest.fixture(params=["refuses", "is mute"])
def silent(request: pytest.FixtureRequest) -> Iterator[str]:
    """Give a place where no hub answers: nobody listens there, or somebody who says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = f"127.0.0.1:{listener.getsockname()[1]}"
        if request.param == "refuses":
            listener.close()
        yield place


async def test_a_job_that_cannot_reach_the_hub_says_so_before_the_hub_gives_up(
    url: str, tmp_path: Path, silent: str
) -> None:
    """It ends within the limit for a start; its log and its exit status say why, as an end."""
    async with serving_hub(url, tmp_path) as served:
        launch = await served.running_launch()
        address = f"http://{silent}/hub/api/perijove/registrations"
        limit = 12.0
        folder = served.deliver(launch, tmp_path, register_url=address, start_limit=limit)
        began = time.monotonic()
        async with running_job(folder) as job:
            await job.says("cannot start the server: hub-unreachable")
            assert time.monotonic() - began < limit
            status = await job.exit_status()
        end = end_of_status(status)
        assert (end.cause, end.reason) == (Cause.NEVER_STARTED, "hub-unreachable")
        *tried, last = [line for line in job.output.splitlines() if address in line]
        assert address in last.partition("hub-unreachable: ")[2]
        assert all("trying again in" in line for line in tried)
        assert served.code(launch) not in job.output


@pytest.mark.parametrize(("own", "told"), [(7, 7), (EXITS["module-failed"], 1)])
async def test_a_servers_own_status_is_no_reason_of_ours(
    url: str, tmp_path: Path, own: int, told: int
) -> None:
    """A server that ran never counts as one that could not start, whatever it ends with."""
    async with serving_hub(url, tmp_path) as served:
        launch = await served.running_launch()
        command = [sys.executable, str(PROGRAM), f"exit-{own}"]
        async with running_job(served.deliver(launch, tmp_path, command=command)) as job:
            assert await job.exit_status() == told
            assert job.end["exit"] == own
        assert end_of_status(told).cause is Cause.EXITED


async def test_a_refused_registration_is_said_with_its_reason(url: str, tmp_path: Path) -> None:
    """While it tries, the end of the log is where it tries and what went wrong."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = f"127.0.0.1:{listener.getsockname()[1]}"
    async with serving_hub(url, tmp_path) as served:
        launch = await served.running_launch()
        address = f"http://{place}/hub/api/perijove/registrations"
        folder = served.deliver(launch, tmp_path, register_url=address)
        async with running_job(folder) as job:
            await job.says("trying again in")
            last = job.output.splitlines()[-1]
            assert address in last
            assert "ConnectionRefusedError" in last


async def test_a_job_that_is_deleted_says_so_to_accounting(url: str, tmp_path: Path) -> None:
    """Grid Engine's notice is in the exit status, whatever the server's own end was."""
    async with serving_hub(url, tmp_path) as served:
        launch = await served.running_launch()
        async with running_job(served.deliver(launch, tmp_path), SGE_ROOT="/opt/sge") as job:
            await served.hub.becomes(launch, Status.READY, seconds=30)
            job.process.send_signal(signal.SIGUSR2)
            assert await job.exit_status() == 128 + signal.SIGUSR2
            assert job.end["stop_asked"]


async def test_a_job_ends_when_nobody_wants_it(url: str, tmp_path: Path) -> None:
    """A job that starts after its launch was stopped starts nothing and ends."""
    async with serving_hub(url, tmp_path) as served:
        launch = await served.running_launch()
        folder = served.deliver(launch, tmp_path)
        await served.hub.stop()
        await served.hub.becomes(launch, Status.ENDED)

        async with running_job(folder) as job:
            assert await job.exit_status() == EXITS["cancelled"]
            assert job.end["failure"] == "cancelled"


async def test_a_wrong_code_is_refused_for_good(url: str, tmp_path: Path) -> None:
    """A job with another launch's code does not ask twice."""
    async with serving_hub(url, tmp_path) as served:
        launch = await served.running_launch()
        folder = served.deliver(launch, tmp_path, code="0" * 64)
        async with running_job(folder) as job:
            assert await job.exit_status() == EXITS["code-refused"]
        assert (await served.hub.launch(launch.id)).status is Status.STARTING


async def test_the_second_job_of_a_launch_leaves(url: str, tmp_path: Path) -> None:
    """Of two jobs of one launch the later one ends, and the server of the first one goes on."""
    async with serving_hub(url, tmp_path) as served:
        launch = await served.running_launch("17")
        served.spawner.jobs["18"] = launch.name
        folder = served.deliver(launch, tmp_path)
        async with running_job(folder, "17"):
            ready = await served.hub.becomes(launch, Status.READY, seconds=30)
            async with running_job(folder, "18") as second:
                assert await second.exit_status() == EXITS["second-job"]
            assert (await seen_by(ready))["PERIJOVE_JOB_ID"] == "17"


async def test_a_job_that_runs_again_gets_another_token(url: str, tmp_path: Path) -> None:
    """A requeued job comes up anew: other address, other token, and the first one's is dead."""
    async with serving_hub(url, tmp_path) as served:
        launch = await served.running_launch()
        folder = served.deliver(launch, tmp_path)
        async with running_job(folder) as job:
            first = await served.hub.becomes(launch, Status.READY, seconds=30)
            old = (await seen_by(first))["JUPYTERHUB_API_TOKEN"]
            os.killpg(job.process.pid, signal.SIGKILL)  # the node is gone
            await job.exit_status()
        served.spawner.inner.platform.show(launch.name, Phase.PENDING)  # type: ignore[attr-defined]
        await served.hub.becomes(launch, Status.QUEUED)
        assert await served.hub.prefixes() == set()
        served.spawner.inner.platform.show(launch.name, Phase.RUNNING)  # type: ignore[attr-defined]

        async with running_job(folder):
            second = await served.hub.becomes(launch, Status.READY, seconds=30)
            new = (await seen_by(second))["JUPYTERHUB_API_TOKEN"]
            assert second.generation == first.generation + 1
            assert new == served.token(second) != old


@pytest.fixture
def taker(tmp_path: Path) -> Iterator[Path]:
    """Give the socket of somebody who takes the first port that he is told of."""
    path = tmp_path / "taker"
    program = (
        "import re, socket, sys\n"
        "asked = socket.socket(socket.AF_UNIX); asked.bind(sys.argv[1]); asked.listen()\n"
        "taken = None\n"
        "while True:\n"
        "    client, _ = asked.accept()\n"
        "    port = int(re.search(rb':(\\d+)/', client.recv(999))[1])\n"
        "    taken = taken or socket.create_server(('127.0.0.1', port))\n"
        "    client.close()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(path)])
    yield path
    process.kill()
    process.wait()


async def test_a_port_that_was_taken_is_changed(url: str, tmp_path: Path, taker: Path) -> None:
    """A stranger who takes the port in the last moment gets nothing; another one is registered."""
    async with serving_hub(url, tmp_path) as served:
        launch = await served.running_launch()
        command = [sys.executable, str(PROGRAM), "clash"]
        folder = served.deliver(launch, tmp_path, command=command)
        async with running_job(folder, TEST_STRANGER=str(taker)) as job:
            ready = await served.hub.becomes(launch, Status.READY, seconds=60)

            assert (await seen_by(ready))["JUPYTERHUB_API_TOKEN"] == served.token(ready)
            assert "trying another one" in job.output
            assert len({claim.port for claim in served.spawner.claims}) == 2
            assert ready.generation == launch.generation


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"command": ["no-such-server"]}, "command-missing", "no-such-server"),
        ({"software": {"prefix": "/no/such"}}, "environment-missing", "/no/such/bin"),
        (
            # What a program prints may be no text that a hub takes.
            {"software": {"setup": [["sh", "-c", r"printf '\000\355\240\200 my words'; exit 5"]]}},
            "setup-failed",
            "my words",
        ),
        ({"software": {"modules": ["anaconda"]}}, "module-failed", "module load anaconda"),
        (
            {"software": {"container": {"image": "/no.sif", "runtime": "true"}}},
            "container-failed",
            "/no.sif",
        ),
        ({"networks": ["198.51.100.0/24"]}, "host-refused", "198.51.100.0/24"),
    ],
)
async def test_why_it_cannot_reaches_the_launch(
    url: str, tmp_path: Path, changes: dict[str, object], code: str, words: str
) -> None:
    """What is wrong on the node is the launch's end, in its own words, and the exit status."""
    async with serving_hub(url, tmp_path) as served:
        launch = await served.running_launch()
        folder = served.deliver(launch, tmp_path, **changes)
        async with running_job(folder) as job:
            assert await job.exit_status() == EXITS[code]
        ended = await served.hub.becomes(launch, Status.ENDED)

        assert ended.end is not None
        assert (ended.end.cause, ended.end.reason) == (Cause.NEVER_STARTED, code)
        assert words in ended.end.detail


async def test_modules_and_setup_reach_the_server(url: str, tmp_path: Path) -> None:
    """What a module and a setup command change is the server's environment."""
    init = tmp_path / "modules/init"
    init.mkdir(parents=True)
    (init / "bash").write_text('module() { export LOADED="$2" PATH="/from/$2:$PATH"; }\n')
    async with serving_hub(url, tmp_path) as served:
        launch = await served.running_launch()
        software = {"modules": ["a b;c"], "setup": [["export", "SET=$(id)'\""]]}
        folder = served.deliver(launch, tmp_path, software=software)
        async with running_job(folder, MODULESHOME=str(init.parent)):
            seen = await seen_by(await served.hub.becomes(launch, Status.READY, seconds=30))

        assert (seen["LOADED"], seen["SET"]) == ("a b;c", "$(id)'\"")
        assert seen["PATH"].startswith("/from/a b;c:")


@pytest.fixture
def full_home(tmp_path: Path) -> Iterator[Path]:
    """Give a home without room; only root can make one."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    home = tmp_path / "full"
    home.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(home)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this machine does not allow mounts")
    yield home
    subprocess.run(["umount", "--lazy", str(home)], check=True)


@pytest.mark.parametrize("trouble", ["home-full", "home-missing"])
async def test_a_home_that_cannot_be_used_is_rescued(
    url: str, tmp_path: Path, trouble: str, request: pytest.FixtureRequest
) -> None:
    """With a full or missing home the server runs in a temporary one, which says why."""
    full = trouble == "home-full"
    home = request.getfixturevalue("full_home") if full else tmp_path / "gone"
    async with serving_hub(url, tmp_path) as served:
        launch = await served.running_launch()
        folder = served.deliver(launch, tmp_path, home=str(home))
        async with running_job(folder):
            seen = await seen_by(await served.hub.becomes(launch, Status.READY, seconds=30))

            assert seen["PERIJOVE_RESCUE"] == trouble
            assert seen["HOME"] == seen["cwd"] != str(home)
            assert str(home) in (Path(seen["HOME"]) / "READ-ME-FIRST.txt").read_text()
            warnings = [e for e in await served.hub.events(launch.id) if e.code == "warning"]
            assert [event.params["reason"] for event in warnings] == [trouble]


async def test_nothing_of_a_job_is_left(url: str, tmp_path: Path) -> None:
    """Children that ran away from the server end with the job, which passes the signal on."""
    async with serving_hub(url, tmp_path) as served:
        launch = await served.running_launch()
        command = [sys.executable, str(PROGRAM), "parent"]
        folder = served.deliver(launch, tmp_path, command=command)
        async with running_job(folder) as job:
            await served.hub.becomes(launch, Status.READY, seconds=30)
            children = psutil.Process(job.process.pid).children(recursive=True)
            assert len(children) >= 3
            job.process.send_signal(signal.SIGUSR1)

            async def is_told() -> bool:
                return "warning" in [e.code for e in await served.hub.events(launch.id)]

            assert await until(is_told, seconds=15)
            job.process.terminate()
            await job.exit_status()
        assert not [child for child in children if child.is_running()]


async def test_a_range_without_a_free_port_is_said(url: str, tmp_path: Path) -> None:
    """A site's range whose ports are all taken ends the start with that reason."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        async with serving_hub(url, tmp_path) as served:
            launch = await served.running_launch()
            folder = served.deliver(launch, tmp_path, ports=[port, port])
            async with running_job(folder) as job:
                assert await job.exit_status() == EXITS["port-range-full"]
            ended = await served.hub.becomes(launch, Status.ENDED)
            assert ended.end is not None
            assert ended.end.reason == "port-range-full"


async def test_the_stock_server_comes_up_in_a_job(url: str, tmp_path: Path) -> None:
    """``jupyterhub-singleuser`` runs isolated from a broken home; its kernels are the person's."""
    async with serving_hub(url, tmp_path) as served:
        launch = await served.running_launch()
        command = [str(Path(sys.executable).with_name("jupyterhub-singleuser"))]
        folder = served.deliver(launch, tmp_path, command=command)
        site = tmp_path / "home/.local/lib/python3.11/site-packages"
        site.mkdir(parents=True)
        (site / "tornado.py").write_text("raise RuntimeError('broken by ann')")
        config = tmp_path / "home/.jupyter"
        config.mkdir()
        (config / "jupyter_server_config.py").write_text("raise RuntimeError('this one too')")
        async with running_job(folder, PYTHONPATH=str(site)) as job:
            ready = await served.hub.becomes(launch, Status.READY, seconds=90)
            assert ready.server_version
            token = served.token(ready)
            headers = {"Authorization": f"token {token}"}
            async with httpx2.AsyncClient(headers=headers, timeout=60) as client:
                answer = await client.post(f"{ready.url}/user/ann/api/kernels", json={})
            assert answer.status_code == 201, answer.text
            server = psutil.Process(job.process.pid).children()[0]
            kernel = next(each for each in server.children() if "ipykernel" in str(each.cmdline()))
            assert "--HistoryManager.hist_file=:memory:" in kernel.cmdline()
            world = kernel.environ()
            assert str(site) in world["PYTHONPATH"].split(":")
            assert "PYTHONNOUSERSITE" not in world
            assert world["PIP_PREFIX"].startswith(str(tmp_path))
            assert "export SLURM_JOB_ID=17" in Path(world["PERIJOVE_JOB_ENVIRONMENT"]).read_text()
            assert token not in job.output
        assert await job.exit_status() == 0, job.output


async def test_the_server_writes_as_the_persons_login_does(url: str, tmp_path: Path) -> None:
    """What members of a project save is open to the project where their start files say so."""
    async with serving_hub(url, tmp_path) as served:
        launch = await served.running_launch()
        folder = served.deliver(launch, tmp_path)
        (tmp_path / "home/.profile").write_text("umask 007\n")
        async with running_job(folder) as job:
            await served.hub.becomes(launch, Status.READY, seconds=30)
            [server] = psutil.Process(job.process.pid).children()
            status = Path(f"/proc/{server.pid}/status").read_text()

        assert "Umask:\t0007\n" in status


async def test_safe_mode_leaves_the_home_alone(url: str, tmp_path: Path) -> None:
    """In safe mode neither the server nor its kernels read what the person has configured."""
    async with serving_hub(url, tmp_path) as served:
        launch = await served.running_launch()
        folder = served.deliver(launch, tmp_path, safe_mode=True)
        async with running_job(folder, PYTHONPATH="/of/ann"):
            seen = await seen_by(await served.hub.becomes(launch, Status.READY, seconds=30))

            assert seen["JUPYTERHUB_DISABLE_USER_CONFIG"] == seen["PYTHONNOUSERSITE"] == "1"
            for name in ("JUPYTER_CONFIG_DIR", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "TMPDIR"):
                assert seen[name].startswith(seen["PERIJOVE_SESSION"])
            assert not (Path(seen["PERIJOVE_SESSION"]) / "world.json").exists()
