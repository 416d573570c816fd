"""
The way to the API server: the official client, with plain mappings in and out.

Here, and only here, its answers become what the spawner acts on: `NotThere`, `AlreadyThere`,
`Outdated`, or an error of the contract.
"""

import asyncio
import json
import math
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import anyio
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from perijove.domain.errors import (
    ConfigError,
    SpawnerError,
    SpawnerPending,
    SpawnerRejected,
    SpawnerTransient,
)
from perijove.kit.clock import monotonic
from perijove.kit.loops import until
from perijove.spawners.kubernetes.objects import Kind, Object

TIMEOUT: Final = 20.0
"""Seconds the API server has for one answer; watching is apart."""
_PAGE: Final = 500
_LINE_LIMIT: Final = 8 * 2**20
_LOG_LIMIT: Final = 2**20
_LOGS: Final = Kind("Pod", "pods/log")
_RENEWAL_PERIOD: Final = 10.0
_FAREWELL: Final = 0.25
_WORDS: Final = 1000


class NotThere(Exception):
    """Nothing has this name."""


class AlreadyThere(Exception):
    """Something has this name, or is not as old as it was said to be."""


class Outdated(Exception):
    """The API server does not remember what happened since: list anew."""


class Api:
    """Asks the API server, counts how often, and gives up in time."""

    def __init__(self, client: ApiClient, renew: Callable[[], Configuration]) -> None:
        self._client = client
        self._renew = renew
        self._renewed = -math.inf
        self.calls: Counter[str] = Counter()

    async def close(self) -> None:
        """Close all connections, and give those that were cut time to say farewell."""
        await self._client.close()  # type: ignore[no-untyped-call]
        # aiohttp ends TLS behind our back for a request that was cancelled, and tells nobody when.
        await anyio.sleep(_FAREWELL)

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object:
        """Return one object, as it is now; raises `NotThere`."""
        return await self._json("get", kind, kind.path(namespace, name))

    async def create(self, kind: Kind, one: Object, *, namespace: str | None) -> Object:
        """Make an object; raises `AlreadyThere`."""
        return await self._json("create", kind, kind.path(namespace), body=one)

    async def replace(self, kind: Kind, one: Object, *, namespace: str | None) -> Object:
        """Put an object in the place of the one of its name; raises `NotThere`."""
        path = kind.path(namespace, str(one["metadata"]["name"]))
        return await self._json("update", kind, path, body=one)

    async def delete(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        *,
        uid: str = "",
        grace: int | None = None,
    ) -> Object:
        """
        Have an object removed, which may take a while.

        Raises `NotThere`, and `AlreadyThere` where another one than that with `uid` has the name.
        """
        body: dict[str, Any] = {"propagationPolicy": "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        return await self._json("delete", kind, kind.path(namespace, name), body=body)

    async def delete_all(self, kind: Kind, namespace: str | None, *, labels: str) -> None:
        """Have all objects removed that `labels` selects."""
        query = {"labelSelector": labels}
        await self._json("deletecollection", kind, kind.path(namespace), query=query)

    async def list(
        self, kind: Kind, namespace: str | None, *, labels: str = "", fields: str = ""
    ) -> tuple[list[Object], str]:
        """Return all objects that are selected, and the version that this answer has."""
        found: list[Object] = []
        query = {"limit": str(_PAGE)} | _selectors(labels, fields)
        while True:
            page = await self._json("list", kind, kind.path(namespace), query=query)
            found.extend(page.get("items") or ())
            following = page["metadata"].get("continue")
            if not following:
                return found, str(page["metadata"].get("resourceVersion", ""))
            query = query | {"continue": str(following)}

    @asynccontextmanager
    async def watch(
        self,
        kind: Kind,
        namespace: str | None,
        *,
        labels: str,
        fields: str,
        since: str,
        seconds: int,
    ) -> AsyncIterator[AsyncIterator[Mapping[str, Any]]]:
        """
        Give what happens since a version, for about `seconds`.

        A server that is away without having said so is noticed soon after them. Raises `Outdated`.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": since,
            "timeoutSeconds": str(seconds),
        }
        timeout = aiohttp.ClientTimeout(total=seconds + TIMEOUT, sock_connect=TIMEOUT)
        path = kind.path(namespace)
        query |= _selectors(labels, fields)
        async with self._answer("watch", kind, path, query=query, within=timeout) as answer:
            yield _notices(answer)

    async def log_tail(self, namespace: str, name: str, *, container: str, lines: int) -> str:
        """Return the last lines that a container has written; raises `NotThere`."""
        query = {"container": container, "tailLines": str(lines)}
        timeout = aiohttp.ClientTimeout(total=TIMEOUT)
        path = f"/api/v1/namespaces/{namespace}/pods/{name}/log"
        tail = b""
        async with self._answer("get", _LOGS, path, query=query, within=timeout) as answer:
            async for part in answer.content.iter_any():
                tail = (tail + part)[-_LOG_LIMIT:]
        return tail.decode(errors="replace")

    async def _json(
        self,
        verb: str,
        kind: Kind,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
    ) -> dict[str, Any]:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT)
        async with self._answer(
            verb, kind, path, query=query or {}, body=body, within=timeout
        ) as answer:
            answered: dict[str, Any] = json.loads(await answer.read())
            return answered

    @asynccontextmanager
    async def _answer(
        self,
        verb: str,
        kind: Kind,
        path: str,
        *,
        query: Mapping[str, str],
        within: aiohttp.ClientTimeout,
        body: Object | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask, and give an answer that is good."""
        self.calls[f"{verb} {kind.resource}"] += 1
        try:
            method, url, headers, content, _ = await self._client.param_serialize(
                _METHODS[verb],
                path,
                query_params=list(query.items()),
                header_params={"Accept": "application/json"},
                body=body,
                auth_settings=["BearerToken"],
            )
            answer = (
                await self._client.call_api(
                    method, url, headers, body=content, _request_timeout=within
                )
            ).response
            try:
                if answer.status == 401:
                    await self._renew_token()
                if answer.status >= 400:
                    raise fault_of(answer.status, await answer.read())
                yield answer
            finally:
                _let_go(answer)
        except (aiohttp.ClientError, TimeoutError, OSError, ConfigException, ValueError) as error:
            words = str(error)[:200] or type(error).__name__
            raise SpawnerTransient(f"the cluster does not answer: {words}") from error

    async def _renew_token(self) -> None:
        """Read again what we prove ourselves with: tokens that a program gives expire."""
        if monotonic() - self._renewed >= _RENEWAL_PERIOD:
            self._renewed = monotonic()
            fresh = await anyio.to_thread.run_sync(self._renew)
            self._client.configuration.api_key = fresh.api_key


_METHODS: Final[Mapping[str, str]] = {
    "get": "GET",
    "list": "GET",
    "watch": "GET",
    "create": "POST",
    "update": "PUT",
    "delete": "DELETE",
    "deletecollection": "DELETE",
}


async def connect(kubeconfig: Path | None, context: str) -> Api:
    """
    Return the way to the cluster of `kubeconfig`, else to the one that this process runs in.

    Raises `ConfigError` when neither says how.
    """

    def configured() -> Configuration:
        return anyio.run(
            _configure, kubeconfig, context, backend_options={"loop_factory": _ProgramsLoop}
        )

    def client() -> ApiClient:
        return ApiClient(configured())

    try:
        # It reads certificates and may run a program for a token: nothing for this loop.
        return Api(await anyio.to_thread.run_sync(client), configured)
    except (ConfigException, OSError, ValueError, KeyError) as error:
        where = kubeconfig or "the service account of this pod"
        raise ConfigError(f"no way to the cluster by {where}: {error}") from error


class _ProgramsLoop(asyncio.SelectorEventLoop):
    """Knows the programs that were started in it, which its user cannot know, to end them."""

    def __init__(self) -> None:
        super().__init__()
        self._started: list[asyncio.SubprocessTransport] = []

    async def subprocess_exec(self, *args: Any, **options: Any) -> Any:
        """Start a program."""
        transport, protocol = await super().subprocess_exec(*args, **options)
        self._started.append(transport)
        return transport, protocol

    async def end_programs(self) -> None:
        """Kill what still runs, and let go of it."""
        for transport in self._started:
            transport.close()

        async def are_over() -> bool:
            return all(transport.get_returncode() is not None for transport in self._started)

        await until(are_over, seconds=TIMEOUT)
        await anyio.sleep(_FAREWELL)  # The ends of pipes are closed a little later.


async def _configure(kubeconfig: Path | None, context: str) -> Configuration:
    configuration = Configuration()
    if kubeconfig is None:
        load_incluster_config(configuration)  # type: ignore[no-untyped-call]
    else:
        await _load(kubeconfig, context, configuration)
    configuration.client_session_kwargs = {"read_bufsize": _LINE_LIMIT}
    return configuration


async def _load(kubeconfig: Path, context: str, configuration: Configuration) -> None:
    """Read how the cluster is reached; the program for a token may wait for others for ever."""
    try:
        with anyio.fail_after(TIMEOUT):
            await load_kube_config(  # type: ignore[no-untyped-call]
                str(kubeconfig), context or None, configuration, persist_config=False
            )
    except TimeoutError:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, _ProgramsLoop)
        await loop.end_programs()
        raise


def fault_of(status: int, content: bytes) -> Exception:
    """Return what an answer that is an error means."""
    try:
        said = json.loads(content)
        words, reason = str(said.get("message", ""))[:_WORDS], str(said.get("reason", ""))
    except (ValueError, AttributeError):
        words, reason = content[:_WORDS].decode(errors="replace"), ""
    match status:
        case 404:
            return NotThere(words)
        case 409 if reason == "AlreadyExists" or "precondition" in words.lower():
            return AlreadyThere(words)
        case 410:
            return Outdated(words)
        case 403:
            return _forbidden(words)
        case 400 | 413 | 422:
            return SpawnerRejected(words, code="container-refused")
    return SpawnerTransient(f"the cluster answered {status}: {words}")


def _forbidden(words: str) -> SpawnerError:
    if "exceeded quota" in words:
        return SpawnerPending(words, code="namespace-quota")
    # What has just been made is not complete: a namespace has no account yet, a quota no numbers.
    passing = ("being terminated", 'serviceaccount "default" not found', "status unknown for quota")
    if any(each in words for each in passing):
        return SpawnerTransient(words)
    # Either we may not ask at all, or what is asked for breaks a rule of the cluster.
    is_right = re.search(r" cannot \w+ resource ", words)
    return SpawnerRejected(words, code="platform-forbids" if is_right else "container-refused")


def _selectors(labels: str, fields: str) -> dict[str, str]:
    chosen = {"labelSelector": labels, "fieldSelector": fields}
    return {name: value for name, value in chosen.items() if value}


def _let_go(answer: aiohttp.ClientResponse) -> None:
    """Give a connection back; one on which more may come is cut, without waiting for its end."""
    if answer.connection is not None and answer.connection.transport is not None:
        answer.connection.transport.abort()
    answer.release()


async def _notices(answer: aiohttp.ClientResponse) -> AsyncIterator[Mapping[str, Any]]:
    """Read what a watch says, one line each."""
    while line := await answer.content.readline():
        notice = json.loads(line)
        if notice["type"] == "ERROR":
            said = notice["object"]
            raise fault_of(int(said.get("code") or 500), json.dumps(said).encode())
        yield notice
