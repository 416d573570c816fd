"""Who is let in by the tunnels, and what becomes of a launch's socket."""

import asyncio
import socket
from pathlib import Path

import anyio
import pytest

from perijove.agent.link import BINARY, DATA, HEAD, OPEN, Messages, message
from perijove.domain.launch import Launch, Status
from perijove.kit.loops import until
from perijove.proxy.settings import ControlAddress
from perijove.tunnel import TunnelOptions, TunnelServer
from tests.integration.registration.jobs import ServedHub
from tests.integration.tunnel.sites import PATIENCE, Dialled, Site

pytestmark = pytest.mark.anyio


def proof(served: ServedHub, launch: Launch, **changes: str) -> dict[str, str]:
    """Return what the job of a launch shows."""
    return {"launch_id": launch.id, "code": served.code(launch)} | changes


async def exchange(path: Path, node: Dialled, words: bytes) -> None:
    """Connect to a launch's socket, and see what is said there come out at the node."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(words)
    messages = Messages(masked=False)
    async with asyncio.timeout(PATIENCE):
        kinds = []
        while True:
            for kind, frame in messages.feed(await node.reader.read(65536)):
                if kind != BINARY:
                    continue
                what, number = HEAD.unpack_from(frame)
                kinds.append(what)
                if what == DATA:
                    assert kinds[-2:] == [OPEN, DATA]
                    assert frame[HEAD.size :] == words
                    answer = HEAD.pack(DATA, number) + b"yes"
                    node.writer.write(message(answer, masked=True))
                    assert await reader.readexactly(3) == b"yes"
                    writer.close()
                    return


async def says_nothing(path: Path) -> bool:
    """Tell whether connections to a socket are closed without a word."""
    reader, writer = await asyncio.open_unix_connection(path)
    async with asyncio.timeout(PATIENCE):
        found = await reader.read(1)
    writer.close()
    return found == b""


async def test_only_the_launchs_own_job_is_let_in(place: Site) -> None:
    """A wrong code, a launch nobody knows, a second job: each is told so, and opens nothing."""
    async with place.hub() as served:
        launch = await served.running_launch()
        good = proof(served, launch)

        assert (await place.dial(**good)).status == 101
        assert (await place.dial(**good | {"code": "0" * 64})).status == 403
        assert (await place.dial(launch_id="lch_other")).status == 403
        assert (await place.dial(**good, job_id="18", nonce="cd" * 8)).status == 409
        assert [each.name for each in place.sockets.glob("pj-*.sock")] == [f"{launch.name}.sock"]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: t\r\n\r\n", 426),
        (
            b"GET / HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
            401,
        ),
        (
            b"GET / HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
            b"Authorization: Perijove-Job lch_x 17 ab" + b"ab" * 7 + b" " + b"0" * 64 + b"\r\n\r\n",
            400,
        ),
        (
            b"GET / HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
            b"Authorization: Perijove-Job ../etc 17 .. code\r\n\r\n",
            400,
        ),
        (b"GET / HTTP/1.1\r\nHost: t\r\n\r\nmore", 400),
        (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + b"\r\n\r\n", 400),
        (b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n\r\n", 400),
    ],
)
async def test_what_is_no_request_of_a_node_is_refused(
    place: Site, request_: bytes, status: int
) -> None:
    """Whatever else is sent to the tunnels gets a short answer, or none, and the end."""
    assert (await place.ask(request_)).status == status


async def test_silence_at_the_door_keeps_nobody_out(
    quiet: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When all places are taken, who says something gets that of who has waited longest."""
    monkeypatch.setattr("perijove.tunnel.gate.MOST_GATES", 3)
    quiet.sockets.mkdir()
    control = ControlAddress(f"unix:{quiet.control}")
    server = TunnelServer(TunnelOptions(control=control, directory=quiet.sockets))
    await server.start()
    came: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def come() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        came.append(await asyncio.open_unix_connection(quiet.sockets / "front.sock"))
        return came[-1]

    async def all_are_there() -> bool:
        return len(server.gates) == 3

    try:
        silent = [await come() for _ in range(3)]
        assert await until(all_are_there, seconds=PATIENCE)
        reader, writer = await come()
        writer.write(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            assert (await reader.readline()).split()[1] == b"426"
            assert await silent[0][0].read() == b""
        assert not any(reader.at_eof() for reader, _ in silent[1:])
    finally:
        await server.stop()
        for _, writer in came:
            writer.close()


async def test_one_run_has_the_tunnel_until_it_leaves(place: Site) -> None:
    """The same run takes over at once, another only when that one has gone."""
    async with place.hub() as served:
        launch = await served.running_launch()
        good = proof(served, launch)
        path = place.socket_of(launch)
        first = await place.dial(**good)
        assert first.status == 101
        await exchange(path, first, b"first")

        assert (await place.dial(**good, nonce="cd" * 8)).status == 409
        second = await place.dial(**good)
        assert second.status == 101
        async with asyncio.timeout(PATIENCE):
            while await first.reader.read(65536):
                pass
        await exchange(path, second, b"second")

        second.hang_up()

        async def is_free() -> bool:
            return (await place.dial(**good, nonce="cd" * 8)).status == 101

        assert await until(is_free, seconds=PATIENCE)


async def test_a_node_that_is_away_leaves_the_socket(place: Site) -> None:
    """Connections are closed without a word meanwhile, and carried when it is back."""
    async with place.hub() as served:
        launch = await served.running_launch()
        path = place.socket_of(launch)
        node = await place.dial(**proof(served, launch))
        node.hang_up()

        async def is_away() -> bool:
            return await says_nothing(path)

        assert await until(is_away, seconds=PATIENCE)
        await exchange(path, await place.dial(**proof(served, launch)), b"back")


async def test_garbage_ends_the_link_and_nothing_else(place: Site) -> None:
    """A node that breaks the rules loses its own link; another launch's is not touched."""
    async with place.hub() as served:
        launch = await served.running_launch()
        other = await served.hub.start("bob")
        other = await served.hub.becomes(other, Status.STARTING)
        calm = await place.dial(**proof(served, other, job_id="18"))
        for garbage in (
            b"\x00" * 100,
            message(b"?", masked=True),
            message(HEAD.pack(OPEN, 7), masked=True),
            b"\x82\xff" + b"\xff" * 8 + b"mask",
        ):
            node = await place.dial(**proof(served, launch))
            assert node.status == 101
            node.writer.write(garbage)
            async with asyncio.timeout(PATIENCE):
                while await node.reader.read(65536):
                    pass
        await exchange(place.socket_of(other), calm, b"calm")


async def test_who_was_let_in_before_needs_no_hub(quiet: Site) -> None:
    """While no hub answers a known node may come back, also to new tunnels; a new one waits."""
    with quiet.tunnels():
        async with quiet.hub() as served:
            launch = await served.running_launch()
            other = await served.hub.start("bob")
            other = await served.hub.becomes(other, Status.STARTING)
            good, unknown = proof(served, launch), proof(served, other)
            assert (await quiet.dial(**good)).status == 101
    with quiet.tunnels():
        assert (await quiet.dial(**good | {"code": "1" * 64})).status == 503
        assert (await quiet.dial(**unknown)).status == 503
        await exchange(quiet.socket_of(launch), await quiet.dial(**good), b"known")


async def test_a_launch_that_is_over_is_forgotten(place: Site) -> None:
    """When nobody wants a launch any more its job is told so, and its socket goes."""
    async with place.hub() as served:
        launch = await served.running_launch()
        good = proof(served, launch)
        assert (await place.dial(**good)).status == 101
        await served.hub.stop()
        await served.hub.becomes(launch, Status.ENDED)

        assert (await place.dial(**good)).status == 410

        async def is_gone() -> bool:
            return not await anyio.Path(place.socket_of(launch)).exists()

        assert await until(is_gone, seconds=PATIENCE)
        assert not list(place.sockets.glob("pj-*"))


async def test_the_socket_is_its_owners_only(place: Site) -> None:
    """Nobody but the account of the proxy can reach a launch's socket."""
    async with place.hub() as served:
        launch = await served.running_launch()
        await place.dial(**proof(served, launch))
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(place.socket_of(launch)))
        assert place.socket_of(launch).stat().st_mode & 0o777 == 0o600
        assert place.sockets.stat().st_mode & 0o777 == 0o700
