"""Bodies of our own resources about volumes, below ``/hub/api/perijove/volumes``."""

import msgspec


class Volume(msgspec.Struct, kw_only=True):
    """What somebody keeps beyond a launch."""

    name: str
    """On the platform; also its id here."""
    kind: str
    """``server``: of one server; ``user``: of all servers of a person."""
    user: str | None
    """None: its owner's account was deleted."""
    server: str | None
    """None: of no server, or of one that was deleted."""
    attached: bool
    """Whether a start uses it."""
    spawner: str
    path: str
    size_bytes: int | None
    enforced: bool
    """Whether the platform enforces the size; else it is only measured."""
    storage_class: str
    used_bytes: int | None
    measured_at: str | None
    fullness: str
    """``unknown``, ``roomy``, ``nearly-full`` or ``full``."""
    held_by: str
    """Platform name of a launch that has it."""
    created_at: str
    last_used_at: str | None
    missing_since: str | None
    """Since when the platform says that it is not there, though nobody here removed it."""
    delete_after: str | None
    """Deleted; it can be restored until then."""
    removing: bool
    """Being removed; it cannot be restored any more."""


class Unknown(msgspec.Struct, kw_only=True):
    """A volume of this hub on a platform that it knows nothing of; never removed by itself."""

    name: str
    spawner: str
    used_bytes: int | None
    labels: dict[str, str]
    first_seen_at: str


class Volumes(msgspec.Struct, kw_only=True):
    """Answer of ``GET /perijove/volumes``."""

    volumes: list[Volume]
    unknown: list[Unknown]
    """For who may see everybody's."""
