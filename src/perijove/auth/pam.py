"""Accounts of the machine the hub runs on: whatever its PAM accepts."""

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import ClassVar, Final

import anyio
import structlog
from pydantic import Field

from perijove.auth import pam_stack
from perijove.auth.contract import Credentials, PasswordStore, Proof
from perijove.auth.pam_stack import Answer
from perijove.domain.errors import ConfigError, Forbidden, Throttled
from perijove.domain.names import normalise_user_name
from perijove.kit.clock import monotonic
from perijove.kit.config import Duration, Section

log = structlog.get_logger()

MAX_BYTES: Final = 512
"""Longest password: PAM's own limit."""
_AT_A_TIME: Final = 4
_WAITING: Final = 64
"""Longest queue; whoever comes later is asked to try again."""
_LONGEST: Final = timedelta(seconds=25)
"""The hub gives up after 30 s on any authenticator."""
_OWN: Final = "perijove"
_COMMON: Final = "login"
_PLACES: Final = (Path("/etc/pam.d"), Path("/usr/lib/pam.d"))
_SERVICE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_NAME: Final = re.compile(r"[^\0-\x20:/-][^\0-\x1f:/]{0,254}")
"""What may be asked of the system: no path, no option, no second field of a file."""
_ENVIRONMENT: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}

_REFUSALS: Final = {
    "account-expired": "This account has expired.",
    "account-locked": "This account is locked.",
    "password-expired": "The password of this account has expired.",
    "account-refused": "This account may not sign in here.",
    "account-reserved": "Accounts of the system itself may not sign in here.",
    "account-unfit": "This account cannot be used here.",
}


class PamSettings(Section):
    """Accounts of the machine, checked by its PAM."""

    service: str = ""
    """PAM service, a file of `/etc/pam.d`. Empty: `perijove` where there is one, else `login`."""
    min_uid: int = Field(default=1000, ge=1)
    """Accounts with lower numbers belong to the system and may not sign in."""
    groups: list[str] = ["*"]
    """Which of the account's groups the person has here too, as patterns like `hpc-*`. They are
    brought up to date at each sign-in. A group that only bears the person's own name is left
    out."""
    admin_groups: list[str] = []
    """Groups of the system whose members administer the hub, as of their latest sign-in."""
    timeout: Duration = Field(default="20 s", validate_default=True, gt=timedelta(0), le=_LONGEST)
    """Longest time for PAM to answer."""


class PamAuthenticator:
    """Checks a user name and a password against PAM: the password, then the account."""

    Settings: ClassVar[type[Section]] = PamSettings
    names_system_accounts: ClassVar[bool] = True

    def __init__(self, settings: PamSettings, *, name: str, passwords: PasswordStore) -> None:
        """Raise `ConfigError` when the PAM service does not exist; `passwords` is not used."""
        self.name = name
        self._settings = settings
        self._service = _service(settings.service)
        self._limiter = anyio.CapacityLimiter(_AT_A_TIME)
        self._inside = 0

    async def authenticate(self, credentials: Credentials) -> Proof | None:
        """
        Return who this is; a failure takes as long as the PAM stack wants it to.

        Raises `Forbidden` for an account that may not come in, and says why: to those who know
        its password, and to root.
        """
        name = normalise_user_name(credentials.username.strip())
        if not _may_be_asked(name, credentials.password):
            return None
        began = monotonic()
        answer = await self._ask(name, credentials.password)
        if answer.verdict == "right":
            return self._proof(answer)
        if answer.verdict == "away":
            log.warning("pam_away", service=self._service, detail=answer.detail)
            raise _away(self.name)
        # Counted from the beginning, so that the time tells nothing about what was checked.
        await anyio.sleep(max(0.0, began + answer.delay - monotonic()))
        if answer.verdict == "wrong":
            return None
        raise _refusal(answer.verdict, answer.detail)

    def check_address(self, *, public: bool) -> None:
        """Accept any address: a password is asked for everywhere."""

    def _proof(self, answer: Answer) -> Proof:
        name = answer.name
        if answer.uid < self._settings.min_uid:
            raise _refusal("account-reserved", f"uid {answer.uid} < {self._settings.min_uid}")
        if normalise_user_name(name) != name:
            raise _refusal("account-unfit", f"{name!r} is not in the one form of user names")
        own = [group for group in answer.groups if group != name]
        admins = self._settings.admin_groups
        return Proof(
            # What the hub does for this person it does as the account of this name.
            subject=name,
            name=name,
            groups=[group for group in own if self._is_taken_over(group)],
            admin=not set(admins).isdisjoint(answer.groups) if admins else None,
        )

    def _is_taken_over(self, group: str) -> bool:
        return any(fnmatchcase(group, pattern) for pattern in self._settings.groups)

    async def _ask(self, name: str, password: str) -> Answer:
        question = {"service": self._service, "name": name, "password": password}
        seconds = self._settings.timeout.total_seconds()
        with self._place():
            try:
                with anyio.fail_after(seconds):
                    async with self._limiter:
                        return await _run(json.dumps(question).encode())
            except TimeoutError:
                log.warning("pam_silent", service=self._service, seconds=seconds)
                raise _away(self.name) from None

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        if self._inside >= _AT_A_TIME + _WAITING:
            raise Throttled(
                "Too many people are signing in at once.", retry_after=5, code="signin-busy"
            )
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1


async def _run(question: bytes) -> Answer:
    """Start the program; it is killed when this is cancelled."""
    done = await anyio.run_process(
        [sys.executable, "-I", "-S", pam_stack.__file__],
        input=question,
        stderr=subprocess.PIPE,
        check=False,
        cwd="/",
        env=_ENVIRONMENT,
    )
    if done.returncode != 0:
        return Answer(verdict="away", detail=f"the program ended with {done.returncode}")
    return Answer(**json.loads(done.stdout))


def _service(wanted: str) -> str:
    if not wanted:
        return _OWN if _exists(_OWN) else _COMMON
    if not _SERVICE.fullmatch(wanted) or not _exists(wanted):
        places = " and ".join(str(place) for place in _PLACES)
        raise ConfigError(f"auth.pam.service: there is no PAM service {wanted!r} in {places}")
    return wanted


def _exists(service: str) -> bool:
    return any((place / service).is_file() for place in _PLACES)


def _may_be_asked(name: str, password: str) -> bool:
    """Tell whether this can be a name and a password: C ends a text at its first zero byte."""
    try:
        name.encode()
        size = len(password.encode())
    except UnicodeEncodeError:
        return False
    return size <= MAX_BYTES and "\0" not in password and bool(_NAME.fullmatch(name))


def _refusal(code: str, detail: str) -> Forbidden:
    log.info("pam_refused", refusal=code, detail=detail)
    return Forbidden(_REFUSALS[code], code=code)


def _away(name: str) -> Throttled:
    return Throttled(
        f"{name!r} cannot tell at the moment",
        retry_after=10,
        code="signin-away",
        authenticator=name,
    )
