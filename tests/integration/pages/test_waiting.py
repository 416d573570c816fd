"""The page of a wait over HTTP: what it asks, what it takes, where it leads back to."""

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import anyio
import pytest
from sqlalchemy import Connection, update

from perijove.db.core import bound
from perijove.db.tables import launches
from perijove.domain.errors import SpawnerRejected
from perijove.domain.launch import Cause, End, Launch, Reason, Status
from perijove.kit.clock import isoformat
from perijove.services.notices import Channel, followed
from perijove.services.offers import ProfileSection
from perijove.services.waits import is_asked
from perijove.spawners.contract import Phase
from perijove.web.texts import Catalogues, sentences
from tests.doors import SetClock
from tests.fakes.offers import cluster_offer
from tests.fakes.spawners import Held, Tells
from tests.hubs import ShiftedClock
from tests.integration.pages.test_routes import Visit, location, visiting
from tests.post import Receiver, webhook_receiver

pytestmark = pytest.mark.anyio

PROFILE = ProfileSection.model_validate(
    {"name": "small", "fields": {"time": {"default": "2 h", "max": "48 h"}}}
)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Give a receiver of webhooks."""
    with webhook_receiver() as found:
        yield found


@pytest.fixture
async def visit(tmp_path: Path, receiver: Receiver) -> AsyncIterator[Visit]:
    """Give a browser at a hub that can notify through a webhook, signed in as ann."""
    notify = {"webhook": {"url": receiver.url, "secret": "of the test"}}
    async with visiting(
        tmp_path, notify=notify, profiles=[PROFILE], spawner={"queue_limit": 3600}
    ) as at:
        await at.sign_in()
        yield at


async def queue(visit: Visit, reason: Reason | None = None, **values: Any) -> Launch:
    """Start ann's server, and let it wait in the queue."""
    launch = await visit.hub.becomes(await visit.hub.start(), Status.READY)
    visit.hub.platform.show(launch.name, Phase.PENDING, reason=reason)
    launch = await visit.hub.becomes(launch, Status.QUEUED)

    def unit(connection: Connection) -> None:
        connection.execute(update(launches).where(launches.c.id == launch.id).values(**values))

    if values:
        await visit.hub.hub.database.write(unit)
    return await visit.hub.launch(launch.id)


async def test_the_page_says_why_and_keeps_the_words(visit: Visit) -> None:
    """The reason in plain words with its advice, the scheduler's own under it, no estimate yet."""
    words = "(QOSMaxJobsPerUserLimit) <b>"
    await queue(visit, Reason(code="max-jobs-user", words=words))
    text = (await visit.get("spawn-pending/ann")).text
    assert "You already run as many jobs as you may have at once." in text
    assert "Stop one that you no longer need." in text
    assert "(QOSMaxJobsPerUserLimit) &lt;b&gt;" in text
    assert "no estimate yet" in text
    french = (await visit.get("spawn-pending/ann", **{"accept-language": "fr"})).text
    assert "Vous avez déjà autant de tâches en cours" in french


async def test_who_is_told_to_ask_gets_the_page_also_without_a_help_desk(visit: Visit) -> None:
    """Where the site has no address for help, the advice to ask is there, and no button."""
    await queue(visit, Reason(code="no-node", words="0/1 nodes are available"))
    answer = await visit.get("spawn-pending/ann")
    assert answer.status_code == 200
    assert "tell your administrator what is quoted below" in answer.text
    assert "Help</a>" not in answer.text


async def test_at_the_limit_one_is_asked_and_can_keep_waiting(visit: Visit) -> None:
    """The button is there as long as there is a question; pressing it answers."""
    now = visit.hub.hub.clock.now()
    launch = await queue(visit, queue_asked_at=now, queued_at=now - timedelta(hours=2))
    assert is_asked(launch)
    assert "Keep waiting</button>" in (await visit.get("spawn-pending/ann")).text
    assert "Shall it go on waiting?" in (await visit.get("home")).text
    assert location(await visit.post("server/keep-waiting/ann")) == "/hub/spawn-pending/ann"
    launch = await visit.hub.launch(launch.id)
    assert launch.queue_extended_at is not None
    assert "Keep waiting</button>" not in (await visit.get("spawn-pending/ann")).text
    assert (await visit.get("server/keep-waiting/ann")).status_code == 404


async def test_one_can_ask_to_be_told_and_think_again(visit: Visit, receiver: Receiver) -> None:
    """What is chosen on the page is remembered, shown, and sent when the server is ready."""
    launch = await queue(visit)
    page = (await visit.get("spawn-pending/ann")).text
    assert 'value="webhook"' in page
    assert 'value="email"' not in page
    for chosen in ({"by": "webhook"}, {}, {"by": "webhook"}):
        assert location(await visit.post("server/notify/ann", chosen)) == "/hub/spawn-pending/ann"
        ways = await visit.hub.hub.database.read(bound(followed, launch.id))
        assert ways == ({Channel.WEBHOOK} if chosen else set())
    assert 'value="webhook" checked' in (await visit.get("spawn-pending/ann")).text
    refused = await visit.post("server/notify/ann", {"by": "pigeon"})
    assert refused.status_code == 400
    visit.hub.platform.show(launch.name, Phase.RUNNING)
    await visit.hub.becomes(launch, Status.READY)

    await visit.hub.until(launch, lambda _: bool(receiver.requests), what="the notice")
    assert receiver.requests[0].headers["Content-Type"] == "application/json"


async def test_nobody_else_answers_for_one(visit: Visit) -> None:
    """Another person's wait is none of one's business."""
    launch = await queue(visit, queue_asked_at=visit.hub.hub.clock.now())
    await visit.sign_in("bob")
    for verb in ("keep-waiting", "release", "notify"):
        assert (await visit.post(f"server/{verb}/ann")).status_code == 404
    assert is_asked(await visit.hub.launch(launch.id))


async def test_a_held_one_is_released_by_a_button(tmp_path: Path) -> None:
    """The button is there while its owner holds it; a refusal is told as one."""
    async with visiting(tmp_path, wrap=Held) as visit:
        await visit.sign_in()
        launch = await visit.hub.becomes(await visit.hub.start(), Status.HELD)
        page = (await visit.get("spawn-pending/ann")).text
        assert "Release it</button>" in page
        assert 'action="/hub/server/release/ann"' in page
        visit.hub.spawner.error = SpawnerRejected("denied", code="not-released", words="denied")
        refused = await visit.post("server/release/ann")
        assert refused.status_code == 422
        assert "The computing system did not release it." in refused.text
        visit.hub.spawner.error = None
        assert location(await visit.post("server/release/ann")) == "/hub/spawn-pending/ann"
        await visit.hub.becomes(launch, Status.READY)
        page = (await visit.get("spawn-pending/ann?show=1")).text
        assert "Release it</button>" not in page
        assert "Released" in page
        late = await visit.post("server/release/ann")
        assert late.status_code == 409
        assert "You do not hold it any more." in late.text


async def test_what_can_never_start_leads_back_to_the_form(visit: Visit) -> None:
    """The ended page says why; its button opens the form as it was, with the culprit marked."""
    launch = await visit.hub.start(profile="small", options={"time": 36 * 3600})
    launch = await visit.hub.becomes(launch, Status.READY)
    end = End(cause=Cause.NEVER_STARTED, reason="over-time-limit", detail="(PartitionTimeLimit)")
    visit.hub.platform.end(launch.name, end)
    await visit.hub.becomes(launch, Status.ENDED)
    ended = await visit.get("spawn-pending/ann")
    assert ended.status_code == 400
    assert "so it would never start" in ended.text
    link = f"spawn/ann?problem={launch.id}"
    assert f'href="/hub/{link}"' in ended.text
    assert "server/start" not in ended.text
    form = await visit.get(link)
    assert form.status_code == 200
    marked = form.text.split('id="small-time"')[1].split(">")[0]
    assert 'value="36"' in marked
    assert 'aria-invalid="true"' in marked
    assert "so it would never start" in form.text
    plain = (await visit.get("spawn/ann?problem=lch_other")).text
    assert 'aria-invalid="true"' not in plain


async def test_what_ended_for_lack_of_time_can_have_more(visit: Visit) -> None:
    """After the wall time the page offers a start with twice as much."""
    launch = await visit.hub.start(profile="small", options={"time": 3600})
    launch = await visit.hub.becomes(launch, Status.READY)
    visit.hub.platform.end(launch.name, End(cause=Cause.WALLTIME))
    await visit.hub.becomes(launch, Status.ENDED)
    text = (await visit.get("spawn-pending/ann")).text
    assert "The time you asked for was over." in text
    assert "opt-time=2" in text


async def test_another_server_can_be_stopped_from_the_wait(visit: Visit) -> None:
    """What stands in the way is listed with a button, which leads back to the wait."""
    other = await visit.hub.becomes(await visit.hub.start(server="other"), Status.READY)
    await queue(visit, Reason(code="max-jobs-user"))
    page = (await visit.get("spawn-pending/ann")).text
    assert 'action="/hub/server/stop/ann/other"' in page
    assert 'href="#others"' in page
    back = await visit.post("server/stop/ann/other", {"next": "/hub/spawn-pending/ann"})
    assert location(back) == "/hub/spawn-pending/ann"
    await visit.hub.becomes(other, Status.ENDED)
    assert 'href="#others"' not in (await visit.get("spawn-pending/ann")).text


async def test_home_shows_a_stop_before_the_hub_has_begun_it(tmp_path: Path) -> None:
    """The page after the button says that it stops, and no more what it waited for."""
    async with visiting(tmp_path, loops=False, with_proxy=False) as visit:
        await visit.sign_in()
        launch = await visit.hub.start()
        values = {"status": Status.QUEUED, "reason": {"code": "resources", "params": {}}}
        change = update(launches).where(launches.c.id == launch.id).values(**values)
        await visit.hub.hub.database.write(lambda connection: connection.execute(change))
        before = (await visit.get("home")).text
        assert "home" in location(await visit.post("server/stop/ann"))
        after = (await visit.get("home")).text

    texts = Catalogues().get("en")
    why = sentences.why(texts, Status.QUEUED, Reason(code="resources")).text
    assert sentences.state_word(texts, Status.QUEUED) in before
    assert why in before
    assert sentences.state_word(texts, Status.QUEUED) not in after
    assert sentences.state_word(texts, Status.ENDING) in after
    assert why not in after


async def test_the_page_has_what_is_free_asked_for_again(tmp_path: Path) -> None:
    """Who looks while it waits sees the jobs of this minute, which of them one works in, and how
    each is cancelled."""
    clock = ShiftedClock()
    offer = cluster_offer(clock.now())
    async with visiting(
        tmp_path,
        wrap=lambda inner: Tells(inner, replace(offer, own_jobs=())),
        clock=clock,
        spawner={"kind": "slurm"},
    ) as visit:
        await visit.sign_in()
        await queue(visit, Reason(code="max-jobs-user"))
        assert "simulation" not in (await visit.get("spawn-pending/ann")).text
        clock.shift(timedelta(minutes=2))
        visit.hub.spawner.offer = replace(offer, as_of=clock.now())
        with anyio.fail_after(10):
            while "simulation" not in (page := (await visit.get("spawn-pending/ann")).text):
                await anyio.lowlevel.checkpoint()
        assert "4711 simulation" in page
        assert "interactive</li>" in page
        assert "scancel 4711" in page
        form = (await visit.get("spawn/ann?form=1")).text
        assert "1 of them is interactive." in form


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("en", "For 2 min 10 s now."),
        ("fr", "Depuis 2 min 10 s."),
        ("es", "Desde hace 2 min 10 s."),  # codespell:ignore hace
        ("pt", "Há 2 min 10 s."),
    ],
)
async def test_the_page_says_for_how_long_it_is_this_reason(
    tmp_path: Path, language: str, said: str
) -> None:
    """Of every reason, from when it became this one."""
    clock = SetClock()
    since = isoformat(clock.now() - timedelta(minutes=2, seconds=10))
    async with visiting(tmp_path, clock=clock, loops=False, with_proxy=False) as visit:
        await visit.sign_in()
        launch = await visit.hub.start()
        reason = {"code": "priority", "params": {}, "words": "", "since": since}
        change = update(launches).where(launches.c.id == launch.id)
        values = {"status": Status.QUEUED, "queued_at": clock.now(), "reason": reason}
        await visit.hub.hub.database.write(
            lambda connection: connection.execute(change.values(**values))
        )
        page = (await visit.get("spawn-pending/ann", **{"accept-language": language})).text
    assert said in page.replace("\xa0", " ")


BATCH: dict[str, Any] = {
    "name": "batch",
    "fields": {
        "partition": {},
        "reservation": {},
        "cpu": {"default": 2, "max": 128},
        "memory": {"default": "4 GiB", "min": "1 GiB", "step": "1 GiB"},
        "time": {"default": "1 h", "min": "15 min", "step": "15 min"},
    },
}
ASKED: dict[str, Any] = {"partition": "cpu", "cpu": 40, "memory": 64 * 2**30, "time": 12 * 3600}


@pytest.mark.parametrize(
    ("code", "options", "shown", "query"),
    [
        (
            "resources",
            {},
            ["Ask for what is free now: 32 cores · 64 GiB", "Next maintenance", "from 20 Nov"],
            {"cpu": "32", "memory": "64", "time": "12", "partition": "cpu"},
        ),
        (
            "node-unavailable",
            {},
            ["Ask for 9 h 45 min: over before the maintenance"],
            {"cpu": "40", "time": "9.75"},
        ),
        (
            "reservation",
            {"reservation": "course"},
            ["Start without the reservation", "course · from 20 Nov"],
            {"cpu": "40", "reservation": ""},
        ),
    ],
)
async def test_the_page_offers_what_may_start_sooner(
    tmp_path: Path, code: str, options: dict[str, str], shown: list[str], query: dict[str, str]
) -> None:
    """A button leads to the form, filled in with what takes the reason away."""
    clock = SetClock(datetime(2026, 11, 20, 9, tzinfo=UTC))
    async with visiting(
        tmp_path,
        profiles=[ProfileSection.model_validate(BATCH)],
        wrap=lambda inner: Tells(inner, cluster_offer(clock.now())),
        clock=clock,
        spawner={"kind": "slurm"},
        loops=False,
        with_proxy=False,
    ) as visit:
        await visit.sign_in()
        form = await visit.post("spawn/ann", {"profile": "batch"})
        assert form.status_code == 302, form.text
        (launch,) = await visit.hub.live()
        spec = {**launch.spec, "options": {**ASKED, **options}}
        reason: dict[str, Any] = {"code": code, "params": {}, "words": "", "since": None}
        values = {"status": Status.QUEUED, "queued_at": clock.now(), "reason": reason, "spec": spec}
        change = update(launches).where(launches.c.id == launch.id).values(**values)
        await visit.hub.hub.database.write(lambda connection: connection.execute(change))

        page = (await visit.get("spawn-pending/ann")).text.replace("\xa0", " ")
        for words in shown:
            assert words in page
        (link,) = re.findall(r'class="button primary" href="([^"]*)"', page)
        given = dict(parse_qsl(urlsplit(unescape(link)).query, keep_blank_values=True))
        assert given["opt-profile"] == "batch"
        assert query.items() <= {name.removeprefix("opt-"): v for name, v in given.items()}.items()
        filled = await visit.get(unescape(link).removeprefix("/hub/"))
        assert filled.status_code == 200
        assert f'value="{query["cpu"]}"' in filled.text


LINKS = {"help": "https://help.example.org", "allocations": "https://time.example.org"}


async def test_what_a_machine_could_not_start_can_be_started_again(tmp_path: Path) -> None:
    """Held as it is, one press cancels it and asks for the same anew; who can help is named."""
    async with visiting(tmp_path, settings={"links": LINKS}) as visit:
        await visit.sign_in()
        held = await queue(visit, Reason(code="launch-failed-held"))
        page = (await visit.get("spawn-pending/ann")).text
        assert "Cancel and start again</button>" in page
        assert 'action="/hub/server/restart/ann"' in page
        assert f'class="button" href="{LINKS["help"]}"' in page
        assert location(await visit.post("server/restart/ann")) == "/hub/spawn-pending/ann"
        await visit.hub.becomes(held, Status.ENDED)
        (anew,) = await visit.hub.live()
        assert (anew.id != held.id, anew.spec["options"]) == (True, held.spec["options"])


async def test_who_has_no_computing_time_left_finds_where_to_get_some(tmp_path: Path) -> None:
    """Where the site says where that is; nobody is offered to start the same again."""
    async with visiting(tmp_path, settings={"links": LINKS}) as visit:
        await visit.sign_in()
        await queue(visit, Reason(code="no-budget"))
        page = (await visit.get("spawn-pending/ann")).text
        assert f'class="button" href="{LINKS["allocations"]}">Computing time</a>' in page
        assert "Cancel and start again" not in page


async def test_what_ended_before_it_answered_can_start_in_safe_mode(tmp_path: Path) -> None:
    """Where jobs run, a home that breaks the server can be left out; once, and not remembered."""
    async with visiting(
        tmp_path,
        wrap=lambda inner: Tells(inner, cluster_offer(datetime.now(UTC))),
        with_proxy=False,  # so that nothing becomes ready
    ) as visit:
        await visit.sign_in()
        launch = await visit.hub.becomes(await visit.hub.start(), Status.CONNECTING)
        visit.hub.platform.end(launch.name, End(cause=Cause.EXITED, code=1))
        await visit.hub.becomes(launch, Status.ENDED)

        page = (await visit.get("spawn-pending/ann")).text
        assert "Start in safe mode" in page
        assert (await visit.post("server/start-safely/ann")).status_code == 302
        (safe,) = await visit.hub.live()
        assert safe.spec["options"]["safe_mode"] is True
        await visit.hub.becomes(safe, Status.CONNECTING)
        visit.hub.platform.end(safe.name, End(cause=Cause.EXITED, code=1))
        await visit.hub.becomes(safe, Status.ENDED)
        assert "Start in safe mode" not in (await visit.get("spawn-pending/ann")).text
