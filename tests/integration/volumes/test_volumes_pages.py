"""The pages about what is kept: the list, deletion with a typed name, undo, another server."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, update

from perijove.db.core import bound
from perijove.db.tables import volumes as table
from perijove.db.volumes import UnknownVolume, Volume, list_volumes, note_unknown
from perijove.domain.launch import Status
from perijove.services.offers import ProfileSection
from tests.integration.pages.test_routes import Visit, location, visiting

pytestmark = pytest.mark.anyio

PROFILE = ProfileSection.model_validate({"name": "only", "storage": {"size": "2 GiB"}})


@pytest.fixture
async def visit(tmp_path: Path) -> AsyncIterator[Visit]:
    """Give a browser of ann, who has a server ``lab``, stopped, with a volume."""
    async with visiting(tmp_path, profiles=[PROFILE]) as at:
        await at.sign_in()
        await _has_run(at, "ann", "lab")
        yield at


async def _has_run(visit: Visit, user: str, server: str) -> None:
    await visit.hub.becomes(await visit.hub.start(user, server), Status.READY)
    launch = await visit.hub.stop(user, server)
    assert launch is not None
    await visit.hub.becomes(launch, Status.ENDED)


async def _volumes(visit: Visit) -> Sequence[Volume]:
    return await visit.hub.hub.database.read(list_volumes)


async def _change(visit: Visit, **values: Any) -> None:
    def unit(connection: Connection) -> None:
        connection.execute(update(table).values(**values))

    await visit.hub.hub.database.write(unit)


async def test_a_server_is_deleted_by_typing_its_name(visit: Visit) -> None:
    """The page names volume, size and last use; only the right name deletes."""
    (volume,) = await _volumes(visit)
    await _change(visit, used_bytes=3 * 2**20, measured_at=visit.hub.hub.clock.now(), enforced=True)
    page = (await visit.get("server/delete/ann/lab")).text
    for shown in (
        volume.name,
        "at most 2\N{NO-BREAK SPACE}GiB",
        "3\N{NO-BREAK SPACE}MiB",
        "typed",
    ):
        assert shown in page
    for typed in ({}, {"typed": "lap"}):
        refused = await visit.post("server/delete/ann/lab", typed)
        assert refused.status_code == 400
        assert "not the name" in refused.text
    assert (await _volumes(visit))[0].delete_after is None
    assert location(await visit.post("server/delete/ann/lab", {"typed": " lab "})).endswith("home")
    (volume,) = await _volumes(visit)
    assert volume.delete_after is not None
    assert volume.server_id is None


async def test_a_deletion_is_undone_on_the_list(visit: Visit) -> None:
    """Files of a deleted server are on the list until they are gone, with a way back."""
    await visit.post("server/delete/ann/lab", {"typed": "lab"})
    (volume,) = await _volumes(visit)
    page = (await visit.get("data")).text
    assert f"data/{volume.name}/restore" in page
    assert "Gone for good after" in page
    assert location(await visit.post(f"data/{volume.name}/restore")).endswith("/data")
    page = (await visit.get("data")).text
    assert "Not attached" in page
    await _has_run(visit, "ann", "second")
    assert (await visit.get(f"data/{volume.name}/attach")).text.count("<option") == 1
    attached = await visit.post(f"data/{volume.name}/attach", {"server": "second"})
    assert location(attached).endswith("/data")
    by_name = {each.name: each for each in await _volumes(visit)}
    assert by_name[volume.name].server_name == "second"


async def test_files_alone_are_deleted_by_typing_too(visit: Visit) -> None:
    """Those of the default server, which stays, are deleted by typing one's own name."""
    await _has_run(visit, "ann", "")
    volume = next(each for each in await _volumes(visit) if not each.server_name)
    page = (await visit.get(f"data/{volume.name}/delete")).text
    assert '<strong translate="no">ann</strong>' in page
    refused = await visit.post(f"data/{volume.name}/delete", {"typed": "anna"})
    assert refused.status_code == 400
    done = await visit.post(f"data/{volume.name}/delete", {"typed": "ann"})
    assert location(done).endswith("/data")
    deleted = {each.name: each.delete_after for each in await _volumes(visit)}
    assert deleted[volume.name] is not None


async def test_files_in_use_are_not_deleted(visit: Visit) -> None:
    """While the server runs the page says who has them, and nothing is changed."""
    await visit.hub.becomes(await visit.hub.start("ann", "lab"), Status.READY)
    (volume,) = await _volumes(visit)
    refused = await visit.post(f"data/{volume.name}/delete", {"typed": "lab"})
    assert refused.status_code == 400
    assert "uses these files" in refused.text
    assert (await _volumes(visit))[0].delete_after is None


@pytest.mark.parametrize("verb", ["delete", "attach"])
async def test_what_is_anothers_is_not_there(visit: Visit, verb: str) -> None:
    """Nobody sees or changes what somebody else keeps."""
    (volume,) = await _volumes(visit)
    await visit.sign_in("bob")
    assert volume.name not in (await visit.get("data")).text
    assert (await visit.get(f"data/{volume.name}/{verb}")).status_code == 404
    fields = {"typed": "lab", "server": ""}
    assert (await visit.post(f"data/{volume.name}/{verb}", fields)).status_code == 404
    assert (await visit.get("admin/data")).status_code == 403


async def test_an_administrator_sees_everybodys_and_unknown_ones(visit: Visit) -> None:
    """All volumes are listed with their owners, and those that no row knows below."""
    stray = UnknownVolume(
        spawner="memory",
        name="pj-x-stray",
        used_bytes=1,
        labels={"user": "zoe"},
        first_seen_at=visit.hub.hub.clock.now(),
    )
    await visit.hub.hub.database.write(bound(note_unknown, stray))
    await visit.sign_in("root", admin=True)
    page = (await visit.get("admin/data")).text
    for shown in ("ann", "lab", "pj-x-stray", "user=zoe"):
        assert shown in page


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"used_bytes": 2**31, "enforced": True}, "rescue mode"),
        ({"used_bytes": 2**31, "enforced": False}, "are allowed"),
        ({"used_bytes": int(1.9 * 2**30)}, "make room soon"),
        ({"missing_since": "now"}, "not where they were kept"),
    ],
)
async def test_little_room_is_said_on_home_and_while_waiting(
    visit: Visit, values: dict[str, Any], words: str
) -> None:
    """A volume that is full, nearly full or missing is told before and after a start."""
    now = visit.hub.hub.clock.now()
    await _change(visit, **{key: now if value == "now" else value for key, value in values.items()})
    for page in ("home", "data", "spawn-pending/ann/lab?show=1"):
        assert words in (await visit.get(page)).text, page


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ({"enforced": True}, 'not measured <span class="muted">(at most 2\N{NO-BREAK SPACE}GiB)'),
        ({}, 'not measured <span class="muted">(2\N{NO-BREAK SPACE}GiB, not enforced)'),
        ({"used_bytes": 2**20}, "(2\N{NO-BREAK SPACE}GiB, measured but not enforced)"),
    ],
)
async def test_nothing_is_called_measured_before_it_is(
    visit: Visit, values: dict[str, Any], shown: str
) -> None:
    """A size that nobody enforces is called measured only where there is a measure."""
    now = visit.hub.hub.clock.now()
    unknown: dict[str, Any] = {"enforced": False, "used_bytes": None, "seen_at": now}
    await _change(visit, **unknown | values)
    assert shown in (await visit.get("data")).text


async def test_the_form_says_what_a_profile_keeps(visit: Visit) -> None:
    """Before a start one knows that files are kept, and how much."""
    page = (await visit.get("spawn/ann/lab?form=1")).text
    assert "keeps 2\N{NO-BREAK SPACE}GiB of files" in page


async def test_where_nothing_is_kept_nothing_is_said_of_it(tmp_path: Path) -> None:
    """A server without a volume is deleted as before, by one button."""
    async with visiting(tmp_path) as visit:
        await visit.sign_in()
        await _has_run(visit, "ann", "lab")
        assert 'name="typed"' not in (await visit.get("server/delete/ann/lab")).text
        assert location(await visit.post("server/delete/ann/lab")).endswith("home")
