"""Several engines as several spawners, one of them far away: it is asked over TLS, as itself."""

import os
import select
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from perijove.domain.errors import SpawnerTransient
from perijove.spawners.contract import Phase
from perijove.spawners.docker import DockerSpawner
from tests.certificates import Identity, new_key, unsigned, written
from tests.contract.spawners.docker_site import DockerSite, docker
from tests.contract.spawners.sites import NAME, answers, find, phase, recorded
from tests.integration.docker.conftest import order

pytestmark = [pytest.mark.anyio, pytest.mark.needs("docker"), pytest.mark.timeout(180)]

HOST: Final = "127.0.0.1"
OTHER: Final = f"{NAME}x"


# Certificates, as a site makes them for its engines


class Authority:
    """One that signs certificates."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._key = new_key()
        own = self._certificate(name, self._key, None)
        self.file = written(folder, name, own, self._key).cert

    def identity(self, name: str, purpose: x509.ObjectIdentifier) -> Identity:
        """Return a certificate of this authority for one purpose."""
        key = new_key()
        cert = self._certificate(name, key, purpose)
        return written(self._folder, f"{self._name}-{name}", cert, key)

    def _certificate(
        self, name: str, key: ec.EllipticCurvePrivateKey, purpose: x509.ObjectIdentifier | None
    ) -> x509.Certificate:
        builder = unsigned(name, key, issuer=self._name, is_authority=purpose is None)
        if purpose is not None:
            names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(HOST))])
            builder = builder.add_extension(names, False)
            builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), False)
        return builder.sign(self._key, hashes.SHA256())


# The engine that is far away: the bed's second one, behind what wants to see a certificate


@dataclass(frozen=True, slots=True)
class FarEngine:
    """An engine that only its own site's certificates open."""

    site: DockerSite
    host: str
    """The same engine, for the test."""
    url: str
    settings: dict[str, Any]
    """What the section of a spawner says to be let in."""
    stranger: Identity
    """A certificate of an authority that the engine does not know."""

    def place(self, **changes: Any) -> DockerSpawner:
        """Return a spawner for it; None takes a setting away."""
        settings = self.settings | changes
        given = {key: value for key, value in settings.items() if value is not None}
        return self.site.place(DockerSpawner, section="far", url=self.url, **given)

    def names(self) -> list[str]:
        """Return what the containers are called that are there."""
        return docker("ps", "--all", "--format", "{{.Names}}", host=self.host).split()


@pytest.fixture
def second(site: DockerSite) -> Iterator[str]:
    """Give the address of the bed's other engine; afterwards nothing of the test is left there."""
    host = os.environ["PERIJOVE_TEST_DOCKER_SECOND_HOST"]
    yield host
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERIJOVE_TEST_DOCKER_HOST", host)
        site.clear()


@pytest.fixture
def far(site: DockerSite, second: str, tmp_path: Path) -> Iterator[FarEngine]:
    """Give that engine as one on another machine is: by TCP, TLS, and certificates of both."""
    ours, strangers = Authority(tmp_path, "ours"), Authority(tmp_path, "strangers")
    hub = ours.identity("hub", ExtendedKeyUsageOID.CLIENT_AUTH)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ours.file)
    context.verify_mode = ssl.CERT_REQUIRED
    engine = ours.identity("engine", ExtendedKeyUsageOID.SERVER_AUTH)
    context.load_cert_chain(engine.cert, engine.key)
    with door(context, second.removeprefix("unix://")) as port:
        yield FarEngine(
            site,
            second,
            f"tcp://{HOST}:{port}",
            {
                "tls_ca": ours.file, "tls_cert": hub.cert, "tls_key": hub.key,
                # Both engines would give networks that they make the same addresses.
                "network": "bridge",
            },
            strangers.identity("hub", ExtendedKeyUsageOID.CLIENT_AUTH),
        )  # fmt: skip


class Door(socketserver.ThreadingTCPServer):
    """A TCP port that leads to a socket for whoever the context believes."""

    def __init__(self, context: ssl.SSLContext, socket_file: str) -> None:
        super().__init__((HOST, 0), Visit)
        self.context = context
        self.socket_file = socket_file


class Visit(socketserver.BaseRequestHandler):
    """One connection; that it is refused, the other side is told by TLS itself."""

    server: Door

    def handle(self) -> None:
        """Let in whoever has a certificate."""
        secure = self.server.context.wrap_socket
        with (
            suppress(OSError),
            secure(self.request, server_side=True, do_handshake_on_connect=False) as visitor,
        ):
            try:
                visitor.do_handshake()
            except ssl.SSLError:
                # Closed with something unread, the connection would take the reason with it.
                visitor.shutdown(socket.SHUT_WR)
                while visitor.recv(65536):
                    pass
            else:
                self._pass_on(visitor)

    def _pass_on(self, visitor: ssl.SSLSocket) -> None:
        with socket.socket(socket.AF_UNIX) as engine:
            engine.connect(self.server.socket_file)
            while True:
                pending: list[socket.socket] = [visitor] if visitor.pending() else []
                for source in pending or select.select([visitor, engine], [], [])[0]:
                    said = source.recv(65536)
                    if not said:
                        return
                    (engine if source is visitor else visitor).sendall(said)


@contextmanager
def door(context: ssl.SSLContext, socket_file: str) -> Iterator[int]:
    """Give the port of a door that is open until the block ends."""
    with Door(context, socket_file) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            serving.join()


async def test_two_engines_are_two_spawners(site: DockerSite, far: FarEngine) -> None:
    """Each starts, sees and stops what is on its engine, the far one over TLS, and no other's."""
    async with site.place(DockerSpawner, section="near") as near, far.place() as distant:
        await near.start(order(OTHER), recorded)
        await distant.start(order(), recorded)

        running = await phase(distant, NAME, Phase.RUNNING)
        assert running.handle is not None
        assert running.handle["id"][:12].encode() in await answers(running)
        assert NAME in far.names()
        assert NAME not in docker("ps", "--all", "--format", "{{.Names}}").split()
        assert await find(near, NAME) is None
        assert await find(distant, OTHER) is None

        gone = await distant.stop(NAME, running.handle, grace=1)
        assert gone is not None
        assert gone.phase is Phase.GONE
        assert NAME not in far.names()
        assert await find(distant, NAME) is None
        assert (await phase(near, OTHER, Phase.RUNNING)).url
        await near.stop(OTHER, None, grace=0)


@pytest.mark.parametrize(
    ("shown", "said"), [("nothing", "certificate required"), ("a stranger's", "unknown ca")]
)
async def test_an_engine_lets_nobody_in_without_its_certificate(
    far: FarEngine, shown: str, said: str
) -> None:
    """A hub that the engine does not know learns why: that is silence, not an empty engine."""
    cert, key = (None, None) if shown == "nothing" else (far.stranger.cert, far.stranger.key)
    async with far.place(tls_cert=cert, tls_key=key) as refused:
        with pytest.raises(SpawnerTransient, match=said):
            await refused.survey()


async def test_who_poses_as_an_engine_is_told_nothing(far: FarEngine, tmp_path: Path) -> None:
    """What shows a certificate of another authority is not asked anything."""
    unknown = Authority(tmp_path, "somebody").file
    async with far.place(tls_ca=unknown) as careful:
        with pytest.raises(SpawnerTransient, match="certificate verify failed"):
            await careful.survey()
