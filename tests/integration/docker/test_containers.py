"""What a container of the Docker spawner may do, how it ends, and what is written on it."""

import json
import os
import pwd
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from perijove.domain.errors import SpawnerRejected
from perijove.domain.launch import Cause, End, Resources
from perijove.kit.ids import platform_name
from perijove.spawners.contract import Phase
from perijove.spawners.docker import DockerSpawner
from perijove.spawners.docker.labels import INSTALLATION, LAUNCH, SPAWNER
from tests.contract.spawners.docker_site import DockerSite, docker
from tests.contract.spawners.sites import (
    NAME,
    SECRET,
    answers,
    eventually,
    find,
    phase,
    recorded,
)
from tests.integration.docker.conftest import CONNECT, inside, inspected, order

pytestmark = [pytest.mark.anyio, pytest.mark.needs("docker"), pytest.mark.timeout(180)]

MIB = 2**20


class _Hub(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"the hub")

    def log_message(self, *args: object) -> None:
        pass


def connects(name: str, host: str, port: int) -> bool:
    """Tell whether something in a container can connect to an address."""
    return inside(name, "python3", "-c", CONNECT, host, str(port)) == "connected"


# How it ends


async def test_exit_is_told_with_its_status_and_last_words(spawner: DockerSpawner) -> None:
    """A server that ends by itself is gone with its status; its log outlives its container."""
    await spawner.start(order(mode="exit-3"), recorded)
    gone = await phase(spawner, NAME, Phase.GONE)
    before = await spawner.log_tail(NAME, gone.handle, lines=2)
    await spawner.stop(NAME, None, grace=0)

    assert gone.end == End(cause=Cause.EXITED, code=3)
    assert before.splitlines()[-1] == "the last line"
    assert await spawner.log_tail(NAME, gone.handle, lines=2) == before


async def test_out_of_memory_is_told(spawner: DockerSpawner) -> None:
    """A server that wants more memory than it asked for is killed, and that is why."""
    greedy = ["python3", "-c", "b = bytearray(10**9)"]
    resources = Resources(memory_bytes=48 * MIB)
    await spawner.start(order(command=greedy, resources=resources), recorded)

    gone = await phase(spawner, NAME, Phase.GONE)

    assert gone.end is not None
    assert gone.end.cause is Cause.OUT_OF_MEMORY


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"command": ["/nosuch"], "platform": {"entrypoint": []}}, "command-missing"),
        ({"resources": Resources(gpu=1)}, "over-gpu"),
        ({"platform": {"network": "nosuch"}}, "config-missing"),
    ],
)
async def test_what_the_engine_cannot_start_never_started(
    spawner: DockerSpawner, changes: dict[str, Any], code: str
) -> None:
    """A container that the engine cannot run says why, in its answer and in every survey."""
    seen = await spawner.start(order(**changes), recorded)
    again = await find(spawner, NAME)

    for each in (seen, again):
        assert each is not None
        assert each.end is not None
        assert (each.end.cause, each.end.reason) == (Cause.NEVER_STARTED, code)
        assert each.end.detail


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"resources": Resources(cpu=10_000)}, "over-cpu"),
        ({"platform": {"mounts": [{"source": "/no/such", "target": "/a"}]}}, "volume-missing"),
        ({"platform": {"runtime": "nosuch"}}, "config-missing"),
        ({"platform": {"nosuch": 1}}, "container-refused"),
        ({"image": "Not An Image"}, "image-invalid"),
    ],
)
async def test_what_the_engine_refuses_is_rejected(
    spawner: DockerSpawner, changes: dict[str, Any], code: str
) -> None:
    """A container that the engine does not make is refused for good, and nothing is left."""
    with pytest.raises(SpawnerRejected) as refused:
        await spawner.start(order(**changes), recorded)

    assert refused.value.code == code
    assert await find(spawner, NAME) is None


async def test_paused_is_not_gone(spawner: DockerSpawner) -> None:
    """A container that somebody paused is suspended, and can be stopped."""
    await spawner.start(order(), recorded)
    await phase(spawner, NAME, Phase.RUNNING)
    docker("pause", NAME)

    await phase(spawner, NAME, Phase.SUSPENDED)

    assert await spawner.stop(NAME, None, grace=1) is not None
    assert await find(spawner, NAME) is None


async def test_what_another_made_is_left_alone(spawner: DockerSpawner, site: DockerSite) -> None:
    """A stranger's container of the launch's name is neither taken for it nor removed."""
    docker("create", "--name", NAME, os.environ["PERIJOVE_TEST_IMAGE_NULL"])
    try:
        with pytest.raises(SpawnerRejected):
            await spawner.start(order(), recorded)
        assert await spawner.stop(NAME, None, grace=0) is None
        assert inspected()["State"]["Status"] == "created"
    finally:
        docker("rm", "--force", NAME)


# What is written on it


async def test_labels_say_whose_it_is_and_no_secret(
    spawner: DockerSpawner, site: DockerSite
) -> None:
    """Labels find it again and tell people about it; a secret is in its environment only."""
    labels = {"user": "ann\n\x1b[31m", "server": "x" * 1000}
    await spawner.start(order(labels=labels), recorded)

    found = inspected()
    written = found["Config"]["Labels"]
    environment = found["Config"].pop("Env")

    assert written[INSTALLATION] == site.own()
    assert (written[SPAWNER], written[LAUNCH]) == ("docker", f"lch_{NAME}")
    assert written["perijove.org/user"] == "ann[31m"
    assert len(written["perijove.org/server"]) < 200
    assert any(SECRET in each for each in environment)
    assert SECRET not in json.dumps(found)
    assert SECRET not in docker("ps", "--all", "--no-trunc", "--format", "{{json .}}")


async def test_two_sections_on_one_engine_do_not_meet(site: DockerSite) -> None:
    """Several spawners of one hub may use one engine: each sees and stops its own."""
    async with (
        site.place(DockerSpawner, section="one") as one,
        site.place(DockerSpawner, section="two") as two,
    ):
        await one.start(order(), recorded)

        assert await find(two, NAME) is None
        assert await two.stop(NAME, None, grace=0) is None
        await answers(await phase(one, NAME, Phase.RUNNING))


async def test_one_that_no_record_knows_is_seen_and_can_be_removed(
    spawner: DockerSpawner, site: DockerSite
) -> None:
    """What carries our labels is in the survey, whoever made it: the core sweeps it up by that."""
    labels = {INSTALLATION: site.own(), SPAWNER: "docker", "perijove.org/port": "8888"}
    words = [f"--label={key}={value}" for key, value in labels.items()]
    name = platform_name("orphan")
    docker("run", "--detach", "--name", name, *words, os.environ["PERIJOVE_TEST_IMAGE_NULL"])

    seen = await phase(spawner, name, Phase.RUNNING)
    await spawner.stop(name, seen.handle, grace=0)

    assert await find(spawner, name) is None


# What it may do


async def test_limits_are_the_engines(site: DockerSite) -> None:
    """What was asked for is what it can have, and nobody gets more rights than they need."""
    async with site.place(
        DockerSpawner, log_limit="1 MiB", processes_limit=77, shm_size="128 MiB"
    ) as spawner:
        resources = Resources(cpu=0.5, memory_bytes=64 * MIB)
        await spawner.start(order(resources=resources), recorded)
        await phase(spawner, NAME, Phase.RUNNING)

        host = inspected()["HostConfig"]
        status = inside(NAME, "cat", "/proc/self/status")

    assert (host["NanoCpus"], host["Memory"], host["MemorySwap"]) == (5 * 10**8, *[64 * MIB] * 2)
    assert (host["PidsLimit"], host["ShmSize"]) == (77, 128 * MIB)
    assert host["LogConfig"]["Config"] == {"max-size": str(MIB // 2), "max-file": "2"}
    assert (host["RestartPolicy"]["Name"], host["Privileged"]) == ("no", False)
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status


async def test_profile_is_laid_over_the_section(site: DockerSite) -> None:
    """What a profile says replaces what the section says; the rest of the section stays."""
    async with site.place(
        DockerSpawner, environment={"A": "section"}, extra_hosts=["hub:10.0.0.1"]
    ) as spawner:
        platform = {"environment": {"B": "profile"}, "user": "1234:5678", "read_only": True}
        await spawner.start(order(platform=platform), recorded)
        served = json.loads(await answers(await phase(spawner, NAME, Phase.RUNNING)))

        assert (served.get("A"), served.get("B")) == (None, "profile")
        assert inside(NAME, "id", "-u") == "1234"
        assert "10.0.0.1" in inside(NAME, "cat", "/etc/hosts")
        inside(NAME, "touch", "/tmp/yes")
        with pytest.raises(AssertionError, match="Read-only"):
            inside(NAME, "touch", "/home/jovyan/no")


@pytest.mark.needs("users")
async def test_server_runs_as_its_persons_account(site: DockerSite) -> None:
    """With system accounts, a server has its person's ids, so that shared files are theirs."""
    entry = pwd.getpwnam("alice")
    async with site.place(DockerSpawner, user="system", system_accounts=True) as spawner:
        await spawner.start(order(user_name="alice"), recorded)
        await phase(spawner, NAME, Phase.RUNNING)

        ids = inside(NAME, "sh", "-c", "id -u; id -g")
        with pytest.raises(SpawnerRejected) as refused:
            await spawner.start(order(platform_name("root"), user_name="root"), recorded)

    assert ids.split() == [str(entry.pw_uid), str(entry.pw_gid)]
    assert refused.value.code == "account-refused"


async def test_mounts_are_found_by_the_persons_name(site: DockerSite) -> None:
    """A template leads to the person's own directory; a name that leads elsewhere is refused."""
    for name in ("ann", "bob"):
        folder = site.data_dir / "shared" / name
        folder.mkdir(parents=True)
        (folder / "whose").write_text(name)
    mounts = [{"source": f"{site.data_dir}/shared/{{user}}", "target": "/shared"}]
    async with site.place(DockerSpawner, mounts=mounts) as spawner:
        await spawner.start(order(), recorded)
        await phase(spawner, NAME, Phase.RUNNING)

        assert inside(NAME, "cat", "/shared/whose") == "ann"
        with pytest.raises(AssertionError, match="Read-only"):
            inside(NAME, "touch", "/shared/mine")
        for hostile in ("..", "a/../bob", "", ".", "bob/.", "ann:rw"):
            other = order(platform_name("hostile"), user_name=hostile)
            if hostile:
                with pytest.raises(SpawnerRejected):
                    await spawner.start(other, recorded)


# Whom it can reach


@pytest.mark.parametrize("network", ["own", "per-user"])
async def test_people_cannot_reach_each_others_containers(site: DockerSite, network: str) -> None:
    """From inside bob's container nobody answers at ann's address; the hub's machine is there."""
    bobs = platform_name("bob")
    async with site.place(DockerSpawner, network=network) as spawner:
        await spawner.start(order(), recorded)
        await spawner.start(order(bobs, user_name="bob"), recorded)
        ann, bob = [await phase(spawner, name, Phase.RUNNING) for name in (NAME, bobs)]
        for each in (ann, bob):
            await answers(each)  # This machine reaches both.
        hosts = [str(each.url).removeprefix("http://").partition(":")[0] for each in (ann, bob)]

        assert connects(bobs, hosts[1], 8888)
        assert not connects(bobs, hosts[0], 8888)
        assert not connects(NAME, hosts[1], 8888)

    (inner,) = inspected(bobs)["NetworkSettings"]["Networks"].values()
    with ThreadingHTTPServer((inner["Gateway"], 0), _Hub) as hub:
        Thread(target=hub.serve_forever, args=(0.01,), daemon=True).start()
        assert connects(bobs, inner["Gateway"], hub.server_port)
        hub.shutdown()


async def test_a_person_reaches_their_own(site: DockerSite) -> None:
    """In a network of one's own, one's servers reach each other: the check above can fail."""
    second = platform_name("second")
    async with site.place(DockerSpawner, network="per-user") as spawner:
        await spawner.start(order(), recorded)
        await spawner.start(order(second), recorded)
        first = await phase(spawner, NAME, Phase.RUNNING)
        await answers(first)

        assert connects(second, first.url.removeprefix("http://").partition(":")[0], 8888)


async def test_published_port_is_where_it_is_said(site: DockerSite) -> None:
    """Where hub and proxy cannot reach containers, each has a port of the engine's machine."""
    async with site.place(DockerSpawner, publish="127.0.0.1") as spawner:
        await spawner.start(order(), recorded)
        running = await phase(spawner, NAME, Phase.RUNNING)

        assert running.url.startswith("http://127.0.0.1:")
        await answers(running)


async def test_networks_of_people_without_a_container_go(site: DockerSite) -> None:
    """A network of one's own stays while one has a container, and is tidied away afterwards."""
    joined = platform_name("hub")
    label = f"label={INSTALLATION}={site.own()}"
    listing = ("network", "ls", "--quiet", "--filter", label)
    words = ("--name", joined, f"--label={INSTALLATION}={site.own()}", f"--label={SPAWNER}=none")
    site.sections.add("none")
    docker("run", "--detach", *words, os.environ["PERIJOVE_TEST_IMAGE_NULL"])
    async with site.place(DockerSpawner, network="per-user", join=[joined]) as spawner:
        await spawner.start(order(), recorded)
        await phase(spawner, NAME, Phase.RUNNING)
        assert connects(joined, *_place(NAME))
    async with site.place(DockerSpawner, network="per-user", join=[joined]) as spawner:
        (network,) = docker(*listing).split()
        docker("network", "disconnect", network, joined)  # as if it had been made anew
        await spawner.survey()
        assert connects(joined, *_place(NAME))
        assert len(docker(*listing).split()) == 1
        await spawner.stop(NAME, None, grace=0)

    async with site.place(DockerSpawner, network="per-user", join=[joined]) as spawner:

        async def none_is_left() -> bool:
            await spawner.survey()
            return not docker(*listing).split()

        assert await eventually(none_is_left)


def _place(name: str) -> tuple[str, int]:
    (network,) = inspected(name)["NetworkSettings"]["Networks"].values()
    return network["IPAddress"], 8888
