"""Images and choices of profiles over the REST API: one decision, however they are said."""

from pathlib import Path
from typing import Any

import pytest

from perijove.services.choices import ImageSection
from perijove.services.offers import PolicySection, ProfileSection
from tests.apis import ANN, TestApi, running_api

pytestmark = pytest.mark.anyio

GIB = 2**30
IMAGES = {
    name: ImageSection(image=image)
    for name, image in {"astro": "quay.io/site/astro:1", "r": "quay.io/site/r:4"}.items()
}
PROFILE = ProfileSection.model_validate(
    {
        "name": "workspace",
        "environment": {"A": "1"},
        "fields": {
            "image": {"free": {"pattern": r"quay\.io/\S+", "message": "Only images of quay.io."}}
        },
        "choices": {
            "size": {
                "options": {
                    "small": {"set": {"cpu": 1, "memory": "4 GiB"}},
                    "large": {
                        "set": {
                            "cpu": 4,
                            "memory": "16 GiB",
                            "environment": {"B": "2"},
                            "platform": {"priority": 7},
                        }
                    },
                }
            }
        },
    }
)


def api_at(url: str, directory: Path, **given: Any) -> Any:
    """Return a hub with the profile above."""
    return running_api(url, directory, profile_sections=[PROFILE], images=IMAGES, **given)


async def start(api: TestApi, **body: Any) -> Any:
    """Ask for ann's server with these options; returns the answer."""
    return await api.call("POST", "/users/ann/server", body, token=ANN)


@pytest.mark.parametrize(
    "body",
    [
        {"profile": "workspace", "options": {"size": "large", "image": "r"}},
        {"profile": "workspace", "size": "large", "image": "r"},
        {"profile": "workspace", "size": "large", "image": "quay.io/site/r:4"},
        {"size": "large", "image--unlisted-choice": "quay.io/site/r:4", "colour": "blue"},
    ],
    ids=["ours", "beside", "reference", "unlisted"],
)
async def test_what_was_chosen_is_frozen(
    database_url: str, tmp_path: Path, body: dict[str, Any]
) -> None:
    """Said as our clients or as those of KubeSpawner say it, it is resolved once, at admission."""
    async with api_at(database_url, tmp_path) as api:
        answer = await start(api, **body)
        [launch] = await api.hub.live()
        server = (await api.get("/users/ann", token=ANN))["servers"][""]

    assert answer.status_code == 201
    assert launch.spec["image"] == "quay.io/site/r:4"
    assert launch.spec["platform"] == {"priority": 7}
    assert launch.spec["environment"] == {"A": "1", "B": "2"}
    assert launch.spec["resources"]["cpu"] == 4
    assert launch.spec["resources"]["memory_bytes"] == 16 * GIB
    assert launch.spec["options"]["size"] == "large"
    assert launch.spec["options"]["image"] == "r"
    assert server["user_options"]["options"] == {"size": "large", "image": "r"}


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({"options": {"size": "huge"}}, "size", "size: huge is none of small, large"),
        ({"options": {"image": "docker.io/x"}}, "image", "Only images of quay.io."),
        ({"options": {"size": "large"}}, "size", "policy everyone allows 2"),
        ({"options": {"cpu": 1, "colour": 1}}, "colour", "has no option colour"),
        ({"size": "huge"}, "size", "size: huge is none of small, large"),
        ({"size": 3}, "size", "size: 3 is none of small, large"),
        ({"image--unlisted-choice": "docker.io/x"}, "image", "Only images of quay.io."),
    ],
)
async def test_what_cannot_be_is_refused_by_its_name(
    tmp_path: Path, body: dict[str, Any], field: str, words: str
) -> None:
    """With the name of the choice or field; nothing is started with something else instead."""
    policies = [PolicySection(name="everyone", cpu=2)]
    url = f"sqlite:///{tmp_path}/hub.db"
    async with api_at(url, tmp_path, policies=policies) as api:
        answer = await start(api, profile="workspace", **body)
        assert await api.hub.live() == []
        offered = await api.get("/perijove/users/ann/options", token=ANN)

    assert answer.status_code == 400
    assert words in answer.json()["message"]
    [profile] = offered["profiles"]
    properties = profile["schema"]["properties"]
    assert properties["size"]["enum"] == ["small"]
    assert field in properties or field == "colour"
