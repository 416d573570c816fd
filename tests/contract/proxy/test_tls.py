"""TLS on the public address, and to targets with an authority of their own."""

import asyncio
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from perijove.wire.control import Route, RouteTable
from tests.certificates import Identity, new_key, unsigned, written
from tests.contract.proxy.support import (
    OK,
    Client,
    accepting,
    answering,
    connected_to,
    get,
    read_request,
    running_proxy,
)

pytestmark = pytest.mark.anyio


def make_identity(folder: Path, name: str) -> Identity:
    """Make a certificate for this machine, which vouches for itself."""
    key = new_key()
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    cert = unsigned(name, key, issuer=name, is_authority=True).add_extension(names, critical=False)
    return written(folder, name, cert.sign(key, hashes.SHA256()), key)


async def test_the_public_address_speaks_tls(tmp_path: Path) -> None:
    """With a certificate, clients speak HTTPS, and servers are told so."""
    identity = make_identity(tmp_path, "public")
    context = ssl.create_default_context(cafile=identity.cert)
    async with (
        answering(OK) as upstream,
        running_proxy(upstream.url, tls_cert=identity.cert, tls_key=identity.key) as proxy,
    ):
        reader, writer = await asyncio.open_connection("localhost", proxy.port, ssl=context)
        client = Client(reader, writer)
        for _ in range(2):
            assert await client.ask(get()) == OK
        await client.send(get("/", b"Connection: close\r\n"))
        assert (await client.rest()).endswith(b"ok")
        writer.transport.abort()
        assert b"X-Forwarded-Proto: https\r\n" in upstream.received[0]
        assert b"X-Forwarded-Port: 443\r\n" in upstream.received[0]


@pytest.mark.parametrize("is_right", [True, False])
async def test_only_the_routes_authority_is_believed(tmp_path: Path, is_right: bool) -> None:
    """A target with the certificate that the route names is served; any other is not."""
    server = make_identity(tmp_path, "server")
    other = make_identity(tmp_path, "other")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(server.cert, server.key)
    received: list[bytes] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            received.append(await read_request(reader))
            writer.write(OK)

    pinned = (server if is_right else other).cert.read_text()
    async with (
        accepting(connected, tls=context) as url,
        running_proxy() as proxy,
        connected_to(proxy.port) as client,
    ):
        target = url.replace("http://127.0.0.1", "https://localhost")
        proxy.server.apply(RouteTable("test", 1, [Route("/", target, ca=pinned)]))
        for _ in range(2):
            answer = await client.ask(get())
            assert answer == OK if is_right else answer.startswith(b"HTTP/1.1 503 ")
        assert len(received) == (2 if is_right else 0)
