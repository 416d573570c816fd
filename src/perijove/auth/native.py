"""Accounts in the hub's own database: user name and password, hashed with argon2id."""

import base64
import secrets
from collections.abc import Callable
from typing import ClassVar, TypeVar, TypeVarTuple, Unpack

import anyio
import anyio.to_thread
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from pydantic import Field

from perijove.auth.contract import Credentials, PasswordStore, Proof
from perijove.domain.errors import Invalid, Throttled
from perijove.kit.config import Section

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

MAX_BYTES = 1024
"""Longest password; bounds what a stranger can make us hash."""
_AT_A_TIME = 2
"""Hashes that run at once: each takes 64 MiB and some tens of milliseconds of several cores."""
_WAITING = 64
"""Longest queue for a hash; whoever comes later is asked to try again."""


class NativeSettings(Section):
    """Accounts in the hub's own database."""

    min_length: int = Field(default=10, ge=1, le=MAX_BYTES)
    """Fewest characters of a new password."""


class NativeAuthenticator:
    """Checks a user name and a password against the hub's own accounts."""

    Settings: ClassVar[type[Section]] = NativeSettings
    names_system_accounts: ClassVar[bool] = False

    def __init__(
        self,
        settings: NativeSettings,
        *,
        name: str,
        passwords: PasswordStore,
        hasher: PasswordHasher | None = None,
    ) -> None:
        self.name = name
        self._settings = settings
        self._passwords = passwords
        self._hasher = hasher or PasswordHasher()
        self._limiter = anyio.CapacityLimiter(_AT_A_TIME)
        self._inside = 0
        self._nobody = _hash_of_nothing(self._hasher)

    async def authenticate(self, credentials: Credentials) -> Proof | None:
        """Return who this is; None after the same time for an unknown name or a wrong password."""
        password = credentials.password
        if len(password.encode(errors="replace")) > MAX_BYTES:
            return None
        stored = await self._passwords.find(credentials.username)
        right = await self._in_thread(
            self._verify, stored.hash if stored else self._nobody, password
        )
        if stored is None or not right:
            return None
        if self._hasher.check_needs_rehash(stored.hash):
            await self._passwords.renew(stored, await self._in_thread(self._hash, password))
        return Proof(subject=stored.subject, name=credentials.username)

    def check_address(self, *, public: bool) -> None:
        """Accept any address: a password is asked for everywhere."""

    def check_new_password(self, password: str) -> None:
        """Raise `Invalid` for a password that must not be set; the message names the limit."""
        least = self._settings.min_length
        if len(password) < least:
            raise Invalid(
                f"a password needs at least {least} characters",
                field="password",
                code="password-too-short",
                least=least,
            )
        if len(password.encode(errors="replace")) > MAX_BYTES:
            raise Invalid(
                f"a password may have at most {MAX_BYTES} bytes",
                field="password",
                code="password-too-long",
                most=MAX_BYTES,
            )

    async def hash(self, password: str) -> str:
        """Return what is stored of a password that was checked by `check_new_password`."""
        return await self._in_thread(self._hash, password)

    def _hash(self, password: str) -> str:
        return self._hasher.hash(password.encode(errors="replace"))

    def _verify(self, hash_: str, password: str) -> bool:
        try:
            return self._hasher.verify(hash_, password.encode(errors="replace"))
        except (VerificationError, InvalidHashError):
            return False

    async def _in_thread(self, work: Callable[[Unpack[Arguments]], T], *arguments: *Arguments) -> T:
        if self._inside >= _AT_A_TIME + _WAITING:
            raise Throttled(
                "Too many people are signing in at once.", retry_after=5, code="signin-busy"
            )
        self._inside += 1
        try:
            return await anyio.to_thread.run_sync(work, *arguments, limiter=self._limiter)
        finally:
            self._inside -= 1


def _hash_of_nothing(hasher: PasswordHasher) -> str:
    """
    Return a hash that no password has and that costs the same to check.

    It is checked for names that do not exist, so that the time of an answer tells nothing.
    """

    def random(size: int) -> str:
        return base64.b64encode(secrets.token_bytes(size)).decode().rstrip("=")

    costs = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    return f"$argon2id$v=19${costs}${random(hasher.salt_len)}${random(hasher.hash_len)}"
