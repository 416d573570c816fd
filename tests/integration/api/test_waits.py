"""A wait over the REST API: what surrounds it, its answer, and who may give one."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from sqlalchemy import Connection, update

from perijove.db.tables import launches
from perijove.domain.errors import SpawnerRejected
from perijove.domain.launch import Launch, Reason, Status
from perijove.spawners.contract import Phase
from tests.apis import ADMIN, ANN, BOB, TestApi, running_api
from tests.fakes.offers import cluster_offer
from tests.fakes.spawners import Held, Tells

pytestmark = pytest.mark.anyio

WEBHOOK = {"webhook": {"url": "http://127.0.0.1:9/hook", "secret": "of the test"}}


async def queued(api: TestApi) -> Launch:
    """Let ann's server wait in the queue, and let her be asked whether it shall go on."""
    started = await api.hub.start()
    launch = await api.hub.becomes(started, Status.READY)
    api.hub.platform.show(launch.name, Phase.PENDING, reason=Reason(code="max-cpus"))
    launch = await api.hub.becomes(launch, Status.QUEUED)
    asked_at = api.hub.hub.clock.now()

    def unit(connection: Connection) -> None:
        values = {"queue_asked_at": asked_at, "queued_at": asked_at - timedelta(hours=1)}
        connection.execute(update(launches).where(launches.c.id == launch.id).values(**values))

    await api.hub.hub.database.write(unit)
    return launch


async def test_a_wait_says_what_helps_and_takes_an_answer(tmp_path: Path) -> None:
    """The obstacle and its culprit are named; the question is there until it is answered."""
    url = f"sqlite:///{tmp_path / 'hub.sqlite'}"
    async with running_api(url, tmp_path, notify=WEBHOOK) as api:
        launch = await queued(api)
        path = f"/perijove/launches/{launch.id}"
        wait = await api.get(f"{path}/wait", token=ANN)
        assert (wait["origin"], wait["field"], wait["actions"][0]) == ("policy", "cpu", "own-jobs")
        assert wait["waited_seconds"] > 0
        assert wait["asked_at"] is not None
        assert (wait["notify_by"], wait["notified_by"]) == (["webhook"], [])
        assert (wait["usual"], wait["room"], wait["own_jobs"]) == (None, None, [])
        for verb, body in (("keep-waiting", None), ("notify", {"by": ["webhook"]})):
            answer = await api.call("POST", f"{path}/{verb}", body, token=ANN)
            assert answer.status_code == 204, answer.text
        wait = await api.get(f"{path}/wait", token=ANN)
        assert (wait["asked_at"], wait["notified_by"]) == (None, ["webhook"])
        actors = {event.code: event.actor for event in await api.hub.events(launch.id)}
        assert (actors["kept-waiting"], actors["followed"]) == ("ann", "ann")


async def test_a_wait_tells_what_may_start_sooner(tmp_path: Path) -> None:
    """What is free for less of it, and a time before the maintenance, each as data."""
    url = f"sqlite:///{tmp_path / 'hub.sqlite'}"
    offer = cluster_offer(datetime.now(UTC))
    options = {"partition": "cpu", "cpu": 40, "memory": 2**30, "time": 86400}
    async with running_api(url, tmp_path, wrap=lambda inner: Tells(inner, offer)) as api:
        launch = await api.hub.becomes(await api.hub.start(), Status.READY)
        reason = Reason(code="resources")
        api.hub.platform.show(launch.name, Phase.PENDING, reason=reason)
        launch = await api.hub.becomes(launch, Status.QUEUED)

        def unit(connection: Connection) -> None:
            change = update(launches).where(launches.c.id == launch.id)
            connection.execute(change.values(spec={**launch.spec, "options": options}))

        await api.hub.hub.database.write(unit)
        path = f"/perijove/launches/{launch.id}"
        with anyio.fail_after(10):
            while (wait := await api.get(f"{path}/wait", token=ANN))["as_of"] is None:
                await anyio.lowlevel.checkpoint()
        assert wait["fits_now"] == {"cpu": 36}
        assert 9 * 3600 < wait["fits_before"] < 10 * 3600
        assert (wait["maintenance"]["name"], wait["reservation"]) == ("maint", None)
        told = (await api.get(path, token=ANN))["reason"]
        assert (told["code"], told["since"][-1]) == ("resources", "Z")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"by": ["pigeon"]}, 400),
        ({"by": ["email"]}, 400),
        ({"by": "webhook"}, 400),
        ({"to": ["webhook"]}, 400),
        ({"by": [1]}, 400),
        ({"by": []}, 204),
        (None, 204),
    ],
)
async def test_only_ways_of_the_site_are_taken(tmp_path: Path, body: object, status: int) -> None:
    """A way that the site does not have is refused, and nothing is sent that way."""
    url = f"sqlite:///{tmp_path / 'hub.sqlite'}"
    async with running_api(url, tmp_path, notify=WEBHOOK) as api:
        launch = await queued(api)
        path = f"/perijove/launches/{launch.id}"
        answer = await api.call("POST", f"{path}/notify", body, token=ANN)
        assert answer.status_code == status
        assert (await api.get(f"{path}/wait", token=ANN))["notified_by"] == []


async def test_nobody_else_sees_or_answers(tmp_path: Path) -> None:
    """Another person's wait does not exist; an administrator answers in the owner's name."""
    url = f"sqlite:///{tmp_path / 'hub.sqlite'}"
    async with running_api(url, tmp_path) as api:
        launch = await queued(api)
        path = f"/perijove/launches/{launch.id}"
        for method, end in (
            ("GET", "wait"),
            ("POST", "keep-waiting"),
            ("POST", "release"),
            ("POST", "notify"),
        ):
            answer = await api.call(method, f"{path}/{end}", token=BOB)
            assert answer.status_code == 404
        assert (await api.call("POST", f"{path}/keep-waiting", token=ADMIN)).status_code == 204
        await api.hub.stop()
        ended = await api.hub.becomes(launch, Status.ENDED)
        assert (await api.call("POST", f"{path}/keep-waiting", token=ANN)).status_code == 409
        assert (await api.get(f"{path}/wait", token=ANN))["waited_seconds"] == 0
        assert ended.queue_extended_at is not None


async def test_a_held_one_is_released(tmp_path: Path) -> None:
    """The wait says that this helps; a refusal comes with its words and a code."""
    url = f"sqlite:///{tmp_path / 'hub.sqlite'}"
    async with running_api(url, tmp_path, wrap=Held) as api:
        launch = await api.hub.becomes(await api.hub.start(), Status.HELD)
        path = f"/perijove/launches/{launch.id}"
        assert (await api.get(f"{path}/wait", token=ANN))["actions"] == ["release"]
        api.hub.spawner.error = SpawnerRejected("Access denied", code="not-released")
        refused = await api.call("POST", f"{path}/release", token=ANN)
        assert refused.status_code == 422
        assert (refused.json()["code"], refused.json()["detail"]) == (
            "not-released",
            "Access denied",
        )
        api.hub.spawner.error = None
        assert (await api.call("POST", f"{path}/release", token=ANN)).status_code == 204
        await api.hub.becomes(launch, Status.READY)
        assert (await api.call("POST", f"{path}/release", token=ANN)).status_code == 409
