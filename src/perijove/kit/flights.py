"""`Flights`: of each question only one is under way; who asks meanwhile waits for the same."""

from collections.abc import Awaitable, Callable, Hashable

import anyio
import structlog
from anyio.abc import TaskGroup

log = structlog.get_logger()


class Flights:
    """
    Questions that take longer than who asks wants to wait.

    A question goes on when nobody waits for it any more, as long as `serve` runs; without it,
    it ends with the patience of who asked first.
    """

    def __init__(self, *, at_once: int = 4) -> None:
        self._landed: dict[Hashable, anyio.Event] = {}
        self._tasks: TaskGroup | None = None
        self._at_once = anyio.Semaphore(at_once)

    async def serve(self) -> None:
        """Let questions go on in the background, until cancelled."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            try:
                await anyio.sleep_forever()
            finally:
                self._tasks = None

    async def join(
        self, key: Hashable, ask: Callable[[], Awaitable[None]], *, seconds: float
    ) -> None:
        """Return when `ask`, or the one of the same key under way, is over, or after `seconds`."""
        with anyio.move_on_after(seconds):
            landed = self._landed.get(key)
            if landed is None:
                landed = self._landed[key] = anyio.Event()
                if self._tasks is None:
                    await self._fly(key, ask)
                    return
                self._tasks.start_soon(self._fly, key, ask)
            await landed.wait()

    async def _fly(self, key: Hashable, ask: Callable[[], Awaitable[None]]) -> None:
        try:
            async with self._at_once:
                await ask()
        except Exception:  # one question that fails must not end the others
            log.exception("flight_failed", key=str(key))
        finally:
            self._landed.pop(key).set()
