"""What the keeper of environments makes of what it finds, and what it leaves alone."""

import json
import os
import sys
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from perijove.agent import job_files, local_files
from perijove.agent.environments import BUILT, Failed, Keeper, found_in, is_unfinished, only_one
from perijove.agent.kernels import keeper_in, offer_environments

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
    venv.create(folder, with_pip=False, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (folder / "lib" / version / "site-packages" / "ipykernel").mkdir()
    return folder


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


def test_nothing_is_offered_where_nothing_is_allowed() -> None:
    """Without a place for environments the server's own is left as it is."""
    environment = {"HOME": "/home/ann"}
    offer_environments(environment, ["/bin/false"])
    assert environment == {"HOME": "/home/ann"}


def test_an_environment_made_by_hand_becomes_a_kernel(tmp_path: Path) -> None:
    """One with ipykernel is offered and told of; one without, and other folders, are not."""
    folder = by_hand(tmp_path, "conda-like")
    (tmp_path / "envs/plain").mkdir()
    (tmp_path / "envs/Not A Name").mkdir()
    assert found_in(str(tmp_path)) == [{"name": "conda-like"}]
    kernel = tmp_path / "share/jupyter/kernels/env-conda-like/kernel.json"
    spec = json.loads(kernel.read_text())
    assert spec["argv"][0] == str(folder / "bin/python")


def test_what_was_made_by_hand_is_never_touched(tmp_path: Path) -> None:
    """An environment of the same name that somebody made is neither built upon nor removed."""
    folder = by_hand(tmp_path, "mine")
    keeper = keeper_at(tmp_path)
    with pytest.raises(Failed, match="was not made for this"):
        keeper._make(dict(TASK))
    assert (folder / "bin/python").exists()


def test_what_another_environment_left_is_not_removed(tmp_path: Path) -> None:
    """A removal touches only what was built for that very environment."""
    folder = tmp_path / "envs/mine"
    folder.mkdir(parents=True)
    (folder / BUILT).write_text(json.dumps({"id": 8, "revision": 1}))
    keeper_at(tmp_path)._remove(dict(TASK, wanted=False))
    assert folder.exists()


def test_what_was_never_finished_is_known(tmp_path: Path) -> None:
    """Only an empty folder, or one with the mark of a beginning, is begun anew."""
    folder = tmp_path / "begun"
    folder.mkdir()
    assert is_unfinished(str(folder))
    (folder / "file").touch()
    assert not is_unfinished(str(folder))
    (folder / BUILT).write_text(json.dumps({"unfinished": True}))
    assert is_unfinished(str(folder))
    (folder / BUILT).write_text(json.dumps({"id": 1, "revision": 1}))
    assert not is_unfinished(str(folder))


def test_two_sessions_do_not_build_at_once(tmp_path: Path) -> None:
    """Who comes second at one place waits for its turn."""
    lock = str(tmp_path / "lock")
    with only_one(lock) as first, only_one(lock) as second:
        assert (first, second) == (True, False)
    with only_one(lock) as third:
        assert third


def test_the_keeper_comes_with_everything_that_starts_servers(tmp_path: Path) -> None:
    """Jobs and local servers are delivered the same program, which runs by itself."""
    assert job_files()["environments.py"] == local_files()["environments.py"]
    assert keeper_in(str(tmp_path)) == []
    (tmp_path / "environments.py").write_text(local_files()["environments.py"])
    assert keeper_in(str(tmp_path))[-1] == str(tmp_path / "environments.py")
    compile(local_files()["environments.py"], "environments.py", "exec")
