"""Volumes on a Docker engine: whose they are, and that what is on them stays."""

import json
from typing import Any

import pytest

from perijove.domain.errors import SpawnerRejected
from perijove.kit.ids import platform_name
from perijove.spawners.contract import Phase, VolumeSpec
from perijove.spawners.docker import DockerSpawner
from tests.contract.spawners.docker_site import DockerSite, docker
from tests.contract.spawners.sites import NAME, answers, eventually, phase, recorded
from tests.integration.docker.conftest import inside, order

pytestmark = [pytest.mark.anyio, pytest.mark.needs("docker"), pytest.mark.timeout(120)]


async def test_what_is_written_stays_until_it_is_removed(spawner: DockerSpawner) -> None:
    """A server writes where the image has no directory; the next one finds it; removed, gone."""
    volume = VolumeSpec(name=platform_name("volume"), path="/data/deep")
    names = [platform_name("launch") for _ in range(3)]
    await spawner.start(order(names[0], volumes=[volume]), recorded)
    await answers(await phase(spawner, names[0], Phase.RUNNING))
    inside(names[0], "sh", "-c", "echo kept > /data/deep/file")
    await spawner.stop(names[0], None, grace=5)

    await spawner.start(order(names[1], volumes=[volume]), recorded)
    await phase(spawner, names[1], Phase.RUNNING)
    assert inside(names[1], "cat", "/data/deep/file") == "kept"
    await spawner.stop(names[1], None, grace=5)
    assert await eventually(lambda: spawner.remove_volume(volume.name))

    await spawner.start(order(names[2], volumes=[volume]), recorded)
    await phase(spawner, names[2], Phase.RUNNING)
    assert inside(names[2], "ls", "/data/deep") == ""


async def test_use_is_measured(spawner: DockerSpawner) -> None:
    """What is on a volume is told in bytes, and who has it."""
    volume = VolumeSpec(name=platform_name("volume"), path="/home/jovyan")
    await spawner.start(order(volumes=[volume]), recorded)
    await phase(spawner, NAME, Phase.RUNNING)
    inside(NAME, "dd", "if=/dev/zero", "of=/home/jovyan/zeros", "bs=1M", "count=3")

    (seen,) = (await spawner.survey_volumes()).volumes

    assert seen.name == volume.name
    assert list(seen.held_by) == [NAME]
    assert seen.used_bytes is not None
    assert 3 * 2**20 <= seen.used_bytes < 4 * 2**20


async def test_a_strangers_volume_is_not_used(spawner: DockerSpawner) -> None:
    """A volume that this hub has not made is neither mounted nor removed, whatever its name."""
    volume = VolumeSpec(name=platform_name("stranger"), path="/data")
    docker("volume", "create", volume.name)
    try:
        with pytest.raises(SpawnerRejected) as refused:
            await spawner.start(order(volumes=[volume]), recorded)
        assert refused.value.code == "volume-failed"
        assert await spawner.remove_volume(volume.name) is False
        assert docker("volume", "ls", "--quiet", "--filter", f"name={volume.name}")
    finally:
        docker("volume", "rm", volume.name)


async def test_a_full_volume_starts_all_the_same(site: DockerSite) -> None:
    """A server whose volume can hold nothing more starts, with a place of its own elsewhere."""
    full = {"type": "tmpfs", "device": "tmpfs", "o": "size=2m,uid=1000"}
    volume = VolumeSpec(name=platform_name("volume"), path="/home/jovyan")
    second = platform_name("second")
    async with site.place(DockerSpawner, volume_options=full) as spawner:
        await spawner.start(order(volumes=[volume]), recorded)
        before = json.loads(await answers(await phase(spawner, NAME, Phase.RUNNING)))
        with pytest.raises(AssertionError, match="No space left"):
            inside(NAME, "dd", "if=/dev/zero", "of=/home/jovyan/zeros", "bs=64K")
        await spawner.start(order(second, volumes=[volume]), recorded)
        after = json.loads(await answers(await phase(spawner, second, Phase.RUNNING)))

    assert "JUPYTER_RUNTIME_DIR" not in before
    assert not after["JUPYTER_RUNTIME_DIR"].startswith("/home/jovyan")


async def test_an_environment_is_a_kernel_in_the_next_container(spawner: DockerSpawner) -> None:
    """Made in one container on its volume, the next one offers it, with its own Python."""
    volume = VolumeSpec(name=platform_name("volume"), path="/data")
    place = "/data/.perijove/environments"
    kernel = f"{place}/share/jupyter/kernels/env-mine/kernel.json"
    given: dict[str, Any] = {"environment": {"PERIJOVE_ENVIRONMENTS": place}, "volumes": [volume]}
    names = [platform_name("launch") for _ in range(2)]
    await spawner.start(order(names[0], **given), recorded)
    await answers(await phase(spawner, names[0], Phase.RUNNING))
    make = f"python3 -m venv --without-pip {place}/envs/mine && cd {place}/envs/mine"
    inside(names[0], "sh", "-c", f"{make} && cd lib/python3*/site-packages && mkdir ipykernel")

    async def is_offered() -> bool:
        return inside(names[0], "sh", "-c", f"ls {kernel} || true") == kernel

    # The hub of this launch is silent: its environments are looked for all the same.
    assert await eventually(is_offered)
    await spawner.stop(names[0], None, grace=5)

    await spawner.start(order(names[1], **given), recorded)
    told = json.loads(await answers(await phase(spawner, names[1], Phase.RUNNING)))
    assert told["JUPYTER_PATH"] == f"{place}/share/jupyter"
    python = json.loads(inside(names[1], "cat", kernel))["argv"][0]
    assert inside(names[1], python, "-c", "import sys; print(sys.prefix)") == f"{place}/envs/mine"
