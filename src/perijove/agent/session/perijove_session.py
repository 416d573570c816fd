"""
Extension of Jupyter Server (1.x and 2.x): tells the browser what becomes of this session.

``GET <base>/perijove/session`` answers with when the session ends, its job, its memory, and
notices, each with an id so that a browser can show it once. The facts come from a file that the
job's wrapper writes; only whose kernel it was that died is known here.
"""
# Python 3.8 is what the oldest servers have; pathlib does less than is needed there:
# ruff: noqa: PTH118, PTH123

import contextlib
import json
import os
import time

from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado import web
from tornado.ioloop import PeriodicCallback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Facts = dict[str, Any]
    Notice = dict[str, Any]

MINUTES = (2, 10, 30)
LEVELS = (95, 80)  # Per cent of the memory.
CALM = 70  # Below this a level may be told again.
LOOK_SECONDS = 5
SAME_SECONDS = 45  # A kernel's death and a kill for memory this near belong together.
TOLD_SECONDS = 900  # How long an event is news.


def time_notices(ends_at: "float | None", now: float) -> "list[Notice]":
    """Return the warning that is due: of those whose time has come the most urgent."""
    if ends_at is None or ends_at <= now:
        return []
    for minutes in MINUTES:
        if ends_at - now <= minutes * 60:
            name = f"time-{minutes}-{int(ends_at)}"  # An extended session is warned again.
            left = max(int((ends_at - now) // 60), 1)
            return [{"id": name, "code": "time", "minutes": left, "is_urgent": minutes == 2}]
    return []


class Journal:
    """What has happened in this session that its person should hear of."""

    def __init__(self) -> None:
        self._events: list[Notice] = []
        self._deaths: dict[str, tuple[float, str]] = {}
        self._kills_told = 0
        self._heard_told = 0
        self._level = 0
        self._count = 0

    def note_death(self, kernel_id: str, name: str, now: float) -> None:
        """Note that a kernel died by itself; `name` is what its person calls it."""
        self._deaths[kernel_id] = (now, name)

    def take(self, facts: "Facts", now: float) -> None:
        """Compare the facts with what is known, and note what is new."""
        self._take_memory(facts.get("memory") or {}, now)
        self._take_kills(facts.get("kills") or [], now)
        heard = facts.get("heard") or []
        for each in heard[self._heard_told :]:
            self._note(each["code"], now)
        self._heard_told = len(heard)

    def _take_memory(self, memory: "Facts", now: float) -> None:
        if not memory.get("limit"):
            return
        percent = 100 * memory["used"] / memory["limit"]
        level = next((each for each in LEVELS if percent >= each), 0)
        if level > self._level:
            self._note("memory", now, percent=level, is_urgent=level == LEVELS[0])
        if level > self._level or percent < CALM:
            self._level = level

    def _take_kills(self, kills: "list[float]", now: float) -> None:
        for killed_at in kills[self._kills_told :]:
            near = [
                (kernel_id, name)
                for kernel_id, (died_at, name) in self._deaths.items()
                if abs(died_at - killed_at) <= SAME_SECONDS
            ]
            if not near and now - killed_at < SAME_SECONDS:
                return  # The server may yet find that it was a kernel.
            for kernel_id, name in near:
                del self._deaths[kernel_id]
                self._note("kernel-killed", now, name=name, is_urgent=True)
            if not near:
                self._note("killed", now, is_urgent=True)
            self._kills_told += 1

    def _note(self, code: str, now: float, **params: "Any") -> None:
        self._count += 1
        self._events.append(dict(params, id=f"{code}-{self._count}", code=code, at=now))

    def news(self, now: float) -> "list[Notice]":
        """Return what has happened lately."""
        self._events = [each for each in self._events if now - each["at"] < TOLD_SECONDS]
        return [
            {name: value for name, value in each.items() if name != "at"} for each in self._events
        ]


class Session:
    """This session, seen from within its server."""

    def __init__(
        self, folder: str, kernels: "Any", sessions: "Any", clock: "Callable[[], float]" = time.time
    ) -> None:
        self._path = os.path.join(folder, "session.json")
        self._kernels = kernels
        self._sessions = sessions
        self._clock = clock
        self._journal = Journal()
        self._facts: Facts = {}
        self._watched: set[str] = set()
        self._names: dict[str, str] = {}

    async def look(self) -> None:
        """Read the wrapper's file, and see that every kernel's death is heard of."""
        running = set(self._kernels.list_kernel_ids())
        for kernel_id in running - self._watched:
            for event in ("restart", "dead"):
                self._kernels.add_restart_callback(kernel_id, self._on_death(kernel_id), event)
        self._watched = running
        for each in await self._sessions.list_sessions():
            self._names[each["kernel"]["id"]] = each.get("path") or each.get("name") or ""
        self.read()

    def read(self) -> None:
        """Take what the wrapper has written; what was true last is the best when it is gone."""
        with contextlib.suppress(OSError, ValueError):
            with open(self._path, encoding="utf-8") as file:
                self._facts = json.load(file)
            self._journal.take(self._facts, self._clock())

    def _on_death(self, kernel_id: str) -> "Callable[[], None]":
        def note() -> None:
            name = os.path.basename(self._names.get(kernel_id, "")) or kernel_id[:8]  # noqa: PTH119
            self._journal.note_death(kernel_id, name, self._clock())

        return note

    def model(self) -> "Facts":
        """Return what the browser is told."""
        now, facts = self._clock(), self._facts
        ends_at = facts.get("ends_at")
        lasting = [
            {"id": code, "code": code, "words": facts.get("words", "")}
            for code in facts.get("modes") or []
        ]
        return {
            "job_id": facts.get("job_id", ""),
            "node": facts.get("node", ""),
            "ends_at": ends_at,
            "seconds_left": None if ends_at is None else max(round(ends_at - now), 0),
            "memory": facts.get("memory"),
            "notices": lasting + time_notices(ends_at, now) + self._journal.news(now),
        }


class SessionHandler(APIHandler):
    """Answers ``GET <base>/perijove/session``."""

    _track_activity = False  # Asking how much time is left is no work.

    def initialize(self, session: "Session") -> None:
        """Take what is asked about."""
        super().initialize()
        self._session = session

    @web.authenticated
    async def get(self) -> None:
        """Tell it to who may use this server."""
        await self._session.look()
        self.set_header("Cache-Control", "no-store")
        self.finish(json.dumps(self._session.model()))


def _jupyter_server_extension_points() -> "list[dict[str, str]]":
    return [{"module": "perijove_session"}]


def _load_jupyter_server_extension(serverapp: "Any") -> None:
    """Add the handler and begin to look."""
    session = Session(
        os.environ.get("PERIJOVE_SESSION", ""), serverapp.kernel_manager, serverapp.session_manager
    )
    path = url_path_join(serverapp.web_app.settings["base_url"], "perijove", "session")
    serverapp.web_app.add_handlers(".*$", [(path, SessionHandler, {"session": session})])
    session.read()
    PeriodicCallback(session.look, LOOK_SECONDS * 1000).start()


load_jupyter_server_extension = _load_jupyter_server_extension
