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
    since: str | None
    """Since when it is this reason, where that is known."""


class Place(msgspec.Struct):
    """Where in its spawner's line a launch stands, counted from 1."""

    place: int
    of: int


class Said(msgspec.Struct, kw_only=True):
    """What a person reads, in the language of the request's ``Accept-Language``."""

    state: str
    text: str
    """Why it waits, or how it ended."""
    advice: str


class Launch(msgspec.Struct, kw_only=True):
    """One start of a server: what is wanted, what was seen, and when."""

    id: str
    kind: str
    user: str
    server: str
    spawner: str
    wanted: str
    status: str
    said: Said
    reason: Waiting | None
    expected_start: str | None
    """A forecast of the platform, made at `estimated_at`."""
    estimated_at: str | None
    ends_at: str | None
    """When the platform will end it at the latest."""
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
    log_url: str
    server_url: str


class Event(msgspec.Struct, kw_only=True):
    """Something that happened to a launch; `seq` orders them."""

    seq: int
    at: str
    code: str
    text: str
    """The same in words, in the language of the request."""
    params: dict[str, Any]
    actor: str


class Launches(msgspec.Struct):
    """Answer of ``GET /users/:n/launches``, newest first."""

    launches: list[Launch]


class Events(msgspec.Struct):
    """Answer of ``GET /launches/:id/events``."""

    events: list[Event]


class Log(msgspec.Struct):
    """Answer of ``GET /launches/:id/log``: the last lines of what the launch wrote."""

    text: str
