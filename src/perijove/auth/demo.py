"""Sign-in for trials: whoever knows the one rule is whoever they say."""

import hmac
from typing import Annotated, ClassVar

from pydantic import AfterValidator

from perijove.auth.contract import Credentials, PasswordStore, Proof
from perijove.domain.errors import ConfigError
from perijove.domain.names import normalise_user_name
from perijove.kit.config import Section

_SAME = "same-as-username"
_ANY = "any"
_FIXED = "fixed:"


def _check_rule(value: str) -> str:
    if value in (_SAME, _ANY):
        return value
    if value.startswith(_FIXED) and value != _FIXED:
        return value
    raise ValueError('must be "same-as-username", "any" or "fixed:" and a password')


class DemoSettings(Section):
    """Sign-in for trials, without accounts. Never for the public."""

    password: Annotated[str, AfterValidator(_check_rule)] = _SAME
    """`same-as-username`, `any`, or `fixed:` followed by the password for everybody."""
    allow_public: bool = False
    """Offer it on an address that others can reach: anyone there can then be anyone."""


class DemoAuthenticator:
    """Believes the user name, given the password the settings describe."""

    Settings: ClassVar[type[Section]] = DemoSettings
    names_system_accounts: ClassVar[bool] = False

    def __init__(
        self,
        settings: DemoSettings,
        *,
        name: str,
        passwords: PasswordStore,
    ) -> None:
        self.name = name
        self._settings = settings

    async def authenticate(self, credentials: Credentials) -> Proof | None:
        """Return who this claims to be, or None when the password breaks the rule."""
        if not self._accepts(credentials):
            return None
        return Proof(subject=normalise_user_name(credentials.username), name=credentials.username)

    def _accepts(self, credentials: Credentials) -> bool:
        rule = self._settings.password
        if rule == _ANY:
            return True
        right = credentials.username if rule == _SAME else rule.removeprefix(_FIXED)
        return hmac.compare_digest(
            credentials.password.encode(errors="replace"), right.encode(errors="replace")
        )

    def check_address(self, *, public: bool) -> None:
        """Refuse an address that others can reach, unless the settings allow it."""
        if public and not self._settings.allow_public:
            raise ConfigError(
                f"auth.{self.name}: sign-in for trials lets anyone be anyone, and hub.bind or"
                " hub.url is an address that others can reach; bind to 127.0.0.1, use another"
                f" authenticator, or set auth.{self.name}.allow_public = true"
            )
