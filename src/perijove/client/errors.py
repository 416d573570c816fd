"""
What can go wrong for a client of the hub.

ClientError
├── BadValue       what was asked for cannot be asked: an option, a value, an address
├── NotSignedIn    there is no token, or the hub does not take it
├── Unreachable    nobody answers at the address, or no hub does
└── Refused        the hub said no, with its own code
"""


class ClientError(Exception):
    """Base of them; ``str(error)`` is the sentence, `hint` what to do next."""

    code: str = "failed"
    """Stable; scripts may branch on it."""

    def __init__(self, message: str, *, hint: str = "", code: str = "", field: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code or self.code
        self.field = field


class BadValue(ClientError):
    """What was asked for cannot be asked; names the bound, or what there is instead."""

    code = "usage"


class NotSignedIn(ClientError):
    """There is no token for the hub, or the hub does not take it."""

    code = "not-signed-in"


class Unreachable(ClientError):
    """Nobody answers at the address, or what answers is no hub. What was asked may be done."""

    code = "unreachable"


class Refused(ClientError):
    """The hub answered no."""

    def __init__(
        self, message: str, *, status: int, hint: str = "", code: str = "", field: str = ""
    ) -> None:
        super().__init__(message, hint=hint, code=code or f"http-{status}", field=field)
        self.status = status
