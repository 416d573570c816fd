"""What the connections of one process share: the server, as they see it."""

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from perijove.proxy.access import AccessLog
from perijove.proxy.errors import ErrorPages
from perijove.proxy.forwarded import Forwarded
from perijove.proxy.settings import Limits
from perijove.proxy.table import Routes

if TYPE_CHECKING:
    from perijove.proxy.client import ClientConnection
    from perijove.proxy.upstream import Backend


class Context(Protocol):
    """The server that connections belong to."""

    limits: Limits
    routes: "Routes[Backend]"
    clients: "set[ClientConnection]"
    warm: "set[Backend]"
    """Backends that keep unused connections."""
    forwarded: Forwarded
    hub_proof: tuple[str, bytes]
    """The hub's address on another machine, and the line that proves to it who passes on."""
    errors: ErrorPages
    access: AccessLog | None
    activity: dict[str, float]
    """When a person last did something, by launch; since the last report."""
    counters: dict[str, int]
    now: float
    """The clock as of the last look at the deadlines; at most a second old."""
    is_stopping: bool

    def forget(self, client: "ClientConnection | None") -> None:
        """Take a connection that has ended out of the server's care."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` to its end, or to that of the server."""
