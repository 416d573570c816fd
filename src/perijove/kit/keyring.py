"""
The installation's keys: what signs, derives and encrypts.

Several keys may be present, so that they can be exchanged: the newest makes new things, all
of them check old ones. They live in a file of mode 0600, or in the environment variable
``PERIJOVE_KEYRING`` (same text), never in the database.
"""

import base64
import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "PERIJOVE_KEYRING"


class KeyringError(Exception):
    """The keyring cannot be used; the message says why and never shows a key."""


@dataclass(frozen=True, slots=True)
class Keyring:
    """Keys by id, oldest first. Each key is 32 random bytes."""

    keys: Mapping[str, bytes]

    @property
    def newest(self) -> str:
        """The id of the key that makes new things."""
        return list(self.keys)[-1]

    def derive(self, purpose: str, *parts: str, key_id: str | None = None, size: int = 32) -> bytes:
        """
        Return `size` ≤ 32 bytes that only holders of the key can compute.

        The same arguments give the same bytes in every process. `parts` are kept apart by
        their lengths, so that no two lists of parts mean the same.
        """
        key = self.keys[key_id or self.newest]
        message = "".join(f"{len(part)}:{part}" for part in (purpose, *parts))
        return hmac.new(key, message.encode(), hashlib.sha256).digest()[:size]

    def server_token(self, launch_id: str, generation: int, *, key_id: str | None = None) -> str:
        """
        Return the API token of a launch's server: 32 hexadecimal characters.

        Derived, so that any replica can repeat a start with the same token although the
        database holds only its hash (design decision 15).
        """
        return self.derive("server-token", launch_id, str(generation), key_id=key_id, size=16).hex()


def parse_keyring(text: str) -> Keyring:
    """Read lines ``id base64key``, oldest first; raises `KeyringError`."""
    keys: dict[str, bytes] = {}
    for number, line in enumerate(text.replace(";", "\n").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        key_id, _, encoded = line.strip().partition(" ")
        try:
            key = base64.b64decode(encoded.strip(), validate=True)
        except ValueError:
            raise KeyringError(f"line {number} of the keyring is not base64") from None
        if len(key) != 32:
            raise KeyringError(f"line {number} of the keyring has {len(key)} bytes, not 32")
        if key_id in keys:
            raise KeyringError(f"line {number} of the keyring has the id of another")
        keys[key_id] = key
    if not keys:
        raise KeyringError("the keyring holds no key")
    return Keyring(keys)


def load_keyring(path: Path, environ: Mapping[str, str]) -> Keyring:
    """
    Return the keyring of the environment, else of the file, which is made when absent.

    Raises `KeyringError` when the file can be read by others.
    """
    if text := environ.get(VARIABLE):
        return parse_keyring(text)
    if not path.exists():
        _make(path)
    mode = path.stat().st_mode
    if mode & 0o077:
        raise KeyringError(f"{path} can be read by others (mode {mode & 0o777:o}): chmod 600")
    return parse_keyring(path.read_text())


def _make(path: Path) -> None:
    """Write a keyring of one key; the file appears whole, and that of another is kept."""
    line = f"{secrets.token_hex(4)} {base64.b64encode(secrets.token_bytes(32)).decode()}\n"
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    with suppress(FileExistsError):
        os.link(new, path)
    new.unlink()
