"""
Errors to answers: the one table from error class to HTTP status.

Three forms, by where the request went: the wire's JSON on the wire's paths, problem+json on
our own, a page for people. A 5xx says nothing but the request's id: the log has the rest.
"""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Final

import msgspec

from perijove.domain.errors import (
    Conflict,
    Forbidden,
    Gone,
    HubError,
    Invalid,
    NotFound,
    Refused,
    SpawnerError,
    SpawnerRejected,
    SpawnerTransient,
    Throttled,
)
from perijove.wire.launches import ProblemDetails
from perijove.wire.rest import Problem

HIDDEN: Final = "No access to resources or resources not found"
"""What is said of things that do not exist, and of those that are not for the caller."""


class BodyTooLarge(HubError):
    """The request's body is longer than any that is expected."""

    code = "body-too-large"


class MethodNotAllowed(HubError):
    """The path exists, and cannot be asked this."""

    code = "method-not-allowed"


class StartFailed(HubError):
    """A server ended before it was ready, while the request waited for it."""

    code = "start-failed"


STATUS: Final[dict[type[HubError], int]] = {
    NotFound: 404,
    Conflict: 409,
    Gone: 410,
    Forbidden: 403,
    Refused: 403,
    Throttled: 429,
    Invalid: 400,
    BodyTooLarge: 413,
    MethodNotAllowed: 405,
    SpawnerTransient: 503,
    SpawnerRejected: 422,
    SpawnerError: 502,
    StartFailed: 500,
}
_SPEAKS: Final = (StartFailed, SpawnerTransient)
"""Whose own words are shown although the status is a 5xx."""


def status_of(error: Exception) -> int:
    """Return the HTTP status of an error; what is not ours, and what is not listed, is a 500."""
    for kind in type(error).__mro__:
        if kind in STATUS:
            return STATUS[kind]
    return 500


def wire_problem(error: Exception, request_id: str) -> tuple[int, bytes]:
    """Return status and body of an error on the wire's paths (wire §2.1)."""
    status = 400 if isinstance(error, Refused) else status_of(error)
    message = _message(error, status, request_id)
    return status, msgspec.json.encode(Problem(status, message))


def own_problem(error: Exception, request_id: str) -> tuple[int, bytes]:
    """Return status and body of an error on our own paths, as problem+json."""
    status = status_of(error)
    known = error if isinstance(error, HubError) else HubError("")
    details = ProblemDetails(
        title=HTTPStatus(status).phrase,
        status=status,
        code=known.code,
        detail=_message(error, status, request_id),
        hint=known.hint,
        request_id=request_id,
        field=getattr(error, "field", ""),
        params={} if status >= 500 else dict(known.params),
    )
    return status, msgspec.json.encode(details, enc_hook=str)


def plain(status: int, request_id: str) -> str:
    """Return the text for people when not even a page can be made."""
    return f"{HTTPStatus(status).phrase} (request {request_id})"


def headers_of(error: Exception) -> Iterator[tuple[bytes, bytes]]:
    """Yield the headers that say what a wire's body has no room for."""
    if isinstance(error, Throttled):
        yield b"retry-after", str(max(1, round(error.retry_after))).encode()
    if not isinstance(error, HubError):
        return
    yield b"x-perijove-code", _header(error.code)
    if error.hint:
        yield b"x-perijove-hint", _header(error.hint)
    if isinstance(error, Refused):
        yield b"x-perijove-rule", _header(error.rule)
        yield b"x-perijove-limit", _header(error.limit)
        yield b"x-perijove-asked", _header(error.asked)


def _message(error: Exception, status: int, request_id: str) -> str:
    phrase = HTTPStatus(status).phrase
    if status >= 500 and not isinstance(error, _SPEAKS):
        return plain(status, request_id)
    return str(error) or phrase


def _header(value: object) -> bytes:
    """Write a value so that it fits one header line, whatever it holds."""
    text = str(value).encode("ascii", "backslashreplace").decode()
    return "".join(c if c.isprintable() else " " for c in text)[:500].encode()
