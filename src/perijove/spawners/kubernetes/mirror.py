"""
What the API server has of one kind, kept up to date by watching (failure 5.11).

One list, then one watch after the other, each from where the last one ended; a full list now and
then puts right what a watch may have missed. Nothing ever ends it but cancellation, and it says
how long the server has been silent: a watch that died quietly looks like a cluster in which
nothing happens.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import anyio
import structlog

from perijove.domain.errors import SpawnerError
from perijove.kit.backoff import backoff
from perijove.kit.clock import monotonic
from perijove.kit.loops import Doorbell, Gong, every
from perijove.spawners.kubernetes.api import Api, NotThere, Outdated
from perijove.spawners.kubernetes.objects import Kind, Object, name_of, namespace_of, uid_of

log = structlog.get_logger()

_DEPARTED_LIMIT: Final = 2000
_SHORTEST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which objects are mirrored."""

    kind: Kind
    namespace: str | None
    """None: those of the whole cluster."""
    labels: str = ""
    fields: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """How often the server has to say something."""

    watch_seconds: int
    relist_seconds: float


class Mirror:
    """The objects of one scope, as the API server last told."""

    def __init__(
        self,
        api: Api,
        scope: Scope,
        rhythm: Rhythm,
        *,
        key: Callable[[Object], str],
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._api = api
        self._scope = scope
        self._rhythm = rhythm
        self._key = key
        self._now = now
        self._objects: dict[str, dict[str, Object]] = {}
        self._departed: OrderedDict[str, Object] = OrderedDict()
        self._version = ""
        self._listed = -math.inf
        self._heard = -math.inf
        self._unbroken = False
        self._failures = 0
        self._error = ""
        self._gong = Gong()
        self.changes = Doorbell()
        """Rung whenever something comes, changes or goes."""
        self.synced = anyio.Event()
        """Set from the first full list on."""

    # --- what is known --------------------------------------------------------------------

    @property
    def objects(self) -> Iterable[Object]:
        """Return all that there is."""
        return [one for group in self._objects.values() for one in group.values()]

    def of(self, key: str) -> Collection[Object]:
        """Return what there is of one key."""
        return self._objects.get(key, {}).values()

    def departed(self, uid: str) -> Object | None:
        """Return an object as it was when it was removed, if that was not long ago."""
        return self._departed.get(uid)

    @property
    def is_current(self) -> bool:
        """Tell whether all is known: neither list nor watch has failed, nor is it too quiet."""
        return self._unbroken and not self.is_old

    @property
    def is_old(self) -> bool:
        """Tell whether what is known is too old to say anything by it."""
        now = self._now()
        return (
            now - self._heard > 2 * self._rhythm.watch_seconds
            or now - self._listed > 2 * self._rhythm.relist_seconds
        )

    @property
    def silence(self) -> str:
        """Return since when, and with which words, the server tells nothing."""
        seconds = self._now() - self._heard
        since = f"for {seconds:.0f} seconds" if math.isfinite(seconds) else "yet"
        return f"the cluster has told nothing {since}: {self._error or 'silence'}"

    @property
    def synced_ago(self) -> float:
        """Return the seconds since the last full list; infinite before the first."""
        return self._now() - self._listed

    async def change(self, key: str, seconds: float) -> None:
        """Return when something of a key has changed, or after `seconds`."""
        changed = self._gong.listen(key)
        with anyio.move_on_after(seconds):
            await changed.wait()

    # --- what we did ourselves ------------------------------------------------------------

    def note(self, one: Object) -> None:
        """Add what was just made, unless the server has told of it already."""
        uid, key = uid_of(one), self._key(one)
        if uid not in self._departed and uid not in self._objects.get(key, {}):
            self._put(one)

    def note_gone(self, one: Object) -> None:
        """Take away what was just seen to be gone."""
        self._remove(one)

    # --- keeping it up to date ------------------------------------------------------------

    async def run(self) -> None:
        """Follow what happens, until cancelled."""
        await every(1, self._follow, name=f"mirror:{self._scope.kind.resource}", deadline=math.inf)

    async def _follow(self) -> None:
        while True:
            try:
                await self._once()
                self._failures = 0
            except Outdated as error:
                self._version = ""
                await self._pause_after(error)
            except (SpawnerError, NotThere) as error:
                await self._pause_after(error)
                log.warning(
                    "watch_broken",
                    what=self._scope.kind.resource,
                    of=self._scope.fields,
                    failures=self._failures,
                    error=self._error,
                )

    async def _pause_after(self, error: Exception) -> None:
        """Know no more whether all is known, and wait the longer the more often that happens."""
        self._unbroken = False
        self._failures += 1
        self._error = str(error)[:200]
        pause = backoff(self._failures, base=_SHORTEST_PAUSE, cap=_LONGEST_PAUSE)
        await anyio.sleep(pause.total_seconds())

    async def _once(self) -> None:
        if not self._version or self.synced_ago >= self._rhythm.relist_seconds:
            await self._list()
        scope = self._scope
        async with self._api.watch(
            scope.kind,
            scope.namespace,
            labels=scope.labels,
            fields=scope.fields,
            since=self._version,
            seconds=self._rhythm.watch_seconds,
        ) as notices:
            self._unbroken, self._heard = True, self._now()
            async for notice in notices:
                self._heard = self._now()
                self._failures = 0
                self._take(notice)
        self._heard = self._now()  # It ended as agreed: the server is there.

    async def _list(self) -> None:
        scope = self._scope
        asked = self._now()
        found, version = await self._api.list(
            scope.kind, scope.namespace, labels=scope.labels, fields=scope.fields
        )
        there = {uid_of(one) for one in found}
        for one in [one for one in self.objects if uid_of(one) not in there]:
            self._remove(one)
        for one in found:
            self._put(one)
        self._version, self._listed, self._heard = version, asked, self._now()
        self._unbroken = True
        self.synced.set()

    def _take(self, notice: Mapping[str, Any]) -> None:
        one: Object = notice["object"]
        self._version = str(one["metadata"]["resourceVersion"])
        match notice["type"]:
            case "ADDED" | "MODIFIED":
                self._put(one)
            case "DELETED":
                self._remove(one)

    def _put(self, one: Object) -> None:
        if uid_of(one) in self._departed:
            return  # Told late.
        key = self._key(one)
        self._objects.setdefault(key, {})[uid_of(one)] = one
        self._tell(key)

    def _remove(self, one: Object) -> None:
        key, uid = self._key(one), uid_of(one)
        group = self._objects.get(key, {})
        group.pop(uid, None)
        if not group:
            self._objects.pop(key, None)
        self._departed[uid] = one
        while len(self._departed) > _DEPARTED_LIMIT:
            self._departed.popitem(last=False)
        self._tell(key)

    def _tell(self, key: str) -> None:
        self._gong.strike(key)
        self.changes.ring()

    def find(self, name: str) -> Object | None:
        """Return the object of a name, in whichever namespace."""
        found = [one for one in self.of(name) if name_of(one) == name]
        return max(found, key=namespace_of) if found else None
