"""
Fetching images: in the background, once for all who wait for the same one.

The engine keeps what it has fetched, and goes on where it stopped; so nothing is lost with the
hub, whose next start asks for the image anew.
"""

import json
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import anyio
import structlog
from aiodocker import DockerError
from anyio.abc import TaskGroup

from perijove.domain.errors import ConfigError, SpawnerPending, SpawnerRejected, SpawnerTransient
from perijove.kit.backoff import backoff
from perijove.kit.clock import isoformat, monotonic
from perijove.spawners.docker.engine import Answer, Engine
from perijove.spawners.docker.sections import DockerSettings

log = structlog.get_logger()

_FRESH_SECONDS: Final = 60.0
"""An image fetched not longer ago is what its tag names now."""
_RETRY_SECONDS: Final = 60.0
_KEPT_SECONDS: Final = 3600.0
"""How long what became of a pull is known; who waited for it has asked long before."""
_HUB: Final = "docker.io"
_HUB_KEYS: Final = (_HUB, "https://index.docker.io/v1/", "index.docker.io")

# What registries and engines say when trying again is useless, the first that fits.
_HOPELESS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), code)
    for pattern, code in (
        (r"invalid reference format|invalid repository name", "image-invalid"),
        (r"repository does not exist|manifest (for .* )?(not found|unknown)", "image-not-found"),
        (r"name unknown|no such image|no matching manifest", "image-not-found"),
        (
            r"failed to resolve reference .*: not found|short-name .* did not resolve",
            "image-not-found",
        ),
        (r"unauthorized|denied|forbidden|authentication required|no basic auth", "image-denied"),
    )
)


@dataclass(slots=True)
class Progress:
    """How far the layers are that an engine lacks: each is fetched, then unpacked."""

    layers: dict[str, float] = field(default_factory=dict)

    def note(self, event: Answer) -> None:
        """Take one of the engine's events into account."""
        layer, status = str(event.get("id", "")), str(event.get("status", ""))
        match status:
            case "Pulling fs layer" | "Waiting":
                self.layers.setdefault(layer, 0.0)
            case "Downloading":
                self.layers[layer] = _share(event) / 2
            case "Verifying Checksum" | "Download complete":
                self.layers[layer] = 0.5
            case "Extracting":
                self.layers[layer] = 0.5 + _share(event) / 2
            case "Pull complete":
                self.layers[layer] = 1.0

    @property
    def percent(self) -> int | None:
        """How much is done; None as long as the engine has not said what there is to do."""
        return int(100 * sum(self.layers.values()) / len(self.layers)) if self.layers else None


@dataclass(slots=True, kw_only=True)
class _Pull:
    """One image on its way."""

    began: float = field(default_factory=monotonic)
    began_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    progress: Progress = field(default_factory=Progress)
    trouble: str = ""
    """The words of the last try, if it failed."""
    ended: float | None = None
    code: str = ""
    """Why it was given up."""
    waiting: set[str] = field(default_factory=set)
    """Names of the launches that it was begun for, or that came to wait for it."""


class Images:
    """The images of one engine."""

    def __init__(self, engine: Engine, settings: DockerSettings) -> None:
        self._engine = engine
        self._settings = settings
        self._pulls: dict[str, _Pull] = {}

    async def ensure(self, reference: str, name: str, tasks: TaskGroup) -> None:
        """
        Return when an image is there for the launch called `name`.

        Raises `SpawnerPending` while it is fetched, in `tasks`, and `SpawnerRejected` when that
        is useless or has taken too long.
        """
        pull = self._under_way(reference, name)
        if pull is None:
            if not await self._is_needed(reference):
                return
            pull = self._under_way(reference, name)  # Others may have asked meanwhile.
        if pull is None:
            self._forget()
            pull = self._pulls[reference] = _Pull()
            tasks.start_soon(self._fetch, reference, pull)
        pull.waiting.add(name)
        if pull.ended is None:
            raise _pending(reference, pull)
        pull.waiting.discard(name)
        if pull.code:
            # Engines rarely say which image they speak of.
            raise SpawnerRejected(f"{reference}: {pull.trouble}", code=pull.code, image=reference)

    def _under_way(self, reference: str, name: str) -> _Pull | None:
        """Return the pull that a launch waits for, or whose result is one for it."""
        pull = self._pulls.get(reference)
        if pull is None or pull.ended is None:
            return pull
        if pull.code:
            return pull if name in pull.waiting else None
        is_fresh = monotonic() - pull.ended < _FRESH_SECONDS
        return pull if is_fresh and self._settings.pull == "always" else None

    def _forget(self) -> None:
        latest = monotonic() - _KEPT_SECONDS
        kept = (
            each for each in self._pulls.items() if each[1].ended is None or each[1].ended > latest
        )
        self._pulls = dict(kept)

    async def _is_needed(self, reference: str) -> bool:
        try:
            found = await self._engine.find_image(reference)
        except DockerError as error:
            raise SpawnerRejected(error.message, code="image-invalid", image=reference) from None
        match self._settings.pull:
            case "always":
                return True
            case "never" if found is None:
                raise SpawnerRejected(
                    f"{reference} is not on the engine, and nothing is fetched",
                    code="image-not-found",
                    image=reference,
                )
        return found is None

    async def _fetch(self, reference: str, pull: _Pull) -> None:
        """Try until it is there, or hopeless, or too late."""
        latest = pull.began + self._settings.pull_limit
        failures = 0
        try:
            while not pull.code and (left := latest - monotonic()) > 0:
                pull.trouble, pull.code = await self._try(reference, pull, seconds=left)
                if not pull.trouble:
                    return
                failures += 1
                log.warning("image_not_fetched", image=reference, words=pull.trouble[:200])
                if not pull.code:
                    pause = backoff(failures, cap=_RETRY_SECONDS).total_seconds()
                    await anyio.sleep(min(pause, max(latest - monotonic(), 0)))
            pull.code = pull.code or "image-pull-failed"
        finally:
            pull.ended = monotonic()

    async def _try(self, reference: str, pull: _Pull, *, seconds: float) -> tuple[str, str]:
        """Return the words of a failure, and its code if it is final; two empty texts if none."""
        pull.progress = Progress()
        try:
            auth = await anyio.to_thread.run_sync(self._auth, reference)
            await self._engine.pull(
                full_reference(reference) if auth else reference,
                auth,
                seconds=seconds,
                note=pull.progress.note,
            )
            # A connection that breaks looks to the library like the end.
            if await self._engine.find_image(reference) is None:
                return f"{reference} is not there after it was fetched", ""
        except (DockerError, SpawnerTransient, ConfigError) as error:
            words = error.message if isinstance(error, DockerError) else str(error)
            return words, hopeless_code(words)
        except Exception as error:  # a pull that fails must not end the hub
            log.exception("pull_failed", image=reference)
            return repr(error)[:200], ""
        return "", ""

    def _auth(self, reference: str) -> Mapping[str, str] | None:
        """Return what the image's registry wants to see, from the file of `docker login`."""
        if self._settings.credentials is None:
            return None
        known = read_credentials(self._settings.credentials)
        registry = full_reference(reference).partition("/")[0]
        for key in _HUB_KEYS if registry == _HUB else (registry, f"https://{registry}"):
            if key in known:
                return {"auth": known[key]}
        return None


def read_credentials(path: Path) -> Mapping[str, str]:
    """
    Return the words for registries, by registry.

    Raises `ConfigError` for a file that others could read or that cannot be understood.
    """
    try:
        with path.open(encoding="utf-8") as stream:
            if stat.S_IMODE(path.stat().st_mode) & 0o077:
                raise ConfigError(f"{path} can be read by others: chmod 600 it")
            found: Any = json.load(stream)
        return {str(key): str(each["auth"]) for key, each in found["auths"].items()}
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        # The error of a parser may hold what it has read.
        words = error.strerror if isinstance(error, OSError) else "not as docker login writes it"
        raise ConfigError(f"{path}: {words}") from None


def _pending(reference: str, pull: _Pull) -> SpawnerPending:
    params: dict[str, object] = {"image": reference, "since": isoformat(pull.began_at)}
    if pull.trouble:
        return SpawnerPending(pull.trouble, code="image-pull-failing", **params)
    if pull.progress.percent is not None:
        params["percent"] = pull.progress.percent
    return SpawnerPending(f"pulling image {reference}", code="pulling-image", **params)


def hopeless_code(words: str) -> str:
    """Return the code of a failure that trying again does not mend; empty for others."""
    return next((code for pattern, code in _HOPELESS if pattern.search(words)), "")


def full_reference(reference: str) -> str:
    """Return a reference with its registry, which those of Docker's own may leave out."""
    first, slash, _ = reference.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return reference
    return f"{_HUB}/{reference if slash else f'library/{reference}'}"


def _share(event: Answer) -> float:
    detail = event.get("progressDetail") or {}
    total = detail.get("total") or 0
    return min(detail.get("current", 0) / total, 1.0) if total > 0 else 0.0
