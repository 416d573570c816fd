"""What an authenticator promises."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from perijove.kit.config import Section


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Who somebody has proved to be."""

    subject: str
    """The authenticator's own immutable id of the person; often the name."""
    name: str
    """The user name proposed for a new account, before normalisation."""
    groups: Sequence[str] | None = None
    """Groups the authenticator manages; None: it does not."""
    user_info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What the sign-in form sent: everything but ``_xsrf``. Never logged."""

    username: str
    password: str = field(repr=False)
    fields: Mapping[str, str] = field(default_factory=dict, repr=False)


class PasswordStore(Protocol):
    """Where the native authenticator finds and changes hashes; the hub gives it one."""

    async def find_hash(self, name: str) -> str | None:
        """Return the stored hash of a user's password."""
        ...

    async def save_hash(self, name: str, hash_: str) -> None:
        """Store a new hash for an existing user."""
        ...


class Authenticator(Protocol):
    """Checks credentials. Knows neither the database nor HTTP."""

    Settings: ClassVar[type[Section]]
    name: str
    """The section's name, ``[auth.NAME]``; identities are bound to it."""

    async def authenticate(self, credentials: Credentials) -> Proof | None:
        """
        Return who this is, or None when the credentials are wrong.

        Takes about as long for an unknown name as for a wrong password. Raises `Forbidden`
        with a code of its own when the person is known but may not come in, and
        `SpawnerTransient`-like `HubError`s when it cannot tell.
        """
        ...

    def check_address(self, *, public: bool) -> None:
        """Raise `ConfigError` when this way in must not be offered on such an address."""
        ...
