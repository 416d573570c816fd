"""What the local spawner promises beyond the contract: real processes, ports and files."""

import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import anyio
import psutil
import pytest

from perijove.domain.errors import SpawnerRejected, SpawnerTransient
from perijove.domain.launch import Cause, End
from perijove.spawners.contract import ChecksListener, Handle, HasLogs, Phase, Warns
from perijove.spawners.local import LocalSpawner
from tests.contract.spawners.sites import (
    NAME,
    SECRET,
    LocalSite,
    answers,
    eventually,
    find,
    free_port,
    make_spec,
    phase,
    processes_of,
    program,
    recorded,
    server_of,
    supervisors_of,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def short_log(local_site: LocalSite) -> AsyncIterator[LocalSpawner]:
    """Give a spawner that keeps little of what servers write."""
    async with local_site.spawner(log_limit=65536) as spawner:
        yield spawner


async def test_it_has_its_abilities(local: LocalSpawner) -> None:
    """The local spawner shows logs, tells whose a listener is, and warns."""
    assert isinstance(local, HasLogs)
    assert isinstance(local, ChecksListener)
    assert isinstance(local, Warns)


# How it ends


async def test_exit_status_is_evidence(local: LocalSpawner) -> None:
    """A server that ends by itself leaves its exit status."""
    await local.start(make_spec(mode="exit-3"), recorded)

    gone = await phase(local, NAME, Phase.GONE)

    assert gone.end == End(cause=Cause.EXITED, code=3)
    assert gone.since is not None


async def test_grace_lets_a_server_end_by_itself(local: LocalSpawner) -> None:
    """A stopped server gets SIGTERM first."""
    await local.start(make_spec(), recorded)
    await answers(await phase(local, NAME, Phase.RUNNING))

    gone = await local.stop(NAME, None, grace=30)

    assert gone is not None
    assert gone.end == End(cause=Cause.SIGNAL, code=signal.SIGTERM)


async def test_stubborn_server_is_killed_after_its_grace(local: LocalSpawner) -> None:
    """A server that ignores SIGTERM is killed when its grace is over."""
    await local.start(make_spec(mode="stubborn"), recorded)
    await answers(await phase(local, NAME, Phase.RUNNING))

    gone = await local.stop(NAME, None, grace=0.2)

    assert gone is not None
    assert gone.end == End(cause=Cause.SIGNAL, code=signal.SIGKILL)
    assert not processes_of(NAME)


async def test_second_stop_may_shorten_the_grace(local_site: LocalSite) -> None:
    """Who is in a hurry does not have to wait for a patient one."""
    async with local_site.spawner() as patient, local_site.spawner() as hasty:
        await patient.start(make_spec(mode="stubborn"), recorded)
        await answers(await phase(patient, NAME, Phase.RUNNING))

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: patient.stop(NAME, None, grace=600))
                assert await eventually(lambda: _is_cancelled(local_site))
                tasks.start_soon(lambda: hasty.stop(NAME, None, grace=0))


async def _is_cancelled(site: LocalSite) -> bool:
    return (site.data_dir / "launches" / NAME / "cancelled").exists()


async def test_runaway_children_end_with_the_launch(local: LocalSpawner) -> None:
    """Children with a session of their own, orphaned or deaf to SIGTERM, do not outlive a stop."""
    await local.start(make_spec(mode="parent"), recorded)
    await answers(await phase(local, NAME, Phase.RUNNING))
    everyone = processes_of(NAME)
    assert len(everyone) == 3

    await local.stop(NAME, None, grace=5)

    assert not [one for one in everyone if one.is_running()]


async def test_runaway_children_end_with_their_server(local: LocalSpawner) -> None:
    """When the server ends by itself, the launch is gone only with all that it started."""
    await local.start(make_spec(mode="parent"), recorded)
    await answers(await phase(local, NAME, Phase.RUNNING))
    everyone = processes_of(NAME)

    server_of(NAME).kill()
    gone = await phase(local, NAME, Phase.GONE)

    assert gone.end == End(cause=Cause.SIGNAL, code=signal.SIGKILL)
    assert not [one for one in everyone if one.is_running()]


async def test_killed_supervisor_leaves_nothing_behind(local: LocalSpawner) -> None:
    """Without its supervisor a launch is gone, cause unknown, once nothing of it lives."""
    await local.start(make_spec(mode="parent"), recorded)
    await answers(await phase(local, NAME, Phase.RUNNING))
    everyone = processes_of(NAME)

    (supervisor,) = supervisors_of(NAME)
    supervisor.kill()
    gone = await phase(local, NAME, Phase.GONE)

    assert gone.end == End(cause=Cause.UNKNOWN, reason="supervisor-lost")
    assert not [one for one in everyone if one.is_running() and not _is_zombie(one)]


async def test_killed_supervisor_takes_its_server_along(local: LocalSpawner) -> None:
    """A server without its supervisor ends at once, although no hub may be there to see it."""
    await local.start(make_spec(mode="stubborn"), recorded)
    await answers(await phase(local, NAME, Phase.RUNNING))
    server = server_of(NAME)

    supervisors_of(NAME)[0].kill()

    async def has_ended() -> bool:
        return not server.is_running() or _is_zombie(server)

    assert await eventually(has_ended)


async def test_stop_after_a_killed_supervisor_ends_what_it_left(local: LocalSpawner) -> None:
    """Stopping a launch that lost its supervisor returns when nothing of it lives."""
    await local.start(make_spec(mode="parent"), recorded)
    await answers(await phase(local, NAME, Phase.RUNNING))
    everyone = processes_of(NAME)
    supervisors_of(NAME)[0].kill()

    gone = await local.stop(NAME, None, grace=5)

    assert gone is not None
    assert gone.end == End(cause=Cause.UNKNOWN, reason="supervisor-lost")
    assert not [one for one in everyone if one.is_running() and not _is_zombie(one)]


async def test_hung_supervisor_does_not_hold_up_a_stop(local_site: LocalSite) -> None:
    """A supervisor that does nothing any more is killed, and its server with it."""
    async with local_site.spawner(kill_limit=0.5) as local:
        await local.start(make_spec(), recorded)
        await answers(await phase(local, NAME, Phase.RUNNING))
        supervisors_of(NAME)[0].suspend()

        gone = await local.stop(NAME, None, grace=0)

    assert gone is not None
    assert not processes_of(NAME)


async def test_killed_supervisor_is_not_replaced(local: LocalSpawner) -> None:
    """A launch starts at most once, also when its supervisor went without a word."""
    await local.start(make_spec(), recorded)
    await phase(local, NAME, Phase.RUNNING)
    supervisors_of(NAME)[0].kill()
    await phase(local, NAME, Phase.GONE)

    again = await local.start(make_spec(), recorded)

    assert again.phase is Phase.GONE
    assert not processes_of(NAME)


def _is_zombie(one: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return one.status() == psutil.STATUS_ZOMBIE
    return True


# What it is given


async def test_environment_is_what_was_ordered(
    local_site: LocalSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server inherits the short list of the wire and nothing else of the hub's environment."""
    monkeypatch.setenv("PERIJOVE_ADMIN_PASSWORD", "hub-only")
    monkeypatch.setenv("LANG", "C.UTF-8")
    async with local_site.spawner(environment={"SITE": "ours", "EDITOR": "ed"}) as spawner:
        order = make_spec(user_name="A/b", environment={"EDITOR": "vi", "MEM_LIMIT": "1024"})
        sighting = await spawner.start(order, recorded)
        seen = json.loads(await answers(sighting))

    home = str(local_site.data_dir / "homes" / "A+2Fb")
    assert seen["JUPYTERHUB_SERVICE_URL"] == f"{sighting.url}/base/user/ann/"
    assert (seen["HOME"], seen["cwd"]) == (home, home)
    assert (seen["SITE"], seen["EDITOR"], seen["MEM_LIMIT"]) == ("ours", "ed", "1024")
    assert seen["LANG"] == "C.UTF-8"
    assert {"USER", "SHELL", "PATH"} <= seen.keys()
    assert "PERIJOVE_ADMIN_PASSWORD" not in seen
    assert Path(home).stat().st_mode & 0o777 == 0o700


async def test_root_may_run_jupyter(local_site: LocalSite) -> None:
    """As root, Jupyter finds leave to run in a file, beside what the order says of such files."""
    async with local_site.spawner() as spawner:
        order = make_spec(environment={"JUPYTER_CONFIG_PATH": "/etc/ours"})
        seen = json.loads(await answers(await spawner.start(order, recorded)))

    first, *own = seen["JUPYTER_CONFIG_PATH"].split(":")
    files = [
        json.loads((Path(folder) / "jupyter_server_config.json").read_text()) for folder in own
    ]
    allowed = [{"ServerApp": {"allow_root": True}}] if os.geteuid() == 0 else []
    assert (first, files) == ("/etc/ours", allowed)


async def test_data_directory_may_be_relative(
    local_site: LocalSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A data directory that was named from where the hub started is found by its servers."""
    monkeypatch.chdir(local_site.data_dir.parent)
    relative = LocalSite(Path(local_site.data_dir.name))
    async with relative.spawner() as spawner:
        seen = json.loads(await answers(await spawner.start(make_spec(), recorded)))

    assert seen["cwd"] == str(local_site.data_dir / "homes" / "ann")


async def test_missing_command_is_rejected(local: LocalSpawner) -> None:
    """A command that is nowhere is refused by name, with the places, and nothing is left."""
    with pytest.raises(SpawnerRejected, match=r"'no-such-server'.*looked at .*/bin"):
        await local.start(make_spec(command=["no-such-server"]), recorded)

    assert await find(local, NAME) is None


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a\0b", "ü", "x" * 129])
async def test_impossible_platform_name_is_rejected(local: LocalSpawner, name: str) -> None:
    """A name that cannot be a file name starts nothing, stops nothing and has no output."""
    with pytest.raises(SpawnerRejected):
        await local.start(make_spec(name), recorded)

    assert await local.stop(name, None, grace=0) is None
    assert await local.log_tail(name, None, lines=10) == ""
    assert await local.owns_listener(name, None, "http://127.0.0.1:1") is False


async def test_command_that_cannot_run_says_why(local: LocalSpawner, tmp_path: Path) -> None:
    """What the system says to a broken program is in its output."""
    broken = tmp_path / "broken"
    broken.write_text("#!/no/such/interpreter\n")
    broken.chmod(0o755)

    await local.start(make_spec(command=[str(broken)]), recorded)
    gone = await phase(local, NAME, Phase.GONE)

    assert gone.end == End(cause=Cause.EXITED, code=127)
    assert "No such file" in await local.log_tail(NAME, None, lines=5)


# Secrets


async def test_token_is_nowhere_to_be_read(local_site: LocalSite, local: LocalSpawner) -> None:
    """The server's token is in its environment: not on a command line, not in a file that stays."""
    await local.start(make_spec(), recorded)
    await answers(await phase(local, NAME, Phase.RUNNING))

    assert not [
        path for path in _files(local_site.data_dir) if SECRET.encode() in path.read_bytes()
    ]
    assert not [line for line in _command_lines() if SECRET.encode() in line]
    (supervisor,) = supervisors_of(NAME)
    assert SECRET not in supervisor.environ().values()


async def test_token_of_a_stopped_order_is_removed(
    local_site: LocalSite, local: LocalSpawner
) -> None:
    """A launch that was stopped before it ran leaves its token nowhere."""

    async def crash(handle: Handle) -> None:
        raise SpawnerTransient("crash")

    with pytest.raises(SpawnerTransient):
        await local.start(make_spec(), crash)
    assert _files_with_token(local_site)

    gone = await local.stop(NAME, None, grace=0)

    assert gone is not None
    assert gone.end == End(cause=Cause.NEVER_STARTED, reason="cancelled")
    assert not [
        path for path in _files(local_site.data_dir) if SECRET.encode() in path.read_bytes()
    ]


async def test_nobody_else_may_look(local_site: LocalSite, local: LocalSpawner) -> None:
    """Everything the spawner writes is for the hub's account only."""
    await local.start(make_spec(), recorded)
    await answers(await phase(local, NAME, Phase.RUNNING))

    launch = local_site.data_dir / "launches" / NAME
    assert launch.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o077 for path in _files(launch)} == {0}


def _files_with_token(site: LocalSite) -> list[Path]:
    return [path for path in _files(site.data_dir) if SECRET.encode() in path.read_bytes()]


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _command_lines() -> Iterator[bytes]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield path.read_bytes()


# Output


async def test_output_has_a_limit_and_never_blocks(
    local_site: LocalSite, short_log: LocalSpawner
) -> None:
    """Of much output the beginning and the end are kept, and the server goes on."""
    await short_log.start(make_spec(mode="chatty"), recorded)
    await answers(await phase(short_log, NAME, Phase.RUNNING))

    async def has_all() -> bool:
        return "the last line" in await short_log.log_tail(NAME, None, lines=1)

    assert await eventually(has_all)
    output = await short_log.log_tail(NAME, None, lines=100_000)
    assert output.startswith("line 0 ")
    assert "[...]" in output
    logs = (local_site.data_dir / "launches" / NAME).glob("log*")
    assert sum(path.stat().st_size for path in logs) <= 65536


async def test_last_words_are_kept(local: LocalSpawner) -> None:
    """What a server wrote right before it ended is there to be read."""
    await local.start(make_spec(mode="exit-1"), recorded)
    await phase(local, NAME, Phase.GONE)

    assert (await local.log_tail(NAME, None, lines=1)) == "the last line"


async def test_output_stays_for_a_while(local: LocalSpawner) -> None:
    """The last lines can be read after the launch was removed."""
    await local.start(make_spec(mode="chatty"), recorded)
    await answers(await phase(local, NAME, Phase.RUNNING))
    await local.stop(NAME, None, grace=5)

    assert (await local.log_tail(NAME, None, lines=2)).endswith("\nthe last line")


async def test_output_of_the_unknown_is_empty(local: LocalSpawner) -> None:
    """What was never started has written nothing."""
    assert await local.log_tail(f"{NAME}-never", None, lines=10) == ""


# Ports


@contextmanager
def stranger(folder: Path, *, takes: int) -> Iterator[str]:
    """Run somebody who takes the first ports it hears of, and leaves later ones alone."""
    path = str(folder / "stranger")
    with ExitStack() as stack:
        door = stack.enter_context(socket.socket(socket.AF_UNIX))
        door.bind(path)
        door.listen(8)

        def work() -> None:
            with suppress(OSError):  # The door was shut.
                for visit in count():
                    visitor, _ = door.accept()
                    with visitor:
                        url = urlsplit(visitor.recv(4096).decode())
                        if visit < takes:
                            squatter = stack.enter_context(socket.socket())
                            squatter.bind((url.hostname, url.port))
                            squatter.listen(4)
                        visitor.sendall(b"!")

        thread = Thread(target=work, daemon=True)
        thread.start()
        yield path
        door.shutdown(socket.SHUT_RDWR)
        thread.join(20)


async def test_port_lost_again_and_again_is_an_end(local: LocalSpawner, tmp_path: Path) -> None:
    """A launch that loses every port it tries says so instead of trying for ever."""
    with stranger(tmp_path, takes=4) as path:
        await local.start(make_spec(mode="clash", environment={"TEST_STRANGER": path}), recorded)
        gone = await phase(local, NAME, Phase.GONE)

    assert gone.end == End(cause=Cause.NEVER_STARTED, reason="port-taken")


async def test_port_lost_in_a_race_is_replaced(local: LocalSpawner, tmp_path: Path) -> None:
    """A server that failed because somebody took its port is started again on another one."""
    with stranger(tmp_path, takes=1) as path:
        order = make_spec(mode="clash", environment={"TEST_STRANGER": path})
        await local.start(order, recorded)

        async def is_owner() -> bool:
            sighting = await find(local, NAME)
            assert sighting is not None
            assert sighting.phase is not Phase.GONE
            return await local.owns_listener(NAME, None, sighting.url) is True

        assert await eventually(is_owner)
        await answers(await phase(local, NAME, Phase.RUNNING))


async def test_ports_are_from_the_range(local_site: LocalSite) -> None:
    """With a range configured, servers listen in it; when it is full a launch says so."""
    port = free_port()
    async with local_site.spawner(port_range=(port, port)) as spawner:
        first = await spawner.start(make_spec(), recorded)
        await answers(first)

        await spawner.start(make_spec(f"{NAME}-2"), recorded)
        second = await phase(spawner, f"{NAME}-2", Phase.GONE)

    assert first.url == f"http://127.0.0.1:{port}"
    assert second.end == End(cause=Cause.NEVER_STARTED, reason="port-taken")


async def test_listener_is_the_launchs_own(local: LocalSpawner) -> None:
    """Who listens is told apart: the launch itself, another launch, a stranger, nobody."""
    own = await local.start(make_spec(), recorded)
    other = await local.start(make_spec(f"{NAME}-2"), recorded)
    await answers(own)
    await answers(other)
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        foreign_url = f"http://127.0.0.1:{foreign.getsockname()[1]}"

        assert await local.owns_listener(NAME, None, own.url) is True
        assert await local.owns_listener(NAME, None, other.url) is False
        assert await local.owns_listener(NAME, None, foreign_url) is False
        assert await local.owns_listener(f"{NAME}-never", None, own.url) is False
    assert await local.owns_listener(NAME, None, f"http://127.0.0.1:{free_port()}") is None


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
async def test_listener_on_every_address_counts(local: LocalSpawner, address: str) -> None:
    """A stranger who listens everywhere is seen; one whom the server's own socket hides is not."""
    await local.start(make_spec(), recorded)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as foreign:
        foreign.bind((address, 0))
        foreign.listen(4)
        url = f"http://127.0.0.1:{foreign.getsockname()[1]}"

        assert await local.owns_listener(NAME, None, url) is False


# The platform itself


async def test_missing_folder_is_no_answer(local_site: LocalSite, local: LocalSpawner) -> None:
    """When the data directory went away, nothing is said about launches."""
    launches = local_site.data_dir / "launches"
    launches.rename(launches.with_name("away"))

    with pytest.raises(SpawnerTransient):
        await local.survey()

    launches.with_name("away").rename(launches)


async def test_unreadable_launch_makes_a_survey_incomplete(
    local_site: LocalSite, local: LocalSpawner
) -> None:
    """A directory that cannot be understood hides no launch: the survey says it is not all."""
    await local.start(make_spec(), recorded)
    damaged = local_site.data_dir / "launches" / f"{NAME}-2"
    damaged.mkdir()
    (damaged / "label.json").write_text("{")

    survey = await local.survey()

    assert (survey.complete, [one.name for one in survey.sightings]) == (False, [NAME])
    (damaged / "label.json").unlink()
    damaged.rmdir()


async def test_damaged_end_is_an_end(local_site: LocalSite, local: LocalSpawner) -> None:
    """An end that cannot be read is still an end, of which the cause is not known."""
    await local.start(make_spec(mode="exit-0"), recorded)
    await phase(local, NAME, Phase.GONE)
    (local_site.data_dir / "launches" / NAME / "end.json").write_text("{")

    assert (await phase(local, NAME, Phase.GONE)).end == End(cause=Cause.UNKNOWN)


async def test_supervisor_belongs_to_nobody(local: LocalSpawner) -> None:
    """A supervisor is no child of the hub, has its own session and nothing of the hub's open."""
    await local.start(make_spec(), recorded)
    await answers(await phase(local, NAME, Phase.RUNNING))
    (supervisor,) = supervisors_of(NAME)

    assert supervisor.ppid() != os.getpid()
    assert os.getsid(supervisor.pid) not in (os.getsid(0), supervisor.ppid())
    assert os.getsid(server_of(NAME).pid) == server_of(NAME).pid
    opened = [str(path.readlink()) for path in Path(f"/proc/{supervisor.pid}/fd").iterdir()]
    launch = f"launches/{NAME}/"
    assert [path for path in opened if not _is_plain(path) and launch not in path] == []


def _is_plain(path: str) -> bool:
    return path == "/dev/null" or path.startswith("pipe:")


async def test_other_spawners_command_is_found_beside_python(local: LocalSpawner) -> None:
    """A command without a folder is looked for beside the Python that runs the hub."""
    _, *arguments = program("plain")
    await local.start(make_spec(command=["python", *arguments]), recorded)

    await answers(await phase(local, NAME, Phase.RUNNING))
