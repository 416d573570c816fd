"""Bodies of our own resources below ``/hub/api/perijove/``: the whole truth about launches."""

from typing import Any

import msgspec


class ProblemDetails(msgspec.Struct, kw_only=True, omit_defaults=True):
    """An error, as RFC 9457 has it, with our stable `code`."""

    title: str
    status: int
    code: str
    detail: str = ""
    hint: str = ""
    request_id: str = ""
    field: str = ""
    params: dict[str, Any] = {}


class Ended(msgspec.Struct, kw_only=True):
    """Why a launch ended."""

    cause: str
    code: int | None
    reason: str
    detail: str


class Waiting(msgspec.Struct, kw_only=True):
    """Why a launch waits: a stable word, what fills its sentence, the platform's own words."""

    code: str
    params: dict[str, Any]
    words: str


class Place(msgspec.Struct):
    """Where in its spawner's line a launch stands, counted from 1."""

    place: int
    of: int


class Launch(msgspec.Struct, kw_only=True):
    """One start of a server: what is wanted, what was seen, and when."""

    id: str
    kind: str
    user: str
    server: str
    spawner: str
    wanted: str
    status: str
    reason: Waiting | None
    line: Place | None
    clock: str | None
    """Which of the four clocks runs."""
    entered_at: str
    """Since when the status is what it is."""
    unknown_since: str | None
    timeline: dict[str, str]
    """When each status was first entered."""
    end: Ended | None
    node: str
    profile: str
    profile_revision: int
    options: dict[str, Any]
    resources: dict[str, Any]
    decision: list[dict[str, Any]]
    """Rules of policy that bound it: rule, policy, limit."""
    after: str | None
    last_activity: str | None
    heard_at: str | None
    url: str
    events_url: str


class Event(msgspec.Struct, kw_only=True):
    """Something that happened to a launch; `seq` orders them."""

    seq: int
    at: str
    code: str
    params: dict[str, Any]
    actor: str


class Launches(msgspec.Struct):
    """Answer of ``GET /users/:n/launches``, newest first."""

    launches: list[Launch]


class Events(msgspec.Struct):
    """Answer of ``GET /launches/:id/events``."""

    events: list[Event]
