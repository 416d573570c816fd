"""
The table of endpoints as a tree of path segments, and what every call goes through.

An endpoint says what it needs before anything of it runs: nothing, to be known, or one of some
scopes on the target that its path names. `Reads` runs as one unit of reading together with the
look-up of the token; `Acts` is a coroutine.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

import anyio
from sqlalchemy import Connection
from starlette.requests import HTTPConnection

from perijove.db.core import bound
from perijove.domain.errors import Forbidden, NotFound
from perijove.domain.names import normalise_user_name
from perijove.domain.scopes import Limit, LimitKind, Verdict
from perijove.services.access import Caller, caller_by_token, is_good
from perijove.services.hub import Hub
from perijove.web.api.calls import Call, Patience, Reply, Stream, empty
from perijove.web.asgi import Receive, Scope, Send
from perijove.web.exchange import exchange_of
from perijove.web.identity import bearer, identify
from perijove.web.problems import HIDDEN, MethodNotAllowed

Reads = Callable[[Connection, Call], Reply]
Acts = Callable[[Call], Awaitable[Reply | Stream]]


class On(Enum):
    """What the scopes of an endpoint are checked against."""

    OPEN = "open"  #: Nothing: everybody may call it.
    KNOWN = "known"  #: Nothing, but the caller must be known.
    SELF_CHECKED = "self-checked"  #: The endpoint finds out who calls, and decides, itself.
    LISTED = "listed"  #: The endpoint restricts its list; here only: held somewhere.
    ALL = "all"  #: Everything: a limited scope is not enough.
    USER = "user"  #: The user in the path.
    SERVER = "server"  #: The server in the path.


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One method of one path."""

    on: On
    any_of: Sequence[str] = ()
    reads: Reads | None = None
    acts: Acts | None = None
    long: bool = False
    """It reads much."""
    label: str = ""
    """Of the metrics; by default the function's own name."""
    own: bool = False
    """It is none of the wire's: errors are problem+json."""

    @property
    def handler(self) -> str:
        """Return the label of the metrics."""
        function = self.reads or self.acts
        return self.label or f"{function.__module__}.{getattr(function, '__qualname__', '')}"


@dataclass(slots=True)
class _Node:
    literal: dict[str, "_Node"] = field(default_factory=dict)
    named: "_Node | None" = None
    may_be_empty: bool = False
    is_user: bool = False
    methods: dict[str, tuple[Endpoint, str]] = field(default_factory=dict)


class Table:
    """Endpoints by path: ``/users/:n/servers/:s?`` (``?``: the segment may be empty)."""

    def __init__(self, endpoints: Mapping[tuple[str, str], Endpoint]) -> None:
        self.endpoints = endpoints
        self._root = _Node()
        for (method, path), endpoint in endpoints.items():
            self._add(method, path, endpoint)

    def _add(self, method: str, path: str, endpoint: Endpoint) -> None:
        node = self._root
        for segment in path.split("/")[1:]:
            if segment.startswith(":"):
                node.named = node.named or _Node()
                node = node.named
                node.may_be_empty = segment.endswith("?")
                node.is_user = segment == ":n"
            else:
                node = node.literal.setdefault(segment, _Node())
        node.methods[method] = endpoint, endpoint.handler

    def find(self, segments: Sequence[str]) -> tuple[Mapping[str, tuple[Endpoint, str]], list[str]]:
        """Return the methods of a path and the names in it; no methods for an unknown path."""
        node, names = self._root, list[str]()
        for segment in segments:
            following = node.literal.get(segment)
            if following is None:
                following = node.named
                if following is None or not (segment or following.may_be_empty):
                    return {}, []
                names.append(_one_form(segment) if following.is_user else segment)
            node = following
        return node.methods, names


def _one_form(name: str) -> str:
    """A person has one name, however it is written."""
    return name if name.isascii() and name.islower() else normalise_user_name(name)


_UNKNOWN: Final = "Missing or invalid credentials."
CHECK_SECONDS: Final = 10.0
"""How often it is looked whether who follows a stream may still: it may go on for days."""


class Api:
    """Answers everything below ``B hub/api``."""

    def __init__(self, hub: Hub, table: Table, patience: Patience) -> None:
        self._hub = hub
        self._table = table
        self._patience = patience

    async def __call__(
        self, segments: Sequence[str], scope: Scope, receive: Receive, send: Send
    ) -> bool:
        """Answer a request for the path `segments`; False where the table has no such path."""
        method = scope["method"]
        methods, names = self._table.find(segments)
        if not methods:
            return False
        exchange = exchange_of(scope)
        if method not in methods:
            if method == "OPTIONS":
                await _send(send, empty(200))
                return True
            raise MethodNotAllowed("Method Not Allowed")
        endpoint, exchange.handler = methods[method]
        exchange.is_own = endpoint.own
        call = Call(self._hub, scope, receive, names, self._patience)
        answer = await self._answer(call, endpoint)
        if isinstance(answer, Stream):
            await _send_stream(send, answer, call)
        else:
            await _send(send, answer)
        return True

    async def _answer(self, call: Call, endpoint: Endpoint) -> Reply | Stream:
        if endpoint.on is On.OPEN or endpoint.on is On.SELF_CHECKED:
            return await self._run(call, endpoint)
        value = bearer(call.scope)
        if value is not None:
            answer = await self._by_token(call, endpoint, value)
            if answer is not None:
                return answer
        caller = await identify(self._hub, HTTPConnection(call.scope), kind="api")
        if caller is None:
            raise Forbidden("Forbidden" if endpoint.on is On.KNOWN else _UNKNOWN)
        self._admit(call, endpoint, caller)
        return await self._run(call, endpoint)

    async def _by_token(self, call: Call, endpoint: Endpoint, value: str) -> Reply | Stream | None:
        """Answer a call with a token: in one unit if it only reads; None for an unknown token."""
        now = self._hub.clock.now()
        reads = endpoint.reads

        def unit(connection: Connection) -> Reply | Caller | None:
            caller = caller_by_token(connection, value, now)
            if caller is None:
                return None
            self._hub.seen.note(caller, now)
            self._admit(call, endpoint, caller)
            return caller if reads is None or endpoint.long else reads(connection, call)

        answer = await self._hub.database.read(unit)
        return await self._run(call, endpoint) if isinstance(answer, Caller) else answer

    async def _run(self, call: Call, endpoint: Endpoint) -> Reply | Stream:
        if endpoint.acts is not None:
            return await endpoint.acts(call)
        assert endpoint.reads is not None
        work = bound(endpoint.reads, call)
        database = self._hub.database
        return await (database.read_long(work) if endpoint.long else database.read(work))

    def _admit(self, call: Call, endpoint: Endpoint, caller: Caller) -> None:
        """Raise `Forbidden` or `NotFound` unless `caller` may call `endpoint` (wire §3.3)."""
        call.caller = caller
        if endpoint.on is On.KNOWN:
            return
        if endpoint.on is On.USER:
            target: Limit | None = Limit(LimitKind.USER, call.user_name)
        elif endpoint.on is On.SERVER:
            target = Limit(LimitKind.SERVER, f"{call.user_name}/{call.server_name}")
        else:
            target = None
        verdict = caller.decide(endpoint.any_of, target)
        if verdict is Verdict.ALLOWED:
            return
        if endpoint.on is On.LISTED and any(map(caller.scopes.limits, endpoint.any_of)):
            return
        if verdict is Verdict.NOT_FOUND:
            raise NotFound(HIDDEN)
        raise missing_scopes(endpoint.any_of)


def missing_scopes(any_of: Sequence[str]) -> Forbidden:
    """Return the error for a caller who holds none of the scopes that are needed."""
    return Forbidden(
        "Action is not authorized with current scopes; "
        f"requires any of [{', '.join(sorted(any_of))}]",
        code="scope-missing",
    )


async def _send(send: Send, answer: Reply) -> None:
    headers = [
        (b"content-type", answer.content_type),
        (b"content-length", b"%d" % len(answer.body)),
        *answer.headers,
    ]
    if answer.status == 204:
        del headers[1]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


async def _send_stream(send: Send, stream: Stream, call: Call) -> None:
    """Send a stream until it ends, the client goes away, or its credential counts no more."""
    headers = [(b"content-type", stream.content_type), *stream.headers]
    await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def write(chunk: bytes) -> None:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})

    async with anyio.create_task_group() as tasks:

        async def watch() -> None:
            while (await call.receive())["type"] != "http.disconnect":
                pass
            tasks.cancel_scope.cancel()

        async def check() -> None:
            hub, caller = call.hub, call.caller
            is_known = True  # It has just been asked.
            # Nothing rings when a right is taken back, perhaps by another hub.
            while is_known:
                await anyio.sleep(CHECK_SECONDS)
                is_known = await hub.database.read(bound(is_good, caller, hub.clock.now()))
            tasks.cancel_scope.cancel()

        tasks.start_soon(watch)
        tasks.start_soon(check)
        await stream.run(write)
        tasks.cancel_scope.cancel()
    await send({"type": "http.response.body", "body": b""})
