"""Asking a user's server itself: is it up, and is it busy? Everything it says is untrusted."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import anyio
import httpx2
import msgspec

_BODY_LIMIT = 1 << 20
_DEADLINE = 5.0
_LIMITS = httpx2.Limits(max_connections=200, max_keepalive_connections=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """That a server answered, and which version it says it is."""

    status: int
    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Busyness:
    """What a server says of its kernels and terminals."""

    busy: bool
    """Some kernel executes now."""
    last_activity: datetime | None
    """The latest activity of any kernel or terminal."""


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    version: str
    body: bytes


class Prober:
    """Talks to servers at the addresses their launches gave. An async context manager."""

    def __init__(self) -> None:
        self._client = _client(httpx2.AsyncHTTPTransport(limits=_LIMITS))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._client.aclose()

    async def answer(self, url: str, prefix: str) -> Answer | None:
        """
        Return the answer of ``GET <prefix>api`` when it means that the server is up.

        Any status below 500 does (wire §1.4); None for everything else.
        """
        response = await self._get(url, f"{prefix}api", {})
        if response is None or response.status >= 500:
            return None
        return Answer(status=response.status, version=response.version)

    async def busyness(self, url: str, prefix: str, token: str) -> Busyness | None:
        """Return what the server says of its kernels and terminals; None when it does not say."""
        headers = {"Authorization": f"token {token}"}
        kernels = await self._list(url, f"{prefix}api/kernels", headers)
        if kernels is None:
            return None
        terminals = await self._list(url, f"{prefix}api/terminals", headers) or []
        return Busyness(
            busy=any(kernel.get("execution_state") == "busy" for kernel in kernels),
            last_activity=max(
                (at for thing in (*kernels, *terminals) if (at := _instant(thing))), default=None
            ),
        )

    async def _list(
        self, url: str, path: str, headers: Mapping[str, str]
    ) -> list[dict[str, Any]] | None:
        response = await self._get(url, path, headers)
        if response is None or response.status != 200:
            return None
        try:
            return msgspec.json.decode(response.body, type=list[dict[str, Any]])
        except msgspec.DecodeError:
            return None

    async def _get(self, url: str, path: str, headers: Mapping[str, str]) -> _Response | None:
        try:
            with anyio.fail_after(_DEADLINE):
                if not url.startswith("unix:"):
                    return await _fetch(self._client, url.rstrip("/") + path, headers)
                transport = httpx2.AsyncHTTPTransport(uds=url.removeprefix("unix:"))
                async with _client(transport) as client:
                    return await _fetch(client, f"http://server{path}", headers)
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, OSError):
            return None


def _client(transport: httpx2.AsyncHTTPTransport) -> httpx2.AsyncClient:
    # No proxies of the environment, and no redirects (wire §1.4).
    return httpx2.AsyncClient(
        transport=transport, trust_env=False, follow_redirects=False, timeout=_DEADLINE
    )


async def _fetch(
    client: httpx2.AsyncClient, url: str, headers: Mapping[str, str]
) -> _Response | None:
    async with client.stream("GET", url, headers=dict(headers)) as response:
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > _BODY_LIMIT:
                return None
        version = response.headers.get("X-JupyterHub-Version", "")[:32]
        return _Response(response.status_code, version, bytes(body))


def _instant(thing: Mapping[str, Any]) -> datetime | None:
    try:
        at = datetime.fromisoformat(str(thing.get("last_activity")))
    except ValueError:
        return None
    return at if at.tzinfo else None
