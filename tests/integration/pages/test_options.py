"""The options page of a platform that tells what it has, without any script."""

import html
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from perijove.domain.errors import SpawnerTransient
from perijove.services.offers import ProfileSection
from tests.fakes.offers import cluster_offer
from tests.fakes.spawners import Tells
from tests.hubs import ShiftedClock, TestHub
from tests.integration.pages.test_routes import Visit, visiting

pytestmark = pytest.mark.anyio

BATCH: dict[str, Any] = {
    "name": "batch",
    "fields": {
        "account": {},
        "partition": {},
        "qos": {"default": "normal", "locked": True},
        "reservation": {},
        "cpu": {"default": 2, "max": 128},
        "memory": {"default": "4 GiB", "min": "1 GiB", "step": "1 GiB"},
        "time": {"default": "1 h", "min": "15 min", "step": "15 min"},
        "gpu": {},
        "gpu_type": {},
        "features": {"default": ["amd"]},
    },
}


@dataclass(slots=True)
class At:
    """A browser at the form, and what the form tells of."""

    visit: Visit
    spawner: Tells

    @property
    def hub(self) -> TestHub:
        """The hub that is visited."""
        return self.visit.hub

    async def send(self, **fields: str) -> httpx2.Response:
        """Send the form of the profile with these fields."""
        named = {f"batch.{name}": text for name, text in fields.items() if name != "refresh"}
        rest = {name: text for name, text in fields.items() if name == "refresh"}
        return await self.visit.post("spawn/ann", {"profile": "batch", **named, **rest})


@asynccontextmanager
async def at_form(directory: Path, *, kind: str = "slurm", **fields: Any) -> AsyncIterator[At]:
    """Open a hub with one profile on a platform that tells what it has; ann is signed in."""
    clock = ShiftedClock()
    section = {**BATCH, "fields": {**BATCH["fields"], **fields}}
    async with visiting(
        directory,
        profiles=[ProfileSection.model_validate(section)],
        wrap=lambda inner: Tells(inner, cluster_offer(clock.now())),
        clock=clock,
        spawner={"kind": kind},
        loops=False,
        with_proxy=False,
    ) as visit:
        await visit.sign_in()
        yield At(visit, visit.hub.spawner)


def field_of(page: str, name: str) -> str:
    """Return the part of the page about one field."""
    start = page.index(f'id="batch-{name}"')
    return html.unescape(page[start : page.index('class="hint"', start)])


def chosen(page: str, name: str) -> str:
    """Return the text of what is selected in a list."""
    found = re.search(r"<option [^>]*selected[^>]*>([^<]*)<", field_of(page, name))
    assert found is not None
    return found.group(1)


async def test_the_form_shows_what_there_is(tmp_path: Path) -> None:
    """Accounts, partitions, GPUs, what is free, what is coming and one's own jobs, with its age."""
    async with at_form(tmp_path) as at:
        page = html.unescape((await at.visit.get("spawn/ann")).text)
        assert chosen(page, "account") == "Default (physics)"
        assert chosen(page, "partition") == "Default (cpu)"
        assert chosen(page, "gpu") == "None"
        for text in ("1 × A100", "2 × A100", "7 × A100 1g.5gb", "3 of 8 A100 free"):
            assert text in page
        assert "252 of 2,736 cores free" in page
        assert "a session must end before it" in page
        assert "simulation (4711, cpu)" in page
        assert "You have 1 job there; the limit is 3 jobs at once." in page
        assert re.search(r"As of</span>|As of <time", page)
        assert 'id="batch-qos" type="text" value="normal" disabled' in page


async def test_a_combination_that_cannot_be_is_said_beside_its_field(tmp_path: Path) -> None:
    """The culprit is marked, everything typed is kept, and nothing was started."""
    async with at_form(tmp_path) as at:
        sent = {"partition": "gpu", "time": "4", "gpu": "a100:2", "features": ""}
        answer = await at.send(**sent)
        assert answer.status_code == 400
        said = field_of(answer.text, "time")
        assert "partition gpu allows at most 2\N{NO-BREAK SPACE}h" in said
        assert 'aria-invalid="true"' in said
        assert chosen(answer.text, "gpu") == "2 × A100"
        assert chosen(answer.text, "partition") == "gpu"
        assert 'value="4"' in said
        assert await at.hub.live() == []


async def test_when_to_be_asked_may_be_the_persons_choice(tmp_path: Path) -> None:
    """Where the profile leaves it open the form has it, the launch keeps it, no scheduler does."""
    async with at_form(tmp_path, queue_limit={"max": "6 h"}) as at:
        page = (await at.visit.get("spawn/ann")).text
        assert 'data-one="asks after # h"' in field_of(page, "queue_limit")
        answer = await at.send(account="", partition="cpu", queue_limit="1.5")
        assert answer.status_code == 302
        [launch] = await at.hub.live()
        assert launch.spec["limits"]["queue_wish"] == 5400


async def test_what_was_chosen_is_started(tmp_path: Path) -> None:
    """The one choice of GPUs is number and type; unchecked features are not asked for."""
    async with at_form(tmp_path) as at:
        answer = await at.send(partition="gpu", account="", gpu="a100:2", time="1,5", features="")
        assert answer.status_code == 400  # a comma is no decimal point in English
        answer = await at.send(partition="gpu", account="", gpu="a100:2", time="1.5", features="")
        assert answer.status_code == 302
        [launch] = await at.hub.live()
        asked = launch.spec["options"]
        assert (asked["gpu"], asked["gpu_type"], asked["partition"]) == (2, "a100", "gpu")
        assert "features" not in asked
        assert "account" not in asked


async def test_refreshing_keeps_what_was_typed(tmp_path: Path) -> None:
    """The button asks the platform anew and starts nothing."""
    async with at_form(tmp_path) as at:
        await at.visit.get("spawn/ann")
        at.spawner.offer = replace(at.spawner.offer, own_jobs=())
        clock = at.hub.hub.clock
        assert isinstance(clock, ShiftedClock)
        clock.shift(timedelta(seconds=10))
        answer = await at.send(refresh="1", partition="gpu", cpu="7")
        assert answer.status_code == 200
        assert "simulation (4711, cpu)" not in answer.text
        assert chosen(answer.text, "partition") == "gpu"
        assert 'value="7"' in field_of(answer.text, "cpu")
        assert len(at.spawner.asked) == 2
        assert await at.hub.live() == []


async def test_grid_engine_has_queues_and_projects(tmp_path: Path) -> None:
    """People find the words of their scheduler."""
    async with at_form(tmp_path, kind="gridengine") as at:
        page = (await at.visit.get("spawn/ann")).text
        assert ">Queue</label>" in page
        assert ">Project</label>" in page
        assert ">Partition</label>" not in page
        answer = await at.send(partition="gpu", time="4", features="")
        assert "queue gpu allows at most" in field_of(answer.text, "time")


async def test_a_scheduler_that_never_answered_leaves_a_usable_form(tmp_path: Path) -> None:
    """The page says since when, and what the profile itself has can be asked for."""
    async with at_form(tmp_path) as at:
        at.spawner.error = SpawnerTransient("away")
        page = (await at.visit.get("spawn/ann")).text
        assert "The scheduler has not answered since" in page
        assert 'id="batch-partition"' not in page
        assert 'id="batch-cpu"' in page
        assert (await at.send(cpu="4")).status_code == 302


async def test_a_choice_that_became_impossible_is_said_to_be_dropped(tmp_path: Path) -> None:
    """The form names what it could not keep."""
    async with at_form(tmp_path) as at:
        await at.hub.start(profile="batch", options={"partition": "gpu", "features": []})
        await at.hub.stop()
        at.spawner.offer = replace(at.spawner.offer, partitions=at.spawner.offer.partitions[:1])
        clock = at.hub.hub.clock
        assert isinstance(clock, ShiftedClock)
        clock.shift(timedelta(minutes=2))
        page = (await at.visit.get("spawn/ann?form=1")).text
        assert "What you chose last time is not possible any more for: Partition." in page


@pytest.mark.parametrize(
    "text",
    [
        "gpu\n#SBATCH --uid=0",
        "--wrap=id",
        "$(id)",
        "`id`",
        "gpu;id",
        "a b",
        "\u202egpu",
        "x" * 5000,
    ],
)
@pytest.mark.parametrize("field", ["account", "partition", "reservation", "gpu", "features"])
async def test_no_text_gets_past_the_choices(tmp_path: Path, field: str, text: str) -> None:
    """What no scheduler offered is refused on the page, and shown as text."""
    async with at_form(tmp_path) as at:
        answer = await at.send(**{field: text})
        assert answer.status_code == 400
        assert await at.hub.live() == []


async def test_the_api_says_the_same(tmp_path: Path) -> None:
    """The schema holds names, bounds, source, age and rules; the platform stands beside it."""
    async with at_form(tmp_path) as at:
        answer = await at.visit.client.get(f"{at.visit.prefix}api/perijove/users/ann/options")
        assert answer.status_code == 200, answer.text
        told = answer.json()
        [batch] = told["profiles"]
        partition = batch["schema"]["properties"]["partition"]
        assert partition["enum"] == ["", "cpu", "gpu", "gpu-private", "closed"]
        assert partition["x-source"] == "slurm.partition"
        rules = {rule["when"].get("partition"): rule["then"] for rule in batch["schema"]["x-rules"]}
        assert rules["gpu"]["time"] == {"maximum": 7200}
        assert rules["gpu"]["gpu_type"] == {"enum": ["a100", "a100_1g.5gb"]}
        assert told["platforms"]["memory"]["offer"]["own_jobs"][0]["id"] == "4711"
