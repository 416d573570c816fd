"""What an administrator is told, or refused, before the first job."""

from pathlib import Path
from typing import Any

import pytest

from perijove.domain.errors import ConfigError
from perijove.spawners.contract import Surroundings
from perijove.spawners.slurm.spawner import SlurmSettings, SlurmSpawner


def spawner(directory: Path, settings: dict[str, Any], **around: Any) -> SlurmSpawner:
    """Return a spawner with these settings and surroundings."""
    fields = {"name": "cluster", "installation": "test", "data_dir": directory}
    surroundings = Surroundings(**{**fields, "system_accounts": True, **around})
    return SlurmSpawner(SlurmSettings.model_validate(settings), surroundings)


@pytest.mark.parametrize(
    ("networks", "api_is_local", "told"),
    [
        ([], True, ["api-loopback"]),
        (["10.1.0.0/16", "127.0.0.0/8"], True, ["api-loopback"]),
        (["127.0.0.0/8"], True, []),
        ([], False, []),
    ],
)
def test_a_hub_that_no_node_reaches_is_told_of(
    tmp_path: Path, networks: list[str], told: list[str], *, api_is_local: bool
) -> None:
    """It is what stops most first jobs; where all nodes are this machine nothing is wrong."""
    found = spawner(tmp_path, {"networks": networks}, api_is_local=api_is_local)

    assert list(found.warnings(public=False)) == told


def test_names_that_are_no_accounts_are_refused(tmp_path: Path) -> None:
    """Who could choose a name could choose whose jobs to submit."""
    with pytest.raises(ConfigError, match=r"cluster\.accounts"):
        spawner(tmp_path, {}, system_accounts=False)
    spawner(tmp_path, {"accounts": "trusted"}, system_accounts=False)
