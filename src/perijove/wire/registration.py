"""Bodies that jobs and containers send to the hub (`agent/post.py`), checked as they are read."""

from typing import Annotated, Any, Literal

import msgspec

Code = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Nonce = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16,64}$")]
Word = Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9-]{0,39}$")]
Short = Annotated[str, msgspec.Meta(max_length=64)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]
Bytes = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Amount = Annotated[float, msgspec.Meta(ge=0, le=2**53)]


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who speaks: one run of one job of one launch."""

    launch_id: Short
    code: Code
    """What the launch's job was given; proves all the rest."""
    nonce: Nonce
    """Made by each run of the wrapper: the same one, the same run."""
    job_id: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_.\[\]-]{1,64}$")]


class Registration(Identity, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST registrations``: here my server will listen."""

    host: Annotated[str, msgspec.Meta(max_length=255, pattern=r"^[0-9A-Za-z.:_-]*$")]
    """Empty, with port 0: at no port, but at the end of the job's tunnel."""
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)]
    wrapper: Annotated[str, msgspec.Meta(max_length=16)] = ""
    versions: dict[Short, Short] = {}


class Listening(Identity, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST registrations/listening``: the server that listens there is mine."""


class Outlook(Identity, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST registrations/outlook``: how much time have I left?"""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """How the server ended, and what it used."""

    exit: Byte | None = None
    signal: Byte | None = None
    out_of_memory: bool = False
    stop_asked: bool = False
    """It was asked to end: why, the scheduler knows."""
    started_at: Amount = 0
    ended_at: Amount = 0
    cpu_seconds: Amount = 0
    memory_peak_bytes: Amount = 0


class Report(Identity, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST registrations/report``."""

    kind: Literal["cannot", "stage", "warning", "end"]
    reason: Word = "other"
    words: Annotated[str, msgspec.Meta(max_length=4000)] = ""
    params: dict[Short, Any] = {}
    usage: Usage = Usage()


class Warned(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST registrations/warning``: what a server with this token has to do without."""

    reason: Literal["volume-full", "volume-read-only", "volume-missing"]
    words: Annotated[str, msgspec.Meta(max_length=4000)] = ""


class Used(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST registrations/volumes``: what a server has counted on its volumes."""

    used: dict[Annotated[str, msgspec.Meta(max_length=4096)], Bytes]
    """By the path at which it has each."""


class TimeLeft(msgspec.Struct, frozen=True):
    """Answer to a question for the outlook; seconds, as clocks may differ."""

    seconds_left: float | None


class Environment(msgspec.Struct, frozen=True):
    """Answer to a registration: what the server's environment gets."""

    environment: dict[str, str]
