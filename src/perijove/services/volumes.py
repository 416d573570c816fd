"""
Volumes: made with the first start that keeps something, found again by the later ones.

A volume ends in three steps, each on its own: its owner deletes it and can have it back for some
days; then it is being removed, and nobody can; then it was seen gone (`reconcile/volumes.py`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from perijove.db import volumes as rows
from perijove.db.launches import find_launch, list_live, live_launch_of
from perijove.db.locks import hold_user
from perijove.db.servers import Server, find_server
from perijove.db.volumes import Volume
from perijove.domain.asking import Asking
from perijove.domain.errors import Conflict, Forbidden, Gone, Invalid, NotFound
from perijove.domain.launch import Launch, Status
from perijove.domain.storage import Kept, Storage
from perijove.kit.ids import platform_name
from perijove.services.audit import Audited, record_audit
from perijove.services.hub import Hub
from perijove.spawners.contract import KeepsVolumes, VolumeSpec


def keeps_volumes(hub: Hub, spawner: str) -> bool:
    """Tell whether a spawner of the configuration can keep volumes."""
    placed = hub.spawners.get(spawner)
    return placed is not None and isinstance(placed.spawner, KeepsVolumes)


def any_keeps_volumes(hub: Hub) -> bool:
    """Tell whether people of this hub can have volumes at all."""
    return any(keeps_volumes(hub, name) for name in hub.spawners)


def is_measured_by_servers(hub: Hub, spawner: str) -> bool:
    """Tell whether a platform keeps volumes and cannot say what is on them."""
    placed = hub.spawners.get(spawner)
    if placed is None or not isinstance(placed.spawner, KeepsVolumes):
        return False
    return not placed.spawner.measures_use()


# --- with a start -----------------------------------------------------------------------------


def keep(
    hub: Hub,
    connection: Connection,
    storage: Storage | None,
    *,
    spawner: str,
    server: Server,
    user_name: str,
    now: datetime,
) -> Sequence[Volume]:
    """
    Return the volumes of a start, making their rows at the first one.

    Runs in the unit that inserts the launch. A server that was about to be deleted is not, and
    so neither is what it keeps. Raises `Invalid` where the platform keeps no volumes.
    """
    if server.remove:
        _take_back(connection, server)
    if storage is None:
        return []
    if not keeps_volumes(hub, spawner):
        raise Invalid(
            f"this profile keeps files on a volume, and {spawner} has none",
            code="storage-impossible",
            spawner=spawner,
        )
    found = rows.find_attached(
        connection,
        spawner=spawner,
        kind=storage.kept,
        user_id=server.user_id,
        server_id=server.id,
    )
    if found is None:
        of_server = storage.kept is Kept.SERVER
        found = rows.insert_volume(
            connection,
            Volume(
                name=platform_name(hub.installation),
                spawner=spawner,
                kind=storage.kept,
                user_id=server.user_id,
                user_name=user_name,
                server_id=server.id if of_server else None,
                server_name=server.name if of_server else "",
                path=storage.path,
                size_bytes=storage.size_bytes,
                storage_class=storage.storage_class,
                retention_seconds=int(storage.retention.total_seconds()),
                created_at=now,
                last_used_at=now,
            ),
        )
        return [found]
    # What an administrator changes holds from the next start on. Where it is seen may change
    # as well: the files are the same.
    changes: dict[str, Any] = {
        "path": storage.path,
        "retention_seconds": int(storage.retention.total_seconds()),
        "last_used_at": now,
        "user_name": user_name,
        **({} if found.enforced else {"size_bytes": storage.size_bytes}),
    }
    rows.change_volume(connection, found.id, **changes)
    return [replace(found, **changes)]


def spec_of(kept: Sequence[Volume]) -> dict[str, Any]:
    """Return what the spec of a launch says of its volumes, as JSON."""
    return {"volumes": [asdict(_described(volume)) for volume in kept]} if kept else {}


def _described(volume: Volume) -> VolumeSpec:
    labels = {"user": volume.user_name, "server": volume.server_name}
    return VolumeSpec(
        name=volume.name,
        path=volume.path,
        size_bytes=volume.size_bytes,
        storage_class=volume.storage_class,
        labels={name: text for name, text in labels.items() if text},
    )


def names_of(launch: Launch) -> Collection[str]:
    """Return the platform names of the volumes that a launch has."""
    return [str(volume["name"]) for volume in launch.spec.get("volumes", ())]


def users_of(connection: Connection, volume: Volume) -> Sequence[Launch]:
    """Return the launches that have a volume and are not over."""
    live = list_live(connection, spawner=volume.spawner)
    return [launch for launch in live if volume.name in names_of(launch)]


async def take_use(hub: Hub, launch_id: str | None, used: Mapping[str, int]) -> None:
    """
    Write down what a server, known by its token, has counted on its volumes, by their paths.

    This is the word of whoever has the server: it is shown to people, and nothing is decided by
    it. Raises `Forbidden` for who is no server, `Gone` when the launch is over, `Conflict` where
    the platform itself measures.
    """
    if launch_id is None:
        raise Forbidden("only a server says what is on its volumes", code="not-a-server")

    def unit(connection: Connection) -> None:
        launch = find_launch(connection, launch_id)
        if launch is None or launch.status is Status.ENDED:
            raise Gone("this launch has ended", code="launch-over")
        if not is_measured_by_servers(hub, launch.spawner):
            raise Conflict(f"{launch.spawner} measures by itself", code="volume-measured")
        now = hub.clock.now()
        for given in launch.spec.get("volumes", ()):
            volume = rows.find_volume(connection, str(given["name"]))
            if volume is not None and given["path"] in used:
                measured = {"used_bytes": used[given["path"]], "measured_at": now}
                rows.change_volume(connection, volume.id, **measured)

    await hub.database.write(unit)


# --- what their owners do ---------------------------------------------------------------------


def get_volume(connection: Connection, name: str) -> Volume:
    """Return a volume that is not gone by its platform name; raises `NotFound`."""
    volume = rows.find_volume(connection, name)
    if volume is None or volume.deleted_at is not None:
        raise NotFound("there is no such volume", code="volume-unknown")
    return volume


def _hold(connection: Connection, name: str) -> Volume:
    """Return a volume that no start takes meanwhile; raises `NotFound`."""
    owner = get_volume(connection, name).user_id
    if owner is not None:
        hold_user(connection, owner)
    return get_volume(connection, name)


def bury_with_server(connection: Connection, server: Server, *, now: datetime) -> None:
    """Delete what a server keeps of its own, with the server."""
    for volume in rows.list_volumes(connection, server_id=server.id):
        if volume.attached:
            _bury(connection, volume, now=now)


def bury(connection: Connection, name: str, *, asking: Asking, now: datetime) -> Volume:
    """
    Delete a volume; its owner can have it back for a while, see `restore`.

    Raises `Conflict` while a launch has it. What is deleted already stays as it is.
    """
    volume = _hold(connection, name)
    if volume.delete_after is None:
        _check_unused(connection, volume)
        _bury(connection, volume, now=now)
        _audit(connection, "volume-deleted", volume, asking, now)
    return get_volume(connection, name)


def restore(connection: Connection, name: str, *, asking: Asking, now: datetime) -> Volume:
    """
    Take back a deletion. It goes to where it was, unless another one is there by now.

    Raises `Gone` when it is being removed.
    """
    volume = _hold(connection, name)
    if volume.delete_after is not None or volume.removing_at is not None:
        if not _restore(connection, volume):
            raise _gone()
        _audit(connection, "volume-restored", volume, asking, now)
    return get_volume(connection, name)


def attach(
    connection: Connection, name: str, server_name: str, *, asking: Asking, now: datetime
) -> Volume:
    """
    Give a volume to another server of its owner, or the person's own to one server.

    A volume that the server has by then is kept for its owner, without a server. Raises
    `Conflict` while either is in use, `NotFound` for no such server, `Gone` as `restore`.
    """
    volume = _hold(connection, name)
    server = (
        None if volume.user_id is None else find_server(connection, volume.user_id, server_name)
    )
    if server is None:
        raise NotFound(f"no server named {server_name!r}", code="server-unknown")
    _check_unused(connection, volume)
    if live_launch_of(connection, server.id) is not None:
        raise Conflict("stop the server first", code="volume-server-active")
    present = rows.find_attached(
        connection,
        spawner=volume.spawner,
        kind=Kept.SERVER,
        user_id=server.user_id,
        server_id=server.id,
    )
    if present is not None and present.id != volume.id:
        rows.change_volume(connection, present.id, attached=False, server_id=None)
    is_there = rows.take_back(
        connection,
        volume.id,
        kind=Kept.SERVER,
        server_id=server.id,
        server_name=server.name,
        attached=True,
    )
    if not is_there:
        raise _gone()
    _audit(connection, "volume-attached", volume, asking, now)
    return get_volume(connection, name)


def _check_unused(connection: Connection, volume: Volume) -> None:
    users = users_of(connection, volume)
    if users:
        raise Conflict(
            f"server {users[0].server_name!r} uses this volume: stop it first",
            code="volume-in-use",
            server=users[0].server_name,
        )


def _bury(connection: Connection, volume: Volume, *, now: datetime) -> None:
    rows.change_volume(
        connection,
        volume.id,
        attached=False,
        delete_after=now + volume.retention,
        server_name=volume.server_name,  # It may be renamed since, and is gone soon.
    )


def _restore(connection: Connection, volume: Volume) -> bool:
    """Take back a deletion; False if it is being removed."""
    return rows.take_back(connection, volume.id, attached=_is_place_free(connection, volume))


def _gone() -> Gone:
    return Gone("this volume is being removed", code="volume-gone")


def _is_place_free(connection: Connection, volume: Volume) -> bool:
    """Tell whether a volume can be again what it was to its owner or server."""
    if volume.user_id is None or (volume.kind is Kept.SERVER and volume.server_id is None):
        return False
    there = rows.find_attached(
        connection,
        spawner=volume.spawner,
        kind=volume.kind,
        user_id=volume.user_id,
        server_id=volume.server_id or 0,
    )
    return there is None


def _take_back(connection: Connection, server: Server) -> None:
    """Restore what was deleted with a server that goes on: on each platform what came last."""
    buried = [
        volume
        for volume in rows.list_volumes(connection, server_id=server.id)
        if volume.delete_after is not None and volume.removing_at is None
    ]
    for volume in sorted(buried, key=_deleted_at, reverse=True):
        if _is_place_free(connection, volume):
            _restore(connection, volume)


def _deleted_at(volume: Volume) -> datetime:
    return (volume.delete_after or volume.created_at) - volume.retention


def _audit(
    connection: Connection, action: str, volume: Volume, asking: Asking, now: datetime
) -> None:
    params = {"owner": volume.user_name, "server": volume.server_name, "spawner": volume.spawner}
    record_audit(
        connection,
        Audited(
            action=action,
            actor=asking.actor,
            target=volume.name,
            params=params,
            token_id=asking.token_id,
            request_id=asking.request_id,
        ),
        now,
    )
