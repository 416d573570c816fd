"""The hub's side: what it makes of the launcher's answers, silence and refusals."""

import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from perijove.domain.errors import SpawnerRejected, SpawnerTransient
from perijove.kit.ids import platform_name
from perijove.spawners.launcher import client
from perijove.spawners.launcher.client import Launcher, find_account
from tests.integration.launcher.conftest import Place

pytestmark = [pytest.mark.anyio, pytest.mark.needs("root", "users")]

NAME = platform_name("inst")


@pytest.fixture
def homeless() -> Iterator[Path]:
    """Take alice's home away for a test."""
    home = Path(pwd.getpwnam("alice").pw_dir)
    away = home.with_name("alice.away")
    home.rename(away)
    yield home
    away.rename(home)


async def test_root_becomes_the_person(place: Place) -> None:
    """What a hub that is root asks for is made by the person, for the person alone."""
    folder = place.launches / "own"

    answer = await Launcher().call(
        "alice", "adopt", timeout=10, name=NAME, folder=str(folder), job_id="17"
    )

    assert answer == {"state": "known"}
    assert folder.stat().st_uid == pwd.getpwnam("alice").pw_uid
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_package_of_root_alone_is_handed_over(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The person needs no way to where the hub is installed."""
    hidden = tmp_path / "perijove_launch.py"
    hidden.write_bytes(client.PROGRAM.read_bytes())
    hidden.chmod(0o600)
    monkeypatch.setattr(client, "PROGRAM", hidden)
    client._program_text.cache_clear()

    answer = await Launcher().call("alice", "survey", timeout=10, folder=str(place.launches / "x"))

    assert answer == {"launches": []}


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("nobody-here", "account-unknown"),
        ("", "account-unknown"),
        ("a\0b", "account-unknown"),
        ("\ud800", "account-unknown"),
        ("1001", "account-unknown"),
        ("root", "account-refused"),
        ("daemon", "account-refused"),
    ],
)
async def test_who_cannot_be_served_is_rejected(name: str, code: str) -> None:
    """Names that are nobody's, and accounts that nobody signs in with, are refused for good."""
    with pytest.raises(SpawnerRejected) as rejection:
        await Launcher().call(name, "survey", timeout=10, folder="/tmp/x")

    assert rejection.value.code == code


async def test_missing_home_is_a_rejection_of_its_own(homeless: Path) -> None:
    """A person whose home is away is told that, not that something failed."""
    with pytest.raises(SpawnerRejected) as rejection:
        await Launcher().call("alice", "adopt", timeout=10, name=NAME, job_id="1")

    assert rejection.value.code == "home-missing"
    assert str(homeless) in str(rejection.value)


async def test_what_an_administrator_must_repair_says_so(place: Place) -> None:
    """A refusal that no person can do anything about keeps its cause for the log."""
    with pytest.raises(SpawnerRejected) as rejection:
        await Launcher().call(
            "alice", "discover", timeout=10, commands=[["sinfo"]], bin_dir="/var/tmp/nowhere/else",
            surprise=1,
        )  # fmt: skip

    assert rejection.value.code == "launcher-refused"
    assert rejection.value.params["cause"] == "bad-request"


async def test_folder_that_is_away_may_come_back(place: Place) -> None:
    """What a file system cannot do now is no reason to give up."""
    with pytest.raises(SpawnerTransient) as failure:
        await Launcher().call(
            "alice", "survey", timeout=10, folder=str(place.launches / "x"), known=True
        )

    assert failure.value.params["cause"] == "folder-missing"


async def test_missing_program_is_named() -> None:
    """A scheduler that is not installed is a command that is missing."""
    with pytest.raises(SpawnerRejected) as rejection:
        await Launcher().call("alice", "discover", timeout=10, commands=[["sinfo"]], bin_dir="/opt")

    assert rejection.value.code == "command-missing"
    assert rejection.value.params["command"] == "sinfo"


def test_account_has_all_its_groups() -> None:
    """Groups of the machine's tables belong to the account."""
    account = find_account("alice")

    assert set(account.groups) == set(os.getgrouplist("alice", account.gid))
    assert len(account.groups) > 1
