"""The proxy's section of the configuration."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from perijove.proxy.settings import ControlAddress, Limits, ProxyOptions, ProxySettings


def test_limits_are_the_settings_in_seconds() -> None:
    """Durations and sizes of the file become plain numbers; no limit is infinity."""
    limits = Limits.of(
        ProxySettings.model_validate({"idle_timeout": "2 min", "max_head_bytes": "8 KiB"})
    )
    assert limits.idle_seconds == 120
    assert limits.head.max_bytes == 8192
    assert limits.response_seconds == float("inf")


@pytest.mark.parametrize(
    "wrong",
    [
        {"processes": 0},
        {"idle_timeout": "0 s"},
        {"response_timeout": "-1 s"},
        {"max_head_bytes": 10},
        {"trusted_proxies": ["everyone"]},
        {"trusted_proxies": ["10.0.0.1/8"]},
        {"tls_cert": Path("cert.pem")},
        {"tls_key": Path("key.pem")},
        {"unknown": 1},
    ],
)
def test_what_cannot_work_is_refused(wrong: dict[str, Any]) -> None:
    """A value that would make no proxy is an error when it is read."""
    with pytest.raises(ValidationError):
        ProxySettings.model_validate(wrong)


def test_the_secret_is_not_shown() -> None:
    """Options may be logged."""
    options = ProxyOptions(control=ControlAddress("http://127.0.0.1:1", "s3cret"))
    assert "s3cret" not in repr(options)
