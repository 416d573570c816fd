"""Images are fetched while the launch says so, and what cannot be fetched is said at once."""

import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from perijove.domain.errors import SpawnerPending, SpawnerRejected
from perijove.domain.launch import Cause
from perijove.kit.ids import platform_name
from perijove.spawners.contract import LaunchSpec, Phase, Sighting
from perijove.spawners.docker import DockerSpawner
from tests.contract.spawners.docker_site import DockerSite
from tests.contract.spawners.sites import NAME, eventually, find, recorded
from tests.integration.docker.conftest import inspected, order
from tests.integration.docker.registry import LOGIN, Registry

pytestmark = [pytest.mark.anyio, pytest.mark.needs("docker"), pytest.mark.timeout(120)]


@pytest.fixture
async def spawner(site: DockerSite, registry: Registry) -> AsyncIterator[DockerSpawner]:
    """Give an entered spawner, which lets go of the engine before the images are removed."""
    async with site.place(DockerSpawner) as spawner:
        yield spawner


async def pending(spawner: DockerSpawner, spec: LaunchSpec) -> SpawnerPending:
    """Start, and return what it says that is being prepared."""
    with pytest.raises(SpawnerPending) as said:
        await spawner.start(spec, recorded)
    return said.value


async def started(spawner: DockerSpawner, spec: LaunchSpec) -> Sighting:
    """Start as the core does: again and again, as long as the spawner says that it prepares."""
    with anyio.fail_after(60):
        while True:
            try:
                return await spawner.start(spec, recorded)
            except SpawnerPending:
                await anyio.sleep(0.05)


async def test_progress_is_told_and_a_new_hub_goes_on(site: DockerSite, registry: Registry) -> None:
    """While it is fetched a start says so and how far it is, also one of a hub that came later."""
    registry.gate.clear()
    spec = order(image=registry.push("test/slow:1"))
    async with site.place(DockerSpawner) as spawner:
        said = await pending(spawner, spec)
        assert (said.code, said.params["image"]) == ("pulling-image", spec.image)
        assert "since" in said.params

        async def is_under_way() -> bool:
            return 0 < int(str((await pending(spawner, spec)).params.get("percent", 0))) < 100

        assert await eventually(is_under_way)
        assert await find(spawner, NAME) is None

    async with site.place(DockerSpawner) as spawner:
        assert (await pending(spawner, spec)).code == "pulling-image"
        registry.gate.set()
        seen = await started(spawner, spec)

    # There is nothing in the image that could be run, and the engine says so.
    assert seen.phase is Phase.GONE
    assert seen.end is not None
    assert seen.end.cause is Cause.NEVER_STARTED
    assert inspected()["Config"]["Image"] == spec.image


async def test_many_who_wait_are_one_pull(spawner: DockerSpawner, registry: Registry) -> None:
    """A class that starts at once fetches its image once."""
    image = registry.push("test/class:1")
    async with anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(started, spawner, order(f"{NAME}-{number}", image=image))

    assert spawner.calls()["pull"] == 1


@pytest.mark.parametrize(("strict", "code"), [(False, "image-not-found"), (True, "image-denied")])
async def test_what_cannot_be_fetched_is_not_waited_for(
    spawner: DockerSpawner, registry: Registry, strict: bool, code: str
) -> None:
    """An image that is not there, or that the site may not have, ends the start at once."""
    registry.is_strict = strict
    with pytest.raises(SpawnerRejected) as refused:
        await started(spawner, order(image=f"{registry.host}/test/nothing:1"))

    assert refused.value.code == code
    assert spawner.calls()["pull"] == 1


async def test_a_later_launch_tries_anew(spawner: DockerSpawner, registry: Registry) -> None:
    """What failed for one launch is no answer to the next: the image may be there by now."""
    image = f"{registry.host}/test/late:1"
    with pytest.raises(SpawnerRejected):
        await started(spawner, order(image=image))
    registry.push("test/late:1")

    await started(spawner, order(platform_name("later"), image=image))

    assert spawner.calls()["pull"] == 2


async def test_credentials_are_shown_to_their_registry(
    site: DockerSite, registry: Registry, tmp_path: Path
) -> None:
    """With a login from a file that only the hub can read, a private image is fetched."""
    credentials = tmp_path / "credentials.json"
    credentials.write_text(json.dumps({"auths": {registry.host: {"auth": LOGIN}}}))
    credentials.chmod(0o600)
    registry.is_strict = True
    image = registry.push("test/private:1")
    async with site.place(DockerSpawner, credentials=credentials) as spawner:
        await started(spawner, order(image=image))

    assert LOGIN not in json.dumps(inspected())


async def test_a_registry_that_is_away_is_tried_again(site: DockerSite) -> None:
    """Trouble on the way is said and tried again, until the time for it is over."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        image = f"127.0.0.1:{closed.getsockname()[1]}/test/away:1"
    async with site.place(DockerSpawner, pull_limit=3) as spawner:

        async def is_failing() -> bool:
            said = await pending(spawner, order(image=image))
            return said.code == "image-pull-failing" and "refused" in str(said)

        assert await eventually(is_failing)
        with pytest.raises(SpawnerRejected) as refused:
            await started(spawner, order(image=image))

    assert refused.value.code == "image-pull-failed"
    assert spawner.calls()["pull"] > 1


async def test_never_means_never(site: DockerSite, registry: Registry) -> None:
    """Where nothing is to be fetched, an image that is not there is not asked for."""
    image = registry.push("test/there:1")
    async with site.place(DockerSpawner, pull="never") as spawner:
        with pytest.raises(SpawnerRejected) as refused:
            await spawner.start(order(image=image), recorded)
        await spawner.start(order(image=os.environ["PERIJOVE_TEST_IMAGE_NULL"]), recorded)

    assert refused.value.code == "image-not-found"
    assert not registry.asked


async def test_always_has_what_the_tag_names_now(site: DockerSite, registry: Registry) -> None:
    """An image that was pushed anew under its tag is fetched for the next launch."""
    used = []
    for seed in (1, 2):
        image = registry.push("test/moves:1", seed=seed)
        async with site.place(DockerSpawner, pull="always") as spawner:
            name = platform_name("always")
            await started(spawner, order(name, image=image))
            used.append(inspected(name)["Image"])

    assert used[0] != used[1]
