"""What the doctor takes from a job's output: the person whose job it is may print anything."""

import json

import pytest

from perijove.agent.doctor import MARK
from perijove.spawners.batch.doctor import read_finding


def test_a_finding_of_the_node_is_read() -> None:
    """With what belongs to it; what a newer job adds is passed over."""
    found = read_finding(
        MARK + json.dumps({"check": "port", "ok": True, "host": "c1", "port": 4000, "new": [1]})
    )
    assert found is not None
    assert (found.check, found.ok, found.host, found.port) == ("port", True, "c1", 4000)


@pytest.mark.parametrize(
    "line",
    [
        "perijove-doctor",
        MARK,
        MARK + "[" * 100_000,
        MARK + "[]",
        MARK + "\ud800",
        MARK + '{"check": "port"}',
        MARK + '{"check": ["port"], "ok": true}',
        MARK + '{"check": "port", "ok": true, "port": "22"}',
        MARK + '{"check": "job", "ok": true, "at": NaN}',
        MARK + '{"check": "of my own", "ok": true}',
        " " + MARK + '{"check": "home", "ok": true}',
    ],
)
def test_whatever_else_a_job_prints_is_none(line: str) -> None:
    """Nothing that is not as the doctor's own job writes it, and no check that nobody knows."""
    assert read_finding(line) is None


def test_words_are_of_limited_length() -> None:
    """They go to the terminal of who runs the doctor."""
    found = read_finding(MARK + json.dumps({"check": "home", "ok": False, "words": "a" * 10**6}))
    assert found is not None
    assert len(found.words) == 500
