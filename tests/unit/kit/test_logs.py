"""What log lines look like, and what they never hold."""

import json

import pytest
import structlog

from perijove.kit.logs import MASK, configure, mask


@pytest.fixture(autouse=True)
def _structlog_as_it_was() -> object:
    """Leave the set-up of other tests alone."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)
    structlog.contextvars.clear_contextvars()


SECRETS = {
    "password": "hunter2hunter2",
    "client_secret": "c0ffee",
    "server_token": "abcdef0123456789",
    "Authorization": "token abcdef",
    "_xsrf": "xsrf-value",
    "cookie": "a=b",
}


@pytest.mark.parametrize("key", SECRETS)
def test_mask_hides_values_by_key(key: str) -> None:
    """A value under a key that names a secret is replaced."""
    assert mask(None, "info", {"event": "x", key: SECRETS[key]})[key] == MASK


@pytest.mark.parametrize(
    "text",
    [
        "GET /hub/login?link=Op0nGH14OPTYd6 failed",
        "https://hub/cb?code=abcdefghi&state=xyzxyzxyz",
        "Authorization: Bearer abcdefghi",
        "sent token 0123456789abcdef",
    ],
)
def test_mask_hides_values_in_text(text: str) -> None:
    """A secret inside a longer text is replaced, the rest is kept."""
    masked = mask(None, "info", {"event": "x", "words": text})["words"]

    assert MASK in masked
    for secret in ("Op0nGH14OPTYd6", "abcdefghi", "0123456789abcdef", "xyzxyzxyz"):
        assert secret not in masked


@pytest.mark.parametrize("style", ["json", "console"])
def test_traceback_shows_no_variable(style: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A logged exception has its traceback, but never the values of local variables."""
    configure(style=style)
    server_token = "7c9e6679f0b54d0a8b1c"
    try:
        int(f"/x?token={server_token}")
    except ValueError:
        structlog.get_logger().exception("it_failed")

    said = capsys.readouterr().err
    assert "ValueError" in said
    assert server_token not in said


def test_json_line_has_event_level_program_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    """A line for machines is one JSON object with the common facts."""
    configure(style="json", program="hub")
    structlog.get_logger().info("server_ready", seconds=1.5)

    line = json.loads(capsys.readouterr().err)
    assert {"event", "level", "program", "timestamp", "seconds"} <= set(line)
