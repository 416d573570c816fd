"""Persistent environments: a person's own, what others share, and the session's side."""

from typing import Any

import msgspec
from sqlalchemy import Connection

from perijove.db.core import bound
from perijove.db.environments import Environment
from perijove.db.launches import get_launch
from perijove.domain.errors import Conflict, Forbidden, Invalid, NotFound
from perijove.domain.launch import Status
from perijove.kit.clock import isoformat
from perijove.services import environments as service
from perijove.services.users import get_user
from perijove.web.api.calls import TEXT, Call, Reply, check_keys, empty, json_reply, texts_of
from perijove.web.asgi import read_body
from perijove.wire import environments as wire

_MOST_BYTES = 1 << 20


def listed(connection: Connection, call: Call) -> Reply:
    """``GET users/:n/environments``: what a person has, what others share, and where."""
    mine = service.find_mine(call.hub, connection, get_user(connection, call.user_name).id)
    return json_reply(
        wire.Environments(
            environments=[_model(each) for each in mine.own],
            shared=[_model(each) for each in mine.shared],
            places=list(mine.places),
        )
    )


async def create(call: Call) -> Reply:
    """
    ``POST users/:n/environments``: ask for one, ``{"name": …, "packages": ["numpy"]}``.

    With ``lock`` exactly these versions; with ``copy_of`` those of one that is shared.
    """
    fields = await call.fields()
    check_keys(fields, {"name": str, "packages": list, "lock": str, "copy_of": int, "place": str})

    def unit(connection: Connection) -> Environment:
        user = get_user(connection, call.user_name)
        asked = {"name": fields.get("name", ""), "place": fields.get("place", "")}
        now = call.hub.clock.now()
        if "copy_of" in fields:
            source = fields["copy_of"]
            return service.copy(call.hub, connection, user.id, source=source, now=now, **asked)
        packages = texts_of(fields.get("packages", []), "packages")
        lock = fields.get("lock", "")
        return service.create(
            call.hub, connection, user.id, packages=packages, lock=lock, now=now, **asked
        )

    return json_reply(_model(await call.hub.database.write(unit)), 201)


def show(connection: Connection, call: Call) -> Reply:
    """``GET users/:n/environments/:id``: one of a person's."""
    return json_reply(_model(_own(connection, call)))


def lock(connection: Connection, call: Call) -> Reply:
    """``GET users/:n/environments/:id/lock``: exactly what is in it, for pip."""
    found = _own(connection, call)
    if not found.lock:
        raise NotFound(f"{found.name} was not built yet", code="environment-not-built")
    name = f'attachment; filename="{found.name}.txt"'.encode()
    return Reply(200, found.lock.encode(), TEXT, ((b"content-disposition", name),))


async def change(call: Call) -> Reply:
    """
    ``PATCH users/:n/environments/:id``: ``packages``, ``locked``, ``shared_with``, ``retry``.
    """
    fields = await call.fields()
    check_keys(fields, {"packages": list, "locked": bool, "shared_with": list, "retry": bool})
    packages = texts_of(fields["packages"], "packages") if "packages" in fields else None
    shared = texts_of(fields["shared_with"], "shared_with") if "shared_with" in fields else None

    def unit(connection: Connection) -> Environment:
        found, now = _own(connection, call), call.hub.clock.now()
        if fields.get("retry"):
            service.retry(connection, found.user_id, found.id, now=now)
        return service.change(
            connection,
            found.user_id,
            found.id,
            packages=packages,
            locked=fields.get("locked"),
            shared=shared,
            now=now,
        )

    return json_reply(_model(await call.hub.database.write(unit)))


async def remove(call: Call) -> Reply:
    """``DELETE users/:n/environments/:id``: 204 when it is gone, 202 until a session did it."""

    def unit(connection: Connection) -> Environment | None:
        found = _own(connection, call)
        now = call.hub.clock.now()
        return service.remove(call.hub, connection, found.user_id, found.id, now=now)

    left = await call.hub.database.write(unit)
    return empty(204) if left is None else json_reply(_model(left), 202)


async def sync(call: Call) -> Reply:
    """``POST environments/sync``: what a session did, and what it is to do; its token only."""
    launch_id = call.caller.launch_id
    if launch_id is None:
        raise Forbidden("only a running server says what lies there", code="not-a-server")
    body = await read_body(call.receive, limit=_MOST_BYTES)
    try:
        said = msgspec.json.decode(body or b"", type=wire.Sync)
    except msgspec.DecodeError as error:
        raise Invalid(f"Invalid JSON: {error}", code="body-json") from None
    launch = await call.hub.database.read(bound(get_launch, launch_id))
    place = service.place_of(call.hub, launch)
    if place is None or launch.status is Status.ENDED:
        raise Conflict("this server keeps nothing", code="environment-nowhere")
    tasks, again_in = await service.sync(call.hub, launch, place, said)
    return json_reply(
        wire.Work(
            again_in=again_in,
            environments=[
                wire.Task(
                    id=each.id,
                    revision=each.revision,
                    name=each.name,
                    wanted=each.is_wanted,
                    packages=list(each.packages),
                    lock=each.lock if each.is_locked else "",
                )
                for each in tasks
            ],
        )
    )


def _own(connection: Connection, call: Call) -> Environment:
    user = get_user(connection, call.user_name)
    return service.find_own(connection, user.id, service.read_id(call.names[1]))


def _model(environment: Environment) -> wire.Environment:
    seen: Any = environment.seen_at
    return wire.Environment(
        id=environment.id,
        name=environment.name,
        owner=environment.user_name,
        maker=environment.maker,
        place=environment.place,
        state=environment.state,
        packages=list(environment.packages),
        locked=environment.is_locked,
        has_lock=bool(environment.lock),
        shared_with=list(environment.shared),
        size_bytes=environment.size_bytes,
        error=environment.error,
        created_at=isoformat(environment.created_at),
        changed_at=isoformat(environment.changed_at),
        seen_at=isoformat(seen) if seen else None,
    )
