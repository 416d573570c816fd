"""What the client makes of answers, and of none: against a server that says what it is told."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from perijove.cli.waiting import Watched, watch
from perijove.client.connection import Connection
from perijove.client.errors import ClientError, NotSignedIn, Refused, Unreachable
from perijove.client.hub import Hub
from perijove.client.models import Launch
from perijove.client.store import Access

TOKEN = "secret-of-ann"
AT = "2026-11-20T12:00:00.000000Z"
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


@dataclass(slots=True)
class Script:
    """Answers, one for each request, the last one for all that follow."""

    answers: list[tuple[int, dict[str, str], bytes]]
    url: str = ""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and authorization of each request."""


@contextmanager
def answering(*answers: tuple[int, dict[str, str], bytes]) -> Iterator[Script]:
    """Serve a script on a free port."""
    script = Script(list(answers))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer as the script says."""
            script.asked.append((self.command, self.path, self.headers.get("Authorization", "")))
            is_last = len(script.answers) == 1
            status, headers, body = script.answers[0] if is_last else script.answers.pop(0)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    script.url = f"http://127.0.0.1:{server.server_port}/"
    try:
        yield script
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def answer(status: int, value: Any, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Return an answer in JSON."""
    return (
        status,
        {name.replace("_", "-"): text for name, text in headers.items()},
        (json.dumps(value).encode()),
    )


def connect(script: Script) -> Connection:
    """Return a connection of ann's."""
    return Connection(Access(url=script.url, token=TOKEN), seconds=5)


def test_a_redirect_is_not_followed() -> None:
    """The token is for one hub, whatever that one says."""
    with (
        answering((200, {}, b"{}")) as other,
        answering((302, {"Location": other.url}, b"")) as hub,
    ):
        with pytest.raises(Unreachable, match="sends us on to"):
            connect(hub).ask("GET", "/user")
        assert [authorization for _, _, authorization in hub.asked] == [f"token {TOKEN}"]
        assert other.asked == []


@pytest.mark.parametrize(
    ("given", "kind", "code", "said"),
    [
        (answer(403, {"message": "Forbidden"}, X_Perijove_Code="forbidden"), NotSignedIn,
         "not-signed-in", "does not take your token"),
        (answer(401, {"message": "no"}), NotSignedIn, "not-signed-in", "no"),
        (answer(403, {"message": "more scopes"}, X_Perijove_Code="scope-missing"), Refused,
         "scope-missing", "more scopes"),
        (answer(400, {"title": "Bad", "code": "server-name", "detail": "no name", "field": "name"}),
         Refused, "server-name", "no name"),
        (answer(404, {"message": "Not Found"}), Refused, "http-404", "Not Found"),
        ((404, {}, b"<html>"), Unreachable, "unreachable", "not as a hub does"),
        ((502, {}, b""), Unreachable, "unreachable", "not as a hub does"),
        (answer(500, [1]), Unreachable, "unreachable", "not as a hub does"),
    ],
)  # fmt: skip
def test_every_answer_that_says_no_is_an_error(
    given: tuple[int, dict[str, str], bytes], kind: type[ClientError], code: str, said: str
) -> None:
    """With the hub's own code and words, and never with the token."""
    with answering(given) as script, pytest.raises(kind, match=said) as error:
        connect(script).ask("GET", "/user")
    assert error.value.code == code
    assert TOKEN not in f"{error.value}{error.value.hint}"


def test_what_is_no_hub_is_said() -> None:
    """JSON that is not what was asked for, and text that is no JSON."""
    for body in (b"[]", b"{", b'{"name": "x"}'):
        with answering((200, {}, body)) as script, pytest.raises(Unreachable):
            Hub(connect(script)).version()


def test_nobody_there_is_said_with_the_address() -> None:
    """And not as a traceback."""
    with answering((200, {}, b"{}")) as script:
        pass
    with pytest.raises(Unreachable, match="does not answer: Connection refused"):
        connect(script).ask("GET", "/")


def test_the_launch_of_another_version_of_the_hub_is_read() -> None:
    """Keys that are not known are left, those that are missing have a default."""
    given = {"id": "lch_1", "status": "ready", "entered_at": AT, "new-in-2030": [1]}
    with answering(answer(200, given)) as script:
        launch = Hub(connect(script)).launch("lch_1")
    assert launch.is_ready
    assert launch.said.text == ""


def test_a_hub_that_restarts_is_waited_for() -> None:
    """Neither an answer of the proxy in front of it nor silence ends the view."""
    launch = {"id": "lch_1", "status": "queued", "entered_at": AT}
    ready = {**launch, "status": "ready"}
    answers = [
        answer(503, {"message": "the hub restarts"}),
        (502, {}, b"<html>"),
        answer(200, launch),
        answer(200, {"events": []}),
        answer(404, {"message": "an older hub tells nothing of this"}),
        answer(200, ready),
        answer(200, {"events": []}),
    ]
    shown: list[tuple[str, bool]] = []

    def show(watched: Watched) -> None:
        shown.append((watched.launch.status, watched.away_since is not None))

    with answering(*answers) as script:
        known = Launch(id="lch_1", status="submitted", entered_at=NOON)
        found = watch(
            Hub(connect(script)),
            known,
            until=lambda now: now.is_ready,
            show=show,
            pause=lambda _: None,
        )
    assert found.is_ready
    assert shown == [
        ("submitted", True), ("submitted", True), ("queued", False), ("ready", False),
    ]  # fmt: skip


def test_a_launch_that_is_gone_ends_the_view() -> None:
    """What the hub refuses for good is not asked for again and again."""
    with answering(answer(404, {"message": "gone"})) as script, pytest.raises(Refused):
        watch(
            Hub(connect(script)),
            Launch(id="lch_1", status="queued", entered_at=NOON),
            until=lambda now: now.is_ready,
            show=lambda _: None,
            pause=lambda _: None,
        )
