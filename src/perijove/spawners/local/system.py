"""
Servers that run as the people they are for, through the launcher.

What a person's launches are doing is written in a directory that is the person's own, which only
the launcher reads, as that person (docs/design/spawners.md). The hub keeps a record of whose each
launch is, so that it knows whom to ask, and believes no file of theirs about that.
"""

import hmac
import os
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, ParamSpec, Self, TypeVar
from urllib.parse import urlsplit

import anyio
import structlog

from perijove.agent import local_files
from perijove.domain.errors import SpawnerError, SpawnerRejected, SpawnerTransient
from perijove.domain.launch import Cause, End
from perijove.kit.clock import monotonic
from perijove.kit.files import read_json, sync, write_json
from perijove.kit.loops import for_each
from perijove.spawners.archive import Archive
from perijove.spawners.contract import (
    Checkpoint,
    Handle,
    LaunchSpec,
    Phase,
    Sighting,
    Surroundings,
    Survey,
)
from perijove.spawners.launcher.client import Launcher, find_account
from perijove.spawners.local import process
from perijove.spawners.local.directory import (
    Condition,
    Label,
    View,
    address_of,
    end_of,
    instant_of,
    never_started,
)
from perijove.spawners.local.limits import Limits, find_limits
from perijove.spawners.local.sections import LocalSettings
from perijove.spawners.local.sightings import sighting_of
from perijove.spawners.names import check_platform_name, is_platform_name

log = structlog.get_logger()

_THREADS: Final = 8
_CALL_SECONDS: Final = 20.0
_START_SECONDS: Final = 30.0
_ADDRESS_SECONDS: Final = 3.0
_ASKED_AT_ONCE: Final = 4
_SWEEP_SECONDS: Final = 300.0
_POLL_SECONDS: Final = 0.02

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Process:
    """A process, told from a later one with the same id."""

    pid: int
    started_ticks: int | None

    @property
    def is_alive(self) -> bool:
        found = process.started_ticks(self.pid)
        return found is not None and found == self.started_ticks


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What the launcher said last of a launch."""

    view: View
    has_leftovers: bool
    supervisor: _Process | None
    server: _Process | None

    @property
    def still_holds(self) -> bool:
        """Tell, from the process table alone, whether asking again would say the same."""
        if self.view.condition is Condition.ALIVE:
            # A server that lost its port is started again at another one.
            return all(one is not None and one.is_alive for one in (self.supervisor, self.server))
        return self.view.condition is not Condition.REQUESTED and not self.has_leftovers


class SystemSpawner:
    """
    Starts each server under the system account of its person.

    Objects, also of several hubs, that share a data directory see the same. What is kept in
    memory only saves questions: the process table says when it is no longer true.
    """

    def __init__(
        self, settings: LocalSettings, surroundings: Surroundings, launcher: Launcher
    ) -> None:
        self._settings = settings
        self._installation = surroundings.installation
        self._root = surroundings.data_dir.absolute()
        self._records = self._root / "launches"
        self._places = self._root / "places"
        self._archive = Archive(self._root)
        self._launcher = launcher
        self._limits: Limits | None = None
        self._key = b""
        # Read once: an update of this package must not deliver what this process does not know.
        self._programs = local_files()
        self._known: dict[str, Label] = {}
        self._seen: dict[str, _Seen] = {}
        self._asked_at: dict[str, float] = {}
        self._threads: anyio.CapacityLimiter

    async def __aenter__(self) -> Self:
        """Make the folders; raise `SpawnerTransient` when that fails."""
        self._threads = anyio.CapacityLimiter(_THREADS)
        await self._in_thread(self._prepare)
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Let go; the supervisors and their servers run on."""

    def warnings(self, *, public: bool) -> Sequence[str]:
        """Say once that servers have no limits where nothing could hold them to any."""
        return [] if self._limits else ["local-no-limits"]

    # Start

    async def start(self, spec: LaunchSpec, checkpoint: Checkpoint) -> Sighting:
        """Have the launcher write the launch down and hand it to a supervisor, as its person."""
        check_platform_name(spec.name)
        label = _label_of(spec)
        is_new = await self._in_thread(self._ensure_record, label)
        # A stop records the end and then looks for the record; here it is the other way round.
        # Whichever comes first, one sees the other.
        end = await self._find_end(label)
        if end is not None:
            if is_new:
                await self._in_thread(self._drop, label)
            return _gone(label, end)
        try:
            seen = await self._hand_over(spec)
        except SpawnerRejected:
            if is_new:  # Nothing was taken, and nothing of before can be there.
                await self._in_thread(self._drop, label)
            raise
        await checkpoint(_handle(label))
        end = await self._find_end(label)
        if end is not None:  # The record is left to the stop, which may not be through.
            await self._in_thread(self._forget_seen, label.name)
            return _gone(label, end)
        return await self._in_thread(self._sighting, label, seen)

    def _ensure_record(self, label: Label) -> bool:
        """Write down whose the launch is; False if that was done before."""
        known = self._record(label.name)
        if known is None:
            write_json(self._file(label.name), label.fields())
            sync(self._records)
        elif known.installation != self._installation:
            raise SpawnerRejected(f"{label.name} belongs to another installation")
        return known is None

    async def _find_end(self, label: Label) -> End | None:
        return await self._in_thread(self._archive.find_end, label.name)

    def _drop(self, label: Label) -> None:
        """Forget a launch of which the launcher holds nothing."""
        self._file(label.name).unlink(missing_ok=True)
        self._forget_seen(label.name)

    def _forget_seen(self, name: str) -> None:
        self._seen.pop(name, None)
        if self._limits is not None:
            self._limits.remove(name)

    async def _hand_over(self, spec: LaunchSpec) -> _Seen:
        enclosure: Sequence[str] = ()
        if self._limits is not None:
            enclosure = await self._in_thread(
                self._limits.enclose, spec.name, spec.resources, self._settings.processes_limit
            )
        folder = await self._folder(spec.user_name)
        answer = await self._launcher.call(
            spec.user_name,
            "start",
            timeout=_START_SECONDS,
            enclosure=enclosure,
            name=spec.name,
            folder=str(folder),
            label=_label_of(spec).fields(),
            files=dict(self._programs),
            spec={
                "command": list(spec.command),
                "environment": {
                    **spec.environment,
                    **self._settings.environment,
                    process.MARKER: spec.name,
                },
                "prefix": spec.prefix,
                "port_range": self._settings.port_range,
                "log_limit": self._settings.log_limit,
                "grace": self._settings.stop_grace,
            },
            beside=str(Path(sys.executable).parent),
            login=self._settings.login_shell,
        )
        seen = _read_launch(answer.get("launch"))
        if seen is None:
            raise SpawnerTransient(f"the launcher says nothing of {spec.name}")
        self._seen[spec.name] = seen
        await self._in_thread((self._places / folder.name).touch, 0o600)
        return seen

    # Survey

    async def survey(self) -> Survey:
        """
        Tell about every launch that is recorded.

        A person's directory is looked into when the process table says that something changed,
        and every few minutes. Of whom it could not be looked into, what was seen last is told,
        and the answer is not complete.
        """
        labels = await self._in_thread(self._labels)
        people = await self._in_thread(self._people_to_ask, labels)
        unheard: set[str] = set()
        ask = partial(self._ask, labels=labels, unheard=unheard)
        await for_each(people, ask, at_once=_ASKED_AT_ONCE)
        for name in set(self._seen) - {label.name for label in labels}:
            del self._seen[name]
        sightings = await self._in_thread(self._sightings, labels)
        return Survey(complete=not unheard, sightings=sightings)

    def _sightings(self, labels: Sequence[Label]) -> Sequence[Sighting]:
        found = ((label, self._seen.get(label.name)) for label in labels)
        return [self._sighting(label, seen) for label, seen in found if seen is not None]

    def _labels(self) -> Sequence[Label]:
        try:
            with os.scandir(self._records) as files:
                names = {file.name[:-5] for file in files if file.name.endswith(".json")}
        except FileNotFoundError as error:
            raise SpawnerTransient(f"the folder {self._records} is gone") from error
        for name in names - set(self._known):
            label = self._record(name)
            if label is not None:
                self._known[name] = label  # It never changes.
        for name in set(self._known) - names:
            del self._known[name]
        known = list(self._known.values())
        return [label for label in known if label.installation == self._installation]

    def _people_to_ask(self, labels: Sequence[Label]) -> Sequence[str]:
        now = monotonic()
        people = set()
        for label in labels:
            seen = self._seen.get(label.name)
            is_due = self._asked_at.get(label.owner, -_SWEEP_SECONDS) + _SWEEP_SECONDS <= now
            if is_due or seen is None or not seen.still_holds:
                people.add(label.owner)
        return sorted(people)

    async def _ask(self, person: str, *, labels: Sequence[Label], unheard: set[str]) -> None:
        """Bring what is seen of one person's launches up to date."""
        before = dict(self._seen)
        try:
            folder = await self._folder(person)
            is_known = await self._in_thread((self._places / folder.name).exists)
            answer = await self._launcher.call(
                person, "survey", timeout=_CALL_SECONDS, folder=str(folder), known=is_known
            )
        except SpawnerError as error:
            log.warning("account_not_surveyed", account=person, error=str(error))
            unheard.add(person)
            return
        self._asked_at[person] = monotonic()
        launches = answer.get("launches")
        found = {one.get("name"): one for one in launches} if isinstance(launches, list) else {}
        for label in labels:
            if label.owner == person:
                seen = _read_launch(found.get(label.name))
                if seen is not None:
                    self._seen[label.name] = seen
                elif self._seen.get(label.name) is before.get(label.name):
                    self._seen.pop(label.name, None)  # Nobody has started it meanwhile.

    # Stop

    async def stop(self, name: str, handle: Handle | None, *, grace: float) -> Sighting | None:
        """End the launch and remove its directory; its last output stays for a while."""
        if not is_platform_name(name):
            return None
        label = await self._in_thread(self._close, name)
        if label is None:
            return None
        try:
            answer = await self._end(label, grace)
        except SpawnerRejected as error:
            # Whose account is away now, as with a directory service, may be back later.
            raise SpawnerTransient(f"it cannot be told what runs of {name}: {error}") from error
        return await self._in_thread(self._forget, label, answer)

    def _close(self, name: str) -> Label | None:
        """Make a start of this name impossible; return whose it is if it is recorded."""
        label = self._record(name)
        if label is not None and label.installation != self._installation:
            return None
        self._archive.close(name)
        return self._record(name)

    async def _end(self, label: Label, grace: float) -> Mapping[str, Any]:
        """Return the launcher's answer when nothing of the launch lives any more."""
        for force, patience in (
            (False, grace + self._settings.kill_limit),
            (True, self._settings.kill_limit),
        ):
            latest = monotonic() + patience
            while True:
                answer = await self._launcher.call(
                    label.owner,
                    "stop",
                    timeout=_CALL_SECONDS,
                    name=label.name,
                    folder=str(await self._folder(label.owner)),
                    grace=grace,
                    force=force,
                )
                if answer.get("state") != "ending":
                    return answer
                await self._await_end(_read_launch(answer.get("launch")), latest)
                if monotonic() >= latest:
                    break
            log.warning("supervisor_does_not_end", launch=label.name, force=force)
        raise SpawnerTransient(f"{label.name} does not end")

    async def _await_end(self, seen: _Seen | None, latest: float) -> None:
        """Return when the supervisor is gone, or it is time to do more."""
        supervisor = seen.supervisor if seen else None
        while monotonic() < latest:
            await anyio.sleep(_POLL_SECONDS)
            if supervisor is None or not await self._in_thread(lambda: supervisor.is_alive):
                return

    def _forget(self, label: Label, answer: Mapping[str, Any]) -> Sighting | None:
        """Keep how the launch ended, and drop all else that the hub knows of it."""
        removed = answer.get("removed")
        if isinstance(removed, dict):
            seen = _read_launch({"removed": removed})
        else:
            seen = _read_launch(answer.get("launch"))
        sighting = self._sighting(label, seen) if seen is not None else None
        # Another stop may have been faster: its word counts.
        known = self._archive.find_end(label.name)
        if known is not None and known.reason != "cancelled":
            sighting = _gone(label, known)
        elif sighting is not None and sighting.end is not None:
            self._archive.close(label.name, sighting.end)
        self._archive.prune()
        was_recorded = self._file(label.name).exists()
        self._drop(label)
        is_first = answer.get("state") == "over" or (was_recorded and removed is not None)
        return sighting if is_first else None

    # Abilities

    async def log_tail(self, name: str, handle: Handle | None, *, lines: int) -> str:
        """Return the last lines of output, also for a while after the launch was removed."""
        if not is_platform_name(name) or lines <= 0:
            return ""
        label = await self._in_thread(self._record, name)
        owner = label.owner if label else str((handle or {}).get("account", ""))
        if not owner or (label and label.installation != self._installation):
            return ""
        answer = await self._launcher.call(
            owner,
            "log",
            timeout=_CALL_SECONDS,
            name=name,
            folder=str(await self._folder(owner)),
            lines=min(lines, 10_000),
        )
        return str(answer.get("text", ""))

    async def owns_listener(self, name: str, handle: Handle | None, url: str) -> bool | None:
        """Tell whether everyone who could answer at `url` belongs to the launch."""
        port = urlsplit(url).port
        label = await self._in_thread(self._record, name) if is_platform_name(name) else None
        if port is None or label is None:
            return False
        sockets = await self._in_thread(process.listening_sockets, port)
        if not sockets:
            return None
        account = await self._in_thread(find_account, label.owner)
        if set(sockets.values()) != {account.uid}:
            return False
        answer = await self._launcher.call(
            label.owner,
            "listener",
            timeout=_CALL_SECONDS,
            name=name,
            folder=str(await self._folder(label.owner)),
            sockets=sorted(sockets),
        )
        return answer.get("owns") is True

    # Common

    def _prepare(self) -> None:
        for folder in (self._records, self._places):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._archive.prepare()
        self._archive.prune()
        self._key = _ensure_key(self._root / "places.key")
        if os.geteuid() == 0:  # What sudo starts is not ours to limit.
            self._limits = find_limits()
        if os.geteuid() == 0 and not self._settings.launches.exists():
            # What was there before may only be away: `known` stands against believing that.
            # Who may make a directory there can neither see nor remove what others have made.
            self._settings.launches.mkdir(parents=True)
            self._settings.launches.chmod(0o1733)

    async def _folder(self, user_name: str) -> Path:
        """Return where a person's launches are: a name that nobody else could have taken first."""
        account = await self._in_thread(find_account, user_name)
        place = f"{self._installation}:{account.uid}".encode()
        tag = hmac.new(self._key, place, "sha256").hexdigest()[:32]
        return self._settings.launches / f"{account.uid}-{tag}"

    def _file(self, name: str) -> Path:
        return self._records / f"{name}.json"

    def _record(self, name: str) -> Label | None:
        try:
            return Label(**read_json(self._file(name)))
        except FileNotFoundError:
            return None

    def _sighting(self, label: Label, seen: _Seen) -> Sighting:
        return sighting_of(label, seen.view, _handle(label), has_leftovers=seen.has_leftovers)

    async def _in_thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what may block; what the file system refuses may succeed later."""
        try:
            return await anyio.to_thread.run_sync(
                partial(work, *args, **kwargs), limiter=self._threads
            )
        except (OSError, ValueError) as error:
            raise SpawnerTransient(f"this machine could not do it: {error}") from error


def _ensure_key(file: Path) -> bytes:
    """Return the secret in `file`, made whole or found: several hubs may begin at once."""
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    write_json(draft, {"key": secrets.token_hex(32)})
    with suppress(FileExistsError):
        file.hardlink_to(draft)
        sync(file.parent)
    draft.unlink()
    return str(read_json(file)["key"]).encode()


def _read_launch(words: object) -> _Seen | None:
    """Return what the launcher tells of a launch. Its files are the person's: believe no value."""
    if not isinstance(words, dict):
        return None
    holder, view = words.get("holder"), _view_of(words)
    supervisor = server = None
    if isinstance(holder, dict):
        supervisor = _Process(int(holder.get("pid", 0)), int(holder.get("started", 0)))
    if view.address is not None:
        server = _Process(view.address.pid, process.started_ticks(view.address.pid))
    return _Seen(
        view=view,
        has_leftovers=words.get("leftovers") is True,
        supervisor=supervisor,
        server=server,
    )


def _view_of(words: Mapping[str, Any]) -> View:
    """Judge what the launcher found, as `LaunchDirectory.look` does for a hub's own files."""
    started, end, removed, address = (
        found if isinstance(found := words.get(key), dict) else None
        for key in ("started", "end", "removed", "address")
    )
    if removed is not None:
        # What was kept when it was removed.
        started, end = removed.get("started"), removed.get("end")
    since = instant_of(started.get("at")) if isinstance(started, dict) else None
    if removed is None and words.get("holder"):
        where = address_of(address) if address else None
        return View(condition=Condition.ALIVE, address=where, since=since)
    if isinstance(end, dict):
        ended_at = instant_of(end.get("ended_at"))
        return View(condition=Condition.ENDED, end=end_of(end), since=ended_at)
    if isinstance(started, dict):
        lost = End(cause=Cause.UNKNOWN, reason="supervisor-lost")
        return View(condition=Condition.LOST, end=lost, since=since)
    if words.get("cancelled") or removed is not None:
        return View(condition=Condition.CANCELLED, end=never_started("cancelled"))
    return View(condition=Condition.REQUESTED)


def _gone(label: Label, end: End) -> Sighting:
    return Sighting(name=label.name, phase=Phase.GONE, end=end, owner=label.owner)


def _handle(label: Label) -> Handle:
    return {"directory": label.name, "account": label.owner}


def _label_of(spec: LaunchSpec) -> Label:
    return Label(
        name=spec.name,
        launch_id=spec.launch_id,
        installation=spec.installation,
        owner=spec.user_name,
    )
