"""The ``X-Forwarded-*`` fields: ours, or those of a proxy in front that is trusted."""

import asyncio
import re
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

from perijove.proxy.head import END, RequestHead

_PORT = re.compile(rb":([0-9]{1,5})\Z")
_PROTO = re.compile(rb"[a-z]{2,5}")


class Forwarded:
    """Writes the fields for one public address."""

    def __init__(self, trusted: Sequence[IPv4Network | IPv6Network], *, is_tls: bool) -> None:
        self._trusted = tuple(trusted)
        self._proto = b"https" if is_tls else b"http"
        self._port = b"443" if is_tls else b"80"

    def peer(self, transport: asyncio.Transport) -> tuple[bytes, bool]:
        """Return the address of a client, and whether it is a trusted proxy."""
        name = transport.get_extra_info("peername")
        if not isinstance(name, tuple):
            return b"", False
        text = str(name[0]).partition("%")[0]
        if not self._trusted and ":" not in text:
            return text.encode(), False
        address = ip_address(text)
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return str(address).encode(), any(address in network for network in self._trusted)

    def fields(self, peer: bytes, host: bytes) -> bytes:
        """Return the fields, and the blank line, for a client that is not trusted."""
        return self._fields(peer, self._proto, host, self._port_of(host))

    def extend(self, peer: bytes, request: RequestHead) -> bytes:
        """Return the fields, and the blank line, keeping what a trusted proxy has said."""
        hops = [*request.values(b"x-forwarded-for"), *([peer] if peer else ())]
        said_proto = request.values(b"x-forwarded-proto")
        proto = said_proto[0] if said_proto and _PROTO.fullmatch(said_proto[0]) else self._proto
        said_host = request.values(b"x-forwarded-host")
        host = said_host[0] if said_host else request.fields.host
        said_port = request.values(b"x-forwarded-port")
        port = self._port_of(host, b"443" if proto in (b"https", b"wss") else b"80")
        return self._fields(b", ".join(hops), proto, host, said_port[0] if said_port else port)

    def _port_of(self, host: bytes, default: bytes | None = None) -> bytes:
        found = _PORT.search(host)
        return found[1] if found else default or self._port

    @staticmethod
    def _fields(hops: bytes, proto: bytes, host: bytes, port: bytes) -> bytes:
        lines = [b"X-Forwarded-Proto: " + proto, b"X-Forwarded-Port: " + port]
        if hops:
            lines.append(b"X-Forwarded-For: " + hops)
        if host:
            lines.append(b"X-Forwarded-Host: " + host)
        return b"\r\n".join(lines) + END
