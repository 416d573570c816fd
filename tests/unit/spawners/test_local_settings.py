"""The section of a local spawner, and when it refuses to serve."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from perijove.domain.errors import ConfigError, SpawnerRejected
from perijove.spawners.contract import Surroundings
from perijove.spawners.local import LocalSettings, LocalSpawner
from perijove.spawners.names import check_platform_name, is_platform_name


def make_spawner(**settings: Any) -> LocalSpawner:
    """Return a spawner that was never entered: it touches nothing."""
    around = Surroundings(name="here", installation="inst", data_dir=Path("/nowhere"))
    return LocalSpawner(LocalSettings(**settings), around)


@pytest.mark.parametrize("shared", [False, True])
def test_shared_account_is_always_said(shared: bool) -> None:
    """That everybody has one account is said on every address."""
    spawner = make_spawner(shared_account=shared)

    assert "local-shared-account" in spawner.warnings(public=False)


def test_public_address_is_refused() -> None:
    """An address that others can reach needs an administrator's word; the message names the key."""
    with pytest.raises(ConfigError, match=r"shared_account = true in \[spawners\.here\]"):
        make_spawner().warnings(public=True)


def test_public_address_may_be_allowed() -> None:
    """With that word it serves, and still says what it means."""
    spawner = make_spawner(shared_account=True)

    assert "local-shared-account" in spawner.warnings(public=True)


@pytest.mark.parametrize(
    "settings",
    [
        {"port_range": [9000]},
        {"port_range": [0, 10]},
        {"port_range": [9000, 70000]},
        {"port_range": [9001, 9000]},
        {"log_limit": "1 KiB"},
        {"kill_limit": 0},
        {"comand": []},
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any]) -> None:
    """A setting that cannot work is an error when it is read."""
    with pytest.raises(ValidationError):
        LocalSettings(**settings)


def test_sizes_have_units() -> None:
    """A size is written with its unit."""
    assert LocalSettings(log_limit="1 MiB").log_limit == 2**20


def test_platform_names_are_file_names() -> None:
    """What we make is accepted; what could leave a folder or hide in it is not."""
    check_platform_name("pj-k3x7q2ab-abcdefghij234567")
    assert not any(map(is_platform_name, ["", ".", "..", ".a", "a/b", "a\n", "é", "-a", "x" * 129]))
    with pytest.raises(SpawnerRejected, match="platform name"):
        check_platform_name("a/b")
