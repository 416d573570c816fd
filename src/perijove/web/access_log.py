"""One line per request."""

import asyncio
import sys
from typing import BinaryIO, Final

import msgspec

from perijove.kit.clock import Clock, isoformat
from perijove.web.asgi import Scope
from perijove.web.exchange import Exchange


class AccessLog:
    """
    One line per request, in the form of the other log lines; never a query, never a secret.

    The lines of one round of the event loop are written together: a system call costs as much
    as all the rest of a line.
    """

    def __init__(
        self, clock: Clock, *, as_json: bool, stream: BinaryIO | None = None, is_on: bool = True
    ) -> None:
        self._clock = clock
        self._is_on = is_on
        self._as_json = as_json
        self._stream = stream or sys.stderr.buffer
        self._lines: list[bytes] = []

    def write(self, scope: Scope, exchange: Exchange, seconds: float) -> None:
        """Write the line of an answered request, at the end of this round of the loop."""
        if not self._is_on:
            return
        line = {
            "event": "request",
            "level": "info",
            "timestamp": isoformat(self._clock.now()),
            "request_id": exchange.request_id,
            "method": scope["method"],
            "path": path_shown(scope["path"]),
            "status": exchange.status,
            "seconds": round(seconds, 6),
            "user": exchange.user,
        }
        if not self._lines:
            asyncio.get_running_loop().call_soon(self._flush)
        if self._as_json:
            self._lines.append(_encode(line))
        else:
            words = "{timestamp} {method} {path} {status} {seconds:.4f}s {user} {request_id}"
            self._lines.append(words.format(**line).encode("utf-8", "replace"))

    def _flush(self) -> None:
        lines, self._lines = self._lines, []
        lines.append(b"")
        self._stream.write(b"\n".join(lines))
        self._stream.flush()


_encode: Final = msgspec.json.Encoder().encode
_NOT_SHOWN_BELOW: Final = "/authorizations/"
"""Below it the wire has paths that hold a token or a cookie."""


def path_shown(path: str) -> str:
    """Return a path as a log line may show it: printable, not endless, without secrets."""
    head, marker, _ = path.partition(_NOT_SHOWN_BELOW)
    shown = f"{head}{marker}(secret)" if marker else path
    if shown.isascii() and shown.isprintable():
        return shown[:500]
    return shown[:500].encode("unicode_escape").decode("ascii")
