"""
Where to go next, when a stranger's link may have said so (wire §4.3).

The result is a path on this very origin or nothing. An address that names our own host is
reduced to its path; everything else that names a host is ignored. Browsers read a backslash
as a slash, drop tabs and line ends, and take two slashes for the beginning of a host
(CVE-2026-33709), so none of these may come first or at all.
"""

import re
from urllib.parse import quote, urlsplit

from starlette.requests import HTTPConnection

from perijove.services.hub import Hub

MAX_LENGTH = 8192
"""A longer address is ignored; an authorize URL with a long state has about two thousand."""
_UNSAFE = re.compile(r"[\x00-\x20\x7f-\x9f\ud800-\udfff]")
_LEADING = re.compile(r"^/{3,}")


def safe_next(value: str | None, *, hosts: frozenset[str]) -> str | None:
    """
    Return the path to go to; None when `value` names none here.

    `hosts` are our own, as ``host`` or ``host:port`` in lower case.
    """
    if not value or len(value) > MAX_LENGTH or _UNSAFE.search(value):
        return None
    value = _LEADING.sub("//", value.replace("\\", "%5C"))
    try:
        parts = urlsplit(value)
    except ValueError:
        return None
    if parts.scheme not in ("", "http", "https"):
        return None
    if parts.scheme or parts.netloc:
        if parts.netloc.lower() not in hosts:
            return None
        value = value[value.index("//") + 2 + len(parts.netloc) :] or "/"
    if not value.startswith("/"):
        return None
    return "/" + value.lstrip("/")


def next_of(hub: Hub, request: HTTPConnection) -> str | None:
    """Return where the request's ``next`` leads, if it may."""
    own = urlsplit(hub.settings.url).netloc or request.headers.get("host", "")
    return safe_next(request.query_params.get("next"), hosts=frozenset({own.lower()}))


def login_url(hub: Hub, request: HTTPConnection) -> str:
    """Return the address of the sign-in page that leads back to this request."""
    raw: bytes = request.scope.get("raw_path") or quote(request.scope["path"]).encode()
    query: bytes = request.scope.get("query_string", b"")
    target = raw + b"?" + query if query else raw
    return f"{hub.hub_prefix}login?next={quote(target.decode('latin-1'), safe='')}"
