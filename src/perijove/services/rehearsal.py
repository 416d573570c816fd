"""
What is asked of a platform before a request is admitted: fresh facts, and its own objections.

Admission itself is one short unit of work and asks nobody (`admission.py`); it decides with
what was found out here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import anyio
import structlog
from sqlalchemy import Connection

from perijove.db.core import bound
from perijove.db.launches import live_launch_of
from perijove.db.servers import find_server
from perijove.domain.errors import HubError, SpawnerError
from perijove.domain.faults import Fault, InvalidOptions
from perijove.domain.launch import Wanted
from perijove.domain.offer import Objection
from perijove.domain.options import Choice
from perijove.services.admission import choose_options, choose_profile, wish_of
from perijove.services.discovery import AT_START, kinds_of, platforms_of, refresh
from perijove.services.hub import Hub
from perijove.services.limits import Person, find_person, limits_of
from perijove.spawners.contract import Discovers

log = structlog.get_logger()

_OBJECT_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """A start that is about to be asked for."""

    user_id: int
    server_name: str
    profile: str | None
    options: Mapping[str, Any] | None
    extra: Mapping[str, Any] | None = None
    is_restart: bool = False


async def rehearse(hub: Hub, start: Rehearsal) -> None:
    """
    Ask the platform for what the decision needs; a platform that is silent decides nothing.

    Raises `InvalidOptions` with the platform's own objections, each at the field it names.
    What else is wrong with the request is left to admission.
    """
    kinds = kinds_of(hub)
    if not kinds:
        return
    spawner = await hub.database.read(bound(_spawner_of, start, hub, kinds))
    if spawner is None or spawner not in kinds:
        return
    await refresh(hub, start.user_id, max_age=AT_START, spawner=spawner)
    chosen = await hub.database.read(bound(_choice_of, start, hub, kinds))
    if chosen is None:
        return
    objections = await _objections(hub, spawner, *chosen)
    if objections:
        raise InvalidOptions([Fault.of_objection(each) for each in objections])


async def _objections(
    hub: Hub, spawner: str, person: Person, choice: Choice
) -> Sequence[Objection]:
    discovers = hub.spawners[spawner].spawner
    assert isinstance(discovers, Discovers)
    try:
        with anyio.move_on_after(_OBJECT_SECONDS):
            return await discovers.validate(person.name, choice.resources, choice.options)
    except SpawnerError as error:
        log.info("dry_run_failed", spawner=spawner, code=error.code)
    except Exception:  # as any other dry run that says nothing
        log.exception("dry_run_broken", spawner=spawner)
    return ()


def _spawner_of(
    connection: Connection, start: Rehearsal, hub: Hub, kinds: Mapping[str, str]
) -> str | None:
    """Return where the start would go; None where nothing would be started."""
    server = find_server(connection, start.user_id, start.server_name)
    live = live_launch_of(connection, server.id) if server else None
    if live is not None and live.wanted is Wanted.RUN and not start.is_restart:
        return None
    try:
        limits = limits_of(connection, find_person(connection, start.user_id))
        wish = wish_of(server, start.profile, start.options, start.extra)
        platforms = platforms_of(connection, kinds, start.user_id, hub.clock.now())
        return choose_profile(connection, limits, wish, platforms).spawner
    except HubError:
        return None  # admission says why


def _choice_of(
    connection: Connection, start: Rehearsal, hub: Hub, kinds: Mapping[str, str]
) -> tuple[Person, Choice] | None:
    """Return who would start what; None where admission will refuse it."""
    server = find_server(connection, start.user_id, start.server_name)
    try:
        person = find_person(connection, start.user_id)
        limits = limits_of(connection, person)
        wish = wish_of(server, start.profile, start.options, start.extra)
        platforms = platforms_of(connection, kinds, start.user_id, hub.clock.now())
        profile = choose_profile(connection, limits, wish, platforms)
        return person, choose_options(profile, limits, wish, platforms)
    except HubError:
        return None
