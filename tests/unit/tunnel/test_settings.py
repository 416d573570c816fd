"""The section ``[tunnel]``, and what jobs are delivered with for it."""

import ast
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from perijove.agent import job_files
from perijove.tunnel import TunnelSettings


@pytest.mark.parametrize(
    "wrong",
    [
        {"bind": "0.0.0.0:8010"},
        {"url": "hub.example.org:8010"},
        {"url": "ftp://hub.example.org"},
        {"url": "https://hub.example.org/?a=b"},
        {"url": "https://me@hub.example.org/"},
        {"url": "https://hub.example.org:port/"},
        {"url": "https://hub.example.org/\r\nX: y"},
        {"url": "https://h", "tls_cert": Path("cert.pem")},
        {"url": "https://h", "unknown": 1},
    ],
)
def test_what_cannot_work_is_refused(wrong: dict[str, Any]) -> None:
    """A value with which no job could dial in is an error when it is read."""
    with pytest.raises(ValidationError):
        TunnelSettings.model_validate(wrong)


@pytest.mark.parametrize(
    "right",
    [
        {},
        {"url": "https://hub.example.org/hub/tunnel"},
        {"url": "http://10.1.0.1:8010", "bind": "10.1.0.1:8010"},
        {"url": "http://[fd00::1]:8010", "bind": "[fd00::1]:8010"},
    ],
)
def test_what_can_work_is_taken(right: dict[str, Any]) -> None:
    """The ways that the documentation shows are accepted."""
    assert TunnelSettings.model_validate(right).model_dump(include=set(right)) == right


def test_the_nodes_program_is_of_an_old_python() -> None:
    """Both programs of a job are whole, and no syntax in them is newer than Python 3.6."""
    for name in ("tunnel.py", "wrapper.py"):
        text = job_files()[name]
        compile(text, name, "exec")
        ast.parse(text, feature_version=(3, 6))
        assert "from perijove" not in text
