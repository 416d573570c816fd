"""
Servers as containers of an engine: the spawner contract.

What is true of a launch is on the engine. A survey is one question for everything of ours, and
one more for each container that has ended since, so there is no picture here that could grow old.
The engine's events say when to look, never what is the case: a stream of them that has died
without a word costs the period between two surveys (failure 5.11).
"""

import math
import os
import pwd
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from typing import ClassVar, Final, Self

import anyio
import structlog
from aiodocker import DockerError
from anyio.abc import TaskGroup

from perijove.domain.errors import ConfigError, SpawnerRejected, SpawnerTransient
from perijove.domain.launch import Cause, End
from perijove.kit.clock import monotonic
from perijove.kit.config import Section
from perijove.kit.loops import Doorbell, every
from perijove.spawners.archive import Archive
from perijove.spawners.contract import (
    Checkpoint,
    Handle,
    LaunchSpec,
    Phase,
    Sighting,
    SpawnerSettings,
    Surroundings,
    Survey,
    VolumeSurvey,
)
from perijove.spawners.docker.containers import (
    Identity,
    container_config,
    image_of,
    labels_of,
    settings_for,
)
from perijove.spawners.docker.engine import Answer, Engine, open_engine
from perijove.spawners.docker.images import Images
from perijove.spawners.docker.labels import INSTALLATION, SPAWNER, carries
from perijove.spawners.docker.marks import Marks
from perijove.spawners.docker.networks import Networks
from perijove.spawners.docker.sections import DockerOverrides, DockerSettings
from perijove.spawners.docker.states import (
    end_of,
    is_over,
    name_of,
    refusal_code,
    sighting_of,
    will_pass,
)
from perijove.spawners.docker.volumes import Volumes
from perijove.spawners.names import check_platform_name, is_platform_name

log = structlog.get_logger()

_CANCELLED: Final = End(cause=Cause.NEVER_STARTED, reason="cancelled")
_FORGOTTEN_SECONDS: Final = 2.0
"""How long a container may be seen made and not started before a survey starts it."""
_GREETING_SECONDS: Final = 5.0
"""How long a hub that starts waits for an engine, which it can do without."""
_LISTENING_SECONDS: Final = 300.0
"""How long one stream of events is listened to: its connection may die without a word."""
_DEAF_SECONDS: Final = 1.0
"""Between two of them."""
_MAKING_SECONDS: Final = 10.0
_LOOK_AGAIN_SECONDS: Final = 0.1
_TRIES: Final = 50
"""How often a start is tried again that fails for a reason which will pass."""
_TIDY_SECONDS: Final = 3600.0
_LOG_LINES: Final = 2000
_STOPS: Final = 50
"""How often a container is stopped that another one removes, or starts again, meanwhile."""


class DockerSpawner:
    """Starts servers in containers of one engine."""

    Settings: ClassVar[type[SpawnerSettings]] = DockerSettings
    Overrides: ClassVar[type[Section]] = DockerOverrides

    def __init__(self, settings: DockerSettings, surroundings: Surroundings) -> None:
        if settings.user == "system" and not surroundings.system_accounts:
            raise ConfigError(
                f"spawners.{surroundings.name}.user is 'system', but people do not sign in with "
                "this machine's accounts: use [auth.pam]"
            )
        self._settings = settings
        self._surroundings = surroundings
        self._labels = {INSTALLATION: surroundings.installation, SPAWNER: surroundings.name}
        self._archive = Archive(surroundings.data_dir / surroundings.installation)
        self._stack = AsyncExitStack()
        self._being_started: set[str] = set()
        self._forgotten: dict[str, float] = {}
        self._ends: dict[str, End] = {}
        self._node = ""
        self._tidied: float | None = None
        self._changes = Doorbell()
        self._warnings: list[str] = []
        self._engine: Engine
        self._tasks: TaskGroup

    async def __aenter__(self) -> Self:
        """Get ready; an engine that is away is no reason not to."""
        self._engine = await anyio.to_thread.run_sync(self._open)
        installation = self._surroundings.installation
        self._marks = Marks(self._engine, installation)
        self._networks = Networks(self._engine, installation, self._settings)
        self._images = Images(self._engine, self._settings)
        self._volumes = Volumes(
            self._engine,
            self._settings,
            installation=installation,
            spawner=self._surroundings.name,
        )
        await self._stack.enter_async_context(self._engine)
        self._tasks = await self._stack.enter_async_context(anyio.create_task_group())
        with suppress(SpawnerTransient, DockerError), anyio.move_on_after(_GREETING_SECONDS):
            await self._get_to_know()
        self._tasks.start_soon(self._listen)
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Let go; containers run on, and the engine keeps what it has fetched of an image."""
        self._tasks.cancel_scope.cancel()
        await self._stack.aclose()

    def _open(self) -> Engine:
        self._archive.prepare()
        self._archive.prune()
        settings = self._settings
        certificate = None
        if settings.tls_cert is not None and settings.tls_key is not None:
            certificate = (settings.tls_cert, settings.tls_key)
        return open_engine(
            settings.url,
            ca=settings.tls_ca,
            certificate=certificate,
            timeout=settings.engine_timeout,
        )

    async def _get_to_know(self) -> None:
        about = await self._engine.describe()
        self._node = str(about.get("Name", ""))
        # Without it, bridges pass on packets between containers however they are made.
        if self._settings.network == "own" and about.get("BridgeNfIptables") is False:
            self._warnings.append("docker-containers-meet")

    def warnings(self, *, public: bool) -> Sequence[str]:
        """Say what of the engine or of the hub keeps servers from being apart, or reached."""
        is_deaf = self._surroundings.api_is_local and not self._settings.api_url
        return [*(["api-loopback"] if is_deaf else []), *self._warnings]

    def calls(self) -> Mapping[str, int]:
        """Return how often the engine was asked for what."""
        return self._engine.counts

    # --- start ----------------------------------------------------------------------------

    async def start(self, spec: LaunchSpec, checkpoint: Checkpoint) -> Sighting:
        """Have the launch's container made, once its image is there, and start it."""
        check_platform_name(spec.name)
        if await self._marks.has(spec.name):
            return await self._over(spec.name)
        self._being_started.add(spec.name)
        try:
            container_id = await self._ensure(spec)
            # `stop` does it the other way round: see `marks`.
            if await self._marks.has(spec.name):
                await self._discard(container_id)
                return await self._over(spec.name)
            await checkpoint({"id": container_id})
            await self._run(container_id)
            listed = await self._engine.list_containers(self._labels, container_id=container_id)
            if not listed:
                return await self._over(spec.name)
            return await self._see(listed[0])
        finally:
            self._being_started.discard(spec.name)

    async def _ensure(self, spec: LaunchSpec) -> str:
        """Return the id of the launch's container, made now or before."""
        found = await self._engine.find_container(spec.name)
        if found is not None:
            return self._own(found, spec.name)
        settings = settings_for(spec, self._settings)
        identity = await self._identity(spec.user_name, settings)
        await self._images.ensure(image_of(spec, settings), spec.name, self._tasks)
        network = await self._networks.ensure(settings.network, spec.user_name)
        config = container_config(
            spec,
            settings,
            network=network,
            identity=identity,
            labels=labels_of(spec, self._labels, settings),
        )
        try:
            await self._volumes.ensure(spec.volumes)
            made = await self._engine.create_container(spec.name, config)
        except DockerError as error:
            if error.status == 404:  # What was there a moment ago is not any more.
                raise SpawnerTransient(error.message) from error
            raise SpawnerRejected(error.message, code=refusal_code(error.message)) from error
        return made or await self._made_elsewhere(spec.name)

    async def _made_elsewhere(self, name: str) -> str:
        """Return the id of a container that another start makes: its name is taken first."""
        latest = monotonic() + _MAKING_SECONDS
        while (found := await self._engine.find_container(name)) is None:
            if monotonic() >= latest:
                raise SpawnerTransient(f"{name} was there and is gone")
            await anyio.sleep(_LOOK_AGAIN_SECONDS)
        return self._own(found, name)

    def _own(self, found: Answer, name: str) -> str:
        if not carries(found["Config"].get("Labels"), self._labels):
            raise SpawnerRejected(
                f"a container that is not of this hub is called {name}", code="container-refused"
            )
        return str(found["Id"])

    async def _identity(self, user_name: str, settings: DockerSettings) -> Identity:
        if settings.user != "system":
            return Identity(user=settings.user)
        if not self._surroundings.system_accounts:
            raise SpawnerRejected(
                "people do not sign in with this machine's accounts", code="account-refused"
            )
        return await anyio.to_thread.run_sync(_account, user_name)

    async def _run(self, container_id: str) -> None:
        """Start a container that was made and never started; it says itself if that fails."""
        container = await self._engine.find_container(container_id)
        if container is None or container["State"]["Status"] != "created":
            return
        if end_of(container["State"]) is not None:
            return
        for left in reversed(range(_TRIES)):
            if await self._is_begun(container, is_last=not left):
                return
            await anyio.sleep(_LOOK_AGAIN_SECONDS)

    async def _is_begun(self, container: Answer, *, is_last: bool) -> bool:
        """Start a container; False when the engine refused for a reason that will pass."""
        container_id = str(container["Id"])
        try:
            await self._volumes.give(container)
            await self._engine.start_container(container_id)
        except (DockerError, SpawnerTransient):
            after = await self._engine.find_container(container_id)
            if after is None or end_of(after["State"]) is not None:
                return True
            if is_last or not will_pass(after["State"]):
                raise
            return False
        return True

    async def _discard(self, container_id: str) -> None:
        """Remove a container that never ran, or came to run only for its mark to be seen late."""
        await self._engine.stop_container(container_id, grace=0)
        await self._engine.remove_container(container_id)

    async def _over(self, name: str) -> Sighting:
        end = await anyio.to_thread.run_sync(self._archive.find_end, name)
        return Sighting(name=name, phase=Phase.GONE, end=end or _CANCELLED)

    # --- survey ---------------------------------------------------------------------------

    async def survey(self) -> Survey:
        """
        List the containers that carry our labels.

        One that was made and is not started by anybody was forgotten by a hub that died, and is
        started now.
        """
        if not self._node:
            await self._get_to_know()
        listed = await self._engine.list_containers(self._labels)
        self._forget({each["Id"] for each in listed})
        sightings = [await self._see(each) for each in listed]
        for each, sighting in zip(listed, sightings, strict=True):
            if sighting.phase is Phase.PENDING:
                await self._adopt(each)
        await self._reach(listed)
        await self._tidy()
        return Survey(complete=True, sightings=sightings)

    async def _see(self, listed: Answer) -> Sighting:
        end = None
        if is_over(listed["State"]) or listed["State"] == "created":
            end = await self._end_of(listed["Id"])
        return sighting_of(listed, node=self._node, end=end)

    async def _end_of(self, container_id: str) -> End | None:
        """Return the evidence that a container is over; asked for once."""
        if container_id not in self._ends:
            found = await self._engine.find_container(container_id)
            end = end_of(found["State"]) if found is not None else None
            if end is None:
                return None
            self._ends[container_id] = end
        return self._ends[container_id]

    async def _adopt(self, listed: Answer) -> None:
        """Start what nobody starts: seen twice, for another hub may be about to do it."""
        if name_of(listed) in self._being_started:
            return
        first = self._forgotten.setdefault(listed["Id"], monotonic())
        if monotonic() - first < _FORGOTTEN_SECONDS:
            return
        try:
            # Its start may have died before it looked for the mark of a stop.
            if await self._marks.has(name_of(listed)):
                await self._discard(listed["Id"])
            else:
                await self._run(listed["Id"])
        except (DockerError, SpawnerTransient) as error:
            # That one cannot be started must not hide the others; the next survey tries.
            log.warning("launch_not_started", launch=name_of(listed), error=str(error)[:200])

    def _forget(self, present: set[str]) -> None:
        for known in (self._ends, self._forgotten):
            for container_id in known.keys() - present:
                known.pop(container_id, None)

    async def _reach(self, listed: Sequence[Answer]) -> None:
        try:
            await self._networks.reach(listed)
        except (DockerError, SpawnerTransient) as error:
            log.warning("networks_not_joined", error=str(error)[:200])

    async def _tidy(self) -> None:
        """Now and then, remove marks and networks that are of no use any more."""
        now = monotonic()
        is_due = self._tidied is None or now - self._tidied >= _TIDY_SECONDS
        if not is_due or self._being_started:  # A start counts on its network.
            return
        self._tidied = now
        try:
            await self._marks.prune()
            await self._networks.prune()
        except (DockerError, SpawnerTransient) as error:
            log.warning("engine_not_tidied", error=str(error)[:200])

    # --- events ---------------------------------------------------------------------------

    async def changed(self) -> None:
        """Return when a container of ours may have ended, rested or gone."""
        await self._changes.wait(math.inf)

    async def _listen(self) -> None:
        await every(_DEAF_SECONDS, self._follow, name="events", deadline=math.inf)

    async def _follow(self) -> None:
        # An engine that is away is for surveys to say.
        with suppress(SpawnerTransient, DockerError):
            await self._engine.follow(
                self._labels, seconds=_LISTENING_SECONDS, note=lambda _: self._changes.ring()
            )

    # --- stop -----------------------------------------------------------------------------

    async def stop(self, name: str, handle: Handle | None, *, grace: float) -> Sighting | None:
        """End the container, keep its last output for a while, and remove it."""
        if not is_platform_name(name):
            return None
        await self._marks.add(name)
        gone: Sighting | None = None
        for _ in range(_STOPS):
            found = await self._engine.find_container(name)
            if found is None or not carries(found["Config"].get("Labels"), self._labels):
                return gone
            container_id = str(found["Id"])
            end = await self._end(name, container_id, grace=grace)
            if end is not None:
                handle = {"id": container_id}
                gone = Sighting(
                    name=name, phase=Phase.GONE, handle=handle, node=self._node, end=end
                )
                if await self._engine.remove_container(container_id):
                    return gone
            await anyio.sleep(_LOOK_AGAIN_SECONDS)
        raise SpawnerTransient(f"{name} is not removed, or does not stay stopped")

    async def _end(self, name: str, container_id: str, *, grace: float) -> End | None:
        """Stop a container and keep what it leaves behind; None where it is gone."""
        await self._engine.stop_container(container_id, grace=grace)
        found = await self._engine.find_container(container_id)
        if found is None:
            return None
        end = end_of(found["State"]) or _CANCELLED
        await self._keep(name, container_id, end)
        return end

    async def _keep(self, name: str, container_id: str, end: End) -> None:
        output = ""
        with suppress(SpawnerTransient, DockerError):
            output = await self._engine.log_tail(container_id, lines=_LOG_LINES)
        await anyio.to_thread.run_sync(self._archive.close, name, end, output.encode())

    # --- abilities ------------------------------------------------------------------------

    async def log_tail(self, name: str, handle: Handle | None, *, lines: int) -> str:
        """Return the last lines of output, also of a container that was removed."""
        if not is_platform_name(name):
            return ""
        found = await self._engine.find_container(name)
        if found is None:
            kept = await anyio.to_thread.run_sync(self._archive.output, name)
            return "".join(kept.decode(errors="replace").splitlines(keepends=True)[-lines:])
        if not carries(found["Config"].get("Labels"), self._labels):
            return ""
        return await self._engine.log_tail(found["Id"], lines=lines)

    def enforces_size(self) -> bool:
        """Tell whether the volumes' driver keeps them to their size."""
        return self._volumes.enforces_size()

    def measures_use(self) -> bool:
        """Say that the engine does."""
        return True

    async def survey_volumes(self) -> VolumeSurvey:
        """Return all volumes of this installation on the engine."""
        return await self._volumes.survey()

    async def remove_volume(self, name: str) -> bool:
        """Remove a volume of this installation and all that is on it."""
        return await self._volumes.remove(name)


def _account(name: str) -> Identity:
    """Return the system account of a person, as a server may run as it."""
    try:
        entry = pwd.getpwnam(name)
    except (KeyError, ValueError):
        raise SpawnerRejected(
            f"there is no account {name[:80]!r}", code="account-unknown"
        ) from None
    if entry.pw_uid == 0:
        raise SpawnerRejected("no server runs as root", code="account-refused")
    groups = sorted(set(os.getgrouplist(entry.pw_name, entry.pw_gid)) - {entry.pw_gid})
    return Identity(
        user=f"{entry.pw_uid}:{entry.pw_gid}", groups=tuple(str(group) for group in groups)
    )
