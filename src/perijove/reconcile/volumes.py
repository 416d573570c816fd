"""
The keeper of volumes: what each platform says of them, written down; what is due, removed.

One lease holder for each spawner that keeps volumes. A volume is removed only by its own row: it
was deleted by its owner, its time is over, no launch that lives has it, and the platform has said
that nothing of it is left before it counts as gone. What no row knows is told and left alone: the
database may be yesterday's.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import anyio
import structlog
from sqlalchemy import Connection

from perijove.db import volumes as rows
from perijove.db.core import bound
from perijove.db.launches import list_live
from perijove.db.leases import take_lease
from perijove.db.volumes import UnknownVolume, Volume
from perijove.domain.launch import ON_PLATFORM, Launch
from perijove.kit.ids import new_id
from perijove.kit.loops import until
from perijove.services.environments import forget_volume
from perijove.services.hub import Hub
from perijove.services.volumes import names_of
from perijove.spawners.contract import KeepsVolumes, VolumeSighting, VolumeSurvey

log = structlog.get_logger()

PERIOD = 60.0
"""Seconds between two looks at the volumes of a platform."""
SURVEY_DEADLINE = 120.0
"""Seconds a platform has to answer; to measure may take it long."""
_GLANCE = 5.0
"""Seconds between two looks at whether something is due."""
_LEASE = timedelta(minutes=5)
_MOST_UNKNOWN = 500
"""How many unknown volumes of one platform are recorded."""


class VolumeKeeper:
    """Looks after the volumes of one spawner for one replica."""

    def __init__(self, hub: Hub, name: str, spawner: KeepsVolumes) -> None:
        self._hub = hub
        self._name = name
        self._spawner = spawner
        self._token = new_id("volumes")

    async def step(self) -> None:
        """Ask the platform once, if the lease is ours, write it down, and remove what is due."""
        lease = f"volumes:{self._name}"
        if not await self._hub.database.write(
            bound(take_lease, lease, token=self._token, ttl=_LEASE)
        ):
            return
        asked_at = self._hub.clock.now()
        try:
            with anyio.fail_after(SURVEY_DEADLINE):
                survey = await self._spawner.survey_volumes()
        except Exception as error:  # noqa: BLE001 - whatever a driver raises is silence
            log.warning("volumes_silent", spawner=self._name, error=str(error)[:200])
            return
        for volume in await self._hub.database.write(bound(self._write_down, survey, asked_at)):
            await self._remove(volume)

    async def pause(self, seconds: float) -> None:
        """Wait until the next look, or until the time of a volume is over that nobody has."""

        async def is_due() -> bool:
            return await self._hub.database.read(self._is_due)

        # Not at once: where another replica has the lease, what is due stays so for a while.
        await anyio.sleep(min(_GLANCE, seconds))
        await until(is_due, seconds=seconds - _GLANCE, pause=_GLANCE)

    def _is_due(self, connection: Connection) -> bool:
        due = [
            volume.name
            for volume in rows.list_due(connection, self._name, self._hub.clock.now())
            if volume.removing_at is None
        ]
        return bool(due) and not _in_use(self._live(connection)).issuperset(due)

    def _live(self, connection: Connection) -> Sequence[Launch]:
        return list_live(connection, spawner=self._name)

    # --- writing down -------------------------------------------------------------------------

    def _write_down(
        self, connection: Connection, survey: VolumeSurvey, asked_at: datetime
    ) -> Sequence[Volume]:
        """Record what was seen; returns what is to be removed now, marked as such."""
        now = self._hub.clock.now()
        there = {sighting.name: sighting for sighting in survey.volumes}
        known = rows.list_volumes(connection, spawner=self._name)
        live = self._live(connection)
        mounted = _in_use(launch for launch in live if launch.status in ON_PLATFORM)
        for volume in known:
            sighting = there.get(volume.name)
            if sighting is not None:
                self._see(connection, volume, sighting, asked_at, in_use=volume.name in mounted)
            elif survey.complete and volume.seen_at is not None and volume.removing_at is None:
                self._miss(connection, volume, asked_at)
        self._note_unknown(connection, survey, {volume.name for volume in known}, now)
        in_use = _in_use(live)
        free = [volume for volume in known if volume.name not in in_use]
        return [volume for volume in free if self._begin_removal(connection, volume, now)]

    def _see(
        self,
        connection: Connection,
        volume: Volume,
        sighting: VolumeSighting,
        asked_at: datetime,
        *,
        in_use: bool,
    ) -> None:
        # One that was made before the platform enforced sizes has none there.
        enforced = self._spawner.enforces_size() and sighting.size_bytes is not None
        size = sighting.size_bytes if enforced else volume.size_bytes
        measured = {}
        if sighting.used_bytes is not None:
            measured = {"used_bytes": sighting.used_bytes, "measured_at": asked_at}
        rows.change_volume(
            connection,
            volume.id,
            seen_at=asked_at,
            missing_since=None,
            enforced=enforced,
            size_bytes=size,
            held_by=next(iter(sighting.held_by), "")[:64],
            **({"last_used_at": asked_at} if in_use else {}),
            **measured,
        )

    def _miss(self, connection: Connection, volume: Volume, asked_at: datetime) -> None:
        """Say that a volume is gone that nobody here has removed; it is not made anew by that."""
        if volume.missing_since is None:
            log.error("volume_missing", spawner=self._name, volume=volume.name)
            rows.change_volume(connection, volume.id, missing_since=asked_at, held_by="")

    def _note_unknown(
        self, connection: Connection, survey: VolumeSurvey, known: set[str], now: datetime
    ) -> None:
        noted: Mapping[str, UnknownVolume] = {
            unknown.name: unknown for unknown in rows.list_unknown(connection, self._name)
        }
        strangers = [sighting for sighting in survey.volumes if sighting.name not in known]
        for sighting in strangers[:_MOST_UNKNOWN]:
            if sighting.name not in noted:
                log.warning("unknown_volume", spawner=self._name, volume=sighting.name[:80])
            rows.note_unknown(
                connection,
                UnknownVolume(
                    spawner=self._name,
                    name=sighting.name,
                    used_bytes=sighting.used_bytes,
                    labels=sighting.labels,
                    first_seen_at=now,
                ),
            )
        if survey.complete:
            for name in noted.keys() - {sighting.name for sighting in strangers}:
                rows.forget_unknown(connection, self._name, name)

    # --- removing -----------------------------------------------------------------------------

    def _begin_removal(self, connection: Connection, volume: Volume, now: datetime) -> bool:
        """
        Tell whether a volume is to be removed now; from here on nobody can have it back.

        The intent is written before the act, so that after a crash the next pass goes on.
        """
        if volume.delete_after is None or volume.delete_after > now:
            return False
        # Where several hubs write, its owner may have had it back since it was read.
        return volume.removing_at is not None or rows.begin_removal(connection, volume.id, now)

    async def _remove(self, volume: Volume) -> None:
        try:
            with anyio.fail_after(SURVEY_DEADLINE):
                is_gone = await self._spawner.remove_volume(volume.name)
        except Exception as error:  # noqa: BLE001 - the next pass tries again
            log.warning("volume_stays", volume=volume.name, error=str(error)[:200])
            return
        if is_gone:
            log.info("volume_removed", spawner=self._name, volume=volume.name)
            now = self._hub.clock.now()
            await self._hub.database.write(bound(self._write_gone, volume, now))

    @staticmethod
    def _write_gone(connection: Connection, volume: Volume, now: datetime) -> None:
        rows.change_volume(connection, volume.id, deleted_at=now, held_by="")
        forget_volume(connection, volume.name)


def _in_use(live: Iterable[Launch]) -> set[str]:
    """Return the volumes that launches have."""
    return {name for launch in live for name in names_of(launch)}
