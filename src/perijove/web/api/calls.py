"""One call of the API: what came in, and what goes out."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from perijove.domain.asking import Asking
from perijove.domain.errors import Invalid, NotFound
from perijove.services.access import Caller
from perijove.services.hub import Hub
from perijove.web.asgi import Receive, Scope
from perijove.web.edge import MOST_BODY, Header
from perijove.web.exchange import exchange_of
from perijove.web.pages.look import look_of
from perijove.web.problems import HIDDEN, BodyTooLarge
from perijove.web.texts import Texts

JSON: Final = b"application/json"
TEXT: Final = b"text/plain; charset=utf-8"
_MOST_QUERY_FIELDS: Final = 100
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole response."""

    status: int = 200
    body: bytes = b""
    content_type: bytes = JSON
    headers: tuple[Header, ...] = ()


def json_reply(value: Any, status: int = 200, headers: tuple[Header, ...] = ()) -> Reply:
    """Return `value` as JSON."""
    return Reply(status, _encode(value), JSON, headers)


def empty(status: int) -> Reply:
    """Return a response without a body, as the wire types it."""
    return Reply(status, b"", TEXT)


Write = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Stream:
    """A response that goes on; `run` writes it, and is cancelled when the client goes away."""

    run: Callable[[Write], Awaitable[None]]
    content_type: bytes = b"text/event-stream"
    headers: tuple[Header, ...] = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a request waits for what it has asked for, in seconds, before it answers 202."""

    start: float = 10.0
    stop: float = 10.0


class Call:
    """A request for an endpoint, with the names of its path."""

    __slots__ = ("_caller", "_query", "hub", "names", "patience", "receive", "scope")

    def __init__(
        self, hub: Hub, scope: Scope, receive: Receive, names: list[str], patience: Patience
    ) -> None:
        self.hub = hub
        self.patience = patience
        self.scope = scope
        self.receive = receive
        self.names = names
        """Decoded segments of the path that stand for something: user, then server or id."""
        self._caller: Caller | None = None
        self._query: Mapping[str, str] | None = None

    # --- who ----------------------------------------------------------------------------------

    @property
    def caller(self) -> Caller:
        """Who calls; endpoints that are open to all have none and must not ask."""
        assert self._caller is not None
        return self._caller

    @caller.setter
    def caller(self, caller: Caller) -> None:
        self._caller = caller
        exchange_of(self.scope).user = caller.name

    @property
    def request_id(self) -> str:
        """The id that the log line and the answer carry."""
        return exchange_of(self.scope).request_id

    def asking(self) -> Asking:
        """Return who asks, as events remember it."""
        caller, user = self.caller, self.names[0] if self.names else None
        return Asking(
            actor=caller.name if caller.kind == "user" else f"service {caller.name}",
            token_id=caller.token_id,
            session_id=caller.session_id,
            on_behalf=user if user != caller.name else None,
            request_id=self.request_id,
        )

    def require(self, scope: str, user: str | None, server: str | None) -> None:
        """
        Raise `NotFound` unless the caller holds `scope` for a server found on the way.

        What is of no one server (`server` None) needs the scope for the user, and what belongs
        to nobody any more (`user` None) everywhere.
        """
        if not self.caller.may(scope, user=user, server=None if user is None else server):
            raise NotFound(HIDDEN)

    # --- what ---------------------------------------------------------------------------------

    @property
    def user_name(self) -> str:
        """`:n` of the path."""
        return self.names[0]

    @property
    def server_name(self) -> str:
        """`:s` of the path; the default server where there is none."""
        return self.names[1] if len(self.names) > 1 else ""

    @property
    def query(self) -> Mapping[str, str]:
        """Parameters of the query; of one given twice the last. Raises `Invalid`."""
        if self._query is None:
            self._query = _parse_query(self.scope["query_string"])
        return self._query

    def texts(self) -> Texts:
        """Return the language that the caller asks for."""
        catalogues = look_of(self.hub).catalogues
        return catalogues.choose(accept_language=self.header(b"accept-language"))

    @property
    def start_patience(self) -> float:
        """Seconds to wait for a start; none for who says ``Prefer: respond-async`` (RFC 7240)."""
        return 0.0 if "respond-async" in self.header(b"prefer") else self.patience.start

    def header(self, name: bytes) -> str:
        """Return a header of the request; empty where there is none."""
        for key, value in self.scope["headers"]:
            if key == name:
                return str(value, "latin-1")
        return ""

    async def body(self) -> Any:
        """
        Return the body as JSON whatever its type says, None for an empty one (wire §0.1).

        Raises `Invalid` for what is not JSON, or cannot be stored as text.
        """
        raw = await self._read()
        if not raw:
            return None
        try:
            return _decode(raw.decode("utf-8", "replace"))
        except (msgspec.DecodeError, RecursionError, ValueError):
            raise _not_json() from None

    async def fields(self) -> dict[str, Any]:
        """Return the body as an object, empty if there is none; raises `Invalid`."""
        value = await self.body()
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise Invalid("Body must be a JSON object", code="body-type")
        return value

    async def _read(self) -> bytes:
        parts: list[bytes] = []
        while True:
            message = await self.receive()
            if message["type"] != "http.request":
                raise Invalid("the client went away", code="disconnected")
            parts.append(message.get("body", b""))
            if sum(map(len, parts)) > MOST_BODY:
                raise BodyTooLarge(f"the body of a request may have at most {MOST_BODY} bytes")
            if not message.get("more_body", False):
                break
        raw = b"".join(parts)
        if b"\\u0000" in raw or b"\0" in raw:
            raise _not_json()
        return raw


def _not_json() -> Invalid:
    return Invalid("Invalid JSON in body of request", code="body-json")


def _parse_query(raw: bytes) -> Mapping[str, str]:
    try:
        query = dict(
            parse_qsl(
                raw.decode("latin-1"),
                keep_blank_values=True,
                errors="strict",
                max_num_fields=_MOST_QUERY_FIELDS,
            )
        )
    except ValueError:
        raise Invalid("the query of the address cannot be read", code="query") from None
    if "\0" in "".join(query.values()):
        raise Invalid("the query of the address cannot be read", code="query")
    return query


# --- fields of bodies ---------------------------------------------------------------------------


def check_keys(fields: Mapping[str, Any], known: Mapping[str, type | tuple[type, ...]]) -> None:
    """Raise `Invalid` for a key that is not known, or a value of the wrong type."""
    extra = sorted(fields.keys() - known.keys())
    if extra:
        raise Invalid(
            f"Invalid JSON keys: {', '.join(key[:60] for key in extra[:10])}", code="body-key"
        )
    for key, value in fields.items():
        kinds = known[key]
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is int):
            wanted = kinds if isinstance(kinds, tuple) else (kinds,)
            names = " or ".join("null" if k is type(None) else k.__name__ for k in wanted)
            raise Invalid(
                f"user.{key} must be {names}, got: {type(value).__name__}",
                field=key,
                code="body-type",
            )


def texts_of(value: object, field: str) -> list[str]:
    """Return a value that must be a list of texts; raises `Invalid`."""
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise Invalid(f"{field} must be a list of strings", field=field, code="body-type")
    return value
