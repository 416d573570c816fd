"""Addresses of hubs, as people copy them, in the one form under which tokens are kept."""

import ipaddress
from typing import Final
from urllib.parse import urlsplit

from perijove.client.errors import BadValue

_HUB: Final = "hub"


def hub_url(text: str, *, allow_http: bool = False) -> str:
    """
    Return the hub's base URL, ending in a slash, for any address of one of its pages.

    Without a scheme it is HTTPS. Raises `BadValue` for what is no address, for a password in
    it, and for plain HTTP to another machine unless it is allowed: it shows the token to
    everybody on the way.
    """
    text = text.strip()
    parts = urlsplit(text if "://" in text else f"https://{text}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme not in ("http", "https") or not host or not text.isprintable():
        raise BadValue(f"{text[:80]!r} is not the address of a hub", hint="https://hub.example.org")
    if parts.username is not None or parts.password is not None:
        raise BadValue("a hub's address holds no name and no password")
    if parts.scheme == "http" and not allow_http and not is_loopback(host):
        raise BadValue(
            f"{parts.scheme}://{host} would show your token to everybody on the way",
            hint="Use https://, or add --allow-http if you are sure.",
        )
    shown = f"[{host}]" if ":" in host else host
    default = {"http": 80, "https": 443}[parts.scheme]
    netloc = shown if port in (None, default) else f"{shown}:{port}"
    return f"{parts.scheme}://{netloc}{_base_path(parts.path)}"


def is_loopback(host: str) -> bool:
    """Tell whether what is sent to `host` stays on this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def origin_of(url: str) -> str:
    """Return scheme and host of a hub's URL."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _base_path(path: str) -> str:
    segments = [segment for segment in path.split("/") if segment]
    if _HUB in segments:
        segments = segments[: segments.index(_HUB)]
    return "/".join(["", *segments, ""])
