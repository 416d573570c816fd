"""A user's servers: show, make, change, start, stop (wire §2.6.6 to §2.6.8)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection

from perijove.db.core import bound
from perijove.db.servers import change_server
from perijove.domain.errors import Invalid, NotFound
from perijove.domain.launch import Cause, Launch, Status, Wanted
from perijove.services.launches import request_start, request_stop, wait_for
from perijove.services.profiles import read_user_options
from perijove.services.servers import Description, change_description, create_server
from perijove.services.users import ServerRow, UserRow, get_user
from perijove.web.api.calls import Call, Reply, empty, json_reply
from perijove.web.api.models import View, server_model
from perijove.web.problems import HIDDEN, StartFailed
from perijove.wire.rest import Server

_DESCRIBING: Final = frozenset({"display_name", "user_options"})
_EDITING: Final = _DESCRIBING | {"name"}


def show(connection: Connection, call: Call) -> Reply:
    """``GET …/server``, ``GET …/servers/:s``: one server; the default one always exists."""
    return json_reply(_model(call, get_user(connection, call.user_name), call.server_name))


def _model(call: Call, user: UserRow, name: str) -> Server:
    row = user.find_server(name)
    if row is None and name:
        raise NotFound(HIDDEN)
    keys = View(call.caller).server_keys(user.name, name)
    return server_model(call.hub, user.name, row, with_state="state" in keys)


# --- making and changing ------------------------------------------------------------------------


async def create(call: Call) -> Reply:
    """``PUT``: make a named server without starting it."""
    said = await _description(call)

    def unit(connection: Connection) -> Server:
        user = get_user(connection, call.user_name)
        create_server(connection, user, call.server_name, said, now=call.hub.clock.now())
        return _model(call, get_user(connection, call.user_name), call.server_name)

    return json_reply(await call.hub.database.write(unit), 201)


async def change(call: Call) -> Reply:
    """``PATCH``: rename a server that is not active, or describe it anew."""
    fields = await call.fields()
    extra = sorted(fields.keys() - _EDITING)
    if extra:
        names = ", ".join(key[:60] for key in extra[:10])
        raise Invalid(f"Invalid JSON keys: {names}", code="body-key")
    if not fields:
        raise Invalid("Must specify at least one field to modify.", code="body-empty")
    said = _describe(fields)

    def unit(connection: Connection) -> Server:
        user = get_user(connection, call.user_name)
        name = change_description(
            connection, user, call.server_name, said, now=call.hub.clock.now()
        )
        return _model(call, get_user(connection, call.user_name), name)

    return json_reply(await call.hub.database.write(unit))


async def _description(call: Call) -> Description:
    """Read a body: fields of a server, or else the whole of it its options (wire §2.6.6)."""
    fields = await call.fields()
    if not fields.keys() <= _DESCRIBING:
        return Description(user_options=fields)
    return _describe(fields)


def _describe(fields: Mapping[str, Any]) -> Description:
    for key in ("name", "display_name"):
        if fields.get(key) is not None and not isinstance(fields[key], str):
            raise Invalid(f"{key} must be a string", field=key, code="body-type")
    options = fields.get("user_options")
    if options is not None and not isinstance(options, dict):
        raise Invalid("user_options must be an object or null", field="user_options")
    return Description(
        name=fields.get("name"), display_name=fields.get("display_name"), user_options=options
    )


# --- start --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """Options as `request_start` takes them; None: what the server remembers."""

    profile: str | None = None
    options: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


async def start(call: Call) -> Reply:
    """``POST``: ask for a server; 201 when it is ready in time, 202 when it is on its way."""
    said = await _description(call)
    wish = _wish(said.user_options)
    user = await call.hub.database.read(bound(get_user, call.user_name))
    row = user.find_server(call.server_name)
    if row is not None and not row.is_stopped:
        return _already(user, row)
    launch = await request_start(
        call.hub,
        user_id=user.id,
        server_name=call.server_name,
        profile=wish.profile,
        options=wish.options,
        extra=wish.extra,
        asking=call.asking(),
    )
    if said.display_name is not None and launch.server_id is not None:
        change = bound(change_server, launch.server_id, display_name=said.display_name)
        await call.hub.database.write(change)
    launch = await wait_for(call.hub, launch.id, until=_is_decided, seconds=call.start_patience)
    if launch.wanted is Wanted.END:
        raise _failure(launch, user.name)
    return empty(201 if launch.status is Status.READY else 202)


def _wish(user_options: Mapping[str, Any] | None) -> _Wish:
    if user_options is None:
        return _Wish()
    asked = read_user_options(user_options)
    return _Wish(profile=asked.profile, options=asked.options, extra=asked.extra)


def _already(user: UserRow, row: ServerRow) -> Reply:
    shown = f"{user.name}:{row.name}" if row.name else user.name
    if row.is_ready:
        raise Invalid(f"{shown} is already running", code="server-active")
    if row.pending != "spawn":
        raise Invalid(f"{shown} is pending {row.pending}", code="server-active")
    return empty(202)


def _is_decided(launch: Launch) -> bool:
    return launch.status is Status.READY or not launch.is_live


def _failure(launch: Launch, user: str) -> Exception:
    end = launch.end
    if end is None or end.cause in (Cause.USER, Cause.ADMIN):
        return Invalid("Spawn cancelled", code="start-cancelled")
    status = end.code if end.code is not None else end
    return StartFailed(
        f"Spawner failed to start [status={status}]. The logs for {user} may contain details.",
        end=str(end),
    )


# --- stop ---------------------------------------------------------------------------------------


async def stop(call: Call) -> Reply:
    """``DELETE``: end a server; 204 when it has ended in time, 202 when it is about to."""
    fields = await call.fields()
    remove = fields.get("remove", False)
    if not isinstance(remove, bool):
        raise Invalid("remove must be true or false", field="remove", code="body-type")
    user = await call.hub.database.read(bound(get_user, call.user_name))
    row = user.find_server(call.server_name)
    if not call.server_name and remove:
        raise Invalid("Cannot delete the default server", code="server-default")
    if row is None and call.server_name:
        raise NotFound(
            f"{user.name} has no server named {call.server_name!r}", code="server-unknown"
        )
    if row is None or (row.is_stopped and not remove):
        return empty(204)
    own = call.caller.kind == "user" and call.caller.name == user.name
    launch = await request_stop(
        call.hub,
        user_id=user.id,
        server_name=call.server_name,
        asking=call.asking(),
        cause=Cause.USER if own else Cause.ADMIN,
        remove=remove,
    )
    if launch is None:
        return empty(204)
    if row.pending == "stop":
        return empty(202)
    launch = await wait_for(
        call.hub,
        launch.id,
        until=lambda now: not now.is_live,
        seconds=call.patience.stop,
    )
    return empty(202 if launch.is_live else 204)
