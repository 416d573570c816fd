"""Images and choices on the options page, without any script."""

import html
import re
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.scenes import CONTAINERS, IMAGES
from tests.integration.pages.test_routes import Visit, location, visiting

pytestmark = pytest.mark.anyio

ON_MEMORY = CONTAINERS.model_copy(update={"spawner": "memory", "groups": ["*"]})


def at_form(directory: Path, **given: Any) -> Any:
    """Open a hub whose profile has images, sizes, and texts of one's own."""
    return visiting(directory, profiles=[ON_MEMORY], images=IMAGES, **given)


async def send(at: Visit, **fields: str) -> Any:
    """Send the form of the profile as a browser does: the text beside a list is always there."""
    form = {
        "workspace.size": "small",
        "workspace.image": "astro",
        "workspace.image--other": "",
        "workspace.catalogue": "release-1",
        "workspace.catalogue--other": "",
    }
    given = {f"workspace.{name.replace('__', '--')}": text for name, text in fields.items()}
    return await at.post("spawn/ann", {"profile": "workspace", **form, **given})


def checked(page: str) -> list[str]:
    """Return the values of all radio buttons and entries that are chosen."""
    return re.findall(r'value="([^"]*)"[^>]* (?:checked|selected)', page)


async def test_the_form_shows_what_there_is_to_choose(tmp_path: Path) -> None:
    """Images with what is in them, sizes with what they are; the defaults are chosen."""
    async with at_form(tmp_path) as at:
        await at.sign_in()
        page = html.unescape((await at.get("spawn")).text).replace("\N{NO-BREAK SPACE}", " ")

    assert "Python 3.13 · R 4.5 · Astropy 7 · NumPy · Matplotlib" in page
    assert "4 cores · 16 GiB" in page
    assert checked(page) == ["workspace", "small", "release-1", "astro"]
    assert 'name="workspace.image--other"' in page


async def test_what_is_chosen_is_started_and_remembered(tmp_path: Path) -> None:
    """Also what was written; the next form has all of it, and the link says it."""
    async with at_form(tmp_path) as at:
        await at.sign_in()
        answer = await send(
            at, size="large", image="--other", image__other="quay.io/a/b:1", catalogue="release-9"
        )
        assert answer.status_code == 302, answer.text
        [launch] = await at.hub.live()
        page = html.unescape((await at.get("spawn?again=1")).text)

    assert launch.spec["image"] == "quay.io/a/b:1"
    assert launch.spec["resources"]["cpu"] == 4
    assert checked(page) == ["workspace", "large", "release-9", "--other"]
    assert 'name="workspace.image--other" type="text" value="quay.io/a/b:1"' in page
    assert "opt-image=quay.io%2Fa%2Fb%3A1" in page


async def test_a_text_that_cannot_be_is_said_beside_it(tmp_path: Path) -> None:
    """In the site's own words and the person's language; all that was typed stays."""
    async with at_form(tmp_path) as at:
        await at.sign_in()
        at.client.headers["accept-language"] = "fr"
        answer = await send(
            at,
            size="medium",
            image="--other",
            image__other="docker.io/x",
            catalogue="--other",
            catalogue__other="DR 11",
        )
        page = html.unescape(answer.text)

        assert answer.status_code == 400
        assert await at.hub.live() == []
    assert "Seules les images de quay.io et de registry.example.org sont utilisables." in page
    assert "DR 11" in page
    assert checked(page) == ["workspace", "medium", "--other", "--other"]
    assert page.count('aria-invalid="true"') == 3  # both texts, and the list beside one


async def test_a_text_beside_a_choice_means_nothing(tmp_path: Path) -> None:
    """What was written and then not chosen is not taken."""
    async with at_form(tmp_path) as at:
        await at.sign_in()
        assert location(await send(at, image="minimal", image__other="docker.io/x")) == (
            "/hub/spawn-pending/ann"
        )
        [launch] = await at.hub.live()
    assert launch.spec["image"] == "registry.example.org/site/minimal:2026-11"
