"""HTTP to one hub: JSON in and out, every answer that is no success an exception."""

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from email.message import Message
from http.client import HTTPException, HTTPResponse
from importlib.metadata import version
from typing import IO, Any, Final

from perijove.client.errors import ClientError, NotSignedIn, Refused, Unreachable
from perijove.client.store import Access

_SECONDS: Final = 30.0
_MOST_BYTES: Final = 32 << 20
_SHOWN: Final = 500


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows nothing: the token in the header is for one hub."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> None:
        return None


class Connection:
    """Speaks to a hub as the owner of a token; proxies and certificates as the system has them."""

    def __init__(self, access: Access, *, language: str = "en", seconds: float = _SECONDS) -> None:
        self.url = access.url
        self._headers = {
            "Accept": "application/json",
            "Accept-Language": language,
            "User-Agent": f"perijove/{version('perijove')}",
        }
        if access.token:
            self._headers["Authorization"] = f"token {access.token}"
        self._seconds = seconds
        self._opener = urllib.request.build_opener(_NoRedirect)

    def ask(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """
        Return the body of the answer to a request for ``hub/api`` + `path`.

        Raises `Refused` for an answer that says no, `NotSignedIn` for one that does not know
        the token, and `Unreachable` when there is none.
        """
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked: address.py
            f"{self.url}hub/api{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={**self._headers, **(headers or {})},
        )
        if body is not None:
            request.add_header("Content-Type", "application/json")
        try:
            with self._opener.open(request, timeout=self._seconds) as answer:
                return _read(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error) from None
        except urllib.error.URLError as error:
            raise self._away(error.reason) from None
        except (OSError, HTTPException) as error:
            raise self._away(error) from None

    def _away(self, cause: object) -> ClientError:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Unreachable(
                f"{self.url}: the certificate is not trusted: {cause.verify_message}",
                hint="For a certificate authority of your own set SSL_CERT_FILE.",
                code="certificate",
            )
        words = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        return Unreachable(f"{self.url} does not answer: {words}")

    def _refusal(self, answer: urllib.error.HTTPError) -> ClientError:
        status, headers = answer.code, answer.headers
        if 300 <= status < 400:
            return Unreachable(f"{self.url} sends us on to {headers.get('Location', '?')[:_SHOWN]}")
        try:
            said = json.loads(answer.read(_MOST_BYTES))
        except (ValueError, OSError, HTTPException):
            said = None
        if not isinstance(said, dict):
            return Unreachable(f"{self.url} answered {status}, and not as a hub does")
        code = str(said.get("code") or headers.get("x-perijove-code", ""))
        message = str(said.get("detail") or said.get("message") or said.get("title") or status)
        if status == 401 or (status == 403 and code in ("forbidden", "signin-needed")):
            return NotSignedIn(
                f"{self.url} does not take your token: {message}",
                hint=f"It may have ended or been revoked. Sign in again: perijove login {self.url}",
            )
        hint = str(said.get("hint") or headers.get("x-perijove-hint", ""))
        field = str(said.get("field") or "")
        return Refused(message[:_SHOWN], status=status, hint=hint, code=code, field=field)


def _read(answer: HTTPResponse) -> bytes:
    raw = answer.read(_MOST_BYTES + 1)
    if len(raw) > _MOST_BYTES:
        raise OSError("the answer is too long")
    return raw
