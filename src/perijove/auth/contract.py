"""
What an authenticator promises, and how one is made.

An authenticator is a class named by an entry point of the group ``perijove.auth``. It is built
once, as ``Class(settings, name=…, passwords=…)``: its own section of the configuration, the
section's name, and the hub's `PasswordStore` (which only `native` uses). It says who somebody
*is*; which user that makes them, and whether they may come in, the hub decides
(`services/people.py`), so that no authenticator can hand out another one's accounts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from perijove.kit.config import Section


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Who somebody has proved to be."""

    subject: str
    """
    The authenticator's own id of the person, at most 255 characters.

    It must be immutable and never be given to somebody else: accounts are bound to it.
    """
    name: str
    """The user name proposed for a new account, before normalisation."""
    groups: Sequence[str] | None = None
    """
    Groups the person has by this way in; None: it knows of none.

    Those of an earlier sign-in that are no longer among them are taken away again, those that
    somebody else gave are not.
    """
    admin: bool | None = None
    """
    Whether this way in makes the person an administrator; None: it does not say.

    False takes back only what an earlier True gave.
    """
    user_info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What the sign-in form sent: everything but ``_xsrf``. Never logged."""

    username: str
    password: str = field(repr=False)
    fields: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPassword:
    """The hash of a user's password, and whose it is."""

    subject: str
    """The user's immutable id, as text."""
    hash: str = field(repr=False)


class PasswordStore(Protocol):
    """Where the native authenticator finds and renews hashes; the hub gives it one."""

    async def find(self, name: str) -> StoredPassword | None:
        """Return the password of the user of that name, which is not normalised yet."""
        ...

    async def renew(self, old: StoredPassword, hash_: str) -> None:
        """
        Store a new hash of the same password.

        Does nothing when the password was changed since `old` was read.
        """
        ...


class Authenticator(Protocol):
    """Checks credentials. Knows neither the database nor HTTP."""

    Settings: ClassVar[type[Section]]
    names_system_accounts: ClassVar[bool]
    """Whether whoever signs in under a name may act as the system account of that name."""
    name: str
    """The section's name, ``[auth.NAME]``; identities are bound to it."""

    async def authenticate(self, credentials: Credentials) -> Proof | None:
        """
        Return who this is, or None when the credentials are wrong.

        Takes about as long for an unknown name as for a wrong password. Raises `Forbidden`
        with a code of its own when the person is known but may not come in, and
        another `HubError` when it cannot tell; neither counts as a failed attempt.
        """
        ...

    def check_address(self, *, public: bool) -> None:
        """Raise `ConfigError` when this way in must not be offered on such an address."""
        ...
