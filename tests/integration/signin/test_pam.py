"""Signing in with accounts of this machine, through its real PAM."""

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import anyio.to_thread
import httpx2
import pytest
from sqlalchemy import Connection, select

from perijove.auth.contract import Credentials, Proof
from perijove.auth.pam import PamAuthenticator, PamSettings
from perijove.db.tables import group_members, groups, users
from perijove.domain.errors import Forbidden, Throttled
from perijove.services.hub import Hub
from perijove.services.people import StoredPasswords
from perijove.services.signin import sign_in
from perijove.web.access_log import AccessLog
from perijove.web.app import create_app
from tests.beds import ROOT
from tests.doors import HERE, make_user, signin_hub

pytestmark = [pytest.mark.anyio, pytest.mark.needs("users", "root")]

NO_PASSWORDS: StoredPasswords = None  # type: ignore[assignment] # PAM has its own
NAVIGATES = {"sec-fetch-mode": "navigate", "sec-fetch-site": "none"}


@pytest.fixture
def right() -> str:
    """Give the password of the test's accounts."""
    return os.environ["PERIJOVE_TEST_PASSWORD"]


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Give the URL of an empty database."""
    return f"sqlite:///{tmp_path / 'hub.sqlite'}"


@pytest.fixture
def service() -> Iterator[str]:
    """Give the name of a PAM service that is the one we ship."""
    yield from _installed((ROOT / "deploy/pam/perijove").read_text())


def _installed(stack: str) -> Iterator[str]:
    path = Path("/etc/pam.d") / f"perijove-test-{secrets.token_hex(4)}"
    path.write_text(stack)
    try:
        yield path.name
    finally:
        path.unlink()


def door(service: str, **settings: Any) -> PamAuthenticator:
    """Return the authenticator for a stack."""
    return PamAuthenticator(
        PamSettings(service=service, **settings), name="pam", passwords=NO_PASSWORDS
    )


async def prove(at: PamAuthenticator, name: str, password: str) -> Proof | None:
    """Ask."""
    return await at.authenticate(Credentials(username=name, password=password))


# --- the authenticator ------------------------------------------------------------------------


async def test_the_right_password_proves_the_account_and_its_groups(
    service: str, right: str
) -> None:
    """The name is the account's one name, however it was typed; the private group is not told."""
    for typed in ("alice", "Alice", " alice "):
        proof = await prove(door(service), typed, right)
        assert proof == Proof(
            subject="alice", name="alice", groups=["perijove-users"], admin=None
        ), typed


async def test_failures_take_the_time_the_stack_wants_and_say_nothing(
    service: str, right: str
) -> None:
    """An unknown name, a wrong password and a locked account with a wrong one look the same."""
    for name, password in (("alice", "wrong"), ("pj-nobody", right), ("pj-locked", "wrong")):
        began = time.monotonic()
        assert await prove(door(service), name, password) is None
        assert time.monotonic() - began > 0.9, name


@pytest.mark.parametrize(
    ("name", "code"), [("pj-expired", "account-expired"), ("pj-locked", "account-locked")]
)
@pytest.mark.parametrize("stack", ["shipped", "login"])
async def test_who_knows_the_password_learns_why_the_account_is_closed(
    service: str, right: str, name: str, code: str, stack: str
) -> None:
    """With our stack, and with that of `login`, which hides the reason."""
    with pytest.raises(Forbidden) as refusal:
        await prove(door(service if stack == "shipped" else "login"), name, right)
    assert refusal.value.code == code


@pytest.mark.parametrize("name", ["root", "ROOT"])
async def test_root_is_refused_before_pam_is_asked(name: str) -> None:
    """Nobody can guess root's password here: this stack would let anyone in."""
    for service in _installed("auth required pam_permit.so\naccount required pam_permit.so\n"):
        with pytest.raises(Forbidden) as refusal:
            await prove(door(service), name, "anything")
        assert refusal.value.code == "account-reserved"


@pytest.mark.parametrize(
    ("name", "settings", "code"),
    [
        ("nobody-here", {}, "account-unfit"),
        ("perijove-hub", {}, "account-reserved"),
        ("alice", {"min_uid": 60000}, "account-reserved"),
    ],
)
async def test_a_right_password_is_not_enough(
    name: str, settings: dict[str, Any], code: str
) -> None:
    """The system must know the account, and it must not be one of the system's own."""
    for service in _installed("auth required pam_permit.so\naccount required pam_permit.so\n"):
        with pytest.raises(Forbidden) as refusal:
            await prove(door(service, **settings), name, "anything")
        assert refusal.value.code == code


@pytest.mark.parametrize(
    ("result", "code"),
    [
        ("acct_expired", "account-expired"),
        ("new_authtok_reqd", "password-expired"),
        ("authtok_expired", "password-expired"),
        ("perm_denied", "account-refused"),
        ("maxtries", "account-locked"),
    ],
)
async def test_every_refusal_of_the_account_stage_has_its_code(result: str, code: str) -> None:
    """As PAM itself returns them."""
    stack = f"auth required pam_permit.so\naccount required pam_debug.so acct={result}\n"
    for service in _installed(stack):
        with pytest.raises(Forbidden) as refusal:
            await prove(door(service), "alice", "anything")
        assert refusal.value.code == code


@pytest.mark.parametrize(
    "stack",
    [
        "auth required pam_debug.so auth=authinfo_unavail\n",
        "auth required pam_debug.so auth=system_err\n",
        "auth required pam_no_such_module.so\n",
        "auth required pam_permit.so\naccount required pam_debug.so acct=service_err\n",
    ],
)
async def test_a_stack_that_cannot_tell_is_no_wrong_password(stack: str) -> None:
    """The person is told to try again, and the attempt does not count."""
    for service in _installed(stack):
        with pytest.raises(Throttled) as away:
            await prove(door(service), "alice", "anything")
        assert away.value.code == "signin-away"


async def test_a_stack_that_hangs_is_ended_at_the_deadline(tmp_path: Path) -> None:
    """Nothing of it goes on, so that it cannot eat the places of others."""
    mark = tmp_path / "pid"
    script = tmp_path / "hang"
    script.write_text(f"#!/bin/sh\necho $PPID > {mark}\nexec sleep 60\n")
    script.chmod(0o755)
    tmp_path.chmod(0o755)
    for service in _installed(f"auth required pam_exec.so {script}\n"):
        began = time.monotonic()
        with pytest.raises(Throttled) as away:
            await prove(door(service, timeout="1 s"), "alice", "anything")
        assert away.value.code == "signin-away"
        assert time.monotonic() - began < 10
        assert not Path(f"/proc/{int(mark.read_text())}").exists()


async def test_a_name_that_pam_makes_another_of_is_refused() -> None:
    """Who asks for one account never becomes another: here the stack makes bob of alice."""
    stack = "auth required pam_ftp.so users=bob,alice\naccount required pam_permit.so\n"
    for service in _installed(stack):
        with pytest.raises(Forbidden) as refusal:
            await prove(door(service), "alice", "alice@example.org")
        assert refusal.value.code == "account-unfit"


async def test_administrators_are_the_members_of_the_groups(service: str, right: str) -> None:
    """True or False once groups are named, and only those of the patterns are taken over."""
    for group, admin in (("perijove-users", True), ("root", False)):
        at = door(service, admin_groups=[group], groups=["hpc-*"])
        proof = await prove(at, "alice", right)
        assert proof is not None
        assert (proof.admin, proof.groups) == (admin, [])


async def test_the_password_is_on_no_command_line(tmp_path: Path) -> None:
    """While PAM works, nobody on the machine can read it from the list of processes."""
    listing = tmp_path / "listing"
    script = tmp_path / "list"
    script.write_text(
        f"#!/bin/sh\ncat /proc/[0-9]*/cmdline /proc/$PPID/environ > {listing} 2>&1\nexit 1\n"
    )
    script.chmod(0o755)
    tmp_path.chmod(0o755)
    password = secrets.token_hex(16)
    for service in _installed(f"auth required pam_exec.so {script}\n"):
        with pytest.raises(Throttled):
            await prove(door(service), "alice", password)
    assert b"pam_stack.py" in listing.read_bytes()
    assert password.encode() not in listing.read_bytes()


# --- the hub ----------------------------------------------------------------------------------


async def groups_of(hub: Hub, name: str) -> tuple[set[str], bool]:
    """Return a user's groups, and whether they administer."""

    def unit(connection: Connection) -> tuple[set[str], bool]:
        found = connection.scalars(
            select(groups.c.name)
            .join(group_members, group_members.c.group_id == groups.c.id)
            .join(users, users.c.id == group_members.c.user_id)
            .where(users.c.name == name)
        )
        admin = connection.scalar(select(users.c.admin).where(users.c.name == name))
        return set(found), bool(admin)

    return await hub.database.read(unit)


async def come(hub: Hub, name: str, password: str) -> None:
    """Sign in."""
    await sign_in(hub, Credentials(username=name, password=password), HERE)


async def test_groups_and_rights_follow_the_system(
    database_url: str, service: str, right: str
) -> None:
    """What PAM gave is taken back when it no longer says so; what the hub gave stays."""
    section = {"groups": {"by-hand": ["alice"]}}
    generous = door(service, admin_groups=["perijove-users"])
    strict = door(service, admin_groups=["root"], groups=[])
    async with signin_hub(database_url, doors=(), settings=section, more={"pam": generous}) as hub:
        await come(hub, "alice", right)
        assert await groups_of(hub, "alice") == ({"by-hand", "perijove-users"}, True)
    async with signin_hub(database_url, doors=(), settings=section, more={"pam": strict}) as hub:
        await come(hub, "alice", right)
        assert await groups_of(hub, "alice") == ({"by-hand"}, False)
        await make_user(hub, "bob", admin=True)
        await come(hub, "bob", right)
        assert await groups_of(hub, "bob") == (set(), True)


@asynccontextmanager
async def at_the_door(hub: Hub, language: str) -> AsyncIterator[httpx2.AsyncClient]:
    """Open a browser at the hub's pages."""
    log = AccessLog(hub.clock, as_json=True, stream=BytesIO())
    app = await anyio.to_thread.run_sync(lambda: create_app(hub, access_log=log))
    headers = {**NAVIGATES, "accept": "text/html", "accept-language": language}
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=app), base_url="http://hub.test", headers=headers
    ) as client:
        yield client


@pytest.mark.parametrize(
    ("name", "language", "words"),
    [
        ("pj-expired", "en", "Your account has expired. Ask your administrator to prolong it."),
        ("pj-expired", "fr", "Votre compte a expiré."),
        ("pj-locked", "es", "Su cuenta está bloqueada."),
        ("pj-locked", "pt", "A sua conta está bloqueada."),
    ],
)
async def test_the_page_says_which(
    url: str, service: str, right: str, name: str, language: str, words: str
) -> None:
    """A 403, in the person's language, with the name kept in the form."""
    async with (
        signin_hub(url, doors=(), more={"pam": door(service)}) as hub,
        at_the_door(hub, language) as client,
    ):
        await client.get("/hub/login")
        sent = {"_xsrf": client.cookies["_xsrf"], "username": name, "password": right}
        answer = await client.post("/hub/login", data=sent)
        assert answer.status_code == 403
        assert words in answer.text
        assert f'value="{name}"' in answer.text


# --- without root -----------------------------------------------------------------------------


async def test_an_unprivileged_hub_is_told_no_more_than_pam_tells() -> None:
    """The program runs for any account; where shadow is closed to it, it guesses nothing."""
    runuser = shutil.which("runuser")
    assert runuser
    question = b'{"service": "login", "name": "pj-locked", "password": "wrong"}'
    # A copy, since the tests' own directory may be closed to others.
    program = Path("/usr/bin/python3")
    source = (ROOT / "src/perijove/auth/pam_stack.py").read_bytes()
    done = await anyio.run_process(
        [runuser, "-u", "perijove-hub", "--", str(program), "-I", "-S", "-c", source.decode()],
        input=question,
        stderr=subprocess.PIPE,
        cwd="/",
    )
    assert b'"verdict": "wrong"' in done.stdout
