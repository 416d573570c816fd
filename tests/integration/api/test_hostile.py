"""Bad input on every endpoint: an answer below 500, and nothing changed."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, select

from perijove.db.tables import groups, launches, roles, servers, tokens, users
from perijove.services.offers import PolicySection
from perijove.web.api import ENDPOINTS
from perijove.web.api.calls import Patience
from perijove.web.api.routing import On
from tests.apis import ADMIN, ANN, TestApi, running_api

pytestmark = pytest.mark.anyio

PATHS = sorted({path for _, path in ENDPOINTS})
WRITING = sorted(key for key in ENDPOINTS if key[0] in ("POST", "PUT", "PATCH", "DELETE"))


@asynccontextmanager
async def hub_of(database_url: str, tmp_path: Path) -> AsyncIterator[TestApi]:
    """Run a hub whose requests wait for nothing, with a named server to be hit."""
    policies = [PolicySection(name="named", groups=["*"], named_servers=3)]
    async with running_api(
        database_url,
        tmp_path,
        loops=False,
        with_proxy=False,
        policies=policies,
        patience=Patience(start=0, stop=0),
    ) as api:
        await api.call("PUT", "/users/ann/servers/lab", token=ANN)
        yield api


def everything(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows that a request could change."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for table in (users, groups, roles, servers, launches, tokens):
        rows = connection.execute(select(table).order_by(*table.primary_key))
        found[table.name] = [tuple(row) for row in rows]
    return found


def fill(path: str, name: str, item: str) -> str:
    """Return a path of the table with names in it."""
    parts = {":n": name, ":s?": item, ":id": item}
    filled = [quote(parts[each], safe="") if each in parts else each for each in path.split("/")]
    return "/".join(filled)


# --- every endpoint is guarded ------------------------------------------------------------------


def test_every_endpoint_says_what_it_needs() -> None:
    """
    Nothing in the table is open but what the wire opens; all else names scopes or a caller.

    A job that registers proves itself with its launch's code, in the body.
    """
    open_paths = {key for key, endpoint in ENDPOINTS.items() if endpoint.on is On.OPEN}
    with_code = {key for key in open_paths if key[1].startswith("/perijove/registrations")}

    assert all(method == "POST" for method, _ in with_code)
    assert open_paths - with_code == {("GET", "/"), ("GET", "/health"), ("HEAD", "/health")}
    for key, endpoint in ENDPOINTS.items():
        needs_scope = endpoint.on in (On.USER, On.SERVER, On.ALL, On.LISTED)
        assert bool(endpoint.any_of) is needs_scope, key
        assert (endpoint.reads is None) != (endpoint.acts is None), key


async def test_strangers_get_nothing_anywhere(database_url: str, tmp_path: Path) -> None:
    """Without credentials every endpoint but the open ones is a 403, and changes nothing."""
    async with hub_of(database_url, tmp_path) as api:
        before = await api.hub.hub.database.read(everything)
        for (method, path), endpoint in ENDPOINTS.items():
            if endpoint.on is not On.OPEN:
                answer = await api.call(method, fill(path, "ann", "lab"), {}, token=None)
                assert answer.status_code == 403, (method, path)
        after = await api.hub.hub.database.read(everything)

    assert after == before


# --- bodies -------------------------------------------------------------------------------------

_names = st.sampled_from(
    [
        "", ".", "..", "../../etc/passwd", "a/b", "%2e%2e", "a%2Fb", "ä", "ﬁ", "\u202e", "\x00",
        "a\x00b", "\ud7ff", "x" * 300, " ann", "ann ", "ann\n", "' OR 1=1 --", "💥", "ANN", "ann",
        "-", "a1", "a99999999999999999999", "a-1", "<script>", "a²", "a１",
    ]
) | st.text(max_size=20)  # fmt: skip
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=3),
    max_leaves=8,
)
_keys = st.sampled_from(
    [
        "usernames", "admin", "name", "auth_state", "groups", "roles", "note", "expires_in",
        "scopes", "auth", "display_name", "user_options", "profile", "options", "remove",
        "last_activity", "servers", "cpu", "memory", "ui",
    ]
)  # fmt: skip
_objects = st.dictionaries(_keys, _json, max_size=5)
_bodies = st.one_of(
    st.builds(lambda value: json.dumps(value).encode(), _objects | _json),
    st.binary(max_size=40),
    st.sampled_from(
        [
            b"{", b"\xff\xfe{}", b'{"a": 1e999}', b"[" * 100_000, b'{"name": "\\u0000"}',
            b'{"name": "\\ud800"}', b'{"expires_in": 99999999999999999999999}', b"nul",
            b'{"last_activity": "9999-12-31T23:59:59+23:59"}',
            b'{"last_activity": "0001-01-01T00:00:00+23:59"}',
            b'{"usernames": ["\\ud800"]}',
        ]
    ),
)  # fmt: skip
_queries = st.dictionaries(
    st.sampled_from(["offset", "limit", "state", "sort", "name_filter", "after", "server", "x"]),
    _names | st.integers().map(str),
    max_size=3,
)


@pytest.fixture(
    params=["sqlite", pytest.param("postgresql", marks=pytest.mark.needs("postgresql"))]
)
def attacked(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Give a synchronous way to attack one hub again and again."""
    url = f"sqlite:///{tmp_path}/hub.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql_url")
    with anyio.from_thread.start_blocking_portal() as portal:
        stack = AsyncExitStack()
        with portal.wrap_async_context_manager(_entered(stack, url, tmp_path)) as api:
            yield lambda function, *args: portal.call(function, api, *args)


@asynccontextmanager
async def _entered(stack: AsyncExitStack, url: str, tmp_path: Path) -> AsyncIterator[TestApi]:
    async with stack:
        yield await stack.enter_async_context(hub_of(url, tmp_path))


async def _attack(
    api: TestApi, method: str, path: str, query: dict[str, str], body: bytes, token: str
) -> None:
    before = await api.hub.hub.database.read(everything)
    answer = await api.client.request(
        method,
        f"/hub/api{path}",
        params=query,
        content=body,
        headers={"authorization": f"token {token}"},
    )
    said = (method, path, query, body[:200], answer.status_code, answer.text[:300])
    assert answer.status_code < 500, said
    if answer.status_code < 400:
        return
    assert answer.json()["status"] == answer.status_code, said
    # To delete a user is first to stop what they run, which may take longer than the request.
    is_stopping = answer.headers.get("x-perijove-code") == "server-active"
    if not (method == "DELETE" and is_stopping):
        assert await api.hub.hub.database.read(everything) == before, said


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    endpoint=st.sampled_from(WRITING),
    name=_names | st.just("ann"),
    item=_names | st.just("lab"),
    body=_bodies,
    token=st.sampled_from([ADMIN, ANN]),
)
def test_writing_endpoints_refuse_without_a_trace(
    attacked: Any, endpoint: tuple[str, str], name: str, item: str, body: bytes, token: str
) -> None:
    """Whatever the path and the body hold: no 5xx, and what is refused has changed nothing."""
    method, path = endpoint
    attacked(_attack, method, fill(path, name, item), {}, body, token)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    path=st.sampled_from([path for path in PATHS if not path.endswith(("progress", "events"))]),
    name=_names,
    item=_names,
    query=_queries,
)
def test_reading_endpoints_survive_any_name_and_query(
    attacked: Any, path: str, name: str, item: str, query: dict[str, str]
) -> None:
    """Whatever the path and the query hold, a reader gets an answer below 500."""
    attacked(_attack, "GET", fill(path, name, item), query, b"", ADMIN)


@pytest.mark.parametrize(
    "path", ["/users/%ff", "/users/%c3%28", "/users/ann/servers/%80", "/users/%00", "/%2e%2e/users"]
)
async def test_paths_that_are_no_text_are_not_found(tmp_path: Path, path: str) -> None:
    """A path that is not UTF-8, or holds a NUL, names nothing."""
    async with hub_of(f"sqlite:///{tmp_path}/hub.db", tmp_path) as api:
        answer = await api.call("GET", path)

    assert answer.status_code == 404


async def test_ten_megabytes_are_refused(tmp_path: Path) -> None:
    """A body of 10 MB is a 413 in JSON, and nobody is made."""
    body = b'{"usernames": ["' + b"x" * (10 << 20) + b'"]}'
    async with hub_of(f"sqlite:///{tmp_path}/hub.db", tmp_path) as api:
        answer = await api.call("POST", "/users", content=body)
        listed = await api.get("/users")

    assert answer.status_code == 413
    assert answer.json()["status"] == 413
    assert [user["name"] for user in listed] == ["admin", "ann", "bob"]
