"""Ids and secrets: random, typed by a prefix, safe in URLs and file names."""

import base64
import hashlib
import secrets


def new_id(prefix: str) -> str:
    """Return a fresh id such as ``lch_k3…`` with 80 random bits in lower-case base32."""
    return f"{prefix}_{_base32(10)}"


def new_installation_id() -> str:
    """Return the short name under which this installation's things are known on a platform."""
    return _base32(5)


def platform_name(installation: str) -> str:
    """Return a fresh platform name, ``pj-<installation>-<16 base32 characters>`` (design §2)."""
    return f"pj-{installation}-{_base32(10)}"


def new_secret() -> str:
    """Return a fresh token value: 32 lower-case hexadecimal characters (wire §3.7)."""
    return secrets.token_hex(16)


def hash_secret(value: str) -> str:
    """
    Return what is stored of a secret that a machine made.

    SHA-256 without salt or stretching is right here and only here: the value has 128 random
    bits, so there is nothing to guess, and the hash can be looked up by an index.
    """
    return hashlib.sha256(value.encode()).hexdigest()


def _base32(size: int) -> str:
    return base64.b32encode(secrets.token_bytes(size)).decode().rstrip("=").lower()
