"""One small POST of JSON: how all that runs beside a server talks to the hub."""

import contextlib
import json
import urllib.parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ANSWER_SECONDS = 25  # The hub itself asks the scheduler and connects back meanwhile.
LONGEST_ANSWER = 4 << 20


class Answer:
    """What the hub answered; status 0: nothing at all, and `detail` says why."""

    def __init__(self, status: int, body: "dict[str, Any]", retry_after: float = 0) -> None:
        self.status = status
        self.body = body
        self.retry_after = retry_after
        self.code = str(body.get("code", ""))
        self.detail = str(body.get("detail", ""))

    @property
    def is_final(self) -> bool:
        """Tell whether asking the same again is useless."""
        return 200 <= self.status < 500 and self.status not in (404, 408, 425, 429)


def post(url: str, body: "dict[str, Any]", token: str = "") -> Answer:
    """
    Send `body` as JSON and return the answer; whatever goes wrong is one too.

    No proxy of the environment is used.
    """
    # It takes longer to import than all else of a program that mostly has nothing to say.
    import http.client  # noqa: PLC0415

    fields = {"Content-Type": "application/json"}
    if token:
        fields["Authorization"] = "token " + token
    try:
        parts = urllib.parse.urlsplit(url)
        is_safe = parts.scheme == "https"
        kind = http.client.HTTPSConnection if is_safe else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=ANSWER_SECONDS)
        with contextlib.closing(connection):
            connection.request("POST", parts.path, json.dumps(body).encode("ascii"), fields)
            response = connection.getresponse()
            raw = response.read(LONGEST_ANSWER)
            pause = seconds_of(response.getheader("retry-after"))
            return Answer(response.status, fields_of(raw), pause)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return Answer(0, {"detail": f"{url}: {error!r}"})


def fields_of(raw: bytes) -> "dict[str, Any]":
    """Return the JSON object of a body; empty for anything else, such as a gateway's page."""
    try:
        found = json.loads(raw.decode("utf-8", "replace"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def seconds_of(text: "str | None") -> float:
    """Return the seconds of a ``Retry-After`` that has some."""
    return min(float(text), 300.0) if text and text.isdigit() else 0.0
