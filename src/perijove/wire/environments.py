"""Bodies about persistent environments: for people's programs, and for the session's own."""

import msgspec


class Environment(msgspec.Struct, kw_only=True):
    """One environment of a person."""

    id: int
    name: str
    owner: str
    maker: str
    """``hub``: asked for here; ``hand``: found there, and only its owner changes it."""
    place: str
    """On which storage it lies."""
    state: str
    """``wanted``, ``building``, ``ready``, ``failed`` or ``removing``."""
    packages: list[str]
    """What was asked for."""
    locked: bool
    """It is made from its lock, and cannot be changed or removed before it is unlocked."""
    has_lock: bool
    shared_with: list[str]
    """Groups whose members may make their own of it."""
    size_bytes: int | None
    error: str
    created_at: str
    changed_at: str
    seen_at: str | None
    """When a session last spoke of it."""


class Environments(msgspec.Struct, kw_only=True):
    """What a person has, what others share, and where new ones can lie."""

    environments: list[Environment]
    shared: list[Environment]
    places: list[str]


# --- what the program in a session says and hears (`agent/environments.py`) --------------------


class Report(msgspec.Struct, kw_only=True):
    """What became of one."""

    id: int
    revision: int
    state: str
    """``building``, ``ready``, ``failed``, or ``removed``."""
    error: str = ""
    lock: str = ""
    size_bytes: int = 0


class Sync(msgspec.Struct, kw_only=True):
    """What a session tells: the names of all that lie there, and what changed."""

    found: list[str] = []
    reports: list[Report] = []


class Task(msgspec.Struct, kw_only=True):
    """What is to lie there, or not any more."""

    id: int
    revision: int
    name: str
    wanted: bool
    packages: list[str]
    lock: str = ""
    """Exact versions to build it from; empty: from `packages`."""


class Work(msgspec.Struct, kw_only=True):
    """The answer to `Sync`."""

    again_in: float
    """Seconds until the session is to ask again."""
    environments: list[Task]
