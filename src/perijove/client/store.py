"""
Tokens on the disk of whoever uses the client: one file, closed to others.

``$XDG_CONFIG_HOME/perijove/credentials.json``, mode 0600 in a directory of mode 0700. A token
is kept under its hub's address and never sent to another.
"""

import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from perijove.client.address import hub_url
from perijove.client.errors import ClientError, NotSignedIn

URL: Final = "PERIJOVE_URL"
TOKEN: Final = "PERIJOVE_TOKEN"  # noqa: S105 - the name of a variable
_MOST_BYTES: Final = 1 << 20
_LOGIN: Final = "perijove login https://hub.example.org"


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """A token and whose it is."""

    token: str
    user: str

    def __repr__(self) -> str:
        return f"Credential(user={self.user!r})"


class Kept(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the file holds."""

    version: int = 1
    default: str = ""
    """The hub that is meant when none is named: the last one signed in to."""
    hubs: dict[str, Credential] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """A hub, and the token to use there."""

    url: str
    token: str = field(repr=False)
    user: str = ""
    """Empty for a token of the environment: the hub knows whose it is."""


class Store:
    """The file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Store":
        """Return where the environment says that configuration is kept."""
        home = environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
        return cls(Path(home) / "perijove/credentials.json")

    def read(self) -> Kept:
        """Return what is kept; raises `ClientError` for a file that others can read."""
        try:
            with self.path.open("rb") as file:
                state = os.fstat(file.fileno())
                raw = file.read(_MOST_BYTES)
        except FileNotFoundError:
            return Kept()
        except OSError as error:
            raise ClientError(f"{self.path}: {error.strerror}") from None
        if stat.S_IMODE(state.st_mode) & 0o077 or state.st_uid != os.geteuid():
            raise ClientError(
                f"{self.path} holds tokens and others can read it, or it is not yours",
                hint=f"Revoke the tokens on the hub's page, then: chmod 600 {self.path}",
                code="credentials-open",
            )
        try:
            return msgspec.json.decode(raw, type=Kept)
        except msgspec.DecodeError:
            raise ClientError(
                f"{self.path} cannot be read",
                hint="Remove it and sign in again.",
                code="credentials-broken",
            ) from None

    def remember(self, url: str, credential: Credential) -> None:
        """Keep a token; its hub becomes the one that is meant when none is named."""
        kept = self.read()
        self._write(Kept(default=url, hubs={**kept.hubs, url: credential}))

    def forget(self, url: str) -> None:
        """Drop a hub's token."""
        kept = self.read()
        hubs = {each: credential for each, credential in kept.hubs.items() if each != url}
        default = kept.default if kept.default in hubs else next(iter(hubs), "")
        self._write(Kept(default=default, hubs=hubs))

    def _write(self, kept: Kept) -> None:
        directory = self.path.parent
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)
            # Made with mode 0600; whoever is interrupted leaves the old file as it was.
            descriptor, name = tempfile.mkstemp(dir=directory, prefix=".credentials-")
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(kept)) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self.path)
        except OSError as error:
            raise ClientError(f"{self.path}: {error.strerror}") from None


def access(store: Store, environ: Mapping[str, str], wanted: str | None) -> Access:
    """
    Return which hub is meant and the token for it.

    The hub is the one named, else that of ``PERIJOVE_URL``, else the default. The token of
    ``PERIJOVE_TOKEN`` belongs to the hub of ``PERIJOVE_URL`` and goes nowhere else. Raises
    `NotSignedIn`.
    """
    from_environment = environ.get(URL, "")
    if environ.get(TOKEN) and not from_environment:
        raise NotSignedIn(f"{TOKEN} is set without {URL}", hint=f"Say in {URL} whose token it is.")
    named = wanted or from_environment
    kept = store.read()
    url = hub_url(named, allow_http=True) if named else kept.default
    if not url:
        raise NotSignedIn("you are not signed in to any hub", hint=f"To sign in: {_LOGIN}")
    if environ.get(TOKEN) and url == hub_url(from_environment, allow_http=True):
        # What was typed by hand is checked at `login`; a variable has nothing else in front.
        return Access(url=hub_url(url), token=environ[TOKEN].strip())
    credential = kept.hubs.get(url)
    if credential is None:
        raise NotSignedIn(
            f"you are not signed in to {url}", hint=f"To sign in: perijove login {url}"
        )
    return Access(url=url, token=credential.token, user=credential.user)
