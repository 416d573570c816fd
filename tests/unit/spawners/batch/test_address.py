"""Where a job may say that it listens."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from perijove.domain.errors import SpawnerRejected
from perijove.spawners.batch.address import claimed_url
from perijove.spawners.contract import Claim

pytestmark = pytest.mark.anyio

NODES = {"c1": "10.1.0.5", "c2": "10.1.0.6"}
OF_THE_SITE = ("10.1.0.0/16", "10.2.0.0/16", "fd00:1::/32")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A claim, and what the cluster and the site say."""

    host: str
    port: int = 40000
    nodes: Mapping[str, str]
    networks: tuple[str, ...] = ()
    ports: tuple[int, int] | None = None

    async def url(self) -> str:
        """Return what the claim comes to."""
        claim = Claim(job_id="7", host=self.host, port=self.port)
        return await claimed_url(claim, nodes=self.nodes, networks=self.networks, ports=self.ports)


def case(host: str, **given: object) -> Case:
    """Return a claim of a job on two nodes."""
    return Case(**{"host": host, "nodes": NODES, **given})  # type: ignore[arg-type]


BELIEVED = {
    "a node's name": (case("c1"), "http://10.1.0.5:40000"),
    "a node's name with its domain": (case("C1.cluster.example"), "http://10.1.0.5:40000"),
    "a node that the cluster names with its domain": (
        case("c1", nodes={"c1.cluster.example": "10.1.0.5"}), "http://10.1.0.5:40000"),
    "another node of the job": (case("c2"), "http://10.1.0.6:40000"),
    "a node's address": (case("10.1.0.6"), "http://10.1.0.6:40000"),
    "a node's address as IPv6 writes it": (case("::ffff:10.1.0.6"), "http://10.1.0.6:40000"),
    "a further address of a node": (
        case("10.2.7.7", networks=OF_THE_SITE), "http://10.2.7.7:40000"),
    "an address of IPv6": (
        case("fd00:1::7", networks=OF_THE_SITE), "http://[fd00:1::7]:40000"),
    "a node that the cluster itself reaches by IPv6": (
        case("c1", nodes={"c1": "fd00:9::1"}), "http://[fd00:9::1]:40000"),
    "a node that is this machine, says the cluster": (
        case("c1", nodes={"c1": "127.0.0.1"}), "http://127.0.0.1:40000"),
    "the lowest port of the range": (
        case("c1", port=9000, ports=(9000, 9001)), "http://10.1.0.5:9000"),
    "the highest port of the range": (
        case("c1", port=9001, ports=(9000, 9001)), "http://10.1.0.5:9001"),
}  # fmt: skip


@pytest.mark.parametrize("what", BELIEVED)
async def test_believed(what: str) -> None:
    """An address of the job's nodes is believed, and fixed as a number."""
    claim, url = BELIEVED[what]
    assert await claim.url() == url


REFUSED = {
    "a node that is not of the job": (case("10.1.0.7"), "host-refused"),
    "a name that nobody knows": (case("no-such-host.invalid"), "host-refused"),
    "a name that no host has": (case("a b\n\x00ü" * 50), "host-refused"),
    "nothing": (case(""), "host-refused"),
    "loopback": (case("127.0.0.1"), "host-refused"),
    "loopback by its name": (case("localhost"), "host-refused"),
    "loopback, in the site's networks": (
        case("127.0.0.9", networks=("127.0.0.0/8",)), "host-refused"),
    "loopback of IPv6": (case("::1", networks=("::/0",)), "host-refused"),
    "loopback in the clothes of IPv6": (
        case("::ffff:127.0.0.1", networks=("::/0",)), "host-refused"),
    "loopback as people used to write it": (
        case("127.1", networks=("127.0.0.0/8",)), "host-refused"),
    "link-local": (case("169.254.169.254", networks=("0.0.0.0/0",)), "host-refused"),
    "link-local in the clothes of IPv6": (
        case("::ffff:169.254.169.254", networks=("::/0", "0.0.0.0/0")), "host-refused"),
    "link-local of IPv6": (case("fe80::1", networks=("fe80::/10",)), "host-refused"),
    "a node whose address is link-local": (
        case("c1", nodes={"c1": "169.254.0.5"}), "host-refused"),
    "many": (case("224.0.0.1", networks=("0.0.0.0/0",)), "host-refused"),
    "any": (case("0.0.0.0", networks=("0.0.0.0/0",)), "host-refused"),
    "outside of the site's networks": (
        case("10.3.0.1", networks=OF_THE_SITE), "host-refused"),
    "this machine by its name": (
        case(socket.gethostname(), networks=("0.0.0.0/0", "::/0")), "host-refused"),
    "a port of the system": (case("c1", port=443), "port-refused"),
    "a port below the range": (case("c1", port=8999, ports=(9000, 9001)), "port-refused"),
    "a port above the range": (case("c1", port=9002, ports=(9000, 9001)), "port-refused"),
    "no port": (case("c1", port=0), "port-refused"),
    "a port that cannot be": (case("c1", port=65536), "port-refused"),
}  # fmt: skip


async def test_only_names_of_the_cluster_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person's own name server could keep every thread that resolves names busy."""
    asked: list[str] = []

    async def note(host: str, *_: object, **__: object) -> list[object]:
        asked.append(host)
        return []

    monkeypatch.setattr("anyio.getaddrinfo", note)
    with pytest.raises(SpawnerRejected):
        await case("c3.slow.example", networks=OF_THE_SITE, nodes={"c1": "c1-ib"}).url()
    assert set(asked) <= {"c1-ib", socket.gethostname()}


@pytest.mark.parametrize("what", REFUSED)
async def test_refused(what: str) -> None:
    """Any other address is refused with the code that the person is told about."""
    claim, code = REFUSED[what]
    with pytest.raises(SpawnerRejected) as caught:
        await claim.url()
    assert caught.value.code == code
    assert len(str(caught.value)) < 500
