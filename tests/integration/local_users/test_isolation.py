"""Two people with servers on one machine: neither reaches what is the other's."""

import os
import pwd
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx2
import psutil
import pytest
from anyio import to_thread

from perijove.spawners.contract import Phase
from perijove.spawners.local import LocalSpawner
from tests import beds
from tests.contract.spawners.sites import (
    NAME,
    SECRET,
    AliceSpawner,
    SystemSite,
    answers,
    eventually,
    make_spec,
    phase,
    recorded,
    server_of,
    supervisors_of,
)
from tests.contract.spawners.test_singleuser import PREFIX, hub, make_order

__all__ = ["hub"]

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.needs("root", "users"),
    pytest.mark.timeout(120),
]

SQUAT = """
import socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
    print("listening", flush=True)
    server.settimeout(60)
    client, _ = server.accept()
    print(client.recv(65536))
"""

FETCH = """
import http.client, sys, urllib.parse
url = urllib.parse.urlsplit(sys.argv[1])
connection = http.client.HTTPConnection(url.netloc, timeout=20)
connection.request("GET", url.path)
print(connection.getresponse().status)
"""


async def test_files_of_one_are_closed_to_the_other(
    alice: AliceSpawner, system_site: SystemSite
) -> None:
    """bob can neither list where launches are nor open anything of alice's, name known or not."""
    await alice.start(make_spec(), recorded)
    await phase(alice, NAME, Phase.RUNNING)
    (folder,) = system_site.launches.iterdir()
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files

    for command in (
        ["ls", str(system_site.launches)],
        ["ls", str(folder)],
        ["ls", str(folder / NAME)],
        *(["cat", str(file)] for file in files),
        ["mv", str(folder), str(folder.with_name("mine"))],
        ["rm", "-rf", str(folder)],
        ["touch", str(folder / NAME / "cancelled")],
    ):
        tried = beds.run_as("bob", *command)
        assert tried.returncode != 0, command
        assert tried.stdout == "", command
    assert (await phase(alice, NAME, Phase.RUNNING)).url


async def test_token_of_one_is_nowhere_for_the_other(alice: AliceSpawner) -> None:
    """Neither environments nor command lines of alice's processes tell bob her token."""
    await alice.start(make_spec(), recorded)
    await phase(alice, NAME, Phase.RUNNING)
    processes = [server_of(NAME), *supervisors_of(NAME)]
    for process in processes:
        for file in ("environ", "mem", "fd", "cwd"):
            tried = beds.run_as(
                "bob", "ls" if file == "fd" else "cat", f"/proc/{process.pid}/{file}"
            )
            assert tried.returncode != 0
            assert SECRET not in tried.stdout
        assert SECRET not in " ".join(process.cmdline())
        assert beds.run_as("bob", "kill", str(process.pid)).returncode != 0
    seen = beds.run_as("bob", "sh", "-c", "ps axeww; grep -saF -e $0 /proc/[0-9]*/environ", SECRET)
    assert f"A_TOKEN={SECRET}" not in seen.stdout.replace("JUPYTERHUB_API", "A")


async def test_folder_of_one_cannot_be_taken_by_the_other(system_site: SystemSite) -> None:
    """bob cannot make the directory that alice will need: its name cannot be guessed."""
    uid = pwd.getpwnam("alice").pw_uid
    for guess in (str(uid), f"{uid}-", f"{uid}-{'0' * 32}", "alice"):
        beds.run_as("bob", "mkdir", "-m", "777", str(system_site.launches / guess))

    async with system_site.spawner() as spawner:
        await spawner.start(make_spec(), recorded)
        await answers(await phase(spawner, NAME, Phase.RUNNING))

    own = [path for path in system_site.launches.iterdir() if path.stat().st_uid == uid]
    assert len(own) == 1


@pytest.fixture
def squatter() -> Iterator[list[subprocess.Popen[str]]]:
    """Give a list for processes that end with the test."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _listen(account: str, port: str) -> subprocess.Popen[str]:
    """Return a process of an account that listens at a port and prints what it is sent."""
    entry = pwd.getpwnam(account)
    process = subprocess.Popen(
        ["/usr/bin/python3", "-c", SQUAT, port],
        user=entry.pw_uid,
        group=entry.pw_gid,
        extra_groups=[],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "listening\n"
    return process


async def test_port_of_one_taken_by_the_other_is_noticed(
    alice: AliceSpawner, squatter: list[subprocess.Popen[str]]
) -> None:
    """When alice's server is gone and bob listens at its port, that is not alice's server."""
    await alice.start(make_spec(), recorded)
    sighting = await phase(alice, NAME, Phase.RUNNING)
    await answers(sighting)
    assert await alice.owns_listener(NAME, sighting.handle, sighting.url) is True
    port = sighting.url.rpartition(":")[2]
    (supervisor,) = supervisors_of(NAME)
    supervisor.send_signal(signal.SIGSTOP)  # The launch still counts as alive.
    try:
        server_of(NAME).kill()
        squatter.append(await to_thread.run_sync(_listen, "bob", port))

        found = await phase(alice, NAME, Phase.RUNNING)
        owns = await alice.owns_listener(NAME, found.handle, sighting.url)
    finally:
        supervisor.send_signal(signal.SIGCONT)

    assert owns is False

    async def has_moved() -> bool:
        return (await phase(alice, NAME, Phase.RUNNING)).url != sighting.url

    assert await eventually(has_moved)  # The supervisor lets bob have the port.
    moved = await phase(alice, NAME, Phase.RUNNING)
    await answers(moved)
    assert await alice.owns_listener(NAME, None, moved.url) is True
    assert await alice.owns_listener(NAME, None, sighting.url) is False
    squatter[0].kill()
    assert squatter[0].communicate()[0] == ""  # Nobody has sent it anything.


async def test_another_server_of_the_same_person_is_not_the_launchs(
    alice: AliceSpawner, squatter: list[subprocess.Popen[str]]
) -> None:
    """What alice herself runs at some port is no server that the hub started for her."""
    await alice.start(make_spec(), recorded)
    await phase(alice, NAME, Phase.RUNNING)
    squatter.append(await to_thread.run_sync(_listen, "alice", "0"))
    (listening,) = psutil.Process(squatter[0].pid).net_connections("tcp")

    url = f"http://127.0.0.1:{listening.laddr.port}"

    assert await alice.owns_listener(NAME, None, url) is False


async def test_server_of_one_lets_the_other_not_in(alice: AliceSpawner, hub: str) -> None:
    """A connection that bob makes to alice's server ends at the sign-in."""
    command = Path(os.environ["PERIJOVE_TEST_JOB_SINGLEUSER"], "bin/jupyterhub-singleuser")
    order = replace(make_order(str(command), hub), user_name="alice")
    await LocalSpawner.start(alice, order, recorded)
    sighting = await phase(alice, NAME, Phase.RUNNING)

    async def is_up() -> bool:
        async with httpx2.AsyncClient() as client:
            try:
                return (await client.get(f"{sighting.url}{PREFIX}api")).status_code == 200
            except httpx2.TransportError:
                return False

    assert await eventually(is_up) or await eventually(is_up)
    for path in ("api/contents", "api/terminals", "lab", "api/kernels"):
        tried = beds.run_as("bob", "/usr/bin/python3", "-c", FETCH, f"{sighting.url}{PREFIX}{path}")
        assert tried.stdout.strip() in {"302", "403"}, (path, tried)
