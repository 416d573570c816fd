"""The route table, kept like the hub's: long poll, rules of revision, snapshot on disk.

While the hub is away the table stays as it is. A table of another installation, or older than
the one in use, is refused until an administrator removes the snapshot and restarts the proxy:
it comes from a hub that runs on the wrong database, and would cut everyone off.
"""

import asyncio
import os
import random
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Final
from urllib.parse import urlencode

import msgspec
import structlog

from perijove.proxy.control import ControlClient, HubAway
from perijove.proxy.table import RefusedTable, Routes
from perijove.proxy.upstream import Backend
from perijove.wire.control import MAX_WAIT_SECONDS, RouteTable

log = structlog.get_logger()

FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 1.0
PERIOD_SECONDS: Final = 0.5
ANSWER_SECONDS: Final = 5.0
"""Time the hub has to answer beyond the wait that it was asked for."""


class RoutePoller:
    """Asks for routes for ever."""

    def __init__(self, hub: ControlClient, routes: Routes[Backend], worker: str) -> None:
        self._hub = hub
        self._routes = routes
        self._worker = worker

    async def run(self, changed: Callable[[], None]) -> None:
        """Poll until cancelled, calling `changed` after each change; log a failure once."""
        pause = 0.0
        trouble = ""
        has_answered = False
        while True:
            before = self._routes.revision
            asked_at = monotonic()
            try:
                await self._poll()
                if trouble:
                    log.info("proxy_hub_answers", revision=self._routes.revision)
                pause, trouble, has_answered = 0.0, "", True
            except HubAway as error:
                if not trouble:  # a hub that starts beside us is not away yet
                    say = log.warning if has_answered else log.info
                    say("proxy_hub_away", reason=str(error))
                trouble = str(error)
            except RefusedTable as error:
                if trouble != str(error):
                    log.critical("proxy_table_refused", reason=str(error))
                trouble = str(error)
            if self._routes.revision != before:
                changed()
            elif trouble or monotonic() - asked_at < FIRST_PAUSE_SECONDS:
                pause = min(max(2 * pause, FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311

    async def _poll(self) -> None:
        query = urlencode(
            {
                "worker": self._worker,
                "installation": self._routes.installation,
                "revision": self._routes.revision,
                "wait": MAX_WAIT_SECONDS,
            }
        )
        seconds = MAX_WAIT_SECONDS + ANSWER_SECONDS
        answer = await self._hub.request("GET", f"/routes?{query}", seconds=seconds)
        if answer.status != 200:
            raise HubAway(f"status {answer.status} for the routes")
        try:
            table = msgspec.json.decode(answer.body, type=RouteTable)
        except msgspec.DecodeError as error:
            raise HubAway("routes that cannot be read") from error
        self._routes.apply(table)


class SnapshotKeeper:
    """Keeps the file in step with the table, at most twice a second, in a thread."""

    def __init__(self, path: Path, routes: Routes[Backend]) -> None:
        self._path = path
        self._routes = routes
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Say that the table has changed."""
        self._changed.set()

    async def run(self) -> None:
        """Save after changes until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            await asyncio.to_thread(save_snapshot, self._path, self._routes.snapshot())
            await asyncio.sleep(PERIOD_SECONDS)

    def finish(self) -> None:
        """Save what has changed since the last time."""
        if self._changed.is_set():
            save_snapshot(self._path, self._routes.snapshot())


def load_snapshot(path: Path, routes: Routes[Backend]) -> None:
    """Use the table in `path`; a missing or broken file leaves `routes` empty."""
    try:
        routes.apply(msgspec.json.decode(path.read_bytes(), type=RouteTable))
    except FileNotFoundError:
        return
    except (OSError, msgspec.DecodeError) as error:
        log.warning("proxy_snapshot_unusable", path=str(path), reason=str(error))


def save_snapshot(path: Path, table: RouteTable) -> None:
    """Put `table` in the place of `path`, whole or not at all, whatever happens.

    A disk that is full costs the snapshot, not the routes.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(msgspec.json.encode(table))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        log.warning("proxy_snapshot_not_saved", path=str(path), reason=str(error))
