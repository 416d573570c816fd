"""Volumes over the API: list, delete, restore, attach elsewhere."""

from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from perijove.db import volumes as rows
from perijove.db.volumes import Volume
from perijove.domain.scopes import Verdict
from perijove.kit.clock import isoformat
from perijove.services import volumes
from perijove.web.api.calls import Call, Reply, check_keys, json_reply
from perijove.wire import volumes as wire

_READ: Final = "read:servers"
_DELETE: Final = "delete:servers"
_CHANGE: Final = "servers"


def listed(connection: Connection, call: Call) -> Reply:
    """``GET volumes``: those the caller may see; of one person with ``?user=``."""
    may_see_all = call.caller.decide((_READ,), None) is Verdict.ALLOWED
    wanted = call.query.get("user")
    found = [
        volume
        for volume in rows.list_volumes(connection)
        if wanted is None or volume.user_name == wanted
    ]
    if not may_see_all:
        found = [
            volume
            for volume in found
            if volume.user_id is not None
            and call.caller.may(_READ, user=volume.user_name, server=_server_of(volume))
        ]
    unknown = rows.list_unknown(connection) if may_see_all and wanted is None else ()
    return json_reply(
        wire.Volumes(
            volumes=[_model(volume) for volume in found],
            unknown=[
                wire.Unknown(
                    name=each.name,
                    spawner=each.spawner,
                    used_bytes=each.used_bytes,
                    labels=dict(each.labels),
                    first_seen_at=isoformat(each.first_seen_at),
                )
                for each in unknown
            ],
        )
    )


def show(connection: Connection, call: Call) -> Reply:
    """``GET volumes/:id``: one of them."""
    return _reply(_find(connection, call, _READ))


async def delete(call: Call) -> Reply:
    """``DELETE volumes/:id``: it can be restored until ``delete_after``; 409 while in use."""

    def unit(connection: Connection) -> Reply:
        name, now = _find(connection, call, _DELETE).name, call.hub.clock.now()
        return _reply(volumes.bury(connection, name, asking=call.asking(), now=now))

    return await call.hub.database.write(unit)


async def restore(call: Call) -> Reply:
    """``POST volumes/:id/restore``: take back a deletion; 410 when it is being removed."""

    def unit(connection: Connection) -> Reply:
        name, now = _find(connection, call, _CHANGE).name, call.hub.clock.now()
        return _reply(volumes.restore(connection, name, asking=call.asking(), now=now))

    return await call.hub.database.write(unit)


async def attach(call: Call) -> Reply:
    """``POST volumes/:id/attach``, ``{"server": …}``: to another server of its owner."""
    fields = await call.fields()
    check_keys(fields, {"server": str})
    server = str(fields.get("server", ""))

    def unit(connection: Connection) -> Reply:
        volume, now = _find(connection, call, _CHANGE), call.hub.clock.now()
        call.require(_CHANGE, _owner_of(volume), server)
        asking = call.asking()
        return _reply(volumes.attach(connection, volume.name, server, asking=asking, now=now))

    return await call.hub.database.write(unit)


def _find(connection: Connection, call: Call, scope: str) -> Volume:
    volume = volumes.get_volume(connection, call.names[0])
    call.require(scope, _owner_of(volume), _server_of(volume))
    return volume


def _owner_of(volume: Volume) -> str | None:
    """Return who owns a volume now; None for one whose owner's account was deleted."""
    return None if volume.user_id is None else volume.user_name


def _server_of(volume: Volume) -> str | None:
    """Return which server's own a volume is; None: a person's, or of one that was deleted."""
    return None if volume.server_id is None else volume.server_name


def _reply(volume: Volume) -> Reply:
    return json_reply(_model(volume))


def _model(volume: Volume) -> wire.Volume:
    return wire.Volume(
        name=volume.name,
        kind=volume.kind,
        user=_owner_of(volume),
        server=_server_of(volume),
        attached=volume.attached,
        spawner=volume.spawner,
        path=volume.path,
        size_bytes=volume.size_bytes,
        enforced=volume.enforced,
        storage_class=volume.storage_class,
        used_bytes=volume.used_bytes,
        measured_at=_text(volume.measured_at),
        fullness=volume.fullness,
        held_by=volume.held_by,
        created_at=isoformat(volume.created_at),
        last_used_at=_text(volume.last_used_at),
        missing_since=_text(volume.missing_since),
        delete_after=_text(volume.delete_after),
        removing=volume.removing_at is not None,
    )


def _text(at: datetime | None) -> str | None:
    return None if at is None else isoformat(at)
