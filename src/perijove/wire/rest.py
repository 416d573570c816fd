"""
Bodies of the REST API on JupyterHub's paths.

Fields that are absent mean "not visible to you", null means "no value". Never add a field to a
struct of this module: clients compare these bodies. What is ours lives below ``perijove/``
(`wire/launches.py`). Values that the database already holds as JSON are passed as `Raw`.
"""

from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType


class Version(msgspec.Struct):
    """Answer of ``GET /``."""

    version: str


class Component(msgspec.Struct):
    """A spawner or an authenticator."""

    class_: str = msgspec.field(name="class")
    version: str


class Info(msgspec.Struct):
    """Answer of ``GET /info``."""

    version: str
    python: str
    sys_executable: str
    spawner: Component
    authenticator: Component


class Server(msgspec.Struct, kw_only=True):
    """A user's server."""

    name: str
    display_name: str | None
    full_name: str
    last_activity: str | None
    started: str | None
    pending: str | None
    ready: bool
    stopped: bool
    url: str
    full_url: str | None
    user_options: Raw | None
    progress_url: str
    full_progress_url: str | None
    state: dict[str, Any] | UnsetType | None = UNSET


class User(msgspec.Struct, kw_only=True):
    """A user."""

    name: str
    kind: str = "user"
    admin: bool | UnsetType = UNSET
    roles: Raw | UnsetType = UNSET
    groups: Raw | UnsetType = UNSET
    server: str | UnsetType | None = UNSET
    pending: str | UnsetType | None = UNSET
    created: str | UnsetType = UNSET
    last_activity: str | UnsetType | None = UNSET
    servers: dict[str, Server] | UnsetType = UNSET
    user_info: Raw | UnsetType | None = UNSET
    auth_state: dict[str, Any] | UnsetType | None = UNSET
    scopes: list[str] | UnsetType = UNSET
    token_id: str | UnsetType | None = UNSET
    session_id: str | UnsetType | None = UNSET


class Service(msgspec.Struct, kw_only=True):
    """A service, as it is told who it is."""

    name: str
    admin: bool
    kind: str = "service"
    roles: list[str] | UnsetType = UNSET
    scopes: list[str] | UnsetType = UNSET
    token_id: str | UnsetType | None = UNSET
    session_id: str | UnsetType | None = UNSET


class Token(msgspec.Struct, kw_only=True):
    """A token; `token`, its value, only in the answer that made it."""

    id: str
    scopes: list[str]
    created: str
    last_activity: str | None
    expires_at: str | None
    note: str | None
    session_id: str | None
    oauth_client: str
    kind: str = "api_token"
    roles: list[str] = []
    user: str | UnsetType = UNSET
    service: str | UnsetType = UNSET
    token: str | UnsetType = UNSET


class Tokens(msgspec.Struct):
    """Answer of ``GET /users/:n/tokens``."""

    api_tokens: list[Token]


class NextPage(msgspec.Struct):
    """Where the following page of a list is."""

    offset: int
    limit: int
    url: str


class Pagination(msgspec.Struct):
    """Which part of a list a page holds."""

    offset: int
    limit: int
    total: int
    next: NextPage | None


class Page(msgspec.Struct):
    """A list for clients that accept ``application/jupyterhub-pagination+json``."""

    items: list[User]
    pagination: Pagination = msgspec.field(name="_pagination")


class Problem(msgspec.Struct):
    """An error on the wire's paths."""

    status: int
    message: str
