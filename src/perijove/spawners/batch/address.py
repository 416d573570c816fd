"""
Where a job may say that it listens (anchors 4.4.4).

Whatever a job claims is a person's word: only an address of one of the job's own nodes is
believed, and it is fixed as a number, so that no name can turn into another address later. A
name that the cluster has not said is not even asked for: answers about a person's own domain may
take as long as that person likes, and there are few threads that ask.
"""

import socket
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import anyio

from perijove.domain.errors import SpawnerRejected, SpawnerTransient
from perijove.spawners.contract import Claim

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_RESOLVE_SECONDS = 5.0


async def claimed_url(
    claim: Claim,
    *,
    nodes: Mapping[str, str],
    networks: Sequence[str],
    ports: tuple[int, int] | None,
) -> str:
    """
    Return ``http://address:port`` of a claim, or raise `SpawnerRejected`.

    `nodes` are the job's, each with the address or name under which the cluster reaches it. The
    host must be one of them, with its domain or without, or one of their addresses; with
    `networks` any address within them, for nodes have several. An address of this machine is only
    believed if the cluster says that the job runs here.
    """
    first, last = ports or (1024, 65535)
    if not first <= claim.port <= last:
        raise SpawnerRejected(
            f"port {claim.port} is not within {first} to {last}", code="port-refused"
        )
    asked = await _addresses_of(claim.host, nodes)
    own = {address for reached in nodes.values() for address in await resolve(reached)}
    here = set(await resolve(socket.gethostname()))
    within = [ip_network(network) for network in networks]
    for address in asked:
        if _is_allowed(address, own=own, here=here, within=within):
            host = f"[{address}]" if address.version == 6 else str(address)
            return f"http://{host}:{claim.port}"
    raise SpawnerRejected(
        f"{claim.host[:80]!r} is none of the job's nodes ({', '.join(nodes)[:200]})",
        code="host-refused",
    )


async def _addresses_of(host: str, nodes: Mapping[str, str]) -> Sequence[Address]:
    """Return the address that `host` is, or those of the node that it names."""
    try:
        return [_plain(host)]
    except ValueError:
        pass
    named = [node for node in nodes if host == node or _short(host) == _short(node)]
    return await resolve(nodes[named[0]]) if named else []


def _short(host: str) -> str:
    return host.partition(".")[0].lower()


def _is_allowed(
    address: Address, *, own: set[Address], here: set[Address], within: Iterable[Network]
) -> bool:
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        return False
    if address in own:
        return True  # also a loopback address: the cluster says that this is where the node is
    if address.is_loopback or address in here:
        return False  # this machine: `networks` must leave out what other addresses it has
    return any(address.version == each.version and address in each for each in within)


async def resolve(host: str) -> Sequence[Address]:
    """Return the addresses a host name stands for; none for an unknown one."""
    try:
        return [_plain(host)]
    except ValueError:
        pass
    try:
        with anyio.fail_after(_RESOLVE_SECONDS):
            found = await anyio.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    except TimeoutError:
        raise SpawnerTransient(f"the name service is silent about {host[:80]}") from None
    return [_plain(str(each[4][0]).partition("%")[0]) for each in found]


def _plain(text: str) -> Address:
    """Return an address; one of IPv4 in the clothes of IPv6 is what it is underneath."""
    address = ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address
