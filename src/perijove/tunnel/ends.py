"""The hub's ends of all tunnels: for each launch a socket, and the link to its node if it is up.

A launch is known from the first time its job proved itself to the hub until the hub says that it
is over. Meanwhile its socket stays: connections are carried, or closed at once while the node is
away. What is known is on disk too, so that neither a restart of this program nor a hub that is
away keeps a node out that was let in before.
"""

import asyncio
import hmac
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import structlog

from perijove.agent.link import Link
from perijove.kit.ids import hash_secret
from perijove.proxy.control import ControlClient, HubAway
from perijove.wire.control import Launches, TunnelClaim, TunnelGrant

log = structlog.get_logger()

HUB_SECONDS: Final = 10.0
SWEEP_SECONDS: Final = 30.0
"""Time between two questions which launches are over."""

T = TypeVar("T")

_AT_ONCE: Final = 1000
_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_LONGEST_NAME: Final = 64


class NotAdmitted(Exception):
    """A node is turned away; `status` is the HTTP status that tells it why."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class Known(msgspec.Struct, frozen=True):
    """What is kept of a launch whose job has proved itself."""

    launch: str
    name: str
    code_hash: str


class End:
    """One launch's end of its tunnel."""

    def __init__(self, known: Known, directory: Path) -> None:
        self.known = known
        self.path = directory / f"{known.name}.sock"
        self._memory = directory / f"{known.name}.json"
        self._link: Link | None = None
        self._nonce = ""
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Offer the socket, and remember the launch."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(self._answer, os.fspath(self.path))
        self.path.chmod(0o600)
        await asyncio.to_thread(_write, self._memory, msgspec.json.encode(self.known))

    def forget(self) -> None:
        """Withdraw the socket, end the link, and keep nothing."""
        self.close()
        for path in (self.path, self._memory):
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """End what is open; what is known stays known."""
        if self._server is not None:
            self._server.close()
        if self._link is not None:
            self._link.end("the tunnel is closed")

    def is_proved_by(self, code: str) -> bool:
        """Tell whether this is the code that the hub has accepted."""
        return hmac.compare_digest(self.known.code_hash, hash_secret(code))

    def is_taken_by_other(self, nonce: str) -> bool:
        """Tell whether another run of a job is connected now."""
        return self._link is not None and not hmac.compare_digest(self._nonce, nonce)

    def attach(self, link: Link, nonce: str) -> None:
        """Use a new link; one of the same run that is still there is dead, or about to be."""
        former, self._link, self._nonce = self._link, link, nonce
        if former is not None:
            former.end("replaced by a newer connection of the same node")
        log.info("tunnel_up", launch=self.known.launch)

    def detach(self, link: Link, words: str) -> None:
        """Note that a link is over."""
        if self._link is link:
            self._link = None
            log.info("tunnel_down", launch=self.known.launch, reason=words)

    def _answer(self) -> asyncio.Protocol:
        if self._link is None or not self._link.has_room:
            return _Nobody()
        return self._link.begin()


class _Nobody(asyncio.Protocol):
    """Closes a connection that nobody is there to take."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class Ends:
    """All of them."""

    def __init__(self, hub: ControlClient, directory: Path) -> None:
        self._hub = hub
        self._directory = directory
        self._ends: dict[str, End] = {}

    async def load(self) -> None:
        """Offer the sockets of all launches that are remembered."""
        for known in await asyncio.to_thread(_read_all, self._directory):
            end = self._ends[known.launch] = End(known, self._directory)
            await end.open()

    def close(self) -> None:
        """End all links; the launches stay known."""
        for end in self._ends.values():
            end.close()

    async def admit(self, claim: TunnelClaim) -> End:
        """Return the end for a job that dials in; raises `NotAdmitted`."""
        try:
            end = await self._end_of(claim, await self._ask_hub(claim))
        except HubAway:
            found = self._ends.get(claim.launch_id)
            if found is None or not found.is_proved_by(claim.code):
                raise NotAdmitted(503) from None
            end = found
        except NotAdmitted as error:
            if error.status == 410:
                self._forget(claim.launch_id)
            raise
        if end.is_taken_by_other(claim.nonce):
            raise NotAdmitted(409)
        return end

    async def sweep(self) -> None:
        """Forget, until cancelled, what the hub says is over."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            with suppress(HubAway):
                await self.forget_over()

    async def forget_over(self) -> None:
        """Ask the hub which launches are over, and forget them; raises `HubAway`."""
        for part in _parts(sorted(self._ends)):
            body = msgspec.json.encode(Launches(part))
            answer = await self._hub.request(
                "POST", "/tunnels/over", seconds=HUB_SECONDS, body=body
            )
            if answer.status != 200:
                raise HubAway(f"status {answer.status}")
            for launch in _decode(answer.body, Launches).launches:
                self._forget(launch)

    async def _ask_hub(self, claim: TunnelClaim) -> str:
        """Return the launch's name; raises `NotAdmitted`, or `HubAway` when it may be the hub."""
        answer = await self._hub.request(
            "POST", "/tunnels", seconds=HUB_SECONDS, body=msgspec.json.encode(claim)
        )
        if 400 <= answer.status < 500:
            raise NotAdmitted(answer.status)
        if answer.status != 200:
            raise HubAway(f"status {answer.status}")
        name = _decode(answer.body, TunnelGrant).name
        if not _PLAIN.issuperset(name) or not 0 < len(name) <= _LONGEST_NAME:
            raise NotAdmitted(503)
        return name

    async def _end_of(self, claim: TunnelClaim, name: str) -> End:
        end = self._ends.get(claim.launch_id)
        if end is not None and end.is_proved_by(claim.code):
            return end
        if end is not None:
            self._forget(claim.launch_id)  # The hub's key is another one now, and so is the code.
        known = Known(launch=claim.launch_id, name=name, code_hash=hash_secret(claim.code))
        end = self._ends[known.launch] = End(known, self._directory)
        try:
            await end.open()
        except OSError as error:
            log.error("tunnel_socket_unusable", path=str(end.path), reason=str(error))  # noqa: TRY400
            self._forget(known.launch)
            raise NotAdmitted(503) from None
        return end

    def _forget(self, launch: str) -> None:
        end = self._ends.pop(launch, None)
        if end is not None:
            end.forget()
            log.info("tunnel_forgotten", launch=launch)


def _parts(launches: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(launches), _AT_ONCE):
        yield launches[start : start + _AT_ONCE]


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError:
        raise HubAway("an answer that cannot be read") from None


def _read_all(directory: Path) -> list[Known]:
    found = []
    for path in sorted(directory.glob("*.json")):
        try:
            known = msgspec.json.decode(path.read_bytes(), type=Known)
        except (OSError, msgspec.DecodeError) as error:
            log.warning("tunnel_memory_unusable", path=str(path), reason=str(error))
        else:
            found.append(known)
    return found


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(f"{path.name}.partial")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    partial.replace(path)
