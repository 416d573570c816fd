"""Reports to the hub when a person last did something, by launch."""

import asyncio
from typing import Final

import msgspec
import structlog

from perijove.proxy.control import ControlClient, HubAway
from perijove.wire.control import ActivityReport

log = structlog.get_logger()

PERIOD_SECONDS: Final = 30.0
ANSWER_SECONDS: Final = 5.0


class ActivityReporter:
    """Sends what was gathered, twice a minute and at the end; keeps what could not be sent."""

    def __init__(self, hub: ControlClient, gathered: dict[str, float]) -> None:
        self._hub = hub
        self._gathered = gathered

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            await asyncio.sleep(PERIOD_SECONDS)
            await self.report()

    async def report(self) -> None:
        """Send what was gathered since the last report that arrived."""
        if not self._gathered:
            return
        sent = dict(self._gathered)
        self._gathered.clear()
        body = msgspec.json.encode(ActivityReport(sent))
        try:
            await self._send(body)
        except HubAway as error:
            log.warning("proxy_activity_not_reported", reason=str(error), launches=len(sent))
            for launch, at in sent.items():
                self._gathered[launch] = max(at, self._gathered.get(launch, at))
        except asyncio.CancelledError:
            for launch, at in sent.items():
                self._gathered.setdefault(launch, at)
            raise

    async def _send(self, body: bytes) -> None:
        answer = await self._hub.request("POST", "/activity", seconds=ANSWER_SECONDS, body=body)
        if answer.status >= 300:
            raise HubAway(f"status {answer.status} for activity")
