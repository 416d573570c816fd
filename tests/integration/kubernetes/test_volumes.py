"""Volumes on a real cluster, beyond what holds on every platform (`test_volumes.py` there)."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from perijove.domain.errors import SpawnerRejected
from perijove.spawners.contract import Phase, VolumeSighting, VolumeSpec
from perijove.spawners.kubernetes.spawner import KubernetesSpawner
from tests.contract.spawners.kubernetes_site import KubernetesSite, apply, kubectl
from tests.contract.spawners.sites import NAME, answers, eventually, phase, recorded
from tests.integration.kubernetes.conftest import order, python

pytestmark = [pytest.mark.anyio, pytest.mark.needs("kubernetes"), pytest.mark.timeout(180)]

APPEND = """
with open("/home/jovyan/data/note", "a+") as note:
    note.write("kept ")
    note.seek(0)
    print(note.read())
"""
HOME = VolumeSpec(
    name=f"{NAME}-home", path="/home/jovyan/data", size_bytes=2**20, labels={"user": "A/b c"}
)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 2 MiB on the node, which is this machine."""
    disk = tmp_path / "disk"
    disk.mkdir()
    options = "size=2m,mode=0777"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", disk], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.fixture
def small_class(small_disk: Path) -> Iterator[str]:
    """Give the storage class of a single persistent volume, which is that disk."""
    name = f"{NAME}-small"
    apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "capacity": {"storage": "2Mi"},
                "hostPath": {"path": str(small_disk), "type": "Directory"},
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": name,
            },
        }
    )
    yield name
    kubectl("delete", "pv", name, "--wait=false")


async def _is_removed(spawner: KubernetesSpawner) -> None:
    """Leave nothing of the volume to the next test, which has one of the same name."""
    assert await eventually(lambda: spawner.remove_volume(HOME.name))


async def test_what_was_written_is_there_in_the_next_pod(spawner: KubernetesSpawner) -> None:
    """A claim is of the very size, and tells its labels although Kubernetes' own allow less."""
    for name in (f"{NAME}-1", f"{NAME}-2"):
        await spawner.start(order(name, command=python(APPEND), volumes=[HOME]), recorded)
        await phase(spawner, name, Phase.GONE)
        said = await spawner.log_tail(name, None, lines=1)
        await spawner.stop(name, None, grace=1)
    survey = await spawner.survey_volumes()
    await _is_removed(spawner)

    assert said.split() == ["kept", "kept"]
    seen = VolumeSighting(name=HOME.name, size_bytes=2**20, labels={"user": "A/b c"})
    assert list(survey.volumes) == [seen]


async def test_size_is_told_where_it_is_enforced_only(site: KubernetesSite) -> None:
    """Where storage does not keep to sizes, none is said to be kept to."""
    async with site.place(KubernetesSpawner, storage_enforced=False) as spawner:
        await spawner.start(order(volumes=[HOME]), recorded)
        survey = await spawner.survey_volumes()
        await spawner.stop(NAME, None, grace=1)
        await _is_removed(spawner)

    assert not spawner.enforces_size()
    assert [volume.size_bytes for volume in survey.volumes] == [None]


async def test_volume_of_others_is_not_used(
    site: KubernetesSite, spawner: KubernetesSpawner
) -> None:
    """A claim that another installation made is mounted nowhere, even under its very name."""
    async with site.place(KubernetesSpawner, "other") as theirs:
        await theirs.start(order(f"{NAME}-theirs", volumes=[HOME]), recorded)

        with pytest.raises(SpawnerRejected):
            await spawner.start(order(volumes=[HOME]), recorded)
        await theirs.stop(f"{NAME}-theirs", None, grace=1)
        await _is_removed(theirs)


@pytest.mark.needs("root")
async def test_a_full_volume_starts_in_rescue_mode(
    site: KubernetesSite, spawner: KubernetesSpawner, small_class: str
) -> None:
    """The server starts, with its own places elsewhere; whoever clears up sees what is large."""
    volume = replace(HOME, storage_class=small_class)
    first, second = f"{NAME}-first", f"{NAME}-second"
    await spawner.start(order(first, volumes=[volume]), recorded)
    before = json.loads(await answers(await phase(spawner, first, Phase.RUNNING)))
    inside = partial(kubectl, f"--namespace={site.namespace}", "exec")
    with pytest.raises(AssertionError, match="No space left"):
        inside(first, "--", "dd", "if=/dev/zero", f"of={volume.path}/zeros", "bs=64K")
    await spawner.stop(first, None, grace=1)

    await spawner.start(order(second, volumes=[volume]), recorded)
    after = json.loads(await answers(await phase(spawner, second, Phase.RUNNING)))
    shown = inside(second, "--", "cat", f"{after['HOME']}/RESCUE.md")
    beside = inside(second, "--", "ls", "-L", f"{after['HOME']}/data")
    await spawner.stop(second, None, grace=1)
    await _is_removed(spawner)

    assert "PERIJOVE_RESCUE" not in before
    assert after["PERIJOVE_RESCUE"] == "volume-full"
    assert after["cwd"] == after["HOME"]
    assert not after["JUPYTER_RUNTIME_DIR"].startswith(volume.path)
    assert f"{volume.path}/zeros" in shown
    assert beside == "zeros"
