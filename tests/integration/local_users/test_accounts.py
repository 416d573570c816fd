"""What a server has of the person it runs as, and when accounts are used at all."""

import grp
import json
import pwd
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from perijove.domain.errors import ConfigError, SpawnerRejected
from perijove.domain.launch import Cause
from perijove.spawners.contract import ChecksListener, HasLogs, Phase, Surroundings, Warns
from perijove.spawners.launcher.client import Launcher
from perijove.spawners.local import LocalSettings, LocalSpawner
from tests.contract.spawners.sites import (
    NAME,
    AliceSpawner,
    SystemSite,
    answers,
    find,
    make_spec,
    phase,
    program,
    recorded,
    server_of,
    supervisors_of,
)

pytestmark = [pytest.mark.anyio, pytest.mark.needs("root", "users")]

NOBODY_INSTALLED = Launcher(installed=Path("/nonexistent"))


@pytest.fixture
def profile() -> Iterator[Path]:
    """Give the start file of alice's login shell; afterwards it is as before."""
    file = Path(pwd.getpwnam("alice").pw_dir, ".bash_profile")
    before = file.read_bytes() if file.exists() else None
    yield file
    if before is None:
        file.unlink(missing_ok=True)
    else:
        file.write_bytes(before)


async def _seen(spawner: AliceSpawner) -> dict[str, str]:
    await spawner.start(make_spec(), recorded)
    found: dict[str, str] = json.loads(await answers(await phase(spawner, NAME, Phase.RUNNING)))
    return found


async def test_server_is_its_persons(alice: AliceSpawner) -> None:
    """It has the person's account as a whole, all groups included, and its supervisor too."""
    await alice.start(make_spec(), recorded)
    await phase(alice, NAME, Phase.RUNNING)

    entry = pwd.getpwnam("alice")
    group = grp.getgrnam("perijove-users").gr_gid
    for process in (server_of(NAME), *supervisors_of(NAME)):
        assert set(process.uids()) == {entry.pw_uid}
        assert set(process.gids()) == {entry.pw_gid}
        status = Path(f"/proc/{process.pid}/status").read_text()
        (groups,) = (line for line in status.splitlines() if line.startswith("Groups:"))
        assert set(map(int, groups.split()[1:])) == {entry.pw_gid, group}


async def test_server_finds_what_a_login_gives(
    alice: AliceSpawner, profile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Home, names and what the login shell sets are there; nothing of the hub's is."""
    monkeypatch.setenv("PERIJOVE_ADMIN_PASSWORD", "hub-only")
    profile.write_text("echo welcome; export SITE='two\nlines'; umask 027; cd /")

    seen = await _seen(alice)

    home = pwd.getpwnam("alice").pw_dir
    assert (seen["HOME"], seen["cwd"]) == (home, home)
    assert (seen["USER"], seen["LOGNAME"], seen["SHELL"]) == ("alice", "alice", "/bin/bash")
    assert seen["SITE"] == "two\nlines"
    assert "hub-only" not in seen.values()
    status = Path(f"/proc/{server_of(NAME).pid}/status").read_text()
    assert "Umask:\t0027" in status


@pytest.mark.parametrize("broken", ["exit 7", "exec false", "sleep 60", "printf() { :; }; echo x"])
async def test_broken_login_does_not_stop_a_server(
    alice: AliceSpawner, profile: Path, broken: str
) -> None:
    """A start file that fails or hangs costs its variables, not the server."""
    profile.write_text(broken)

    seen = await _seen(alice)

    assert seen["USER"] == "alice"
    assert seen["PATH"]


async def test_who_has_no_account_is_rejected(system_site: SystemSite) -> None:
    """A name that is no account of this machine, and root's, start nothing for good."""
    async with system_site.spawner() as spawner:
        for user, code in (
            ("ann@example.org", "account-unknown"),
            ("", "account-unknown"),
            ("a\0b", "account-unknown"),
            ("root", "account-refused"),
            ("daemon", "account-refused"),
        ):
            with pytest.raises(SpawnerRejected) as rejection:
                await LocalSpawner.start(spawner, make_spec(user_name=user), recorded)
            assert rejection.value.code == code
        survey = await spawner.survey()
    assert (survey.complete, survey.sightings) == (True, [])


async def test_missing_command_is_named(system_site: SystemSite) -> None:
    """A command that the person cannot run is rejected with its name and the places."""
    order = make_spec(user_name="alice", command=["no-such-server"])
    async with system_site.spawner() as spawner:
        with pytest.raises(SpawnerRejected) as rejection:
            await LocalSpawner.start(spawner, order, recorded)
        assert rejection.value.code == "command-missing"
        assert rejection.value.params["command"] == "no-such-server"
        assert "/usr/bin" in str(rejection.value.params["places"])
        assert await find(spawner, NAME) is None


async def test_surveys_ask_only_when_something_changed(
    alice: AliceSpawner, system_site: SystemSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the process table says that all is as before, no process is started to look."""
    await alice.start(make_spec(), recorded)
    await phase(alice, NAME, Phase.RUNNING)
    away = system_site.launches.with_name("away")
    system_site.launches.rename(away)  # Whoever asked now would hear that the folder is gone.
    try:
        survey = await alice.survey()
    finally:
        away.rename(system_site.launches)

    assert survey.complete
    assert [one.phase for one in survey.sightings] == [Phase.RUNNING]


async def test_launcher_that_fails_makes_a_survey_incomplete(
    alice: AliceSpawner, system_site: SystemSite
) -> None:
    """Of a folder that is away, also when it was made anew, nothing is concluded."""
    await alice.start(make_spec(), recorded)
    await phase(alice, NAME, Phase.RUNNING)
    away = system_site.launches.with_name("away")
    system_site.launches.rename(away)
    try:
        async with system_site.spawner() as other:
            survey = await other.survey()
    finally:
        shutil.rmtree(system_site.launches, ignore_errors=True)
        away.rename(system_site.launches)

    assert not survey.complete


async def test_files_of_a_person_cannot_point_elsewhere(
    alice: AliceSpawner, system_site: SystemSite
) -> None:
    """What a person writes over the address of a server leads to no other host."""
    await alice.start(make_spec(), recorded)
    await phase(alice, NAME, Phase.RUNNING)
    (folder,) = system_site.launches.iterdir()
    words = {"host": "10.1.2.3", "port": 22, "pid": 1}
    (folder / NAME / "address.json").write_text(json.dumps(words))

    async with system_site.spawner() as other:
        sighting = await phase(other, NAME, Phase.RUNNING)
        assert sighting.url == "http://127.0.0.1:22"
        assert await other.owns_listener(NAME, None, sighting.url) is not True


def _make(tmp_path: Path, launcher: Launcher, system: bool, accounts: str) -> LocalSpawner:
    around = Surroundings(
        name="local", installation="inst", data_dir=tmp_path, system_accounts=system
    )
    return LocalSpawner(LocalSettings.model_validate({"accounts": accounts}), around, launcher)


@pytest.mark.parametrize(
    ("system", "accounts", "warns"),
    [
        (False, "auto", True),
        (False, "shared", True),
        (True, "shared", True),
        (True, "auto", False),
        (True, "system", False),
    ],
)
def test_accounts_are_used_where_people_sign_in_with_them(
    tmp_path: Path, system: bool, accounts: str, warns: bool
) -> None:
    """Only a shared account is warned of, and refused on a public address."""
    spawner = _make(tmp_path, Launcher(), system, accounts)

    assert ("local-shared-account" in spawner.warnings(public=False)) is warns
    if warns:
        with pytest.raises(ConfigError):
            spawner.warnings(public=True)


def test_accounts_that_nobody_signs_in_with_are_a_fault(tmp_path: Path) -> None:
    """System accounts cannot be demanded where names may be anybody's."""
    with pytest.raises(ConfigError) as fault:
        _make(tmp_path, Launcher(), system=False, accounts="system")

    assert fault.value.code == "local-accounts-unknown"


async def test_it_has_the_abilities_of_local_servers(alice: AliceSpawner) -> None:
    """Logs, listeners and warnings work as under a shared account."""
    assert isinstance(alice, HasLogs)
    assert isinstance(alice, ChecksListener)
    assert isinstance(alice, Warns)
    await alice.start(make_spec(command=program("exit-3")), recorded)
    gone = await phase(alice, NAME, Phase.GONE)
    assert gone.end is not None
    assert (gone.end.cause, gone.end.code) == (Cause.EXITED, 3)
    await alice.stop(NAME, None, grace=1)

    last = await alice.log_tail(NAME, gone.handle, lines=1)

    assert last == "line 499 ".ljust(99, ".") or last == "the last line"
    Path(pwd.getpwnam("alice").pw_dir, "runs").unlink()
