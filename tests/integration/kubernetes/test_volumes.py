"""Volumes on a real cluster: made at their first use, kept, and removed on request only."""

import pytest

from perijove.domain.errors import SpawnerRejected
from perijove.spawners.contract import KeepsVolumes, Phase, VolumeSighting, VolumeSpec
from perijove.spawners.kubernetes.spawner import KubernetesSpawner
from tests.contract.spawners.kubernetes_site import KubernetesSite, kubectl
from tests.contract.spawners.sites import NAME, eventually, phase, recorded
from tests.integration.kubernetes.conftest import order, python

pytestmark = [pytest.mark.anyio, pytest.mark.needs("kubernetes")]

APPEND = """
with open("/home/jovyan/data/note", "a+") as note:
    note.write("kept ")
    note.seek(0)
    print(note.read())
"""
HOME = VolumeSpec(
    name=f"{NAME}-home", path="/home/jovyan/data", size_bytes=2**20, labels={"user": "A/b c"}
)


async def test_volume_is_kept_until_it_is_removed(spawner: KubernetesSpawner) -> None:
    """What a launch writes the next one reads; a volume in use stays, one that is not goes."""
    assert isinstance(spawner, KeepsVolumes)
    for name in (f"{NAME}-1", f"{NAME}-2"):
        await spawner.start(order(name, command=python(APPEND), volumes=[HOME]), recorded)
        await phase(spawner, name, Phase.GONE)
        said = await spawner.log_tail(name, None, lines=1)
        await spawner.stop(name, None, grace=1)
    await spawner.start(order(f"{NAME}-3", volumes=[HOME]), recorded)
    await phase(spawner, f"{NAME}-3", Phase.RUNNING)

    used = await spawner.survey_volumes()
    while_used = await spawner.remove_volume(HOME.name)
    await spawner.stop(f"{NAME}-3", None, grace=1)
    unused = await spawner.survey_volumes()

    async def is_removed() -> bool:
        return await spawner.remove_volume(HOME.name)

    assert said.split() == ["kept", "kept"]
    seen = VolumeSighting(
        name=HOME.name, size_bytes=2**20, held_by=(f"{NAME}-3",), labels={"user": "A/b c"}
    )
    assert (used.complete, list(used.volumes)) == (True, [seen])
    assert not while_used
    assert [volume.held_by for volume in unused.volumes] == [()]
    assert await eventually(is_removed)
    assert not (await spawner.survey_volumes()).volumes


async def test_size_is_told_where_it_is_enforced_only(site: KubernetesSite) -> None:
    """Where storage does not keep to sizes, none is said to be kept to."""
    async with site.place(KubernetesSpawner, storage_enforced=False) as spawner:
        await spawner.start(order(volumes=[HOME]), recorded)
        survey = await spawner.survey_volumes()
        await spawner.stop(NAME, None, grace=1)
        await spawner.remove_volume(HOME.name)

    assert not spawner.enforces_size()
    assert [volume.size_bytes for volume in survey.volumes] == [None]


async def test_volume_of_others_is_neither_used_nor_removed(
    site: KubernetesSite, spawner: KubernetesSpawner
) -> None:
    """A claim that another installation made is out of reach, even under its very name."""
    async with site.place(KubernetesSpawner, "other") as theirs:
        await theirs.start(order(f"{NAME}-theirs", volumes=[HOME]), recorded)

        with pytest.raises(SpawnerRejected):
            await spawner.start(order(volumes=[HOME]), recorded)
        removed = await spawner.remove_volume(HOME.name)
        left = await theirs.survey_volumes()
        await theirs.stop(f"{NAME}-theirs", None, grace=1)
    kubectl("delete", "pvc", HOME.name, f"--namespace={site.namespace}")

    assert removed  # Nothing of that name is left that is ours.
    assert [volume.name for volume in left.volumes] == [HOME.name]
