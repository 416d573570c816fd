"""What holds for every request: ids, trust, limits, headers, errors, the access log."""

import io
import json
from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from anyio.lowlevel import checkpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from structlog.testing import capture_logs

from perijove.db.core import open_database
from perijove.domain.errors import Conflict, Refused, Throttled
from perijove.kit.clock import SystemClock
from perijove.kit.keyring import Keyring
from perijove.services.hub import Hub
from perijove.services.sections import HubSection, LifecycleSection
from perijove.web.access_log import AccessLog
from perijove.web.asgi import App, Message, Receive, Scope, Send, read_body, respond
from perijove.web.edge import MOST_BODY, Edge
from perijove.web.exchange import exchange_of

pytestmark = pytest.mark.anyio

Answer = tuple[int, dict[str, str], bytes]


def make_hub(tmp_path: Path) -> Hub:
    """Return a hub that is not running: the edge needs its settings and metrics only."""
    return Hub(
        database=open_database(f"sqlite:///{tmp_path}/hub.db"),
        clock=SystemClock(),
        keyring=Keyring({"test": b"k" * 32}),
        installation="test",
        settings=HubSection(),
        lifecycle=LifecycleSection(),
        api_url="http://127.0.0.1:8081/hub/api",
    )


async def error_page(_hub: Hub, _request: Request, status: int, error: Exception) -> Response:
    """Stand for the pages; breaks on demand, as a database that is away breaks them."""
    if str(error) == "and the page breaks too":
        raise RuntimeError("no page today")
    return PlainTextResponse(f"page: {error}", status)


class Site:
    """An edge around an application, and what came out of it."""

    def __init__(self, tmp_path: Path, app: App, *, trusted: Sequence[str] = ()) -> None:
        self.hub = make_hub(tmp_path)
        self.log = io.BytesIO()
        self.edge = Edge(
            self.hub,
            app,
            access_log=AccessLog(self.hub.clock, as_json=True, stream=self.log),
            error_page=error_page,
            trusted=[ip_network(each) for each in trusted],
        )

    async def ask(
        self,
        path: str = "/hub/home",
        *,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        client: tuple[str, int] | None = ("203.0.113.9", 4711),
        body: Sequence[bytes] = (b"",),
    ) -> Answer:
        """Send one request and return status, headers and body."""
        parts = [*body]
        scope: Scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"code=secret-code&_xsrf=secret-xsrf",
            "headers": [(k.encode(), v.encode()) for k, v in (headers or {}).items()],
            "client": client,
            "scheme": "http",
        }
        sent: list[Message] = []

        async def receive() -> Message:
            part = parts.pop(0) if parts else b""
            return {"type": "http.request", "body": part, "more_body": bool(parts)}

        async def send(message: Message) -> None:
            sent.append(message)

        await self.edge(scope, receive, send)
        start, *rest = sent
        found = {name.decode(): value.decode() for name, value in start["headers"]}
        return start["status"], found, b"".join(message.get("body", b"") for message in rest)


def saying(status: int = 200, body: bytes = b"hello", **given: Any) -> App:
    """Return an application that always says the same."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        exchange_of(scope).is_api = given.get("is_api", False)
        exchange_of(scope).is_own = given.get("is_own", False)
        await respond(send, status, body)

    return app


def raising(error: Exception, *, is_api: bool = False, is_own: bool = False) -> App:
    """Return an application that fails."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        exchange_of(scope).is_api, exchange_of(scope).is_own = is_api, is_own
        raise error

    return app


async def reading(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the whole body and say how long it was."""
    exchange_of(scope).is_api = True
    body = await read_body(receive, limit=1 << 40)
    await respond(send, 200, str(len(body or b"")).encode())


async def telling(scope: Scope, receive: Receive, send: Send) -> None:
    """Say who asks, as the application sees it."""
    host = dict(scope["headers"]).get(b"host", b"").decode()
    told = [scope["client"] and scope["client"][0], scope["scheme"], host]
    await respond(send, 200, json.dumps(told).encode())


# --- headers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_api", [True, False])
async def test_every_response_has_the_common_headers(tmp_path: Path, is_api: bool) -> None:
    """Versions and a content policy that reports, frames nothing and names no scheme."""
    _, headers, _ = await Site(tmp_path, saying(is_api=is_api)).ask()

    policy = headers["content-security-policy"]
    assert headers["x-jupyterhub-version"] == "6.1.1"
    assert headers["x-perijove-version"]
    assert headers["access-control-allow-headers"] == "accept, content-type, authorization"
    assert "access-control-allow-origin" not in headers
    assert "frame-ancestors 'none'" in policy
    assert "report-uri /hub/security/csp-report" in policy
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert "unsafe" not in policy


async def test_answer_is_sent_once_to_who_has_it(tmp_path: Path) -> None:
    """A 200 to GET carries an ETag; who shows it again gets 304 without the body."""
    site = Site(tmp_path, saying())
    _, headers, _ = await site.ask()
    status, again, body = await site.ask(headers={"if-none-match": f'"x", W/{headers["etag"]}'})
    changed, _, _ = await site.ask(headers={"if-none-match": '"x"'})
    _, posted, _ = await site.ask(method="POST")

    assert (status, body) == (304, b"")
    assert again["etag"] == headers["etag"]
    assert "content-length" not in again
    assert changed == 200
    assert "etag" not in posted


# --- ids and trust ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("client", "given", "is_taken"),
    [
        (None, "abc-123", True),
        (None, "abc 123", False),
        (None, "x" * 65, False),
        (None, 'a"}\\n', False),
        (("203.0.113.9", 1), "abc-123", False),
        (("10.1.2.3", 1), "abc-123", True),
    ],
)
async def test_request_id_is_taken_from_trusted_peers_only(
    tmp_path: Path, client: tuple[str, int] | None, given: str, is_taken: bool
) -> None:
    """A stranger cannot choose what stands in the log; a plain id of our proxy is kept."""
    site = Site(tmp_path, saying(), trusted=["10.0.0.0/8"])
    _, first, _ = await site.ask(client=client, headers={"x-request-id": given})
    _, second, _ = await site.ask()

    assert (first["x-request-id"] == given) is is_taken
    assert first["x-request-id"] != second["x-request-id"]


FORWARDED = {
    "x-forwarded-for": "198.51.100.1, 192.0.2.7, 10.9.9.9",
    "x-forwarded-proto": "https",
    "x-forwarded-host": "hub.example.org",
    "host": "127.0.0.1:8081",
}


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        (None, ["192.0.2.7", "https", "hub.example.org"]),
        (("10.1.2.3", 1), ["192.0.2.7", "https", "hub.example.org"]),
        (("203.0.113.9", 1), ["203.0.113.9", "http", "127.0.0.1:8081"]),
    ],
)
async def test_forwarded_headers_count_from_trusted_peers_only(
    tmp_path: Path, client: tuple[str, int] | None, expected: list[str]
) -> None:
    """The nearest address that no trusted proxy has is the client; strangers say nothing."""
    site = Site(tmp_path, telling, trusted=["10.0.0.0/8"])
    _, _, body = await site.ask(client=client, headers=FORWARDED)

    assert json.loads(body) == expected


# --- bodies -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"content-length": str(MOST_BODY)}, [b"x" * MOST_BODY], 200),
        ({"content-length": str(MOST_BODY + 1)}, [b"x"], 413),
        ({"content-length": str(10 << 20)}, [b"x"], 413),
        ({"transfer-encoding": "chunked"}, [b"x" * (MOST_BODY // 2)] * 2, 200),
        ({"transfer-encoding": "chunked"}, [b"x" * (MOST_BODY // 2)] * 3, 413),
    ],
)
async def test_body_is_limited_however_it_comes(
    tmp_path: Path, headers: dict[str, str], body: list[bytes], status: int
) -> None:
    """A body over the limit is a 413 in JSON, announced or not."""
    answered, _, said = await Site(tmp_path, reading).ask(method="POST", headers=headers, body=body)

    assert answered == status
    if status == 413:
        assert json.loads(said)["message"].endswith(f"{MOST_BODY} bytes")


# --- errors -------------------------------------------------------------------------------------


async def test_errors_take_the_form_of_where_they_happen(tmp_path: Path) -> None:
    """The wire's JSON, problem+json, or a page: the same error, by where the request went."""
    refused = Refused("two asked, one allowed", rule="few", limit=1, asked=2)
    wire = await Site(tmp_path, raising(refused, is_api=True)).ask()
    own = await Site(tmp_path, raising(refused, is_own=True)).ask()
    page = await Site(tmp_path, raising(refused)).ask()

    assert (wire[0], json.loads(wire[2])) == (
        400,
        {"status": 400, "message": "two asked, one allowed"},
    )
    assert wire[1]["x-perijove-rule"] == "few"
    assert own[0] == 403
    assert own[1]["content-type"] == "application/problem+json"
    assert json.loads(own[2])["params"] == {"rule": "few", "limit": 1, "asked": 2}
    assert (page[0], page[2]) == (403, b"page: two asked, one allowed")


async def test_throttled_says_when_to_come_back(tmp_path: Path) -> None:
    """A 429 carries Retry-After."""
    error = Throttled("later", retry_after=41.6)
    status, headers, _ = await Site(tmp_path, raising(error, is_api=True)).ask()

    assert (status, headers["retry-after"]) == (429, "42")


async def test_our_own_faults_say_nothing_but_their_id(tmp_path: Path) -> None:
    """What went wrong inside is in the log, under the id that the answer shows."""
    error = RuntimeError("password=hunter2")
    for given in ({"is_api": True}, {"is_own": True}):
        with capture_logs() as logs:
            status, headers, body = await Site(tmp_path, raising(error, **given)).ask()

        assert status == 500
        assert b"hunter2" not in body
        assert headers["x-request-id"].encode() in body
        assert (logs[0]["event"], logs[0]["request_id"]) == (
            "request_failed",
            headers["x-request-id"],
        )


async def test_page_that_cannot_be_made_is_still_an_answer(tmp_path: Path) -> None:
    """When even the error page fails there is a line of text with the right status."""
    error = Conflict("and the page breaks too")
    with capture_logs() as logs:
        status, headers, body = await Site(tmp_path, raising(error)).ask()

    assert logs[0]["event"] == "error_page_failed"
    assert status == 409
    assert body.decode() == f"Conflict (request {headers['x-request-id']})"


async def test_headers_of_errors_are_one_line_of_ascii(tmp_path: Path) -> None:
    """What a person asked for cannot break out of a header."""
    refused = Refused("no", rule="r", limit=1, asked="x\r\nset-cookie: é")
    _, headers, _ = await Site(tmp_path, raising(refused, is_api=True)).ask()

    assert headers["x-perijove-asked"] == "x  set-cookie: \\xe9"
    assert "set-cookie" not in headers


# --- what is counted and logged -----------------------------------------------------------------


async def test_access_line_has_no_query_and_no_secret_path(tmp_path: Path) -> None:
    """One JSON line per request: no query, and no path that the wire puts a token into."""
    site = Site(tmp_path, saying())
    await site.ask("/hub/api/authorizations/token/abcdef0123456789")
    await site.ask("/hub/user/ä\n/x")
    await _next_round()

    text = site.log.getvalue().decode()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["status"] for line in lines] == [200, 200]
    assert lines[0]["path"] == "/hub/api/authorizations/(secret)"
    assert lines[1]["path"] == "/hub/user/\\xe4\\n/x"
    assert "secret-" not in text
    assert "abcdef0123456789" not in text


async def _next_round() -> None:
    """Let the event loop come round: that is when lines are written."""
    await checkpoint()
    await checkpoint()


async def test_requests_are_counted_by_bounded_labels(tmp_path: Path) -> None:
    """An invented method and an unknown path make no label of their own."""
    site = Site(tmp_path, saying())
    await site.ask("/hub/anything", method="BREW")
    await site.ask("/hub/other", method="BREW")

    count = site.hub.metrics.registry.get_sample_value(
        "jupyterhub_request_duration_seconds_count",
        {"method": "other", "handler": "perijove.web.unmatched", "code": "200"},
    )
    assert count == 2


async def test_websocket_is_closed(tmp_path: Path) -> None:
    """The hub itself speaks no WebSocket."""
    site = Site(tmp_path, saying())
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await site.edge({"type": "websocket", "path": "/hub/x"}, receive, send)

    assert [message["type"] for message in sent] == ["websocket.close"]
