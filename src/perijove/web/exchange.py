"""What is known of one request while it is answered."""

from perijove.web.asgi import Message, Scope


class Exchange:
    """What is known of one request while it is answered; ``scope["state"]["exchange"]``."""

    __slots__ = ("handler", "is_api", "is_own", "request_id", "start", "started", "status", "user")

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.handler = "perijove.web.unmatched"
        """Label of the metrics: one of a bounded set."""
        self.user = ""
        self.is_api = False
        """On the wire's API: errors are its JSON."""
        self.is_own = False
        """On our own API: errors are problem+json."""
        self.status = 0
        self.started = False
        self.start: Message | None = None
        """The head of a response that is held back until its body is known."""


def exchange_of(scope: Scope) -> Exchange:
    """Return the exchange of a request that came through `Edge`."""
    found: Exchange = scope["state"]["exchange"]
    return found
