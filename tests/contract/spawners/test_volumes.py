"""What `KeepsVolumes` promises, on every platform that keeps some (failure 5.17)."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from perijove.kit.ids import platform_name
from perijove.spawners.contract import KeepsVolumes, LaunchSpec, Phase, VolumeSighting, VolumeSpec
from tests.contract.spawners.conftest import DOCKER, KUBERNETES
from tests.contract.spawners.sites import eventually, make_spec, phase, recorded

pytestmark = pytest.mark.anyio

KEEPERS: list[Any] = ["memory_site", DOCKER, KUBERNETES]
"""Fixtures of the sites whose spawner keeps volumes."""
SIZE = 2**20


@pytest.fixture(params=KEEPERS)
def keeper(request: pytest.FixtureRequest) -> Any:
    """Give each platform that keeps volumes in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture
async def spawner(keeper: Any) -> AsyncIterator[Any]:
    """Give an entered spawner on it."""
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(keeper.spawner())


def _launch(volume: VolumeSpec) -> LaunchSpec:
    return make_spec(platform_name("inst"), volumes=[volume])


def _volume() -> VolumeSpec:
    return VolumeSpec(
        name=platform_name("inst"),
        path="/home/jovyan",
        size_bytes=SIZE,
        labels={"user": "ann", "server": "lab"},
    )


def _keeps_volumes(spawner: object) -> bool:
    return isinstance(spawner, KeepsVolumes)


async def _find(spawner: Any, name: str) -> VolumeSighting | None:
    survey = await spawner.survey_volumes()
    assert survey.complete
    found = [one for one in survey.volumes if one.name == name]
    assert len(found) <= 1
    return found[0] if found else None


async def _is_removed(spawner: Any, name: str) -> bool:
    return await eventually(lambda: spawner.remove_volume(name))


async def test_a_volume_outlives_its_launch(spawner: Any) -> None:
    """It is made at the first start, found by the next, and there is only one."""
    assert _keeps_volumes(spawner)
    volume = _volume()
    for _ in range(2):
        spec = _launch(volume)
        await spawner.start(spec, recorded)
        await phase(spawner, spec.name, Phase.RUNNING)
        seen = await _find(spawner, volume.name)
        assert seen is not None
        assert spec.name in seen.held_by
        await spawner.stop(spec.name, None, grace=0)
        seen = await _find(spawner, volume.name)
        assert seen is not None
        assert not seen.held_by
    assert await _is_removed(spawner, volume.name)


async def test_a_volume_in_use_is_not_removed(keeper: Any, spawner: Any) -> None:
    """Removal waits for who has it; afterwards the platform itself has nothing of it left."""
    volume = _volume()
    spec = _launch(volume)
    await spawner.start(spec, recorded)
    await phase(spawner, spec.name, Phase.RUNNING)
    assert await spawner.remove_volume(volume.name) is False
    await spawner.stop(spec.name, None, grace=0)
    assert keeper.has_volume(volume.name)

    async def is_gone() -> bool:
        return not keeper.has_volume(volume.name)

    assert await _is_removed(spawner, volume.name)
    assert await _find(spawner, volume.name) is None
    assert await spawner.remove_volume(volume.name) is True
    assert await eventually(is_gone)


async def test_only_what_is_ours_is_seen_and_removed(keeper: Any, spawner: Any) -> None:
    """Another installation on the same platform neither sees a volume nor takes it away."""
    volume = _volume()
    spec = _launch(volume)
    await spawner.start(spec, recorded)
    await phase(spawner, spec.name, Phase.RUNNING)
    await spawner.stop(spec.name, None, grace=0)
    async with keeper.spawner("other") as stranger:
        assert await _find(stranger, volume.name) is None
        await stranger.remove_volume(volume.name)
    assert await _find(spawner, volume.name) is not None
    assert await _is_removed(spawner, volume.name)


async def test_what_is_known_of_a_volume_is_told(keeper: Any, spawner: Any) -> None:
    """Its size where that is enforced, its use where that is measured, and nothing made up."""
    volume = _volume()
    spec = _launch(volume)
    await spawner.start(spec, recorded)
    await phase(spawner, spec.name, Phase.RUNNING)
    async with keeper.spawner() as later:  # It has not measured yet, so it does so now.
        seen = await _find(later, volume.name)
    await spawner.stop(spec.name, None, grace=0)
    assert await _is_removed(spawner, volume.name)

    assert seen is not None
    if spawner.enforces_size():
        assert seen.size_bytes is not None
        assert seen.size_bytes >= SIZE
    else:
        assert seen.size_bytes is None
    assert (seen.used_bytes is not None) is spawner.measures_use()
    assert seen.labels.get("user") == "ann"
