"""What an administrator can set about the embedded proxy, and what `run` needs to know."""

from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from perijove.kit.config import Duration, Section, Size
from perijove.proxy.head import HeadLimits

Timeout = Annotated[Duration, Field(gt=timedelta(0))]


class ProxySettings(Section):
    """The embedded reverse proxy."""

    processes: int = Field(default=1, ge=1, le=64)
    """Worker processes that share the public address. One serves some ten thousand requests a
    second; raise it when a worker needs a whole core."""

    trusted_proxies: list[IPv4Network | IPv6Network] = Field(default_factory=list)
    """Addresses (CIDR) of the proxies in front of this one. Only what comes from them may say
    with ``X-Forwarded-*`` where a request came from; from everyone else it is dropped."""

    tls_cert: Path | None = None
    """PEM file with the certificate chain. With `tls_key`, the public address speaks HTTPS."""

    tls_key: Path | None = None
    """PEM file with the private key of `tls_cert`."""

    access_log: bool = True
    """Write one JSON line per request to standard output, without query strings."""

    max_head_bytes: Size = Field(default=64 * 1024, ge=1024)
    """Largest head of a request (answered with 431) or response."""

    max_target_bytes: Size = Field(default=32 * 1024, ge=256)
    """Longest request target (answered with 414)."""

    max_fields: int = Field(default=200, ge=10)
    """Most fields in the head of a request (answered with 431) or response."""

    max_connections: int = Field(default=10_000, ge=1)
    """Most connections of clients that one worker holds; more are closed at once."""

    max_connections_per_target: int = Field(default=5_000, ge=1)
    """Most connections of one worker to one target; more requests are answered with 503."""

    buffer_bytes: Size = Field(default=256 * 1024, ge=4096)
    """Bytes held for a receiver that is slower than its sender, before the sender is paused."""

    head_timeout: Timeout = timedelta(seconds=15)
    """Time a client has to send a whole head, from its first byte."""

    idle_timeout: Timeout = timedelta(seconds=75)
    """Time a client's connection may wait for the next request. Never applies to WebSockets."""

    body_timeout: Timeout = timedelta(seconds=30)
    """Interval in which a request body must make progress (at least 1 KiB)."""

    send_timeout: Timeout = timedelta(minutes=5)
    """Time a client may take no byte of a response that waits for it."""

    response_timeout: Timeout | None = None
    """Time a server has to begin its response. None waits for ever: a notebook may take hours."""

    connect_timeout: Timeout = timedelta(seconds=10)
    """Time a server has to accept a connection."""

    upstream_idle_timeout: Timeout = timedelta(seconds=4)
    """Time an unused connection to a server is kept. Shorter than the servers' own limit (the
    hub's is 5 s), so that they seldom close one that is about to be used."""

    half_closed_timeout: Timeout = timedelta(seconds=60)
    """Time a connection may go on without progress when its client has closed its sending side."""

    grace: Timeout = timedelta(seconds=30)
    """Time running requests have to finish when the proxy is told to stop."""

    @model_validator(mode="after")
    def _has_both_files_of_tls(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together: set both, or neither")
        return self


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of `ProxySettings` as the connections use them: plain numbers, seconds."""

    head: HeadLimits
    max_connections: int
    max_connections_per_target: int
    buffer_bytes: int
    head_seconds: float
    idle_seconds: float
    body_seconds: float
    send_seconds: float
    response_seconds: float
    connect_seconds: float
    upstream_idle_seconds: float
    half_closed_seconds: float

    @classmethod
    def of(cls, settings: ProxySettings) -> "Limits":
        """Return the numbers of `settings`."""
        response = settings.response_timeout
        return cls(
            head=HeadLimits(
                settings.max_head_bytes, settings.max_target_bytes, settings.max_fields
            ),
            max_connections=settings.max_connections,
            max_connections_per_target=settings.max_connections_per_target,
            buffer_bytes=settings.buffer_bytes,
            head_seconds=settings.head_timeout.total_seconds(),
            idle_seconds=settings.idle_timeout.total_seconds(),
            body_seconds=settings.body_timeout.total_seconds(),
            send_seconds=settings.send_timeout.total_seconds(),
            response_seconds=float("inf") if response is None else response.total_seconds(),
            connect_seconds=settings.connect_timeout.total_seconds(),
            upstream_idle_seconds=settings.upstream_idle_timeout.total_seconds(),
            half_closed_seconds=settings.half_closed_timeout.total_seconds(),
        )


@dataclass(frozen=True, slots=True)
class ControlAddress:
    """Where the hub answers the proxy: ``unix:/path`` or ``http://host:port`` with the secret."""

    url: str
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class ProxyOptions:
    """Everything one run of the proxy is given."""

    bind: tuple[str, ...] = ()
    """Public addresses to open, ``host:port``; an IPv6 host in brackets."""

    control: ControlAddress | None = None
    """The hub. None serves the snapshot and nothing else."""

    snapshot: Path | None = None
    """File that keeps the last route table, so that a restart routes while no hub answers."""

    listen_fds: tuple[int, ...] = ()
    """Listening sockets that the parent opened already, instead of or beside `bind`."""

    settings: ProxySettings = field(default_factory=ProxySettings)

    die_with_parent: bool = False
    """Stop when the process that started this one ends, however it ends."""
