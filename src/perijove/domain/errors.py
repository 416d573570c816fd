"""Errors of the domain. The HTTP numbers are decided in `web/problems.py`, not here.

HubError
├── NotFound            404   absent, or not for this caller to know
├── Conflict            409   right request, wrong moment
│   └── Gone            410   and no moment will be right any more
├── Forbidden           403   known caller, missing right
├── Refused             403   a policy says no; names the rule, the limit and what was asked
├── Throttled           429   a limit; the same request may succeed later
├── Invalid             400   the request itself is wrong; may name the field
├── LeaseLost            —    another replica took over; drop the work
├── ConfigError          —    the configuration is wrong; ends the program with code 2
└── SpawnerError        502
    ├── SpawnerTransient 503   try again: time-out, controller away
    ├── SpawnerPending   503   not yet: ask again, it is being prepared
    └── SpawnerRejected  422   do not try again: bad image, over quota

An error carries a stable `code` and `params`; the sentence a person reads is made from them
in the person's language (`web/texts.py`). ``str(error)`` is the English sentence.
"""

from collections.abc import Mapping
from typing import ClassVar


class HubError(Exception):
    """Base of every error this program raises on purpose."""

    code: str = "internal"
    """Stable; clients may branch on it and the catalogue is keyed by it."""
    hint: ClassVar[str] = ""
    """What the reader can do next, in English."""

    def __init__(self, message: str, *, code: str | None = None, **params: object) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code
        self.params: Mapping[str, object] = params


class NotFound(HubError):
    """The thing is absent, or not for this caller to know."""

    code = "not-found"


class Conflict(HubError):
    """The request is right, but the thing is in a state that forbids it."""

    code = "conflict"


class Gone(Conflict):
    """What the request is about has ended for good: nothing will make it right."""

    code = "gone"


class Forbidden(HubError):
    """The caller is known but may not do this."""

    code = "forbidden"


class Throttled(HubError):
    """A limit stands in the way for now; the same request may succeed later."""

    code = "throttled"

    def __init__(
        self, message: str, *, retry_after: float, code: str | None = None, **params: object
    ) -> None:
        super().__init__(message, code=code, **params)
        self.retry_after = retry_after


class Invalid(HubError):
    """The request itself is wrong. `field` names the culprit where there is one."""

    code = "invalid"

    def __init__(
        self, message: str, *, field: str = "", code: str | None = None, **params: object
    ) -> None:
        super().__init__(message, code=code, **params)
        self.field = field


class Refused(HubError):
    """A policy says no: names the rule, the limit and what was asked."""

    code = "refused"

    def __init__(
        self,
        message: str,
        *,
        rule: str,
        limit: object,
        asked: object,
        field: str = "",
        **params: object,
    ) -> None:
        super().__init__(
            message, code=f"refused-{rule}", rule=rule, limit=limit, asked=asked, **params
        )
        self.rule = rule
        self.limit = limit
        self.asked = asked
        self.field = field


class LeaseLost(HubError):
    """Another replica took over this row; drop the work, it will be done there."""

    code = "lease-lost"


class ConfigError(HubError):
    """The configuration is wrong; the message lists every fault."""

    code = "configuration"


class SpawnerError(HubError):
    """A platform could not do what was asked."""

    code = "spawner"


class SpawnerTransient(SpawnerError):
    """Try again: a time-out, or the controller is away. What was asked may have happened."""

    code = "spawner-away"


class SpawnerPending(SpawnerError):
    """
    Not yet: the platform prepares what a launch needs, and is to be asked again soon.

    Its code and parameters are those of a `Reason`, its text the platform's words.
    """

    code = "spawner-pending"


class SpawnerRejected(SpawnerError):
    """Do not try again: the platform refuses this request for good."""

    code = "spawner-rejected"
