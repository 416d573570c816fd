"""The pages of environments: made, changed, shared and removed with forms alone."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from perijove.db.core import bound
from perijove.db.environments import Environment, change, list_of
from perijove.domain.environments import State
from perijove.domain.launch import Status
from perijove.services.offers import PolicySection
from tests.integration.pages.test_routes import BROWSER, Visit, location, visiting

pytestmark = pytest.mark.anyio

FORBIDDEN = PolicySection.model_validate({"groups": ["guests"], "environments": False})
WORDS = {
    "en": ("Environments", "Build again"),
    "fr": ("Environnements", "Reconstruire"),
    "es": ("Entornos", "Construir de nuevo"),
    "pt": ("Ambientes", "Construir de novo"),
}


@pytest.fixture
async def visit(tmp_path: Path) -> AsyncIterator[Visit]:
    """Give a browser of ann, of the lab, who has worked where homes are kept."""
    given: dict[str, Any] = {
        "settings": {"groups": {"lab": ["ann", "bob"], "guests": ["gus"]}},
        "spawner": {"home_storage": "nfs"},
        "policies": [FORBIDDEN],
    }
    async with visiting(tmp_path, **given) as at:
        for name in ("ann", "bob"):
            await at.hub.becomes(await at.hub.start(name), Status.READY)
        await at.sign_in()
        yield at


async def all_of(visit: Visit, name: str = "ann") -> Sequence[Environment]:
    """Return what somebody has."""
    user_id = await visit.hub.user(name)
    return await visit.hub.hub.database.read(bound(list_of, user_id))


async def becomes(visit: Visit, id_: int, **values: Any) -> None:
    """Let a session have said something."""
    await visit.hub.hub.database.write(bound(change, id_, **values))


async def made(visit: Visit, name: str = "mine", **values: Any) -> str:
    """Make one, and return the path of its page."""
    done = await visit.post("environments", {"name": name, "packages": "numpy\r\npandas>=1,<3"})
    assert location(done) == "/hub/environments"
    (it,) = [each for each in await all_of(visit) if each.name == name]
    if values:
        await becomes(visit, it.id, **values)
    return f"environments/{it.id}"


async def test_one_is_asked_for_by_a_form(visit: Visit) -> None:
    """The list leads to it; what was typed is one package in each line."""
    path = await made(visit)
    (it,) = await all_of(visit)
    assert it.packages == ["numpy", "pandas<3,>=1"]
    page = (await visit.get("environments")).text
    assert f'href="/hub/{path}"' in page
    assert 'aria-current="page"' in page
    assert "Waits for a session" in (await visit.get(path)).text


async def test_what_is_wrong_is_said_beside_what_was_typed(visit: Visit) -> None:
    """The form comes back with the words, and nothing is made."""
    typed = {"name": "Not <i>", "packages": "numpy"}
    refused = await visit.post("environments", typed)
    assert refused.status_code == 400
    assert "cannot be an environment&#39;s name" in refused.text
    assert 'value="Not &lt;i&gt;"' in refused.text
    assert await all_of(visit) == []
    path = await made(visit, lock="x==1", state=State.READY)
    refused = await visit.post(path, {"do": "change", "packages": "--evil <script>"})
    assert refused.status_code == 400
    assert "--evil &lt;script&gt;</textarea>" in refused.text
    await visit.post(path, {"do": "lock"})
    locked = await visit.post(path, {"do": "remove"})
    assert locked.status_code == 400
    assert "Unlock it before" in locked.text
    assert (await visit.post(path, {"do": "dance"})).status_code == 404


async def test_the_words_of_pip_are_only_words(visit: Visit) -> None:
    """What an installation said is shown as it was, and is no part of the page."""
    words = "</pre><script>alert(1)</script> {{ 7 * 7 }}"
    path = await made(visit, state=State.FAILED, error=words, lock="x==1")
    page = (await visit.get(path)).text
    assert "<script>alert" not in page
    assert "&lt;/pre&gt;&lt;script&gt;alert(1)" in page
    assert "{{ 7 * 7 }}" in page
    assert "What was there before still works." in page
    assert location(await visit.post(path, {"do": "retry"})) == f"/hub/{path}"
    (it,) = await all_of(visit)
    assert (it.state, it.error) == (State.WANTED, "")


async def test_it_is_locked_downloaded_and_removed(visit: Visit) -> None:
    """Buttons appear as they can be used; the exact versions are a plain file."""
    path = await made(visit)
    assert 'value="lock"' not in (await visit.get(path)).text
    assert (await visit.get(f"{path}/lock")).status_code == 404
    (it,) = await all_of(visit)
    await becomes(visit, it.id, state=State.READY, lock="numpy==2.0\n", size_bytes=2**30)
    assert 'value="lock"' in (await visit.get(path)).text
    await visit.post(path, {"do": "lock"})
    page = (await visit.get(path)).text
    assert 'value="unlock"' in page
    assert 'value="remove"' not in page
    lock = await visit.get(f"{path}/lock")
    assert lock.text == "numpy==2.0\n"
    assert lock.headers["content-type"].startswith("text/plain")
    assert lock.headers["content-disposition"] == 'attachment; filename="mine.txt"'
    assert lock.headers["x-content-type-options"] == "nosniff"
    await visit.post(path, {"do": "unlock"})
    assert location(await visit.post(path, {"do": "remove"})) == "/hub/environments"
    page = (await visit.get(path)).text
    assert "Is removed in your next session" in page
    assert 'name="do"' not in page


async def test_members_make_their_own(visit: Visit) -> None:
    """What is shared is on the page of a member, who makes a copy with one button."""
    path = await made(visit, state=State.READY, lock="numpy==2.0\n")
    assert location(await visit.post(path, {"do": "share", "groups": "lab"})) == f"/hub/{path}"
    assert 'value="lab" checked' in (await visit.get(path)).text
    await visit.sign_in("bob")
    page = (await visit.get("environments")).text
    assert "Shared with you" in page
    assert (await visit.get(path)).status_code == 404
    (source,) = await all_of(visit)
    await visit.post("environments", {"copy_of": str(source.id), "name": "mine"})
    (copy,) = await all_of(visit, "bob")
    assert (copy.lock, copy.is_locked) == ("numpy==2.0\n", True)
    await visit.sign_in("carla")
    assert "Shared with you" not in (await visit.get("environments")).text
    strange = await visit.post("environments", {"copy_of": str(source.id), "name": "mine"})
    assert strange.status_code == 404


@pytest.mark.parametrize("do", ["lock", "change", "share", "retry", "remove"])
async def test_what_is_anothers_is_not_there(visit: Visit, do: str) -> None:
    """Nobody sees or changes what somebody else has."""
    path = await made(visit, state=State.READY, lock="x==1")
    before = await all_of(visit)
    await visit.sign_in("bob")
    assert (await visit.post(path, {"do": do, "packages": "evil"})).status_code == 404
    assert (await visit.get(f"{path}/lock")).status_code == 404
    assert await all_of(visit) == before


async def test_a_form_of_another_site_changes_nothing(visit: Visit) -> None:
    """Without the token of our own page a form is refused."""
    path = await made(visit)
    for target, fields in (("environments", {"name": "evil"}), (path, {"do": "remove"})):
        answer = await visit.client.post(f"/hub/{target}", data=fields, headers=BROWSER)
        assert answer.status_code == 403
    assert [each.name for each in await all_of(visit)] == ["mine"]


async def test_who_may_have_none_is_told(visit: Visit) -> None:
    """The page says so and has no form; who has no place yet is told what to do."""
    await visit.sign_in("gus")
    page = (await visit.get("environments")).text
    assert "does not let you keep environments" in page
    assert 'name="packages"' not in page
    assert (await visit.post("environments", {"name": "mine"})).status_code == 400
    await visit.sign_in("carla")
    page = (await visit.get("environments")).text
    assert "Start a server that keeps its files first" in page
    assert 'name="packages"' not in page


@pytest.mark.parametrize("language", WORDS)
async def test_it_speaks_four_languages(visit: Visit, language: str) -> None:
    """Headings, buttons and the menu are in the language of the person."""
    path = await made(visit, state=State.FAILED)
    heading, again = WORDS[language]
    visit.client.cookies.set("perijove-language", language)
    page = (await visit.get("environments")).text
    assert f"<h1>{heading}</h1>" in page
    assert f">{heading}</a>" in page
    assert again in (await visit.get(path)).text


async def test_a_long_list_is_a_small_page(visit: Visit) -> None:
    """As many as one can have are told of in no more than 30 kB."""
    for number in range(50):
        await made(visit, f"environment-{number}")
    page = await visit.get("environments")
    assert page.text.count("data-environment=") == 50
    assert len(page.content) < 30_000
