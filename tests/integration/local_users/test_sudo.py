"""A hub that is not root, through sudo: the real account, the real rule, the real program."""

import json
import pwd
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from anyio import to_thread

from tests import beds
from tests.contract.spawners.sites import PROGRAM, SystemSite
from tests.unprivileged import HUB, LAUNCHER, RULE, launcher_installed

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.needs("root", "users"),
    pytest.mark.timeout(120),
]


@pytest.fixture(scope="module")
def installed() -> Iterator[None]:
    """Have the launcher and its rule, and remove them afterwards."""
    with launcher_installed():
        yield


def _sudo(account: str, *command: str, stdin: str = "", hub: str = HUB) -> tuple[int, str]:
    """Return the status and the output of what an account does through sudo."""
    entry = pwd.getpwnam(hub)
    result = subprocess.run(
        ["/usr/bin/sudo", "-n", "-u", account, "--", *(command or (str(LAUNCHER),))],
        input=stdin, capture_output=True, text=True, timeout=60, check=False,
        user=entry.pw_uid, group=entry.pw_gid, extra_groups=[], env={"PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    return result.returncode, result.stdout


@pytest.mark.usefixtures("installed")
def test_rule_is_the_one_that_was_meant() -> None:
    """Root owns the launcher and the rule, nobody else can write them, and visudo agrees."""
    for file, mode in ((LAUNCHER, 0o755), (RULE, 0o440)):
        assert (file.stat().st_uid, file.stat().st_mode & 0o7777) == (0, mode)
    assert f'{HUB} ALL=(%perijove-users, !root) NOPASSWD: {LAUNCHER} ""' in RULE.read_text()
    assert subprocess.run(["visudo", "-c", "-q"], timeout=30, check=False).returncode == 0


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("account", ["root", "daemon", HUB, "pj-locked", "#0", "#-1"])
def test_who_is_not_in_the_group_is_out_of_reach(account: str) -> None:
    """sudo refuses root, accounts of the system and people outside of the group."""
    assert _sudo(account, stdin='{"verb": "survey", "folder": "/tmp/x"}') == (1, "")


@pytest.mark.usefixtures("installed")
def test_only_the_launcher_may_be_run() -> None:
    """No other program, no argument, no variable and no other account gets through."""
    assert _sudo("alice", "/usr/bin/id") == (1, "")
    assert _sudo("alice", str(LAUNCHER), "-c", "id") == (1, "")
    assert _sudo("alice", "/usr/bin/python3", str(LAUNCHER)) == (1, "")
    assert _sudo("alice", "PYTHONPATH=/tmp", str(LAUNCHER)) == (1, "")
    assert _sudo("alice", hub="bob") == (1, "")


@pytest.mark.usefixtures("installed")
def test_launcher_answers_through_sudo() -> None:
    """Through the rule it is the same program: a request that is none is refused."""
    status, answer = _sudo("alice", stdin="{")

    assert status == 3
    assert json.loads(answer)["error"] == "bad-request"


def _live(site: SystemSite, user: str) -> Any:
    entry = pwd.getpwnam(HUB)
    site.data_dir.mkdir(mode=0o700)
    site.data_dir.chmod(0o700)
    subprocess.run(["chown", f"{entry.pw_uid}:{entry.pw_gid}", site.data_dir], check=True)
    result = subprocess.run(
        [sys.executable, "-m", "tests.integration.local_users.unprivileged_hub",
         HUB, site.data_dir, site.launches, site.launches.with_name(PROGRAM.name), user],
        cwd=beds.ROOT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.usefixtures("installed")
async def test_unprivileged_hub_serves_people_as_themselves(system_site: SystemSite) -> None:
    """It starts, finds again, checks and stops alice's server, which is hers in every respect."""
    seen = await to_thread.run_sync(_live, system_site, "alice")

    assert seen["uid"] == pwd.getpwnam(HUB).pw_uid
    assert seen["same"]
    assert (seen["owns"], seen["owns_other"]) == (True, None)
    assert seen["end"] == ["signal", 15]
    assert seen["left"] == 0
    assert seen["environment"]["USER"] == "alice"
    assert seen["environment"]["cwd"] == pwd.getpwnam("alice").pw_dir
    assert not [name for name in seen["environment"] if name.startswith("SUDO")]
    assert "local-no-limits" in seen["warnings"]
    (folder,) = system_site.launches.iterdir()
    assert folder.stat().st_uid == pwd.getpwnam("alice").pw_uid


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("user", "code"), [("pj-locked", "launcher-refused"), ("root", "account-refused")]
)
async def test_unprivileged_hub_cannot_serve_others(
    system_site: SystemSite, user: str, code: str
) -> None:
    """Whom the rule does not name is refused with a code of its own, and nothing is started."""
    seen = await to_thread.run_sync(_live, system_site, user)

    assert seen["error"] == code
    assert not list(system_site.launches.iterdir())
