"""Rows to the wire's models, with what the caller may see of them (wire §2.3, §2.4)."""

from functools import lru_cache
from typing import Final

from msgspec import UNSET, Raw

from perijove.domain.scopes import Limit, LimitKind, Limits, Scopes, contains
from perijove.services.access import Caller
from perijove.services.hub import Hub, quote_name
from perijove.services.tokens import Token as TokenRow
from perijove.services.users import ServerRow, UserRow
from perijove.wire.rest import Server, Token, User

_KEYS: Final[dict[str, frozenset[str]]] = {
    "read:users": frozenset(
        {"user_info", "admin", "roles", "groups", "server", "pending", "created", "last_activity"}
    ),
    "read:users:name": frozenset({"user_info", "admin"}),
    "read:users:groups": frozenset({"groups"}),
    "read:users:activity": frozenset({"last_activity"}),
    "read:servers": frozenset({"servers"}),
    "read:roles:users": frozenset({"roles", "admin"}),
    "admin:auth_state": frozenset({"auth_state"}),
    "admin:server_state": frozenset({"state"}),
}
"""Keys besides ``kind`` and ``name`` by the scope that shows them; ``state`` is the servers'."""
_NAMING: Final = frozenset(_KEYS) - {"admin:auth_state", "admin:server_state"}
READ_USER: Final = sorted(_NAMING)
"""The scopes of which one is needed to see anything of a user."""

_NO_SERVER: Final = ServerRow("", "", None, None, None, None, None, None, None, None)
"""The default server of somebody who never started it."""


class View:
    """What one caller may see of users and their servers."""

    __slots__ = ("_everywhere", "_limited", "_members")

    def __init__(self, caller: Caller, scopes: Scopes | None = None) -> None:
        """`scopes` may add something to those of the caller."""
        self._members = caller.members
        held = scopes or caller.scopes
        found = {name: held.limits(name) for name in _KEYS}
        self._everywhere = _keys_of(
            frozenset(name for name, limits in found.items() if None in limits)
        )
        self._limited: list[tuple[Limits, str]] = [
            (limits, name) for name, limits in found.items() if limits and None not in limits
        ]

    def keys(self, user_name: str) -> frozenset[str]:
        """Return the keys that show of a user."""
        if not self._limited:
            return self._everywhere
        return self._keys_on(Limit(LimitKind.USER, user_name))

    def server_keys(self, user_name: str, server_name: str) -> frozenset[str]:
        """Return whether ``servers`` and ``state`` show of one server, by its own limits."""
        if not self._limited:
            return self._everywhere
        return self._keys_on(Limit(LimitKind.SERVER, f"{user_name}/{server_name}"))

    def _keys_on(self, target: Limit) -> frozenset[str]:
        names = frozenset(
            name
            for limits, name in self._limited
            if any(contains(limit, target, self._members) for limit in limits)
        )
        return self._everywhere | _keys_of(names)


@lru_cache(maxsize=512)
def _keys_of(names: frozenset[str]) -> frozenset[str]:
    return frozenset().union(*(_KEYS[name] for name in names))


@lru_cache(maxsize=16384)
def user_paths(hub_prefix: str, base_path: str, name: str) -> tuple[str, str]:
    """Return where a user's servers and their API are: ``B user/:n/``, ``…/api/users/:n/``."""
    quoted = quote_name(name)
    return f"{base_path}user/{quoted}/", f"{hub_prefix}api/users/{quoted}/"


def user_model(hub: Hub, row: UserRow, view: View, *, with_stopped: bool = False) -> User:
    """Return what a caller may see of a user."""
    keys = view.keys(row.name)
    model = User(name=row.name)
    if "admin" in keys:
        model.admin = bool(row.admin)
    if "user_info" in keys:
        model.user_info = _raw(row.user_info)
    if "roles" in keys:
        model.roles = Raw(row.roles)
    if "groups" in keys:
        model.groups = Raw(row.groups)
    if "last_activity" in keys:
        model.last_activity = row.last_activity
    if "created" in keys:
        _add_default_server(hub, row, model)
    _add_servers(hub, row, view, model, keys, with_stopped=with_stopped)
    if "auth_state" in keys:
        model.auth_state = None
    return model


def _add_default_server(hub: Hub, row: UserRow, model: User) -> None:
    model.created = row.created
    default = row.find_server("")
    model.pending = default.pending if default else None
    is_ready = default is not None and default.is_ready
    model.server = user_paths(hub.hub_prefix, hub.base_path, row.name)[0] if is_ready else None


def _add_servers(
    hub: Hub, row: UserRow, view: View, model: User, keys: frozenset[str], *, with_stopped: bool
) -> None:
    if "servers" in keys:
        model.servers = {}
    for server in row.servers:
        if server.is_stopped and not with_stopped:
            continue
        shown = view.server_keys(row.name, server.name)
        if "servers" in shown:
            if model.servers is UNSET:
                model.servers = {}
            model.servers[server.name] = server_model(
                hub, row.name, server, with_state="state" in shown
            )


def server_model(hub: Hub, user: str, row: ServerRow | None, *, with_state: bool) -> Server:
    """Return a server; None stands for a default server that was never touched."""
    row = row or _NO_SERVER
    own, api = user_paths(hub.hub_prefix, hub.base_path, user)
    quoted = quote_name(row.name)
    url = f"{own}{quoted}/" if row.name else own
    progress = f"{api}servers/{quoted}/progress" if row.name else f"{api}server/progress"
    origin = hub.settings.url.removesuffix(hub.base_path)
    return Server(
        name=row.name,
        display_name=row.display_name,
        full_name=f"{user}/{row.name}",
        last_activity=row.last_activity,
        started=None if row.is_stopped else row.started,
        pending=row.pending,
        ready=row.is_ready,
        stopped=row.is_stopped,
        url=url,
        full_url=f"{origin}{url}" if origin else None,
        user_options=_raw(row.user_options),
        progress_url=progress,
        full_progress_url=f"{origin}{progress}" if origin else None,
        state=_state_of(row) if with_state else UNSET,
    )


def _state_of(row: ServerRow) -> dict[str, str | None]:
    if row.is_stopped:
        return {}
    return {"launch": row.launch_id, "name": row.platform_name, "node": row.node}


def _raw(text: str | None) -> Raw | None:
    return None if text is None else Raw(text)


def token_model(row: TokenRow, *, value: str | None = None) -> Token:
    """Return a token; with its `value` in the answer that made it."""
    return Token(
        id=f"a{row.id}",
        scopes=row.scopes,
        created=row.created,
        last_activity=row.last_activity,
        expires_at=row.expires_at,
        note=row.note,
        session_id=row.session_id,
        oauth_client=row.oauth_client,
        user=UNSET if row.user is None else row.user,
        service=UNSET if row.service is None else row.service,
        token=UNSET if value is None else value,
    )
