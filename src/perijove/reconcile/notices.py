"""The messenger: sends what people have asked to be told, from the outbox of `services/notices`."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import anyio
import anyio.to_thread
import structlog

from perijove.db.core import bound
from perijove.domain.errors import HubError
from perijove.domain.launch import Launch
from perijove.kit.clock import isoformat
from perijove.services.hub import Hub, server_prefix
from perijove.services.notices import (
    Channel,
    Notice,
    claim,
    is_idle,
    note_failure,
    note_occasions,
    note_sent,
)
from perijove.services.senders import (
    Mail,
    Undeliverable,
    post_webhook,
    send_mail,
)

log = structlog.get_logger()

_AT_ONCE: Final = 4
"""Notices that are on their way at the same time."""


class Messenger:
    """Bound to one hub; `step` is the step of one loop."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._slots = anyio.CapacityLimiter(_AT_ONCE)

    async def step(self) -> None:
        """See which occasions have come, and send what is due."""
        if self._hub.notify.email is None and self._hub.notify.webhook is None:
            return
        if await self._hub.database.read(is_idle):
            return
        now = self._hub.clock.now()
        await self._hub.database.write(bound(note_occasions, now=now))
        notices = await self._hub.database.write(bound(claim, now=now))
        async with anyio.create_task_group() as tasks:
            for notice in notices:
                tasks.start_soon(self._deliver, notice)

    async def _deliver(self, notice: Notice) -> None:
        """Send one and write down what came of it."""
        try:
            await anyio.to_thread.run_sync(
                self._sender(notice), limiter=self._slots, abandon_on_cancel=True
            )
        except Exception as error:  # noqa: BLE001 - one that fails must not hold up the others
            await self._stays(notice, error)
            return
        log.info("notice_sent", notice=notice.id, launch=notice.launch.id, channel=notice.channel)
        await self._hub.database.write(bound(note_sent, notice, now=self._hub.clock.now()))

    async def _stays(self, notice: Notice, error: Exception) -> None:
        for_good = isinstance(error, Undeliverable)
        words = str(error) if isinstance(error, HubError) else type(error).__name__
        log.warning("notice_stays", notice=notice.id, error=words, for_good=for_good)
        now = self._hub.clock.now()
        await self._hub.database.write(
            bound(note_failure, notice, words, now=now, for_good=for_good)
        )

    def _sender(self, notice: Notice) -> "partial[None]":
        """Return the call that sends a notice."""
        notify, notice_id = self._hub.notify, f"{self._hub.installation}-{notice.id}"
        if notice.channel is Channel.EMAIL and notify.email is not None:
            subject, text = notice.words[notice.outcome]
            to = notify.email.address_of(notice.launch.user_name) or ""
            mail = Mail(id=notice_id, to=to, subject=subject, text=text)
            return partial(send_mail, notify.email, mail)
        if notice.channel is Channel.WEBHOOK and notify.webhook is not None:
            return partial(post_webhook, notify.webhook, notice_id, event_of(self._hub, notice))
        return partial(_gone, notice.channel)


def _gone(channel: Channel) -> None:
    raise Undeliverable(f"this site sends nothing by {channel} any more")


def event_of(hub: Hub, notice: Notice) -> Mapping[str, Any]:
    """Return what a webhook is told."""
    launch = notice.launch
    at = launch.time_is_over_at()
    return {
        "version": 1,
        "what": notice.outcome,
        "occasion": notice.occasion,
        "at": isoformat(notice.occurred_at),
        "user": launch.user_name,
        "server": launch.server_name,
        "launch": launch.id,
        "url": address_of(hub, launch),
        "ends_at": isoformat(at) if at and launch.is_live else None,
        "end": None
        if launch.end is None
        else {"cause": str(launch.end.cause), "reason": launch.end.reason},
    }


def address_of(hub: Hub, launch: Launch) -> str:
    """Return the public address of a launch's server; only its path where none is configured."""
    path = server_prefix(hub.base_path, launch.user_name, launch.server_name)
    return f"{hub.settings.url.removesuffix(hub.base_path)}{path}"
