"""Notices: what a person asked to be told arrives once, whatever fails on the way."""

import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select, update
from structlog.testing import capture_logs

from perijove.db.core import bound
from perijove.db.tables import launches, notices
from perijove.domain.errors import Invalid
from perijove.domain.launch import Cause, Launch, Status, Wanted
from perijove.reconcile.notices import Messenger
from perijove.services.notices import (
    Channel,
    Outcome,
    claim,
    follow,
    followed,
    note_occasions,
)
from perijove.services.senders import EmailSection
from tests.hubs import TEST, ShiftedClock, TestHub, running_hub
from tests.post import PASSWORD, Mailbox, Receiver, mail_server, webhook_receiver

pytestmark = pytest.mark.anyio

SECRET = "a secret of the site's"
WORDS = {
    Outcome.READY: ("Modèle est prêt", "Ouvrir : https://hub.example.org/"),
    Outcome.ENDED: ("It did not start", "Why: https://hub.example.org/"),
    Outcome.LEFT: ("Little time left", "Save: https://hub.example.org/"),
}
HOURS = 3


@pytest.fixture
def mailbox(tmp_path: Path) -> Iterator[Mailbox]:
    """Give a mail server."""
    with mail_server(tmp_path) as box:
        yield box


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Give a receiver of webhooks."""
    with webhook_receiver() as found:
        yield found


@asynccontextmanager
async def telling(
    tmp_path: Path,
    *,
    mailbox: Mailbox | None = None,
    receiver: Receiver | None = None,
    database_url: str = "",
    **email: Any,
) -> AsyncIterator[tuple[TestHub, Messenger, ShiftedClock]]:
    """Run a hub that can reach people, and whose messenger the test lets step."""
    notify: dict[str, Any] = {}
    if mailbox is not None:
        password = tmp_path / "password"
        password.write_text(f"{PASSWORD}\n")
        notify["email"] = {
            "host": "127.0.0.1",
            "port": mailbox.port,
            "ca_file": mailbox.ca_file,
            "user": "hub",
            "password_file": password,
            "sender": "hub@example.org",
            "to": "{name}@example.org",
            **email,
        }
    if receiver is not None:
        notify["webhook"] = {"url": receiver.url, "secret": SECRET}
    clock = ShiftedClock()
    async with running_hub(
        database_url or f"sqlite:///{tmp_path / 'hub.sqlite'}",
        tmp_path,
        loops=False,
        with_proxy=False,
        clock=clock,
        notify=notify,
    ) as hub:
        yield hub, Messenger(hub.hub), clock


async def start(hub: TestHub, *channels: Channel) -> Launch:
    """Ask for a server that waits in the queue, and to be told about it."""
    launch = await hub.start()
    now = hub.hub.clock.now()
    launch = await become(hub, launch, status="queued", submitted_at=now, queued_at=now)
    await follow(hub.hub, launch, channels, WORDS, asking=TEST)
    return launch


async def become(hub: TestHub, launch: Launch, **values: Any) -> Launch:
    """Let something happen to a launch."""

    def unit(connection: Connection) -> None:
        connection.execute(update(launches).where(launches.c.id == launch.id).values(**values))

    await hub.hub.database.write(unit)
    return await hub.launch(launch.id)


async def be_ready(hub: TestHub, launch: Launch) -> datetime:
    """Let a launch become ready; returns when its time will be over."""
    now = hub.hub.clock.now()
    ends_at = now + timedelta(hours=HOURS)
    await become(hub, launch, status="ready", starting_at=now, ready_at=now, ends_at=ends_at)
    return ends_at


async def rows(hub: TestHub) -> list[Any]:
    """Return the outbox."""
    return await hub.hub.database.read(
        lambda connection: list(connection.execute(select(notices)).mappings())
    )


async def test_mail_goes_out_once_when_it_is_ready(
    tmp_path: Path, mailbox: Mailbox, database_url: str
) -> None:
    """Over STARTTLS, with the password of a file, in the words of who asked; never twice."""
    async with telling(tmp_path, mailbox=mailbox, database_url=database_url) as (hub, messenger, _):
        launch = await start(hub, Channel.EMAIL)
        await messenger.step()
        assert mailbox.mails == []
        await be_ready(hub, launch)
        await messenger.step()
        await messenger.step()
        (mail,) = mailbox.mails
        assert mailbox.signed_in == ["hub"]
        assert mail["To"] == "ann@example.org"
        assert mail["Subject"] == "Modèle est prêt"
        assert mail["Auto-Submitted"] == "auto-generated"
        assert mail["Message-ID"].startswith(f"<{hub.hub.installation}-")
        assert "https://hub.example.org/" in mail.get_content()


async def test_webhook_is_signed_and_says_what_happened(tmp_path: Path, receiver: Receiver) -> None:
    """Whoever knows the secret can tell that the hub said it, and when."""
    async with telling(tmp_path, receiver=receiver) as (hub, messenger, _):
        launch = await start(hub, Channel.WEBHOOK)
        await be_ready(hub, launch)
        await messenger.step()
        (request,) = receiver.requests
        at = request.headers["X-Perijove-Timestamp"]
        signed = hmac.new(SECRET.encode(), at.encode() + b"." + request.body, hashlib.sha256)
        assert request.headers["X-Perijove-Signature"] == f"sha256={signed.hexdigest()}"
        event = json.loads(request.body)
        assert (event["what"], event["user"], event["launch"]) == ("ready", "ann", launch.id)
        assert event["url"] == "/user/ann/"
        assert event["end"] is None


async def test_what_fails_is_tried_again_later(
    tmp_path: Path, mailbox: Mailbox, receiver: Receiver
) -> None:
    """A receiver that is away, and a mail server that defers, get it when they are back."""
    async with telling(tmp_path, mailbox=mailbox, receiver=receiver) as (hub, messenger, clock):
        mailbox.answers = ["451 come back later"]
        receiver.answers = [503, 429]
        launch = await start(hub, Channel.EMAIL, Channel.WEBHOOK)
        await be_ready(hub, launch)
        await messenger.step()
        assert (mailbox.mails, len(receiver.requests)) == ([], 1)
        await messenger.step()
        assert len(receiver.requests) == 1  # not before its time
        clock.shift(timedelta(seconds=11))
        await messenger.step()
        assert (len(mailbox.mails), len(receiver.requests)) == (1, 2)
        clock.shift(timedelta(seconds=21))
        await messenger.step()
        ids = {request.headers["X-Perijove-Delivery"] for request in receiver.requests}
        assert (len(mailbox.mails), len(receiver.requests), len(ids)) == (1, 3, 1)


@pytest.mark.parametrize("answer", [404, 302])
async def test_what_is_refused_for_good_is_dropped(
    tmp_path: Path, mailbox: Mailbox, receiver: Receiver, answer: int
) -> None:
    """A mailbox that does not exist, a wrong address, one that leads elsewhere: never again."""
    async with telling(tmp_path, mailbox=mailbox, receiver=receiver) as (hub, messenger, clock):
        mailbox.answers = ["550 no such mailbox"]
        receiver.answers = [answer]
        launch = await start(hub, Channel.EMAIL, Channel.WEBHOOK)
        await be_ready(hub, launch)
        await messenger.step()
        clock.shift(timedelta(minutes=30))
        await messenger.step()
        assert (mailbox.mails, len(receiver.requests)) == ([], 1)
        errors = {row["error"] for row in await rows(hub) if row["occasion"] == "start"}
        assert any("no such mailbox" in error for error in errors)
        assert any(str(answer) in error for error in errors)


async def test_a_crash_loses_nothing(tmp_path: Path, receiver: Receiver) -> None:
    """What a hub took and never sent is taken by the next one."""
    async with telling(tmp_path, receiver=receiver) as (hub, messenger, clock):
        launch = await start(hub, Channel.WEBHOOK)
        await be_ready(hub, launch)
        now = hub.hub.clock.now()
        await hub.hub.database.write(bound(note_occasions, now=now))
        taken = await hub.hub.database.write(bound(claim, now=now))
        assert len(taken) == 1
        await messenger.step()
        assert receiver.requests == []  # another has it
        clock.shift(timedelta(minutes=6))
        await messenger.step()
        assert len(receiver.requests) == 1


async def test_warnings_come_before_the_end_and_once_each(
    tmp_path: Path, receiver: Receiver
) -> None:
    """Thirty, ten and two minutes before its time is over, and not for what was missed."""
    async with telling(tmp_path, receiver=receiver) as (hub, messenger, clock):
        launch = await start(hub, Channel.WEBHOOK)
        ends_at = await be_ready(hub, launch)
        for minutes in (45, 29, 25, 9, 1.5, 1):
            clock.shift(ends_at - timedelta(minutes=minutes) - hub.hub.clock.now())
            await messenger.step()
        said = [json.loads(request.body)["occasion"] for request in receiver.requests]
        assert said == ["start", "left-30", "left-10", "left-2"]

        receiver.requests.clear()
        later = await hub.start(server="later")
        later = await become(hub, later, status="queued", queued_at=hub.hub.clock.now())
        await follow(hub.hub, later, [Channel.WEBHOOK], WORDS, asking=TEST)
        ends_at = await be_ready(hub, later)
        clock.shift(ends_at - timedelta(minutes=5) - hub.hub.clock.now())
        await messenger.step()
        said = [json.loads(request.body)["occasion"] for request in receiver.requests]
        assert sorted(said) == ["left-10", "start"]


async def test_a_start_that_failed_is_told_and_a_cancelled_one_is_not(
    tmp_path: Path, mailbox: Mailbox
) -> None:
    """Who waits for news gets bad news too, but not of what they did themselves."""
    async with telling(tmp_path, mailbox=mailbox) as (hub, messenger, _):
        for server, cause in (("failed", Cause.NEVER_STARTED), ("cancelled", Cause.USER)):
            launch = await hub.start(server=server)
            await follow(hub.hub, launch, [Channel.EMAIL], WORDS, asking=TEST)
            await become(
                hub,
                launch,
                status=Status.ENDED,
                wanted=Wanted.END,
                ended_at=hub.hub.clock.now(),
                end_cause=cause,
                end={"cause": cause, "code": None, "reason": "", "detail": ""},
            )
        await messenger.step()
        assert [mail["Subject"] for mail in mailbox.mails] == ["It did not start"]
        assert all(row["dropped_at"] or row["sent_at"] for row in await rows(hub))


async def test_one_can_think_again(tmp_path: Path, mailbox: Mailbox, receiver: Receiver) -> None:
    """What is not chosen any more is not sent; a way that the site does not have is refused."""
    async with telling(tmp_path, mailbox=mailbox, receiver=receiver) as (hub, messenger, _):
        launch = await start(hub, Channel.EMAIL, Channel.WEBHOOK)
        await follow(hub.hub, launch, [Channel.WEBHOOK], WORDS, asking=TEST)
        chosen = await hub.hub.database.read(bound(followed, launch.id))
        assert chosen == {Channel.WEBHOOK}
        await follow(hub.hub, launch, [Channel.WEBHOOK], WORDS, asking=TEST)
        await be_ready(hub, launch)
        await messenger.step()
        assert (mailbox.mails, len(receiver.requests)) == ([], 1)
    async with telling(tmp_path, receiver=receiver) as (hub, _messenger, _):
        launch = await hub.start(server="other")
        with pytest.raises(Invalid, match="cannot notify"):
            await follow(hub.hub, launch, [Channel.EMAIL], WORDS, asking=TEST)


async def test_the_password_is_in_no_log_and_no_row(tmp_path: Path, mailbox: Mailbox) -> None:
    """A mail server that does not let the hub in is told of without what it was shown."""
    async with telling(
        tmp_path, mailbox=mailbox, password="entirely wrong", password_file=None
    ) as (hub, messenger, _):
        launch = await start(hub, Channel.EMAIL)
        await be_ready(hub, launch)
        with capture_logs() as logged:
            await messenger.step()
        assert mailbox.mails == []
        (failed,) = [row for row in await rows(hub) if row["tries"]]
        assert failed["error"]
        assert failed["dropped_at"] is None  # an administrator can mend it
        assert "entirely wrong" not in str(logged) + failed["error"]
        assert "entirely wrong" not in repr(hub.hub.notify)


@pytest.mark.parametrize(
    ("to", "name", "address"),
    [
        ("{name}@example.org", "ann", "ann@example.org"),
        ("{name}", "o.brien@example.org", "o.brien@example.org"),
        ("{name}@example.org", "ann\nBcc: all", None),
        ("{name}@example.org", "ann, bob", None),
        ("{name}", "ann", None),
    ],
)
def test_an_address_is_made_of_a_name_or_there_is_none(
    to: str, name: str, address: str | None
) -> None:
    """A user name is data: it can add no receiver and no header."""
    section = EmailSection(host="localhost", sender="hub@example.org", to=to)
    assert section.address_of(name) == address
