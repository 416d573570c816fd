"""What an administrator can set about tunnels, and what `run` needs to know."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import model_validator

from perijove.kit.config import Section
from perijove.proxy.settings import ControlAddress


class TunnelSettings(Section):
    """Tunnels, for clusters where only jobs can connect outward."""

    url: str = ""
    """Where jobs dial to, such as ``https://hub.example.org/hub/tunnel`` or
    ``http://10.1.0.1:8010``. Set it to have tunnels; a cluster uses them with ``tunnel = true``
    in its section. Below the hub's own address the embedded proxy passes them on; any other
    needs `bind`."""

    bind: str = ""
    """Address of its own at which jobs reach the tunnels, ``host:port``. A restart of the proxy
    does not touch a tunnel that does not lead through it."""

    tls_cert: Path | None = None
    """PEM file with the certificate chain. With `tls_key`, `bind` speaks TLS."""

    tls_key: Path | None = None
    """PEM file with the private key of `tls_cert`."""

    tls_ca: Path | None = None
    """PEM file with the authority that signed it, if the nodes do not know that one."""

    @model_validator(mode="after")
    def _can_work(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together: set both, or neither")
        if self.url and not is_usable(self.url):
            raise ValueError("url must be an http or https address, without query")
        if self.bind and not self.url:
            raise ValueError("bind alone does nothing: url says where jobs dial to")
        return self


def is_usable(url: str) -> bool:
    """Tell whether a job can dial to `url`."""
    try:
        parts = urlsplit(url)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        return False
    is_plain = url.isascii() and url.isprintable() and " " not in url
    rest = parts.query or parts.fragment or parts.username
    return (
        is_plain
        and has_port
        and parts.scheme in ("http", "https")
        and bool(parts.hostname and not rest)
    )


@dataclass(frozen=True, slots=True)
class TunnelOptions:
    """Everything one run of the tunnels is given."""

    control: ControlAddress
    """The hub."""

    directory: Path
    """Where the launches' sockets are made; only this program's account may enter it."""

    settings: TunnelSettings = field(default_factory=TunnelSettings)

    @property
    def front(self) -> Path:
        """The socket at which the proxy hands on nodes that dial the hub's own address."""
        return self.directory / "front.sock"
