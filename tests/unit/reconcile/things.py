"""Launches and sightings for tests of the rules."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from perijove.domain.launch import Kind, Launch, Status, Wanted
from perijove.spawners.contract import Phase, Sighting

NOW = datetime(2020, 11, 20, 12, tzinfo=UTC)
NAME = "pj-a-b"
URL = "http://127.0.0.1:8888"


def launch(status: Status = Status.STARTING, **values: Any) -> Launch:
    """Return a launch in a status."""
    made = Launch(
        id="lch_a",
        kind=Kind.SERVER,
        wanted=Wanted.RUN,
        status=status,
        name=NAME,
        spawner="local",
        user_id=1,
        user_name="ann",
        server_id=1,
        server_name="",
        generation=1,
        spec={},
        requested_at=NOW,
    )
    return replace(made, **values)


def seen(phase: Phase = Phase.RUNNING, **values: Any) -> Sighting:
    """Return a sighting of that launch."""
    return Sighting(name=NAME, phase=phase, **values)
