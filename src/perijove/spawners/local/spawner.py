"""The driver ``local``: under whose account servers run is decided once, when it is made."""

import os
from collections.abc import Sequence
from typing import ClassVar, Self

from perijove.domain.errors import ConfigError
from perijove.spawners.contract import (
    Checkpoint,
    Handle,
    LaunchSpec,
    Sighting,
    SpawnerSettings,
    Surroundings,
    Survey,
)
from perijove.spawners.launcher.client import Launcher
from perijove.spawners.local.sections import LocalSettings
from perijove.spawners.local.shared import SharedSpawner
from perijove.spawners.local.system import SystemSpawner


class LocalSpawner:
    """Starts servers on this machine, under the hub's own account or each person's."""

    Settings: ClassVar[type[SpawnerSettings]] = LocalSettings

    def __init__(
        self,
        settings: LocalSettings,
        surroundings: Surroundings,
        launcher: Launcher = Launcher(),  # noqa: B008 - a value
    ) -> None:
        self._inner: SharedSpawner | SystemSpawner
        if _is_system(settings, surroundings, launcher):
            self._inner = SystemSpawner(settings, surroundings, launcher)
        else:
            self._inner = SharedSpawner(settings, surroundings)

    async def __aenter__(self) -> Self:
        """Make the folders; raise `SpawnerTransient` when that fails."""
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Let go; the supervisors and their servers run on."""
        await self._inner.__aexit__(*exc)

    def warnings(self, *, public: bool) -> Sequence[str]:
        """Say what an administrator must know; refuse a shared account in public."""
        return self._inner.warnings(public=public)

    async def start(self, spec: LaunchSpec, checkpoint: Checkpoint) -> Sighting:
        """Start a server and its supervisor."""
        return await self._inner.start(spec, checkpoint)

    async def survey(self) -> Survey:
        """Look at every launch of this installation."""
        return await self._inner.survey()

    async def stop(self, name: str, handle: Handle | None, *, grace: float) -> Sighting | None:
        """End the launch and remove its directory; its last output stays for a while."""
        return await self._inner.stop(name, handle, grace=grace)

    async def log_tail(self, name: str, handle: Handle | None, *, lines: int) -> str:
        """Return the last lines of output, also for a while after the launch was removed."""
        return await self._inner.log_tail(name, handle, lines=lines)

    async def owns_listener(self, name: str, handle: Handle | None, url: str) -> bool | None:
        """Tell whether everyone who could answer at `url` belongs to the launch."""
        return await self._inner.owns_listener(name, handle, url)


def _is_system(settings: LocalSettings, surroundings: Surroundings, launcher: Launcher) -> bool:
    """Tell whether each server runs under its person's account."""
    if settings.accounts == "shared":
        return False
    if settings.accounts == "auto":
        return surroundings.system_accounts and launcher.is_available
    section = f"spawners.{surroundings.name}"
    if not surroundings.system_accounts:
        raise ConfigError(
            f"{section}.accounts is 'system', but people do not sign in with this machine's "
            "accounts: add [auth.pam] and no other way to sign in",
            code="local-accounts-unknown",
            key=f"{section}.accounts",
        )
    if not launcher.is_available:
        raise ConfigError(
            f"{section}.accounts is 'system', but this hub (account number {os.geteuid()}) can "
            "act as nobody else: run deploy/launcher/install, or the hub as root",
            code="local-launcher-missing",
            key=f"{section}.accounts",
        )
    return True
